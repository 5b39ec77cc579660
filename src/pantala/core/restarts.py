"""When something that has ended is started anew, and when that is given up.

Each time that it ends soon after its start, it is started anew later; whoever lived for a while
starts from the beginning again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Seconds until the first start anew, doubled each time up to the last.
BACKOFF: Final = (0.5, 15.0)

#: Seconds that it must have lived for its end to be the first again.
HEALTHY: Final = 30.0

#: Ends in a row at which it is given up, some 45 s after the first.
TOO_MANY: Final = 8


@dataclass(slots=True)
class Restarts:
    """The ends of one thing.

    Attributes:
        ends: So many in a row.
    """

    ends: int = 0

    def ended(self, lived: float) -> float | None:
        """It has ended after *lived* seconds: in how many to start it anew; None: not any more."""
        self.ends = 1 if lived >= HEALTHY else self.ends + 1
        if self.ends >= TOO_MANY:
            return None
        first, last = BACKOFF
        return min(last, first * float(1 << (self.ends - 1)))
