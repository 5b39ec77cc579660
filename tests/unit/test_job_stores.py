"""scheduler/records: jobs, by one contract for every place that keeps them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from pantala.core.sched.jobs import (
    KEPT,
    MAX_OVER,
    MAX_OVER_PAIRS,
    JobOrder,
    JobPlan,
    JobRow,
    Outcome,
    PlannedHost,
    outdated,
)
from pantala.core.sched.preheat import PairState
from pantala.errors import FeatureOff
from pantala.model.task import Kind
from pantala.scheduler.records.redis import RedisRecords
from pantala.scheduler.records.redis_link import Server
from pantala.scheduler.records.sqlite import SqliteRecords
from pantala.scheduler.records.store import RecordStore
from pantala.testing.redis_server import RedisServer

NOW = 1_700_000_000.0
ROW = JobRow("j1", Kind.CACHE, "all_peers", NOW, NOW + 3600.5, pairs=4)
HOSTS = (PlannedHost("h1", "one", "10.0.0.1"), PlannedHost("", "", "10.0.0.9"))
PLAN = JobPlan(
    (("http://o/a", "t1"), ("http://o/é", "t2")), HOSTS, ((0, 0), (0, 1), (1, 0), (1, 1))
)
HIDDEN = "what-nobody-may-find"
ORDER = JobOrder(
    "job", b"\x00\xff" + HIDDEN.encode(), (("http://o/a?" + HIDDEN, {"a": HIDDEN}), ("u", {}))
)
DONE = Outcome(0, PairState.DONE, HOSTS[0], 10, 10)
FAILED = Outcome(3, PairState.FAILED, HOSTS[1], 0, None, "nobody is there: 'é\"")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of this module."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
async def make(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[[], RecordStore]]:
    """Opens the same place anew each time."""
    made: list[RecordStore] = []
    if request.param == "redis":
        where = request.getfixturevalue("server")
        with closing(redis.Redis(port=where.port)) as client:
            client.flushall()

    def open_one() -> RecordStore:
        store: RecordStore
        if request.param == "redis":
            store = RedisRecords(Server("127.0.0.1", where.port), 7, clock=lambda: NOW)
        else:
            store = SqliteRecords(tmp_path / "records.db", lambda: NOW)
        made.append(store)
        return store

    yield open_one
    for store in made:
        await store.close()


class TestContract:
    """What holds wherever jobs are kept."""

    async def test_nothing_is_there(self, make: Callable[[], RecordStore]) -> None:
        """Asking for it is no error, nor is removing it."""
        jobs = make().jobs
        assert await jobs.rows() == []
        assert await jobs.plan("j1") is None
        assert await jobs.order("j1") is None
        assert await jobs.outcomes("j1") == []
        assert not await jobs.save(ROW, [DONE])
        await jobs.remove(["j1"])
        assert await jobs.rows() == []
        assert await jobs.outcomes("j1") == []

    async def test_what_is_put_is_there(self, make: Callable[[], RecordStore]) -> None:
        """Whole, for whoever comes next, and for others."""
        first = make()
        other = make()
        await first.jobs.put(ROW, PLAN, ORDER)
        await first.jobs.put(replace(ROW, id="j2"), PLAN, ORDER)
        later = replace(ROW, done=1, failed=1, received=10)
        assert await first.jobs.save(later, [FAILED])
        assert await first.jobs.save(later, [DONE])
        await first.close()
        for jobs in (make().jobs, other.jobs):
            rows = await jobs.rows()
            assert sorted(rows, key=lambda row: row.id) == [later, replace(ROW, id="j2")]
            assert await jobs.plan("j1") == PLAN
            assert await jobs.order("j1") == ORDER
            assert await jobs.outcomes("j1") == [DONE, FAILED]
            assert await jobs.outcomes("j2") == []

    async def test_the_end(self, make: Callable[[], RecordStore]) -> None:
        """The order is gone, all else is there."""
        jobs = make().jobs
        await jobs.put(ROW, PLAN, ORDER)
        over = replace(ROW, done=3, failed=1, ended_at=NOW + 5.25)
        many = [replace(DONE, number=number) for number in range(2500)]
        assert await jobs.save(over, many)
        assert await jobs.rows() == [over]
        assert await jobs.order("j1") is None
        assert await jobs.plan("j1") == PLAN
        assert await jobs.outcomes("j1") == many

    async def test_what_is_over_stays_over(self, make: Callable[[], RecordStore]) -> None:
        """Whoever was stopped in the middle of saying how far it is says nothing any more."""
        jobs = make().jobs
        await jobs.put(ROW, PLAN, ORDER)
        over = replace(ROW, done=3, failed=1, ended_at=NOW + 5.25)
        many = [replace(DONE, number=number) for number in range(2500)]
        for _ in range(2):  # who has heard no answer says it again
            assert await jobs.save(over, many)
        assert not await jobs.save(replace(ROW, done=1), [replace(FAILED, number=0)])
        assert not await jobs.save(replace(over, failed=2, ended_at=NOW + 7), [FAILED])
        assert await jobs.rows() == [over]
        assert await jobs.outcomes("j1") == many

    async def test_it_is_removed(self, make: Callable[[], RecordStore]) -> None:
        """And no other; it does not come back."""
        jobs = make().jobs
        for number in range(3):
            await jobs.put(replace(ROW, id=f"j{number}"), PLAN, ORDER)
            await jobs.save(replace(ROW, id=f"j{number}"), [DONE])
        await jobs.remove(["j0", "j2", "unknown"])
        await jobs.remove([])
        assert [row.id for row in await jobs.rows()] == ["j1"]
        assert not await jobs.save(replace(ROW, id="j0"), [DONE])
        assert await jobs.outcomes("j0") == []
        assert await jobs.outcomes("j1") == [DONE]

    async def test_many_at_once(self, make: Callable[[], RecordStore]) -> None:
        """Of several schedulers."""
        stores = [make() for _ in range(3)]
        await asyncio.gather(
            *(
                store.jobs.put(replace(ROW, id=f"{n} {m}"), PLAN, ORDER)
                for n, store in enumerate(stores)
                for m in range(30)
            )
        )
        assert len(await stores[0].jobs.rows()) == 90


def in_files(directory: Path) -> tuple[bytes, list[int]]:
    """All that is in a directory's files, and who may read them."""
    files = sorted(directory.iterdir())
    content = b"".join(path.read_bytes() for path in files)
    return content, [path.stat().st_mode for path in files]


