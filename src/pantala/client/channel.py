"""The client's side of a hand-off connection (docs/handoff.md): bytes in, events out; no I/O."""

from __future__ import annotations

import os

from pantala.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from pantala.paths import handoff_path_for
from pantala.wire.handoff import HandoffDecoder, encode

from .arrival import failure_of

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class Channel:
    """What is asked over one connection, and what the daemon answers.

    One request is under way at a time. If the channel is *numbered*, the connection is kept for the
    next one; else closing it is what ends the only one that there is.

    Args:
        endpoint: The daemon's gRPC socket, for messages.
        numbered: It is to carry more than one request.

    Attributes:
        answered: Whether anything has come of what was asked last.
    """

    def __init__(self, endpoint: str, *, numbered: bool = False) -> None:
        self.endpoint = endpoint
        self.answered = False
        self._numbered = numbered
        self._number = 0
        self._decoder = HandoffDecoder()
        self._descriptors: list[int] = []

    def request(self, request: Mapping[str, Any]) -> bytes:
        """The frame of the next request. Raises LocalProtocolError: it does not fit into one."""
        if not self._numbered:
            return encode(request)
        self._number += 1
        self.answered = False
        return encode({"id": self._number, **request})

    def release(self) -> bytes:
        """The frame that ends the request; what comes of it from now on is passed over."""
        if not self._numbered:
            raise LocalProtocolError("a connection with one request is closed, not released")
        number, self._number = self._number, self._number + 1
        return encode({"id": number, "op": "release"})

    def feed(self, data: bytes, descriptors: Iterable[int], *, cut: bool) -> None:
        """Take what came off the socket.

        Args:
            data: Bytes; none when the daemon has closed its end.
            descriptors: That came along; whoever takes them closes them.
            cut: The system had to leave some out.

        Raises:
            RemoteProtocolError: More descriptors than events speak of.
            Unavailable: The daemon has closed, or this process may open no more files.
        """
        self._descriptors += descriptors
        if cut and not self._descriptors:
            self.answered = True
            raise Unavailable(
                f"this process may open no more files, and the daemon at {self.endpoint} passed one"
            )
        if cut or len(self._descriptors) > 1:
            raise RemoteProtocolError(
                f"the daemon at {self.endpoint} passed descriptors that nobody asked for"
            )
        if not data:
            raise Unavailable(
                f"the daemon at {self.endpoint} closed the connection too early: "
                "if it is still running, its log says why"
            )
        self._decoder.feed(data)

    def next_event(self) -> dict[str, Any] | None:
        """The next event of the request, or None until more is fed.

        Raises:
            RemoteProtocolError: What came is no event of it.
            DragonflyError: What the daemon says of the whole connection, before it closes it.
        """
        while True:
            try:
                event = self._decoder.next_object()
            except RemoteProtocolError as error:
                raise RemoteProtocolError(
                    f"no pantala daemon talks at {handoff_path_for(self.endpoint)} ({error}): "
                    "name the socket of one with --endpoint"
                ) from error
            if event is None:
                return None
            if not self._numbered or event.get("id") == self._number:
                self.answered = True
                return event
            self._check_earlier(event)

    def _check_earlier(self, event: Mapping[str, Any]) -> None:
        """See that an event is the last word on an earlier request, which nobody waits for."""
        number = event.get("id")
        if number is None and event.get("event") == "error":
            self.answered = True
            raise failure_of(event, f"anything from the daemon at {self.endpoint}")
        if event.get("event") != "released" or not isinstance(number, int):
            raise RemoteProtocolError(
                f"the daemon at {self.endpoint} answers what was not asked: {event!r:.100}"
            )

    def take_content(self, length: int) -> bytes | None:
        """The *length* bytes that follow the last event, or None until more are fed.

        Raises:
            RemoteProtocolError: They are more than a frame may have.
        """
        return self._decoder.take_content(length)

    def take_into(self, buffer: memoryview) -> int:
        """Move the first of those into *buffer*, as far as they are here; how many they are."""
        return self._decoder.take_into(buffer)

    def take_descriptor(self) -> int:
        """The descriptor that came with an event; the caller closes it.

        Raises:
            RemoteProtocolError: There is none.
        """
        if not self._descriptors:
            raise RemoteProtocolError(f"the daemon at {self.endpoint} passed no descriptor")
        return self._descriptors.pop(0)

    def close_descriptors(self) -> None:
        """Close those that nobody has taken."""
        while self._descriptors:
            os.close(self._descriptors.pop())
