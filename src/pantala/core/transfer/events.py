"""What can happen to a transfer, and what it has done about it.

Events come from the shell, one at a time, and commands go back to it. Both are values: a download
can be written down as the list of its events, and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pantala.core.pace import Look
from pantala.model.announce import Report
from pantala.model.task import PieceRecord

#: What one lacks that follows us no more: everything.
GONE: Final = -1

# -- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """All pieces that somebody still waits for; True where the origin may be asked for it.

    It replaces what was wanted before. Pieces that are stored already must not be in it.
    """

    pieces: Mapping[int, bool]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The scheduler names parents, with a weight each (free bandwidth, any unit; above 0).

    Those that are *far* are beyond a thin line.
    """

    parents: Mapping[str, float]
    far: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WeightChanged:
    """What a parent can give has changed; the weight is as in :class:`Scheduled`."""

    parent: str
    weight: float


@dataclass(frozen=True, slots=True)
class ToldBackToSource:
    """The scheduler wants this node to ask the origin."""


@dataclass(frozen=True, slots=True)
class ToldEmpty:
    """The scheduler says that the content is empty."""


@dataclass(frozen=True, slots=True)
class SchedulerLost:
    """There is no scheduler, or the announce stream broke off.

    With *again* that was no answer, and there may be one again.
    """

    again: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """A followed parent has a piece."""

    parent: str
    number: int


@dataclass(frozen=True, slots=True)
class Told:
    """Who follows us, perhaps a parent, too, tells what it lacks, and what it has or fetches.

    Pieces are the bits that are set. One that follows us no more lacks :data:`GONE`.
    """

    child: str
    lacks: int
    has: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A followed parent will offer no more. With *bad*, nothing of it is wanted either."""

    parent: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A piece that was being fetched is verified and in the store; no fetch of it goes on."""

    piece: PieceRecord
    #: It was the second fetch that brought it.
    second: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A fetch failed. With *blame* the parent is not to be asked for anything again."""

    number: int
    blame: bool = True
    #: It was the second fetch of the piece.
    second: bool = False


Event = (
    Wanted
    | Scheduled
    | WeightChanged
    | ToldBackToSource
    | ToldEmpty
    | SchedulerLost
    | Offered
    | Told
    | Closed
    | Stored
    | Lost
    | Look
)

# -- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a piece from a parent, or from the origin when *parent* is None.

    One fetch and one *second* fetch of a piece may be under way, each the only one of its sort.
    """

    number: int
    parent: str | None
    #: Beside another fetch of the piece, which goes on.
    second: bool = False


@dataclass(frozen=True, slots=True)
class Follow:
    """Collect from *parent* which of the wanted pieces it has, afresh if followed already."""

    parent: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Stop following *parent*."""

    parent: str


@dataclass(frozen=True, slots=True)
class Seek:
    """Have others offer a piece, for *parent*, of whom it is being fetched, does not bring it.

    They may have been told that it comes, and need not be offered. The fetch goes on.
    """

    number: int
    parent: str


@dataclass(frozen=True, slots=True)
class Rejoin:
    """Register anew with whatever scheduler is there; :class:`SchedulerLost` if there is none.

    What was registered before is over. The one that was lost need not be the one that is found.
    """


@dataclass(frozen=True, slots=True)
class FailPieces:
    """Nobody will provide these pieces to those who want them; fail them."""

    pieces: frozenset[int]


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is wanted any more; the last command there is."""


#: A report is a message to the scheduler. The shell may add to it what went wrong.
Command = Fetch | Follow | Drop | Seek | Rejoin | FailPieces | Finish | Report
