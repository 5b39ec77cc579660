"""core/content_state.py against a model, whatever happens; and what single events do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pantala.core.content_state import ContentState
from pantala.errors import InvalidRequest, PieceNotFound
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic

PIECES = 5
LENGTH = 4 * 10 + 3

RECORD = TaskRecord(
    kind=Kind.CACHE,
    id="t" * 64,
    url="http://origin/file",
    created_at=100.0,
    updated_at=100.0,
    piece_length=10,
    content_length=LENGTH,
    response_header={"a": "b"},
    version='"1"',
)


def piece(number: int) -> PieceRecord:
    """A verified piece."""
    return PieceRecord(
        number=number,
        offset=10 * number,
        length=3 if number == PIECES - 1 else 10,
        digest=f"crc32:{number}",
        parent_id=None,
        traffic=Traffic.BACK_TO_SOURCE,
        cost=0.5,
        created_at=100.0,
    )


def filled(*numbers: int, record: TaskRecord = RECORD) -> ContentState:
    """A task of which these pieces came."""
    state = ContentState(record)
    state.reserve(numbers)
    for number in numbers:
        state.claim(number)
        state.publish(piece(number), 110.0)
    return state


class ContentStateMachine(RuleBasedStateMachine):
    """Each piece is in one of four places; every event moves it as the module's drawing says."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ContentState(RECORD)
        self.where = dict.fromkeys(range(PIECES), "wanted")
        self.now = 100.0

    def at(self, place: str) -> list[int]:
        """The pieces that are there."""
        return [number for number, where in self.where.items() if where == place]

    def tick(self) -> float:
        """The time of the next event."""
        self.now += 1.0
        return self.now

    @rule(numbers=st.sets(st.integers(0, PIECES - 1)))
    def reserve(self, numbers: set[int]) -> None:
        """Any number of times."""
        lacking = [number for number in numbers if self.where[number] == "wanted"]
        assert self.state.unreserved(numbers) == set(lacking)
        assert self.state.lacks(numbers) == sum(piece(number).length for number in lacking)
        self.state.reserve(numbers)
        self.where.update(dict.fromkeys(lacking, "reserved"))

    @rule(number=st.integers(0, PIECES - 1))
    def claim(self, number: int) -> None:
        """Only what has room, and nobody fetches or has."""
        if self.where[number] == "reserved":
            self.state.claim(number)
            self.where[number] = "claimed"
        else:
            with pytest.raises(ValueError, match="cannot be claimed"):
                self.state.claim(number)

    @rule(number=st.integers(0, PIECES - 1))
    def unreserve(self, number: int) -> None:
        """Only what has room in vain."""
        if self.where[number] == "reserved":
            self.state.unreserve(number)
            self.where[number] = "wanted"
        else:
            with pytest.raises(ValueError, match="keeps its room"):
                self.state.unreserve(number)

    @precondition(lambda self: self.at("claimed"))
    @rule(data=st.data(), good=st.booleans())
    def end(self, data: st.DataObject, good: bool) -> None:  # noqa: FBT001  hypothesis calls by name
        """A fetch ends, well or not."""
        number = data.draw(st.sampled_from(self.at("claimed")))
        if good:
            self.where[number] = "here"
            whole = self.state.publish(piece(number), self.tick())
            assert whole == (len(self.at("here")) == PIECES)
        else:
            self.where[number] = "reserved"
            self.state.abandon(number)

    @precondition(lambda self: self.at("here"))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """A piece goes bad."""
        number = data.draw(st.sampled_from(self.at("here")))
        self.state.drop(number)
        self.where[number] = "reserved"

    @rule(event=st.sampled_from(["touch", "fail", "start", "upload", "restart"]))
    def whatever(self, event: str) -> None:
        """What is no business of the pieces."""
        if event == "start":
            self.state.start(replace(RECORD, updated_at=self.tick()))
        elif event == "upload":
            self.state.start_upload(self.tick())
            self.state.end_upload(self.tick(), delivered=True)
        elif event == "restart" and not self.at("claimed"):
            # What outlives a process is the record and the pieces.
            self.state = ContentState(self.state.record, self.state.pieces.values())
            self.where.update(dict.fromkeys(self.at("reserved"), "wanted"))
        elif event in ("touch", "fail"):
            getattr(self.state, event)(self.tick())

    @invariant()
    def is_as_the_model_says(self) -> None:
        """Everything that can be asked."""
        state, here = self.state, self.at("here")
        assert dict(state.pieces) == {number: piece(number) for number in here}
        assert state.idle() == self.at("reserved")
        assert [n for n in range(PIECES) if state.is_claimed(n)] == self.at("claimed")
        assert state.fully_reserved == (not self.at("wanted"))
        assert state.complete == (len(here) == PIECES) == bool(state.digests)
        assert state.complete == (state.record.finished_at is not None)
        assert sum(part.length for part in state.parts()) == sum(piece(n).length for n in here)
        for number in range(PIECES):
            if number in here:
                state.check_here(ByteRange(10 * number, 3))
            else:
                with pytest.raises(PieceNotFound, match=f"piece {number} of"):
                    state.check_here(ByteRange(10 * number, 3))


