"""core/transfer: plays, what must hold whatever happens, and whole downloads."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from pantala.core.pace import Look
from pantala.core.transfer import (
    GONE,
    MAX_TWICE,
    MOST_DENIALS,
    PATIENCE,
    USELESS,
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
    Phase,
    Rejoin,
    Scheduled,
    SchedulerLost,
    Seek,
    Stored,
    Told,
    ToldBackToSource,
    ToldEmpty,
    Transfer,
    Wanted,
    WeightChanged,
)
from pantala.core.transfer.machine import MOST_REJOINS
from pantala.core.transfer.sparing import SPARE_FOR
from pantala.model.announce import (
    Failed,
    Finished,
    LastReport,
    PieceFailed,
    PieceFinished,
    Report,
    Reschedule,
    SourceFinished,
    SourcePieceFinished,
    SourceStarted,
    Started,
)
from pantala.model.task import PieceRecord, Traffic

# -- what must hold after every event ------------------------------------------------------------


def fetches(tr: Transfer) -> list[tuple[int, bool, str | None]]:
    """All that are under way: the piece, whether it is its second, and from whom."""
    first = [(number, False, name) for number, name in tr.in_flight.items()]
    return first + [(number, True, name) for number, name in tr.second.items()]


def check(tr: Transfer) -> None:
    """Everything that the attributes of Transfer promise."""
    flying = tr.in_flight.keys() | tr.second.keys()
    assert len(flying) <= 2 * tr.max_in_flight
    assert len(tr.in_flight.keys() & tr.second.keys()) <= MAX_TWICE + tr.max_in_flight
    for number in tr.wanted:
        places = (number in flying, number in tr.ready, number in tr.unoffered)
        assert sum(places) == 1, (number, places)
    assert set(tr.ready) | tr.unoffered.keys() <= tr.wanted.keys()
    lacking = sum(1 << number for number in tr.wanted if number not in flying)
    assert tr.lacking == lacking
    assert tr.spared & ~lacking == 0
    heard = {
        n: [
            p for p in names if p not in tr.quiet and not (tr.parents[p].far and tr.spared >> n & 1)
        ]
        for n, names in tr.offers.items()
    }
    assert all(heard.get(number) for number in tr.ready)
    assert not any(heard.get(number) for number in tr.unoffered)
    for names in tr.offers.values():
        assert names
        assert len(names) == len(set(names))
        assert not any(tr.parents[name].bad for name in names)
    for name, parent in tr.parents.items():
        fetches = (*tr.in_flight.values(), *tr.second.values())
        assert parent.busy == fetches.count(name)
        assert not (parent.bad and parent.open)
    for name in tr.quiet:  # its silence ends in any case
        assert tr.parents[name].open or tr.parents[name].busy
    if not tr.over and tr.wanted and not flying:
        # Silence is allowed only while somebody else has the word.
        assert tr.phase is Phase.ASKING or any(parent.open for parent in tr.parents.values())


class Stage:
    """A transfer whose every step is checked. It begins with two pieces of the origin at once."""

    def __init__(self, **options: int | bool) -> None:
        options = {"first_of_origin": 2, **options}
        self.tr = Transfer(random.Random(0), **options)  # type: ignore[arg-type]  # names are checked there
        self.told: list[Report] = []
        self.now = 0.0

    def handle(self, event: Event) -> list[Command]:
        """Hand in *event*; judge what comes out."""
        was_over = self.tr.over
        flying = {(n, second) for n, second, _ in fetches(self.tr)}
        if isinstance(event, Stored):
            flying -= {(event.piece.number, False), (event.piece.number, True)}
        elif isinstance(event, Lost):
            flying.discard((event.number, event.second))
        commands = self.tr.handle(event, self.now)
        check(self.tr)
        assert not (was_over and commands)
        for command in commands:
            self._judge(command, flying)
        assert self.tr.over == (was_over or commands[-1:] == [Finish()])
        return commands

    def _judge(self, command: Command, flying: set[tuple[int, bool]]) -> None:
        match command:
            case Fetch(number, parent, second):
                assert number in self.tr.wanted
                assert (number, second) not in flying
                assert not second or (number, False) in flying
                flying.add((number, second))
                self._judge_provider(number, parent)
                ways = [p for n, _, p in fetches(self.tr) if n == number]
                assert len(ways) == len(set(ways)), "the same one twice"
            case Follow(name):
                assert not self.tr.parents[name].bad
            case Drop(name):
                assert self.tr.parents[name].bad
            case Seek(number, parent):
                assert parent in [p for n, _, p in fetches(self.tr) if n == number]
            case FailPieces(pieces):
                assert pieces
                assert not pieces & self.tr.wanted.keys()
            case Finish():
                pass
            case Rejoin():
                assert self.tr.phase is Phase.ASKING
                self.told.clear()
            case _:
                assert not self.told or not isinstance(self.told[-1], LastReport)
                self.told.append(command)

    def _judge_provider(self, number: int, parent: str | None) -> None:
        if parent is not None:
            assert parent in self.tr.offers[number]
            return
        assert self.tr.wanted[number]
        assert self.tr.phase in (Phase.SOURCE, Phase.ALONE)
        assert not set(self.tr.offers.get(number, ())) - self.tr.quiet
        if self.tr.source_in_order:
            assert [p for _, _, p in fetches(self.tr)].count(None) == 1
            allowed = [n for n in self.tr.unoffered if self.tr.wanted[n]]
            assert number < min(allowed, default=number + 1)

    def play(self, *script: tuple[Event, list[Command]]) -> None:
        """Each event must have exactly these consequences."""
        for event, expected in script:
            assert self.handle(event) == expected, event


def piece(number: int) -> PieceRecord:
    """A piece that is here now; whence makes no difference."""
    return PieceRecord(number, number, 1, "crc32:1", None, Traffic.REMOTE_PEER, 1.0, 1.0)


def stored(number: int, second: bool = False) -> Stored:  # noqa: FBT001, FBT002  as Stored itself
    """It is here."""
    return Stored(piece(number), second)


def got(number: int) -> PieceFinished:
    """What the scheduler hears of a piece of a parent."""
    return PieceFinished(piece(number))


def read(number: int) -> SourcePieceFinished:
    """What the scheduler hears of a piece of the origin."""
    return SourcePieceFinished(piece(number))


def wanted(*numbers: int, source: bool = True) -> Wanted:
    """These pieces; the origin may be asked for all of them or for none."""
    return Wanted(dict.fromkeys(numbers, source))


def scheduled(*names: str) -> Scheduled:
    """Parents of equal weight."""
    return Scheduled(dict.fromkeys(names, 1.0))


# -- plays ---------------------------------------------------------------------------------------


def test_from_a_parent() -> None:
    """What the scheduler hears of it: begun, each piece, done."""
    Stage().play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 1), [Fetch(1, "p")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Closed("p"), []),
        (stored(1), [got(1)]),
        (stored(0), [got(0), Finished(), Finish()]),
        (Offered("p", 0), []),
    )


def test_from_the_origin() -> None:
    """No more at once than allowed, in the order of the pieces."""
    Stage(max_in_flight=2).play(
        (wanted(2, 0, 1), []),
        (ToldBackToSource(), [SourceStarted(), Fetch(0, None), Fetch(1, None)]),
        (stored(1), [read(1), Fetch(2, None)]),
        (stored(0), [read(0)]),
        (
            stored(2),
            [read(2), SourceFinished(), Finish()],
        ),
    )


def test_an_origin_that_is_read_front_to_back() -> None:
    """One piece at a time, the lowest that is missing first."""
    Stage(source_in_order=True).play(
        (wanted(3, 5), []),
        (ToldBackToSource(), [SourceStarted(), Fetch(3, None)]),
        (wanted(1, 3, 5), []),
        (stored(3), [read(3), Fetch(1, None)]),
        (stored(1), [read(1), Fetch(5, None)]),
    )


def test_an_empty_file() -> None:
    """The scheduler says so; it hears that all of it is here."""
    Stage().play(
        (wanted(), []),
        (ToldEmpty(), [Started(), Finished(), Finish()]),
    )


def test_an_empty_file_that_is_none() -> None:
    """Whoever misses something asks again, but not for ever."""
    stage = Stage(max_schedules=2)
    stage.play(
        (wanted(0), []),
        (ToldEmpty(), [Started(), Reschedule()]),
        (ToldEmpty(), [Started(), Reschedule()]),
        (ToldEmpty(), [Failed(), Fetch(0, None)]),
        (stored(0), [Finish()]),
    )


def test_without_a_scheduler() -> None:
    """The origin, and no words to anybody."""
    Stage().play(
        (wanted(0), []),
        (SchedulerLost(), [Fetch(0, None)]),
        (stored(0), [Finish()]),
    )


def test_nothing_is_said_before_the_scheduler_has_answered() -> None:
    """Its first word ends a download of nothing."""
    Stage().play(
        (wanted(), []),
        (scheduled(), [Started(), Finished(), Finish()]),
    )


def test_everybody_left_before_the_scheduler_answered() -> None:
    """It must not think that the content is here."""
    Stage().play(
        (wanted(0), []),
        (wanted(), []),
        (scheduled("p"), [Started(), Follow("p"), Failed(), Finish()]),
    )


def test_when_parents_have_no_more_the_scheduler_is_asked_again() -> None:
    """It hears whose stock is exhausted, and may name others or the same."""
    Stage().play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Closed("p"), [Reschedule(("p",))]),
        (scheduled("p", "q"), [Started(), Follow("p"), Follow("q")]),
        (stored(0), [got(0)]),
        (Closed("p"), []),
        (Offered("q", 1), [Fetch(1, "q")]),
        (stored(1), [got(1), Finished(), Finish()]),
    )


def test_being_sent_to_the_origin_does_not_forget_the_parents() -> None:
    """Only what nobody offers comes from there."""
    Stage().play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Closed("p"), [Reschedule(("p",))]),
        (ToldBackToSource(), [SourceStarted(), Fetch(1, None)]),
        (stored(0), [got(0)]),
        (
            stored(1),
            [read(1), SourceFinished(), Finish()],
        ),
    )


def test_too_many_answers_end_the_stream() -> None:
    """Then this node is on its own, and says nothing more."""
    Stage(max_schedules=1).play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Closed("p"), [Reschedule(("p",))]),
        (scheduled("q"), [Failed(), Fetch(0, None), Fetch(1, None)]),
        (scheduled("q"), []),
        (ToldBackToSource(), []),
        (ToldEmpty(), []),
        (SchedulerLost(), []),
        (stored(0), []),
        (stored(1), [Finish()]),
    )


def test_the_way_to_the_origin_is_open_however_often_was_asked() -> None:
    """Unlike another list of parents, it ends the search."""
    Stage(max_schedules=1).play(
        (wanted(0), []),
        (scheduled(), [Started(), Reschedule()]),
        (ToldBackToSource(), [SourceStarted(), Fetch(0, None)]),
    )


def test_a_lost_scheduler_leaves_the_parents() -> None:
    """The origin is asked only once none of them can offer anything."""
    Stage().play(
        (wanted(0, 1), []),
        (scheduled("p", "q"), [Started(), Follow("p"), Follow("q")]),
        (SchedulerLost(), []),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Closed("p"), []),
        (Closed("q"), [Fetch(1, None)]),
        (stored(0), []),
        (stored(1), [Finish()]),
    )


def test_who_must_not_ask_the_origin_is_refused() -> None:
    """Absolutely: told to go there, such a peer answers with a plain failure."""
    Stage().play(
        (wanted(0, 1, source=False), []),
        (ToldBackToSource(), [Failed(), FailPieces(frozenset({0, 1})), Finish()]),
    )


def test_alone_the_parents_come_before_a_refusal() -> None:
    """What they have is taken."""
    Stage().play(
        (wanted(0, 1, source=False), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (SchedulerLost(), []),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Closed("p"), [FailPieces(frozenset({1}))]),
        (stored(0), [Finish()]),
    )


def test_a_shared_download_asks_the_origin_for_some_only() -> None:
    """For a piece that only a caller wants who must not ask, nobody does."""
    Stage().play(
        (Wanted({0: True, 1: False}), []),
        (
            ToldBackToSource(),
            [SourceStarted(), Fetch(0, None), FailPieces(frozenset({1}))],
        ),
        (
            stored(0),
            [read(0), Failed(), Finish()],
        ),
    )


def test_a_parent_to_blame_is_dropped_for_good() -> None:
    """Its other offers go with it, later ones are not heard, and it is not followed again."""
    Stage(max_in_flight=1).play(
        (wanted(0, 1), []),
        (scheduled("liar"), [Started(), Follow("liar")]),
        (Offered("liar", 0), [Fetch(0, "liar")]),
        (Offered("liar", 1), []),
        (
            Lost(0),
            [
                PieceFailed(0, "liar"),
                Drop("liar"),
                Reschedule(("liar",)),
            ],
        ),
        (Offered("liar", 1), []),
        (scheduled("liar", "honest"), [Started(), Follow("honest")]),
        (Offered("honest", 1), [Fetch(1, "honest")]),
    )


def test_a_parent_that_evicted_a_piece_may_have_others() -> None:
    """Only that one is not asked of it again."""
    Stage(max_in_flight=1).play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Offered("p", 1), []),
        (Lost(0, blame=False), [PieceFailed(0, "p"), Fetch(1, "p")]),
        (Offered("p", 0), []),
        (stored(1), [got(1), Fetch(0, "p")]),
    )


def test_a_parent_that_never_has_what_it_offers() -> None:
    """It may be wrong some times in a row, and then is asked for nothing more."""
    stage = Stage()
    stage.play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 1), [Fetch(1, "p")]),
    )
    for _ in range(MOST_DENIALS):
        stage.play(
            (Offered("p", 0), [Fetch(0, "p")]),
            (Lost(0, blame=False), [PieceFailed(0, "p")]),
        )
    stage.play((stored(1), [got(1)]))
    for _ in range(MOST_DENIALS):
        stage.play(
            (Offered("p", 0), [Fetch(0, "p")]),
            (Lost(0, blame=False), [PieceFailed(0, "p")]),
        )
    stage.play(
        (Offered("p", 0), [Fetch(0, "p")]),
        (Lost(0, blame=False), [PieceFailed(0, "p"), Drop("p"), Reschedule(("p",))]),
        (Offered("p", 0), []),
    )


def test_offers_of_what_nobody_wants_are_no_progress() -> None:
    """A parent that has nothing else to offer keeps nobody from asking others."""
    tr = Transfer(random.Random(0))
    now = 1.0
    tr.handle(wanted(0), now)
    tr.handle(scheduled("p"), now)
    while now < 1.0 + PATIENCE:
        assert tr.handle(Offered("p", 7), now) == []
        now += 0.5
    assert tr.handle(look(), now) == [Reschedule(())]


@pytest.mark.parametrize("began", [1.0, 1e6])
def test_those_that_only_live_are_of_no_use(began: float) -> None:
    """The scheduler names the same ones again; it is told, in time, that they have failed."""
    tr = Transfer(random.Random(0))
    now, asked = began, []
    tr.handle(wanted(0), now)
    tr.handle(scheduled("p"), now)
    while now < began + 2 * USELESS and ("p",) not in asked:
        now += 0.25
        for command in tr.handle(look(), now):
            assert isinstance(command, Reschedule)
            asked.append(command.parents)
            tr.handle(scheduled("p"), now)
    assert asked[-1] == ("p",)
    assert len(asked) > 1
    assert now >= began + USELESS
    assert tr.schedules == 2


@pytest.mark.parametrize("began", [1.0, 1e6])
def test_alone_one_is_as_patient_from_the_beginning(began: float) -> None:
    """Whatever the clock shows."""
    tr = Transfer(random.Random(0))
    tr.handle(wanted(0, source=False), began)
    tr.handle(scheduled("p"), began)
    tr.handle(SchedulerLost(), began)
    assert tr.handle(look(), began + PATIENCE) == []
    assert tr.handle(look(), began + 100) == [FailPieces(frozenset({0})), Finish()]


def test_a_lost_piece_is_asked_of_another() -> None:
    """Without a word to the scheduler but that it was lost."""
    stage = Stage(max_in_flight=1)
    stage.play(
        (wanted(0), []),
        (scheduled("p", "q"), [Started(), Follow("p"), Follow("q")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Offered("q", 0), []),
        (Lost(0), [PieceFailed(0, "p"), Drop("p"), Fetch(0, "q")]),
    )


def test_a_parent_of_another_version() -> None:
    """Nothing of it is wanted; what is on its way may end."""
    Stage(max_in_flight=1).play(
        (wanted(0, 1), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Offered("p", 1), []),
        (Closed("p", bad=True), [Drop("p"), Reschedule(("p",))]),
        (Closed("p", bad=True), []),
        (Lost(0), [PieceFailed(0, "p")]),
    )


def test_a_caller_joins() -> None:
    """Parents are asked afresh, for they were asked for other pieces."""
    Stage().play(
        (wanted(0), []),
        (scheduled("p", "bad"), [Started(), Follow("p"), Follow("bad")]),
        (Closed("bad", bad=True), [Drop("bad")]),
        (Offered("p", 0), [Fetch(0, "p")]),
        (Closed("p"), []),
        (wanted(0, 1), [Follow("p")]),
        (Offered("p", 0), []),
        (Offered("p", 1), [Fetch(1, "p")]),
        (wanted(0, 1, source=False), []),
    )


def test_a_caller_fails() -> None:
    """What is under way ends; the scheduler must not think that all of it is here."""
    Stage(max_in_flight=1).play(
        (wanted(0, 1, 2), []),
        (ToldBackToSource(), [SourceStarted(), Fetch(0, None)]),
        (wanted(1), []),
        (Lost(0), [Fetch(1, None)]),
        (
            stored(1),
            [read(1), Failed(), Finish()],
        ),
    )


def test_a_piece_that_is_wanted_again_while_it_comes() -> None:
    """It is not fetched twice."""
    Stage().play(
        (wanted(0), []),
        (SchedulerLost(), [Fetch(0, None)]),
        (wanted(), []),
        (wanted(0), []),
        (Lost(0), [Fetch(0, None)]),
        (wanted(), []),
        (Lost(0), [Finish()]),
    )


def test_news_from_strangers_are_not_heard() -> None:
    """Nor of pieces that nobody fetches."""
    Stage().play(
        (wanted(0), []),
        (Offered("nobody", 0), []),
        (Closed("nobody"), []),
        (stored(0), []),
        (Lost(0), []),
        (SchedulerLost(), [Fetch(0, None)]),
    )


def test_a_parent_offers_what_nobody_wants_yet() -> None:
    """It is remembered for when somebody does."""
    Stage().play(
        (wanted(0), []),
        (scheduled("p"), [Started(), Follow("p")]),
        (Offered("p", 7), []),
        (wanted(0, 7), [Follow("p"), Fetch(7, "p")]),
    )


def test_fast_and_idle_parents_are_preferred() -> None:
    """By free bandwidth per fetch under way; nobody is left out for good."""
    tr = Transfer(random.Random(1), max_in_flight=1000, least_of_parents=1000)
    tr.handle(wanted(*range(1000)), 0.0)
    tr.handle(Scheduled({"fast": 3.0, "slow": 1.0}), 0.0)
    for number in range(1000):
        tr.offers[number] = ["fast", "slow"]
        tr._queue(number)
    tr.handle(Closed("nobody"), 0.0)
    share = list(tr.in_flight.values()).count("fast") / 1000

    # In balance weight per fetch is alike, weighed by chance: as the square roots, 1.73 to 1.
    assert 0.55 < share < 0.75


def test_a_parent_says_what_it_can_give() -> None:
    """What counts is its last word; strangers have none."""
    tr = Transfer(random.Random(1), max_in_flight=1000, least_of_parents=1000)
    tr.handle(wanted(*range(1000)), 0.0)
    at_first = tr.has_backlog
    tr.handle(wanted(*range(1001)), 0.0)
    assert (at_first, tr.has_backlog) == (False, True)
    tr.handle(Scheduled({"a": 1.0, "b": 1.0}), 0.0)
    assert [
        *tr.handle(WeightChanged("a", 1e9), 0.0),
        *tr.handle(WeightChanged("stranger", 1e9), 0.0),
    ] == []
    for number in range(1000):
        tr.offers[number] = ["a", "b"]
        tr._queue(number)
    tr.handle(Closed("nobody"), 0.0)

    assert list(tr.in_flight.values()).count("a") > 990
    assert tr.parents.keys() == {"a", "b"}


# -- twice -----------------------------------------------------------------------------------------

NEVER = math.inf


def look(*stuck: int, quiet: tuple[str, ...] = (), **rates: float) -> Look:
    """Nothing comes of these pieces, and nothing is heard of these parents."""
    return Look(dict.fromkeys(stuck, NEVER), rates, frozenset(quiet))


def fetching(stage: Stage, *parents: str, pieces: int) -> None:
    """The first parent offers all pieces, and is asked for as many as may be."""
    stage.handle(wanted(*range(pieces)))
    stage.handle(scheduled(*parents))
    for number in range(pieces):
        stage.handle(Offered(parents[0], number))


def test_what_does_not_come_is_asked_of_another_as_well() -> None:
    """The first that is here counts; the other is not heard of again."""
    for second in (False, True):
        stage = Stage()
        fetching(stage, "p", "q", pieces=1)
        stage.play(
            (look(0), [Seek(0, "p")]),
            (look(0), []),
            (Offered("q", 0), [Fetch(0, "q", second=True)]),
            (look(0), []),
            (
                stored(0, second),
                [got(0), Finished(), Finish()],
            ),
        )


def test_others_are_told_each_time_that_a_piece_comes_no_more() -> None:
    """Once; whoever had nothing more to offer is asked anew, but for one that is stuck, too."""
    stage = Stage()
    fetching(stage, "p", "q", "r", pieces=2)
    stage.handle(Closed("q"))
    stage.play(
        (look(0), [Seek(0, "p"), Follow("q")]),
        (look(0, 1), [Seek(1, "p")]),
        (look(1), []),
        (look(0, 1), [Seek(0, "p")]),
        (Closed("p"), []),
        (look(), []),
        (look(1), [Seek(1, "p")]),
    )


@pytest.mark.parametrize("second", [False, True])
def test_one_of_two_is_lost(*, second: bool) -> None:
    """The other goes on; when that gets stuck, too, the place of the first is taken."""
    stage = Stage()
    fetching(stage, "p", "q", "r", pieces=1)
    stage.handle(Offered("q", 0))
    assert stage.handle(look(0)) == [Fetch(0, "q", second=True)]
    lost = "q" if second else "p"
    failed = [PieceFailed(0, lost), Drop(lost)]
    assert stage.handle(Lost(0, second=second)) == failed
    stage.handle(look(0))
    assert stage.handle(Offered("r", 0)) == [Fetch(0, "r", second=second)]


def test_stuck_pieces_keep_no_place_from_others() -> None:
    """But a parent that is stuck itself is asked for no more of them."""
    stage = Stage(max_in_flight=2)
    fetching(stage, "p", "q", pieces=4)
    stuck = sorted(stage.tr.in_flight)
    others = [n for n in range(4) if n not in stuck]
    assert stage.tr.room == 0
    assert stage.handle(look(*stuck)) == [Seek(number, "p") for number in stuck]
    assert stage.tr.room == 2
    assert stage.handle(Offered("q", others[0])) == [Fetch(others[0], "q")]
    assert stage.handle(Offered("q", others[1])) == [Fetch(others[1], "q")]
    assert stage.handle(Offered("q", stuck[0])) == [Fetch(stuck[0], "q", second=True)]


def test_one_that_was_not_tried_yet() -> None:
    """All places are with a parent that trickles: another gets one chance to show what it can."""
    stage = Stage(max_in_flight=2)
    fetching(stage, "p", "q", pieces=4)
    slow = dict.fromkeys(stage.tr.in_flight, 1000.0)
    assert stage.handle(Look(slow, {}, frozenset())) == []
    (number,) = [n for n in range(3) if n not in slow][:1]
    assert stage.handle(Offered("q", number)) == []
    begun = stage.handle(Look(slow, {}, frozenset()))
    for each in slow:
        begun += stage.handle(Offered("q", each))
    assert len([c for c in begun if isinstance(c, Fetch) and c.parent == "q"]) == 1


def test_only_a_few_are_asked_twice_at_once() -> None:
    """Whoever is much slower than the others makes a few pieces double, not all."""
    stage = Stage(max_in_flight=8, least_of_parents=8)
    fetching(stage, "p", "q", pieces=8)
    for number in range(8):
        stage.handle(Offered("q", number))
    twice = stage.handle(look(*stage.tr.in_flight))
    assert len(twice) == MAX_TWICE
    assert stage.handle(look(*stage.tr.in_flight)) == []


def test_slow_pieces_at_the_end() -> None:
    """When all is under way, a parent that would bring it in half the time is asked as well."""
    stage = Stage(max_in_flight=1)
    stage.tr.piece_length = 10
    fetching(stage, "p", "q", pieces=2)
    (slow,) = stage.tr.in_flight
    for number in range(2):
        stage.handle(Offered("q", number))
    rates = {"p": 1.0, "q": 10.0}
    assert stage.handle(Look({slow: 4.0}, rates, frozenset())) == []
    assert stage.handle(Look({slow: 2.5}, rates, frozenset())) == []
    assert stage.handle(wanted(slow)) == []  # the other is not
    twice = stage.handle(Look({slow: 4.0}, rates, frozenset()))
    assert twice == [Fetch(slow, "q", second=True)]


def test_bytes_received_twice_are_bounded() -> None:
    """However often all stall: a few pieces, and an eighth of those that came."""
    stage, pieces = Stage(), 400
    fetching(stage, "p", "q", pieces=pieces)
    for number in range(pieces):
        stage.handle(Offered("q", number))
    while stage.tr.wanted:
        stage.handle(look(*stage.tr.in_flight))
        stage.handle(stored(next(iter(stage.tr.in_flight))))
    assert 0 < stage.tr.doubled <= 4 * MAX_TWICE + pieces // 8


def test_the_only_parent_says_nothing() -> None:
    """The scheduler is asked at once; with its word, the origin brings all that is missing."""
    stage = Stage(max_in_flight=1)
    fetching(stage, "p", pieces=2)
    (first,) = stage.tr.in_flight
    other = 1 - first
    stage.play(
        (look(first), [Seek(first, "p")]),
        (look(first, quiet=("p",)), [Reschedule(("p",))]),
        (look(first, quiet=("p",)), []),
        (ToldBackToSource(), [SourceStarted(), Fetch(other, None)]),
        (stored(other), [read(other), Fetch(first, None, second=True)]),
        (
            stored(first, second=True),
            [read(first), SourceFinished(), Finish()],
        ),
    )


def test_a_parent_speaks_again() -> None:
    """What it offered counts again; the scheduler's word is waited for in vain."""
    stage = Stage(max_in_flight=1)
    fetching(stage, "p", pieces=3)
    (first,) = stage.tr.in_flight
    stage.handle(Wanted(dict.fromkeys(range(3), True)))
    assert stage.handle(look(first, quiet=("p",))) == [Seek(first, "p"), Reschedule(("p",))]
    assert not stage.tr.ready
    assert stage.handle(look()) == []
    assert len(stage.tr.ready) == 2
    assert [c for c in stage.handle(stored(first)) if isinstance(c, Fetch)]


