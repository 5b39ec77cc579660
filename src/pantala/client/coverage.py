"""Which bytes of a content are here; no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Coverage:
    """A set of bytes, as spans that neither touch nor overlap, in order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, first: int, end: int) -> None:
        """Have the bytes from *first* to before *end*, too."""
        low = bisect_left(self._ends, first)
        high = bisect_right(self._starts, end)
        if low < high:
            first, end = min(first, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [first]
        self._ends[low:high] = [end]

    def end_from(self, offset: int) -> int:
        """Up to where all is here from *offset* on; *offset* itself if that byte is not.

        >>> some = Coverage()
        >>> some.add(4, 6)
        >>> some.end_from(4), some.end_from(5), some.end_from(6)
        (6, 6, 6)
        """
        at = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[at]) if at >= 0 else offset

    def has(self, first: int, end: int) -> bool:
        """Whether the bytes from *first* to before *end* are here."""
        return first >= end or self.end_from(first) >= end
