"""Reading a file that is imported: blocking work, which can be given up."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from pantala.errors import Forbidden, InvalidRequest, SourceChanged, Unavailable
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece
from pantala.ports import Sink

#: Bytes read at a time.
_STEP: Final = 1 << 20


class ImportFile:
    """A regular file, open, whose content must stay as it is while it is read.

    Args:
        path: Absolute.

    Raises:
        InvalidRequest: It is no path of a regular file.
        Forbidden: This daemon may not read it.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_absolute() or "\0" in path:
            raise InvalidRequest(f"path {path[:200]!r} is not the absolute path of a file")
        self.path = path
        self.fd = -1
        try:
            # What is no file, a pipe say, must not keep us waiting for its other end.
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except PermissionError:
            raise Forbidden(f"{path}: the daemon (user {os.geteuid()}) may not read it") from None
        except OSError as error:
            raise InvalidRequest(f"{path}: {error.strerror}") from None
        found = os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise InvalidRequest(f"{path}: is no regular file")
        self.length = found.st_size
        self._state = _state(found)
        #: Of each piece, as it was read the first time; empty: it is read but once.
        self.digests: list[str] = []

    def check_public(self) -> None:
        """Raise Forbidden unless everybody on this machine may read it."""
        mode = os.fstat(self.fd).st_mode
        # Where the descriptor leads: the path may have led through symlinks.
        real = Path(f"/proc/self/fd/{self.fd}").readlink()
        open_to_all = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
        if not mode & stat.S_IROTH or not open_to_all:
            raise Forbidden(
                f"{self.path}: not everybody may read it, and this daemon of root does not read "
                "for its callers what they may not: make it readable, or see "
                "download.server.allowImportPath"
            )

    def check_unchanged(self) -> None:
        """Look whether what was read is all of it, as it was when it was opened.

        Raises:
            SourceChanged: It was written to since.
            InvalidRequest: It goes on where it should end, as files of the kernel's do.
            Unavailable: It cannot be read.
        """
        if _state(os.fstat(self.fd)) != self._state:
            raise SourceChanged(f"{self.path} changed while it was imported; import it anew")
        if self._read(memoryview(bytearray(1)), self.length):
            raise InvalidRequest(
                f"{self.path}: has more in it than its length says; import a copy of it"
            )

    def check_same(self, number: int, digest: str) -> None:
        """Raise SourceChanged if a piece is not what it was when it was read the first time.

        Whoever writes through a mapping changes no times that could show it.
        """
        if self.digests and self.digests[number] != digest:
            raise SourceChanged(f"{self.path} changed while it was imported; import it anew")

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill the beginning of *view* with bytes from *offset* on; how many.

        Raises:
            SourceChanged: It ends there.
            Unavailable: It cannot be read.
        """
        count = self._read(view, offset)
        if not count:
            raise SourceChanged(f"{self.path} became shorter while it was imported; import it anew")
        return count

    def _read(self, view: memoryview, offset: int) -> int:
        try:
            return os.preadv(self.fd, [view], offset)
        except OSError as error:
            raise Unavailable(f"cannot read {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """A second time does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Job:
    """What ends soon after :meth:`abort`."""

    def __init__(self, file: ImportFile) -> None:
        self._file = file
        self._given_up = threading.Event()

    def abort(self) -> None:
        """Have it end soon, from any thread."""
        self._given_up.set()

    def _look(self) -> None:
        if self._given_up.is_set():
            raise Unavailable(f"the import of {self._file.path} was given up")


class Identify(Protocol):
    """Makes a task's id from the bytes of a file."""

    def __call__(self, chunks: Iterator[memoryview], /) -> str:
        """The id."""


class Identifying(_Job):
    """Hashes a file.

    Args:
        file: It.
        identify: Makes the task's id from the file's bytes, in parts.
        piece_length: Of the pieces in which it is copied afterwards, bytes.
    """

    def __init__(self, file: ImportFile, identify: Identify, piece_length: int) -> None:
        super().__init__(file)
        self._identify = identify
        self._piece_length = piece_length

    def run(self) -> str:
        """The task's id. Raises SourceChanged, Unavailable."""
        found = self._identify(self._chunks())
        self._file.check_unchanged()
        return found

    def _chunks(self) -> Iterator[memoryview]:
        buffer, at, crc = memoryview(bytearray(_STEP)), 0, 0
        while at < self._file.length:
            self._look()
            end = min(self._file.length, at - at % self._piece_length + self._piece_length)
            count = self._file.read_into(buffer[: end - at], at)
            crc = crc32(buffer[:count], crc)
            yield buffer[:count]
            at += count
            if at == end:
                self._file.digests.append(piece_digest(crc))
                crc = 0


class Copying(_Job):
    """Copies a piece of a file to where it belongs in the store.

    Args:
        file: It.
        piece: Which.
        sink: Where to.
    """

    def __init__(self, file: ImportFile, piece: Piece, sink: Sink) -> None:
        super().__init__(file)
        self._piece = piece
        self._sink = sink

    def run(self) -> str:
        """The digest of what was copied. Raises SourceChanged, Unavailable, StoreFailed."""
        at, crc = 0, 0
        while at < self._piece.length:
            self._look()
            with self._sink.window(at) as window:
                count = self._file.read_into(window, self._piece.offset + at)
                with window[:count] as part:
                    crc = crc32(part, crc)
            self._sink.wrote(at, count)
            at += count
        digest = piece_digest(crc)
        self._file.check_same(self._piece.number, digest)
        return digest