def test_those_who_fall_silent_at_once_do_so_in_one_order() -> None:
    """What is asked for next follows from the events alone, in whatever process they happen."""
    stage = Stage(max_in_flight=1)
    names = tuple(f"p{number}" for number in range(9))
    stage.handle(wanted(*range(9)))
    stage.handle(scheduled(*names))
    for number, name in enumerate(names):
        stage.handle(Offered(name, number))
    stage.handle(look(quiet=names))
    assert list(stage.tr.unoffered) == [n for n in range(9) if n not in stage.tr.in_flight]


def test_silence_is_no_reason_to_refuse() -> None:
    """Who must not ask the origin waits for a parent that hangs, to the end of its stream."""
    stage = Stage()
    stage.handle(wanted(0, 1, source=False))
    stage.handle(scheduled("p"))
    stage.handle(Offered("p", 0))
    stage.handle(SchedulerLost())
    assert stage.handle(look(0, quiet=("p",))) == [Seek(0, "p")]
    assert stage.handle(Lost(0)) == [Drop("p"), FailPieces(frozenset({0, 1})), Finish()]


def test_silence_does_not_use_up_the_answers() -> None:
    """The last answer is kept for those who are really gone."""
    stage = Stage(max_schedules=1)
    fetching(stage, "p", pieces=1)
    assert stage.handle(look(0, quiet=("p",))) == [Seek(0, "p")]


