"""One download of one task on one node: events in, commands out.

It knows which pieces are wanted, who offers them, which are being fetched, and what the
scheduler has said; from these it decides what to fetch next, from whom, and what to tell.
It never waits and moves no bytes: the shell (``daemon.downloading.driver``) carries out the
commands and comes back with events.

    Wanted ───────────►┌──────────┐──► Fetch(piece, parent or origin)
    Scheduled ────────►│          │──► Follow(parent): collect what it offers
    ToldBackToSource ─►│ Transfer │──► Drop(parent): not to be asked again
    SchedulerLost ────►│          │──► a Report: one message to the scheduler
    Offered, Closed ──►│          │──► Seek(piece): another than its parent shall offer it
    Told ─────────────►│          │──► Rejoin: look for a scheduler again
    Stored, Lost ─────►│          │──► FailPieces(pieces): nobody will ever provide them
    Look ─────────────►└──────────┘──► Finish

A piece that does not come, or late, may be fetched a second time beside the first: of another
parent that has it, or of the origin when nothing is heard of those who do. The first that is here
counts. Parents that exchange offer no piece that they were told comes from elsewhere, so they are
told when it does not.

Of parents beyond a thin line nothing is fetched that somebody on this side has, or fetches, of whom
it will be had soon (:mod:`.sparing`). They are told that it is wanted later, if at all.

Four subjects lie upon each other, each a class that is the next one's base and knows nothing of
it; only the last is used from outside, by its one door, ``handle``:

- :mod:`.events`: the words: what can happen, and what is to be done about it
- :mod:`.supply`: which pieces are wanted, who has them, which are on their way
- :mod:`.sparing`: which need not come over a thin line
- :mod:`.picking`: which of them is fetched next, from whom, and which a second time
- :mod:`.machine`: what the scheduler says, the origin, and the end
"""

from .events import (
    GONE,
    Closed,
    Command,
    Drop,
    Event,
    FailPieces,
    Fetch,
    Finish,
    Follow,
    Lost,
    Offered,
    Rejoin,
    Scheduled,
    SchedulerLost,
    Seek,
    Stored,
    Told,
    ToldBackToSource,
    ToldEmpty,
    Wanted,
    WeightChanged,
)
from .machine import MOST_DENIALS, PATIENCE, USELESS, Phase, Transfer
from .picking import MAX_TWICE

__all__ = [
    "GONE",
    "MAX_TWICE",
    "MOST_DENIALS",
    "PATIENCE",
    "USELESS",
    "Closed",
    "Command",
    "Drop",
    "Event",
    "FailPieces",
    "Fetch",
    "Finish",
    "Follow",
    "Lost",
    "Offered",
    "Phase",
    "Rejoin",
    "Scheduled",
    "SchedulerLost",
    "Seek",
    "Stored",
    "Told",
    "ToldBackToSource",
    "ToldEmpty",
    "Transfer",
    "Wanted",
    "WeightChanged",
]
