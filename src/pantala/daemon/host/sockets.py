"""Unix sockets that nobody can steal, and a host id that only one daemon has.

A second server on a unix socket's path takes it away from the first without a word, and deletes
it when the first ends. So a path is locked before it is touched, and what lies there is probed:
a socket that answers is somebody's, one that does not is left over and goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import sys
from pathlib import Path
from typing import Self

from pantala.errors import ConfigError


class SocketPath:
    """The right to listen at a path, until :meth:`release`.

    Args:
        path: Where.
        setting: The configuration key that names it, for messages.

    Raises:
        ConfigError: Another daemon listens there, or it cannot be used.
    """

    def __init__(self, path: Path, *, setting: str) -> None:
        self.path = path
        self._setting = setting
        self._lock = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path.with_name(f".{path.name}.lock"))
            self._clear()
        except BlockingIOError:
            raise ConfigError(
                f"another daemon uses {path}: stop it, or set {setting} to another path"
            ) from None
        except OSError as error:
            self._unlock()
            why = error.strerror or error
            raise ConfigError(f"cannot use {path}: {why}; set {setting}") from error
        except ConfigError:
            self._unlock()  # what lies there is not ours
            raise

    def _clear(self) -> None:
        """Remove what a daemon that was killed left behind."""
        if not self.path.exists() and not self.path.is_symlink():
            return
        if not self.path.is_socket():
            raise ConfigError(f"{self.path} is there and is no socket: set {self._setting}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2.0)
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT):
                    raise
        raise ConfigError(f"another daemon listens on {self.path}: stop it, or set {self._setting}")

    def listen(self, mode: int) -> socket.socket:
        """A non-blocking socket that listens there, for those whom *mode* lets in."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with private():
                sock.bind(str(self.path))
            self.path.chmod(mode)
            sock.listen(1024)
        except OSError as error:
            sock.close()
            why = error.strerror or error  # a path that is too long has no number
            raise ConfigError(
                f"cannot listen on {self.path}: {why}; set {self._setting}"
            ) from error
        sock.settimeout(0)
        return sock

    def release(self) -> None:
        """Remove the socket and let others have the path."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class HostName:
    """The right to be the daemon of a host id on this machine, until the process ends.

    Schedulers and peers would take two daemons of one id for one. The kernel keeps the name as
    an abstract socket, so that it is free again however the process ends.

    Raises:
        ConfigError: Another daemon on this machine has it.
    """

    def __init__(self, host_id: str) -> None:
        self._sock: socket.socket | None = None
        if sys.platform != "linux":
            return
        digest = hashlib.sha256(host_id.encode()).hexdigest()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(f"\0pantala/{digest}")
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise ConfigError(
                f"another daemon on this machine is host {host_id}: "
                "stop it, or set host.hostname (--hostname) or host.ip (--ip)"
            ) from None
        self._sock = sock

    def release(self) -> None:
        """Another process of this machine may have the name now."""
        if self._sock is not None:
            self._sock.close()


class private:  # noqa: N801  reads as what it does: with private(): bind
    """Nobody else gets at a socket between its creation and its ``chmod``."""

    def __enter__(self) -> Self:
        self._old = os.umask(0o177)
        return self

    def __exit__(self, *_: object) -> None:
        os.umask(self._old)


def _lock(path: Path) -> int:
    """Lock a file for as long as its descriptor is open. Raises BlockingIOError if it is."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:  # whatever it is, the descriptor is ours to close
        os.close(fd)
        raise
    return fd
