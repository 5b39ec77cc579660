"""Where a daemon's sockets lie, and files of settings.

``dfget`` starts with this, so it imports next to nothing.
"""
# ruff: noqa: PTH102, PTH111, PTH116, PTH117, PTH118  pathlib costs 3 ms, a tenth of dfget's start

from __future__ import annotations

import os
import stat

from pantala.errors import ConfigError, Forbidden

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from typing import Final

#: The gRPC socket of a machine's daemon.
DEFAULT_SOCKET: Final = "/var/run/dragonfly/dfdaemon.sock"

#: Files of settings, read when no other is named, and only if they are there.
DAEMON_SETTINGS: Final = "/etc/dragonfly/dfdaemon.yaml"
SCHEDULER_SETTINGS: Final = "/etc/dragonfly/scheduler.yaml"
DYNCONFIG: Final = "/etc/dragonfly/dynconfig.yaml"

# What fits into a sockaddr_un together with its closing NUL (108 on Linux, 104 on macOS).
_MAX_SOCKET_PATH: Final = 103


def handoff_path_for(socket_path: str) -> str:
    """The hand-off socket beside a gRPC socket. The path of a hand-off socket stays itself.

    >>> handoff_path_for("/run/dfdaemon.sock")
    '/run/dfdaemon.handoff.sock'
    """
    stem = socket_path.removesuffix(".sock")
    if stem.endswith(".handoff"):
        return socket_path
    return f"{stem}.handoff{socket_path[len(stem) :]}"


def scheduler_path_for(socket_path: str) -> str:
    """The socket of a personal daemon's scheduler, beside its gRPC socket.

    >>> scheduler_path_for("/run/dfdaemon.sock")
    '/run/dfdaemon.scheduler.sock'
    """
    stem = socket_path.removesuffix(".sock")
    return f"{stem}.scheduler{socket_path[len(stem) :]}"


def runtime_dir() -> str:
    """The directory of this user's personal daemon; it need not exist.

    ``$XDG_RUNTIME_DIR`` counts only when it is this user's own: under ``sudo`` it often is
    the caller's, and a daemon of root would lock him out of it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.geteuid()
    try:
        usable = os.path.isabs(base) and os.stat(base).st_uid == uid
    except OSError:
        usable = False
    return os.path.join(base, "pantala") if usable else f"/tmp/pantala-{uid}"  # noqa: S108  make_runtime_dir checks whose it is


def cache_dir() -> str:
    """Where this user keeps what can be had again; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "pantala") if os.path.isabs(base) else runtime_dir()


def personal_socket() -> str:
    """The gRPC socket of this user's personal daemon, running or not."""
    return os.path.join(runtime_dir(), "dfdaemon.sock")


def make_runtime_dir() -> str:
    """Create the personal daemon's directory if need be; return its path.

    Raises:
        Forbidden: It is a symlink, another user's, or open to others. Whoever can write there
            could put a socket of his own in place of the daemon's.
        ConfigError: Its path is too long for a socket, or it cannot be created.
    """
    path = runtime_dir()
    # The longest of its sockets.
    if len(os.fsencode(scheduler_path_for(personal_socket()))) > _MAX_SOCKET_PATH:
        raise ConfigError(f"{path} is too long for a socket's path: set XDG_RUNTIME_DIR")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"cannot create {path}: {error.strerror}") from error
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Forbidden(f"{path} is not a directory of its own: remove it")
    if found.st_uid != os.geteuid():
        raise Forbidden(f"{path} belongs to user {found.st_uid}: set XDG_RUNTIME_DIR")
    if found.st_mode & 0o077:
        raise Forbidden(f"{path} is open to other users: chmod 700 it, or remove it")
    return path
