"""client/dialling.py: which daemon a program asks, and over which connections."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pantala.client.connection import Connection
from pantala.client.dialling import ENDPOINT_VARIABLE, Dialling
from pantala.errors import InvalidRequest, TimedOut, Unavailable


def test_the_variable_is_read_when_something_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the client is made, which for that of all of a program is when it is imported."""
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    dialling = Dialling(None, {})
    monkeypatch.setenv(ENDPOINT_VARIABLE, "unix:///nowhere/a.sock")
    assert dialling.endpoint == "/nowhere/a.sock"
    with pytest.raises(Unavailable, match=r"no daemon at /nowhere/a\.sock"):
        dialling.dial()


def test_no_connection_is_used_for_another_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the variable changes, those that are idle wait until it changes back."""
    monkeypatch.setenv(ENDPOINT_VARIABLE, "/nowhere/a.sock")
    dialling = Dialling(None, {})
    idle = dialling.idle
    monkeypatch.setenv(ENDPOINT_VARIABLE, "/nowhere/b.sock")
    assert dialling.idle is not idle
    monkeypatch.setenv(ENDPOINT_VARIABLE, "/nowhere/a.sock")
    assert dialling.idle is idle


@pytest.mark.parametrize(
    ("endpoint", "dialled", "answered", "error", "goes_on"),
    [
        ("/a.sock", 0, False, Unavailable("closed"), True),
        ("/a.sock", 1, False, Unavailable("closed"), False),
        (None, 1, False, Unavailable("closed"), True),  # a personal one that was about to quit
        (None, 2, False, Unavailable("closed"), False),
        ("/a.sock", 0, True, Unavailable("closed"), False),
        ("/a.sock", 0, False, TimedOut("late"), False),
        ("/a.sock", 0, False, InvalidRequest("no"), False),
    ],
)
def test_who_is_tried_next(  # noqa: PLR0917  the columns of the table
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str | None,
    dialled: int,
    answered: bool,  # noqa: FBT001  of the table
    error: Exception,
    goes_on: bool,  # noqa: FBT001  of the table
) -> None:
    """As long as nothing has come of it, and there may be somebody."""
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs, Connection(ours, "/a.sock") as connection:
        connection.answered = answered
        assert Dialling(endpoint, {}).goes_on(error, connection, dialled) is goes_on


def test_what_is_named_counts_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Than the variable."""
    dialling = Dialling("/nowhere/mine.sock", {})
    idle = dialling.idle
    monkeypatch.setenv(ENDPOINT_VARIABLE, "/nowhere/a.sock")
    assert dialling.endpoint == "/nowhere/mine.sock"
    assert dialling.idle is idle


def test_what_is_no_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named at once; what the variable names when it is needed."""
    odd: list[Any] = ["unix:", "a\0b", b"/x", 5]
    for endpoint in odd:
        with pytest.raises(InvalidRequest, match="want the path of a socket"):
            Dialling(endpoint, {})
    assert Dialling(Path("/x"), {}).endpoint == "/x"
    monkeypatch.setenv(ENDPOINT_VARIABLE, "unix:")
    dialling = Dialling(None, {})
    with pytest.raises(InvalidRequest, match="want the path of a socket"):
        dialling.dial()
