"""A set of piece numbers that takes a byte for each number there can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

#: Numbers are below this: a tebibyte in the shortest pieces there are.
MAX_NUMBERS: Final = 1 << 18


class Numbers:
    """A set of numbers below :data:`MAX_NUMBERS`, in a hundredth of the memory of Python's own.

    Args:
        numbers: What is in it. Larger ones, which no piece has, are left out.
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        possible = [number for number in numbers if 0 <= number < MAX_NUMBERS]
        self._flags = flags = bytearray(max(possible, default=-1) + 1)
        for number in possible:
            flags[number] = 1
        self._count = flags.count(1)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return len(self._flags)

    def __contains__(self, number: int) -> bool:
        return 0 <= number < len(self._flags) and self._flags[number] == 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """In ascending order. What is discarded meanwhile does not come any more."""
        at = -1
        while (at := self._flags.find(1, at + 1)) >= 0:
            yield at

    def discard(self, number: int) -> None:
        """Take *number* out if it is there."""
        if number in self:
            self._flags[number] = 0
            self._count -= 1
