"""How long a peer's pieces took, and whether the last one stands out."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

#: How many costs are remembered; Dragonfly's scheduler remembers as many.
WINDOW: Final = 2000

_TIMES_THE_MEAN: Final = 20
_SIGMAS: Final = 3


class Costs:
    """The last :data:`WINDOW` costs, with their sums."""

    __slots__ = ("_costs", "_evicted", "_squares", "_sum")

    def __init__(self) -> None:
        #: None: there were none, as of a peer that has finished, or holds what it never fetched.
        self._costs: deque[float] | None = None
        self._sum = 0.0
        self._squares = 0.0
        self._evicted = 0

    def __len__(self) -> int:
        return len(self._costs or ())

    def add(self, cost: float) -> None:
        """Remember one more. Any unit, but always the same."""
        if self._costs is None:
            self._costs = deque()
        self._costs.append(cost)
        self._sum += cost
        self._squares += cost * cost
        if len(self._costs) > WINDOW:
            gone = self._costs.popleft()
            self._sum -= gone
            self._squares -= gone * gone
            self._evicted += 1
            if self._evicted == WINDOW:
                self._recount()

    def last_stands_out(self) -> bool:
        """Whether the last cost is far above those before it.

        Twenty times their mean; when the window is full, three standard deviations above it.
        """
        if self._costs is None or len(self._costs) < 2:
            return False
        before = len(self._costs) - 1
        last = self._costs[-1]
        mean = (self._sum - last) / before
        if len(self._costs) < WINDOW:
            return last > _TIMES_THE_MEAN * mean
        variance = (self._squares - last * last) / before - mean * mean
        return last > mean + _SIGMAS * math.sqrt(max(0.0, variance))

    def _recount(self) -> None:
        """Sum anew: adding and taking away leaves a little behind each time."""
        costs = self._costs or ()
        self._sum = math.fsum(costs)
        self._squares = math.fsum(cost * cost for cost in costs)
        self._evicted = 0
