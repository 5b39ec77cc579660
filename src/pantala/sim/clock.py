"""One heap of events on a virtual clock.

Whatever happens in a simulation is a call that was put here with a time. Two of the same time
happen in the order in which they were put, so a run is a function of its scenario and its seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Time, and what is to happen.

    Attributes:
        now: Seconds since the beginning.
        events: How many have happened.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._put = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> str:
        """The name of what happens next, for messages."""
        return self._heap[0][2].__qualname__ if self._heap else "nothing"

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have *call* made at *time*, which is not before now."""
        self._put += 1
        heapq.heappush(self._heap, (time, self._put, call, arguments))

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have *call* made *seconds* from now."""
        self._put += 1
        heapq.heappush(self._heap, (self.now + seconds, self._put, call, arguments))

    def step(self) -> None:
        """Let the next thing happen. Raises IndexError: there is none."""
        self.now, _, call, arguments = heapq.heappop(self._heap)
        self.events += 1
        call(*arguments)
