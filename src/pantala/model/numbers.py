"""Sets of piece numbers: by a byte for each number there can be, or by a bit.

Bits are those of a Python number: hundreds of such sets can be compared in microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from pantala.errors import InvalidRequest

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


class Bits:
    """Which bits of a number are set; to ask for one takes no longer the more there are."""

    def __init__(self, pieces: int) -> None:
        self._bytes = pieces.to_bytes((pieces.bit_length() + 7) // 8, "little")

    def __contains__(self, number: int) -> bool:
        at = number >> 3
        return at < len(self._bytes) and self._bytes[at] >> (number & 7) & 1 == 1


#: A set with more runs than this is spelled out, a byte for each piece. To look for one after the
#: other in the number takes time that grows with the square: seconds for the largest there are.
_MANY: Final = 64

_RUN: Final = re.compile("1+")


def runs_of(pieces: int) -> Iterator[tuple[int, int]]:
    """The pieces whose bits are set: of each unbroken run the first, and how many.

    >>> list(runs_of(0b1011))
    [(0, 2), (3, 1)]
    """
    if pieces.bit_count() > _MANY:
        for run in _RUN.finditer(f"{pieces:b}"[::-1]):
            yield run.start(), run.end() - run.start()
        return
    at = 0
    while pieces:
        gap = (pieces & -pieces).bit_length() - 1
        pieces >>= gap
        count = (~pieces & (pieces + 1)).bit_length() - 1
        yield at + gap, count
        at += gap + count
        pieces >>= count


def bits_of(runs: Iterable[tuple[int, int]]) -> int:
    """A number in which the bits of these pieces are set; see :func:`runs_of`.

    Raises:
        InvalidRequest: A run is empty, goes beyond :data:`MAX_NUMBERS`, or begins before the end of
            the one before it.
    """
    found: list[tuple[int, int]] = []
    end = 0
    for first, count in runs:
        if not 0 < count <= MAX_NUMBERS - first:
            raise InvalidRequest(f"no pieces: {count} from {first} on; at most {MAX_NUMBERS}")
        if first < end:
            raise InvalidRequest(f"runs of pieces out of order: {first} after {end - 1}")
        end = first + count
        found.append((first, count))
    if len(found) > _MANY:
        return _spelled_out(found, end)
    pieces = 0
    for first, count in found:
        pieces |= ((1 << count) - 1) << first
    return pieces


def _spelled_out(runs: list[tuple[int, int]], end: int) -> int:
    bits = bytearray(b"0") * end
    for first, count in runs:
        bits[end - first - count : end - first] = b"1" * count
    return int(bits, 2)


def bits_of_numbers(numbers: Iterable[int]) -> int:
    """A number in which the bits of these pieces are set."""
    flags = bytearray()
    for number in numbers:
        at, bit = divmod(number, 8)
        if at >= len(flags):
            flags.extend(bytes(at + 1 - len(flags)))
        flags[at] |= 1 << bit
    return int.from_bytes(flags, "little")