TestContentStateMachine = ContentStateMachine.TestCase
TestContentStateMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (lambda s: s.touch(200.0), {}),
        (lambda s: s.fail(200.0), {"failed_at": 200.0}),
        (lambda s: s.start_prefetch(200.0), {"prefetched_at": 200.0}),
        (lambda s: s.end_prefetch(200.0), {"prefetched_at": None}),
        (lambda s: s.start_upload(200.0), {"uploading_count": 1}),
        (
            lambda s: s.end_upload(200.0, delivered=True),
            {"uploading_count": -1, "uploaded_count": 1},
        ),
        (lambda s: s.end_upload(200.0, delivered=False), {"uploading_count": -1}),
    ],
)
def test_events(event: object, changes: dict[str, object]) -> None:
    """Each changes its field and the time of the last use, and nothing else."""
    state = ContentState(RECORD)
    assert callable(event)
    event(state)
    assert state.record == replace(RECORD, updated_at=200.0, **changes)  # type: ignore[arg-type]  # names are checked by replace


def test_a_second_start_refreshes() -> None:
    """Lengths and headers are news; when and what it was, and its pieces, are not."""
    state = ContentState(replace(RECORD, content_length=None, piece_length=None))
    state.start_upload(110.0)
    state.fail(120.0)
    state.start(
        replace(RECORD, created_at=130.0, updated_at=130.0, url="x", response_header={"c": "d"})
    )
    expected = replace(RECORD, updated_at=130.0, uploading_count=1, response_header={"c": "d"})
    assert state.record == expected
    # Whoever does not know the headers or the version does not make them forgotten.
    state.start(replace(RECORD, response_header={}, version="", updated_at=140.0))
    assert state.record == replace(expected, updated_at=140.0)


def test_success_makes_up_for_failure() -> None:
    """A task is not both; a later failure leaves what is here good."""
    state = filled(0, 1, 2, 3)
    state.fail(120.0)
    state.reserve([4])
    state.claim(4)
    assert state.publish(piece(4), 130.0)
    assert (state.record.failed_at, state.record.finished_at) == (None, 130.0)
    state.fail(140.0)
    assert (state.complete, state.record.finished_at) == (True, 130.0)


def test_one_prefetch_at_a_time() -> None:
    """The second is refused and changes nothing; after a failure another may try."""
    state = ContentState(RECORD)
    state.start_prefetch(110.0)
    with pytest.raises(InvalidRequest, match="being prefetched already"):
        state.start_prefetch(120.0)
    assert state.record.prefetched_at == 110.0
    state.end_prefetch(130.0)
    state.start_prefetch(140.0)
    assert state.record.prefetched_at == 140.0


def test_what_is_not_known_yet() -> None:
    """Of a task of unknown length there are no pieces."""
    state = ContentState(replace(RECORD, content_length=None, piece_length=None))
    assert (state.complete, state.fully_reserved, state.digests) == (False, False, "")
    for ask in (
        lambda: state.total,
        lambda: state.piece(0),
        lambda: state.lacks([0]),
        lambda: state.check_here(ByteRange(0, 1)),
    ):
        with pytest.raises(PieceNotFound):
            ask()


def test_content_of_no_bytes() -> None:
    """It is finished when that is known."""
    state = ContentState(replace(RECORD, content_length=None))
    state.start(replace(RECORD, content_length=0, updated_at=120.0))
    assert (state.complete, state.record.finished_at) == (True, 120.0)
    # Also by the next process, to which the last may not have told it.
    state = ContentState(replace(RECORD, content_length=0))
    assert (state.complete, state.record.finished_at) == (True, 100.0)


@pytest.mark.parametrize(
    ("here", "old", "new", "agrees"),
    [
        pytest.param((0,), {}, {}, True, id="the same"),
        pytest.param((0,), {}, {"version": ""}, True, id="says no version"),
        pytest.param((0,), {}, {"version": '"2"'}, False, id="another version"),
        pytest.param((), {"version": ""}, {}, True, id="nothing here"),
        pytest.param((0,), {"version": ""}, {}, False, id="bytes nobody named a version of"),
        pytest.param((0,), {}, {"content_length": 44}, False, id="another length"),
        pytest.param((0,), {}, {"piece_length": 11}, False, id="cut otherwise"),
        pytest.param(
            (), {"content_length": None, "piece_length": None}, {}, True, id="length not known"
        ),
    ],
)
def test_who_can_speak_of_it(
    here: tuple[int, ...],
    old: dict[str, object],
    new: dict[str, object],
    agrees: bool,  # noqa: FBT001  parametrized
) -> None:
    """Otherwise it has changed since."""
    state = filled(*here, record=replace(RECORD, **old))  # type: ignore[arg-type]  # names are checked by replace
    assert state.agrees_with(replace(RECORD, **new)) == agrees  # type: ignore[arg-type]  # the fields are named by the test


def test_versions() -> None:
    """Who names one first decides; that there is none is news only while nothing is known."""
    state = ContentState(replace(RECORD, version=""))
    assert not state.version_is_settled
    assert state.learn_version("", 110.0)
    assert not state.learn_version("", 120.0)
    assert state.learn_version('"1"', 130.0)
    assert not state.learn_version('"2"', 140.0)
    assert (state.record.version, state.record.updated_at) == ('"1"', 130.0)
    assert ContentState(RECORD).version_is_settled
