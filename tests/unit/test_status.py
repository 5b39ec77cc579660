"""rpc/status.py: errors to statuses and back."""

from __future__ import annotations

import json
import logging

import grpc
import grpc.aio
import pytest

from pantala.errors import (
    Blame,
    Busy,
    DragonflyError,
    FeatureOff,
    NoRoom,
    NotFound,
    OriginError,
    PieceNotFound,
    SourceChanged,
    SourceUnreachable,
    TaskDeleted,
    TimedOut,
    Unavailable,
)
from pantala.logs import setup_logging
from pantala.rpc.status import DETAILS_KEY, from_rpc_error, status_of


def _failed(
    status: grpc.StatusCode, text: str = "", details: bytes | None = None
) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if details is not None:
        trailing.add(DETAILS_KEY, details)
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailing, details=text)


def test_errors_answer_for_themselves() -> None:
    """Code and text come from the class."""
    assert status_of(PieceNotFound("t", 3)) == (
        grpc.StatusCode.NOT_FOUND,
        "piece 3 of task t not found",
        None,
    )
    assert status_of(NoRoom(1, capacity=2, leased=2))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_bug_is_a_number(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a reference; the log has it too, with the error."""
    setup_logging("info", json=True)
    with caplog.at_level(logging.ERROR):
        logging.getLogger().addHandler(caplog.handler)
        code, text, _ = status_of(KeyError("s3-secret"))
        logging.getLogger().removeHandler(caplog.handler)
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    assert text.split(";")[0].rsplit(" ", 1)[-1] in caplog.text


def test_an_origins_answer_travels_as_json() -> None:
    """Recorded from a stock daemon whose origin answered 404: plain JSON, status INTERNAL."""
    error = OriginError("404 Not Found", status=404, header={"server": "x"})
    status, message, details = status_of(error)
    assert status is grpc.StatusCode.INTERNAL
    assert message == "404 Not Found"
    assert details == b'{"message":"404 Not Found","header":{"server":"x"},"status_code":404}'


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (OriginError("503 Service Unavailable", status=503), Blame.ORIGIN),
        (OriginError("no answer"), Blame.ORIGIN),
        (SourceUnreachable("connection refused"), Blame.ORIGIN),
        (OriginError("403 Forbidden", status=403), Blame.CALLER),
        (OriginError("no descriptors", blame=Blame.LOCAL), Blame.LOCAL),
    ],
)
def test_whose_fault_it_is_travels_too(error: OriginError, blame: Blame) -> None:
    """A seed's trouble is no reason to leave the origin alone."""
    back = from_rpc_error(_failed(*status_of(error)), "seed s")
    assert isinstance(back, OriginError)
    assert (error.blame, back.blame) == (blame, blame)


def test_an_origins_answer_comes_back() -> None:
    """What was sent is what arrives."""
    sent = OriginError("404 Not Found", status=404, header={"server": "x"})
    status, message, details = status_of(sent)
    back = from_rpc_error(_failed(status, message, details), "daemon d")
    assert isinstance(back, OriginError)
    assert (back.message, back.status, back.header) == ("404 Not Found", 404, {"server": "x"})


def test_a_changed_origin_comes_back_as_such() -> None:
    """ABORTED with an origin's answer is a changed origin, without one a deleted task."""
    status, message, details = status_of(SourceChanged("ETag differs"))
    assert isinstance(from_rpc_error(_failed(status, message, details), "d"), SourceChanged)
    assert isinstance(from_rpc_error(_failed(status, message), "d"), TaskDeleted)


def test_huge_headers_do_not_lose_the_answer() -> None:
    """Headers that no trailer could carry are left out, the rest stays."""
    _, message, details = status_of(
        OriginError("x" * 5000, status=502, header={"h": "v" * 100_000})
    )
    assert details is not None
    assert len(details) <= 4096
    assert json.loads(details)["status_code"] == 502
    assert len(message) <= 1024


@pytest.mark.parametrize(
    "details",
    [
        b"\x08\x05\x12\x03abc",
        b"[]",
        b"{}",
        b'"text"',
        b'{"message":"m","status_code":"x"}',
        b"\xff",
    ],
)
def test_foreign_details_are_no_origins_answer(details: bytes) -> None:
    """A packed Any, or garbage, is not taken for an origin's answer, and harms nothing."""
    error = from_rpc_error(_failed(grpc.StatusCode.INTERNAL, "boom", details), "daemon d")
    assert type(error) is DragonflyError
    assert str(error) == "daemon d: boom"


@pytest.mark.parametrize(
    ("status", "want"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Busy),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TimedOut),
        (grpc.StatusCode.UNIMPLEMENTED, FeatureOff),
        (grpc.StatusCode.FAILED_PRECONDITION, FeatureOff),
        (grpc.StatusCode.UNKNOWN, DragonflyError),
    ],
)
def test_statuses_become_errors(status: grpc.StatusCode, want: type[DragonflyError]) -> None:
    """The class tells what a caller can do; the text tells who said it."""
    error = from_rpc_error(_failed(status, "why"), "scheduler s")
    assert type(error) is want
    assert str(error) == "scheduler s: why"


def test_a_status_without_text_has_its_name() -> None:
    """No message ends in nothing."""
    assert str(from_rpc_error(_failed(grpc.StatusCode.UNAVAILABLE), "s")) == "s: UNAVAILABLE"


def test_every_error_of_ours_has_a_status() -> None:
    """No class is forgotten, and its number is gRPC's."""
    todo: list[type[DragonflyError]] = [DragonflyError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if not issubclass(kind, OriginError):  # it has more to say, see above
            assert status_of(kind.__new__(kind))[0].value[0] == kind.code
