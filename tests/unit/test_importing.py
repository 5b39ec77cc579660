"""daemon/importing, daemon/telling/copies.py: real files, a real scheduler and daemons."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from pantala.daemon.app import Daemon
from pantala.daemon.importing.importer import TTL
from pantala.daemon.importing.reading import Copying, Identifying, ImportFile
from pantala.errors import Forbidden, NoRoom, SourceChanged
from pantala.model.ids import persistent_cache_task_id
from pantala.model.pieces import Piece, pieces_for
from pantala.model.task import Kind
from pantala.pb import (
    common_pb2,
    dfdaemon_pb2,
    dfdaemon_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    scheduler_pb2,
)
from pantala.ports import MemorySink
from pantala.rpc.transport import channel_options
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.testing import inside

KIND = Kind.PERSISTENT_CACHE
MIB = 1 << 20
CONTENT = os.urandom(9 * MIB + 5)
MADE: dict[str, Any] = {"download__server__allowImportPath": True}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What is imported."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def _rows(path: Path) -> dict[str, Any]:
    return {
        "database__sqlite__path": str(path / "s.db"),
        "scheduler__gc__replicaInterval": "100ms",
        "scheduler__gc__hostGCInterval": "100ms",
    }


@asynccontextmanager
async def made(path: Path, *names: str, **settings: object) -> AsyncIterator[list[Daemon]]:
    """A scheduler, and daemons of it."""
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(inside.scheduler(**_rows(path)))
        yield [
            await stack.enter_async_context(
                inside.daemon(path, name, port=scheduler.port, **MADE, **settings)
            )
            for name in names
        ]


@asynccontextmanager
async def programs(daemon: Daemon) -> AsyncIterator[Any]:
    """How programs on the machine talk to it."""
    target = f"unix:{daemon.config.download.server.socket_path}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        yield dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)


@asynccontextmanager
async def others(
    daemon: Daemon, service: Callable[[Any], Any] = dfdaemon_pb2_grpc.DfdaemonUploadStub
) -> AsyncIterator[Any]:
    """How the scheduler does."""
    target = f"127.0.0.1:{daemon.ports['upload']}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        yield service(channel)


def wanted(file: Path, **fields: Any) -> dfdaemon_pb2.UploadPersistentCacheTaskRequest:
    """To be imported."""
    given = {"path": str(file), "persistent_replica_count": 1, **fields}
    return dfdaemon_pb2.UploadPersistentCacheTaskRequest(**given)


async def import_it(daemon: Daemon, path: Path, **fields: Any) -> Any:
    """Import a file; what is said of the task."""
    async with programs(daemon) as stub:
        return await stub.UploadPersistentCacheTask(wanted(path, **fields))


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """What a call is answered that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def export(daemon: Daemon, task_id: str, **wishes: Any) -> bytes:
    """All of a task."""
    return await inside.get(daemon, "", kind=KIND, task_id=task_id, **wishes)


async def stat(daemon: Daemon, task_id: str) -> Any:
    """What the scheduler says of a task."""
    async with programs(daemon) as stub:
        request = dfdaemon_pb2.StatPersistentCacheTaskRequest(task_id=task_id)
        return await stub.StatPersistentCacheTask(request)


async def until_counted(daemon: Daemon, task_id: str, number: int) -> None:
    """Until the scheduler counts so many copies."""
    deadline = time.monotonic() + 10
    while (said := await stat(daemon, task_id)).current_replica_count != number:
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.05)


def held(daemon: Daemon, task_id: str) -> Holding:
    """What a daemon has of a task."""
    holding = daemon.stores.get(KIND, task_id)
    assert holding is not None
    return holding


async def test_an_import(tmp_path: Path, file: Path) -> None:
    """Its id is the contract's; what is here says how long it stays."""
    async with made(tmp_path, "a") as (a,):
        task = await import_it(a, file, tag="t", application="x", ttl=Duration(seconds=600))
        assert task.id == persistent_cache_task_id([CONTENT], "t", "x")
        assert (task.state, task.content_length, task.piece_count) == ("Succeeded", len(CONTENT), 3)
        assert (task.tag, task.application, task.ttl.seconds) == ("t", "x", 600)
        assert (task.current_replica_count, task.current_persistent_replica_count) == (1, 1)
        async with programs(a) as stub:
            request = dfdaemon_pb2.StatLocalPersistentCacheTaskRequest(task_id=task.id)
            local = await stub.StatLocalPersistentCacheTask(request)
            listed = await stub.ListLocalPersistentCacheTasks(
                dfdaemon_pb2.ListLocalPersistentCacheTasksRequest()
            )
        assert (local.persistent, local.ttl.seconds, local.content_length) == (
            *(True, 600),
            len(CONTENT),
        )
        assert list(listed.tasks) == [local]
        holding = held(a, task.id)
        assert (holding.account.pinned, holding.complete) == (True, True)
        assert await export(a, task.id) == CONTENT


