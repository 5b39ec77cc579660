"""storage.cacheOverflow, and storage.cacheCapacity 0: what memory has no room for."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pantala.daemon.app import Daemon
from pantala.daemon.downloading.download import Overflowed
from pantala.errors import FeatureOff, NoRoom
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2, dfdaemon_pb2_grpc
from pantala.rpc.transport import channel_options
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.inside import get, wish
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
#: More than a daemon here has memory for, and less.
LARGE, SMALL = Pattern(20 * MIB, seed=1), Pattern(9 * MIB, seed=2)


@pytest.fixture
async def daemon(tmp_path: Path, stack: AsyncExitStack, origin: Origin) -> Daemon:
    """It has memory for 16 MiB, and a disk."""
    origin.put("/large", LARGE)
    origin.put("/small", SMALL)
    return await stack.enter_async_context(start(tmp_path, storage__cacheOverflow="task"))


def start(directory: Path, **settings: Any) -> Any:
    """A daemon with so much memory."""
    return inside.daemon(directory, **{"storage__cacheCapacity": "16MiB", **settings})


def held(daemon: Daemon) -> dict[Kind, int]:
    """How much is held of each kind."""
    return {h.kind: h.total for h in daemon.stores}


async def test_what_can_never_fit(daemon: Daemon, origin: Origin) -> None:
    """It is carried out as the task of the same URL that lies on disk, and that is told first."""
    url = origin.url("/large")
    async with daemon.engine.open(*wish(url, tag="t")) as download:
        events = [event async for event in download]
        assert download.request.kind is Kind.STANDARD
        there = daemon.engine.identify(wish(url, tag="t", kind=Kind.STANDARD)[0])
        assert download.task_id == there.task_id
        assert download.holding is not None
        assert download.holding.digests
    first, *rest = events
    assert isinstance(first, Overflowed)
    assert "16777216" in first.why
    assert not any(isinstance(event, Overflowed) for event in rest)
    assert held(daemon) == {Kind.STANDARD: LARGE.size}
    # The second time it is there.
    before = origin.sent("/large")
    assert await get(daemon, url, tag="t") == LARGE.read(0, LARGE.size)
    assert origin.sent("/large") <= before + 2


async def test_what_does_not_fit_now(daemon: Daemon, origin: Origin) -> None:
    """Nobody waits for room; when there is some again, it is used."""
    url = origin.url("/small")
    async with daemon.engine.open(*wish(url, tag="first")) as download:
        async for _ in download:
            pass
        async with asyncio.timeout(20):
            assert await get(daemon, url, tag="second") == SMALL.read(0, SMALL.size)
    assert held(daemon) == {Kind.CACHE: SMALL.size, Kind.STANDARD: SMALL.size}
    assert await get(daemon, url, tag="third") == SMALL.read(0, SMALL.size)
    assert sorted(h.record.tag or "" for h in daemon.stores) == ["second", "third"]


async def test_others_with_the_same_flight(daemon: Daemon, origin: Origin) -> None:
    """Two who ask at once both get it, by one download."""
    url = origin.url("/large")
    got = await asyncio.gather(*(get(daemon, url) for _ in range(3)))
    assert all(data == LARGE.read(0, LARGE.size) for data in got)
    assert origin.sent("/large") <= LARGE.size + 8


async def test_what_shows_to_be_too_long(daemon: Daemon, origin: Origin) -> None:
    """A file of unknown length, of which memory is full in the middle."""
    origin.fault("/large", Fault(chunked=True, no_range=True))
    assert await get(daemon, origin.url("/large")) == LARGE.read(0, LARGE.size)
    assert held(daemon) == {Kind.STANDARD: LARGE.size}
    assert not daemon.stores[Kind.CACHE].figures().used


async def test_a_grpc_client_is_told(daemon: Daemon, origin: Origin) -> None:
    """By the trailing metadata; the messages are those that it asked for."""
    target = f"unix:{daemon.config.download.server.socket_path}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        stub: Any = dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)
        call = stub.DownloadCacheTask(
            dfdaemon_pb2.DownloadCacheTaskRequest(url=origin.url("/large"))
        )
        started, *pieces = [message async for message in call]
        assert len(pieces) == len(started.download_cache_task_started_response.pieces) == 5
        assert {message.task_id for message in pieces} == {h.id for h in daemon.stores}
        assert ("pantala-stored-as", "task") in list(await call.trailing_metadata())


async def test_dfget_is_told(daemon: Daemon, origin: Origin, tmp_path: Path) -> None:
    """By a warning."""
    out = tmp_path / "out"
    arguments = ["--cache", origin.url("/large"), "-O", str(out), "--json"]
    endpoint = str(daemon.config.download.server.socket_path)
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pantala.cli.dfget", *arguments, "-e", endpoint),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, said = await done.communicate()
    assert done.returncode == 0, said
    assert out.read_bytes() == LARGE.read(0, LARGE.size)
    assert json.loads(output)["task_id"] in {h.id for h in daemon.stores}
    assert b"it is kept as a STANDARD task instead, on disk" in said


async def test_without_it(tmp_path: Path, stack: AsyncExitStack, origin: Origin) -> None:
    """It is refused, and nothing is held of it."""
    origin.put("/large", LARGE)
    daemon = await stack.enter_async_context(start(tmp_path))
    with pytest.raises(NoRoom):
        await get(daemon, origin.url("/large"))
    assert Kind.STANDARD not in held(daemon)


@pytest.mark.parametrize("overflow", ["error", "task"])
async def test_without_memory(
    tmp_path: Path, stack: AsyncExitStack, origin: Origin, overflow: str
) -> None:
    """Cache tasks are refused, naming the setting; everything else works."""
    origin.put("/small", SMALL)
    settings: dict[str, object] = {
        "storage__cacheCapacity": 0,
        "storage__cacheOverflow": overflow,
    }
    daemon = await stack.enter_async_context(start(tmp_path, **settings))
    with pytest.raises(FeatureOff, match=r"storage\.cacheCapacity is 0"):
        await get(daemon, origin.url("/small"))
    whole = SMALL.read(0, SMALL.size)
    assert await get(daemon, origin.url("/small"), kind=Kind.STANDARD) == whole
