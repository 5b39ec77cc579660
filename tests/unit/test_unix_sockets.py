"""daemon/host/sockets.py: unix sockets that nobody can steal, host ids that only one daemon has."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pantala.daemon.host.sockets import HostName, SocketPath, private
from pantala.errors import ConfigError


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def path(directory: Path) -> Iterator[SocketPath]:
    """Ours."""
    path = SocketPath(directory / "run" / "d.sock", setting="some.key")
    yield path
    path.release()


def test_listening(path: SocketPath) -> None:
    """For those whom the mode lets in, without waiting; the directory is made."""
    with path.listen(0o660) as listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.path.stat().st_mode) == 0o660
        assert listener.gettimeout() == 0
        client.connect(str(path.path))
        listener.accept()[0].close()


def test_releasing(path: SocketPath) -> None:
    """The socket goes, and the path is free; a second time is harmless."""
    path.listen(0o600).close()
    path.release()
    path.release()
    assert not path.path.exists()
    SocketPath(path.path, setting="some.key").release()


def test_a_path_that_is_taken(path: SocketPath) -> None:
    """The second is told what to do; the first goes on."""
    with path.listen(0o600) as listener, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConfigError, match=r"another daemon uses .*d\.sock: stop it, or set"):
            SocketPath(path.path, setting="some.key")
        client.connect(str(path.path))
        listener.accept()[0].close()


def test_a_strangers_socket(directory: Path) -> None:
    """It answers, so it is somebody's, though it has no lock."""
    where = directory / "d.sock"
    with socket.socket(socket.AF_UNIX) as stranger, socket.socket(socket.AF_UNIX) as client:
        stranger.bind(str(where))
        stranger.listen(1)
        with pytest.raises(ConfigError, match="another daemon listens on"):
            SocketPath(where, setting="some.key")
        client.connect(str(where))


def test_a_busy_strangers_socket(directory: Path) -> None:
    """It does not answer at once, and is somebody's all the same."""
    where = directory / "d.sock"
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(where))
        stranger.listen(0)
        for client in clients:
            client.settimeout(0)
            client.connect_ex(str(where))
        with pytest.raises(ConfigError, match="another daemon listens on"):
            SocketPath(where, setting="some.key")
        for client in clients:
            client.close()
    assert where.exists()


def test_what_a_killed_daemon_left_goes(directory: Path) -> None:
    """Nobody answers: neither its socket nor its lock is an obstacle."""
    where = directory / "d.sock"
    program = (
        "import os, pathlib, signal\n"
        "from pantala.daemon.host.sockets import SocketPath\n"
        f"path = SocketPath(pathlib.Path({str(where)!r}), setting='k')\n"
        "listener = path.listen(0o600)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert where.is_socket()
    path = SocketPath(where, setting="some.key")
    path.listen(0o600).close()
    path.release()


def test_what_is_no_socket_stays(directory: Path) -> None:
    """Nobody's file is deleted for us."""
    file, link = directory / "file", directory / "link"
    file.write_text("precious")
    link.symlink_to(file)
    for where in (file, link, directory):
        with pytest.raises(ConfigError, match=r"is there and is no socket: set some\.key"):
            SocketPath(where, setting="some.key")
    assert file.read_text() == "precious"


@pytest.mark.parametrize("where", ["/proc/nowhere/d.sock", "/dev/null/d.sock"])
def test_a_directory_that_cannot_be(where: str) -> None:
    """The system's reason, and the key."""
    with pytest.raises(ConfigError, match=f"cannot use {where}: [A-Z].*; set some.key"):
        SocketPath(Path(where), setting="some.key")


def test_a_path_that_is_too_long(directory: Path) -> None:
    """The kernel has room for a hundred bytes or so."""
    path = SocketPath(directory / ("x" * 120), setting="some.key")
    with pytest.raises(ConfigError, match=r"cannot listen on .*too long; set some\.key"):
        path.listen(0o600)
    path.release()


def test_host_names() -> None:
    """One daemon each; free again when it ends."""
    first = HostName("1.2.3.4-host")
    with pytest.raises(ConfigError, match=r"is host 1\.2\.3\.4-host: .*host\.hostname"):
        HostName("1.2.3.4-host")
    HostName("1.2.3.4-other").release()
    first.release()
    HostName("1.2.3.4-host").release()


def test_nobody_gets_in_between() -> None:
    """Between a socket's creation and its mode; the mask is as before then."""
    before = os.umask(0o022)
    os.umask(before)
    with private():
        inside = os.umask(0o177)
        os.umask(inside)
    after = os.umask(before)
    assert (inside, after) == (0o177, before)
