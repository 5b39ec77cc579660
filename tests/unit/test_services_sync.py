"""daemon/serving/services.py: children that want to hear of pieces, over real gRPC."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pantala.daemon.app import Daemon
from pantala.daemon.serving import services
from pantala.model.numbers import MAX_NUMBERS
from pantala.model.task import Kind, TaskRecord
from pantala.pb import dfdaemon_pb2, dfdaemon_pb2_grpc
from pantala.rpc.parent_link import VERSION_KEY
from pantala.rpc.transport import channel_options
from pantala.testing import inside
from pantala.testing.cluster import PATIENCE

TASK = "a" * 64


@pytest.fixture
def share() -> int:
    """Bytes that the streams of one address may take."""
    return services._STREAMS_OF_ONE


@pytest.fixture
async def daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int
) -> AsyncIterator[Daemon]:
    """Two pieces of a task are on their way to it, for ever."""
    monkeypatch.setattr(services, "_STREAMS_OF_ONE", share)
    async with inside.daemon(tmp_path) as daemon:
        record = TaskRecord(
            kind=Kind.CACHE,
            id=TASK,
            url="u",
            created_at=0.0,
            updated_at=0.0,
            content_length=200,
            piece_length=100,
            version="1",
        )
        daemon.stores[Kind.CACHE].open(record).coming = frozenset({0, 1})
        yield daemon


@pytest.fixture
async def stub(daemon: Daemon) -> AsyncIterator[Any]:
    """How children talk to it."""
    target = f"127.0.0.1:{daemon.ports['upload']}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        yield dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)


def wish(numbers: range) -> Any:
    """A request for news of these pieces."""
    return dfdaemon_pb2.SyncCachePiecesRequest(
        host_id="h", task_id=TASK, interested_cache_piece_numbers=numbers
    )


async def answers(call: Any) -> bool:
    """Whether the daemon says what it has, or refuses: a code that asks to come again."""
    if VERSION_KEY in dict(await call.initial_metadata()):
        return True
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "127.0.0.1 waits for too many pieces" in await call.details()
    return False


async def until_heard(stub: Any, message: Any) -> Any:
    """A call that is not refused: the daemon hears in its own time that others have ended."""
    while not await answers(call := stub.SyncCachePieces(message)):
        pass
    return call


def memory() -> int:
    """Bytes that this process has in memory, the daemon's with it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_how_much_a_share_is() -> None:
    """64 of the largest requests: each counts for its message, and a byte for each number."""
    large = wish(range(MAX_NUMBERS)).ByteSize() + MAX_NUMBERS + services._STREAM
    assert services._STREAMS_OF_ONE // large == 64


@pytest.mark.parametrize("share", [services._STREAMS_OF_ONE // 8], ids=["an eighth"])
async def test_more_than_a_share(stub: Any) -> None:
    """One address that wants too much is told so; when it wants less it is heard again."""
    large = wish(range(MAX_NUMBERS))
    # One after the other: gRPC cancels what waits for longer than half a minute to be looked at.
    heard = []
    for _ in range(10):
        call = stub.SyncCachePieces(large)
        if await answers(call):
            heard.append(call)
    assert len(heard) == 8
    for call in heard:
        call.cancel()
    again = await asyncio.wait_for(until_heard(stub, large), PATIENCE)
    again.cancel()


async def test_more_than_there_can_be(stub: Any) -> None:
    """Numbers that no content has so many of."""
    call = stub.SyncCachePieces(wish(range(MAX_NUMBERS + 1)))
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 262144" in await call.details()


async def test_what_waiting_children_cost(stub: Any) -> None:
    """60 that want 65,536 pieces each: what the requests take, and little besides.

    As sets of Python's they would take 9 MiB each.
    """
    before = memory()
    request = wish(range(65_536))
    calls = []
    for _ in range(60):
        calls.append(stub.SyncCachePieces(request))
        assert await answers(calls[-1])
    assert memory() - before < 75 << 20
    for call in calls:
        call.cancel()
