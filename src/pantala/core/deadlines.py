"""Things that are to be looked at, each at its time. To find that none is due costs nothing."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: So many entries that mean nothing any more are not worth looking for.
_SLACK: Final = 64


class Deadlines(Generic[T]):
    """When to look at what.

    A time says when to look, and not what there will be to see: whoever's time is put off again
    and again, as that of somebody who gives signs of life, need not be told of here each time. He
    is looked at when the first of them has come, and given the next one then.
    """

    __slots__ = ("_at", "_heap", "_numbers")

    def __init__(self) -> None:
        self._at: dict[T, float] = {}
        #: The earliest first. Of each thing the entry counts that says the same as above.
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, thing: T) -> bool:
        return thing in self._at

    def look_at(self, thing: T, at: float) -> None:
        """Look at *thing* when that time is over, unless an earlier one has been set."""
        known = self._at.get(thing)
        if known is None or at < known:
            self._at[thing] = at
            heapq.heappush(self._heap, (at, next(self._numbers), thing))
            self._tidy()

    def forget(self, thing: T) -> None:
        """There is no need to look at *thing*."""
        if self._at.pop(thing, None) is not None:
            self._tidy()

    def due(self, now: float) -> list[T]:
        """All whose time is over, the earliest first. None of them has one after that."""
        found: list[T] = []
        while self._heap and self._heap[0][0] < now:
            at, _, thing = heapq.heappop(self._heap)
            if self._at.get(thing) == at:
                del self._at[thing]
                found.append(thing)
        return found

    def _tidy(self) -> None:
        """Let go of what is not looked at any more, once there is as much of it as of the rest."""
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
