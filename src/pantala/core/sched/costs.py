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

    __slots__ = ("_costs", "_evicted", "_few", "_squares", "_sum")

    def __init__(self) -> None:
        self._costs: deque[float] = deque()
        self._sum = 0.0
        self._squares = 0.0
        self._evicted = 0
        #: There are less than two.
        self._few = True

    def __len__(self) -> int:
        return len(self._costs)

    def add(self, cost: float) -> None:
        """Remember one more. Any unit, but always the same."""
        self._few = not self._costs
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
        if self._few:
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
        self._sum = math.fsum(self._costs)
        self._squares = math.fsum(cost * cost for cost in self._costs)
        self._evicted = 0