def test_pieces_are_chosen_at_random() -> None:
    """Children that start together must not all want the same piece of the same parent."""
    firsts = set()
    for seed in range(20):
        tr = Transfer(random.Random(seed), max_in_flight=1)
        tr.handle(wanted(*range(8)), 0.0)
        tr.handle(scheduled("p"), 0.0)
        for number in range(1, 8):
            tr.offers[number] = ["p"]
            tr._queue(number)
        (command,) = tr.handle(Offered("p", 0), 0.0)
        assert isinstance(command, Fetch)
        firsts.add(command.number)

    assert len(firsts) > 4


def test_the_same_events_give_the_same_commands() -> None:
    """So that a failure can be replayed from its seed."""
    stories = []
    for _ in range(2):
        tr = Transfer(random.Random(7), max_in_flight=3)
        story = [tr.handle(wanted(*range(20)), 0.0), tr.handle(scheduled("p", "q"), 0.0)]
        story += [tr.handle(Offered(name, n), 0.0) for n in range(20) for name in "pq"]
        story += [tr.handle(stored(n), 0.0) for n in list(tr.in_flight)]
        stories.append(story)

    assert stories[0] == stories[1]


# -- whatever happens ----------------------------------------------------------------------------

NUMBERS = st.integers(0, 6)
NAMES = st.sampled_from("abc")


