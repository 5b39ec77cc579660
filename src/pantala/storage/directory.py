"""The directory on a disk that belongs to one daemon alone.

    <storage.dir>/
        lock                                           held by the daemon that uses it
        journal.db                                     what is known of the tasks
        content/tasks/<id[0:3]>/<id>                   a sparse file as long as the content
        content/persistent-tasks/…                     likewise
        content/persistent-cache-tasks/…               likewise
        tmp/                                           room for outputs that are to be hard links

The names are those of Dragonfly's daemon.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from pantala.errors import ConfigError
from pantala.model.task import Kind

_DIRECTORIES: Final = {
    Kind.STANDARD: "tasks",
    Kind.PERSISTENT: "persistent-tasks",
    Kind.PERSISTENT_CACHE: "persistent-cache-tasks",
}


class DataDirectory:
    """The directory of one daemon, which nobody else uses as long as this is open.

    Args:
        path: Made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.db"
        self.content = path / "content"
        self._lock = -1

    @property
    def is_open(self) -> bool:
        """It is this daemon's now, and no other's."""
        return self._lock >= 0

    def open(self) -> None:
        """Take it.

        Raises:
            ConfigError: Another daemon uses it, or it cannot be used.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
            for directory in (self.content, self.path / "tmp"):
                directory.mkdir(exist_ok=True)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"cannot use storage.dir {self.path}: {error.strerror}; make it writable for this "
                "user, or set storage.dir to another directory"
            ) from error

    def file_of(self, kind: Kind, task_id: str) -> Path:
        """Where the content of a task lies."""
        return self.content / _DIRECTORIES[kind] / task_id[:3] / task_id

    def close(self) -> None:
        """Leave it to others. A second time does nothing."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _lock(path: Path) -> int:
    """A descriptor with which the directory is locked, until it is closed or the process ends."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        who = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise ConfigError(
            f"storage.dir {path} is in use by another daemon (process {who}); "
            "set storage.dir to another directory"
        ) from None
    except BaseException:  # whatever it is, the descriptor is ours to close
        os.close(fd)
        raise
    return fd
