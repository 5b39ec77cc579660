"""A daemon's events become an output."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

from pantala.errors import RemoteProtocolError, SourceFailed, Unavailable
from pantala.errors.answers import error_named
from pantala.model.urls import public_url

from ._handoff import Connection
from ._output import Output
from ._progress import SOURCES, Progress

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

# Events name the common.v2.TrafficType.
_SOURCES: Final = {"REMOTE_PEER": "peers", "BACK_TO_SOURCE": "origin", "LOCAL_PEER": "cache"}

# Linux's MADV_POPULATE_READ, which Python does not name. Pages that write() would fault in one
# by one are mapped at once: twice as fast from a segment to a file on ext4.
_POPULATE_READ: Final = 22


class Download:
    """One request to a daemon, and what has come of it.

    Args:
        connection: To the daemon; nothing has been sent over it yet.
        output: Entered; committing it is left to the caller.
        progress: Is told of everything.
        in_files: The daemon keeps tasks of this kind in files, which an output may share.

    Attributes:
        task_id: The daemon's name for the content.
        content_length: Bytes in the whole content.
        start: Where in the content the part begins.
        length: Bytes in the part that was asked for.
        received: Bytes of the part that came, by the keys of ``_progress.SOURCES``.
    """

    def __init__(
        self, connection: Connection, output: Output, progress: Progress, *, in_files: bool = False
    ) -> None:
        self._connection = connection
        self._in_files = in_files
        self._output = output
        self._progress = progress
        self._events: dict[str, Callable[[dict[str, Any]], None]] = {
            "waiting": self._on_waiting,
            "growing": self._on_growing,
            "warning": self._on_warning,
            "again": self._on_again,
            "started": self._on_started,
            "pieces": self._on_pieces,
            "segment": self._on_segment,
            "content": self._on_content,
            "done": self._on_done,
            "error": self._on_error,
        }
        self._name = ""
        self._deadline = 0.0
        self._done = False
        self._segment: mmap.mmap | None = None
        #: The descriptor of the file that is the output's content, too, and is not written.
        self._shared: int | None = None
        self._piece_length = 0
        self._pieces: set[int] = set()
        self._written = 0
        self.task_id: str | None = None
        self.content_length = 0
        self.start = 0
        self.length = 0
        self.received = dict.fromkeys(SOURCES, 0)

    def run(self, request: Mapping[str, Any], *, deadline: float) -> None:
        """Ask for *request*, and write all of it to the output.

        Args:
            request: A download, as docs/handoff.md has it.
            deadline: Monotonic time after which to give up.

        Raises:
            DragonflyError: What the daemon or the origin said, or what is wrong with the
                daemon or the output.
        """
        url = request.get("url")
        self._name = public_url(str(url)) if url else f"task {request['task_id']}"
        self._deadline = deadline
        if self._output.can_begin_again:
            request = {**request, "again": True}
        self._connection.send(request, deadline=deadline)
        try:
            while not self._done:
                event = self._connection.receive(deadline=deadline, pause=self._progress.pause)
                if event is None:
                    self._progress.tick()
                else:
                    self._on_event(event)
        finally:
            self._let_go()

    def _on_event(self, event: dict[str, Any]) -> None:
        name = _text(event, "event")
        handle = self._events.get(name)
        if handle is None:
            raise RemoteProtocolError(
                f"the daemon at {self._connection.endpoint} sent an event {name!r}, "
                "which this dfget does not know: are they of the same version?"
            )
        handle(event)

    def _on_waiting(self, event: dict[str, Any]) -> None:
        self._progress.waiting(_number(event, "bytes"))

    def _on_growing(self, event: dict[str, Any]) -> None:
        self._progress.growing(_number(event, "bytes"))

    def _on_warning(self, event: dict[str, Any]) -> None:
        self._progress.say(f"warning: {_text(event, 'message')}")

    def _on_again(self, _event: dict[str, Any]) -> None:
        """What came belongs to no version that there is."""
        self._output.begin_again()
        self._segment, self._written, self.task_id = None, 0, None
        self._let_go()
        self._pieces.clear()
        self.received = dict.fromkeys(SOURCES, 0)

    def _on_started(self, event: dict[str, Any]) -> None:
        if self.task_id is not None:
            raise RemoteProtocolError("the daemon started the same download twice")
        self.content_length = _number(event, "content_length")
        self._piece_length = _number(event, "piece_length")
        self.start = _number(event, "start")
        self.length = _number(event, "length")
        if self.start + self.length > self.content_length:
            raise RemoteProtocolError(
                f"the daemon offers bytes {self.start} to {self.start + self.length} "
                f"of a file of {self.content_length}"
            )
        self.task_id = _text(event, "task_id")
        if event.get("segment"):
            self._take_segment()
        self._progress.started(self.length)

    def _on_pieces(self, event: dict[str, Any]) -> None:
        self._must_be_started("pieces")
        pieces = event.get("pieces")
        if not isinstance(pieces, list):
            raise RemoteProtocolError(f"the daemon sent no list of pieces, but {pieces!r}")
        for piece in pieces:
            self._on_piece(piece)
        self._progress.moved(self.received)

    def _on_piece(self, piece: object) -> None:
        """Write what one piece holds of the part; one that was here before changes nothing."""
        number, offset, length, source = self._checked(piece)
        if number in self._pieces:
            return
        self._pieces.add(number)
        first = max(offset, self.start)
        end = min(offset + length, self.start + self.length)
        if first >= end:
            return
        if self._shared is not None:
            self._written += end - first
        elif self._segment is not None:
            self._write(self._segment, first, end)
        self.received[source] += end - first

    def _checked(self, piece: object) -> tuple[int, int, int, str]:
        match piece:
            case [int(number), int(offset), int(length), str(source)] if (
                source in _SOURCES
                and number >= 0
                and offset == number * self._piece_length
                and 0 < length == min(self._piece_length, self.content_length - offset)
            ):
                return number, offset, length, _SOURCES[source]
        raise RemoteProtocolError(f"the daemon named a piece that cannot be: {piece!r}")

    def _on_segment(self, _event: dict[str, Any]) -> None:
        """The memory comes that the part lies in, as far as it is here."""
        self._must_be_started("segment")
        if self._segment is not None or self._shared is not None or self._written:
            raise RemoteProtocolError("the daemon sent the content in two ways")
        segment = self._take_segment()
        if segment is None:
            self._written = sum(self.received.values())
            return
        for number in sorted(self._pieces):
            offset = number * self._piece_length
            self._write(segment, offset, offset + self._piece_length)
            self._progress.tick()

    def _write(self, segment: mmap.mmap, offset: int, end: int) -> None:
        """Write what a piece from *offset* to *end* holds of the part."""
        first, end = max(offset, self.start), min(end, self.start + self.length)
        if first < end:
            self._output.write(first - self.start, _view(segment, first, end))
            self._written += end - first

    def _take_segment(self) -> mmap.mmap | None:
        """Map what the daemon passes; None where the output has it without being written."""
        descriptor = self._connection.take_descriptor()
        self._shared = descriptor  # closed with this, whatever happens
        whole = self.start == 0 and self.length == self.content_length
        if self._in_files and whole and self._output.share(descriptor, whole=False):
            return None
        self._segment = _map(descriptor, self.content_length)
        self._let_go()
        return self._segment

    def _let_go(self) -> None:
        descriptor, self._shared = self._shared, None
        if descriptor is not None:
            os.close(descriptor)

    def _on_content(self, event: dict[str, Any]) -> None:
        self._must_be_started("content")
        offset, size = _number(event, "offset"), _number(event, "inline")
        left = self.length - self._written
        if self._segment is not None or offset != self.start + self._written or size > left:
            raise RemoteProtocolError(
                f"the daemon sent bytes {offset} to {offset + size}, which were not next"
            )
        content = self._connection.receive_content(size, deadline=self._deadline)
        self._output.write(self._written, memoryview(content))
        self._written += size

    def _on_done(self, _event: dict[str, Any]) -> None:
        self._must_be_started("done")
        if self._written != self.length:
            raise RemoteProtocolError(
                f"the daemon says it is done after {self._written} of {self.length} bytes"
            )
        if self._shared is not None and not self._output.share(self._shared, whole=True):
            raise Unavailable("the output's file system does not share files any more")
        self._done = True

    def _on_error(self, event: dict[str, Any]) -> None:
        message = _text(event, "message")
        if (status := event.get("status_code")) is not None:
            answer = message if message.startswith(str(status)) else f"{status} ({message})"
            raise SourceFailed(
                f"origin answered {answer} for {self._name}",
                status_code=_number(event, "status_code"),
            )
        error = error_named(_text(event, "code"))
        raise error(f"cannot get {self._name}: {message}")

    def _must_be_started(self, name: str) -> None:
        if self.task_id is None:
            raise RemoteProtocolError(f"the daemon sent {name!r} before 'started'")


def _map(descriptor: int, length: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, length, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise RemoteProtocolError(f"the daemon's segment cannot be mapped: {error}") from error


def _view(segment: mmap.mmap, first: int, end: int) -> memoryview:
    aligned = first - first % mmap.PAGESIZE
    with suppress(OSError):  # Linux before 5.14, or another system; then write() faults them in
        segment.madvise(_POPULATE_READ, aligned, end - aligned)
    return memoryview(segment)[first:end]


def _number(event: Mapping[str, Any], key: str) -> int:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RemoteProtocolError(f"the daemon sent {key}={value!r}, want a number")
    return value


def _text(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    if not isinstance(value, str):
        raise RemoteProtocolError(f"the daemon sent {key}={value!r}, want a text")
    return value
