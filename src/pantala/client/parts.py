"""Parts of a content: which are asked for together, and what is taken of one that is on its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pantala.errors import InvalidRequest, SourceChanged

from .arrival import Arrival, Step, same
from .content import Content
from .landing import Landing
from .wishes import Range, bounds_of, numbers_of

#: Ranges with no more bytes between them are asked for together. Those bytes travel anyway: a piece
#: is longer, so there is none between that neither of the two needs.
_GAP: Final = 64 << 10

#: Bytes in a part of a stream at most: little enough to work on while the next ones come.
_PART: Final = 4 << 20


class Cut:
    """Several ranges of a content: what is asked for so as to have them, and copies of them.

    Args:
        ranges: In any order. One without bytes is not asked for.

    Attributes:
        spans: To be asked for.
        copies: Of the ranges, in their order, once all spans have been taken.

    Raises:
        InvalidRequest: A range cannot be.

    >>> Cut([(0, 8), (8, 20), (5, 5)]).spans
    [(0, 20)]
    """

    def __init__(self, ranges: Iterable[Range]) -> None:
        wanted = list(ranges)
        self.copies = [b""] * len(wanted)
        #: How long the content is, and what the origin says of it; one entry at most.
        self._told: dict[None, tuple[int, Mapping[str, str]]] = {}
        self._inside: dict[Range, list[tuple[int, Range]]] = {}
        bounded: list[tuple[int, int, int]] = []
        for at, part in enumerate(wanted):
            first, end = numbers_of(part)
            if first == end:
                continue
            bounds_of(part)
            if end is None:
                self._inside.setdefault((first, end), []).append((at, (first, end)))
            else:
                bounded.append((first, end, at))
        self._merge(sorted(bounded))
        self.spans = list(self._inside)

    def _merge(self, bounded: Sequence[tuple[int, int, int]]) -> None:
        span: tuple[int, int] | None = None
        inside: list[tuple[int, Range]] = []
        for first, end, at in bounded:
            if span is not None and first <= span[1] + _GAP:
                span = span[0], max(span[1], end)
            else:
                if span is not None:
                    self._inside[span] = inside
                span, inside = (first, end), []
            inside.append((at, (first, end)))
        if span is not None:
            self._inside[span] = inside

    def take(self, span: Range, content: Content) -> None:
        """Copy the ranges that lie in one of :attr:`spans`, which is here.

        Several threads may do so at once, each for a span of its own.

        Raises:
            SourceChanged: It is of another version than one before.
        """
        told = (content.whole_size, content.header)
        # Atomic: of two that come at once, both are compared with the same one.
        if not same(self._told.setdefault(None, told), told):
            raise SourceChanged(
                f"{content.url} changed while it was read: ask again", transient=True
            )
        begin = span[0]
        for at, (first, end) in self._inside[span]:
            last = None if end is None else end - begin
            self.copies[at] = content.copy(first - begin, last)


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
        except (TypeError, ValueError, BufferError) as error:
            raise InvalidRequest(f"buffer: want contiguous memory to write into: {error}") from None
        if self._room.readonly:
            raise InvalidRequest("buffer: it may not be written")

    def take(self, step: Step, landing: Landing) -> None:
        """Copy what an event has brought. Raises InvalidRequest: there is no room."""
        arrival = landing.arrival
        if step.name in ("started", "whole"):
            self._check(arrival)
        for first, end in step.brought:
            landing.copy_into(self._room[first - arrival.start : end - arrival.start], first)

    def _check(self, arrival: Arrival) -> None:
        if arrival.length > len(self._room):
            raise InvalidRequest(
                f"buffer: it has {len(self._room)} bytes, the content {arrival.length}"
            )
