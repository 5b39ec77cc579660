"""A download as a daemon's events tell of it (docs/handoff.md), checked; no I/O.

All that ask for content read its events here: ``dfget``, the clients that block and those that do
not. What comes out is a :class:`Step` an event: it says which bytes have become readable, and what
comes with the event that is to be taken from the connection.
"""

from __future__ import annotations

from pantala.errors import DragonflyError, RemoteProtocolError
from pantala.errors.answers import error_of

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

#: Where bytes come from, as events name the common.v2.TrafficType, and as clients do.
_SOURCES: Final = {"REMOTE_PEER": "peers", "BACK_TO_SOURCE": "origin", "LOCAL_PEER": "cache"}


class Step:
    """What one event of a download means to whoever takes the content.

    Attributes:
        name: Of the event.
        parts: Bytes of the content, as pairs of a beginning and an end, that can be read in the
            segment now and could not before; of what was asked for, each once.
        segment: The descriptor of the segment comes with the event.
        inline: Bytes that follow the event: of the content, next to those that came before.
        offset: Where in the content these begin.
        bytes: Of ``waiting``, ``growing`` and ``progress``.
        message: Of ``warning``.
    """

    __slots__ = ("bytes", "inline", "message", "name", "offset", "parts", "segment")

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[tuple[int, int]] = []
        self.segment = False
        self.inline = 0
        self.offset = 0
        self.bytes = 0
        self.message = ""

    @property
    def brought(self) -> list[tuple[int, int]]:
        """Bytes of the content that come with this: :attr:`parts`, and those that were sent."""
        sent = [(self.offset, self.offset + self.inline)] if self.inline else []
        return [*self.parts, *sent]


