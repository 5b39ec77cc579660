"""A daemon's events become an output."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOMEM

from pantala.errors import RemoteProtocolError, Unavailable
from pantala.model.urls import public_url

from .arrival import Arrival

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final, Protocol

    from pantala.errors import DragonflyError

    from .arrival import Step
    from .connection import Connection
    from .output import Output

    class Watcher(Protocol):
        """Who is told how far a download is.

        Attributes:
            pause: Seconds after which :meth:`tick` is to be called when nothing else happens.
        """

        @property
        def pause(self) -> float | None: ...

        def waiting(self, size: int) -> None:
            """The daemon has no room for *size* bytes yet."""

        def growing(self, size: int) -> None:
            """*size* bytes are here, of a file whose length nobody knows yet."""

        def started(self, total: int) -> None:
            """The part has *total* bytes."""

        def moved(self, received: Mapping[str, int]) -> None:
            """So many bytes have come, by where from, as :class:`.Arrival` counts them."""

        def coming(self, size: int) -> None:
            """So many more are here, of pieces that are not whole; told if the request asks."""

        def tick(self) -> None:
            """Time has passed."""

        def say(self, text: str) -> None:
            """There is something that the user should know."""


# Linux's MADV_POPULATE_READ, which Python does not name. Pages that write() would fault in one
# by one are mapped at once: twice as fast from a segment to a file on ext4.
_POPULATE_READ: Final = 22

# What the system says to a process that has as much as it may have.
_NO_MORE: Final = frozenset({EMFILE, ENFILE, ENOMEM})


class Saving:
    """One request to a daemon, and the output that comes of it.

    Args:
        connection: To the daemon; it has no request under way.
        output: Entered; committing it is left to the caller.
        watcher: Is told of everything.
        in_files: The daemon keeps tasks of this kind in files, which an output may share.

    Attributes:
        arrival: What has come.
    """

    def __init__(
        self, connection: Connection, output: Output, watcher: Watcher, *, in_files: bool = False
    ) -> None:
        self._connection = connection
        self._in_files = in_files
        self._output = output
        self._watcher = watcher
        self._deadline = 0.0
        #: Of the segment, closed in the end; -1: there is none.
        self._fd = -1
        self._segment: mmap.mmap | None = None
        self._had_segment = False
        #: The segment is the output's file, too, and is not written.
        self._shares = False
        self.arrival = Arrival("", connection.endpoint)

    def run(self, request: Mapping[str, Any], *, deadline: float) -> None:
        """Ask for *request*, and write all of it to the output.

        Args:
            request: A download, as docs/handoff.md has it.
            deadline: Monotonic time after which to give up.

        Raises:
            DragonflyError: What the daemon or the origin said, or what is wrong with the
                daemon or the output.
        """
        self.arrival = arrival = Arrival(name_of(request), self._connection.endpoint)
        self._deadline = deadline
        if self._output.can_begin_again:
            request = {**request, "again": True}
        self._connection.send(request, deadline=deadline)
        try:
            while not arrival.done:
                event = self._connection.receive(deadline=deadline, pause=self._watcher.pause)
                if event is None:
                    self._watcher.tick()
                else:
                    self._take(arrival.on(event))
            if self._shares and not self._output.share(self._fd, whole=True):
                raise Unavailable("the output's file system does not share files any more")
        finally:
            self._let_go()

    def settle(self) -> bool:
        """After :meth:`run`, however it ended: whether the connection is good for another request.

        What was handed off is given back.
        """
        if not self.arrival.over:
            return False
        return not self._had_segment or self._connection.release_now()

    def _take(self, step: Step) -> None:
        """Do what an event calls for."""
        arrival, watcher = self.arrival, self._watcher
        if step.name == "again":
            self._output.begin_again()
            self._let_go()
        if step.segment:
            self._take_segment()
        if not self._shares:
            for first, end in step.parts:
                self._write(first, end)
                watcher.tick()
        if step.inline:
            content = self._connection.receive_content(step.inline, deadline=self._deadline)
            self._output.write(step.offset - arrival.start, memoryview(content))
        self._tell(step)

    def _tell(self, step: Step) -> None:
        watcher = self._watcher
        if step.name == "waiting":
            watcher.waiting(step.bytes)
        elif step.name == "growing":
            watcher.growing(step.bytes)
        elif step.name == "progress":
            watcher.coming(step.bytes)
        elif step.name == "warning":
            watcher.say(f"warning: {step.message}")
        else:
            if step.name in ("started", "whole"):
                watcher.started(self.arrival.length)
            watcher.moved(self.arrival.received)

    def _take_segment(self) -> None:
        """Take what the daemon passes."""
        arrival = self.arrival
        self._fd = self._connection.take_descriptor()
        self._had_segment = True
        has = os.fstat(self._fd).st_size
        if has < arrival.content_length:
            raise RemoteProtocolError(
                f"the daemon's segment of {has} bytes cannot be that of {arrival.content_length}"
            )
        whole = arrival.start == 0 and arrival.length == arrival.content_length
        self._shares = self._in_files and whole and self._output.share(self._fd, whole=False)

    def _write(self, first: int, end: int) -> None:
        """Have the output get bytes of the segment, which are here."""
        at = first - self.arrival.start
        if self._output.copy(self._fd, first, at, end - first):
            return
        if self._segment is None:
            self._segment = self._mapped()
        self._output.write(at, _view(self._segment, first, end))

    def _mapped(self) -> mmap.mmap:
        try:
            return mmap.mmap(self._fd, self.arrival.content_length, prot=mmap.PROT_READ)
        except (OSError, OverflowError, ValueError) as error:
            raise not_mapped(error) from error

    def _let_go(self) -> None:
        self._segment, self._shares = None, False
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def name_of(request: Mapping[str, Any]) -> str:
    """What a request asks for, for messages: without what is nobody's business."""
    url = request.get("url")
    return public_url(str(url)) if url else f"task {request['task_id']}"


def not_mapped(error: Exception) -> DragonflyError:
    """What is to be raised when a segment could not be mapped: whose fault it is."""
    if isinstance(error, OSError) and error.errno in _NO_MORE:
        return Unavailable(f"this process cannot map it: {error.strerror}")
    return RemoteProtocolError(f"the daemon's segment cannot be mapped: {error}")


def _view(segment: mmap.mmap, first: int, end: int) -> memoryview:
    aligned = first - first % mmap.PAGESIZE
    with suppress(OSError):  # Linux before 5.14, or another system; then write() faults them in
        segment.madvise(_POPULATE_READ, aligned, end - aligned)
    return memoryview(segment)[first:end]