def written(file: Path, content: bytes) -> None:
    """Write a file."""
    file.write_bytes(content)


@pytest.mark.parametrize("size", [0, 1, 4 * MIB, 4 * MIB + 1])
async def test_sizes(tmp_path: Path, file: Path, size: int) -> None:
    """No bytes, one, a piece, and a byte more; there and elsewhere."""
    written(file, CONTENT[:size])
    async with made(tmp_path, "a", "b") as (a, b):
        task = await import_it(a, file, content_for_calculating_task_id="x")
        assert task.id == hashlib.sha256(b"x").hexdigest()
        assert await export(b, task.id) == CONTENT[:size]
        assert await export(a, task.id) == CONTENT[:size]


def _pipe(path: Path) -> Path:
    os.mkfifo(path / "pipe")
    return path / "pipe"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"path": "file"}, "'file' is not the absolute path of a file"),
        ({"path": ""}, "'' is not the absolute path of a file"),
        ({"path": "/none/such"}, "/none/such: No such file or directory"),
        ({"path": "/"}, "/: is no regular file"),
        ({"path": "PIPE"}, "pipe: is no regular file"),
        ({"ttl": Duration(seconds=299)}, "ttl 299 s: want 300 to 604800, 5m to 7d"),
        ({"ttl": Duration(seconds=int(TTL[1]) + 1)}, "ttl 604801 s: want 300 to 604800, 5m to 7d"),
        ({"persistent_replica_count": 0}, "persistent replica count 0: want at least 1"),
        ({"piece_length": 1024}, "piece length 1024 is not between 4194304 and 67108864"),
    ],
)
async def test_nonsense(tmp_path: Path, file: Path, fields: dict[str, Any], said: str) -> None:
    """One line, at once; nobody hears of it."""
    if fields.get("path") == "PIPE":
        fields = {"path": str(_pipe(tmp_path))}
    async with made(tmp_path, "a") as (a,), programs(a) as stub:
        call = stub.UploadPersistentCacheTask(wanted(file, **fields))
        code, details = await refused(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.endswith(said)
        assert list(a.stores) == []


async def test_without_a_scheduler(tmp_path: Path, file: Path) -> None:
    """Nobody could keep it, and nobody know of it."""
    async with inside.daemon(tmp_path, **MADE) as a, programs(a) as stub:
        code, details = await refused(stub.UploadPersistentCacheTask(wanted(file)))
        assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "no scheduler is available")
        assert list(a.stores) == []


async def test_switched_off(tmp_path: Path, file: Path) -> None:
    """The message names the key."""
    off: dict[str, Any] = {"download__server__allowImportPath": False}
    async with inside.daemon(tmp_path, **off) as a, programs(a) as stub:
        code, details = await refused(stub.UploadPersistentCacheTask(wanted(file)))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert details.endswith("see download.server.allowImportPath")


