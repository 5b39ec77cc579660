"""daemon/serving/task_methods.py: the methods of STANDARD tasks, over real gRPC."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty

from pantala.daemon.app import Daemon
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2, dfdaemon_pb2_grpc
from pantala.rpc.transport import channel_options
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
CONTENT = Pattern(9 * MIB, seed=3)


@pytest.fixture
def url(origin: Origin) -> str:
    """Of a file of three pieces."""
    origin.put("/f", CONTENT)
    return origin.url("/f")


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """It may write files for its callers."""
    async with inside.daemon(tmp_path, download__server__allowOutputPath=True) as daemon:
        yield daemon


@pytest.fixture
async def programs(daemon: Daemon) -> AsyncIterator[Any]:
    """How programs on the machine talk to it."""
    target = f"unix:{daemon.config.download.server.socket_path}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        yield dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)


@pytest.fixture
async def children(daemon: Daemon) -> AsyncIterator[Any]:
    """How other nodes talk to it."""
    target = f"127.0.0.1:{daemon.ports['upload']}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        yield dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)


def request(url: str, **wishes: Any) -> Any:
    """A request for *url*."""
    return dfdaemon_pb2.DownloadTaskRequest(download=common_pb2.Download(url=url, **wishes))


async def download(stub: Any, message: Any) -> list[Any]:
    """All that is answered."""
    return [answer async for answer in stub.DownloadTask(message)]


async def test_a_download_with_its_file(programs: Any, url: str) -> None:
    """Started, then every piece with its bytes."""
    first, *pieces = await download(programs, request(url, need_piece_content=True))
    started = first.download_task_started_response
    assert (started.content_length, started.is_finished) == (CONTENT.size, False)
    assert not started.HasField("range")
    assert len(started.pieces) == 3
    got = {
        m.download_piece_finished_response.piece.offset: m.download_piece_finished_response.piece
        for m in pieces
    }
    assert b"".join(got[at].content for at in sorted(got)) == CONTENT.read(0, CONTENT.size)
    assert {p.traffic_type for p in got.values()} == {common_pb2.BACK_TO_SOURCE}


async def test_a_range(programs: Any, url: str) -> None:
    """Told as what it is."""
    part = common_pb2.Range(start=5 * MIB, length=10)
    first, piece = await download(programs, request(url, range=part))
    assert first.download_task_started_response.range == part
    assert piece.download_piece_finished_response.piece.number == 1


async def test_what_is_here(programs: Any, children: Any, url: str) -> None:
    """Described alone and in the list; not among those of another kind, and gone when deleted."""
    first, *_ = await download(programs, request(url, tag="x"))
    named = dfdaemon_pb2.StatLocalTaskRequest(task_id=first.task_id)
    for stub in (programs, children):
        local = await stub.StatLocalTask(named)
        assert (local.task_id, local.content_length) == (first.task_id, CONTENT.size)
        assert local.piece_length == 4 * MIB
        assert local.HasField("finished_at")
        assert not local.HasField("failed_at")
        stat = await stub.StatTask(dfdaemon_pb2.StatTaskRequest(task_id=first.task_id))
        assert (stat.tag, stat.state, stat.type) == ("x", "Succeeded", common_pb2.STANDARD)
    assert (await programs.ListLocalTasks(dfdaemon_pb2.ListLocalTasksRequest())).tasks == [local]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await programs.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id=first.task_id))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    await programs.DeleteLocalTask(dfdaemon_pb2.DeleteLocalTaskRequest(task_id=first.task_id))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await children.StatLocalTask(named)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await programs.ListLocalTasks(dfdaemon_pb2.ListLocalTasksRequest())).tasks


async def test_pieces_for_a_child(daemon: Daemon, programs: Any, children: Any, url: str) -> None:
    """Each with where it can be had."""
    first, *_ = await download(programs, request(url))
    asked = dfdaemon_pb2.SyncPiecesRequest(
        host_id="h", task_id=first.task_id, interested_piece_numbers=[0, 2]
    )
    told = [piece async for piece in children.SyncPieces(asked)]
    assert sorted(piece.number for piece in told) == [0, 2]
    assert {(p.ip, p.tcp_port) for p in told} == {("127.0.0.1", daemon.ports["storage"])}


async def test_nothing_is_asked_for(programs: Any) -> None:
    """A request without a download."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await download(programs, dfdaemon_pb2.DownloadTaskRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_files_are_for_programs_on_the_machine(
    programs: Any, children: Any, url: str, tmp_path: Path
) -> None:
    """Who asks from afar has no say over files here."""
    wanted = request(url, output_path=str(tmp_path / "out"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await download(children, wanted)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await download(programs, wanted)
    assert (tmp_path / "out").read_bytes() == CONTENT.read(0, CONTENT.size)


async def test_what_an_origin_says_of_a_url(programs: Any, children: Any, url: str) -> None:
    """Length and headers, without a download; its refusal as it is."""
    asked = dfdaemon_pb2.ListTaskEntriesRequest(task_id="t", url=url)
    for stub in (programs, children):
        told = await stub.ListTaskEntries(asked)
        assert (told.content_length, told.status_code) == (CONTENT.size, 200)
        assert told.response_header["ETag"] == CONTENT.etag
        assert not told.entries
    asked.url += "/none"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await programs.ListTaskEntries(asked)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "404" in str(caught.value.details())


async def test_an_origin_that_says_nothing_in_time(programs: Any, url: str, origin: Origin) -> None:
    """The caller's time is the limit."""
    origin.fault("/f", Fault(delay=3600))
    asked = dfdaemon_pb2.ListTaskEntriesRequest(url=url)
    asked.timeout.FromMilliseconds(100)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await programs.ListTaskEntries(asked)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_host_is_forgotten(tmp_path: Path) -> None:
    """By its schedulers, when a program asks for it."""
    async with inside.scheduler() as scheduler, inside.daemon(tmp_path, port=scheduler.port) as one:
        assert one.config.host_id in scheduler._world.hosts
        target = f"unix:{one.config.download.server.socket_path}"
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            await dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel).DeleteHost(Empty())
        assert one.config.host_id not in scheduler._world.hosts


@pytest.mark.parametrize("there", [None, "another", "the same"])
async def test_a_hard_link(
    daemon: Daemon, programs: Any, url: str, tmp_path: Path, there: str | None
) -> None:
    """The file is the stored one, whatever was there before; nothing else is left."""
    directory = tmp_path / "outputs"
    directory.mkdir()
    out = directory / "out"
    wanted = request(url, output_path=str(out), force_hard_link=True, overwrite=True)
    if there == "another":
        out.write_bytes(b"another")
    if there == "the same":
        await download(programs, wanted)
    await download(programs, wanted)
    (stored,) = (p for p in (daemon.config.storage.dir / "content").rglob("*") if p.is_file())
    assert out.stat().st_ino == stored.stat().st_ino
    assert out.read_bytes() == CONTENT.read(0, CONTENT.size)
    assert [path.name for path in directory.iterdir()] == ["out"]


async def test_an_output_is_not_written_through(
    daemon: Daemon, programs: Any, url: str, origin: Origin, tmp_path: Path
) -> None:
    """A hard link of what is stored is replaced, and what is stored stays as it is."""
    out = tmp_path / "out"
    await download(programs, request(url, output_path=str(out), force_hard_link=True))
    origin.put("/g", b"another")
    await download(programs, request(origin.url("/g"), output_path=str(out), overwrite=True))
    assert out.read_bytes() == b"another"
    first, *_ = await download(programs, request(url))
    assert first.download_task_started_response.is_finished
    held = daemon.stores.get(Kind.STANDARD, first.task_id)
    assert held is not None
    assert bytes(held.view(ByteRange(0, CONTENT.size))) == CONTENT.read(0, CONTENT.size)


async def test_no_hard_link_to_be_had(programs: Any, url: str, tmp_path: Path) -> None:
    """Of a part, or on another file system."""
    part = common_pb2.Range(start=5 * MIB, length=10)
    wanted = request(url, output_path=str(tmp_path / "a"), force_hard_link=True, range=part)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await download(programs, wanted)
    assert "no file of its own to link" in str(caught.value.details())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        wanted = request(url, output_path=f"{elsewhere}/a", force_hard_link=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await download(programs, wanted)
        assert "another file system than the daemon's store" in str(caught.value.details())
        assert not os.listdir(elsewhere)  # noqa: PTH208  a directory in memory
