"""One download of one task on one node: events in, commands out.

It knows which pieces are wanted, who offers them, which are being fetched, and where the talk
with the scheduler stands; from these it decides what to fetch next, from whom, and what to tell.
It never waits and moves no bytes: the shell (``daemon.flight``) carries out the commands and
comes back with events.

    Wanted ───────────►┌──────────┐──► Fetch(piece, parent or origin)
    Scheduled ────────►│          │──► Follow(parent): collect what it offers
    ToldBackToSource ─►│ Transfer │──► Drop(parent): not to be asked again
    SchedulerLost ────►│          │──► Tell(note): one message to the scheduler
    Offered, Closed ──►│          │──► Refuse(pieces): nobody will ever provide them
    Stored, Lost ─────►└──────────┘──► Finish

The talk:

    ASKING ──Scheduled──► FOLLOWING ──missing pieces──► ASKING  (at most max_schedules answers)
       │                                        └──too often──► ALONE
       ├──ToldBackToSource──► SOURCE  (the origin for whatever nobody offers)
       ├──ToldEmpty──► FOLLOWING
       └──SchedulerLost──► ALONE      (the parents at hand, then the origin; to the end)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


class Talk(Enum):
    """Where the talk with the scheduler stands."""

    ASKING = auto()
    FOLLOWING = auto()
    SOURCE = auto()
    ALONE = auto()


class Note(Enum):
    """What the scheduler is told."""

    STARTED = auto()
    PIECE_FINISHED = auto()
    PIECE_FAILED = auto()
    RESCHEDULE = auto()
    FINISHED = auto()
    FAILED = auto()
    SOURCE_STARTED = auto()
    SOURCE_PIECE_FINISHED = auto()
    SOURCE_PIECE_FAILED = auto()
    SOURCE_FINISHED = auto()
    SOURCE_FAILED = auto()


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
    """A piece that was being fetched is verified and in the store."""

    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A fetch failed. With *blame* the parent is not to be asked for anything again."""

    number: int
    blame: bool = True


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
)

# -- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a piece from a parent, or from the origin when *parent* is None."""

    number: int
    parent: str | None


