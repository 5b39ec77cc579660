"""One reading of an origin whose answers cannot be told apart: all bytes are of one answer."""

from __future__ import annotations

import uuid
from typing import Final

from pantala.errors import DragonflyError, OriginError, SourceChanged
from pantala.model.digest import crc32
from pantala.model.task import READING
from pantala.ports import SourceBody

#: Bytes read and then hashed while they are still in the processor's cache.
CHUNK: Final = 1 << 20

#: Why what an origin sends is not joined with what is here.
NO_VERSION: Final = (
    "the origin names no version of this content (neither ETag nor date), and what is here is of "
    "an earlier reading"
)


class OutOfTurn(DragonflyError):
    """Bytes are to be asked for again, in their turn. Nobody is at fault; callers never see it."""


class Reading:
    """What was read of one answer of an origin, to compare another with that must take over."""

    def __init__(self) -> None:
        #: The version of what is read so: nobody else's.
        self.version = READING + uuid.uuid4().hex
        self._begin = 0
        #: Where what was read ends; None before the first answer.
        self._end: int | None = None
        #: Sizes, :data:`CHUNK` at most, and CRC-32s of what was read, in order, without a gap.
        self._parts: list[tuple[int, int]] = []

    def note(self, data: memoryview) -> None:
        """These bytes came next in the one answer that is being read."""
        if self._end is not None:
            self._parts.append((len(data), crc32(data)))
            self._end += len(data)

    def begin_for(self, offset: int) -> int:
        """Where an answer must begin that is to go on at *offset*.

        Raises:
            SourceChanged: The one answer began later.
        """
        if self._end is None:
            return offset
        if offset < self._begin:
            raise SourceChanged(NO_VERSION)
        while self._parts and self._end > offset:  # what was read there was not kept
            self._end -= self._parts.pop()[0]
        return self._begin

    def compare(self, body: SourceBody) -> int:
        """Read what was read before; where *body* is then.

        Raises:
            SourceChanged: It is another version.
            OriginError: The answer ended, or broke off.
        """
        if self._end is None:
            return body.start
        skip(body, self._begin - body.start)
        for size, crc in self._parts:
            got, left = 0, size
            while left:
                data = _some(body, left)
                got, left = crc32(data, got), left - len(data)
            if got != crc:
                raise SourceChanged("the origin's content changed while it was read")
        return self._end

    def go_on(self, body: SourceBody, at: int, offset: int) -> None:
        """Read *body*, which is at *at*, up to *offset*, and note what comes.

        Raises:
            SourceChanged: It is past that.
            OriginError: The answer ended, or broke off.
        """
        if self._end is None:
            self._begin = self._end = at
        if at > offset:
            raise SourceChanged(NO_VERSION)
        while at < offset:
            data = _some(body, offset - at)
            self.note(data)
            at += len(data)


def skip(body: SourceBody, count: int) -> None:
    """Read *count* bytes and forget them.

    Raises:
        OriginError: The answer ended, or broke off.
    """
    while count > 0:
        count -= len(_some(body, count))


def _some(body: SourceBody, most: int) -> memoryview:
    """The next bytes of *body*, at least one."""
    scratch = memoryview(bytearray(min(most, CHUNK)))
    n = body.readinto(scratch)
    if not n:
        raise OriginError("the origin's answer ended too soon", transient=True)
    return scratch[:n]