def test_a_scheduler_that_is_lost_is_asked_anew_before_the_origin() -> None:
    """Once nobody is left whom it had named; whatever comes of that, it is no circle."""
    stage = Stage()
    stage.play(
        (Wanted({0: True, 1: True}), []),
        (Scheduled({"a": 1.0}), [Started(), Follow("a")]),
        (Offered("a", 0), [Fetch(0, "a")]),
        (SchedulerLost(again=True), []),
        (stored(0), []),
        (Closed("a"), [Rejoin()]),
        # The one that is there now knows others.
        (Scheduled({"b": 1.0}), [Started(), Follow("b")]),
        (SchedulerLost(again=True), []),
        (Closed("b", bad=True), [Drop("b"), Rejoin()]),
        # Nobody is there: it is not looked for again.
        (SchedulerLost(again=True), [Fetch(1, None)]),
        (stored(1), [Finish()]),
    )


def test_a_scheduler_that_comes_and_goes() -> None:
    """Without a piece in between it is looked for a few times, then the origin is asked."""
    stage = Stage()
    stage.play(
        (Wanted({0: True}), []),
        (Scheduled({}), [Started(), Reschedule()]),
        (Scheduled({}), [Started(), Reschedule()]),
    )
    for _ in range(MOST_REJOINS):
        stage.play(
            (SchedulerLost(again=True), [Rejoin()]),
            (Scheduled({}), [Started(), Reschedule()]),
        )
    stage.play((SchedulerLost(again=True), [Fetch(0, None)]))


