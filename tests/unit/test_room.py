"""daemon/downloading/room.py: who waits for room in memory, in daemons inside this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pantala.daemon.app import Daemon
from pantala.daemon.downloading import room
from pantala.daemon.downloading.download import Event, Started, Waiting
from pantala.errors import NoRoom, TimedOut, Unavailable
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.inside import get, wish
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20

# The store of these daemons has 64 MiB.


@pytest.fixture
async def daemon(tmp_path: Path, stack: AsyncExitStack) -> Daemon:
    """Without a scheduler; everybody has let go of everything in the end."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))

    async def check() -> None:
        await until(lambda: not daemon.engine.busy)
        assert daemon.stores[Kind.CACHE].ledger.leased == 0
        assert len(daemon.engine.means.rooms[Kind.CACHE]) == 0

    stack.push_async_callback(check)
    return daemon


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


def put(origin: Origin, name: str, size: int) -> str:
    """A file of that many MiB; its URL."""
    origin.put(f"/{name}", Pattern(size * MIB, seed=size))
    return origin.url(f"/{name}")


class Reader:
    """Somebody who keeps a task until told to let go of it."""

    def __init__(self, daemon: Daemon, url: str, **wishes: object) -> None:
        self._daemon = daemon
        self.url = url
        self.wish = wish(url, **wishes)
        self.events: list[Event] = []
        self.here = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async with self._daemon.engine.open(*self.wish) as download:
            async for event in download:
                self.events.append(event)
            self.here.set()
            await self.leave.wait()

    async def until_here(self) -> Reader:
        """Wait for all of it."""
        async with asyncio.timeout(20):
            await asyncio.wait(
                (self.task, asyncio.ensure_future(self.here.wait())),
                return_when=asyncio.FIRST_COMPLETED,
            )
        if self.task.done():
            self.task.result()
        return self

    @property
    def waits(self) -> bool:
        """It was told that there is no room, and nothing since."""
        return bool(self.events) and isinstance(self.events[-1], Waiting)

    async def done(self) -> None:
        """Let go of it."""
        self.leave.set()
        await self.task


async def test_everybody_has_a_turn(daemon: Daemon, origin: Origin) -> None:
    """120 at once, of which the store can hold six, and all of which hold on for a while."""

    async def read(number: int) -> None:
        origin.put(f"/{number}", Pattern(10 * MIB, seed=number))
        wanted = wish(origin.url(f"/{number}"), timeout=120.0)
        async with daemon.engine.open(*wanted) as download:
            async for _ in download:
                pass
            assert download.holding is not None
            await asyncio.sleep(0.01)
            assert download.holding.view(ByteRange(MIB, 9)) == Pattern(10 * MIB, seed=number).read(
                MIB, 9
            )

    await asyncio.gather(*(read(number) for number in range(120)))
    assert max(origin.count(f"/{number}") for number in range(120)) < 12


async def test_in_order(daemon: Daemon, origin: Origin) -> None:
    """A large one is not overtaken by small ones for which there would be room."""
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    large = Reader(daemon, put(origin, "large", 60))
    await until(lambda: large.waits)
    small = Reader(daemon, put(origin, "small", 5))
    await until(lambda: small.waits)
    assert large.events == [Waiting(60 * MIB)]
    await first.done()
    await large.until_here()
    assert [type(event) for event in large.events[:2]] == [Waiting, Started]
    assert small.waits
    await large.done()
    await small.until_here()
    await small.done()


async def test_nobody_waits_who_needs_nothing_more(daemon: Daemon, origin: Origin) -> None:
    """What is here, or on its way here, is had at once."""
    url = put(origin, "first", 40)
    first = await Reader(daemon, url).until_here()
    large = Reader(daemon, put(origin, "large", 60))
    await until(lambda: large.waits)
    assert len(await get(daemon, url)) == 40 * MIB
    again = Reader(daemon, large.url)
    await until(lambda: again.waits)
    await first.done()
    for reader in (large, again):
        await reader.until_here()
        await reader.done()


async def test_time_is_over(daemon: Daemon, origin: Origin) -> None:
    """The error says how long it waited, for how much, and who has it."""
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    with pytest.raises(TimedOut) as raised:
        await get(daemon, put(origin, "other", 30), timeout=0.5)
    assert "s for room for 31457280 bytes in memory: capacity 67108864, 41943040" in str(
        raised.value
    )
    assert str(raised.value).startswith("waited 0.")
    await until(lambda: not len(daemon.engine.means.rooms[Kind.CACHE]))
    await first.done()


