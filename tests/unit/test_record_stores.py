"""scheduler/records: one contract for every place that keeps rows, and what is each one's own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import PeerState, TaskState
from pantala.errors import FeatureOff, Unavailable
from pantala.model.task import Kind
from pantala.scheduler.records import sqlite_schema
from pantala.scheduler.records.layout import bitset
from pantala.scheduler.records.redis import RedisRecords
from pantala.scheduler.records.redis_link import Server
from pantala.scheduler.records.sqlite import SqliteRecords
from pantala.scheduler.records.store import RecordStore
from pantala.testing.redis_server import RedisServer

KIND = Kind.PERSISTENT_CACHE
P = "scheduler:scheduler-clusters:7:"


class Clock:
    """Unix time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Of the store."""
    return Clock()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of this module."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
def kind_of_store(request: pytest.FixtureRequest) -> str:
    """Each kind of place."""
    return str(request.param)


@pytest.fixture
async def make(
    kind_of_store: str, tmp_path: Path, clock: Clock, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[[], RecordStore]]:
    """Opens the same place anew each time: what is closed and opened again."""
    made: list[RecordStore] = []
    redis_server: RedisServer | None = None
    if kind_of_store == "redis":
        redis_server = request.getfixturevalue("server")
        with closing(redis.Redis(port=redis_server.port)) as client:
            client.flushall()

    def open_one() -> RecordStore:
        store: RecordStore
        if redis_server is not None:
            store = RedisRecords(Server("127.0.0.1", redis_server.port), 7, clock=clock)
        else:
            store = SqliteRecords(tmp_path / "records.db", clock)
        made.append(store)
        return store

    yield open_one
    for store in made:
        await store.close()


@pytest.fixture
def store(make: Callable[[], RecordStore]) -> RecordStore:
    """An empty one."""
    return make()


@pytest.fixture
def task(clock: Clock) -> TaskRow:
    """Of ten bytes, for an hour."""
    return TaskRow(
        KIND,
        "t1",
        replicas=2,
        content_length=10,
        piece_length=4,
        ttl=3600.0,
        created_at=clock.now,
        updated_at=clock.now,
        state=TaskState.UPLOADING,
        tag="a tag",
    )


def peer(task: TaskRow, name: str = "p1", **fields: object) -> PeerRow:
    """One of the task's."""
    given: dict[str, object] = {
        "host_id": f"host of {name}",
        "persistent": True,
        "created_at": task.created_at,
        "updated_at": task.created_at + 1,
        "state": PeerState.RUNNING,
        "cost": 1.5,
        "concurrent_pieces": 4,
    }
    return PeerRow(task.kind, name, task.id, **(given | fields))  # type: ignore[arg-type]  # from a dict


def by_id(rows: list[PeerRow]) -> dict[str, PeerRow]:
    """In no order, so by their ids."""
    return {row.id: row for row in rows}


async def walked(store: RecordStore, kind: Kind = KIND) -> dict[str, list[PeerRow]]:
    """All tasks, each once, with their peers."""
    found: dict[str, list[PeerRow]] = {}
    async for page in store.walk(kind):
        for task, peers in page:
            assert task.id not in found
            found[task.id] = sorted(peers, key=lambda row: row.id)
    return found


async def tasks_of(store: RecordStore) -> list[TaskRow]:
    """All tasks."""
    return [task async for page in store.walk(KIND) for task, _ in page]


