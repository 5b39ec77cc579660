"""errors: one tree, drawn as it is, and every class knows how to answer."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from pantala import errors
from pantala.errors import (
    Code,
    DigestMismatch,
    DragonflyError,
    InvalidTransition,
    NoRoom,
    OriginError,
    PieceNotFound,
    ProtocolError,
    SourceChanged,
    TaskDeleted,
    TaskNotFound,
    VortexCode,
)


def below(cls: type[DragonflyError]) -> list[type[DragonflyError]]:
    """Those of this module."""
    return [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]


def tree(cls: type[DragonflyError] = DragonflyError) -> list[type[DragonflyError]]:
    """*cls* and everything below it."""
    return [cls, *(e for sub in below(cls) for e in tree(sub))]


def draw(cls: type[DragonflyError], lead: str = "") -> list[str]:
    """The tree below *cls*, as the module's docstring draws it."""
    lines = []
    for sub in below(cls):
        last = sub is below(cls)[-1]
        lines.append(f"{lead}{'└── ' if last else '├── '}{sub.__name__}")
        lines += draw(sub, lead + ("    " if last else "│   "))
    return lines


def test_the_tree_is_drawn_as_it_is() -> None:
    """Whoever adds an error draws it."""
    doc = (errors.__doc__ or "").splitlines()
    drawn = [m[1] for line in doc if (m := re.match(r"    ([│ ]*[├└]── \w+)", line))]

    assert drawn == draw(DragonflyError)


@pytest.mark.parametrize("cls", tree())
def test_every_error_says_how_to_answer(cls: type[DragonflyError]) -> None:
    """A boundary can answer with any of them."""
    assert isinstance(cls.code, Code)
    assert cls.code is not Code.UNKNOWN
    assert isinstance(cls.vortex, VortexCode)
    assert cls.__doc__


#: Written out once more: a peer reads these.
ANSWERS = """
DragonflyError       INTERNAL             INTERNAL
Refused              INVALID_ARGUMENT     INVALID_ARGUMENT
InvalidRequest       INVALID_ARGUMENT     INVALID_ARGUMENT
RangeNotSatisfiable  FAILED_PRECONDITION  INVALID_ARGUMENT
NotFound             NOT_FOUND            NOT_FOUND
TaskNotFound         NOT_FOUND            NOT_FOUND
PieceNotFound        NOT_FOUND            NOT_FOUND
HostUnknown          NOT_FOUND            NOT_FOUND
Forbidden            PERMISSION_DENIED    INVALID_ARGUMENT
NotYours             PERMISSION_DENIED    INVALID_ARGUMENT
FeatureOff           FAILED_PRECONDITION  INVALID_ARGUMENT
OutputExists         ALREADY_EXISTS       INVALID_ARGUMENT
TaskExists           ALREADY_EXISTS      INVALID_ARGUMENT
ConfigError          INVALID_ARGUMENT     INVALID_ARGUMENT
UsageError           INVALID_ARGUMENT     INVALID_ARGUMENT
CannotListen         INVALID_ARGUMENT     INVALID_ARGUMENT
Unavailable          UNAVAILABLE          INTERNAL
Busy                 RESOURCE_EXHAUSTED   INTERNAL
NoRoom           RESOURCE_EXHAUSTED   INTERNAL
OutOfDescriptors     RESOURCE_EXHAUSTED   INTERNAL
StoreFailed          UNAVAILABLE          INTERNAL
ParentLost           UNAVAILABLE          INTERNAL
SchedulerLost        UNAVAILABLE          INTERNAL
NoProvider           UNAVAILABLE          INTERNAL
TaskDeleted          ABORTED              NOT_FOUND
TimedOut             DEADLINE_EXCEEDED    INTERNAL
ProtocolError        INTERNAL             INTERNAL
LocalProtocolError   INTERNAL             INTERNAL
RemoteProtocolError  INTERNAL             INVALID_ARGUMENT
Corrupt              DATA_LOSS            INTERNAL
DigestMismatch       DATA_LOSS            INTERNAL
Damaged              NOT_FOUND            NOT_FOUND
OriginError         INTERNAL             INTERNAL
SourceUnreachable    UNAVAILABLE          INTERNAL
SourceChanged        ABORTED              INTERNAL
OriginClosed         FAILED_PRECONDITION  INTERNAL
OnlyPeers            NOT_FOUND            INTERNAL
InvalidTransition    INTERNAL             INTERNAL
"""


