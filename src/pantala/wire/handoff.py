"""Frames of the hand-off socket, see docs/handoff.md. Both sides send them.

    offset  size  field
         0     4  J       bytes of JSON, big-endian, 1 to 1,048,576
         4     J  object  one JSON object, UTF-8
     4 + J     n  content, where the object promises it ("inline": n)

``dfget`` reads this before anything else, so it imports next to nothing.
"""

from __future__ import annotations

import json
import re
import struct

from pantala.errors import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
_BEGINNING: Final = re.compile(rb'\{"id": ?(0|[1-9][0-9]{0,14}), ?')

#: Bytes of JSON in a frame. Pieces of a large file, listed all at once, stay well below.
MAX_JSON: Final = 1024 * 1024

#: Bytes of content inside a frame. What is larger than a quarter of this comes as a descriptor.
MAX_CONTENT: Final = 1024 * 1024

#: The largest id of a request: what all that speak JSON agree on.
MAX_ID: Final = 2**53 - 1


def encode(obj: Mapping[str, Any]) -> bytes:
    """A frame with *obj*; content, if it promises any, is to follow.

    Raises:
        LocalProtocolError: *obj* holds what JSON or UTF-8 cannot, or too much of it.
    """
    try:
        text = json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise LocalProtocolError(f"cannot be sent as JSON: {exc}") from exc
    if len(data) > MAX_JSON:
        raise LocalProtocolError(f"a frame of {len(data)} bytes, the limit is {MAX_JSON}")
    return _LENGTH.pack(len(data)) + data


def frame(*texts: bytes) -> bytes:
    """A frame whose object is *texts*, one after the other."""
    text = b"".join(texts)
    return _LENGTH.pack(len(text)) + text


class HandoffDecoder:
    """Cuts a byte stream into objects, and the content that follows some of them."""

    def __init__(self) -> None:
        #: As a rule what has come last, as it came; put together only where a frame is cut.
        self._buffer: bytes | bytearray = b""
        #: So much of it is taken; never all.
        self._at = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes as they came off the socket."""
        if not self._buffer:
            self._buffer = bytes(data)
            return
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    @property
    def has_begun(self) -> bool:
        """Bytes are here of what is not whole."""
        return bool(self._buffer)

    def next_object(self) -> dict[str, Any] | None:
        """The next object, or None until more bytes are fed.

        Raises:
            RemoteProtocolError: As :meth:`next_text` does, or it is no JSON object in UTF-8.
        """
        text = self.next_text()
        return None if text is None else parse(text)

    def next_text(self) -> bytes | None:
        """The next object, to be given to :func:`parse`, or None until more bytes are fed.

        Raises:
            RemoteProtocolError: Its length is out of bounds, which is known before it is here.
        """
        start = self._at + _LENGTH.size
        if len(self._buffer) < start:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, self._at)
        if not 1 <= length <= MAX_JSON:
            raise RemoteProtocolError(f"a frame of {length} bytes, want 1 to {MAX_JSON}")
        if len(self._buffer) < start + length:
            return None
        return self._take(start, start + length)

    def take_content(self, length: int) -> bytes | None:
        """The *length* bytes that follow the last object, or None until more are fed.

        Raises:
            RemoteProtocolError: *length* is negative or beyond :data:`MAX_CONTENT`.
        """
        if not 0 <= length <= MAX_CONTENT:
            raise RemoteProtocolError(f"content of {length} bytes, want 0 to {MAX_CONTENT}")
        if len(self._buffer) - self._at < length:
            return None
        return self._take(self._at, self._at + length)

    def take_into(self, buffer: memoryview) -> int:
        """Move what is here of the content that follows the last object; how many bytes it is."""
        start, size = self._at, min(len(self._buffer) - self._at, len(buffer))
        with memoryview(self._buffer) as here, here[start : start + size] as part:
            buffer[:size] = part
        self._taken(start + size)
        return size

    def _take(self, start: int, end: int) -> bytes:
        """The bytes from *start* to before *end*; what is before them is passed over."""
        data = bytes(self._buffer[start:end])
        self._taken(end)
        return data

    def _taken(self, end: int) -> None:
        if end < len(self._buffer):
            self._at = end
        else:
            self._buffer, self._at = b"", 0


def split(text: bytes) -> tuple[int, bytes, bytes] | None:
    """The id with which an object begins; it as it was written, its comma included; and the rest.

    None: it begins otherwise. The rest may be anything.

    >>> split(b'{"id":7,"op":"info"}')
    (7, b'{"id":7,', b'"op":"info"}')
    """
    found = _BEGINNING.match(text)
    if found is None:
        return None
    end = found.end()
    return int(found[1]), text[:end], text[end:]


def parse(data: bytes) -> dict[str, Any]:
    """The object. Raises RemoteProtocolError: it is no JSON object in UTF-8."""
    if (whole := _whole(data)) is not None:
        return whole
    try:
        obj = json.loads(data.decode())
        if b"\\ud" in data.lower():
            # Escapes can smuggle in half a surrogate pair, which no later step could encode.
            json.dumps(obj, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"not JSON in UTF-8: {exc}") from exc
    if not isinstance(obj, dict):
        raise RemoteProtocolError(f"want a JSON object, not {type(obj).__name__}")
    return obj


def _whole(data: bytes) -> dict[str, Any] | None:
    """The object, if it is what a daemon writes before small content; in two thirds of JSON's time.

    A regular expression would do as well, but ``dfget`` would wait until it is made.
    """
    head, _, tail = data.partition(b',"event":"whole","task_id":"')
    task_id, _, size = tail.partition(b'","inline":')
    number, size, end = head[6:], size[:-1], size[-1:]
    if not (number.isdigit() and task_id.isalnum() and size.isdigit()):
        return None
    # JSON has no number that begins with a zero, but for zero itself.
    if head[:6] != b'{"id":' or end != b"}" or number[0] == 48 or size[0] == 48:
        return None
    return {"id": int(number), "event": "whole", "task_id": task_id.decode(), "inline": int(size)}
