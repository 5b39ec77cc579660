"""Where the content of a download lies in this process: in the daemon's memory, or in its own.

A mapping of the daemon's memory keeps the lease on it, and so does every view of that mapping: an
array that was made from one, a slice of a slice. When the last of them is gone, the lease ends, in
whatever thread and order that happens, so what ends it waits for nothing and holds no lock.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from sys import is_finalizing
from typing import Final

from pantala.errors import RemoteProtocolError

from .arrival import Arrival, Step
from .connection import Connection
from .coverage import Coverage
from .saving import not_mapped

#: Connections that wait for the next request; more of them are closed.
MAX_IDLE: Final = 16

#: Bytes that the kernel copies in a call: what Linux takes at once, in whole pages.
_COPY: Final = 0x7FFF_F000

_CLOSED: Final = "the content is closed"


class Idle:
    """Connections on which nothing is asked for, of one process."""

    def __init__(self) -> None:
        #: Taking and adding are atomic, also where a destructor cuts in.
        self._connections: deque[Connection] = deque()
        self._process = os.getpid()

    def take(self) -> Connection | None:
        """One that the daemon has not closed meanwhile, if there is one."""
        if self._process != os.getpid():  # a fork: these are the parent's, who goes on with them
            self.close()
            self._process = os.getpid()
        while self._connections:
            try:
                connection = self._connections.pop()
            except IndexError:  # another thread had the last one
                return None
            if connection.is_alive():
                return connection
            connection.close()
        return None

    def __del__(self, ends: Callable[[], bool] = is_finalizing) -> None:
        if not ends():  # then modules go, and the system closes all
            self.close()

    def put(self, connection: Connection) -> None:
        """Keep one for the next who needs it. It has nothing under way."""
        if self._process != os.getpid() or len(self._connections) >= MAX_IDLE:
            connection.close()
        else:
            self._connections.append(connection)

    def close(self) -> None:
        """Close all."""
        while self._connections:
            self._connections.pop().close()


class Lease:
    """The right to find content where it is, as long as this object is there.

    Args:
        connection: On which the content was asked for; nothing more is to come over it.
        idle: Where it goes afterwards.
    """

    __slots__ = ("_connection", "_idle", "_process")

    def __init__(self, connection: Connection, idle: Idle) -> None:
        self._connection: Connection | None = connection
        self._idle = idle
        self._process = os.getpid()

    def __del__(self, ends: Callable[[], bool] = is_finalizing) -> None:
        if not ends():  # then modules go, and the system closes all
            self.end()

    def end(self) -> None:
        """Give it back. A second time does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # The other side of a fork has this connection as well, and may need it.
        if self._process == os.getpid() and connection.release_now():
            self._idle.put(connection)
        else:
            connection.close()


class Segment(mmap.mmap):
    """A mapping of the daemon's memory.

    Attributes:
        lease: On it, once all is here.
    """

    lease: Lease | None = None


class Landing:
    """What has come of a download, and where it is.

    Args:
        arrival: The download.

    Attributes:
        coverage: The bytes of the content that are here.
        fd: Of the segment, if there is one; else -1. Closed with this.
        segment: Its mapping, once one was needed.
    """

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.coverage = Coverage()
        self.fd = -1
        self.segment: Segment | None = None
        self._lease: Lease | None = None
        self._sent: bytes | bytearray | None = None

    def __del__(self, ends: Callable[[], bool] = is_finalizing) -> None:
        if not ends():  # then modules go, and the system closes all
            self.close()

    def close(self) -> None:
        """Let go of the descriptor; what was mapped stays for those who look at it."""
        self._lease = None
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def have_descriptor(self, fd: int) -> None:
        """The segment is *fd*, which is closed with this."""
        self.close()
        self.fd = fd

    def have_all(self, content: bytes) -> None:
        """All of it has come at once."""
        self._sent = content

    def room_for(self, step: Step) -> memoryview:
        """Where to put the bytes that follow an event."""
        if self._sent is None:
            self._sent = bytearray(self.arrival.length)
        at = step.offset - self.arrival.start
        return memoryview(self._sent)[at : at + step.inline]

    def take(self, step: Step) -> None:
        """Note what an event has brought."""
        if step.name == "again":
            self.coverage = Coverage()
            self.segment = self._sent = None
            self.close()
        for first, end in step.brought:
            self.coverage.add(first, end)

    def keep(self, lease: Lease) -> None:
        """All is here, and stays as long as *lease*: until this is closed, and no view is left."""
        self._lease = lease
        if self.segment is not None:
            self.segment.lease = lease

    def map(self) -> Segment:
        """The mapping of the segment.

        Raises:
            Unavailable: This process may have no more memory, or files.
            RemoteProtocolError: It is no segment.
            ValueError: This is closed.
        """
        if self.segment is None:
            length, fd = self.arrival.content_length, self.fd
            if fd < 0:
                raise ValueError(_CLOSED)
            try:
                segment = Segment(fd, length, prot=mmap.PROT_READ)
            except (OSError, OverflowError, ValueError) as error:
                self._check(fd)
                raise not_mapped(error) from error
            self._check(fd)
            segment.lease = self._lease
            self.segment = segment
        return self.segment

    def _check(self, fd: int) -> None:
        """See that nobody has closed *fd* meanwhile: its number may have been another file's.

        Raises ValueError: another thread has.
        """
        if self.fd != fd:
            raise ValueError(f"{_CLOSED}: another thread did so while it was read")

    def view(self, first: int, end: int) -> memoryview:
        """The bytes of the content from *first* to before *end*, which are here; read-only.

        Raises ValueError: this is closed, and what was not mapped before cannot be any more.
        """
        if first >= end:
            return memoryview(b"")
        if self.fd >= 0 or self.segment is not None:
            return memoryview(self.map())[first:end]
        if self._sent is None:
            raise ValueError(_CLOSED)
        start = self.arrival.start
        return memoryview(self._sent).toreadonly()[first - start : end - start]

    def copy_into(self, room: memoryview, first: int) -> None:
        """Fill *room* with the bytes of the content from *first* on, which are here.

        The kernel copies, so that nothing is mapped for it, and other threads run meanwhile.
        """
        if (fd := self.fd) < 0:
            room[:] = self.view(first, first + len(room))
            return
        while room:
            try:
                size = os.preadv(fd, [room[:_COPY]], first)
            except OSError as error:
                self._check(fd)
                raise RemoteProtocolError(
                    f"the daemon's segment cannot be read: {error}"
                ) from error
            self._check(fd)
            if not size:
                raise RemoteProtocolError("the daemon's segment is shorter than the content")
            room, first = room[size:], first + size

    def copy(self, first: int, end: int) -> bytes:
        """The bytes from *first* to before *end*, which are here, in memory of their own."""
        if (fd := self.fd) < 0:
            view = self.view(first, end)
            # What was sent as a whole is in memory of its own already.
            whole = isinstance(view.obj, bytes) and len(view.obj) == end - first
            return view.obj if whole and isinstance(view.obj, bytes) else bytes(view)
        if end - first <= _COPY:
            with suppress(OSError):  # below it is said whose fault it is
                data = os.pread(fd, end - first, first)
                self._check(fd)
                if len(data) == end - first:
                    return data
        room = bytearray(end - first)
        self.copy_into(memoryview(room), first)
        return bytes(room)
