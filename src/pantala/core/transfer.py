"""One download of one task on one node: events in, commands out.

It knows which pieces are wanted, who offers them, which are being fetched, and where the talk
with the scheduler stands; from these it decides what to fetch next, from whom, and what to tell.
It never waits and moves no bytes: the shell (``daemon.downloading.driver``) carries out the
commands and comes back with events.

    Wanted ───────────►┌──────────┐──► Fetch(piece, parent or origin)
    Scheduled ────────►│          │──► Follow(parent): collect what it offers
    ToldBackToSource ─►│ Transfer │──► Drop(parent): not to be asked again
    SchedulerLost ────►│          │──► a Report: one message to the scheduler
    Offered, Closed ──►│          │──► Refuse(pieces): nobody will ever provide them
    Stored, Lost ─────►│          │──► Finish
    Look ─────────────►└──────────┘

The talk:

    ASKING ──Scheduled──► FOLLOWING ──missing pieces──► ASKING  (at most max_schedules answers)
       │                                        └──too often──► ALONE
       ├──ToldBackToSource──► SOURCE  (the origin for whatever nobody offers)
       ├──ToldEmpty──► FOLLOWING
       └──SchedulerLost──► ALONE      (the parents at hand, then the origin; to the end)

A piece that does not come, or late, may be fetched a second time beside the first: of another
parent that has it, or of the origin when nothing is heard of those who do. The first that is here
counts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from pantala.model.announce import (
    Failed,
    Finished,
    PieceFailed,
    PieceFinished,
    Report,
    Reschedule,
    SourceFinished,
    SourcePieceFinished,
    SourceStarted,
    Started,
)
from pantala.model.task import PieceRecord

from .pace import Look, is_slow, is_stuck
from .parents import Parent, choose
from .sample import SampleSet

#: Seconds in which a parent may bring a piece that has been asked for none: worth one try.
UNTRIED: Final = 1.0

#: Pieces that are asked for twice at once.
MAX_TWICE: Final = 4


class Talk(Enum):
    """Where the talk with the scheduler stands."""

    ASKING = auto()
    FOLLOWING = auto()
    SOURCE = auto()
    ALONE = auto()


# -- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """All pieces that somebody still waits for; True where the origin may be asked for it.

    It replaces what was wanted before. Pieces that are stored already must not be in it.
    """

    pieces: Mapping[int, bool]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The scheduler names parents, with a weight each (free bandwidth, any unit; above 0)."""

    parents: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Weighed:
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
    """There is no scheduler, or the talk with it broke off."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A followed parent has a piece."""

    parent: str
    number: int


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
    | Weighed
    | ToldBackToSource
    | ToldEmpty
    | SchedulerLost
    | Offered
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
class Refuse:
    """Nobody will provide these pieces to those who want them; fail them."""

    pieces: frozenset[int]


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is wanted any more; the last command there is."""


#: A report is a message to the scheduler. The shell may add to it what went wrong.
Command = Fetch | Follow | Drop | Refuse | Finish | Report


@dataclass(slots=True)
class Transfer:
    """The state of one download. Changed only by :meth:`handle`.

    Args:
        rng: For choosing pieces and parents.
        max_in_flight: Pieces at once. Those that are stuck do not count, up to as many again.
        max_schedules: Answers of the scheduler that are acted on; one more ends the talk.
        source_in_order: The origin serves a single pass from front to back: one fetch at a
            time, in the order of the pieces. May be set at any time.
    """

    rng: random.Random
    max_in_flight: int = 8
    max_schedules: int = 5
    source_in_order: bool = False

    talk: Talk = Talk.ASKING
    schedules: int = 0
    over: bool = False
    #: Every piece wanted and not stored; True where the origin may be asked.
    wanted: dict[int, bool] = field(default_factory=dict)
    #: Fetches under way: piece to parent, None for the origin.
    in_flight: dict[int, str | None] = field(default_factory=dict)
    #: Second fetches under way. Their first may have failed since.
    second: dict[int, str | None] = field(default_factory=dict)
    #: Seconds that pieces need still which do not come soon; see :class:`~.pace.Look`.
    left: dict[int, float] = field(default_factory=dict)
    #: Bytes a second of each parent's last piece, and bytes in a piece.
    rates: Mapping[str, float] = field(default_factory=dict)
    piece_length: int = 1
    #: Parents of which nothing is heard; each is open or busy. What they offer does not count.
    quiet: set[str] = field(default_factory=set)
    #: Second fetches begun.
    doubled: int = 0
    #: Pieces stored.
    stored: int = 0
    parents: dict[str, Parent] = field(default_factory=dict)
    #: Per piece, the parents that offered it and are not bad.
    offers: dict[int, list[str]] = field(default_factory=dict)
    #: Wanted, not in flight, offered by somebody who is not quiet.
    ready: SampleSet[int] = field(default_factory=SampleSet)
    #: Wanted, not in flight, offered by nobody else; in the order in which they became so.
    unoffered: dict[int, None] = field(default_factory=dict)
    #: Pieces were given up, so that what the peer registered for may not all be here.
    gave_up: bool = False

    def handle(self, event: Event) -> list[Command]:
        """Take one event; return what to do about it, in order."""
        if self.over:
            return []
        if isinstance(event, Look):
            self._look(event)
            return self._proceed()
        return self._learn(event) + self._proceed()

    @property
    def has_backlog(self) -> bool:
        """More is wanted than may be fetched at once."""
        return len(self.wanted) > self.max_in_flight

    def waits_for(self) -> list[str]:
        """Parents that may still offer something that nobody else does."""
        if not self.unoffered and not self.quiet:
            return []
        return [name for name, parent in self.parents.items() if parent.open]

    # -- learning ------------------------------------------------------------------------------

    def _learn(self, event: Event) -> list[Command]:
        commands: list[Command] = []
        match event:
            case Wanted(pieces):
                commands = self._want(pieces)
            case Scheduled() | ToldBackToSource() | ToldEmpty():
                commands = self._take_answer(event)
            case Weighed(parent, weight):
                if parent in self.parents:
                    self.parents[parent].weight = weight
            case SchedulerLost():
                self.talk = Talk.ALONE
            case Offered(parent, number):
                self._speaks(parent)
                self._offer(parent, number)
            case Closed(parent, bad):
                self._speaks(parent)
                commands = self._close(parent, bad=bad)
            case Stored(piece, second):
                commands = self._store(piece, second=second)
            case Lost(number, blame, second):  # pragma: no branch  there is no other event
                commands = self._lose(number, blame=blame, second=second)
        return commands

    def _want(self, pieces: Mapping[int, bool]) -> list[Command]:
        new = pieces.keys() - self.wanted.keys()
        for number in self.wanted.keys() - pieces.keys():
            self.gave_up = True
            self.ready.discard(number)
            self.unoffered.pop(number, None)
        self.wanted = dict(pieces)
        for number in sorted(new):
            self._queue(number)
        if not new:
            return []
        again: list[Command] = []
        for name, parent in self.parents.items():
            if not parent.bad:
                parent.open = True
                again.append(Follow(name))
        return again

    def _take_answer(self, answer: Scheduled | ToldBackToSource | ToldEmpty) -> list[Command]:
        if self.talk is Talk.ALONE:  # the scheduler takes no more words from us
            return []
        self.schedules += 1
        if isinstance(answer, ToldBackToSource):
            return self._take_source()
        if self.schedules > self.max_schedules:
            self.talk = Talk.ALONE
            return [Failed()]
        return self._take_parents(answer.parents if isinstance(answer, Scheduled) else {})

    def _take_parents(self, parents: Mapping[str, float]) -> list[Command]:
        self.talk = Talk.FOLLOWING
        commands: list[Command] = [Started()]
        for name, weight in parents.items():
            known = self.parents.get(name)
            if known is None:
                self.parents[name] = Parent(weight)
            elif known.bad:
                continue
            else:
                known.open, known.weight = True, weight
            commands.append(Follow(name))
        return commands

    def _take_source(self) -> list[Command]:
        if any(self.wanted.values()) or not self.wanted:
            self.talk = Talk.SOURCE
            return [SourceStarted()]
        # Nobody here lets us ask the origin. Saying "the origin failed" would count against the
        # origin at the scheduler, so this is a plain failure.
        self.talk = Talk.ALONE
        return [Failed()]

    def _offer(self, name: str, number: int) -> None:
        parent = self.parents.get(name)
        if parent is None or parent.bad:
            return
        offers = self.offers.setdefault(number, [])
        if name not in offers:
            offers.append(name)
        if number in self.unoffered:
            self._queue(number)

    def _close(self, name: str, *, bad: bool) -> list[Command]:
        parent = self.parents.get(name)
        if parent is None:
            return []
        parent.open = False
        return self._ban(name) if bad and not parent.bad else []

    def _store(self, piece: PieceRecord, *, second: bool) -> list[Command]:
        number = piece.number
        fetches = self.second if second else self.in_flight
        if number not in fetches:
            return []
        name = fetches[number]
        for each in (self.in_flight, self.second):
            self._landed(each, number)
        self.wanted.pop(number, None)
        self.offers.pop(number, None)
        self.stored += 1
        if name is None:
            report: Report = SourcePieceFinished(piece)
        else:
            self.parents[name].doubtful = False
            report = PieceFinished(piece)
        return [] if self.talk is Talk.ALONE else [report]

    def _landed(self, fetches: dict[int, str | None], number: int) -> None:
        """A fetch has ended, if there was one."""
        self.left.pop(number, None)
        name = fetches.pop(number, None)
        if name is not None:
            self.parents[name].busy -= 1
            self._speaks(name)

    def _lose(self, number: int, *, blame: bool, second: bool) -> list[Command]:
        fetches = self.second if second else self.in_flight
        if number not in fetches:
            return []
        name = fetches[number]
        self._landed(fetches, number)
        commands: list[Command] = []
        if name is not None:
            if self.talk is not Talk.ALONE:
                commands.append(PieceFailed(number, name))
            if blame:
                commands += self._ban(name)
            else:
                self._withdraw(name, number)
        if number in self.wanted:
            self._queue(number)
        return commands

    def _look(self, look: Look) -> None:
        self.left, self.rates = dict(look.left), look.rates
        for number in look.left:
            name = self.in_flight.get(number)
            if name is not None and self._is_stuck_at(number, name):
                self.parents[name].doubtful = True
        quiet = {name for name in look.quiet if self._may_be_quiet(name)}
        changed, self.quiet = quiet ^ self.quiet, quiet
        for name in changed:
            self._requeue(name)

    def _may_be_quiet(self, name: str) -> bool:
        """Whether something ends the silence of a parent in any case: its stream, or a fetch."""
        parent = self.parents.get(name)
        return parent is not None and not parent.bad and (parent.open or parent.busy > 0)

    def _speaks(self, name: str) -> None:
        """Something is heard of a parent, or nothing more is to be expected of it."""
        if name in self.quiet:
            self.quiet.discard(name)
            self._requeue(name)

    def _requeue(self, name: str) -> None:
        """What a parent offers counts now, or counts no more."""
        for number, names in self.offers.items():
            if name in names and (number in self.ready or number in self.unoffered):
                self._queue(number)

    def _ban(self, name: str) -> list[Command]:
        parent = self.parents[name]
        if parent.bad:
            return []
        parent.bad, parent.open = True, False
        self.quiet.discard(name)
        for number in [n for n, names in self.offers.items() if name in names]:
            self._withdraw(name, number)
        return [Drop(name)]

    def _withdraw(self, name: str, number: int) -> None:
        names = self.offers.get(number, [])
        if name in names:
            names.remove(name)
        if not names:
            self.offers.pop(number, None)
        if number in self.ready:
            self._queue(number)

    def _queue(self, number: int) -> None:
        """Put a wanted piece where it belongs now."""
        self.ready.discard(number)
        self.unoffered.pop(number, None)
        if number in self.in_flight or number in self.second:
            return
        if self._have(number):
            self.ready.add(number)
        else:
            self.unoffered[number] = None

    def _have(self, number: int) -> list[str]:
        """The parents of whom a piece may be had now."""
        return [name for name in self.offers.get(number, ()) if name not in self.quiet]

    # -- proceeding ----------------------------------------------------------------------------

    def _proceed(self) -> list[Command]:
        commands: list[Command] = []
        self._fetch_from_parents(commands)
        if self.left:
            self._fetch_twice(commands)
        if self._source_is_open():
            self._fetch_from_source(commands)
        if self.wanted and self._is_stuck():
            commands += self._unstick()
        if not self.wanted and not self.in_flight and not self.second and not self._is_unanswered():
            commands += self._finish()
        return commands

    def _is_unanswered(self) -> bool:
        """The scheduler has not said its first word; until then it takes no reports."""
        return self.talk is Talk.ASKING and self.schedules == 0

    def _fetch_from_parents(self, commands: list[Command]) -> None:
        while self.ready and self._has_place():
            number = self._next()
            if number is None:
                return
            name = choose(self.parents, self._have(number), self.rng)
            self.ready.discard(number)
            commands.append(self._begin(number, name))

    def _next(self) -> int | None:
        """A piece to fetch. The places of those that are stuck are for parents that get on."""
        if len(self.in_flight) + len(self.second) < self.max_in_flight:
            return self.ready.choice(self.rng)
        good = [
            number
            for number in self.ready
            if any(not self.parents[name].doubtful for name in self._have(number))
        ]
        return self.rng.choice(good) if good else None

    def _begin(self, number: int, name: str | None) -> Fetch:
        """Fetch a piece; beside another fetch of it if there is one."""
        second = number in self.in_flight
        (self.second if second else self.in_flight)[number] = name
        if name is not None:
            self.parents[name].busy += 1
        if number in self.in_flight and number in self.second:
            self.doubled += 1
        return Fetch(number, name, second)

    def _has_place(self) -> bool:
        """Whether one more piece may be fetched."""
        busy = (
            len(self.in_flight.keys() | self.second.keys()) if self.second else len(self.in_flight)
        )
        if busy < self.max_in_flight:
            return True
        stuck = sum(1 for n in self.left if self._is_held_up(n))
        return busy - min(stuck, self.max_in_flight) < self.max_in_flight

    def _is_held_up(self, number: int) -> bool:
        """Whether the only fetch of a piece is stuck."""
        name = self.in_flight.get(number)
        return name is not None and number not in self.second and self._is_stuck_at(number, name)

    def _is_stuck_at(self, number: int, name: str) -> bool:
        others = (self._seconds(n) for n in self._have(number) if n != name)
        quickest = min((s for s in others if s is not None), default=None)
        return is_stuck(self.left[number], quickest)

    def _seconds(self, name: str) -> float | None:
        """In which a parent brings a piece, by its last one; None: that is being found out."""
        rate = self.rates.get(name)
        if rate:
            return self.piece_length / rate
        return UNTRIED if not self.parents[name].busy else None

    def _fetch_twice(self, commands: list[Command]) -> None:
        """Ask others as well for what does not come, worst first; few at once, and few in all."""
        for number in sorted(self.left, key=lambda n: self.left[n], reverse=True):
            if self._are_twice() >= MAX_TWICE or not self._may_double():
                return
            name = self._may_be_faster(number)
            if name is not None:
                commands.append(self._begin(number, name))

    def _are_twice(self) -> int:
        return len(self.in_flight.keys() & self.second.keys())

    def _may_double(self) -> bool:
        """Whether the traffic stays within an eighth more, and a few pieces."""
        return self.doubled < 4 * MAX_TWICE + self.stored // 8

    def _may_be_faster(self, number: int) -> str | None:
        """Another parent for a piece whose only fetch is stuck, or slow when all is under way."""
        fetches = self.in_flight if number in self.in_flight else self.second
        now = fetches.get(number)
        # What the origin has begun to send is not asked of anybody else: it may be its only pass.
        if now is None or number not in self.wanted or self._is_twice(number):
            return None
        is_worth = is_stuck if self.ready else is_slow
        names = [n for n in self._have(number) if n != now and not self.parents[n].doubtful]
        names = [n for n in names if is_worth(self.left[number], self._seconds(n))]
        return choose(self.parents, names, self.rng) if names else None

    def _is_twice(self, number: int) -> bool:
        return number in self.in_flight and number in self.second

    def _source_is_open(self) -> bool:
        """Whether pieces that nobody offers may be asked of the origin now.

        Alone, those parents come first that may still offer something.
        """
        if self.talk is Talk.SOURCE:
            return True
        return self.talk is Talk.ALONE and not self._somebody_may_offer()

    def _fetch_from_source(self, commands: list[Command]) -> None:
        limit = self.max_in_flight
        candidates = [n for n in (*self.unoffered, *self._stranded()) if self.wanted[n]]
        if self.source_in_order:
            limit = 1
            candidates.sort()
        fetches = (*self.in_flight.values(), *self.second.values())
        busy = sum(1 for name in fetches if name is None)
        for number in candidates:
            if busy >= limit or not self._has_place():
                return
            self.unoffered.pop(number, None)
            busy += 1
            commands.append(self._begin(number, None))

    def _stranded(self) -> list[int]:
        """Pieces that come from nobody but a parent of which nothing is heard."""
        if not self.quiet:
            return []
        return [
            number
            for number, name in self.in_flight.items()
            if name in self.quiet
            and number in self.wanted
            and number not in self.second
            and not self._have(number)
        ]

    def _somebody_may_offer(self) -> bool:
        """Whether offers may come still from somebody of whom something is heard.

        Silence does not use up the scheduler's answers: with the last, everybody is waited for.
        """
        quiet = self.quiet if self.schedules < self.max_schedules else ()
        return any(p.open and name not in quiet for name, p in self.parents.items())

    def _is_stuck(self) -> bool:
        """Some piece has no provider, none can turn up, and nothing is on its way to change it."""
        if self.talk is Talk.ASKING or self._somebody_may_offer():
            return False
        if self.talk is Talk.FOLLOWING:
            if self.schedules < self.max_schedules and self._stranded():
                return True
            return any(self._is_homeless(n) for n in self.unoffered)
        return bool(self._hopeless())

    def _is_homeless(self, number: int) -> bool:
        """Whether nobody offers it, or only those whose silence may be told of."""
        return not self.offers.get(number) or self.schedules < self.max_schedules

    def _hopeless(self) -> frozenset[int]:
        """Pieces that nobody offers, not even one who is quiet now, nor will, nor the origin."""
        if any(parent.open for parent in self.parents.values()):
            return frozenset()
        return frozenset(n for n in self.unoffered if not self.wanted[n] and not self.offers.get(n))

    def _unstick(self) -> list[Command]:
        if self.talk is Talk.FOLLOWING:
            self.talk = Talk.ASKING
            return [Reschedule(tuple(self.parents))]
        hopeless = self._hopeless()
        for number in hopeless:
            del self.unoffered[number]
            del self.wanted[number]
        self.gave_up = True
        return [Refuse(hopeless)]

    def _finish(self) -> list[Command]:
        self.over = True
        if self.talk is Talk.ALONE:
            return [Finish()]
        if self.gave_up:  # its callers left: no fault of the origin's
            return [Failed(), Finish()]
        done = SourceFinished() if self.talk is Talk.SOURCE else Finished()
        return [done, Finish()]