def test_a_scheduler_that_has_refused_is_not_asked_anew() -> None:
    """That was an answer."""
    stage = Stage()
    stage.play(
        (Wanted({0: False}), []),
        (Scheduled({}), [Started(), Reschedule()]),
        (SchedulerLost(), [FailPieces(frozenset({0})), Finish()]),
    )


def test_one_that_is_near_after_all() -> None:
    """What it offers counts at once, although others on this side are about to have it."""
    stage = Stage()
    stage.handle(Told("b", 0, 1))
    stage.handle(Wanted({0: False}))
    stage.handle(Scheduled({"a": 1.0, "b": 1.0}, frozenset({"a"})))
    assert Fetch(0, "a") not in stage.handle(Offered("a", 0))
    assert Fetch(0, "a") in stage.handle(Scheduled({"a": 1.0}))


ANSWERS = [ToldBackToSource(), ToldEmpty(), SchedulerLost(), SchedulerLost(again=True)]


class AnyStory(RuleBasedStateMachine):
    """Events in any order, also such as nobody would send."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(max_in_flight=2, max_schedules=2)

    @rule(pieces=st.dictionaries(NUMBERS, st.booleans()))
    def want(self, pieces: dict[int, bool]) -> None:
        """Callers come and go."""
        self.stage.handle(Wanted(pieces))

    @rule(parents=st.dictionaries(NAMES, st.floats(0.1, 10)), far=st.frozensets(NAMES))
    def scheduled(self, parents: dict[str, float], far: frozenset[str]) -> None:
        """Asked for or not."""
        self.stage.handle(Scheduled(parents, far))

    @rule(name=NAMES, lacks=st.integers(-1, 255), has=st.integers(0, 255))
    def told(self, name: str, lacks: int, has: int) -> None:
        """By a parent or not."""
        self.stage.handle(Told(name, lacks, has))

    @rule()
    def later(self) -> None:
        """Nothing came for a while."""
        self.stage.now += SPARE_FOR

    @rule(name=NAMES, weight=st.floats(0.1, 10))
    def weighed(self, name: str, weight: float) -> None:
        """Known or not."""
        self.stage.handle(WeightChanged(name, weight))

    @rule(answer=st.sampled_from(ANSWERS))
    def answered(self, answer: Event) -> None:
        """Likewise."""
        self.stage.handle(answer)

    @rule(name=NAMES, number=NUMBERS)
    def offered(self, name: str, number: int) -> None:
        """By whomever."""
        self.stage.handle(Offered(name, number))

    @rule(name=NAMES, bad=st.booleans())
    def closed(self, name: str, bad: bool) -> None:  # noqa: FBT001  hypothesis calls by name
        """Followed or not."""
        self.stage.handle(Closed(name, bad=bad))

    @rule(number=NUMBERS, second=st.booleans())
    def stored(self, number: int, second: bool) -> None:  # noqa: FBT001  hypothesis calls by name
        """In flight or not."""
        self.stage.handle(stored(number, second))

    @rule(number=NUMBERS, blame=st.booleans(), second=st.booleans())
    def lost(self, number: int, blame: bool, second: bool) -> None:  # noqa: FBT001  hypothesis calls by name
        """In flight or not."""
        self.stage.handle(Lost(number, blame=blame, second=second))

    @rule(
        left=st.dictionaries(NUMBERS, st.sampled_from([1.5, 20.0, math.inf])),
        rates=st.dictionaries(NAMES, st.floats(0.1, 10)),
        quiet=st.frozensets(NAMES),
    )
    def look(self, left: dict[int, float], rates: dict[str, float], quiet: frozenset[str]) -> None:
        """At what is under way or not, and at strangers."""
        self.stage.handle(Look(left, rates, quiet))


class AnyStoryInOrder(AnyStory):
    """The same with an origin that is read front to back."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(max_in_flight=2, max_schedules=2, source_in_order=True)