class TestContract:
    """What holds wherever rows are kept."""

    async def test_nothing_is_there(self, store: RecordStore) -> None:
        """Asking for it is no error, nor is removing it."""
        await store.open()
        assert await store.task((KIND, "t1")) is None
        assert await tasks_of(store) == []
        assert await store.peer(KIND, "p1") is None
        assert await store.peers((KIND, "t1")) == []
        await store.remove_task((KIND, "t1"))

    async def test_what_is_put_is_there(self, store: RecordStore, task: TaskRow) -> None:
        """Whole, each field."""
        assert await store.put_task(task, was=None)
        rows = [peer(task), peer(task, "p2", persistent=False, state=PeerState.SUCCEEDED)]
        for row in rows:
            assert await store.put_peer(row)
        assert await store.task(task.key) == task
        assert await tasks_of(store) == [task]
        assert await store.peer(KIND, "p2") == rows[1]
        assert by_id(await store.peers(task.key)) == by_id(rows)

    async def test_it_is_there_after_a_restart(
        self, make: Callable[[], RecordStore], task: TaskRow
    ) -> None:
        """That is what it is for."""
        first = make()
        await first.put_task(task, was=None)
        await first.put_peer(peer(task))
        await first.close()
        second = make()
        assert await second.task(task.key) == task
        assert await second.peers(task.key) == [peer(task)]

    async def test_only_one_moves_a_task(self, store: RecordStore, task: TaskRow) -> None:
        """Who thinks that it is in another state than it is changes nothing."""
        assert await store.put_task(task, was=None)
        other = replace(task, replicas=9)
        assert not await store.put_task(other, was=None)
        assert not await store.put_task(other, was=TaskState.FAILED)
        assert await store.task(task.key) == task
        done = replace(task, state=TaskState.SUCCEEDED)
        together = await asyncio.gather(
            *(store.put_task(done, was=TaskState.UPLOADING) for _ in range(5))
        )
        assert sorted(together) == [False] * 4 + [True]

    async def test_an_import_begins(self, store: RecordStore, task: TaskRow) -> None:
        """With who does it, and nobody of the one before; or not at all."""
        first, second = peer(task), peer(task, "p2", persistent=False)
        assert not await store.begin(task, first, was=TaskState.FAILED)
        assert await walked(store) == {}
        assert await store.begin(task, first, was=None)
        await store.put_peer(peer(task, "other"))
        begun = replace(task, replicas=5, created_at=task.created_at + 1)
        assert not await store.begin(begun, second, was=TaskState.FAILED)
        assert await store.task(task.key) == task
        assert await store.begin(begun, second, was=TaskState.UPLOADING)
        assert await store.task(task.key) == begun
        assert await store.peers(task.key) == [second]
        assert await store.peer(KIND, "other") is None
        await store.remove_peer(second)
        assert await store.peers(task.key) == []

    async def test_moving_a_task_keeps_its_peers(self, store: RecordStore, task: TaskRow) -> None:
        """They are rows of their own."""
        await store.put_task(task, was=None)
        await store.put_peer(peer(task))
        moved = replace(task, state=TaskState.SUCCEEDED, updated_at=task.updated_at + 5)
        assert await store.put_task(moved, was=TaskState.UPLOADING)
        assert await store.task(task.key) == moved
        assert await store.peers(task.key) == [peer(task)]

    async def test_a_peer_changes(self, store: RecordStore, task: TaskRow) -> None:
        """The latest row is what there is."""
        await store.put_task(task, was=None)
        await store.put_peer(peer(task))
        later = peer(task, state=PeerState.SUCCEEDED, persistent=False, cost=3.0)
        assert await store.put_peer(later)
        assert await store.peers(task.key) == [later]

    async def test_no_peer_without_a_task(self, store: RecordStore, task: TaskRow) -> None:
        """Its report comes too late."""
        assert not await store.put_peer(peer(task))
        await store.put_task(task, was=None)
        await store.put_peer(peer(task))
        await store.remove_task(task.key)
        assert await store.task(task.key) is None
        assert await store.peer(KIND, "p1") is None
        assert not await store.put_peer(peer(task))
        assert await store.peers(task.key) == []

    async def test_a_peer_that_is_gone_does_not_come_back(
        self, store: RecordStore, task: TaskRow
    ) -> None:
        """By the word of somebody who has seen it before; the task may be another's by then."""
        await store.put_task(task, was=None)
        assert not await store.put_peer(peer(task), anew=False)
        assert await store.peers(task.key) == []
        await store.put_peer(peer(task))
        later = peer(task, cost=7.0)
        assert await store.put_peer(later, anew=False)
        assert await store.peers(task.key) == [later]
        await store.remove_task(task.key)
        await store.put_task(task, was=None)
        assert not await store.put_peer(later, anew=False)
        assert await store.peers(task.key) == []
        assert await store.peer(KIND, later.id) is None

    async def test_a_peer_goes(self, store: RecordStore, task: TaskRow) -> None:
        """And no other."""
        await store.put_task(task, was=None)
        await store.put_peer(peer(task))
        await store.put_peer(peer(task, "p2"))
        await store.remove_peer(peer(task))
        assert await store.peers(task.key) == [peer(task, "p2")]
        assert await store.peer(KIND, "p1") is None

    async def test_ids_may_be_anything(self, store: RecordStore, task: TaskRow) -> None:
        """Hosts choose them."""
        await store.put_task(task, was=None)
        row = peer(task, "p:*?[x]\\'\"%_é", host_id="h:*;--")
        assert await store.put_peer(row)
        assert await store.peer(KIND, row.id) == row
        assert await store.peers(task.key) == [row]

    async def test_many(self, store: RecordStore, task: TaskRow) -> None:
        """None is left out, none comes twice, each has its own peers."""
        tasks = [replace(task, id=f"t{n}") for n in range(450)]
        await asyncio.gather(*(store.put_task(each, was=None) for each in tasks))
        some = tasks[::9]
        rows = [peer(each, f"p{n} of {each.id}") for each in some for n in range(3)]
        await asyncio.gather(*map(store.put_peer, rows))
        found = await walked(store)
        assert set(found) == {each.id for each in tasks}
        for each in tasks:
            assert found[each.id] == [row for row in rows if row.task_id == each.id]


