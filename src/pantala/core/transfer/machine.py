"""What the scheduler says, the origin, and the end of a download.

    ASKING ──Scheduled──► FOLLOWING ──missing pieces──► ASKING  (at most max_schedules answers)
       │                                        └──too often──► ALONE
       ├──ToldBackToSource──► SOURCE  (the origin for whatever nobody offers)
       ├──ToldEmpty──► FOLLOWING
       └──SchedulerLost──► ALONE      (the parents at hand, then it is asked anew: ASKING; if that
                                       is in vain, the origin)

What makes this hard is that a download must neither hang nor end too early. So after every event
that leaves something wanted, one of these is true: a fetch is under way; the scheduler has the
word; a parent may still offer something. When none is, the transfer is stuck, and says something
itself: it asks the scheduler anew, or, when nobody is left to ask, fails the pieces for those who
want them.

Nobody may be asked without end, either. The scheduler's answers are counted; a parent that failed
is never asked again; and one that only says nothing does not use up the last answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from pantala.core.pace import Look
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
from pantala.model.numbers import bits_of_numbers
from pantala.model.task import PieceRecord

from .events import (
    Closed,
    Command,
    Event,
    FailPieces,
    Finish,
    Lost,
    Offered,
    Rejoin,
    Scheduled,
    SchedulerLost,
    Stored,
    Told,
    ToldBackToSource,
    ToldEmpty,
    Wanted,
    WeightChanged,
)
from .picking import Picker
from .sparing import SPARE_AGAIN, SPARE_FOR

#: Seconds without a piece, or an offer of one, after which others are asked: perhaps those that we
#: follow wait for us. Doubled each time.
PATIENCE: Final = 3.0
MOST_PATIENCE: Final = 12.0

#: Seconds without a piece, or an offer of one, after which those that we follow are taken for of no
#: use: the scheduler is asked for others, or the origin, as if they had failed.
USELESS: Final = 40.0

#: Seconds after which, without a scheduler, nothing more is expected of those who say nothing new.
GIVE_UP: Final = 60.0

#: So often a scheduler that was lost is looked for anew without a piece in between.
MOST_REJOINS: Final = 3

#: So many pieces in a row may be gone that a parent has offered. One that offers again what it has
#: not would keep us waiting for ever.
MOST_DENIALS: Final = 16


class Phase(Enum):
    """How the download stands with its scheduler."""

    #: The scheduler has the word: its answer is waited for.
    ASKING = auto()
    #: It has named parents, or none because there is nothing to fetch.
    FOLLOWING = auto()
    #: It has sent us to the origin.
    SOURCE = auto()
    #: It is told nothing more, and asked nothing, unless it was lost and is looked for anew.
    ALONE = auto()


@dataclass(slots=True)
class Transfer(Picker):
    """One download. Changed only by :meth:`handle`.

    Args:
        rng: For choosing pieces and parents.
        max_in_flight: Pieces at once. Those that are stuck do not count, up to as many again.
        max_schedules: Answers of the scheduler that are acted on; after that it is not asked.
    """

    max_schedules: int = 5

    phase: Phase = field(init=False, default=Phase.ASKING)
    #: Answers of the scheduler so far.
    schedules: int = field(init=False, default=0)
    #: When a piece was last stored, or offered; at first, when the download began.
    got_on_at: float = field(init=False, default=0.0)
    #: When the scheduler last answered, and the seconds without a piece or an offer until it is
    #: asked again.
    asked_at: float = field(init=False, default=0.0)
    patience: float = field(init=False, default=PATIENCE)
    #: The scheduler was lost that had answered, and there may be another, or it itself again.
    may_rejoin: bool = field(init=False, default=False)
    #: How often it was looked for anew since the last piece.
    rejoins: int = field(init=False, default=0)
    #: The answer that is waited for is to such a question.
    out_of_turn: bool = field(init=False, default=False)
    #: Until then nothing is spared.
    starved_until: float = field(init=False, default=0.0)
    #: The last command was given.
    over: bool = field(init=False, default=False)
    #: Pieces were given up, so that what the peer registered for may not all be here.
    gave_up: bool = field(init=False, default=False)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event, at *now* seconds; return what to do about it, in order."""
        if self.over:
            return []
        self.now = now
        self.got_on_at = self.got_on_at or now
        if isinstance(event, Look):
            self._look(event)
            return self._proceed()
        if isinstance(event, Told):
            self._note(event.child, event.lacks, event.has)
            return self._proceed() if self._spare_near() else []
        return self._learn(event) + self._proceed()

    # -- learning ------------------------------------------------------------------------------

    def _learn(self, event: Event) -> list[Command]:
        commands: list[Command] = []
        match event:
            case Wanted(pieces):
                self.gave_up |= bool(self.wanted.keys() - pieces.keys())
                commands = self._want(pieces)
            case Scheduled() | ToldBackToSource() | ToldEmpty():
                commands = self._take_answer(event)
            case WeightChanged(parent, weight):
                if parent in self.parents:
                    self.parents[parent].weight = weight
            case SchedulerLost(again):
                # One that has not answered was waited for, in vain.
                self.may_rejoin = again and self.schedules > 0 and self.phase is not Phase.ALONE
                self.phase, self.asked_at = Phase.ALONE, self.now
            case Offered(parent, number):
                self._take_offer(parent, number)
            case Closed(parent, bad):
                self._speaks(parent)
                commands = self._close(parent, bad=bad)
            case Stored(piece, second):
                commands = self._store(piece, second=second)
            case Lost(number, blame, second):  # pragma: no branch  there is no other event
                commands = self._lose(number, blame=blame, second=second)
        return commands

    def _take_offer(self, parent: str, number: int) -> None:
        self._speaks(parent)
        self._offer(parent, number)
        if number in self.wanted:
            self._gets_on()

    def _take_answer(self, answer: Scheduled | ToldBackToSource | ToldEmpty) -> list[Command]:
        if self.phase is Phase.ALONE:  # the scheduler takes no more words from us
            return []
        if isinstance(answer, Scheduled) and self.phase is not Phase.ASKING:
            # It tells us of others who have come meanwhile. Whoever is at the origin needs nobody.
            follows = self.phase is Phase.FOLLOWING
            return self._meet(answer.parents, answer.far) if follows else []
        self.schedules += not self.out_of_turn
        self.out_of_turn = False
        if isinstance(answer, ToldBackToSource):
            return self._take_source()
        if self.schedules > self.max_schedules:
            self.phase = Phase.ALONE
            return [Failed()]
        return self._take_parents(answer if isinstance(answer, Scheduled) else Scheduled({}))

    def _take_parents(self, answer: Scheduled) -> list[Command]:
        self.phase = Phase.FOLLOWING
        self.asked_at = self.now  # from now on they have time to offer something
        return [Started(), *self._meet(answer.parents, answer.far)]

    def _take_source(self) -> list[Command]:
        if any(self.wanted.values()) or not self.wanted:
            self.phase = Phase.SOURCE
            return [SourceStarted()]
        # Nobody here lets us ask the origin. Saying "the origin failed" would count against the
        # origin at the scheduler, so this is a plain failure.
        self.phase = Phase.ALONE
        return [Failed()]

    def _store(self, piece: PieceRecord, *, second: bool) -> list[Command]:
        number = piece.number
        fetches = self.second if second else self.in_flight
        if number not in fetches:
            return []
        name = fetches[number]
        for each in (False, True):
            self._landed(number, second=each, arrived=each is second)
        self._gets_on()
        self.schedules, self.rejoins = min(self.schedules, 1), 0
        self.wanted.pop(number, None)
        self.offers.pop(number, None)
        self.stored += 1
        if name is None:
            report: Report = SourcePieceFinished(piece)
        else:
            self.parents[name].doubtful = False
            self.parents[name].denials = 0
            report = PieceFinished(piece)
        return [] if self.phase is Phase.ALONE else [report]

    def _lose(self, number: int, *, blame: bool, second: bool) -> list[Command]:
        fetches = self.second if second else self.in_flight
        if number not in fetches:
            return []
        name = fetches[number]
        self._landed(number, second=second, arrived=False)
        commands: list[Command] = []
        if name is not None:
            if self.phase is not Phase.ALONE:
                commands.append(PieceFailed(number, name))
            self.parents[name].denials += not blame
            if blame or self.parents[name].denials > MOST_DENIALS:
                commands += self._ban(name)
            else:
                self._withdraw(name, number)
        if number in self.wanted:
            self._queue(number)
        return commands

    def _gets_on(self) -> None:
        """Something is offered, or has come: what is missing need not be asked for elsewhere."""
        self.got_on_at, self.patience = self.now, PATIENCE

    # -- proceeding ----------------------------------------------------------------------------

    def _proceed(self) -> list[Command]:
        commands: list[Command] = []
        self._spare_near()
        self._fetch_from_parents(commands)
        if self.left:
            self._fetch_twice(commands)
        if self.left or self.quiet or self.sought:
            self._seek(commands)
        if self._source_is_open():
            if self._rejoins():
                commands.append(Rejoin())
            else:
                self._fetch_from_source(commands)
        if self.wanted and self._is_stuck():
            commands += self._unstick()
        if not self.wanted and not self.in_flight and not self.second and not self._is_unanswered():
            commands += self._finish()
        return commands

    def _spare_near(self) -> bool:
        """Work out what need not come from afar; whether that changes anything.

        If those on this side bring too little, so that there was room for more for some time, all
        may come from afar for a while.
        """
        if not self.has_far:
            return False
        fetches = bool(self.in_flight or self.second)
        if fetches and self.room and self.now - max(self.began_at, self.asked_at) >= SPARE_FOR:
            self.starved_until = self.now + SPARE_AGAIN
        return self._spare(comes=self._comes())

    def _comes(self) -> bool:
        """Whether something is being fetched of others, or was offered a moment ago."""
        if self.phase in (Phase.SOURCE, Phase.ALONE):
            return False  # what nobody is to bring is asked of the origin, which is worse
        if self.in_flight or self.second:
            return self.now >= self.starved_until
        return self.now - max(self.got_on_at, self.asked_at) < SPARE_FOR

    def _is_unanswered(self) -> bool:
        """The scheduler has not said its first word; until then it takes no reports."""
        return self.phase is Phase.ASKING and self.schedules == 0

    # -- the origin ----------------------------------------------------------------------------

    def _source_is_open(self) -> bool:
        """Whether pieces that nobody offers may be asked of the origin now.

        Alone, those parents come first that may still offer something.
        """
        if self.phase is Phase.SOURCE:
            return True
        return self.phase is Phase.ALONE and (not self._somebody_may_offer() or self._is_idle())

    def _rejoins(self) -> bool:
        """Whether to look for a scheduler anew, as nobody is left whom the lost one has named.

        It may know others who have what is missing, and the origin is to be read once.
        """
        if not self.may_rejoin or self.rejoins >= MOST_REJOINS:
            return False
        if not self.unoffered and not self._stranded():
            return False
        self.may_rejoin, self.rejoins = False, self.rejoins + 1
        self.phase, self.schedules, self.out_of_turn = Phase.ASKING, 0, False
        return True

    def _somebody_may_offer(self) -> bool:
        """Whether offers may come still from somebody of whom something is heard.

        Silence does not use up the scheduler's answers: with the last, everybody is waited for.
        """
        quiet = self.quiet if self.schedules < self.max_schedules else ()
        return any(p.open and name not in quiet for name, p in self.parents.items())

    def _is_idle(self) -> bool:
        """Whether nothing is on its way, and nobody has offered anything for some time.

        Those who may offer something may be waiting for us, or for each other: of peers that
        exchange, none need be nearer to the source than we are.
        """
        if self.in_flight or self.second or not self.wanted:
            return False
        return self.now - max(self.got_on_at, self.asked_at) >= self.patience

    # -- stuck, or through ---------------------------------------------------------------------

    def _is_stuck(self) -> bool:
        """Some piece has no provider, none can turn up, and nothing is on its way to change it."""
        if self.phase is Phase.ASKING:
            return False
        if self._somebody_may_offer():
            return self._is_idle() and (self.phase is Phase.FOLLOWING or bool(self._hopeless()))
        if self.phase is Phase.FOLLOWING:
            if self.schedules < self.max_schedules and self._stranded():
                return True
            return any(self._is_homeless(n) for n in self.unoffered)
        return bool(self._hopeless())

    def _is_homeless(self, number: int) -> bool:
        """Whether nobody offers it, or only those whose silence may be told of."""
        return not self.offers.get(number) or self.schedules < self.max_schedules

    def _hopeless(self) -> frozenset[int]:
        """Pieces that nobody offers, not even one who is quiet now, nor will, nor the origin."""
        given_up = self.now - self.got_on_at >= GIVE_UP
        if any(parent.open for parent in self.parents.values()) and not given_up:
            return frozenset()
        return frozenset(n for n in self.barred if n in self.unoffered and not self.offers.get(n))

    def _unstick(self) -> list[Command]:
        if self.phase is Phase.FOLLOWING:
            self.phase = Phase.ASKING
            # Whoever may still offer something is not the scheduler's to take from us; and that
            # nobody does just now uses up none of its answers.
            may_offer = {n for n, p in self.parents.items() if p.open and n not in self.quiet}
            if self.now - self.got_on_at >= USELESS:
                may_offer.clear()
            self.out_of_turn = bool(may_offer)
            self.patience = min(2 * self.patience, MOST_PATIENCE)
            return [Reschedule(tuple(n for n in self.parents if n not in may_offer))]
        hopeless = self._hopeless()
        for number in hopeless:
            del self.unoffered[number]
            del self.wanted[number]
        self.lacking &= ~bits_of_numbers(hopeless)
        self.gave_up = True
        return [FailPieces(hopeless)]

    def _finish(self) -> list[Command]:
        self.over = True
        if self.phase is Phase.ALONE:
            return [Finish()]
        if self.gave_up:  # its callers left: no fault of the origin's
            return [Failed(), Finish()]
        done = SourceFinished() if self.phase is Phase.SOURCE else Finished()
        return [done, Finish()]