async def test_nobody_waits_for_ever(
    daemon: Daemon, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do those who have set no limit."""
    monkeypatch.setattr(room, "LIMIT", 0.3)
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    with pytest.raises(TimedOut, match="waited 0"):
        await get(daemon, put(origin, "other", 30))
    await first.done()


async def test_who_leaves_is_out_of_the_way(daemon: Daemon, origin: Origin) -> None:
    """Those behind have their turn."""
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    large = Reader(daemon, put(origin, "large", 60))
    await until(lambda: large.waits)
    small = Reader(daemon, put(origin, "small", 5))
    await until(lambda: small.waits)
    large.task.cancel()
    await small.until_here()
    await small.done()
    await first.done()


async def test_what_never_fits_is_refused_at_once(daemon: Daemon, origin: Origin) -> None:
    """Alone, or with what the same content has already; with a length or without."""
    with pytest.raises(NoRoom):
        await get(daemon, put(origin, "huge", 65))
    url = put(origin, "parts", 90)
    first = await Reader(daemon, url, range=ByteRange(0, 40 * MIB)).until_here()
    with pytest.raises(NoRoom):
        await get(daemon, url, range=ByteRange(50 * MIB, 40 * MIB))
    await first.done()
    origin.fault("/huge", Fault(chunked=True, no_range=True))
    with pytest.raises(NoRoom):
        await get(daemon, origin.url("/huge"))


async def test_two_who_want_more_of_what_they_have(daemon: Daemon, origin: Origin) -> None:
    """Each has a part and wants another: who waits holds nothing, so neither is in the way."""
    urls = [put(origin, "a", 50), put(origin, "b", 51)]
    for url in urls:
        await get(daemon, url, range=ByteRange(0, 24 * MIB))
    fault = Fault(rate=20 * MIB)
    for name in "ab":
        origin.fault(f"/{name}", fault)
    parts = [ByteRange(24 * MIB, 20 * MIB), ByteRange(0, 44 * MIB)]
    found = await asyncio.gather(
        *(get(daemon, url, range=part, timeout=60.0) for url in urls for part in parts)
    )
    assert [len(part) for part in found] == [part.length for part in parts] * 2


@pytest.mark.parametrize("count", [2, 3])
async def test_growing_files_do_not_block_each_other(
    daemon: Daemon, origin: Origin, count: int
) -> None:
    """Each has a part of the store and needs more: one has to go, the others come to their end."""
    urls = []
    for number in range(count):
        urls.append(put(origin, f"{number}", 40 + number))
        origin.fault(f"/{number}", Fault(chunked=True, no_range=True, rate=30 * MIB))
    found = await asyncio.gather(
        *(get(daemon, url, timeout=60.0) for url in urls), return_exceptions=True
    )
    sizes = [len(f) if isinstance(f, bytes) else type(f) for f in found]
    assert any(isinstance(size, int) for size in sizes)
    assert all(isinstance(size, int) or size is NoRoom for size in sizes), found


async def test_a_growing_file_waits_for_a_reader(daemon: Daemon, origin: Origin) -> None:
    """Who will let go some day."""
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    url = put(origin, "growing", 50)
    origin.fault("/growing", Fault(chunked=True, no_range=True))
    growing = Reader(daemon, url)
    await until(lambda: any(isinstance(event, Waiting) for event in growing.events))
    await first.done()
    await growing.until_here()
    await growing.done()


async def test_what_programs_keep_comes_back(daemon: Daemon, origin: Origin) -> None:
    """Nobody tells of it; it is looked for while somebody waits."""
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    (holding,) = daemon.stores[Kind.CACHE]
    fd = holding.hand_off(user=1234)
    assert fd is not None
    await first.done()
    with pytest.raises(TimedOut, match="41943040 of it kept by programs of user 1234 that have"):
        await get(daemon, put(origin, "other", 30), timeout=0.2)
    other = Reader(daemon, origin.url("/other"))
    await until(lambda: other.waits)
    os.close(fd)
    await other.until_here()
    await other.done()


async def test_stopping(daemon: Daemon, origin: Origin) -> None:
    """Nobody waits for a daemon that ends."""
    first = await Reader(daemon, put(origin, "first", 40)).until_here()
    other = Reader(daemon, put(origin, "other", 30))
    await until(lambda: other.waits)
    drained = asyncio.ensure_future(daemon.engine.drain(20.0))
    with pytest.raises(Unavailable, match="the daemon is stopping"):
        await other.task
    await first.done()
    await drained
