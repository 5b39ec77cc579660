"""Vortex frames: how a daemon asks another for a piece, and gets it. All integers big-endian.

    offset  size  field
         0     1  id      any value; nobody checks it
         1     1  tag     what the value holds, see Tag
         2     4  length  bytes of value
         6     n  value

A request's value, 68 bytes:

         0    64  task id, as hexadecimal text
        64     4  piece number

The value of a content frame, 49 + d + p bytes:

         0     4  M = 45 + d + p, bytes of metadata after this field
         4     4  piece number
         8     8  offset in the task's content
        16     8  length, bytes
        24   4+d  digest: its length, then text such as crc32:1475635037
      28+d   4+p  parent id: its length, then the peer that the sender had the piece from
    32+d+p     1  traffic type, see model.task.Traffic
    33+d+p     8  cost, whole seconds
    41+d+p     8  created at, unix seconds, signed

An error's value is a VortexCode in one byte, then text. A close has none.

The bytes of the piece are *outside* its frame: they follow the metadata as they are. So the
decoder stops after each frame and gives up what it holds beyond (:meth:`FrameDecoder.release`),
and the shell moves the content between socket and memory without passing it through here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from pantala.errors import LocalProtocolError, RemoteProtocolError, VortexCode

HEADER: Final = struct.Struct("!BBI")
_REQUEST: Final = struct.Struct("!64sI")
_SIZE: Final = struct.Struct("!I")
_PLACE: Final = struct.Struct("!IQQ")
_TAIL: Final = struct.Struct("!BQq")

_MIN_METADATA: Final = _PLACE.size + 2 * _SIZE.size + _TAIL.size

# A digest is 16 bytes and a parent's id some 100, so this leaves room; a peer that announces
# more is broken or hostile, and must not make us buffer it.
MAX_METADATA: Final = 4096

# An error is a sentence for people.
MAX_ERROR_TEXT: Final = 4096

_TASK_ID: Final = re.compile(rb"[0-9a-f]{64}")


class Tag(IntEnum):
    """What a frame's value holds. Each request is even, and its answer is the next number."""

    DOWNLOAD_PIECE = 0
    PIECE_CONTENT = 1
    DOWNLOAD_PERSISTENT_PIECE = 2
    PERSISTENT_PIECE_CONTENT = 3
    DOWNLOAD_PERSISTENT_CACHE_PIECE = 4
    PERSISTENT_CACHE_PIECE_CONTENT = 5
    DOWNLOAD_CACHE_PIECE = 6
    CACHE_PIECE_CONTENT = 7
    CLOSE = 254
    ERROR = 255


_TAGS: Final = {tag.value: tag for tag in Tag}


#: Tags of requests for a piece.
REQUESTS: Final = frozenset(tag for tag in Tag if tag < Tag.CLOSE and tag % 2 == 0)
#: Tags of answers that bring one.
CONTENT_TAGS: Final = frozenset(tag for tag in Tag if tag < Tag.CLOSE and tag % 2 == 1)
#: What a server may receive.
TO_SERVER: Final = REQUESTS | {Tag.CLOSE}


def content_tag(request: Tag) -> Tag:
    """The tag of the answer that brings what *request* asks for."""
    return Tag(request + 1)


def to_client(request: Tag) -> frozenset[Tag]:
    """What a client may receive after *request*."""
    return frozenset({content_tag(request), Tag.ERROR, Tag.CLOSE})


@dataclass(frozen=True, slots=True)
class PieceRequest:
    """Ask a parent for one piece.

    Attributes:
        tag: Says of which kind the task is; one of :data:`REQUESTS`.
        task_id: 64 lower-case hexadecimal digits.
        number: Counted from 0.
    """

    tag: Tag
    task_id: str
    number: int

    def encode(self, packet_id: int = 0) -> bytes:
        """The frame as it goes on the wire.

        Raises:
            LocalProtocolError: A field does not fit the protocol.
        """
        task_id = self.task_id.encode("ascii", "replace")
        if self.tag not in REQUESTS or not _TASK_ID.fullmatch(task_id):
            raise LocalProtocolError(f"not a request for a piece: {self}")
        return _frame(packet_id, self.tag, _pack(_REQUEST, task_id, self.number))

    @classmethod
    def decode(cls, tag: Tag, value: bytes) -> PieceRequest:
        """Parse a request's value.

        Raises:
            RemoteProtocolError: Not 68 bytes, or they do not open with a task id.
        """
        if len(value) != _REQUEST.size:
            raise RemoteProtocolError(f"{tag.name} of {len(value)} bytes, want {_REQUEST.size}")
        task_id, number = _REQUEST.unpack(value)
        if not _TASK_ID.fullmatch(task_id):
            raise RemoteProtocolError(f"{tag.name}: {task_id!r} is no task id")
        return cls(tag, task_id.decode("ascii"), number)