def test_the_answers() -> None:
    """No class more, no class less."""
    found = [[cls.__name__, cls.code.name, cls.vortex.name] for cls in tree()]
    assert found == [line.split() for line in ANSWERS.strip().splitlines()]


def test_the_numbers_are_those_on_the_wire() -> None:
    """Of gRPC and of Vortex."""
    grpc = pytest.importorskip("grpc")
    assert {code.name: code.value for code in Code} == {
        code.name: code.value[0]
        for code in grpc.StatusCode
        if code.name not in ("OK", "UNAUTHENTICATED")
    }
    assert [code.value for code in VortexCode] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TaskNotFound("t"), "task t not found"),
        (PieceNotFound("t", 3), "piece 3 of task t not found"),
        (
            NoRoom(10, capacity=20, leased=15),
            (
                "no room in memory: 10 bytes needed, capacity 20, 15 in use; "
                "raise storage.cacheCapacity, or wait"
            ),
        ),
        (
            DigestMismatch("piece 3", want="crc32:1", got="crc32:2"),
            "digest mismatch of piece 3: expected crc32:1, actual crc32:2",
        ),
        (OriginError("404 Not Found", status=404), "404 Not Found"),
        (
            InvalidTransition("peer p", "running", "register", ("a", "-b->", "c")),
            "peer p: no 'register' from 'running'; story: a -b-> c",
        ),
    ],
)
def test_errors_speak_for_themselves(error: DragonflyError, text: str) -> None:
    """From the fields that they hold."""
    assert str(error) == text


def test_fields() -> None:
    """For those who do more than read."""
    space = NoRoom(10, capacity=20, leased=15)
    assert (space.needed, space.capacity, space.leased) == (10, 20, 15)
    piece = PieceNotFound("t", 3)
    assert (piece.task_id, piece.number, TaskNotFound("u").task_id) == ("t", 3, "u")
    digest = DigestMismatch("x", want="a", got="b")
    assert (digest.want, digest.got) == ("a", "b")
    move = InvalidTransition("who", "state", "event", ("story",))
    assert (move.state, move.event, move.story) == ("state", "event", ("story",))


def test_an_origins_answer_is_kept() -> None:
    """As a copy: what the caller does to his headers is his affair."""
    header = {"Retry-After": "5"}
    error = SourceChanged("changed", status=200, header=header, transient=True)
    header.clear()

    assert error.header == {"Retry-After": "5"}
    assert (error.message, error.status, error.transient) == ("changed", 200, True)
    plain = OriginError("gone")
    assert (plain.status, plain.header, plain.transient) == (None, {}, False)


@pytest.mark.parametrize(
    "error",
    [
        NoRoom(10, capacity=20, leased=15),
        NoRoom.told("no room", 10, 20),
        OriginError("404 Not Found", status=404, header={"a": "b"}),
        SourceChanged("changed", version="2", transient=True),
        DigestMismatch("x", want="a", got="b"),
        PieceNotFound("t", 3),
        TaskDeleted("task t was deleted"),
    ],
)
def test_errors_travel_between_processes(error: DragonflyError) -> None:
    """A pool of workers ends, or hangs, over one that cannot."""
    told = pickle.loads(pickle.dumps(error))  # noqa: S301  what it reads, it has written
    assert type(told) is type(error)
    assert (str(told), told.args, told.__dict__) == (str(error), error.args, error.__dict__)


def test_whose_fault_it_was() -> None:
    """Nobody raises the class that does not say so."""
    assert {cls.__name__ for cls in below(ProtocolError)} == {
        "LocalProtocolError",
        "RemoteProtocolError",
    }
    assert copy.copy(TaskDeleted("task t was deleted")).args == ("task t was deleted",)
