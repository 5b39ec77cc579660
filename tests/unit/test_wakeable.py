"""scheduler/wakeable.py: the next item, or a None, whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from pantala.scheduler.wakeable import Wakeable


class Played:
    """Items that come when they are put, through coroutines within coroutines."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | BaseException] = asyncio.Queue()
        self.ended = False

    async def items(self) -> AsyncGenerator[str, None]:
        """Until "end"."""
        try:
            while (item := await self._next()) != "end":
                yield item
        finally:
            self.ended = True

    async def _next(self) -> str:
        item = await self.queue.get()
        await asyncio.sleep(0)
        if isinstance(item, BaseException):
            raise item
        return item


async def test_items_as_they_are() -> None:
    """All of them, in their order, to the end."""
    played = Played()
    for item in ("a", "b", "end"):
        played.queue.put_nowait(item)
    assert [item async for item in Wakeable(played.items())] == ["a", "b"]
    assert played.ended


async def test_a_reader_is_woken_and_no_item_is_lost() -> None:
    """While it waits, before it waits, and often: one None each time."""
    played = Played()
    wakeable = Wakeable(played.items())
    for number in range(50):
        reading = asyncio.ensure_future(anext(wakeable))
        await asyncio.sleep(0)
        wakeable.wake()
        wakeable.wake()
        assert await reading is None
        wakeable.wake()
        played.queue.put_nowait(str(number))
        assert await anext(wakeable) is None
        assert await anext(wakeable) == str(number)
    reading = asyncio.ensure_future(anext(wakeable))
    await asyncio.sleep(0)
    assert not reading.done()
    played.queue.put_nowait("last")
    assert await reading == "last"


async def test_both_at_once() -> None:
    """An item that came with the waking is there afterwards."""
    played = Played()
    wakeable = Wakeable(played.items())
    reading = asyncio.ensure_future(anext(wakeable))
    await asyncio.sleep(0)
    played.queue.put_nowait("a")
    wakeable.wake()
    assert await reading is None
    assert await anext(wakeable) == "a"


async def test_what_the_iterator_raises() -> None:
    """Comes out, woken meanwhile or not."""
    played = Played()
    wakeable = Wakeable(played.items())
    reading = asyncio.ensure_future(anext(wakeable))
    await asyncio.sleep(0)
    wakeable.wake()
    assert await reading is None
    played.queue.put_nowait(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        await anext(wakeable)
    assert played.ended
    with pytest.raises(StopAsyncIteration):
        await anext(wakeable)


async def test_a_reader_that_is_cancelled_ends_it() -> None:
    """What it waited for is let go: a later item finds nobody who waits."""
    played = Played()
    wakeable = Wakeable(played.items())
    reading = asyncio.ensure_future(anext(wakeable))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert played.ended
    wakeable.wake()
    assert await anext(wakeable) is None
    with pytest.raises(StopAsyncIteration):
        await anext(wakeable)


@pytest.mark.parametrize("begun", [True, False])
async def test_one_that_is_closed(begun: bool) -> None:  # noqa: FBT001  a parameter of the test
    """Between two items, or while one is waited for and its reader was woken."""
    played = Played()
    wakeable = Wakeable(played.items())
    if begun:
        reading = asyncio.ensure_future(anext(wakeable))
        await asyncio.sleep(0)
        wakeable.wake()
        assert await reading is None
    wakeable.close()
    wakeable.close()
    assert played.ended == begun
    played.queue.put_nowait("a")
    await asyncio.sleep(0)
    assert played.queue.qsize() == 1


async def test_a_future_that_is_cancelled_elsewhere() -> None:
    """Is the iterator's to deal with."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def items() -> AsyncGenerator[str, None]:
        try:
            await future
        except asyncio.CancelledError:
            yield "cancelled"

    wakeable = Wakeable(items())
    reading = asyncio.ensure_future(anext(wakeable))
    await asyncio.sleep(0)
    future.cancel()
    assert await reading == "cancelled"