@dataclass(frozen=True, slots=True)
class Follow:
    """Collect from *parent* which of the wanted pieces it has, afresh if followed already."""

    parent: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Stop following *parent*."""

    parent: str


@dataclass(frozen=True, slots=True)
class Tell:
    """One message to the scheduler."""

    note: Note
    number: int | None = None
    parent: str | None = None
    #: With RESCHEDULE: the parents that have nothing more to give.
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody will provide these pieces to those who want them; fail them."""

    pieces: frozenset[int]


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is wanted any more; the last command there is."""


Command = Fetch | Follow | Drop | Tell | Refuse | Finish


class Bag:
    """A set of numbers from which a random one can be had in constant time."""

    def __init__(self) -> None:
        self._items: list[int] = []
        self._where: dict[int, int] = {}

    def __contains__(self, item: int) -> bool:
        return item in self._where

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def add(self, item: int) -> None:
        """Put *item* in, once."""
        if item not in self._where:
            self._where[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: int) -> None:
        """Take *item* out if it is there."""
        at = self._where.pop(item, None)
        if at is None:
            return
        last = self._items.pop()
        if last != item:
            self._items[at] = last
            self._where[last] = at

    def choice(self, rng: random.Random) -> int:
        """Any item."""
        return self._items[rng.randrange(len(self._items))]


@dataclass(slots=True)
class Parent:
    """A peer that the scheduler named."""

    weight: float
    #: It may still offer more.
    open: bool = True
    #: Not to be asked again in this download.
    bad: bool = False
    #: Fetches from it under way.
    busy: int = 0


@dataclass(slots=True)
class Transfer:
    """The state of one download. Changed only by :meth:`handle`.

    Args:
        rng: For choosing pieces and parents.
        max_in_flight: Fetches at once.
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
    parents: dict[str, Parent] = field(default_factory=dict)
    #: Per piece, the parents that offered it and are not bad.
    offers: dict[int, list[str]] = field(default_factory=dict)
    #: Wanted, not in flight, offered by somebody.
    ready: Bag = field(default_factory=Bag)
    #: Wanted, not in flight, offered by nobody; in the order in which they became so.
    unoffered: dict[int, None] = field(default_factory=dict)
    #: Pieces were given up, so that what the peer registered for may not all be here.
    gave_up: bool = False

    def handle(self, event: Event) -> list[Command]:
        """Take one event; return what to do about it, in order."""
        if self.over:
            return []
        return self._learn(event) + self._proceed()

    @property
    def has_backlog(self) -> bool:
        """More is wanted than may be fetched at once."""
        return len(self.wanted) > self.max_in_flight

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
                self._offer(parent, number)
            case Closed(parent, bad):
                commands = self._close(parent, bad=bad)
            case Stored(number):
                commands = self._store(number)
            case Lost(number, blame):  # pragma: no branch  there is no other event
                commands = self._lose(number, blame=blame)
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
            return [Tell(Note.FAILED)]
        return self._take_parents(answer.parents if isinstance(answer, Scheduled) else {})

    def _take_parents(self, parents: Mapping[str, float]) -> list[Command]:
        self.talk = Talk.FOLLOWING
        commands: list[Command] = [Tell(Note.STARTED)]
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
            return [Tell(Note.SOURCE_STARTED)]
        # Nobody here lets us ask the origin. Saying "the origin failed" would count against the
        # origin at the scheduler, so this is a plain failure.
        self.talk = Talk.ALONE
        return [Tell(Note.FAILED)]

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

    def _store(self, number: int) -> list[Command]:
        if number not in self.in_flight:
            return []
        name = self.in_flight.pop(number)
        self.wanted.pop(number, None)
        self.offers.pop(number, None)
        if name is None:
            note = Note.SOURCE_PIECE_FINISHED
        else:
            self.parents[name].busy -= 1
            note = Note.PIECE_FINISHED
        return [] if self.talk is Talk.ALONE else [Tell(note, number, name)]

    def _lose(self, number: int, *, blame: bool) -> list[Command]:
        if number not in self.in_flight:
            return []
        name = self.in_flight.pop(number)
        commands: list[Command] = []
        if name is not None:
            self.parents[name].busy -= 1
            if self.talk is not Talk.ALONE:
                commands.append(Tell(Note.PIECE_FAILED, number, name))
            if blame:
                commands += self._ban(name)
            else:
                self._withdraw(name, number)
        if number in self.wanted:
            self._queue(number)
        return commands

    def _ban(self, name: str) -> list[Command]:
        parent = self.parents[name]
        if parent.bad:
            return []
        parent.bad, parent.open = True, False
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
        if number in self.in_flight:
            return
        if self.offers.get(number):
            self.ready.add(number)
        else:
            self.unoffered[number] = None

    # -- proceeding ----------------------------------------------------------------------------

    def _proceed(self) -> list[Command]:
        commands: list[Command] = []
        self._fetch_from_parents(commands)
        if self._source_is_open():
            self._fetch_from_source(commands)
        if self.wanted and self._is_stuck():
            commands += self._unstick()
        if not self.wanted and not self.in_flight and not self._is_unanswered():
            commands += self._finish()
        return commands

    def _is_unanswered(self) -> bool:
        """The scheduler has not said its first word; until then it takes no reports."""
        return self.talk is Talk.ASKING and self.schedules == 0

    def _fetch_from_parents(self, commands: list[Command]) -> None:
        while self.ready and len(self.in_flight) < self.max_in_flight:
            number = self.ready.choice(self.rng)
            name = self._choose(self.offers[number])
            self.ready.discard(number)
            self.in_flight[number] = name
            self.parents[name].busy += 1
            commands.append(Fetch(number, name))

    def _choose(self, names: list[str]) -> str:
        """One of *names*, the likelier the more free bandwidth it has per fetch under way."""
        if len(names) == 1:
            return names[0]
        weights = [self.parents[n].weight / (1 + self.parents[n].busy) for n in names]
        return self.rng.choices(names, weights)[0]

    def _source_is_open(self) -> bool:
        """Whether pieces that nobody offers may be asked of the origin now.

        Alone, those parents come first that may still offer something.
        """
        if self.talk is Talk.SOURCE:
            return True
        return self.talk is Talk.ALONE and not self._somebody_may_offer()

    def _fetch_from_source(self, commands: list[Command]) -> None:
        limit = self.max_in_flight
        candidates: list[int] = [n for n in self.unoffered if self.wanted[n]]
        if self.source_in_order:
            limit = 1
            candidates.sort()
        busy = sum(1 for name in self.in_flight.values() if name is None)
        for number in candidates:
            if busy >= limit or len(self.in_flight) >= self.max_in_flight:
                return
            del self.unoffered[number]
            self.in_flight[number] = None
            busy += 1
            commands.append(Fetch(number, None))

    def _somebody_may_offer(self) -> bool:
        return any(parent.open for parent in self.parents.values())

    def _is_stuck(self) -> bool:
        """Some piece has no provider, none can turn up, and nothing is on its way to change it."""
        if self.talk is Talk.ASKING or self._somebody_may_offer():
            return False
        if self.talk is Talk.FOLLOWING:
            return bool(self.unoffered)
        return any(not self.wanted[n] for n in self.unoffered)

    def _unstick(self) -> list[Command]:
        if self.talk is Talk.FOLLOWING:
            self.talk = Talk.ASKING
            return [Tell(Note.RESCHEDULE, parents=tuple(self.parents))]
        hopeless = frozenset(n for n in self.unoffered if not self.wanted[n])
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
            return [Tell(Note.FAILED), Finish()]
        done = Note.SOURCE_FINISHED if self.talk is Talk.SOURCE else Note.FINISHED
        return [Tell(done), Finish()]
