"""What a parent and a child tell each other of the pieces of one task.

Sets of pieces are numbers, of which bit *n* stands for piece *n*: :mod:`.numbers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Offer:
    """A piece that a parent has.

    Attributes:
        ip, port: Where to ask for it by Vortex; port None: by gRPC only.
        at: The parent's clock when it was offered, unix seconds; None if the parent told none.
    """

    number: int
    offset: int
    length: int
    ip: str
    port: int | None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """What a parent says of its copy before it offers pieces of it.

    Attributes:
        version: Of the content; ``""`` if it says none.
        digests: One digest over those of all pieces, so that two who have the same bytes can
            be told to; ``""`` if it has not all of them, or says nothing.
    """

    version: str
    digests: str = ""


class Exchanged(NamedTuple):
    """How a parent that exchanges cuts the content, and where it serves pieces by Vortex."""

    content_length: int
    piece_length: int
    ip: str
    port: int


class Offering(NamedTuple):
    """Pieces that a parent would have us fetch now: the bits that are set; none if it only lives.

    Attributes:
        at: The parent's clock, unix seconds; None if it told none.
    """

    pieces: int
    at: float | None


class Wish(NamedTuple):
    """What a parent is told of what is wanted here. Pieces are the bits that are set.

    Attributes:
        lacks: Pieces that are wanted, perhaps again.
        has: Pieces that are here, or fetched from others.
        room: So many more would be fetched at once; None: as before.
        later: Pieces that come from elsewhere, nearer to here, and may yet be lacking.
    """

    lacks: int
    has: int
    room: int | None
    later: int = 0
