"""Pieces of a task's content, and the byte ranges that ask for them.

    content  0 ............................................. content_length
    pieces   |--- 0 ---|--- 1 ---|--- 2 ---|--- 3 ---|-- 4 --|
    range              .    |<-------- wanted ------->|
    covered            |--- 1 ---|--- 2 ---|--- 3 ---|

Pieces are numbered from 0 and all but the last have the same length. They are fetched,
verified and shared whole; a range is trimmed only on its way out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pantala.errors import InvalidRequest, RangeNotSatisfiable, RemoteProtocolError

from .notation import parse_bounds
from .units import byte_count

#: What users may ask for, bytes, and what all kinds of task but CACHE are cut into.
MIN_PIECE_LENGTH: Final = 4 * 1024 * 1024
MAX_PIECE_LENGTH: Final = 64 * 1024 * 1024

#: The shortest pieces that there are, but for the last of content.
LEAST_PIECE_LENGTH: Final = 1024 * 1024

#: Content whose length shows only at its end is kept, and given away, in steps of so many bytes
#: until then. A piece is a power of two of bytes, unless a user has it otherwise.
GROWTH_STEP: Final = 4 * 1024 * 1024

# Content is cut into about this many pieces, as long as the limits above allow it...
_PIECES_WANTED: Final = 500

# ...and into so many at least where they may be shorter than Dragonfly's.
_PIECES_AT_LEAST: Final = 128

_CONTENT_RANGE: Final = re.compile(r"(?i:bytes) +([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20}|\*)")
_UNSATISFIED: Final = re.compile(r"(?i:bytes) +\*/([0-9]{1,20})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes *start* up to, not including, *end*."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after the range."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Piece:
    """A numbered slice of content: *length* bytes from *offset*."""

    number: int
    offset: int
    length: int


def piece_length_for(
    content_length: int, requested: int | None = None, *, least: int = MIN_PIECE_LENGTH
) -> int:
    """Bytes in every piece but the last.

    Every peer computes this for itself, so the formula is part of the protocol, and is that of
    Dragonfly's client: a 500th of the content, up to the next power of two, within the limits.
    Where the pieces may be shorter than 4 MiB, there are 128 of them if the content is long enough:
    the fewer there are, the longer it takes until the first ones are passed on, and the last.

    Args:
        content_length: Bytes in the whole content.
        requested: What the caller asked for instead, bytes.
        least: Bytes in the shortest pieces of this kind of task.

    Raises:
        InvalidRequest: *requested* is not within 4 MiB to 64 MiB.

    >>> piece_length_for(2_097_152_499), piece_length_for(2_097_152_500)
    (4194304, 8388608)
    >>> piece_length_for(134_217_728, least=1 << 20), piece_length_for(134_217_729, least=1 << 20)
    (1048576, 2097152)
    """
    if requested is not None:
        if not MIN_PIECE_LENGTH <= requested <= MAX_PIECE_LENGTH:
            raise InvalidRequest(f"piece length {requested}: want 4 MiB to 64 MiB, in bytes")
        return requested
    longest = _power_of_two(content_length // _PIECES_WANTED)
    shortest = max(_power_of_two(-(-content_length // _PIECES_AT_LEAST)), least)
    return min(max(longest, min(shortest, MIN_PIECE_LENGTH)), MAX_PIECE_LENGTH)


def _power_of_two(length: int) -> int:
    """The least that is not less; 1 at least."""
    return 1 << max(length - 1, 0).bit_length()


def piece_count(content_length: int, piece_length: int) -> int:
    """Pieces in *content_length* bytes of content; 0 when it is empty."""
    return -(-content_length // piece_length)


def piece_at(number: int, *, content_length: int, piece_length: int) -> Piece:
    """The piece with this number.

    Raises:
        InvalidRequest: The content has no such piece.
    """
    offset = number * piece_length
    if not 0 <= offset < content_length:
        raise InvalidRequest(
            f"piece {number} of {piece_count(content_length, piece_length)}: "
            f"pieces are numbered from 0"
        )
    return Piece(number, offset, min(piece_length, content_length - offset))


def pieces_for(range: ByteRange | None, *, content_length: int, piece_length: int) -> list[Piece]:
    """The whole pieces that cover *range*, in order.

    Args:
        range: None for the whole content. Clipped at the content's end.
        content_length: Bytes in the whole content. 0 without a range gives an empty list.
        piece_length: Bytes in every piece but the last. At least 1.

    Raises:
        RangeNotSatisfiable: The range is empty, or starts at or past the content's end.

    >>> found = pieces_for(ByteRange(5, 10), content_length=100, piece_length=4)
    >>> [piece.number for piece in found]
    [1, 2, 3]
    """
    numbers = _numbers(range, content_length, piece_length)
    return [
        Piece(number, at, min(piece_length, content_length - at))
        for number in numbers
        for at in (number * piece_length,)
    ]


def _numbers(wanted: ByteRange | None, content_length: int, piece_length: int) -> range:
    if wanted is None:
        return range(piece_count(content_length, piece_length))
    part = resolve_range(wanted, content_length)
    return range(part.start // piece_length, piece_count(part.end, piece_length))


def resolve_range(range: ByteRange, content_length: int) -> ByteRange:
    """*range*, clipped at the content's end.

    Raises:
        RangeNotSatisfiable: The range is empty, or starts at or past the content's end.
    """
    if range.length > 0 and range.start >= content_length:
        where = "at" if range.start == content_length else "past"
        raise RangeNotSatisfiable(
            f"the range begins {where} the end of a file of {byte_count(content_length)}: "
            f"byte {range.start} is not there"
        )
    if range.length <= 0 or range.start < 0:
        raise RangeNotSatisfiable(
            f"range of {byte_count(range.length)} from {range.start}: "
            f"not within a file of {byte_count(content_length)}"
        )
    return ByteRange(range.start, min(range.length, content_length - range.start))


def parse_range(text: str, content_length: int) -> ByteRange:
    """The bytes that an HTTP ``Range`` wants (RFC 9110, 14.1.2), clipped at the content's end.

    Of several ranges the first alone counts. The unit may be left out, as people do.

    Args:
        text: ``bytes=a-b`` (both ends included), ``bytes=a-`` (to the end) or ``bytes=-n``
            (the last n bytes, or all of shorter content).
        content_length: Bytes in the whole content.

    Raises:
        RangeNotSatisfiable: Malformed, empty, or starts at or past the content's end.

    >>> parse_range("bytes=-10", 100)
    ByteRange(start=90, length=10)
    """
    unit, equals, ranges = text.strip().rpartition("=")
    if equals and unit.lower() != "bytes":
        raise RangeNotSatisfiable(f"range {text[:100]!r}: want bytes=a-b, bytes=a- or bytes=-n")
    try:
        first, last = parse_bounds(ranges.partition(",")[0].strip())
    except ValueError as error:
        raise RangeNotSatisfiable(f"range {text[:100]!r}: {error}") from None
    if first is None:
        length = min(last or 0, content_length)
        return resolve_range(ByteRange(content_length - length, length), content_length)
    end = max(content_length, first + 1) if last is None else last + 1
    return resolve_range(ByteRange(first, end - first), content_length)


def parse_content_range(text: str) -> tuple[int, int, int | None]:
    """First byte, last byte (included) and total of an HTTP ``Content-Range``.

    The total is None when the origin does not know it (``bytes 0-9/*``).

    Raises:
        RemoteProtocolError: Malformed, or its numbers contradict each other.

    >>> parse_content_range("bytes 0-9/100")
    (0, 9, 100)
    """
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise RemoteProtocolError(f"Content-Range {text[:100]!r}: want bytes a-b/total")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if last < first or (total is not None and last >= total):
        raise RemoteProtocolError(f"Content-Range {text[:100]!r} contradicts itself")
    return first, last, total


def parse_unsatisfied(text: str) -> int | None:
    """The total that an origin names when it refuses a range (``bytes */100``), else None."""
    found = _UNSATISFIED.fullmatch(text.strip())
    return None if found is None else int(found[1])
