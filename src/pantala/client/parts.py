"""Parts of a content: which are asked for together, and what is taken of one that is on its way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pantala.errors import InvalidRequest

from .arrival import Arrival, Step
from .landing import Landing
from .wishes import Range, bounds_of

#: Ranges with no more bytes between them are asked for together. Those bytes travel anyway: a piece
#: is longer, so there is none between that neither of the two needs.
_GAP: Final = 64 << 10

#: Bytes in a part of a stream at most: little enough to work on while the next ones come.
_PART: Final = 4 << 20


def merged(ranges: Sequence[Range]) -> Mapping[Range, list[tuple[int, Range]]]:
    """What to ask for so as to have all *ranges*, with those that lie in each, and their places.

    >>> merged([(0, 8), (8, 20), (5, 5)])
    {(0, 20): [(0, (0, 8)), (1, (8, 20))]}

    A range without bytes is in none.

    Raises:
        InvalidRequest: One cannot be.
    """
    jobs: dict[Range, list[tuple[int, Range]]] = {}
    spans: list[tuple[int, int, int]] = []
    for at, part in enumerate(ranges):
        first, end = part
        if first == end:
            continue
        bounds_of(part)
        if end is None:
            jobs.setdefault(part, []).append((at, part))
        else:
            spans.append((first, end, at))
    begun: tuple[int, int] | None = None
    inside: list[tuple[int, Range]] = []
    for first, end, at in sorted(spans):
        if begun is not None and first <= begun[1] + _GAP:
            begun = begun[0], max(begun[1], end)
        else:
            if begun is not None:
                jobs[begun] = inside
            begun, inside = (first, end), []
        inside.append((at, (first, end)))
    if begun is not None:
        jobs[begun] = inside
    return jobs


class Reader:
    """Reads a content in order while it comes.

    Args:
        landing: Where it lies.
    """

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._at = 0

    def parts(self) -> Iterator[memoryview]:
        """What has come since the last time and is next."""
        arrival = self._landing.arrival
        begin = arrival.start + self._at
        end = self._landing.coverage.end_from(begin)
        for first in range(begin, end, _PART):
            last = min(first + _PART, end)
            self._at = last - arrival.start
            yield self._landing.view(first, last)


class Copier:
    """Puts a content into memory of the caller's, while it comes.

    Args:
        buffer: That memory.

    Raises:
        InvalidRequest: It is not contiguous, or may not be written.
    """

    def __init__(self, buffer: Any) -> None:
        try:
            self._room = memoryview(buffer).cast("B")
        except TypeError as error:
            raise InvalidRequest(f"buffer: want contiguous memory to write into: {error}") from None
        if self._room.readonly:
            raise InvalidRequest("buffer: it may not be written")

    def take(self, step: Step, landing: Landing) -> None:
        """Copy what an event has brought. Raises InvalidRequest: there is no room."""
        arrival = landing.arrival
        if step.name in ("started", "whole"):
            self._check(arrival)
        parts = list(step.parts)
        if step.inline:
            parts.append((step.offset, step.offset + step.inline))
        for first, end in parts:
            room = self._room[first - arrival.start : end - arrival.start]
            room[:] = landing.view(first, end)

    def _check(self, arrival: Arrival) -> None:
        if arrival.length > len(self._room):
            raise InvalidRequest(
                f"buffer: it has {len(self._room)} bytes, the content {arrival.length}"
            )
