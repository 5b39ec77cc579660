"""scheduler/kept_jobs.py: jobs that outlive their scheduler."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis import Redis
from structlog.testing import capture_logs

from pantala.core.sched.jobs import JobOrder, JobRow
from pantala.errors import Unavailable
from pantala.pb import common_pb2, dfdaemon_pb2, jobs_pb2, jobs_pb2_grpc, scheduler_pb2
from pantala.rpc.server import new_server
from pantala.rpc.service import add_service
from pantala.rpc.transport import bind
from pantala.scheduler.records.sqlite import SqliteRecords
from pantala.testing.announce import Swarm, swarm, until
from pantala.testing.redis_server import RedisServer

URLS = [f"http://127.0.0.1:9/{n}" for n in range(6)]

Place = dict[str, Any]


class Host:
    """A daemon played by hand: it fetches what it is let fetch."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.blocked: set[str] = set()
        self.fails: set[str] = set()
        self.port = 0

    async def DownloadTask(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Of 7 bytes."""
        self.asked.append(request.download)
        while request.download.url in self.blocked:  # noqa: ASYNC110  set from anywhere
            await asyncio.sleep(0.02)
        if request.download.url in self.fails:
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        started = dfdaemon_pb2.DownloadTaskStartedResponse(content_length=7)
        yield dfdaemon_pb2.DownloadTaskResponse(download_task_started_response=started)
        piece = dfdaemon_pb2.DownloadPieceFinishedResponse(piece=common_pb2.Piece(length=7))
        yield dfdaemon_pb2.DownloadTaskResponse(download_piece_finished_response=piece)

    @property
    def urls(self) -> list[str]:
        """What it was asked for, in that order."""
        return [wanted.url for wanted in self.asked]


@pytest.fixture
async def host(stack: AsyncExitStack) -> Host:
    """One that is there whatever becomes of schedulers."""
    played, server = Host(), new_server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", played)
    played.port = bind(server, "127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return played


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where jobs are written down."""
    if request.param == "sqlite":
        return {"database__sqlite__path": str(tmp_path / "rows.db")}
    redis: RedisServer = request.getfixturevalue("redis")
    return {"database__redis__addrs": [redis.address]}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Of the test alone."""
    with RedisServer(tmp_path) as running:
        yield running


@asynccontextmanager
async def life(place: Place, host: Host | None, **more: Any) -> AsyncIterator[Swarm]:
    """A scheduler that knows the host."""
    async with swarm(**(place | more)) as made:
        if host is not None:
            await made.host("a", port=host.port)
        yield made


def stub(one: Swarm) -> Any:
    """Its jobs."""
    return jobs_pb2_grpc.JobsStub(one.channel)


async def listed(one: Swarm) -> dict[str, Any]:
    """All jobs, by their ids."""
    answer = await stub(one).List(jobs_pb2.ListJobsRequest())
    return {job.id: job for job in answer.jobs}


async def shown(one: Swarm, job_id: str) -> tuple[Any, list[Any]]:
    """A job, and its pairs."""
    said = [each async for each in stub(one).Show(jobs_pb2.ShowJobRequest(id=job_id))]
    pairs = [pair for each in said[2:] for pair in each.news.pairs]
    assert said[1].plan.pairs == len(pairs)
    return said[0].job, pairs


async def begin(one: Swarm, *urls: str, headers: dict[str, str] | None = None) -> str:
    """Have a job begun that goes on by itself; its id."""
    wanted = common_pb2.Download(request_header=headers or {})
    request = jobs_pb2.PreheatRequest(
        download=wanted,
        urls=urls,
        targets=jobs_pb2.Targets(scope="all_peers"),
        concurrent_task_count=2,
        detach=True,
    )
    call = stub(one).Preheat(request)
    said = await call.read()
    call.cancel()
    assert said.plan.durable
    return str(said.plan.job_id)


def over(one: Swarm, job_id: str) -> Callable[[], Any]:
    """Whether a job is over, and written down so."""

    async def ask() -> bool:
        return bool((await listed(one))[job_id].HasField("ended_at"))

    return ask


async def test_the_next_life_carries_it_on(place: Place, host: Host) -> None:
    """What was over is not asked again; what was under way is; what came of it all is known."""
    host.blocked = set(URLS[2:])
    host.fails = {URLS[1]}
    async with life(place, host) as first:
        job_id = await begin(first, *URLS, headers={"authorization": "Bearer secret"})

        async def two() -> bool:
            job = (await listed(first))[job_id]
            return bool(job.done + job.failed == 2 and len(host.asked) == 4)

        await until(two)
    host.blocked = set()
    async with life(place, host) as second:
        await until(over(second, job_id))
        job, pairs = await shown(second, job_id)
        assert (job.pairs, job.done, job.failed, job.received) == (6, 5, 1, 35)
        assert [pair.state for pair in pairs] == [
            jobs_pb2.FAILED if pair.number == 1 else jobs_pb2.DONE for pair in pairs
        ]
        assert "gone" in pairs[1].reason
    assert host.urls.count(URLS[0]) == host.urls.count(URLS[1]) == 1
    assert [host.urls.count(url) for url in URLS[2:]] == [2, 2, 1, 1]
    assert {wanted.request_header["authorization"] for wanted in host.asked} == {"Bearer secret"}
    async with life(place, None) as third:
        job, pairs = await shown(third, job_id[:6])
        assert (job.id, job.done, job.failed, len(pairs)) == (job_id, 5, 1, 6)


async def test_one_of_several_carries_it_on(place: Place, host: Host) -> None:
    """The others tell how far it is; if it goes, another takes over, and no pair is done twice."""
    host.blocked = set(URLS[1:])
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(life(place, host)) for _ in range(2)]
        async with life(place, host) as first:
            job_id = await begin(first, *URLS)

            async def seen() -> bool:
                return all([(await listed(one))[job_id].done == 1 for one in others])

            await until(seen)
            await asyncio.sleep(4.0)  # they look whether somebody has it, more than once
            assert len(host.asked) == 3
        host.blocked = set()
        for one in others:
            await until(over(one, job_id))
        assert sorted(host.urls) == sorted([*URLS, *URLS[1:3]])


async def test_a_host_that_is_not_back_yet(place: Place, host: Host) -> None:
    """It is waited for; one that nobody knows any more has failed, in the end."""
    host.blocked = set(URLS)
    async with life(place, host) as first:
        job_id = await begin(first, *URLS)
        await until(lambda: _true(len(host.asked) == 2))
    host.blocked = set()
    async with life(place, None) as second:
        await asyncio.sleep(2.0)
        job, _ = await shown(second, job_id)
        assert (job.done, job.failed) == (0, 0)
        await second.host("a", port=host.port)
        await until(over(second, job_id))
        job, _ = await shown(second, job_id)
        assert job.done == 6


async def test_the_contracts_jobs(place: Place, host: Host) -> None:
    """They have nobody to tell, so they are written down, too."""
    host.blocked = {URLS[0]}
    async with life(place, host) as first:
        request = scheduler_pb2.PreheatFileRequest(url=URLS[0], scope="all_peers")
        await first.stub.PreheatFile(request)
        (job_id,) = await listed(first)
        await until(lambda: _true(len(host.asked) == 1))
    host.blocked = set()
    async with life(place, host) as second:
        await until(over(second, job_id))
        assert (await listed(second))[job_id].done == 1


async def test_who_wants_to_stay_does_not_leave_anything(place: Place, host: Host) -> None:
    """A job that ends with its caller is shown while it goes on, and is not written down."""
    host.blocked = {URLS[0]}
    async with life(place, host) as first:
        request = jobs_pb2.PreheatRequest(
            download=common_pb2.Download(),
            urls=[URLS[0]],
            targets=jobs_pb2.Targets(scope="all_peers"),
        )
        call = stub(first).Preheat(request)
        said = await call.read()
        assert not said.plan.durable
        (job,) = (await listed(first)).values()
        assert (job.id, job.durable) == (said.plan.job_id, False)
        call.cancel()
    async with life(place, host) as second:
        assert await listed(second) == {}


async def test_what_a_job_says_when_it_cannot_go_on(place: Place, host: Host) -> None:
    """Its URLs lead where jobs must not by now: each pair says so, and it is over."""
    host.blocked = set(URLS[1:])
    async with life(place, host) as first:
        job_id = await begin(first, *URLS)
        await until(lambda: _true(len(host.asked) == 3))
    with capture_logs() as logs:
        async with life(place, host, job__blockedNetworks=["127.0.0.0/8"]) as second:
            await until(over(second, job_id))
            job, pairs = await shown(second, job_id)
    assert (job.done, job.failed) == (1, 5)
    assert {pair.reason for pair in pairs[1:]} == {pairs[1].reason}
    assert "jobs keep away from 127.0.0.1" in pairs[1].reason
    assert "job cannot be carried on" in {line["event"] for line in logs}
    assert len(host.asked) == 3


async def test_time_goes_by_meanwhile(place: Place, host: Host, tmp_path: Path) -> None:
    """A job whose time is over when it is found has failed, as far as it was not done."""
    del tmp_path
    host.blocked = set(URLS[1:])
    async with life(place, host) as first:
        request = jobs_pb2.PreheatRequest(
            download=common_pb2.Download(),
            urls=URLS,
            targets=jobs_pb2.Targets(scope="all_peers"),
            detach=True,
        )
        request.timeout.FromMilliseconds(1500)
        call = stub(first).Preheat(request)
        job_id = (await call.read()).plan.job_id
        call.cancel()
        await until(lambda: _true(len(host.asked) == 6))
    await asyncio.sleep(1.5)
    async with life(place, host) as second:
        await until(over(second, job_id))
        job, pairs = await shown(second, job_id)
    assert (job.done, job.failed) == (1, 5)
    assert pairs[1].reason == "not done when the job's 1.5 s were over"


async def test_no_place(tmp_path: Path, host: Host) -> None:
    """Jobs go on in memory, with one warning; what came of them is known for a while."""
    (tmp_path / "file").touch()
    place = {"database__sqlite__path": str(tmp_path / "file" / "rows.db")}
    with capture_logs() as logs:
        async with life(place, host) as one:
            for url in URLS[:3]:
                await one.stub.PreheatFile(
                    scheduler_pb2.PreheatFileRequest(url=url, scope="all_peers")
                )

            async def done() -> bool:
                return [job.done for job in (await listed(one)).values()] == [1, 1, 1]

            await until(done)
            assert not any(job.durable for job in (await listed(one)).values())
    warnings = [line for line in logs if line["event"].startswith("jobs cannot be written down")]
    assert len(warnings) == 1
    assert "database.sqlite.path" in warnings[0]["why"]


@pytest.mark.parametrize("where", ["none", "file/rows.db"])
async def test_nothing_is_written_where_there_is_no_place(
    where: str, tmp_path: Path, host: Host
) -> None:
    """To find nothing there does not mean that jobs are written down again."""
    (tmp_path / "file").touch()
    path = where if where == "none" else str(tmp_path / where)
    with capture_logs() as logs:
        async with life({"database__sqlite__path": path}, host) as one:
            for url in URLS[:2]:
                request = scheduler_pb2.PreheatFileRequest(url=url, scope="all_peers")
                await one.stub.PreheatFile(request)
                await asyncio.sleep(2.5)
    told = [line["event"] for line in logs if "written down" in line["event"]]
    assert told == ["jobs cannot be written down; those under way end with this scheduler"]


async def test_it_is_written_down_and_nobody_said_so(
    place: Place, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost: it is not carried on beside itself, and outlives its scheduler."""
    host.blocked = set(URLS)
    async with life(place, host) as one:
        jobs = one.scheduler._records.jobs
        put = jobs.put

        async def lost(*what: Any) -> None:
            await put(*what)
            raise Unavailable("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "put", lost)
            request = scheduler_pb2.PreheatFileRequest(url=URLS[0], scope="all_peers")
            await one.stub.PreheatFile(request)

        async def durable() -> bool:
            return [job.durable for job in (await listed(one)).values()] == [True]

        await until(durable)
        assert len(host.asked) == 1
    host.blocked = set()
    async with life(place, host) as other:
        (job_id,) = await listed(other)
        await until(over(other, job_id))
    assert len(host.asked) == 2


async def test_redis_comes_back_empty(redis: RedisServer, host: Host) -> None:
    """A job is done all the same, and does not pretend to outlive its scheduler any more."""
    host.blocked = set(URLS[2:])
    with capture_logs() as logs:
        async with life({"database__redis__addrs": [redis.address]}, host) as one:
            job_id = await begin(one, *URLS)
            await until(lambda: _true(len(host.asked) == 4))
            with closing(Redis(port=redis.port)) as client:
                client.flushall()
            host.blocked = {URLS[5]}

            async def known() -> bool:
                job = (await listed(one))[job_id]
                return bool(job.done == 5 and not job.durable)

            await until(known)
    told = {line["event"]: line for line in logs}
    gone = told["what was written down of a job is gone; it ends with this scheduler"]
    assert gone["job"] == job_id
    assert "interrupted" not in told["job ended"]
    assert told["job ended"]["failed"] == 1


async def test_who_was_away_for_long_does_not_undo_an_end(
    place: Place, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between its look at the lease and its word, it finds that another has ended it."""
    host.blocked = set(URLS[1:])
    async with life(place, host) as one, life(place, host) as other:
        job_id = await begin(one, *URLS)
        kept = one.scheduler._jobs.kept
        (mine,) = kept._mine.values()
        monkeypatch.setattr(mine, "renewed", math.inf)  # it believes so
        await other.scheduler._records.jobs.save(replace(mine.job.row, ended_at=5.0), [])
        host.blocked = set(URLS[2:])
        await until(lambda: _true(mine.job.over))
        assert mine.job.interrupted
        assert (await listed(one))[job_id].ended_at.seconds == 5


async def test_redis_gone_and_back(redis: RedisServer, host: Host) -> None:
    """A job goes on meanwhile, and is written down to its end when Redis is back."""
    place = {"database__redis__addrs": [redis.address]}
    host.blocked = set(URLS[1:])
    async with life(place, host) as one:
        job_id = await begin(one, *URLS)
        await until(lambda: _true(len(host.asked) == 3))
        redis.kill()
        host.blocked = set()
        await until(lambda: _true(len(host.asked) == 6))
        answer = await stub(one).List(jobs_pb2.ListJobsRequest(), timeout=20)
        assert [job.done for job in answer.jobs] == [6]
        assert f"Redis at {redis.address}" in answer.trouble
        redis.start()
        await asyncio.sleep(2.5)
    async with life(place, None) as other:
        job, pairs = await shown(other, job_id)
        assert (job.done, job.HasField("ended_at"), len(pairs)) == (6, True, 6)


async def test_what_cannot_be_shown(place: Place, host: Host) -> None:
    """It says why."""
    async with life(place, host) as one:
        for job_id, code in (
            ("", grpc.StatusCode.INVALID_ARGUMENT),
            ("zz", grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await shown(one, job_id)
            assert caught.value.code() is code


async def test_rows_that_make_no_sense(tmp_path: Path, host: Host) -> None:
    """A job that cannot be read is over, with a line; others are carried on all the same."""
    path = tmp_path / "rows.db"
    host.blocked = set(URLS)
    async with life({"database__sqlite__path": str(path)}, host) as first:
        ids = [await begin(first, url) for url in URLS[:4]]
        await until(lambda: _true(len(host.asked) == 4))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE job_text SET plan = 'nonsense' WHERE job_id = ?", (ids[0],))
        db.execute("UPDATE job_text SET plan = '{}' WHERE job_id = ?", (ids[1],))
        db.execute("UPDATE job_text SET secret = NULL WHERE job_id = ?", (ids[2],))
        db.commit()
    host.blocked = set()
    with capture_logs() as logs:
        async with life({"database__sqlite__path": str(path)}, host) as second:
            for job_id in ids:
                await until(over(second, job_id))
            assert [(await listed(second))[job_id].done for job_id in ids] == [0, 0, 0, 1]
            assert second.scheduler._loops.failing() == []
    told = [line for line in logs if line["event"] == "job cannot be carried on"]
    assert {line["job"] for line in told} == set(ids[:3])


async def test_old_jobs_go(tmp_path: Path, host: Host) -> None:
    """A day after their end."""
    path = tmp_path / "rows.db"
    async with life({"database__sqlite__path": str(path)}, host) as one:
        job_id = await begin(one, URLS[0])
        await until(over(one, job_id))

        async def written() -> bool:
            return (await rows())[0].ended_at is not None

        async def rows() -> list[JobRow]:
            return await store.jobs.rows()

        store = SqliteRecords(path)
        await until(written)
        (row,) = await rows()
        old = JobRow("old", row.kind, row.scope, 1.0, 2.0, pairs=0, ended_at=3.0)
        plan = await store.jobs.plan(row.id)
        assert plan is not None

        await store.jobs.put(old, plan, JobOrder("job", b"", ()))
        assert len(await rows()) == 2

        async def gone() -> bool:
            return [each.id for each in await rows()] == [job_id]

        await until(gone)
        await store.close()


async def _true(value: bool) -> bool:  # noqa: FBT001  what until() asks
    return value
