"""Which of those that share a file are alive: the kernel knows, however they ended.

Each has a lock on a byte of its own in a file beside it, which goes with its last descriptor. The
lock belongs to the open file and not to the process, so many in one process are as good as many
processes, and it is seen from every container of the machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from pathlib import Path
from typing import Final

#: ``struct flock`` of 64-bit Linux: type, whence, start, length, process id.
_FLOCK: Final = struct.Struct("hhqqi4x")

#: Python has these where the kernel does.
_SET: Final = getattr(fcntl, "F_OFD_SETLK", None)
_GET: Final = getattr(fcntl, "F_OFD_GETLK", None)

#: Bytes of a name: a file offset has 63 bits.
_NAME: Final = 7


class Living:
    """One of them. Where there are no such locks, all are taken to be alive.

    Args:
        path: Of the file with the locks. It comes to be with the first.

    Attributes:
        name: Of this one, among all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = secrets.token_hex(_NAME)
        self._fd = -1

    def show(self) -> None:
        """Be seen alive, from now on. To be repeated, should somebody have removed the file.

        Raises:
            OSError: The file cannot be had.
        """
        if _SET is None or (self._fd >= 0 and self._is_there()):
            return
        self.close()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.fcntl(self._fd, _SET, _lock(fcntl.F_WRLCK, self.name))

    def lives(self, name: str) -> bool:
        """Whether that one is alive. Raises OSError. To be asked after :meth:`show`."""
        if _GET is None or name == self.name:
            return True
        found = fcntl.fcntl(self._fd, _GET, _lock(fcntl.F_WRLCK, name))
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Be seen alive no longer."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_there(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))


def _lock(kind: int, name: str) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, int(name, 16), 1, 0)