class Arrival:
    """One download, from its first event to its last.

    Args:
        name: What the content is called in messages.
        endpoint: The daemon's, likewise.

    Attributes:
        task_id: The daemon's name for the content; None until it has started.
        content_length: Bytes in the whole content.
        piece_length: Of every piece but the last.
        start: Where in the content the part begins that was asked for.
        length: Bytes in that part.
        header: What the origin said of the content.
        received: Bytes of the part that came, by where they came from: ``peers``, ``origin``, or
            ``cache``, which is what was here before.
        done: All of the part is here.
        overflowed: It goes on as a STANDARD task, since there was no room for a CACHE one.
        over: That, or it has failed, and the daemon has said so: nothing more is told of it.
    """

    def __init__(self, name: str, endpoint: str) -> None:
        self._name = name
        self.endpoint = endpoint
        self._events: dict[str, Callable[[dict[str, Any], Step], None]] = {
            "waiting": self._on_bytes,
            "growing": self._on_bytes,
            "progress": self._on_bytes,
            "warning": self._on_warning,
            "again": self._on_again,
            "started": self._on_started,
            "whole": self._on_whole,
            "pieces": self._on_pieces,
            "segment": self._on_segment,
            "content": self._on_content,
            "done": self._on_done,
            "error": self._on_error,
        }
        self.over = self.overflowed = False
        self._forget()

    def _forget(self) -> None:
        self.task_id: str | None = None
        self.content_length = 0
        self.piece_length = 0
        self.start = 0
        self.length = 0
        self.header: dict[str, str] = {}
        self.received = dict.fromkeys(("peers", "origin", "cache"), 0)
        self.done = False
        self._has_segment = False
        self._pieces: set[int] = set()
        #: Told of before the segment came in which they lie.
        self._early: list[tuple[int, int]] = []
        #: Bytes of the part that can be read: in the segment, or because they were sent.
        self._here = 0

    def on(self, event: dict[str, Any]) -> Step:
        """What *event* means.

        Raises:
            DragonflyError: What the daemon or the origin said.
            RemoteProtocolError: It makes no sense.
        """
        name = text_of(event, "event")
        handle = self._events.get(name)
        if handle is None:
            raise RemoteProtocolError(
                f"the daemon at {self.endpoint} sent an event {name!r}, "
                "which is not known here: are both of the same version?"
            )
        step = Step(name)
        handle(event, step)
        return step

    def _on_bytes(self, event: dict[str, Any], step: Step) -> None:
        step.bytes = number_of(event, "bytes")

    def _on_warning(self, event: dict[str, Any], step: Step) -> None:
        step.message = text_of(event, "message")
        self.overflowed = True  # docs/handoff.md: it is what there is to warn of

    def _on_again(self, _event: dict[str, Any], _step: Step) -> None:
        """What came belongs to no version that there is."""
        self._forget()

    def _on_started(self, event: dict[str, Any], step: Step) -> None:
        if self.task_id is not None:
            raise RemoteProtocolError("the daemon started the same download twice")
        self.content_length = number_of(event, "content_length")
        self.piece_length = number_of(event, "piece_length")
        self.start = number_of(event, "start")
        self.length = number_of(event, "length")
        if self.start + self.length > self.content_length:
            raise RemoteProtocolError(
                f"the daemon offers bytes {self.start} to {self.start + self.length} "
                f"of a file of {self.content_length}"
            )
        self.task_id = text_of(event, "task_id")
        header = event.get("response_header")
        self.header = header if isinstance(header, dict) else {}
        step.segment = self._has_segment = bool(event.get("segment"))

    def _on_whole(self, event: dict[str, Any], step: Step) -> None:
        """All of it is here, and nothing else will be said."""
        if self.task_id is not None:
            raise RemoteProtocolError("the daemon sent the content twice")
        self.task_id = text_of(event, "task_id")
        step.segment = self._has_segment = bool(event.get("segment"))
        size = number_of(event, "content_length" if step.segment else "inline")
        self.content_length = self.length = self.received["cache"] = self._here = size
        if not step.segment:
            step.inline = size
        elif size:
            step.parts.append((0, size))
        self.done = self.over = True

    def _on_pieces(self, event: dict[str, Any], step: Step) -> None:
        self._must_be_started("pieces")
        pieces = event.get("pieces")
        if not isinstance(pieces, list):
            raise RemoteProtocolError(f"the daemon sent no list of pieces, but {pieces!r:.100}")
        parts = step.parts if self._has_segment else self._early
        for piece in pieces:
            self._on_piece(piece, parts)

    def _on_piece(self, piece: object, parts: list[tuple[int, int]]) -> None:
        """Note what one piece holds of the part; one that was here before changes nothing."""
        number, offset, length, source = self._checked(piece)
        if number in self._pieces:
            return
        self._pieces.add(number)
        first = max(offset, self.start)
        end = min(offset + length, self.start + self.length)
        if first >= end:
            return
        parts.append((first, end))
        self.received[source] += end - first
        if self._has_segment:
            self._here += end - first

    def _checked(self, piece: object) -> tuple[int, int, int, str]:
        match piece:
            case [int(number), int(offset), int(length), str(source)] if (
                source in _SOURCES
                and number >= 0
                and offset == number * self.piece_length
                and 0 < length == min(self.piece_length, self.content_length - offset)
            ):
                return number, offset, length, _SOURCES[source]
        raise RemoteProtocolError(f"the daemon named a piece that cannot be: {piece!r:.100}")

    def _on_segment(self, _event: dict[str, Any], step: Step) -> None:
        """The memory comes that the part lies in, as far as it is here."""
        self._must_be_started("segment")
        if self._has_segment or self._here:
            raise RemoteProtocolError("the daemon sent the content in two ways")
        step.segment = self._has_segment = True
        step.parts, self._early = self._early, []
        self._here = sum(end - first for first, end in step.parts)

    def _on_content(self, event: dict[str, Any], step: Step) -> None:
        self._must_be_started("content")
        offset, size = number_of(event, "offset"), number_of(event, "inline")
        if (
            self._has_segment
            or offset != self.start + self._here
            or size > self.length - self._here
        ):
            raise RemoteProtocolError(
                f"the daemon sent bytes {offset} to {offset + size}, which were not next"
            )
        step.offset, step.inline = offset, size
        self._here += size

    def _on_done(self, _event: dict[str, Any], _step: Step) -> None:
        self._must_be_started("done")
        if self._here != self.length:
            raise RemoteProtocolError(
                f"the daemon says it is done after {self._here} of {self.length} bytes"
            )
        self.done = self.over = True

    def _on_error(self, event: dict[str, Any], _step: Step) -> None:
        self.over = True
        raise failure_of(event, self._name)

    def _must_be_started(self, name: str) -> None:
        if self.task_id is None or self.done:
            when = "after 'done'" if self.done else "before 'started'"
            raise RemoteProtocolError(f"the daemon sent {name!r} {when}")


def same(one: tuple[int, Mapping[str, str]], other: tuple[int, Mapping[str, str]]) -> bool:
    """Whether two answers may be of the same content.

    Args:
        one: The length of the content, and what the origin has said of it.
        other: Likewise. Versions are compared where both name one.
    """
    versions = {_version(one[1]), _version(other[1])} - {None}
    return one[0] == other[0] and len(versions) < 2


def _version(header: Mapping[str, str]) -> str | None:
    told = {name.lower(): value for name, value in header.items()}
    return told.get("etag") or told.get("last-modified")


def failure_of(event: Mapping[str, Any], name: str) -> DragonflyError:
    """The error that an event tells of; *name* is what could not be had.

    Raises:
        RemoteProtocolError: It tells of none.
    """
    return error_of(event, text_of(event, "code"), text_of(event, "message"), name)


def number_of(event: Mapping[str, Any], key: str) -> int:
    """What an event has under *key*. Raises RemoteProtocolError: no number of 0 or more."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RemoteProtocolError(f"the daemon sent {key}={value!r:.100}, want a number")
    return value


def text_of(event: Mapping[str, Any], key: str) -> str:
    """What an event has under *key*. Raises RemoteProtocolError: no text."""
    value = event.get(key)
    if not isinstance(value, str):
        raise RemoteProtocolError(f"the daemon sent {key}={value!r:.100}, want a text")
    return value
