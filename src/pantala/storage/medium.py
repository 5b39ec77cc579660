"""What bytes may lie in: interfaces that every medium implements."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from pantala.core.ledger import Needs, Place
from pantala.model.task import PieceRecord, TaskRecord
from pantala.ports import Extent, Sink

#: What the kernel sends from without a view of it having been made.
Lying: TypeAlias = bytearray | mmap.mmap


class Room(Protocol):
    """What takes room in a medium."""

    def hide(self) -> None:
        """Its task was deleted, and another of that name may come, while it is still used."""

    def retire(self) -> None:
        """Give up what is scarce at once; :meth:`close` frees the rest, which takes longer."""

    def close(self) -> None:
        """Free it, or as much of it as nobody has a view or descriptor of."""


class Content(Room, Protocol):
    """The bytes of one task. Views stay valid after :meth:`close`, for those who hold them."""

    length: int

    #: It lies where another task's bytes were.
    reused: bool

    @property
    def is_clean(self) -> bool:
        """Of those none are left, also where its own are not yet.

        Else whoever could read anywhere in it would see what is none of theirs, until all is here.
        """

    def sink(self, offset: int, length: int) -> Sink:
        """Where bytes are received to."""

    def extent(self, offset: int, length: int) -> Extent:
        """Where bytes are read from. What is there before a piece is published has no meaning."""

    def lying(self) -> Lying | None:
        """All of it where it lies in memory, to be sent before anything else is done; else None."""

    def punch(self, offset: int, length: int) -> bool:
        """Give the room of a range back, but for what is too little to count.

        It reads as zeros after, or holds what it held. Whether it need not be counted any more.
        """

    def hand_off(self, *, seal: bool = True) -> int | None:
        """A new read-only descriptor of all the content, or None if there is none to give.

        Args:
            seal: Its reader's rights would let it open the file once more, for writing: nobody is
                to be able to from here on. Memory that was sealed is of no use after.
        """

    def is_elsewhere(self) -> bool:
        """Whether anybody may still have a descriptor or a mapping of it by a hand-off.

        Where that takes no room that anybody could give back, it does not count.
        """

    def rest(self) -> None:
        """Nobody uses it just now: let go of what can be had again in a moment."""


class Growing(Room, Protocol):
    """Content whose length shows only at its end. One writer; what is whole may be read."""

    def extend(self) -> Sink:
        """Make it longer by the medium's ``step`` and return where the new part is received.

        Raises:
            Unavailable: The system has no room for it.
        """

    def extent(self, offset: int, length: int) -> Extent:
        """Where bytes are read from. Those that nobody has received yet have no meaning."""

    def finish(self, length: int, needs: Needs, *, here: int | None = None) -> Content:
        """Cut it to *length* bytes, above 0, and turn it into content that can be read.

        Closing it is harmless after.

        Args:
            length: Bytes.
            needs: What it may take besides, as :meth:`Medium.needs` says.
            here: Bytes that have come, fewer than *length*: what is behind takes no room. None:
                all of them.

        Raises:
            Unavailable: The system has no room for it.
        """


class Medium(Protocol):
    """Where content is kept, and what it takes there.

    Attributes:
        step: Bytes by which growing content is extended at a time.
        growing_needs: What growing content takes besides its bytes.
        place: Where it is, for messages.
        decays: What lies there may be something else when it is read again.
        off: Why nothing may lie there; None: it may.
    """

    step: int
    growing_needs: Needs
    place: Place
    decays: bool
    off: str | None

    def capacity(self) -> int:
        """Bytes of content that there is room for, those that are here included.

        Raises:
            StoreFailed: The system does not say.
        """

    def needs(self, length: int, *, abundant: bool) -> Needs:
        """What content of *length* bytes takes besides its bytes.

        Args:
            length: Bytes.
            abundant: Descriptors abound: what can do without may have one.
        """

    def create(self, record: TaskRecord, needs: Needs) -> Content:
        """Room for the content of a task, of known length above 0.

        Raises:
            Unavailable: The system has no room for it, or no descriptor.
        """

    def reuse(self, length: int, evicted: list[Content], *, early: bool) -> Content | None:
        """Turn one of *evicted*, and take it from the list, into content of *length* bytes.

        What was in it is in it still; if somebody wants to read *early*, it will be clean soon.
        None where none of them will do.
        """

    def grow(self, record: TaskRecord) -> Growing:
        """Content of unknown length, of which nothing is here. Raises as :meth:`create`."""

    def restore(self, record: TaskRecord, pieces: Iterable[PieceRecord]) -> Content | None:
        """The content of a task that an earlier process has left, with these pieces.

        None: it is not here, or not as it was left. Blocks.
        """

    def clean(self) -> None:
        """Free whatever an earlier process has left and nobody has restored. Blocks."""

    def discard(self, rooms: Iterable[Room]) -> None:
        """Free what nobody uses any more, without keeping the caller waiting."""