TestAnyStory = AnyStory.TestCase
TestAnyStoryInOrder = AnyStoryInOrder.TestCase
for machine in (TestAnyStory, TestAnyStoryInOrder):
    machine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- what need not cross a thin line -------------------------------------------------------------


def across() -> Stage:
    """One that wants four pieces, and follows one that is near and one that is far."""
    stage = Stage()
    stage.now = 1.0
    stage.play(
        (wanted(0, 1, 2, 3), []),
        (
            Scheduled({"near": 1.0, "far": 1.0}, frozenset({"far"})),
            [Started(), Follow("near"), Follow("far")],
        ),
    )
    return stage


def test_what_somebody_near_fetches_is_not_fetched_from_afar() -> None:
    """Until he says that he lacks it again, or is gone."""
    stage = across()
    stage.play((Told("near", 0, 0b0111), []))
    assert stage.tr.spared == 0b0111
    stage.play(
        (Offered("far", 0), []),
        (Offered("far", 3), [Fetch(3, "far")]),
        (Offered("near", 1), [Fetch(1, "near")]),
        (Told("near", 0b0001, 0), [Fetch(0, "far")]),
        (Offered("far", 2), []),
        (Told("near", GONE, 0), []),  # it needs nothing more of us
        (Closed("near"), [Fetch(2, "far")]),
    )
    assert stage.tr.spared == 0


