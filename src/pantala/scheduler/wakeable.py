"""Waiting for the next of something, and for being woken, without a task for either.

As a rule, whoever waits for one of two things has a task for one of them. That would be a second
task for each announce stream, of which there are tens of thousands, and most of which are never
woken. So the coroutine that brings the next item is driven from here, as a task would: what it
waits for is a future, and we wait until that is done, or somebody wakes us. Then it is left as it
is, to be gone on with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Wakeable(AsyncIterator[T | None], Generic[T]):
    """The items of an async iterator, and None whenever its reader was woken.

    Args:
        items: None of them is None. What it waits for are asyncio's futures.
    """

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        #: Brings the next item, if it has been begun, and what it waits for.
        self._step: Generator[Any, None, T] | None = None
        self._needs: asyncio.Future[Any] | None = None
        #: The reader, while it waits.
        self._sleep: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Let the reader have a None, now or when it asks for the next; one, however often."""
        self._woken = True
        self._rouse(None)

    async def __anext__(self) -> T | None:
        """The next item, or None. Cancelled, it ends the iterator."""
        while not self._woken:
            if self._needs is None or self._needs.done():
                try:
                    self._go_on()
                except StopIteration as end:
                    self._step = self._needs = None
                    item: T = end.value
                    return item
                except BaseException:  # whatever it is, the step has ended with it
                    self._step = self._needs = None
                    raise
            if self._needs is None:  # it lets others go first
                await asyncio.sleep(0)
            else:
                await self._until(self._needs)
        self._woken = False
        return None

    def close(self) -> None:
        """Nobody reads on: an item that has been waited for is given up, and with it the rest."""
        step, needs = self._step, self._needs
        self._step = self._needs = None
        if needs is not None:
            needs.cancel()
        if step is not None:
            with suppress(asyncio.CancelledError, StopIteration, StopAsyncIteration):
                step.throw(asyncio.CancelledError())

    def _go_on(self) -> None:
        """Drive the step until it waits for something. Raises StopIteration with the item."""
        if self._step is None:
            self._step = self._items.__anext__().__await__()
        self._needs = self._step.send(None)

    async def _until(self, needs: asyncio.Future[Any]) -> None:
        """Wait until *needs* is done, or :meth:`wake`."""
        self._sleep = asyncio.get_running_loop().create_future()
        needs.add_done_callback(self._rouse)
        try:
            await self._sleep
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            needs.remove_done_callback(self._rouse)
            self._sleep = None

    def _rouse(self, _: asyncio.Future[Any] | None) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)
