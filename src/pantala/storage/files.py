"""Pieces in a file: received through a warm buffer, checked and sent by the kernel.

Nothing here maps a file: where a disk fails, or somebody cuts a file short, a mapping would end the
process, and a call only fails. docs/adr/0017 has the figures.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import Final

from pantala.errors import Damaged, StoreFailed
from pantala.model.digest import crc32, piece_digest

#: Bytes of a buffer. They stay in the processor's cache between two calls.
BUFFER: Final = 512 << 10

#: Buffers kept for the next user, beyond those in use.
_SPARE: Final = 32

_spare: deque[bytearray] = deque(maxlen=_SPARE)


def _borrow() -> bytearray:
    """The buffer that was used last, or a new one."""
    try:
        return _spare.pop()
    except IndexError:
        return bytearray(BUFFER)


class Descriptor:
    """A descriptor that lives as long as anybody refers to this.

    Args:
        fd: It; this one's from here on.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class FileSink:
    """A :class:`~pantala.ports.Sink` of a part of a file.

    Args:
        fd: The file, open for writing for as long as the sink is used.
        offset: Where in it the sink begins.
        length: Bytes that it takes.
        name: Of what the file holds, for messages.
    """

    def __init__(self, fd: int, offset: int, length: int, *, name: str) -> None:
        self.length = length
        self.received = 0
        self._fd = fd
        self._offset = offset
        self._name = name
        self._buffer: bytearray | None = None
        self._closed = False

    def window(self, offset: int) -> memoryview:
        """A buffer. Raises ValueError once the sink is closed."""
        if self._closed:
            raise ValueError("the sink was closed")
        if self._buffer is None:
            self._buffer = _borrow()
        return memoryview(self._buffer)[: self.length - offset]

    def wrote(self, offset: int, count: int) -> None:
        """Write the buffer's beginning to the file, which may still be in memory alone then."""
        if self._buffer is None:
            raise ValueError("nobody has received anything")
        with memoryview(self._buffer) as buffer:
            at = 0
            while at < count:
                with buffer[at:count] as rest:
                    try:
                        at += self._write(rest, offset + at)
                    except OSError as error:
                        raise StoreFailed(f"cannot write {self._name}: {error.strerror}") from error
        self.received = offset + count

    def _write(self, data: memoryview, offset: int) -> int:
        """Write some of *data* to *offset* of the sink; how much went. Raises OSError."""
        return os.pwrite(self._fd, data, self._offset + offset)

    def close(self) -> None:
        """Leave the buffer to others."""
        self._closed = True
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            _spare.append(buffer)


class FileExtent:
    """An :class:`~pantala.ports.Extent` of a part of a file.

    Args:
        fd: The file, open for reading for as long as the extent is used.
        offset: Where in it the extent begins.
        length: Bytes.
        name: Of what the file holds, for messages.
    """

    def __init__(self, fd: int, offset: int, length: int, *, name: str) -> None:
        self.length = length
        self._fd = fd
        self._offset = offset
        self._name = name

    def read(self, offset: int, count: int) -> memoryview:
        """*count* bytes from *offset*, read into memory of their own."""
        data = bytearray(count)
        with memoryview(data) as whole:
            self._fill(whole, offset)
        return memoryview(data).toreadonly()

    def send(self, sock: socket.socket, offset: int, count: int) -> int:
        """Send some of the bytes by ``sendfile``; how many went.

        Raises:
            OSError: The child is gone, or the file was cut short.
        """
        sent = os.sendfile(sock.fileno(), self._fd, self._offset + offset, count)
        if sent == 0 and count:
            raise OSError(errno.EIO, f"{self._name}: its file has become shorter")
        return sent

    def check(self, digest: str) -> None:
        """Read them once; they are in the page cache then."""
        buffer, at, crc = _borrow(), 0, 0
        with memoryview(buffer) as whole:
            while at < self.length:
                with whole[: self.length - at] as part:
                    self._fill(part, at)
                    crc = crc32(part, crc)
                    at += len(part)
        _spare.append(buffer)
        got = piece_digest(crc)
        if got != digest:
            raise Damaged(self._name, f"expected {digest}, actual {got}")

    def close(self) -> None:
        """Nothing to let go of: the file is another's."""

    def _fill(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                with view[done:] as rest:
                    count = os.preadv(self._fd, [rest], self._offset + offset + done)
            except OSError as error:
                raise Damaged(self._name, error.strerror or str(error)) from error
            if count == 0:
                raise Damaged(self._name, "its file has become shorter")
            done += count