def test_what_one_has_whom_we_do_not_follow_does_not_count() -> None:
    """It would never be offered. When he is named, it counts: he may have come before."""
    stage = across()
    stage.play(
        (Told("other", 0, 0b1111), []),
        (Told("other", GONE, 0), []),
        (Told("other", 0, 0b0011), []),
        (Offered("far", 0), [Fetch(0, "far")]),
        (scheduled("other"), [Follow("other")]),
        (Offered("far", 1), []),
        (Closed("other"), [Fetch(1, "far")]),
    )


def test_what_was_offered_from_afar_is_left_when_somebody_near_fetches_it() -> None:
    """One fetch at a time: of the others some are offered, and wait."""
    stage = Stage(max_in_flight=1)
    stage.play(
        (wanted(0, 1), []),
        (
            Scheduled({"near": 1.0, "far": 1.0}, frozenset({"far"})),
            [Started(), Follow("near"), Follow("far")],
        ),
        (Offered("far", 0), [Fetch(0, "far")]),
        (Offered("far", 1), []),
        (Told("near", 0, 0b10), []),
        (stored(0), [got(0)]),
        (Offered("near", 1), [Fetch(1, "near")]),
    )


def test_of_whom_nothing_is_heard_nothing_is_expected() -> None:
    """He may be dead, with all that he was fetching."""
    stage = across()
    stage.play(
        (Told("near", 0, 0b1111), []),
        (Offered("far", 0), []),
        (Look({}, {}, frozenset({"near"})), [Fetch(0, "far")]),
    )


def test_nobody_waits_long_for_somebody_near() -> None:
    """While nothing comes, far parents bring all that they have."""
    stage = across()
    stage.play((Told("near", 0, 0b1111), []), (Offered("far", 0), []))
    stage.now += SPARE_FOR
    stage.play(
        (Look({}, {}, frozenset()), [Fetch(0, "far")]),
        (Offered("far", 1), []),  # something comes now
    )
    assert stage.tr.spared == 0b1110


def test_somebody_near_who_brings_little() -> None:
    """With room for more for some time, all may come from afar, for some time."""
    stage = across()
    stage.play(
        (Told("near", 0, 0b1111), []),
        (Offered("far", 1), []),
        (Offered("near", 0), [Fetch(0, "near")]),
    )
    stage.now += SPARE_FOR
    stage.play((Look({}, {}, frozenset()), [Fetch(1, "far")]))
    assert stage.tr.spared == 0


def test_at_the_origin_nothing_is_spared() -> None:
    """What is not fetched from afar would be read there."""
    stage = Stage()
    stage.play(
        (wanted(0), []),
        (Told("near", 0, 1), []),
        (ToldBackToSource(), [SourceStarted(), Fetch(0, None)]),
        (Lost(0), [Fetch(0, None)]),
    )
    assert stage.tr.spared == 0


# -- whole downloads -----------------------------------------------------------------------------


