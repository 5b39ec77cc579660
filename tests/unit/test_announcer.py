"""daemon/telling/announcer.py: what schedulers believe of us, across a network that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from pantala import background
from pantala.core.sched.states import PeerState
from pantala.daemon.app import Daemon
from pantala.daemon.telling import announcer, teller
from pantala.daemon.telling.teller import Teller, Words
from pantala.errors import Busy, InvalidRequest
from pantala.model.announce import Registration
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2
from pantala.scheduler.app import Scheduler
from pantala.scheduler.holdings import HoldingService
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.origin import Fault, Origin


@pytest.fixture(autouse=True, params=["in batches", "each"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers know batches, or do not, as stock ones."""

    async def tell(_self: object, _requests: object, context: Any) -> AsyncGenerator[Any, None]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield

    if request.param == "each":
        monkeypatch.setattr(HoldingService, "Tell", tell)


class Wire:
    """Forwards connections to a port of this machine, as long as it is whole."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        """Forward."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Drop what there is, and let nobody in."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection("127.0.0.1", self._target)
        async with asyncio.TaskGroup() as ways:
            ways.create_task(self._pump(reader, theirs[1]))
            ways.create_task(self._pump(theirs[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # cut
        finally:
            self._writers.discard(writer)
            writer.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.01)


async def fetch(daemon: Daemon, url: str) -> str:
    """Have it download; the task's id."""
    async with daemon.engine.open(DownloadRequest(Kind.CACHE, url)) as download:
        async for _ in download:
            pass
        return download.task_id


def holders(scheduler: Scheduler) -> set[str]:
    """Tasks that somebody is believed to hold."""
    return {p.task.id for p in scheduler._world.peers.values() if p.state is PeerState.SUCCEEDED}


async def test_who_has_nothing_to_tell_rests(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once he has told all: nobody looks for more until there is something."""
    looks = 0
    begin = Teller.begin

    def look(self: Teller) -> None:
        nonlocal looks
        looks += 1
        begin(self)

    monkeypatch.setattr(Teller, "begin", look)
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    origin.put("/f", Pattern(1000))
    held = await fetch(daemon, origin.url("/f"))
    holding = daemon.stores[Kind.CACHE].get(Kind.CACHE, held)
    assert holding is not None
    daemon.announcer.announce(holding)
    await until(lambda: holders(scheduler) == {held})
    await asyncio.sleep(0.1)
    before = looks
    await asyncio.sleep(0.3)
    assert looks - before < 3


async def test_what_left_while_a_scheduler_was_out_of_reach(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack
) -> None:
    """It learns of that, too, and believes no more than what is true."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    wire = Wire(scheduler.port)
    await wire.mend()
    stack.push_async_callback(wire.cut)
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=wire.port))
    ids = []
    for name in ("/stays", "/leaves"):
        origin.put(name, Pattern(1000))
        ids.append(await fetch(daemon, origin.url(name)))
    stays, leaves = ids
    await until(lambda: holders(scheduler) == {stays, leaves})

    await wire.cut()
    holding = daemon.stores[Kind.CACHE].get(Kind.CACHE, leaves)
    assert holding is not None
    daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
    origin.put("/comes", Pattern(1000))
    comes = await fetch(daemon, origin.url("/comes"))
    assert holders(scheduler) == {stays, leaves}
    await wire.mend()

    await until(lambda: holders(scheduler) == {stays, comes})


async def test_a_scheduler_that_comes_back(
    tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is announced to as soon as there is a connection, and not when the next try is due."""
    monkeypatch.setattr(announcer, "_RETRY", (3600.0, 3600.0))
    scheduler = await stack.enter_async_context(inside.scheduler())
    wire = Wire(scheduler.port)
    await wire.mend()
    stack.push_async_callback(wire.cut)
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=wire.port))
    for _ in range(2):
        await wire.cut()
        await until(lambda: daemon.schedulers.pick("t") is None)
        await wire.mend()
        await until(lambda: daemon.schedulers.pick("t") is not None)


async def test_a_scheduler_that_is_slow_once(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack
) -> None:
    """It is not to forget a download under way because of something that left meanwhile."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, port=scheduler.port, download__concurrentPieceCount=1)
    )
    origin.put("/leaves", Pattern(1000))
    leaves = await fetch(daemon, origin.url("/leaves"))
    await until(lambda: holders(scheduler) == {leaves})
    origin.put("/f", Pattern(12 << 20))
    origin.fault("/f", Fault(rate=8 << 20))
    async with asyncio.TaskGroup() as tasks:
        fetching = tasks.create_task(fetch(daemon, origin.url("/f")))
        await until(lambda: any(h.pieces for h in daemon.stores if h.id != leaves))
        (address,) = daemon.schedulers.addresses
        daemon.beliefs.lost(address)  # as after an answer that came too late
        holding = daemon.stores[Kind.CACHE].get(Kind.CACHE, leaves)
        assert holding is not None
        daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
        await daemon.announcer.settle(Kind.CACHE, leaves)
        assert holders(scheduler) == {leaves}
        await daemon.announcer.announce_host()
        await until(lambda: holders(scheduler) == set())
        assert [p.state for p in scheduler._world.peers.values()] == [PeerState.BACK_TO_SOURCE]
    await until(lambda: holders(scheduler) == {fetching.result()})


async def test_a_scheduler_that_refuses(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told again with the next announcement, and that is the end of it."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    origin.put("/leaves", Pattern(1000))
    leaves = await fetch(daemon, origin.url("/leaves"))
    await until(lambda: holders(scheduler) == {leaves})
    (link,) = daemon.schedulers
    tell = link.delete_task

    refused = 0

    async def refuse(*_: object) -> None:
        nonlocal refused
        refused += 1
        raise Busy("too many requests")

    async def refuse_batches(take: Callable[[], object], _heard: object) -> bool:
        if take() is not None:
            await refuse()
        return True

    monkeypatch.setattr(teller, "UNARY_LIMIT", 0.0)
    tell_batches = link.holdings.tell
    if link.holdings.understood:
        monkeypatch.setattr(link.holdings, "tell", refuse_batches)
    monkeypatch.setattr(link, "delete_task", refuse)
    holding = daemon.stores[Kind.CACHE].get(Kind.CACHE, leaves)
    assert holding is not None
    daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
    await daemon.announcer.settle(Kind.CACHE, leaves)
    assert refused == 1
    await daemon.announcer.announce_host()
    await daemon.announcer.settle(Kind.CACHE, leaves)
    assert (refused, holders(scheduler)) == (2, {leaves})
    monkeypatch.setattr(link, "delete_task", tell)
    monkeypatch.setattr(link.holdings, "tell", tell_batches)
    await daemon.announcer.announce_host()
    await until(lambda: holders(scheduler) == set())


class Refusing:
    """Has schedulers that are started from now on refuse streams of batches.

    Args:
        error: With this.

    Attributes:
        times: So often; then they are let in.
        refused: How often they were.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.times = self.refused = 0
        tell = HoldingService.Tell

        async def refuse(*args: Any) -> AsyncGenerator[Any, None]:
            if self.refused < self.times:
                self.refused += 1
                raise error
            async for answer in tell(*args):
                yield answer

        monkeypatch.setattr(HoldingService, "Tell", refuse)


async def some_held(daemon: Daemon, scheduler: Scheduler, origin: Origin, count: int) -> set[str]:
    """Tasks that a daemon holds, and that its scheduler has lost sight of."""
    for number in range(count):
        origin.put(f"/{number}", Pattern(1000))
    held = {await fetch(daemon, origin.url(f"/{number}")) for number in range(count)}
    await until(lambda: holders(scheduler) == held)
    for peer in list(scheduler._world.peers.values()):
        scheduler._world.remove_peer(peer)
    return held


async def test_batches_that_are_refused_for_load(
    tmp_path: Path,
    origin: Origin,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """They are told again soon, and not with the next announcement, five minutes later."""
    if "each" in request.node.name:
        pytest.skip("there are no batches")
    refusing = Refusing(monkeypatch, Busy("too many requests"))
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    held = await some_held(daemon, scheduler, origin, 3)
    refusing.times = 3
    for holding in daemon.stores[Kind.CACHE]:
        daemon.announcer.announce(holding)
    await until(lambda: holders(scheduler) == held)
    assert refusing.refused == 3


async def test_a_scheduler_that_has_forgotten_this_host(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, request: pytest.FixtureRequest
) -> None:
    """It is told who this is, and what is held here, as soon as it says so."""
    if "each" in request.node.name:
        pytest.skip("a stock one does not say so")
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    held = await some_held(daemon, scheduler, origin, 3)
    (host,) = scheduler._world.hosts.values()
    scheduler._world.remove_host(host)
    daemon.announcer.announce(next(iter(daemon.stores[Kind.CACHE])))
    await until(lambda: holders(scheduler) == held)


async def test_an_answer_to_what_was_not_told(
    tmp_path: Path,
    origin: Origin,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """A scheduler that refuses the eighth of one: it is told all the same, and again."""
    if "each" in request.node.name:
        pytest.skip("there are no batches")
    tell = HoldingService.Tell

    async def confused(*args: Any) -> AsyncGenerator[Any, None]:
        async for answer in tell(*args):
            answer.refused.add(index=7, description="what?")
            yield answer

    monkeypatch.setattr(HoldingService, "Tell", confused)
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    held = await some_held(daemon, scheduler, origin, 1)
    (holding,) = daemon.stores[Kind.CACHE]
    for _ in range(2):
        for peer in list(scheduler._world.peers.values()):
            scheduler._world.remove_peer(peer)
        async with asyncio.timeout(10):
            await daemon.announcer.announce_now(holding)
        assert holders(scheduler) == held


async def test_batches_that_come_to_nothing(
    tmp_path: Path,
    origin: Origin,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """A scheduler that takes none is not asked to take one after the other at once."""
    if "each" in request.node.name:
        pytest.skip("there are no batches")
    monkeypatch.setattr(teller, "_BATCH", 1)
    refusing = Refusing(monkeypatch, InvalidRequest("no"))
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    held = await some_held(daemon, scheduler, origin, 8)
    refusing.times = 1000
    for holding in daemon.stores[Kind.CACHE]:
        daemon.announcer.announce(holding)
    await asyncio.sleep(1.0)
    assert 1 <= refusing.refused <= 3
    refusing.times = 0
    await daemon.announcer.announce_host()
    await until(lambda: holders(scheduler) == held)


async def test_a_task_that_cannot_be_told_keeps_no_other_untold(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it; and it is told when that has passed."""
    monkeypatch.setattr(background, "BACKOFF", (0.01, 0.02))
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    sick: set[str] = set()

    honest = Words.of

    def of(words: Words, holding: Holding) -> Iterator[Registration]:
        if holding.id in sick:
            raise ValueError("Invalid IPv6 URL")
        return honest(words, holding)

    monkeypatch.setattr(Words, "of", of)
    held = []
    for name in ("/a", "/b", "/c"):
        origin.put(name, Pattern(1000))
        held.append(await fetch(daemon, origin.url(name)))
    await until(lambda: holders(scheduler) == set(held))
    for peer in list(scheduler._world.peers.values()):
        scheduler._world.remove_peer(peer)
    sick.add(held[0])
    for holding in daemon.stores[Kind.CACHE]:
        daemon.announcer.announce(holding)
    await until(lambda: holders(scheduler) == set(held[1:]))
    sick.clear()
    daemon.schedulers.on_trouble()
    await until(lambda: holders(scheduler) == set(held))
    assert daemon.loops.failing() == []


async def test_a_host_that_cannot_be_measured_is_announced(
    tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the figures that want a descriptor when there is none; else all forget it."""
    monkeypatch.setattr(background, "BACKOFF", (0.01, 0.02))
    scheduler = await stack.enter_async_context(
        inside.scheduler(scheduler__gc__hostGCInterval="1s")
    )
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, port=scheduler.port, scheduler__announceInterval="1s")
    )
    [host] = scheduler._world.hosts.values()
    memory = common_pb2.Host.FromString(host.facts.announced).memory.total

    def no_descriptors(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    for name in ("cpu_count", "cpu_percent", "virtual_memory", "net_io_counters", "net_if_stats"):
        monkeypatch.setattr(psutil, name, no_descriptors)
    first = host.updated_at
    await until(lambda: host.updated_at > first + 2.5)

    assert scheduler._world.hosts.get(host.id) is host
    assert common_pb2.Host.FromString(host.facts.announced).memory.total == memory
    assert daemon.loops.failing() == []