async def test_twice_at_once(tmp_path: Path, file: Path) -> None:
    """One of two imports of a task is refused, whoever makes it; and so is a third, later."""
    async with made(tmp_path, "a", "b") as (a, b):
        name = {"content_for_calculating_task_id": "x"}
        calls = [import_it(each, file, **name) for each in (a, a, b)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        failed = [error for error in done if isinstance(error, grpc.aio.AioRpcError)]
        assert len(failed) == 2
        for error in failed:
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            said = error.details() or ""
            assert "imports it now" in said or "has just begun to import it" in said
        code, details = await refused(import_it(b, file, **name))
        assert code is grpc.StatusCode.ALREADY_EXISTS
        assert "is here already (Succeeded); export it, or delete it" in details


async def until_begun(daemon: Daemon, task_id: str) -> None:
    """Until a piece of a task is here."""
    deadline = time.monotonic() + 10
    while not (daemon.stores.get(KIND, task_id) and held(daemon, task_id).pieces):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each megabyte takes a while."""
    read = ImportFile.read_into

    def read_slowly(self: ImportFile, view: memoryview, offset: int) -> int:
        time.sleep(0.05)  # that it takes a while is the point
        return read(self, view, offset)

    monkeypatch.setattr(ImportFile, "read_into", read_slowly)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("how", ["timeout", "cancelled", "changed", "deleted here"])
async def test_an_import_that_fails(tmp_path: Path, file: Path, how: str) -> None:
    """Nothing of it is left here, the task has failed, and it can be imported anew."""
    name = {"content_for_calculating_task_id": "x"}
    task_id = hashlib.sha256(b"x").hexdigest()
    async with made(tmp_path, "a") as (a,), programs(a) as stub:
        limit = Duration(nanos=200_000_000) if how == "timeout" else Duration(seconds=60)
        call = stub.UploadPersistentCacheTask(wanted(file, timeout=limit, **name))
        if how != "timeout":
            await until_begun(a, task_id)
        if how == "cancelled":
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            if how == "changed":
                with file.open("r+b") as opened:  # and it is as long as before at every moment
                    opened.write(CONTENT[::-1])
            elif how == "deleted here":
                a.stores.remove(held(a, task_id), Reason.DELETED)
            code, details = await refused(call)
            assert (code, details) in {
                (grpc.StatusCode.DEADLINE_EXCEEDED, f"{file} was not imported within 0.2 s"),
                (
                    grpc.StatusCode.ABORTED,
                    f"{file} changed while it was imported; import it anew",
                ),
                (grpc.StatusCode.ABORTED, f"task {task_id} was deleted"),
            }
        deadline = time.monotonic() + 10
        while (await stat(a, task_id)).state != "Failed":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert list(a.stores) == []
        again = await import_it(a, file, **name)
        assert await export(a, again.id) == (CONTENT[::-1] if how == "changed" else CONTENT)


@pytest.mark.usefixtures("slow")
async def test_whether_it_goes_on(tmp_path: Path, file: Path) -> None:
    """A scheduler that is new here may ask; by another name it is another import."""
    task_id = hashlib.sha256(b"x").hexdigest()

    async def goes_on(copies: Any, peer: str) -> bool:
        request = node_pb2.IsImportingRequest(
            type=common_pb2.PERSISTENT_CACHE, task_id=task_id, peer_id=peer
        )
        return bool((await copies.IsImporting(request)).is_importing)

    async with (
        made(tmp_path, "a") as (a,),
        programs(a) as stub,
        others(a, node_pb2_grpc.CopiesStub) as copies,
    ):
        call = stub.UploadPersistentCacheTask(wanted(file, content_for_calculating_task_id="x"))
        await until_begun(a, task_id)
        peer = held(a, task_id).record.peer_id
        assert await goes_on(copies, peer)
        assert not await goes_on(copies, "another")
        await call
        assert not await goes_on(copies, peer)


async def test_deleting_late(tmp_path: Path, file: Path) -> None:
    """What was imported by the same id since is not meant."""
    name = {"content_for_calculating_task_id": "x"}
    async with made(tmp_path, "a") as (a,), others(a, node_pb2_grpc.CopiesStub) as copies:
        old = await import_it(a, file, **name)
        request = scheduler_pb2.DeletePersistentCacheTaskRequest(
            host_id=a.config.host_id, task_id=old.id
        )
        await a.schedulers.require(old.id).call("DeletePersistentCacheTask", request)
        assert list(a.stores) == []
        new = await import_it(a, file, **name)
        for created_at, found in ((old.created_at, False), (new.created_at, True)):
            meant = node_pb2.DeleteCopyRequest(
                type=common_pb2.PERSISTENT_CACHE, task_id=old.id, created_at=created_at
            )
            if found:
                await copies.Delete(meant)
            else:
                code, _ = await refused(copies.Delete(meant))
                assert code is grpc.StatusCode.NOT_FOUND
                assert held(a, old.id).complete
        assert list(a.stores) == []


async def test_no_room(tmp_path: Path, file: Path) -> None:
    """As little as the disk has."""
    async with made(tmp_path, "a", gc__policy__diskThreshold="8MiB") as (a,):
        code, details = await refused(import_it(a, file))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(len(CONTENT)) in details
        assert list(a.stores) == []


async def test_no_room_beside_replicas(tmp_path: Path, file: Path) -> None:
    """Nobody waits for the room of what is kept for days, and it is told what has it."""
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(inside.scheduler(**_rows(tmp_path)))
        small = {"gc__policy__diskThreshold": "16MiB"}
        a, b = [
            await stack.enter_async_context(
                inside.daemon(tmp_path, name, port=scheduler.port, **MADE, **more)
            )
            for name, more in (("a", {}), ("b", small))
        ]
        task = await import_it(a, file)
        await import_it(b, file, tag="b")
        words = f"{len(CONTENT)} kept as replicas of imported tasks; make room on the disk"
        with pytest.raises(NoRoom, match=words):
            await export(b, task.id)
        code, details = await refused(import_it(b, file, tag="c"))
        assert (code, words in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


async def test_copies_that_leave(tmp_path: Path, file: Path) -> None:
    """The scheduler hears of it: at once, or when it is there again."""
    async with AsyncExitStack() as stack:
        first = inside.scheduler(**_rows(tmp_path))
        scheduler = await first.__aenter__()
        interval = {"scheduler__announceInterval": "300ms"}
        a, b = [
            await stack.enter_async_context(
                inside.daemon(tmp_path, name, port=scheduler.port, **MADE, **interval)
            )
            for name in "ab"
        ]
        task = await import_it(a, file)
        assert await export(b, task.id) == CONTENT
        await until_counted(a, task.id, 2)
        b.stores.remove(held(b, task.id), Reason.LRU)
        await until_counted(a, task.id, 1)

        assert await export(b, task.id) == CONTENT
        await until_counted(a, task.id, 2)
        await first.__aexit__(None, None, None)
        b.stores.remove(held(b, task.id), Reason.LRU)
        again = inside.scheduler(scheduler.port, **_rows(tmp_path))
        await stack.enter_async_context(again)
        deadline = time.monotonic() + 10
        while not a.beliefs.available:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await until_counted(a, task.id, 1)


async def test_a_damaged_replica(tmp_path: Path, file: Path) -> None:
    """What the disk has changed is not given away; it is fetched, and kept by somebody again."""
    async with made(tmp_path, "a", "b") as (a, b):
        task = await import_it(a, file)
        assert await export(b, task.id) == CONTENT
        (stored,) = (tmp_path / "a.data" / "content").rglob(task.id)
        with stored.open("r+b") as opened:
            opened.seek(5 * MIB)
            opened.write(bytes([CONTENT[5 * MIB] ^ 1]))
        assert await export(a, task.id) == CONTENT
        await until_counted(a, task.id, 2)
        deadline = time.monotonic() + 10
        while (await stat(a, task.id)).current_persistent_replica_count != 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_replica_or_not(tmp_path: Path, file: Path) -> None:
    """The scheduler's word decides whether it may go; of half a copy it says nothing."""
    async with made(tmp_path, "a", "b") as (a, b):
        task = await import_it(a, file)
        assert await export(b, task.id) == CONTENT
        assert not held(b, task.id).account.pinned
        request = dfdaemon_pb2.UpdatePersistentCacheTaskRequest
        async with others(b) as stub:
            await stub.UpdatePersistentCacheTask(request(task_id=task.id, persistent=True))
            assert held(b, task.id).account.pinned
            assert held(b, task.id).record.persistent
            await stub.UpdatePersistentCacheTask(request(task_id=task.id, persistent=False))
            assert not held(b, task.id).account.pinned
            call = stub.UpdatePersistentCacheTask(request(task_id="f" * 64, persistent=True))
            assert (await refused(call))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("size", [0, 5])
async def test_a_replica_stays_one(tmp_path: Path, file: Path, size: int) -> None:
    """The scheduler counts on it once it was answered; nothing said before takes that back."""
    written(file, CONTENT[:size])
    async with made(tmp_path, "a", "b") as (a, b):
        task = await import_it(a, file, persistent_replica_count=2)
        await until_counted(a, task.id, 2)
        await b.announcer.settle(KIND, task.id)
        assert held(b, task.id).account.pinned
        # A scheduler that knows of no copy asks for one, and hears which one there is.
        name = held(b, task.id).record.peer_id
        request = scheduler_pb2.DeletePersistentCachePeerRequest(
            host_id=b.config.host_id, task_id=task.id, peer_id=name
        )
        await b.schedulers.require(task.id).call("DeletePersistentCachePeer", request)
        assert await fetched(b, task.id, persistent=True) == {name}
        await b.announcer.settle(KIND, task.id)
        assert held(b, task.id).account.pinned


async def fetched(daemon: Daemon, task_id: str, **fields: Any) -> set[str]:
    """Have a daemon fetch a task, as schedulers do; the names that it gives its copy."""
    request = dfdaemon_pb2.DownloadPersistentCacheTaskRequest(task_id=task_id, **fields)
    async with others(daemon) as stub:
        return {each.peer_id async for each in stub.DownloadPersistentCacheTask(request)}


async def test_a_copy_has_one_name(tmp_path: Path, file: Path) -> None:
    """Whoever wants it while it comes hears the name by which it will be given up."""
    async with made(tmp_path, "a", "b") as (a, b):
        task = await import_it(a, file)
        named = await asyncio.gather(*(fetched(b, task.id) for _ in range(3)))
        assert named == [{held(b, task.id).record.peer_id}] * 3


async def test_a_replica_of_a_task_that_was_deleted_meanwhile(tmp_path: Path, file: Path) -> None:
    """A host that comes back with it is told that nobody counts on it: others may have the room."""
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(inside.scheduler(**_rows(tmp_path)))
        port = scheduler.port
        a = await stack.enter_async_context(inside.daemon(tmp_path, "a", port=port, **MADE))
        async with inside.daemon(tmp_path, "b", port=port, **MADE) as b:
            task = await import_it(a, file)
            assert await export(b, task.id, persistent=True) == CONTENT
            assert held(b, task.id).account.pinned
        request = scheduler_pb2.DeletePersistentCacheTaskRequest(
            host_id=a.config.host_id, task_id=task.id
        )
        await a.schedulers.require(task.id).call("DeletePersistentCacheTask", request)
        b = await stack.enter_async_context(inside.daemon(tmp_path, "b", port=port, **MADE))
        assert held(b, task.id).complete
        deadline = time.monotonic() + 10
        while held(b, task.id).account.pinned:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_a_range(tmp_path: Path, file: Path) -> None:
    """There are no parts of copies."""
    async with made(tmp_path, "a") as (a,):
        task = await import_it(a, file)
        with pytest.raises(Exception, match="exported whole, not in ranges"):
            await export(a, task.id, request_header={"Range": "bytes=0-1"})


@pytest.mark.parametrize("name", [{}, {"content_for_calculating_task_id": "x"}])
async def test_more_than_its_length_says(tmp_path: Path, name: dict[str, str]) -> None:
    """Files of the kernel's have no length, and have content all the same: not nothing is kept."""
    async with made(tmp_path, "a") as (a,):
        code, details = await refused(import_it(a, Path("/proc/version"), **name))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details == "/proc/version: has more in it than its length says; import a copy of it"
        assert list(a.stores) == []


# -- the file ------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may look into."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def test_what_everybody_may_read(shared: Path) -> None:
    """The file, and the way to it; symlinks lead where they lead."""
    path = shared / "file"
    path.write_bytes(b"x")
    path.chmod(0o644)
    secret = shared / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").write_bytes(b"x")
    (shared / "link").symlink_to(secret / "file")

    def check(name: str) -> None:
        file = ImportFile(str(shared / name))
        try:
            file.check_public()
        finally:
            file.close()

    check("file")
    for name in ("secret/file", "link"):
        with pytest.raises(Forbidden, match="not everybody may read it"):
            check(name)
    path.chmod(0o640)
    with pytest.raises(Forbidden, match=r"see download\.server\.allowImportPath"):
        check("file")


@pytest.mark.parametrize("length", [1, 4 * MIB + 1, 9 * MIB + 5])
def test_it_is_written_to_through_a_mapping(tmp_path: Path, length: int) -> None:
    """What is copied is what its id was made of, though no time of the file's has changed."""
    path, piece_length = tmp_path / "file", 4 * MIB + 1
    path.write_bytes(CONTENT[:length])
    pieces = pieces_for(None, content_length=length, piece_length=piece_length)
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:
        mapping[length - 1] ^= 1  # the time of this is that of all that is written to this page
        mapping[length - 1] ^= 1
        file = ImportFile(str(path))
        try:
            found = Identifying(file, persistent_cache_task_id, piece_length).run()
            assert found == persistent_cache_task_id([CONTENT[:length]])
            assert [copied(file, each) for each in pieces] == file.digests
            mapping[length - 1] ^= 1
            file.check_unchanged()
            with pytest.raises(SourceChanged, match="changed while it was imported"):
                copied(file, pieces[-1])
        finally:
            file.close()


def copied(file: ImportFile, piece: Piece) -> str:
    """The digest of a piece that is copied."""
    return Copying(file, piece, MemorySink(memoryview(bytearray(piece.length)))).run()


def test_it_becomes_shorter(tmp_path: Path) -> None:
    """No bytes are made up."""
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    file = ImportFile(str(path))
    try:
        os.truncate(path, 4)
        buffer = memoryview(bytearray(8))
        assert file.read_into(buffer, 0) == 4
        with pytest.raises(SourceChanged, match="became shorter"):
            file.read_into(buffer[4:], 4)
        with pytest.raises(SourceChanged, match="changed while it was imported"):
            file.check_unchanged()
    finally:
        file.close()
