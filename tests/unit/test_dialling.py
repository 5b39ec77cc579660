"""client/dialling.py: which daemon a program asks, and over which connections."""

from __future__ import annotations

import pytest

from pantala.client.dialling import ENDPOINT_VARIABLE, Dialling
from pantala.errors import InvalidRequest, Unavailable


def test_the_variable_is_read_when_something_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the client is made, which for that of all of a program is when it is imported."""
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    dialling = Dialling(None, {})
    assert dialling.endpoint is None
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


def test_what_is_named_counts_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Than the variable."""
    dialling = Dialling("/nowhere/mine.sock", {})
    idle = dialling.idle
    monkeypatch.setenv(ENDPOINT_VARIABLE, "/nowhere/a.sock")
    assert dialling.endpoint == "/nowhere/mine.sock"
    assert dialling.idle is idle


def test_what_is_no_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named at once; what the variable names when it is needed."""
    with pytest.raises(InvalidRequest, match="want the path of a socket"):
        Dialling("unix:", {})
    monkeypatch.setenv(ENDPOINT_VARIABLE, "unix:")
    dialling = Dialling(None, {})
    with pytest.raises(InvalidRequest, match="want the path of a socket"):
        dialling.dial()
