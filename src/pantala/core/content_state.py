"""What is known of one task's content on this node, and of each of its pieces.

    wanted ──reserve──► reserved ──claim──► claimed ──publish──► here
                         │    ▲                │                  │
              unreserve  │    └────abandon─────┘◄───── drop ──────┘
                         ▼                     (to reserved)
                      wanted

No bytes, no clock, no waiting: a holding in :mod:`pantala.storage` has those, and a simulation may
do without. Times are unix seconds, and arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from pantala.errors import InvalidRequest, PieceNotFound
from pantala.model.digest import pieces_digest
from pantala.model.pieces import ByteRange, Piece, piece_at, pieces_for
from pantala.model.task import PieceRecord, TaskRecord

#: No pieces. One of it for all tasks, of most of which all is here: an empty set takes 216 bytes.
NOTHING: Final[frozenset[int]] = frozenset()
_NONE: Final[set[int]] = set()


class ContentState:
    """See the module.

    Args:
        record: What is known of the task.
        pieces: Verified pieces that are here already, from before the process started.
    """

    def __init__(self, record: TaskRecord, pieces: Iterable[PieceRecord] = ()) -> None:
        self._record = record
        self._pieces = {piece.number: piece for piece in pieces}
        #: The verified pieces by number, as they are now.
        self.pieces: Mapping[int, PieceRecord] = MappingProxyType(self._pieces)
        #: Those that have room, and are neither here nor being fetched; and those being fetched.
        self._vacant = self._claimed = _NONE
        #: Pieces that a flight on this node means to bring.
        self.coming = NOTHING
        #: That flight reads the origin.
        self.at_source = False
        #: What changes with each piece that is sent; put into the record when somebody looks.
        self._used_at = record.updated_at
        self._uploading, self._uploaded = record.uploading_count, record.uploaded_count
        self._version_is_settled = bool(record.version)
        self._digests = ""
        if self.complete != (record.finished_at is not None):
            finished = record.updated_at if self.complete else None
            self._record = replace(record, finished_at=finished)

    def __repr__(self) -> str:
        return (
            f"<ContentState {self._record.id[:8]}: {len(self._pieces)} of "
            f"{self._record.piece_count} pieces here, {len(self._claimed)} claimed>"
        )

    # -- the task ------------------------------------------------------------------------------

    @property
    def record(self) -> TaskRecord:
        """The record as it is now."""
        old, counts = self._record, (self._used_at, self._uploading, self._uploaded)
        if counts != (old.updated_at, old.uploading_count, old.uploaded_count):
            used_at, uploading, uploaded = counts
            self._record = replace(
                old, updated_at=used_at, uploading_count=uploading, uploaded_count=uploaded
            )
        return self._record

    @property
    def total(self) -> int:
        """Bytes in the whole content. Raises PieceNotFound while that is not known."""
        if self._record.content_length is None:
            raise PieceNotFound(self._record.id, 0)
        return self._record.content_length

    def piece(self, number: int) -> Piece:
        """Where a piece lies.

        Raises:
            PieceNotFound: The lengths are not known.
            InvalidRequest: The content has no such piece.
        """
        total, length = self._lengths(number)
        return piece_at(number, content_length=total, piece_length=length)

    def _lengths(self, number: int = 0) -> tuple[int, int]:
        record = self._record
        if record.content_length is None or record.piece_length is None:
            raise PieceNotFound(record.id, number)
        return record.content_length, record.piece_length

    def is_sound(self) -> bool:
        """The pieces are such as the lengths say."""
        try:
            return all(
                self.piece(number) == Piece(number, piece.offset, piece.length)
                for number, piece in self._pieces.items()
            )
        except (InvalidRequest, PieceNotFound):
            return False

    @property
    def complete(self) -> bool:
        """Every piece is here."""
        return self._record.piece_count == len(self._pieces)

    @property
    def digests(self) -> str:
        """One digest over those of all pieces; ``""`` while not every piece is here."""
        if not self._digests and self.complete:
            each = (self._pieces[number].digest for number in range(len(self._pieces)))
            self._digests = pieces_digest(self._record.piece_length or 0, each)
        return self._digests

    def parts(self) -> list[ByteRange]:
        """The parts of which every piece is here, in order, each as long as can be."""
        parts: list[ByteRange] = []
        for _, piece in sorted(self._pieces.items()):
            if parts and parts[-1].end == piece.offset:
                last = parts.pop()
                parts.append(ByteRange(last.start, last.length + piece.length))
            else:
                parts.append(ByteRange(piece.offset, piece.length))
        return parts

    def check_here(self, part: ByteRange) -> None:
        """Raise PieceNotFound, naming the first that is missing, unless all of *part* is here."""
        total, length = self._lengths()
        for piece in pieces_for(part, content_length=total, piece_length=length):
            if piece.number not in self._pieces:
                raise PieceNotFound(self._record.id, piece.number)

    def has_lengths_of(self, record: TaskRecord) -> bool:
        """Whether the content is cut into the same pieces as *record* says."""
        old = self._record
        return (old.content_length, old.piece_length) == (
            record.content_length,
            record.piece_length,
        )

    def agrees_with(self, record: TaskRecord) -> bool:
        """Whether *record* can speak of what is here; of bytes that nobody named a version of, not.

        Otherwise what is here is from before the content changed.
        """
        old = self._record
        unnamed = not old.version and not self._pieces
        return (self.has_lengths_of(record) or old.content_length is None) and (
            unnamed or not record.version or old.version == record.version
        )

    def start(self, record: TaskRecord) -> None:
        """A download begins, or goes on, with what *record* says; see :meth:`agrees_with`.

        Lengths are news, and headers and version, if it has any. A failure is forgotten. Content
        of no bytes is finished with that.
        """
        old = self.record
        self._used_at = record.updated_at
        self._record = replace(
            old,
            updated_at=record.updated_at,
            piece_length=record.piece_length,
            content_length=record.content_length,
            response_header=record.response_header or old.response_header,
            version=record.version or old.version,
            failed_at=None,
        )
        self._look_finished(record.updated_at)

    def _look_finished(self, now: float) -> None:
        if self.complete and self._record.finished_at is None:
            self._change(now, finished_at=now, failed_at=None)

    def _change(self, now: float, **changes: Any) -> None:
        self._used_at = now
        self._record = replace(self.record, **changes)

    @property
    def version_is_settled(self) -> bool:
        """Somebody who knows has said which version it is, or that it has none."""
        return self._version_is_settled

    def learn_version(self, version: str, now: float) -> bool:
        """The origin or a parent says what the version is, ``""``: that it has none.

        What is known of it stays. Returns whether that was news.
        """
        if self._version_is_settled and (not version or self._record.version):
            return False
        self._version_is_settled = True
        if version and not self._record.version:
            self._change(now, version=version, failed_at=None)
        return True

    def touch(self, now: float) -> None:
        """Somebody on this node used it at *now*."""
        self._used_at = now

    def know_as(self, peer_id: str, now: float) -> None:
        """Schedulers know this copy as that peer."""
        self._change(now, peer_id=peer_id)

    def keep(self, now: float, *, persistent: bool) -> None:
        """It is to stay until its time is over, or may go when others need its room.

        Raises:
            PieceNotFound: Not all of it is here, so that there is nothing to keep.
        """
        if persistent and not self.complete:
            numbers = range(self._record.piece_count or 0)
            missing = next((n for n in numbers if n not in self._pieces), 0)
            raise PieceNotFound(self._record.id, missing)
        self._change(now, persistent=persistent)

    def fail(self, now: float) -> None:
        """A download ended without all it wanted. Pieces that are here stay good."""
        self._change(now, failed_at=now)

    def start_prefetch(self, now: float) -> None:
        """Somebody fetches the rest. Raises InvalidRequest when somebody does already."""
        if self._record.prefetched_at is not None:
            raise InvalidRequest(f"task {self._record.id} is being prefetched already")
        self._change(now, prefetched_at=now)

    def end_prefetch(self, now: float) -> None:
        """Nobody fetches the rest any more."""
        self._change(now, prefetched_at=None)

    def start_upload(self, now: float) -> None:
        """A peer begins to receive a piece."""
        self._used_at = now
        self._uploading += 1

    def end_upload(self, now: float, *, delivered: bool) -> None:
        """A peer has received a piece, or did not."""
        self._used_at = now
        self._uploading -= 1
        self._uploaded += delivered

    # -- pieces --------------------------------------------------------------------------------

    def unreserved(self, numbers: Iterable[int]) -> set[int]:
        """Those of *numbers* that are not reserved."""
        missing = set(numbers) - self._vacant - self._claimed
        return {number for number in missing if number not in self._pieces}

    def lacks(self, numbers: Iterable[int]) -> int:
        """Bytes of those of *numbers* that are not reserved.

        Raises:
            PieceNotFound: The lengths are not known.
            InvalidRequest: The content has no such piece.
        """
        return sum(self.piece(number).length for number in self.unreserved(numbers))

    def reserve(self, numbers: Iterable[int]) -> None:
        """There is room for these pieces now."""
        new = self.unreserved(numbers)
        if self._vacant is _NONE:
            self._vacant = new or _NONE
        else:
            self._vacant |= new

    def unreserve(self, number: int) -> None:
        """The room for a piece was given back. It must be :meth:`idle`."""
        if number not in self._vacant:
            raise ValueError(f"piece {number} of {self!r} keeps its room")
        self._vacant = _without(self._vacant, number)

    @property
    def fully_reserved(self) -> bool:
        """There is room for every piece, so that a reader of it all can make it no larger."""
        have_room = len(self._vacant) + len(self._claimed) + len(self._pieces)
        return have_room == self._record.piece_count

    def idle(self) -> list[int]:
        """Pieces that have room, and are neither here nor being fetched, in order."""
        return sorted(self._vacant)

    def is_claimed(self, number: int) -> bool:
        """Somebody fetches the piece."""
        return number in self._claimed

    def claim(self, number: int) -> None:
        """Somebody fetches a piece. Raises ValueError when it has no room, or somebody does."""
        if number not in self._vacant:
            raise ValueError(f"piece {number} of {self!r} cannot be claimed")
        self._vacant = _without(self._vacant, number)
        self._claimed = _with(self._claimed, number)

    def abandon(self, number: int) -> None:
        """Whoever fetched a piece does so no more."""
        self._claimed = _without(self._claimed, number)
        self._vacant = _with(self._vacant, number)

    def publish(self, piece: PieceRecord, now: float) -> bool:
        """A claimed piece is here, verified; whether every piece is, now."""
        self._claimed = _without(self._claimed, piece.number)
        self._pieces[piece.number] = piece
        self._look_finished(now)
        return self.complete

    def drop(self, number: int) -> None:
        """A piece is not what it was when it was published: it is here no more.

        Its room stays reserved. What was finished is not any longer, and is no replica.
        """
        del self._pieces[number]
        self._vacant = _with(self._vacant, number)
        self._digests = ""
        self._record = replace(self.record, finished_at=None, persistent=False, peer_id="")


def _with(numbers: set[int], number: int) -> set[int]:
    """*numbers*, and *number* among them."""
    if numbers is _NONE:
        return {number}
    numbers.add(number)
    return numbers


def _without(numbers: set[int], number: int) -> set[int]:
    """*numbers* without *number*, which is among them."""
    numbers.remove(number)
    return numbers or _NONE
