"""How many transfers at once fill a link: as many as it carries in the time of one, and one more.

What is begun too early ends too late: eight pieces that share a link all arrive at the end, when
one after the other the first could have been passed on seven times as early. Too few leave the link
idle between two, or, where each connection has a limit of its own as those to object stores have,
all the time.

What must be under way for the link to be full is what arrives in a second times the seconds that a
transfer takes when it has the link for itself: bandwidth times delay, as in TCP's BBR (Cardwell and
others, 2016). By Little's law, with *n* transfers under way that take *t* each, *n / t* of them
arrive in a second. So each one that ends is a sample::

    fill = how many were under way meanwhile, on average, times the quickest / this one's seconds

    a link that one transfer fills     of n at once each takes n times as long     fill is 1
    connections with a limit each      of n at once each is as quick as one        fill is n

The limit is a quarter more than that, and one. So in the second case it grows until transfers
become slower; in the first it is two. The very first transfer has the link for itself where that
can be had: from two that share it nobody could tell how quick one alone would be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

#: So much more than the link has shown to carry is tried, as a share.
_PROBE: Final = 1.25

#: So many of the last samples count: links change.
_MEMORY: Final = 8

#: A transfer that takes so many times what it should keeps no place from others.
_SLOW: Final = 3.0

#: One that takes so many times that, and so many seconds at least, keeps none whatever others do:
#: its peer has stopped, perhaps.
_LOST: Final = 4.0
_LOST_LEAST: Final = 5.0


@dataclass(slots=True)
class Window:
    """Transfers over one link, and how many there should be.

    Args:
        most: Never more at once, but for those that are slow.
        least: Never fewer...
        first: ...but so many until one has arrived.
    """

    most: int
    least: int = 2
    first: int = 1

    #: Of each: when it began, the sum below by then, and its bytes.
    _under_way: dict[Hashable, tuple[float, float, int]] = field(init=False, default_factory=dict)
    #: Transfers under way, summed over time: seconds; and until when.
    _sum: float = field(init=False, default=0.0)
    _at: float = field(init=False, default=0.0)
    _fills: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=_MEMORY))
    #: Seconds a byte of the quickest; 0 while there was none.
    _quickest: float = field(init=False, default=0.0)
    #: Bytes of the shortest ever.
    _shortest: int = field(init=False, default=0)
    #: So many at once fill the link.
    limit: int = field(init=False)

    def __post_init__(self) -> None:
        self.limit = min(self.first, self.most)

    def __len__(self) -> int:
        return len(self._under_way)

    def has_place(self, now: float) -> bool:
        """Whether one more may begin.

        Those that take much longer than others would keep no place, up to as many again; those
        that may never end keep none at all.
        """
        busy, limit = len(self._under_way), self.limit
        if busy < limit:
            return True
        patience = _SLOW * limit * self._quickest
        oldest, _, _ = next(iter(self._under_way.values()), (now, 0.0, 0))
        if now - oldest <= (patience * self._shortest or _LOST_LEAST):
            return False  # as a rule: not even the oldest is slow
        slow = 0
        for at, _, length in self._under_way.values():
            age, enough = now - at, patience * length
            busy -= age > max(_LOST * enough, _LOST_LEAST)
            slow += enough < age <= max(_LOST * enough, _LOST_LEAST)
        if busy < limit:
            return True
        return bool(patience) and busy < 2 * limit and busy - slow < limit

    def seconds(self, length: int) -> float:
        """In which *length* bytes were transferred at best; 0 while that is not known."""
        return self._quickest * length

    def began(self, key: Hashable, now: float, length: int) -> None:
        """A transfer of *length* bytes begins. It is known by *key* until it ends."""
        self._add_up(now)
        self._under_way[key] = now, self._sum, length
        if length < self._shortest or not self._shortest:
            self._shortest = length

    def ended(self, key: Hashable, now: float, *, arrived: bool) -> None:
        """It has ended, and all of it *arrived*, or not."""
        self._add_up(now)
        at, before, length = self._under_way.pop(key)
        seconds = now - at
        if not arrived or not length or seconds <= 0:
            return
        each = seconds / length
        self._quickest = min(self._quickest or each, each)
        self._fills.append((self._sum - before) / seconds * self._quickest / each)
        fill = sum(self._fills) / len(self._fills)
        self.limit = min(max(self.least, int(_PROBE * fill) + 1), self.most)

    def _add_up(self, now: float) -> None:
        self._sum += len(self._under_way) * (now - self._at)
        self._at = now