class World:
    """Everybody else: a scheduler, parents with some of the pieces, an origin, callers."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pieces = range(rng.randint(0, 12))
        self.stock = {
            name: {n for n in self.pieces if rng.random() < 0.5}
            for name in "abcd"[: rng.randint(0, 4)]
        }
        self.lossy = {name: rng.choice([0.0, 0.0, 0.3, 1.0]) for name in self.stock}
        self.origin_works = rng.random() < 0.7
        #: Callers: what each wants, and whether the origin may be asked for it.
        self.callers = [self._caller() for _ in range(rng.randint(0, 3))]
        self.late = [self._caller() for _ in range(rng.randint(0, 2))]
        self.here: set[int] = set()
        self.asked = True  # registering is asking
        self.answering = True
        self.following: dict[str, list[int]] = {}
        self.flying: dict[tuple[int, bool], str | None] = {}
        self.over = False
        #: How often somebody looks who gets stuck or says nothing.
        self.looks = rng.randint(0, 8)
        self.stage = Stage(
            max_in_flight=rng.randint(1, 4),
            max_schedules=rng.randint(1, 4),
            source_in_order=rng.random() < 0.3,
        )

    def _caller(self) -> tuple[set[int], bool]:
        numbers = {n for n in self.pieces if self.rng.random() < 0.7}
        return numbers, self.rng.random() < 0.6

    def run(self) -> None:
        """Until nothing can happen any more. Fails if that is never."""
        self._want()
        for _ in range(1000):
            choices = list(self._possible())
            if not choices:
                break
            self.rng.choice(choices)()
        else:
            pytest.fail("it does not end")
        assert self.over, "everybody waits"
        assert all(numbers <= self.here for numbers, _ in self.callers)

    def _possible(self) -> Iterator[Callable[[], None]]:
        if self.over:
            return
        if self.asked and self.answering:
            yield self._answer
        if self.answering and self.rng.random() < 0.05:
            yield self._lose_scheduler
        for name in self.following:
            yield partial(self._offer, name)
        for number, second in self.flying:
            yield partial(self._land, number, second=second)
        if self.looks:
            yield self._look
        if self.late:
            yield self._join

    def _handle(self, event: Event) -> None:
        for command in self.stage.handle(event):
            match command:
                case Fetch(number, parent, second):
                    assert (number, second) not in self.flying
                    self.flying[number, second] = parent
                case Follow(name):
                    numbers = sorted(self.stock[name] & self.stage.tr.wanted.keys())
                    self.following[name] = self.rng.sample(numbers, len(numbers))
                case Drop(name):
                    self.following.pop(name, None)
                case Reschedule():
                    self.asked = True
                case FailPieces(pieces):
                    self.callers = [c for c in self.callers if not c[0] & pieces]
                case Finish():
                    self.over = True

    def _want(self) -> None:
        pieces: dict[int, bool] = {}
        for numbers, source in self.callers:
            for number in numbers - self.here:
                pieces[number] = pieces.get(number, False) or source
        self._handle(Wanted(pieces))

    def _join(self) -> None:
        self.callers.append(self.late.pop())
        self._want()

    def _answer(self) -> None:
        self.asked = False
        kind = self.rng.random()
        if kind < 0.6:
            some = self.rng.sample(sorted(self.stock), self.rng.randint(0, len(self.stock)))
            self._handle(scheduled(*some))
        else:
            self._handle(ToldBackToSource() if kind < 0.9 else ToldEmpty())

    def _lose_scheduler(self) -> None:
        self.answering = False
        self._handle(SchedulerLost())

    def _offer(self, name: str) -> None:
        numbers = self.following[name]
        if numbers and self.rng.random() < 0.95:
            self._handle(Offered(name, numbers.pop()))
        else:
            del self.following[name]
            self._handle(Closed(name, bad=self.rng.random() < 0.1))

    def _look(self) -> None:
        self.looks -= 1
        some = [number for number, _ in self.flying if self.rng.random() < 0.5]
        quiet = frozenset(name for name in self.stock if self.rng.random() < 0.4)
        self._handle(Look(dict.fromkeys(some, math.inf), {}, quiet))

    def _land(self, number: int, *, second: bool) -> None:
        name = self.flying.pop((number, second))
        if name is None and not self.origin_works:
            # It failed for good: so do all on whose behalf it was asked.
            self.callers = [c for c in self.callers if not c[1]]
            self._want()
            self._handle(Lost(number, second=second))
        elif name is not None and self.rng.random() < self.lossy[name]:
            self._handle(Lost(number, blame=self.rng.random() < 0.5, second=second))
        else:
            self.here.add(number)
            self.flying.pop((number, not second), None)  # it is given up
            self._handle(stored(number, second))


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_download_comes_to_an_end(rng: random.Random) -> None:
    """All that is wanted is here, or refused to those who want it."""
    World(rng).run()


class Counted(int):
    """A set of pieces as bits, or what was computed of one, that counts how often that is done."""

    done = 0

    def _count(self, found: int) -> Counted:
        Counted.done += 1
        return Counted(found)

    def __or__(self, other: int) -> Counted:
        return self._count(int(self) | int(other))

    def __and__(self, other: int) -> Counted:
        return self._count(int(self) & int(other))

    def __xor__(self, other: int) -> Counted:
        return self._count(int(self) ^ int(other))

    def __rshift__(self, other: int) -> Counted:
        return self._count(int(self) >> int(other))

    __ror__, __rand__ = __or__, __and__


@pytest.mark.parametrize("what", ["wanted", "not wanted", "spared", "offered by one who is bad"])
def test_what_is_done_to_many_pieces_is_done_to_their_bits_at_once(what: str) -> None:
    """For each piece by itself it would take time that grows with the square of their number."""
    many = 1000
    transfer = Transfer(random.Random(1))
    everything: Event = Wanted(dict.fromkeys(range(many), True))
    events: dict[str, Event] = {
        "wanted": everything,
        "not wanted": Wanted({0: True}),
        "spared": Told("near", 0, (1 << many) - 1),
        "offered by one who is bad": Closed("far", bad=True),
    }
    if what != "wanted":
        transfer.handle(everything, 1.0)
        transfer.handle(Scheduled({"near": 1.0, "far": 1.0}, frozenset({"far"})), 1.0)
        for number in range(many):
            transfer.handle(Offered("far", number), 1.0)
    transfer.lacking, transfer.covered = Counted(transfer.lacking), Counted(transfer.covered)
    Counted.done = 0
    transfer.handle(events[what], 1.0)
    assert Counted.done < 100


@pytest.mark.parametrize("in_order", [False, True])
def test_the_next_piece_of_the_origin_is_not_looked_for_among_all(*, in_order: bool) -> None:
    """However many there are: those who look see no more than a few."""

    class Watched(dict[int, None]):
        seen = 0

        def __iter__(self) -> Iterator[int]:
            for number in super().__iter__():
                Watched.seen += 1
                yield number

    transfer = Transfer(random.Random(1), source_in_order=in_order)
    transfer.unoffered = Watched()
    transfer.handle(Wanted(dict.fromkeys(range(1000), True)), 1.0)
    todo = [c for c in transfer.handle(ToldBackToSource(), 1.0) if isinstance(c, Fetch)]
    for _ in range(100):
        fetch = todo.pop(0)
        commands = transfer.handle(stored(fetch.number), 1.0)
        todo += [c for c in commands if isinstance(c, Fetch)]
    assert Watched.seen < 2000


@pytest.mark.parametrize(("rate", "more"), [(0.05, 4), (0.125, 3), (0.4, 0)])
def test_slow_parents_keep_a_part_of_a_place(rate: float, more: int) -> None:
    """What they leave of the link is for those who can bring more; those who fill it leave none."""
    transfer = Transfer(random.Random(1), max_in_flight=32)
    transfer.handle(Wanted(dict.fromkeys(range(40), True)), 1.0)
    transfer.handle(Scheduled({"slow": 1.0, "quick": 1.0}), 1.0)
    transfer.handle(Offered("quick", 0), 1.0)
    transfer.handle(stored(0), 2.0)  # the link carries one in a second: a place is a sixth of that
    for number in range(1, 7):
        transfer.handle(Offered("slow", number), 3.0)
    assert (len(transfer.in_flight), transfer.room) == (6, 0)
    transfer.handle(Look({}, {"slow": rate, "quick": 1.0}, frozenset()), 3.1)
    for number in range(10, 40):
        transfer.handle(Offered("quick", number), 3.2)
    assert sum(name == "quick" for name in transfer.in_flight.values()) == more
    assert transfer.room == 0
