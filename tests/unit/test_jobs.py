"""scheduler/jobs.py: preheating, and who holds what, over real gRPC."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from pantala.core.sched.preheat import Pair, Summary
from pantala.daemon.app import Daemon
from pantala.errors import Unavailable
from pantala.model.announce import HostFacts
from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2, jobs_pb2, jobs_pb2_grpc, scheduler_pb2
from pantala.rpc.convert import duration
from pantala.rpc.daemon_dialects import STORED_AS_KEY
from pantala.rpc.server import new_server
from pantala.rpc.service import add_service
from pantala.rpc.transport import bind, channel_options
from pantala.scheduler import job_lists, jobs
from pantala.scheduler.app import Scheduler
from pantala.scheduler.hosts import ask
from pantala.scheduler.job import Job
from pantala.scheduler.orders import file_order, planned
from pantala.testing import inside
from pantala.testing.announce import Swarm, swarm, until
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

STOCK = "v2.3.0"
URL = "http://127.0.0.1:9/f"

Names = dict[str, list[Any]]


class Host:
    """A daemon played by hand, which says what it is told to say."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.entries: list[dfdaemon_pb2.Entry] = []
        self.release = asyncio.Event()
        self.release.set()
        self.fails: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.silent = False
        self.trailing: tuple[tuple[str, str], ...] = ()
        self.at_once = self.most = 0

    async def DownloadTask(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Of 7 bytes."""
        async for answer in self._download(request.download, context, "Task"):
            yield answer

    async def DownloadCacheTask(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Likewise."""
        async for answer in self._download(request, context, "CacheTask"):
            yield answer

    async def _download(self, wanted: Any, context: Any, word: str) -> AsyncIterator[Any]:
        self.asked.append(wanted)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.release.wait()
            if wanted.url in self.fails:
                await context.abort(*self.fails[wanted.url])
            if self.silent:
                return
            response = getattr(dfdaemon_pb2, f"Download{word}Response")
            started = getattr(dfdaemon_pb2, f"Download{word}StartedResponse")(content_length=7)
            arm = {"Task": "task", "CacheTask": "cache_task"}[word]
            yield response(**{f"download_{arm}_started_response": started})
            piece = dfdaemon_pb2.DownloadPieceFinishedResponse(piece=common_pb2.Piece(length=7))
            yield response(download_piece_finished_response=piece)
            context.set_trailing_metadata(self.trailing)
        finally:
            self.at_once -= 1

    async def ListTaskEntries(self, _: Any, __: Any) -> Any:  # noqa: N802  the contract's name
        """What is in a directory."""
        return dfdaemon_pb2.ListTaskEntriesResponse(entries=self.entries)


@asynccontextmanager
async def host(cluster: Swarm, name: str, **facts: Any) -> AsyncIterator[Host]:
    """One that has announced itself."""
    played, server = Host(), new_server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", played)
    port = bind(server, "127.0.0.1:0")
    await server.start()
    await cluster.host(name, port=port, **facts)
    try:
        yield played
    finally:
        await server.stop(None)


@pytest.fixture
async def cluster(stack: AsyncExitStack) -> Swarm:
    """A scheduler."""
    return await stack.enter_async_context(swarm())


def preheat(cluster: Swarm, *urls: str, kind: Kind = Kind.STANDARD, **fields: Any) -> Any:
    """The stream of a job."""
    targets = {
        key: fields.pop(key) for key in ("scope", "ips", "count", "percentage") if key in fields
    }
    number = common_pb2.TaskType.ValueType(kind.value)
    wanted = common_pb2.Download(type=number, **fields.pop("download", {}))
    request = jobs_pb2.PreheatRequest(
        download=wanted, urls=urls, targets=jobs_pb2.Targets(**targets), **fields
    )
    stub: Any = jobs_pb2_grpc.JobsStub(cluster.channel)
    return stub.Preheat(request)


async def outcome(stream: Any) -> tuple[dict[tuple[str, str], tuple[str, str]], Any]:
    """What a job comes to: state and reason by URL and host, and its summary."""
    plan, pairs, summary = None, {}, None
    async for said in stream:
        assert summary is None
        if said.HasField("plan"):
            plan = said.plan
        elif said.HasField("news"):
            assert plan is not None
            for pair in said.news.pairs:
                assert pair.number < plan.pairs
                pairs[pair.number] = pair
        else:
            summary = said.summary
    assert plan is not None
    assert summary is not None
    assert len(pairs) == plan.pairs
    found = {
        (plan.tasks[pair.task].url, pair.target.host_id or pair.target.ip): (
            jobs_pb2.PairState.Name(pair.state),
            pair.reason,
        )
        for pair in pairs.values()
    }
    return found, summary


async def refused(call: Any) -> tuple[str, str]:
    """What a call or a stream is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (anext(aiter(call)) if hasattr(call, "__aiter__") else call)
    return caught.value.code().name, caught.value.details() or ""


# -- with daemons played by hand ---------------------------------------------------------------


async def test_each_pair_is_told_rightly(cluster: Swarm, stack: AsyncExitStack) -> None:
    """Two hosts at one address, of which one fails for one URL alone."""
    a, b = [await stack.enter_async_context(host(cluster, name)) for name in "ab"]
    b.fails[f"{URL}2"] = grpc.StatusCode.NOT_FOUND, "no such thing"
    found, summary = await outcome(preheat(cluster, f"{URL}1?k=s", f"{URL}2", scope="all_peers"))
    assert found == {
        (f"{URL}1", "a"): ("DONE", ""),
        (f"{URL}1", "b"): ("DONE", ""),
        (f"{URL}2", "a"): ("DONE", ""),
        (f"{URL}2", "b"): ("FAILED", "host b: no such thing"),
    }
    assert (summary.done, summary.failed, summary.received) == (3, 1, 21)
    assert sorted(each.url for each in a.asked) == [f"{URL}1?k=s", f"{URL}2"]


async def test_what_hosts_are_asked_with(cluster: Swarm, stack: AsyncExitStack) -> None:
    """All of it, and the tag besides: the task is the one that a caller of a host would have."""
    a = await stack.enter_async_context(host(cluster, "a", version=STOCK))
    b = await stack.enter_async_context(host(cluster, "b"))
    terms: dict[str, Any] = {"piece_length": 8 << 20, "scope": "all_peers", "priority": 5}
    request = scheduler_pb2.PreheatFileRequest(url=URL, tag="t", application="ap", **terms)
    request.header["X-A"] = "1"
    request.output_path = "/srv/x"
    request.timeout.CopyFrom(duration(60))
    await cluster.stub.PreheatFile(request)
    await until(lambda: _true(bool(a.asked and b.asked)))
    (wanted,) = a.asked
    assert (wanted.url, wanted.tag, wanted.application) == (URL, "t", "ap")
    assert (wanted.priority, wanted.piece_length) == (5, 8 << 20)
    assert dict(wanted.request_header) == {"X-A": "1"}
    assert "X-Amz-Signature" in wanted.filtered_query_params
    assert wanted.output_path == "/srv/x"
    assert 50 < wanted.timeout.seconds <= 60
    assert not wanted.need_back_to_source


async def _true(value: bool) -> bool:  # noqa: FBT001  what until wants
    return value


async def test_a_cache_task_is_for_ours_alone(cluster: Swarm, stack: AsyncExitStack) -> None:
    """A stock daemon is not asked: it would end."""
    ours = await stack.enter_async_context(host(cluster, "ours"))
    stock = await stack.enter_async_context(host(cluster, "stock", version=STOCK))
    full = await stack.enter_async_context(host(cluster, "full"))
    full.trailing = ((STORED_AS_KEY, "task"),)
    found, _ = await outcome(preheat(cluster, URL, kind=Kind.CACHE, scope="all_peers"))
    assert found == {
        (URL, "ours"): ("DONE", ""),
        (URL, "stock"): ("FAILED", "host stock is not pantala: a CACHE request would end it"),
        (URL, "full"): (
            "FAILED",
            "no room in memory: it is there as a task, on disk (storage.cacheOverflow)",
        ),
    }
    assert len(ours.asked) == 1
    assert not stock.asked


async def test_a_single_seed_that_fails_is_no_success(
    cluster: Swarm, stack: AsyncExitStack
) -> None:
    """Another is asked if it may do better; what the last one says is told."""
    seeds = {
        name: await stack.enter_async_context(host(cluster, name, type=1)) for name in ("s", "t")
    }
    found, _ = await outcome(preheat(cluster, URL))
    ((_, first),) = found
    other = next(name for name in seeds if name != first)
    assert found == {(URL, first): ("DONE", "")}
    assert not seeds[other].asked  # a retry asks the same seed

    seeds[first].fails[URL] = grpc.StatusCode.UNAVAILABLE, "going"
    found, _ = await outcome(preheat(cluster, URL))
    assert found == {(URL, other): ("DONE", "")}

    seeds[first].fails[URL] = grpc.StatusCode.INVALID_ARGUMENT, "never"
    found, summary = await outcome(preheat(cluster, URL))
    assert found == {(URL, first): ("FAILED", f"host {first}: never")}
    assert (summary.done, summary.failed) == (0, 1)


async def test_a_host_that_says_nothing_is_not_done(cluster: Swarm, stack: AsyncExitStack) -> None:
    """Nor is one that is gone, or an address where nobody is."""
    quiet = await stack.enter_async_context(host(cluster, "quiet"))
    quiet.silent = True
    async with host(cluster, "gone", ip="127.0.0.2"):
        pass
    ips = ["127.0.0.1", "127.0.0.2", "127.0.0.9"]
    found, _ = await outcome(preheat(cluster, URL, scope="all_peers", ips=ips))
    assert found[URL, "quiet"] == ("FAILED", "host quiet says that it is done, and nothing of what")
    assert found[URL, "gone"][0] == "FAILED"
    assert found[URL, "127.0.0.9"] == ("FAILED", "no host of that scope is known at 127.0.0.9")


async def test_a_host_without_power_is_asked_once(cluster: Swarm) -> None:
    """The others of its files fail at once, until it is heard of again."""
    async with host(cluster, "gone") as gone:
        pass
    terms: dict[str, Any] = {"scope": "all_peers", "concurrent_task_count": 1}
    urls = [f"{URL}{number}" for number in range(3)]
    with capture_logs() as logs:
        found, _ = await outcome(preheat(cluster, *urls, **terms))
    whys = {why for _, why in found.values()}
    assert len(whys) == 1  # that of the first
    assert {state for state, _ in found.values()} == {"FAILED"}
    assert sum(log["event"] == "not preheated" for log in logs) == 3
    assert not gone.asked

    async with host(cluster, "gone") as back:
        job = cluster.scheduler._jobs._preheating
        known = cluster.scheduler._world.hosts["gone"]
        last = Job(file_order(scheduler_pb2.PreheatFileRequest(url=URL)), (), ())
        last.lost["gone"] = known.heard_at + 1, "away"
        with pytest.raises(Unavailable, match="away"):
            job._present(last, known.facts, Kind.STANDARD)
        last.lost["gone"] = known.heard_at - 1, "away"
        assert job._present(last, known.facts, Kind.STANDARD).id == "gone"
        found, _ = await outcome(preheat(cluster, *urls, **terms))
        assert {state for state, _ in found.values()} == {"DONE"}
        assert len(back.asked) == 3


async def test_a_caller_who_leaves_a_large_job(cluster: Swarm, stack: AsyncExitStack) -> None:
    """A line for each pair that nobody waits for would keep the scheduler busy for seconds."""
    slow = await stack.enter_async_context(host(cluster, "slow"))
    slow.release.clear()
    with capture_logs() as logs:
        stream = preheat(cluster, *(f"{URL}{n}" for n in range(200)), scope="all_peers")
        await stream.read()
        stream.cancel()
        await until(lambda: _true(any(log["event"] == "job ended" for log in logs)))
    assert sum(log["event"] == "not preheated" for log in logs) == 20
    (rest,) = [log for log in logs if log["event"] == "not preheated either"]
    assert rest["pairs"] == 180
    assert "its caller left" in rest["why"]


async def test_a_large_job_is_shown_bit_by_bit(
    cluster: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pairs become messages as they are sent, for others are waiting, too."""
    made: list[int] = []

    def message(pair: Pair) -> jobs_pb2.PreheatPair:
        made.append(pair.number)
        return jobs_pb2.PreheatPair(number=pair.number)

    monkeypatch.setattr(job_lists, "pair_message", message)
    ours = cluster.scheduler._jobs
    pairs = [Pair(number, 0, HostFacts("h", "h", "127.0.0.1", 0)) for number in range(5000)]
    job = Job(file_order(scheduler_pb2.PreheatFileRequest(url=URL)), (), pairs)
    ours._preheating.jobs[job.id] = job
    said = ours._lists.one(job.id)
    for expected in (0, 0, 2000, 4000, 5000):
        await anext(said)
        assert len(made) == expected


async def test_limits_on_what_goes_on_at_once(cluster: Swarm, stack: AsyncExitStack) -> None:
    """Of URLs, and of hosts of each."""
    hosts = [await stack.enter_async_context(host(cluster, name)) for name in "abcd"]
    for each in hosts:
        each.release.clear()
    urls = [f"{URL}{n}" for n in range(6)]
    terms: dict[str, Any] = {"concurrent_task_count": 2, "concurrent_peer_count": 3}
    stream = preheat(cluster, *urls, scope="all_peers", **terms)
    running = asyncio.ensure_future(outcome(stream))
    await until(lambda: _true(sum(each.at_once for each in hosts) == 6))
    await asyncio.sleep(0.1)  # nothing more comes
    assert sum(each.at_once for each in hosts) == 6
    assert all(each.most <= 2 for each in hosts)
    for each in hosts:
        each.release.set()
    _, summary = await running
    assert summary.done == 24
    assert all(each.most <= 2 for each in hosts)


async def test_time_is_up(cluster: Swarm, stack: AsyncExitStack) -> None:
    """What is not done has failed, whether it was begun or not."""
    slow = await stack.enter_async_context(host(cluster, "slow"))
    slow.release.clear()
    terms: dict[str, Any] = {"timeout": duration(0.3), "concurrent_task_count": 1}
    found, _ = await outcome(preheat(cluster, f"{URL}1", f"{URL}2", scope="all_peers", **terms))
    why = "not done when the job's 0.3 s were over"
    assert found == {(f"{URL}{n}", "slow"): ("FAILED", why) for n in (1, 2)}
    await until(lambda: _true(slow.at_once == 0))


@pytest.mark.parametrize("detach", [False, True])
async def test_a_caller_that_leaves(cluster: Swarm, stack: AsyncExitStack, detach: bool) -> None:  # noqa: FBT001  a parameter
    """His job begins nothing more, unless he wanted it to go on."""
    slow = await stack.enter_async_context(host(cluster, "slow"))
    slow.release.clear()
    terms: dict[str, Any] = {"detach": detach, "concurrent_task_count": 1}
    stream = preheat(cluster, f"{URL}1", f"{URL}2", scope="all_peers", **terms)
    assert (await anext(aiter(stream))).plan.pairs == 2
    await until(lambda: _true(len(slow.asked) == 1))
    stream.cancel()
    if not detach:
        await until(lambda: _true(slow.at_once == 0))
    slow.release.set()
    if detach:
        await until(lambda: _true(len(slow.asked) == 2))
    assert len(slow.asked) == 1 + detach
    metrics = cluster.scheduler._metrics
    await until(lambda: _true(b"dragonfly_scheduler_jobs 0.0" in metrics.render()))
    told = b'preheat_pair_failure_total{task_type="STANDARD"} ' + (b"0.0" if detach else b"2.0")
    assert told in metrics.render()


async def test_a_job_that_is_given_up_before_it_begins(
    cluster: Swarm, stack: AsyncExitStack
) -> None:
    """It is over all the same, and leaves its place."""
    await stack.enter_async_context(host(cluster, "a"))
    request = scheduler_pb2.PreheatFileRequest(url=URL, scope="all_peers")
    order = file_order(request)
    preheating = cluster.scheduler._jobs._preheating
    job = preheating.prepare(order, planned(order, [replace(order.wanted, url=URL)]))
    preheating.begin(job)
    job.cancel()
    await asyncio.wait_for(job.changed.wait(), 10)
    assert job.over
    assert job.ledger.summary == Summary(done=0, failed=1, received=0)
    assert job.ledger.pairs[0].reason.startswith("the job was given up")
    assert not preheating._running


async def test_directories(cluster: Swarm, stack: AsyncExitStack) -> None:
    """Their files, and not what lies deeper."""
    a = await stack.enter_async_context(host(cluster, "a", version=STOCK))
    root = "s3://bucket/dir/"
    call = cluster.stub.PreheatFile(scheduler_pb2.PreheatFileRequest(url=root, scope="all_peers"))
    code, words = await refused(call)
    assert code == "INVALID_ARGUMENT"
    assert words.startswith(f"{root}: a URL that ends with a slash is a directory")
    a.entries = [
        *(dfdaemon_pb2.Entry(url=f"{root}{n}", content_length=7) for n in range(3)),
        dfdaemon_pb2.Entry(url=f"{root}below/", is_dir=True),
    ]
    found, _ = await outcome(preheat(cluster, root, scope="all_peers"))
    assert found == {(f"{root}{n}", "a"): ("DONE", "") for n in range(3)}


@pytest.mark.parametrize(
    ("url", "fields", "code", "words"),
    [
        ("", {}, "INVALID_ARGUMENT", "the URL cannot be parsed"),
        (URL, {"scope": "most"}, "INVALID_ARGUMENT", "scope 'most': want one of"),
        (URL, {"count": 201}, "INVALID_ARGUMENT", "count 201: want 1 to 200"),
        (URL, {"percentage": 0}, "INVALID_ARGUMENT", "percentage 0: want 1 to 100"),
        (URL, {"ips": ["10.9.9.9"]}, "INVALID_ARGUMENT", "no host of scope all_peers is known at"),
        (URL, {"concurrent_task_count": 101}, "INVALID_ARGUMENT", "concurrent_task_count 101"),
        (URL, {"concurrent_peer_count": -1}, "INVALID_ARGUMENT", "concurrent_peer_count -1"),
        (URL, {"timeout": duration(0)}, "INVALID_ARGUMENT", "timeout of 0 s"),
        (URL, {"piece_length": 5}, "INVALID_ARGUMENT", "piece_length 5: want"),
        (URL, {"priority": 1}, "PERMISSION_DENIED", "downloads of priority LEVEL1 are forbidden"),
        (URL, {"certificate_chain": [b"x"]}, "INVALID_ARGUMENT", "certificate_chain[0]: is no DER"),
        (URL, {"scope": "single_seed_peer"}, "UNAVAILABLE", "no seed is known here"),
        (
            "http://169.254.169.254/latest/meta-data",
            {},
            "PERMISSION_DENIED",
            "jobs keep away from 169.254.169.254: see job.blockedNetworks",
        ),
        (
            "http://[::ffff:a9fe:a9fe]/",
            {},
            "PERMISSION_DENIED",
            "jobs keep away from ::ffff:a9fe:a9fe (169.254.169.254)",
        ),
        ("http://2852039166/x", {}, "PERMISSION_DENIED", "jobs keep away from 169.254.169.254"),
        ("http://[fe80::1]/x", {}, "PERMISSION_DENIED", "jobs keep away from fe80::1"),
    ],
)
async def test_what_is_refused(
    cluster: Swarm,
    stack: AsyncExitStack,
    *,
    url: str,
    fields: dict[str, Any],
    code: str,
    words: str,
) -> None:
    """In one line, before anything is begun."""
    a = await stack.enter_async_context(host(cluster, "a"))
    request = scheduler_pb2.PreheatFileRequest(**{"url": url, "scope": "all_peers", **fields})
    got, said = await refused(cluster.stub.PreheatFile(request))
    assert (got, said[: len(words)]) == (code, words)
    assert "\n" not in said
    assert not a.asked


async def test_where_a_special_origin_is(cluster: Swarm, stack: AsyncExitStack) -> None:
    """Its endpoint is looked at like a URL."""
    await stack.enter_async_context(host(cluster, "a"))
    request = scheduler_pb2.PreheatFileRequest(url="s3://bucket/f", scope="all_peers")
    for endpoint in ("http://169.254.169.254", "169.254.169.254:80"):
        request.object_storage.endpoint = endpoint
        assert (await refused(cluster.stub.PreheatFile(request)))[0] == "PERMISSION_DENIED"
    request.object_storage.endpoint = "http://127.0.0.1:9"
    await cluster.stub.PreheatFile(request)


async def test_settings() -> None:
    """Networks can be added and left out, jobs be limited, and switched off."""
    request = scheduler_pb2.PreheatFileRequest(url="http://localhost:9/f", scope="all_peers")
    async with swarm(job__blockedNetworks=["127.0.0.0/8", "::1"]) as guarded:
        code, words = await refused(guarded.stub.PreheatFile(request))
        assert code == "PERMISSION_DENIED"
        assert words.startswith("jobs keep away from localhost (")
    async with swarm(job__limit=1) as small, host(small, "a") as a:
        a.release.clear()
        await small.stub.PreheatFile(request)
        code, words = await refused(preheat(small, URL, scope="all_peers"))
        assert (code, words[:23]) == ("RESOURCE_EXHAUSTED", "1 jobs are under way; t")
    async with swarm(job__enable=False) as off:
        question = scheduler_pb2.StatFileRequest(url=URL)
        for call in (off.stub.PreheatFile(request), off.stub.StatFile(question)):
            assert await refused(call) == (
                "FAILED_PRECONDITION",
                "job is not enabled: see job.enable",
            )


async def test_who_is_away_is_not_asked_of_each_file(
    cluster: Swarm, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time would take as long as a machine without power takes not to answer."""
    a = await stack.enter_async_context(host(cluster, "a"))
    a.entries = [dfdaemon_pb2.Entry(url=f"{URL}{n}") for n in range(40)]
    await cluster.host("gone", port=9)
    asked: Counter[str] = Counter()

    async def counted(host: HostFacts, *words: Any, **terms: Any) -> Any:
        asked[host.id] += 1
        return await ask(host, *words, **terms)

    monkeypatch.setattr(jobs, "ask", counted)
    call = cluster.stub.StatFile(scheduler_pb2.StatFileRequest(url=f"{URL}/"))
    assert not (await call).peers
    assert dict(await call.trailing_metadata())["pantala-unanswered"] == "2"
    assert asked["a"] == 40
    assert asked["gone"] < 20  # some at once, before the first is known to be in vain


# -- with daemons of ours ----------------------------------------------------------------------


@asynccontextmanager
async def real(tmp_path: Path, *names: str, **settings: Any) -> AsyncIterator[Any]:
    """A scheduler, and daemons by name."""
    async with AsyncExitStack() as stack:
        scheduler: Scheduler = await stack.enter_async_context(inside.scheduler())
        target = f"127.0.0.1:{scheduler.port}"
        channel = grpc.aio.insecure_channel(target, channel_options(target))
        await stack.enter_async_context(channel)
        daemons: dict[str, Daemon] = {}
        for name in names:
            made = inside.daemon(tmp_path, name, port=scheduler.port, **settings)
            daemons[name] = await stack.enter_async_context(made)
        cluster = Swarm(scheduler, channel)
        await until(lambda: _true(len(scheduler._world.hosts) == len(names)))
        yield cluster, daemons


async def test_files_into_memory(tmp_path: Path, origin: Origin) -> None:
    """They lie on every host, once read at the origin, by the id that a dfget there would have."""
    urls = [origin.url(f"/{n}") for n in range(3)]
    for n in range(3):
        origin.put(f"/{n}", Pattern(3_000_000 + n))
    async with real(tmp_path, "a", "b") as (cluster, daemons):
        found, summary = await outcome(preheat(cluster, *urls, kind=Kind.CACHE, scope="all_peers"))
        assert {state for state, _ in found.values()} == {"DONE"}
        assert len(found) == 6
        assert summary.received == 2 * sum(3_000_000 + n for n in range(3))
        for daemon in daemons.values():
            assert {h.id for h in daemon.stores} == {task_id(Kind.CACHE, url) for url in urls}
            assert all(h.complete and h.kind is Kind.CACHE for h in daemon.stores)
        assert sum(origin.sent(f"/{n}") for n in range(3)) < 1.1 * summary.received / 2
        # Said again, it is there already.
        found, _ = await outcome(preheat(cluster, *urls, kind=Kind.CACHE, scope="all_peers"))
        assert {state for state, _ in found.values()} == {"DONE"}


async def test_larger_than_a_hosts_memory(tmp_path: Path, origin: Origin) -> None:
    """It is refused before a byte is fetched, and says why."""
    origin.put("/large", Pattern(9 << 20))
    terms = {"storage__cacheCapacity": "8MiB"}
    async with real(tmp_path, "a", **terms) as (cluster, _):
        url = origin.url("/large")
        found, _ = await outcome(preheat(cluster, url, kind=Kind.CACHE, scope="all_peers"))
        ((state, why),) = found.values()
        assert state == "FAILED"
        assert "no room in memory: 9437184 bytes needed, capacity 8388608" in why
        assert origin.sent("/large") < 1000


async def test_an_origin_that_refuses(tmp_path: Path, origin: Origin) -> None:
    """What it says is told, of each host."""
    async with real(tmp_path, "a", "b") as (cluster, _):
        url = origin.url("/nothing")
        found, summary = await outcome(preheat(cluster, url, scope="all_peers"))
        assert summary.failed == 2
        assert all("404" in why for _, why in found.values())


async def test_stat_file(tmp_path: Path, origin: Origin) -> None:
    """Who holds it, by the same tag; and how many could not be asked."""
    origin.put("/f", Pattern(5_000_000))
    url = origin.url("/f")
    terms: dict[str, Any] = {"url": url, "tag": "x"}
    async with real(tmp_path, "a", "b") as (cluster, daemons):
        stat = cluster.stub.StatFile
        assert not (await stat(scheduler_pb2.StatFileRequest(**terms))).peers
        request = scheduler_pb2.PreheatFileRequest(**terms, scope="all_peers", count=1)
        await cluster.stub.PreheatFile(request)

        async def there() -> bool:
            peers = (await stat(scheduler_pb2.StatFileRequest(**terms))).peers
            return any(file.is_finished for peer in peers for file in peer.cached_files)

        await until(there)
        (peer,) = (await stat(scheduler_pb2.StatFileRequest(**terms))).peers
        holders = {d.config.host.hostname for d in daemons.values() if list(d.stores)}
        assert holders == {peer.hostname}
        assert [(file.url, file.is_finished) for file in peer.cached_files] == [(url, True)]
        assert not (await stat(scheduler_pb2.StatFileRequest(url=url))).peers
        await cluster.host("away", port=9)
        call = stat(scheduler_pb2.StatFileRequest(**terms))
        assert len((await call).peers) == 1
        assert dict(await call.trailing_metadata())["pantala-unanswered"] == "1"