@dataclass(frozen=True, slots=True)
class PieceContent:
    """What is said of a piece before its bytes, *length* of them, follow unframed.

    Attributes:
        tag: Says of which kind the task is; one of :data:`CONTENT_TAGS`.
        number: Counted from 0.
        offset: Where in the task's content the piece starts, bytes.
        length: Bytes in the piece.
        digest: ``crc32:<decimal>`` of exactly these bytes. Stock daemons may send ``""`` for
            a piece whose digest was never computed.
        parent_id: Peer that the sender had the piece from; None for the origin.
        traffic: Number of a ``model.task.Traffic``. Not checked: nobody acts on it.
        cost: Whole seconds that the sender needed to get the piece.
        created_at: When the sender got it, unix seconds.
    """

    tag: Tag
    number: int
    offset: int
    length: int
    digest: str
    parent_id: str | None
    traffic: int
    cost: int
    created_at: int

    def encode(self, packet_id: int = 0) -> bytes:
        """The frame as it goes on the wire; the piece's bytes are to follow.

        Raises:
            LocalProtocolError: A field does not fit the protocol.
        """
        if self.tag not in CONTENT_TAGS:
            raise LocalProtocolError(f"not the content of a piece: {self}")
        digest, parent = self.digest.encode(), (self.parent_id or "").encode()
        metadata = b"".join(
            (
                _pack(_PLACE, self.number, self.offset, self.length),
                _pack(_SIZE, len(digest)) + digest,
                _pack(_SIZE, len(parent)) + parent,
                _pack(_TAIL, self.traffic, self.cost, self.created_at),
            )
        )
        if len(metadata) > MAX_METADATA:
            raise LocalProtocolError(f"{self.tag.name} metadata of {len(metadata)} bytes")
        return _frame(packet_id, self.tag, _pack(_SIZE, len(metadata)) + metadata)

    @classmethod
    def decode(cls, tag: Tag, metadata: bytes) -> PieceContent:
        """Parse the metadata of a content frame: its value without the leading length M.

        Raises:
            RemoteProtocolError: The lengths inside do not add up, or a text is not UTF-8.
        """
        try:
            number, offset, length = _PLACE.unpack_from(metadata)
            digest, at = _text(metadata, _PLACE.size)
            parent, at = _text(metadata, at)
            traffic, cost, created_at = _TAIL.unpack(metadata[at:])
        except (struct.error, UnicodeDecodeError) as exc:
            raise RemoteProtocolError(f"bad {tag.name} metadata: {exc}") from exc
        return cls(tag, number, offset, length, digest, parent or None, traffic, cost, created_at)


