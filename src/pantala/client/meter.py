"""How fast something goes, and how long it will take; no clock of its own."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from typing import Final

#: Seconds that a rate is the mean of: long enough to hold still, and to forget a slow start.
_SPAN: Final = 5.0

#: Seconds between two marks that are remembered.
_STEP: Final = 0.1


class Meter:
    """The rate of the last seconds.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._marks = deque([(now, 0)])

    def rate(self, now: float, done: int) -> float:
        """Bytes a second, after *done* bytes in all; 0 as long as there is nothing to tell.

        Args:
            now: Monotonic seconds.
            done: Bytes in all; fewer than before: all was begun anew.
        """
        if done < self._marks[-1][1]:
            self._marks = deque([(now, done)])
        while len(self._marks) > 1 and self._marks[1][0] <= now - _SPAN:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - self._marks[-1][0] >= _STEP:
            self._marks.append((now, done))
        return (done - before) / (now - then) if now > then else 0.0

    def eta(self, now: float, done: int, total: int) -> float | None:
        """Seconds until *total*, if it goes on like this; None when nobody can know."""
        rate = self.rate(now, done)
        return (total - done) / rate if rate > 0 else None