class TestShared:
    """Two at once, over the same place."""

    async def test_each_sees_what_the_other_did(
        self, make: Callable[[], RecordStore], task: TaskRow
    ) -> None:
        """At once."""
        one, two = make(), make()
        for first, second in ((one, two), (two, one)):
            await first.open()
            await second.open()
            assert await first.put_task(task, was=None)
            assert await second.task(task.key) == task
            assert await second.put_peer(peer(task))
            assert await first.peers(task.key) == [peer(task)]
            assert await walked(first) == await walked(second) == {"t1": [peer(task)]}
            await second.remove_task(task.key)
            assert await first.task(task.key) is None
            assert not await first.put_peer(peer(task))

    async def test_one_of_both_moves_a_task(
        self, make: Callable[[], RecordStore], task: TaskRow
    ) -> None:
        """However many try."""
        stores = [make() for _ in range(4)]
        for n in range(20):
            row = replace(task, id=f"t{n}")
            begun = await asyncio.gather(
                *(each.begin(row, peer(row, f"p{n}{m}"), was=None) for m, each in enumerate(stores))
            )
            assert sorted(begun) == [False] * 3 + [True]
            (left,) = await stores[0].peers(row.key)
            assert left.id == f"p{n}{begun.index(True)}"

    async def test_a_lease_is_of_one(self, make: Callable[[], RecordStore], clock: Clock) -> None:
        """As long as it lasts, or until it lets go; who holds it has it for longer."""
        one, two = make(), make()
        assert await one.lease("x", 30.0)
        assert await one.lease("x", 30.0)
        assert not await two.lease("x", 30.0)
        await two.release("x")
        assert not await two.lease("x", 30.0)
        assert await two.lease("y", 30.0)
        await one.release("x")
        assert await two.lease("x", 0.05)
        assert not await one.lease("x", 30.0)
        clock.now += 0.06
        await asyncio.sleep(0.06)
        assert await one.lease("x", 30.0)
        assert not await two.lease("x", 30.0)

    async def test_who_dies_lets_go_in_the_end(
        self, make: Callable[[], RecordStore], clock: Clock
    ) -> None:
        """A lease outlives who had it, and no longer than it lasts; the next life is another."""
        dead = make()
        assert await dead.lease("x", 0.2)
        next_life = make()
        assert not await next_life.lease("x", 30.0)
        await dead.close()
        clock.now += 0.21
        await asyncio.sleep(0.21)
        assert await next_life.lease("x", 30.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a file."""
    return tmp_path / "below" / "records.db"


def remove(path: Path) -> None:
    """Delete a file, or a directory and all in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def swap(path: Path) -> None:
    """Have a file and another one change places."""
    other, between = path.with_name("other"), path.with_name("between")
    other.touch()
    path.rename(between)
    other.rename(path)
    between.rename(other)


def mode_of(path: Path) -> int:
    """Who may do what with a file."""
    return path.stat().st_mode & 0o777


def damage(path: Path, where: int) -> bytes:
    """Write nonsense into a file; what it has now."""
    content = bytearray(path.read_bytes())
    content[where : where + 3000] = b"\x55" * 3000
    path.write_bytes(content)
    return bytes(content)


class TestSqlite:
    """A file."""

    async def test_a_task_ends(self, path: Path, clock: Clock, task: TaskRow) -> None:
        """With its peers; then it can be imported again."""
        with_end = SqliteRecords(path, clock)
        await with_end.put_task(task, was=None)
        await with_end.put_peer(peer(task))
        clock.now += 3599
        assert await with_end.task(task.key) == task
        clock.now += 1
        assert await with_end.task(task.key) is None
        assert await with_end.peers(task.key) == []
        assert await with_end.peer(KIND, "p1") is None
        assert not await with_end.put_peer(peer(task))
        assert await tasks_of(with_end) == []
        assert await with_end.put_task(replace(task, created_at=clock.now), was=None)
        assert await with_end.peers(task.key) == []
        await with_end.close()

    async def test_looking_makes_no_file(self, path: Path) -> None:
        """Who imports nothing needs no directory for it."""
        store = SqliteRecords(path)
        await store.open()
        await store.close()
        assert not path.parent.exists()

    @pytest.mark.parametrize("where", [0, 4096])
    async def test_a_damaged_file_is_moved_aside(
        self, path: Path, clock: Clock, task: TaskRow, where: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In one line; then all works, without what was in it."""
        first = SqliteRecords(path, clock)
        for n in range(200):
            await first.put_task(replace(task, id=f"t{n}"), was=None)
        await first.close()
        content = damage(path, where)

        second = SqliteRecords(path, clock)
        await second.open()
        assert await second.put_task(task, was=None)
        assert await tasks_of(second) == [task]
        await second.close()
        (aside,) = path.parent.glob("records.db.damaged-*")
        assert aside.read_bytes() == content
        assert not caplog.records or len(caplog.records) == 1

    async def test_a_file_that_is_removed_is_written_again(
        self, path: Path, clock: Clock, task: TaskRow
    ) -> None:
        """Nothing of it is lost, now or after the next start; another one is left alone."""
        first = SqliteRecords(path, clock)
        for n in range(200):
            await first.put_task(replace(task, id=f"n{n}"), was=None)
        remove(path)
        assert await first.put_task(task, was=None)
        assert await first.put_peer(peer(task))
        await first.close()
        second = SqliteRecords(path, clock)
        assert len(await tasks_of(second)) == 201
        assert await second.peers(task.key) == [peer(task)]
        swap(path)
        with pytest.raises(Unavailable, match="is not the file that is in use; put that back"):
            await second.peers(task.key)
        swap(path)
        assert await second.peers(task.key) == [peer(task)]
        remove(path.parent)
        with pytest.raises(Unavailable, match="was removed, and cannot be written again"):
            await second.peers(task.key)
        path.parent.mkdir()
        assert await second.peers(task.key) == [peer(task)]
        await second.close()

    async def test_removed_while_several_use_it(
        self, path: Path, clock: Clock, task: TaskRow
    ) -> None:
        """One of them writes it again, the others go on with that; nothing of either is lost."""
        stores = [SqliteRecords(path, clock) for _ in range(3)]
        for n, each in enumerate(stores):
            await each.put_task(replace(task, id=f"before {n}"), was=None)
        remove(path)
        many = [(each, f"after {n} {m}") for m in range(20) for n, each in enumerate(stores)]
        await asyncio.gather(
            *(each.put_task(replace(task, id=name), was=None) for each, name in many)
        )
        for each in stores:
            assert len(await tasks_of(each)) == 63
            await each.close()
        last = SqliteRecords(path, clock)
        assert len(await tasks_of(last)) == 63
        await last.close()

    async def test_damaged_while_another_has_it(
        self, path: Path, clock: Clock, task: TaskRow
    ) -> None:
        """Who finds it so begins a new one, with which the other goes on."""
        first, second = SqliteRecords(path, clock), SqliteRecords(path, clock)
        await first.put_task(task, was=None)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(path, 0)
        await second.open()
        assert await second.put_task(replace(task, id="new"), was=None)
        assert [each.id for each in await tasks_of(first)] == ["new"]
        await first.close()
        await second.close()

    async def test_processes_share_a_file(self, path: Path) -> None:
        """Of several that begin at once each makes no table twice, and one wins each race."""
        source = textwrap.dedent("""
            import asyncio, sys, time
            from pathlib import Path
            from pantala.core.sched.records import TaskRow
            from pantala.model.task import Kind
            from pantala.scheduler.records.sqlite import SqliteRecords

            async def main():
                store, won = SqliteRecords(Path(sys.argv[1])), []
                for n in range(100):
                    now = time.time()
                    row = TaskRow(Kind.PERSISTENT_CACHE, f"t{n}", 1, 1, 1, 3600.0, now, now)
                    if await store.put_task(row, was=None):
                        won.append(n)
                    if await store.lease(f"l{n}", 60.0):
                        won.append(1000 + n)
                print(*won, flush=True)
                sys.stdin.read()  # who ends lets go of its leases
                await store.close()

            asyncio.run(main())
            """)
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", source, str(path)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(4)
        ]
        said = [(await each.stdout.readline()).split() for each in processes if each.stdout]
        await asyncio.gather(*(each.communicate(b"") for each in processes))
        assert [each.returncode for each in processes] == [0] * 4
        won = sorted(int(number) for each in said for number in each)
        assert won == [*range(100), *range(1000, 1100)]
        assert not list(path.parent.glob("*.damaged*"))
        assert mode_of(path) == 0o600

    async def test_the_lease_of_one_that_was_killed(self, path: Path) -> None:
        """Is free at once, however long it was to last: the kernel tells."""
        source = textwrap.dedent("""
            import asyncio, sys
            from pathlib import Path
            from pantala.scheduler.records.sqlite import SqliteRecords

            async def main():
                store = SqliteRecords(Path(sys.argv[1]))
                print(await store.lease("x", 3600.0), flush=True)
                await asyncio.sleep(60)

            asyncio.run(main())
            """)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", source, str(path)), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"True\n"
        store = SqliteRecords(path)
        assert not await store.lease("x", 1.0)
        process.kill()
        await process.wait()
        assert await store.lease("x", 3600.0)
        # Who has the lease has it also when somebody removes the file with the locks.
        remove(path.with_name(f"{path.name}.lock"))
        assert await store.lease("x", 3600.0)
        other = SqliteRecords(path)
        assert not await other.lease("x", 1.0)
        for each in (store, other):
            await each.close()

    async def test_a_file_of_the_version_before(self, path: Path) -> None:
        """Gets the tables that it lacks, and keeps what it has."""
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as db:
            db.executescript(sqlite_schema.SCHEMAS[0] + "PRAGMA user_version = 1;")
            values = (KIND, "t1", 2, 10, 4, 3600, 1, 1, "Uploading", None, None, time.time() + 60)
            db.execute("INSERT INTO task VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            db.commit()
        store = SqliteRecords(path)
        assert [each.id for each in await tasks_of(store)] == ["t1"]
        assert await store.lease("x", 1.0)
        await store.close()

    async def test_a_file_of_a_newer_version(self, path: Path, task: TaskRow) -> None:
        """Is left as it is."""
        first = SqliteRecords(path)
        await first.put_task(task, was=None)
        await first.close()
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 99")
        second = SqliteRecords(path)
        with pytest.raises(FeatureOff, match="newer version"):
            await second.open()
        await second.close()
        assert not list(path.parent.glob("*.damaged*"))

    async def test_no_place(self, tmp_path: Path, task: TaskRow) -> None:
        """It says which setting to change."""
        (tmp_path / "file").touch()
        for where in (None, tmp_path / "file" / "records.db"):
            store = SqliteRecords(where)
            with pytest.raises(FeatureOff, match=r"database\.sqlite\.path"):
                await store.put_task(task, was=None)
            await store.close()

    async def test_a_full_disk(self, path: Path, clock: Clock, task: TaskRow) -> None:
        """A refusal; all that was there is there, and it can be written when there is room."""
        store = SqliteRecords(path, clock)
        await store.put_task(task, was=None)
        await store._file.read(lambda db: db.execute("PRAGMA max_page_count = 1").fetchall())
        with pytest.raises(Unavailable, match="full; nothing was changed"):
            await store.put_peer(peer(task, "long" * 5000))
        assert await store.peers(task.key) == []
        assert await store.put_peer(peer(task))
        await store.close()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """To look what is in Redis, which is empty."""
    with closing(redis.Redis(port=server.port)) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
async def shared(server: RedisServer, clock: Clock) -> AsyncIterator[RedisRecords]:
    """One scheduler's."""
    store = RedisRecords(Server("127.0.0.1", server.port), 7, clock=clock)
    yield store
    await store.close()


class TestRedis:
    """A server that is shared."""

    async def test_as_dragonfly_has_it(
        self, client: redis.Redis, shared: RedisRecords, task: TaskRow
    ) -> None:
        """Keys, types and fields."""
        row = peer(task, state=PeerState.SUCCEEDED)
        await shared.put_task(task, was=None)
        await shared.put_peer(row)
        await shared.put_peer(peer(task, "p2", persistent=False))
        name = f"{P}persistent-cache-tasks:t1"
        assert client.hgetall(name) == {
            b"id": b"t1",
            b"persistent_replica_count": b"2",
            b"tag": b"a tag",
            b"application": b"",
            b"piece_length": b"4",
            b"content_length": b"10",
            b"total_piece_count": b"3",
            b"state": b"Uploading",
            b"ttl": b"3600000000000",
            b"created_at": b"2023-11-14T22:13:20Z",
            b"updated_at": b"2023-11-14T22:13:20Z",
        }
        peers = "persistent-cache-peers-for-persistent-cache-task"
        assert client.hgetall(f"{P}{peers}:p1") == {
            b"id": b"p1",
            b"persistent": b"1",
            b"finished_pieces": bytes([*[0] * 7, 3, *[0] * 7, 0b111]),
            b"state": b"Succeeded",
            b"block_parents": b"[]",
            b"task_id": b"t1",
            b"host_id": b"host of p1",
            b"cost": b"1500000000",
            b"created_at": b"2023-11-14T22:13:20Z",
            b"updated_at": b"2023-11-14T22:13:21Z",
            b"concurrent_piece_count": b"4",
        }
        assert client.smembers(f"{name}:{peers}") == {b"p1", b"p2"}
        assert client.smembers(f"{name}:persistent-peers-for-persistent-cache-task") == {b"p1"}
        assert client.smembers(f"{P}persistent-cache-hosts:host of p1:{peers}") == {b"p1"}
        for key in client.scan_iter():
            assert 3590 <= client.ttl(key) <= 3600
        await shared.remove_task(task.key)
        assert client.keys() == []

    async def test_an_import_that_begins_leaves_nothing_of_the_one_before(
        self, client: redis.Redis, shared: RedisRecords, task: TaskRow
    ) -> None:
        """No key; and each ends with the task."""
        await shared.begin(task, peer(task), was=None)
        await shared.put_peer(peer(task, "p2"))
        assert await shared.begin(task, peer(task, "p3"), was=TaskState.UPLOADING)
        for key in client.scan_iter():
            assert 3590 <= client.ttl(key) <= 3600
            assert b"p1" not in key
            assert b"p2" not in key
        assert len(client.keys()) == 5
        await shared.remove_task(task.key)
        assert client.keys() == []

    async def test_a_hosts_set_lives_as_long_as_its_last_task(
        self, client: redis.Redis, shared: RedisRecords, task: TaskRow
    ) -> None:
        """Whichever is put last."""
        long = replace(task, id="long", ttl=7200.0)
        for each in (long, task):
            await shared.put_task(each, was=None)
            await shared.put_peer(peer(each, f"p of {each.id}", host_id="h"))
        (key,) = client.keys(f"{P}persistent-cache-hosts:h:*")
        assert 7190 <= client.ttl(key) <= 7200
        assert client.smembers(key) == {b"p of long", b"p of t1"}

    async def test_what_a_stock_scheduler_wrote(
        self, client: redis.Redis, shared: RedisRecords
    ) -> None:
        """Times with an offset; bits of pieces that are not looked at."""
        name = f"{P}persistent-cache-tasks:s"
        peers = "persistent-cache-peers-for-persistent-cache-task"
        client.hset(
            name,
            mapping={
                "id": "s",
                "persistent_replica_count": 2,
                "tag": "",
                "application": "app",
                "piece_length": 4194304,
                "content_length": 10485760,
                "total_piece_count": 3,
                "state": "Succeeded",
                "ttl": 3600000000000,
                "created_at": "2026-08-20T10:00:00+08:00",
                "updated_at": "2026-08-20T10:00:05+08:00",
            },
        )
        client.hset(
            f"{P}{peers}:sp",
            mapping={
                "id": "sp",
                "persistent": 1,
                "finished_pieces": b"\x00\xff\x80",
                "state": "Succeeded",
                "block_parents": '["x"]',
                "task_id": "s",
                "host_id": "h",
                "cost": 1000000,
                "created_at": "2026-08-20T02:00:00Z",
                "updated_at": "2026-08-20T02:00:00Z",
                "concurrent_piece_count": 8,
            },
        )
        client.sadd(f"{name}:{peers}", "sp", "one that is gone")
        at = 1_787_191_200.0
        wanted = TaskRow(
            KIND,
            "s",
            *(2, 10485760, 4194304, 3600.0, at, at + 5, TaskState.SUCCEEDED, None, "app"),
        )
        assert await tasks_of(shared) == [wanted]
        (row,) = await shared.peers((KIND, "s"))
        assert (row.id, row.host_id, row.persistent, row.state, row.cost) == (
            *("sp", "h", True, PeerState.SUCCEEDED, 0.001),
        )

    async def test_what_makes_no_sense_is_not_there(
        self, client: redis.Redis, shared: RedisRecords, task: TaskRow
    ) -> None:
        """A field that is missing, or of no known value."""
        await shared.put_task(task, was=None)
        client.hset(f"{P}persistent-cache-tasks:t1", "state", "Dancing")
        assert await shared.task(task.key) is None
        assert await tasks_of(shared) == []
        client.hset(f"{P}persistent-cache-tasks:half", "id", "half")
        assert await tasks_of(shared) == []

    async def test_a_task_ends(
        self, client: redis.Redis, shared: RedisRecords, clock: Clock, task: TaskRow
    ) -> None:
        """Redis sees to it; what is over already is not kept."""
        clock.now += 3599
        await shared.put_task(task, was=None)
        await shared.put_peer(peer(task))
        assert all(0 <= client.ttl(key) <= 1 for key in client.scan_iter())
        clock.now += 2
        await shared.put_task(replace(task, id="late"), was=None)
        assert await shared.task((KIND, "late")) is None

    async def test_the_next_import_is_of_another_second(
        self, server: RedisServer, task: TaskRow
    ) -> None:
        """By which it is told from the one before."""
        store = RedisRecords(Server("127.0.0.1", server.port), 8)
        for _ in range(2):
            began = time.time()
            await store.put_task(replace(task, created_at=began, updated_at=began), was=None)
            await store.remove_task(task.key)
            assert int(time.time()) > int(began)
        await store.close()

    async def test_clusters_do_not_see_each_other(
        self, server: RedisServer, client: redis.Redis, shared: RedisRecords, task: TaskRow
    ) -> None:
        """Nor does one see into another by a pattern."""
        assert client.ping()
        other = RedisRecords(Server("127.0.0.1", server.port), 77)
        await shared.put_task(task, was=None)
        assert await tasks_of(other) == []
        await other.close()

    async def test_one_does_it(
        self, server: RedisServer, client: redis.Redis, shared: RedisRecords
    ) -> None:
        """As long as its lease lasts, or until it lets go."""
        other = RedisRecords(Server("127.0.0.1", server.port), 7)
        assert await shared.lease("x", 30.0)
        assert await shared.lease("x", 30.0)
        assert not await other.lease("x", 30.0)
        await other.release("x")
        assert not await other.lease("x", 30.0)
        assert await other.lease("y", 30.0)
        await shared.release("x")
        assert await other.lease("x", 0.01)
        await asyncio.sleep(0.05)
        assert await shared.lease("x", 30.0)
        assert len(client.keys()) == 2
        await other.close()

    async def test_gone_and_back(self, tmp_path: Path, clock: Clock, task: TaskRow) -> None:
        """A refusal meanwhile, at once; then all is there."""
        with RedisServer(tmp_path) as mine:
            store = RedisRecords(Server("127.0.0.1", mine.port), 7, clock=clock)
            await store.put_task(task, was=None)
            await store.put_peer(peer(task))
            mine.kill()
            said = f"records of imported tasks: Redis at {mine.address}: "
            for _ in range(3):
                async with asyncio.timeout(4):
                    with pytest.raises(Unavailable, match=said):
                        await store.peers(task.key)
            with pytest.raises(Unavailable, match="try again when it is back"):
                await store.put_task(task, was=None)
            mine.start()
            assert await store.task(task.key) == task
            assert await store.peers(task.key) == [peer(task)]
            await store.close()

    async def test_a_redis_that_hangs(self, clock: Clock, task: TaskRow) -> None:
        """Is given up."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            where = Server("127.0.0.1", silent.getsockname()[1])
            store = RedisRecords(where, 7, clock=clock, limit=0.3)
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable, match="Redis at"):
                    await store.task(task.key)
            await store.close()

    async def test_a_password(self, tmp_path: Path) -> None:
        """The right one; a wrong one is a refusal in words, without it."""
        with RedisServer(tmp_path, "--requirepass", "open sesame") as mine:
            for password, works in (("open sesame", True), ("wrong word", False), (None, False)):
                store = RedisRecords(Server("127.0.0.1", mine.port, password=password), 7)
                if works:
                    await store.open()
                else:
                    with pytest.raises(Unavailable, match=r"Redis at .*") as refused:
                        await store.open()
                    assert "wrong word" not in str(refused.value)
                await store.close()

    async def test_a_redis_without_room(
        self, client: redis.Redis, shared: RedisRecords, task: TaskRow
    ) -> None:
        """Its own words are passed on."""
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(Unavailable, match="maxmemory"):
                await shared.put_task(task, was=None)
        finally:
            client.config_set("maxmemory", "0")


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128])
def test_bits(length: int) -> None:
    """A word for each 64 bits."""
    full = bitset(length, full=True)
    words = [int.from_bytes(full[n : n + 8], "big") for n in range(0, len(full), 8)]
    assert words[0] == length
    assert sum(word.bit_count() for word in words[1:]) == length
    assert len(words) == 1 + -(-length // 64)
    assert not any(bitset(length, full=False)[8:])