async def test_nothing_secret_stays_in_the_file(tmp_path: Path) -> None:
    """When a job is over, its order is in no byte of it; until then others cannot read it."""
    store = SqliteRecords(tmp_path / "records.db")
    await store.jobs.put(ROW, PLAN, ORDER)
    content, modes = in_files(tmp_path)
    assert HIDDEN.encode() in content
    assert {mode & 0o077 for mode in modes} == {0}
    await store.jobs.save(replace(ROW, ended_at=NOW), [DONE])
    assert HIDDEN.encode() not in in_files(tmp_path)[0]
    await store.close()


async def test_a_plan_is_written_once(tmp_path: Path) -> None:
    """Not with each word on how far its job is: it may be megabytes, and is said every second."""
    store = SqliteRecords(tmp_path / "records.db")
    await store.jobs.put(ROW, replace(PLAN, pairs=((0, 0),) * 100_000), ORDER)
    await store._file.checkpoint()
    log = tmp_path / "records.db-wal"
    before = log.stat().st_size
    for number in range(5):
        await store.jobs.save(replace(ROW, done=number), [replace(DONE, number=number)])
    assert log.stat().st_size < before + 200_000
    await store.close()


async def test_somebody_copies_the_file(tmp_path: Path) -> None:
    """The end of a job does not wait for that, or leases of others would end meanwhile."""
    store = SqliteRecords(tmp_path / "records.db")
    await store.jobs.put(ROW, PLAN, ORDER)
    with closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM job").fetchone() == (1,)
        began = time.monotonic()
        assert await store.jobs.save(replace(ROW, ended_at=NOW), [DONE])
        assert time.monotonic() < began + 4.0
    # Others' writes are waited for, as before.
    (patience,) = await store._file.read(lambda db: db.execute("PRAGMA busy_timeout").fetchone())
    assert patience == 5000
    await store.close()


async def test_nothing_secret_stays_in_redis(server: RedisServer) -> None:
    """Likewise of its keys; each ends by itself."""
    store = RedisRecords(Server("127.0.0.1", server.port), 7, clock=lambda: NOW)
    with closing(redis.Redis(port=server.port)) as client:
        client.flushall()
        await store.jobs.put(ROW, PLAN, ORDER)
        await store.jobs.save(ROW, [DONE])
        left = {
            key.decode().rpartition("pantala-jobs")[2]: client.ttl(key)
            for key in client.scan_iter()
        }
        assert left.pop("") == -1
        assert 3600 < left.pop(":j1:order") <= 2 * 3600 + 1
        assert set(left) == {":j1", ":j1:plan", ":j1:pairs"}
        assert all(KEPT < seconds < KEPT + 7300 for seconds in left.values())
        await store.jobs.save(replace(ROW, ended_at=NOW), [])
        assert not [key for key in client.scan_iter() if b"order" in key]
        client.delete("scheduler:scheduler-clusters:7:pantala-jobs:j1")
        assert await store.jobs.rows() == []
        assert client.smembers("scheduler:scheduler-clusters:7:pantala-jobs") == set()
    await store.close()


async def test_no_place(tmp_path: Path) -> None:
    """To look is no error; to write says which setting to change."""
    (tmp_path / "file").touch()
    for where in (None, tmp_path / "file" / "records.db"):
        store = SqliteRecords(where)
        assert await store.jobs.rows() == []
        with pytest.raises(FeatureOff, match=r"database\.sqlite\.path"):
            await store.jobs.put(ROW, PLAN, ORDER)
        await store.close()


def test_what_is_kept() -> None:
    """A day, and so many; those under way in any case."""
    running = replace(ROW, id="running", created_at=0.0)
    over = [replace(ROW, id=f"j{n}", ended_at=NOW + n) for n in range(MAX_OVER + 2)]
    assert outdated([running, *over], NOW + MAX_OVER) == ["j1", "j0"]
    assert outdated([running, *over[:3]], NOW + KEPT + 1) == ["j1", "j0"]
    huge = [replace(row, pairs=MAX_OVER_PAIRS) for row in over[:3]]
    assert outdated([running, *huge], NOW + 3) == ["j1", "j0"]
    assert outdated([replace(huge[0], pairs=2 * MAX_OVER_PAIRS)], NOW) == []
