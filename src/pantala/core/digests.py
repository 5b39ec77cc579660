"""Digests of pieces by number: four bytes and a bit for each piece that there can be."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pantala.model.numbers import bits_of_numbers, runs_of

#: Bytes that an empty table takes. Measured: 0.4 KiB.
OVERHEAD: Final = 512


class DigestRun(NamedTuple):
    """Of pieces that follow each other: the number of the first, and the CRC-32 of each."""

    first: int
    crcs: Sequence[int]

    def each(self) -> Iterator[tuple[int, int]]:
        """Numbers, each with its CRC-32."""
        return enumerate(self.crcs, self.first)


class DigestTable:
    """Digests of the pieces of one content. The first word on a piece counts.

    Args:
        count: Pieces that there can be.

    Attributes:
        known: A number with a bit for each piece of which there is a digest.
    """

    __slots__ = ("_crcs", "known")

    def __init__(self, count: int) -> None:
        self._crcs = array("I", (0,)) * count
        self.known = 0

    @staticmethod
    def size(count: int) -> int:
        """Bytes of memory of a table for *count* pieces that is full."""
        return OVERHEAD + 4 * count + count // 7  # 30 bits are four bytes

    def put(self, run: DigestRun) -> None:
        """Learn these, none of which is beyond the last."""
        first, crcs = run
        new = _bits(run) & ~self.known
        for start, count in runs_of(new):
            at = start - first
            self._crcs[start : start + count] = array("I", crcs[at : at + count])
        self.known |= new

    def differs(self, run: DigestRun) -> int:
        """The bits of those pieces that are known to be others."""
        known = self.known & _bits(run)
        return sum(1 << n for n, crc in run.each() if known >> n & 1 and self._crcs[n] != crc)

    def get(self, number: int) -> int | None:
        """The CRC-32 of a piece, if it is known."""
        return self._crcs[number] if self.known >> number & 1 else None

    def runs(self, pieces: int, most: int) -> list[DigestRun]:
        """Those that are known of the pieces whose bits are set, *most* of them, in order."""
        found: list[DigestRun] = []
        for first, count in runs_of(pieces & self.known):
            some = min(count, most)
            if not some:
                break
            found.append(DigestRun(first, self._crcs[first : first + some]))
            most -= some
        return found


def digest_runs(crcs: Mapping[int, int]) -> list[DigestRun]:
    """The same as runs, in order."""
    return [
        DigestRun(first, array("I", map(crcs.__getitem__, range(first, first + count))))
        for first, count in runs_of(bits_of_numbers(crcs))
    ]


def _bits(run: DigestRun) -> int:
    return ((1 << len(run.crcs)) - 1) << run.first
