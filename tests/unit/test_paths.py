"""paths.py: where sockets lie, and whose directory they may lie in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pantala.errors import ConfigError, Forbidden
from pantala.paths import (
    handoff_path_for,
    make_runtime_dir,
    personal_socket,
    runtime_dir,
    scheduler_path_for,
)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this user, and in it the place of ours."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "pantala"


@pytest.mark.parametrize(
    ("socket", "handoff"),
    [
        ("/var/run/dragonfly/dfdaemon.sock", "/var/run/dragonfly/dfdaemon.handoff.sock"),
        ("/run/d.handoff.sock", "/run/d.handoff.sock"),
        ("/run/daemon", "/run/daemon.handoff"),
        ("/run/a.sock/b", "/run/a.sock/b.handoff"),
    ],
)
def test_the_socket_beside(socket: str, handoff: str) -> None:
    """Before ``.sock``, else at the end."""
    assert handoff_path_for(socket) == handoff


def test_made_for_this_user_alone(runtime: Path) -> None:
    """And found again."""
    assert make_runtime_dir() == str(runtime)
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert make_runtime_dir() == str(runtime)
    assert personal_socket() == str(runtime / "dfdaemon.sock")


def test_without_a_runtime_directory_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unset, missing, relative or another user's: then it is one in /tmp."""
    fallback = f"/tmp/pantala-{os.geteuid()}"  # noqa: S108  the name is the point
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_dir() == fallback
    for value in ("", "relative", str(tmp_path / "none")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert runtime_dir() == fallback
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert runtime_dir() == f"/tmp/pantala-{tmp_path.stat().st_uid + 1}"  # noqa: S108  the name is what is tested


def test_a_symlink_is_refused(runtime: Path, tmp_path: Path) -> None:
    """It may lead to where others write."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Forbidden, match="not a directory of its own"):
        make_runtime_dir()


def test_a_directory_open_to_others_is_refused(runtime: Path) -> None:
    """They could put their own socket there."""
    runtime.mkdir()
    runtime.chmod(0o750)
    with pytest.raises(Forbidden, match="open to other users"):
        make_runtime_dir()


def test_anothers_directory_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made there before us, as anybody can in /tmp."""
    runtime.mkdir(mode=0o700)
    owner = runtime.stat().st_uid
    monkeypatch.setattr("pantala.paths.runtime_dir", lambda: str(runtime))
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(Forbidden, match=f"belongs to user {owner}"):
        make_runtime_dir()


def test_what_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long for a socket, or on no disk that can be written to."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(ConfigError, match="too long"):
        make_runtime_dir()
    monkeypatch.setattr("pantala.paths.runtime_dir", lambda: "/proc/pantala")
    with pytest.raises(ConfigError, match="cannot create /proc/pantala"):
        make_runtime_dir()


def test_the_scheduler_of_a_personal_daemon() -> None:
    """Beside the daemon's socket."""
    assert scheduler_path_for("/run/d.sock") == "/run/d.scheduler.sock"
