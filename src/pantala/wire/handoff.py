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
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes as they came off the socket."""
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
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not 1 <= length <= MAX_JSON:
            raise RemoteProtocolError(f"a frame of {length} bytes, want 1 to {MAX_JSON}")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return text

    def take_content(self, length: int) -> bytes | None:
        """The *length* bytes that follow the last object, or None until more are fed.

        Raises:
            RemoteProtocolError: *length* is negative or beyond :data:`MAX_CONTENT`.
        """
        if not 0 <= length <= MAX_CONTENT:
            raise RemoteProtocolError(f"content of {length} bytes, want 0 to {MAX_CONTENT}")
        if len(self._buffer) < length:
            return None
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return content

    def take_into(self, buffer: memoryview) -> int:
        """Move what is here of the content that follows the last object; how many bytes it is."""
        size = min(len(self._buffer), len(buffer))
        buffer[:size] = memoryview(self._buffer)[:size]
        del self._buffer[:size]
        return size


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
