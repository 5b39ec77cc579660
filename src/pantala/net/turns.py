"""Turns at a number of threads: no owner can take so many that others get none."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from pantala.core.places import is_fair


class Turns:
    """See the module.

    Args:
        count: Of the threads.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._has: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, owner: Hashable) -> AsyncIterator[None]:
        """Wait until it is the turn of *owner*, and keep a thread inside the ``with``."""
        if owner not in self._waiting and is_fair(self._has[owner], self._free):
            self._take(owner)
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    async def _wait(self, owner: Hashable) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(owner, turn)
            else:  # it had come already
                self._give_back(owner)
            raise

    def _forget(self, owner: Hashable, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(owner)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[owner]

    def _take(self, owner: Hashable) -> None:
        self._free -= 1
        self._has[owner] += 1

    def _give_back(self, owner: Hashable) -> None:
        self._free += 1
        self._has[owner] -= 1
        if not self._has[owner]:
            del self._has[owner]
        while self._waiting:
            # Whoever has least comes first; those who have the same, one after the other.
            following = min(self._waiting, key=lambda o: self._has.get(o, 0))
            if not is_fair(self._has.get(following, 0), self._free):
                return
            others = self._waiting.pop(following)
            turn = others.popleft()
            if others:
                self._waiting[following] = others
            if not turn.done():  # else whoever waited was cancelled, and takes nothing
                self._take(following)
                turn.set_result(None)