@dataclass(frozen=True, slots=True)
class ErrorFrame:
    """The answer when there is no piece to send."""

    code: VortexCode
    text: str

    def encode(self, packet_id: int = 0) -> bytes:
        """The frame as it goes on the wire. Text beyond the limit is cut off."""
        text = self.text.encode("utf-8", "replace")[:MAX_ERROR_TEXT]
        whole = text.decode("utf-8", "ignore").encode()  # the cut may have split a character
        return _frame(packet_id, Tag.ERROR, bytes((self.code,)) + whole)

    @classmethod
    def decode(cls, value: bytes) -> ErrorFrame:
        """Parse an error's value. A code yet unknown is UNKNOWN; bad UTF-8 is replaced.

        Raises:
            RemoteProtocolError: There is no code.
        """
        if not value:
            raise RemoteProtocolError("ERROR without a code")
        try:
            code = VortexCode(value[0])
        except ValueError:
            code = VortexCode.UNKNOWN
        return cls(code, value[1:].decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Close:
    """The sender is about to close the connection."""

    def encode(self, packet_id: int = 0) -> bytes:
        """The frame as it goes on the wire."""
        return _frame(packet_id, Tag.CLOSE, b"")


Frame: TypeAlias = PieceRequest | PieceContent | ErrorFrame | Close


class FrameDecoder:
    """Cuts what a peer sends into frames, one at a time.

    Two ways to drive it. Read whatever has come, :meth:`receive` it, and take what
    :meth:`release` gives up as the start of the content. Or read exactly :attr:`missing` bytes
    each time: then nothing is ever read too far, and the content stays in the socket.

    Args:
        allowed: Tags that the peer may send: :data:`TO_SERVER` or :func:`to_client`.
    """

    def __init__(self, allowed: AbstractSet[Tag]) -> None:
        self._allowed = allowed
        self._buffer = bytearray()

    def receive(self, data: bytes | memoryview) -> None:
        """Take bytes as they came off the wire."""
        self._buffer += data

    @property
    def missing(self) -> int:
        """Bytes that are certainly missing from the next frame; 0 when it is here.

        Raises:
            RemoteProtocolError: As :meth:`next_frame`.
        """
        return max(self._measure()[1] - len(self._buffer), 0)

    def next_frame(self) -> Frame | None:
        """The next frame, or None until more bytes are received.

        Raises:
            RemoteProtocolError: A tag that is unknown or not allowed, a value too long or too
                short, or nonsense inside it. Lengths are judged before their bytes are here.
        """
        tag, end = self._measure()
        if tag is None or len(self._buffer) < end:
            return None
        value = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return _decode(tag, value)

    def release(self) -> bytes:
        """Give up the bytes held beyond the last frame: the start of the content."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _measure(self) -> tuple[Tag | None, int]:
        """The next frame's tag, and where it ends. Without a tag, the end is not yet known."""
        if len(self._buffer) < HEADER.size:
            return None, HEADER.size
        _, number, length = HEADER.unpack_from(self._buffer)
        tag = _TAGS.get(number)
        if tag is None or tag not in self._allowed:
            raise RemoteProtocolError(f"a frame with tag {number}, which has no place here")
        _check_length(tag, length)
        if tag not in CONTENT_TAGS:
            return tag, HEADER.size + length
        if len(self._buffer) < HEADER.size + _SIZE.size:
            return None, HEADER.size + _SIZE.size
        (metadata,) = _SIZE.unpack_from(self._buffer, HEADER.size)
        # What counts is this field: stock daemons read it and ignore the header's length.
        if not _MIN_METADATA <= metadata <= min(length - _SIZE.size, MAX_METADATA):
            raise RemoteProtocolError(
                f"{tag.name} announces {metadata} bytes of metadata in a value of {length}"
            )
        return tag, HEADER.size + _SIZE.size + metadata


def _check_length(tag: Tag, length: int) -> None:
    """Refuse a value that cannot be right, from the header alone."""
    if tag in REQUESTS:
        fits = length == _REQUEST.size
    elif tag is Tag.ERROR:
        fits = 1 <= length <= 1 + MAX_ERROR_TEXT
    elif tag is Tag.CLOSE:
        fits = length == 0
    else:
        fits = length >= _SIZE.size + _MIN_METADATA
    if not fits:
        raise RemoteProtocolError(f"{tag.name} announces {length} bytes of value")


def _decode(tag: Tag, value: bytes) -> Frame:
    if tag in REQUESTS:
        return PieceRequest.decode(tag, value)
    if tag in CONTENT_TAGS:
        return PieceContent.decode(tag, value[_SIZE.size :])
    return ErrorFrame.decode(value) if tag is Tag.ERROR else Close()


def _text(metadata: bytes, at: int) -> tuple[str, int]:
    """The text at *at*, and the offset behind it."""
    (size,) = _SIZE.unpack_from(metadata, at)
    start = at + _SIZE.size
    return metadata[start : start + size].decode("utf-8"), start + size


def _frame(packet_id: int, tag: Tag, value: bytes) -> bytes:
    return _pack(HEADER, packet_id, tag, len(value)) + value


def _pack(layout: struct.Struct, *fields: bytes | int) -> bytes:
    try:
        return layout.pack(*fields)
    except struct.error as exc:
        raise LocalProtocolError(f"cannot pack {fields}: {exc}") from exc
