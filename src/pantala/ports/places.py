"""Where bytes go, and where they lie: memory, or a file."""

from __future__ import annotations

import socket
from typing import Protocol


class Sink(Protocol):
    """Where the bytes of one piece go, from the front to its end. One thread at a time uses it.

    Who receives takes a window, fills it from its beginning as far as bytes come, and says how far
    that was. So memory is received into where it lies, and a file may be written as suits it best.

    Attributes:
        length: Bytes that there is room for.
        received: Bytes that have been received, counted from the front; any thread may look.
    """

    length: int
    received: int

    def window(self, offset: int) -> memoryview:
        """Where the bytes from *offset* on are to be received; release it before the next call.

        At least one byte, at most all to the end. What a window holds before that has no meaning.
        """

    def wrote(self, offset: int, count: int) -> None:
        """The first *count* bytes of the window at *offset* are received.

        Raises:
            StoreFailed: They cannot be kept.
        """

    def close(self) -> None:
        """Nothing more will be received. A second time does nothing."""


class MemorySink:
    """A :class:`Sink` of memory: its bytes are received where they lie.

    Args:
        view: Writable; the sink's from here on.
    """

    def __init__(self, view: memoryview) -> None:
        self.length = len(view)
        self.received = 0
        self._view = view

    def window(self, offset: int) -> memoryview:
        """All from *offset* on. Raises ValueError once the sink is closed."""
        return self._view[offset:]

    def wrote(self, offset: int, count: int) -> None:
        """They are where they belong."""
        self.received = offset + count

    def close(self) -> None:
        """Let go of the memory."""
        self._view.release()


class Extent(Protocol):
    """Bytes of a task where they lie, read-only. Hold a lease for as long as you use them.

    What lies on a disk may have to be waited for, and may fail; memory does neither.

    Attributes:
        length: Bytes.
    """

    length: int

    def read(self, offset: int, count: int) -> memoryview:
        """The *count* bytes from *offset* on; of memory those where they lie.

        Raises:
            Damaged: They cannot be read any more.
        """

    def send(self, sock: socket.socket, offset: int, count: int) -> int:
        """Have the kernel send at most *count* bytes from *offset* on; how many it took.

        Raises:
            OSError: As ``send``.
        """

    def check(self, digest: str) -> None:
        """Make sure that the bytes, of one piece, are still those that were verified.

        Raises:
            Damaged: They are not, or cannot be read any more.
        """

    def close(self) -> None:
        """Nobody will read them here any more. A second time does nothing."""


class MemoryExtent:
    """An :class:`Extent` of memory, which nobody checks again.

    With ``send`` and not ``sendfile``: after that returns, memory that is used again would still
    change what is received.

    Args:
        view: The bytes; the extent's from here on.
    """

    def __init__(self, view: memoryview) -> None:
        self.length = len(view)
        self._view = view

    def read(self, offset: int, count: int) -> memoryview:
        """A part of the memory; release it before the lease ends."""
        return self._view[offset : offset + count]

    def send(self, sock: socket.socket, offset: int, count: int) -> int:
        """Send some of the bytes; how many went. Raises OSError, as ``socket.send`` does."""
        with self._view[offset : offset + count] as part:
            return sock.send(part)

    def check(self, digest: str) -> None:
        """It was verified when it was received."""

    def close(self) -> None:
        """Let go of the memory."""
        self._view.release()


def fill(sink: Sink, data: bytes | memoryview) -> None:
    """Put *data*, which is here already, at the beginning of *sink*. Blocks.

    Raises:
        StoreFailed: As :meth:`Sink.wrote`.
    """
    whole, at = memoryview(data), 0
    while at < len(whole):
        with sink.window(at) as window:
            count = min(len(window), len(whole) - at)
            window[:count] = whole[at : at + count]
        sink.wrote(at, count)
        at += count
