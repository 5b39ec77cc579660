"""One task on this node: its bytes, its records and its users, as one thing.

A piece comes to be in three steps: its bytes are *reserved*, the one who fetches it *claims* it
and receives into the claim's sink, and only when length and digest are right is it *published*.
Whoever wants it meanwhile waits for the claim to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from pantala.core.ledger import Account, Needs
from pantala.errors import OutOfSpace, PieceNotFound, TaskDeleted, TimedOut
from pantala.model.digest import pieces_digest
from pantala.model.pieces import ByteRange, Piece, piece_at, pieces_for
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.ports import MemorySink

from . import memory

if TYPE_CHECKING:
    from .holdings import Holdings


#: Whom a hand-out is for where the system does not say: the user id that is none.
NOBODY: Final = -1


class Reason(StrEnum):
    """Why a task left."""

    LRU = "lru"
    TTL = "ttl"
    DELETED = "deleted"
    FAILED = "failed"
    CHANGED = "changed"


class Lease:
    """The right to find a holding's bytes where they are, until it ends."""

    def __init__(self, holding: Holding) -> None:
        self._holding: Holding | None = holding

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it. A second time does nothing."""
        holding, self._holding = self._holding, None
        if holding is not None:
            holding._lease_ended()  # noqa: SLF001  the two are one


class Claim:
    """The right to receive one piece.

    It must end, by :meth:`publish` or :meth:`abandon`, only after the receiver has let go of
    :attr:`sink` for certain: a late write would change a verified piece.
    """

    def __init__(self, holding: Holding, piece: Piece, now: float) -> None:
        self._holding = holding
        self._since = now
        self.piece = piece
        self.sink = MemorySink(holding.content.writable(piece.offset, piece.length))
        #: Set when the claim has ended, one way or the other.
        self.over = asyncio.Event()

    def publish(self, digest: str, *, parent_id: str | None, traffic: Traffic) -> PieceRecord:
        """The bytes are here and verified.

        Raises:
            TaskDeleted: The task was deleted meanwhile; nobody will see the piece.
        """
        self.sink.close()
        return self._holding._published(  # noqa: SLF001  the two are one
            self, digest, parent_id=parent_id, traffic=traffic, since=self._since
        )

    def abandon(self) -> None:
        """The bytes are not here, or wrong."""
        self.sink.close()
        self._holding._claim_ended(self.piece.number)  # noqa: SLF001  the two are one


class Holding:
    """One task on this node. Made by :class:`Holdings` alone."""

    def __init__(self, home: Holdings, record: TaskRecord, account: Account) -> None:
        self._home = home
        #: Its share of the store, for :class:`Holdings`.
        self.account = account
        self._content: memory.Content | None = None
        self._growing: memory.Growing | None = None
        self._last: tuple[TaskRecord, Mapping[int, PieceRecord]] | None = None
        self._key = record.kind, record.id
        #: Pieces whose bytes are reserved.
        self._reserved: set[int] = set()
        self._claims: dict[int, Claim] = {}
        self._watchers: set[asyncio.Queue[int | None]] = set()
        #: Pieces that a flight on this node will bring, if all goes well.
        self._coming: frozenset[int] = frozenset()
        #: Somebody who knows has said which version it is, or that it has none.
        self.version_is_settled = bool(record.version)
        #: Held while programs may have descriptors or mappings of the bytes.
        self._outside: Lease | None = None
        #: Users whose programs were given them since nobody had any.
        self.takers: set[int] = set()
        self._digests = ""
        #: Hosts that pieces came from.
        self.givers: set[str] = set()
        #: Called once when the task is deleted under somebody's feet.
        self.on_gone: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Holding {self.id[:8]} {len(self.pieces)} pieces, {self.account}>"

    # -- what it is ----------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return self._key[0]

    @property
    def id(self) -> str:
        """The task's id."""
        return self._key[1]

    @property
    def gone(self) -> bool:
        """Deleted or evicted; what is left is for those who hold leases."""
        return self.account.doomed

    @property
    def record(self) -> TaskRecord:
        """The record as it is now, or as it was when the task was deleted."""
        record = self._last[0] if self._last else self._home.metadata.get(*self._key)
        if record is None:
            raise TaskDeleted(f"task {self.id} was deleted")
        return record

    @property
    def pieces(self) -> Mapping[int, PieceRecord]:
        """The published pieces by number."""
        return self._last[1] if self._last else self._home.metadata.pieces(*self._key)

    @property
    def total(self) -> int:
        """Bytes in the whole content. Only once that is known."""
        total = self.record.content_length
        if total is None:
            raise PieceNotFound(self.id, 0)
        return total

    @property
    def content(self) -> memory.Content:
        """The bytes. Only once some are reserved."""
        if self._content is None:
            raise PieceNotFound(self.id, 0)
        return self._content

    def learn_version(self, version: str) -> None:
        """The origin or a parent says what the content's version is; ``""``: it has none.

        What is known of it stays.
        """
        if self.gone or (self.version_is_settled and (not version or self.record.version)):
            return
        self.version_is_settled = True
        if version and not self.record.version:
            now = self._home.now()
            self._home.metadata.download_started(
                replace(self.record, version=version, updated_at=now)
            )
        self._notify(None)

    @property
    def complete(self) -> bool:
        """Every piece is here."""
        count = self.record.piece_count
        return count is not None and len(self.pieces) == count

    @property
    def digests(self) -> str:
        """One digest over those of all pieces; ``""`` while not every piece is here."""
        if not self._digests and self.complete:
            pieces = self.pieces
            each = (pieces[number].digest for number in range(len(pieces)))
            self._digests = pieces_digest(self.record.piece_length or 0, each)
        return self._digests

    def parts(self) -> list[ByteRange]:
        """The parts of which every piece is here, in order, each as long as can be."""
        parts: list[ByteRange] = []
        for _, piece in sorted(self.pieces.items()):
            if parts and parts[-1].end == piece.offset:
                last = parts.pop()
                parts.append(ByteRange(last.start, last.length + piece.length))
            else:
                parts.append(ByteRange(piece.offset, piece.length))
        return parts

    @property
    def reserved_bytes(self) -> int:
        """Bytes that count against the capacity."""
        return self.account.size

    @property
    def lease_count(self) -> int:
        """Users who rely on the bytes now.

        All who only have a descriptor that they were given count as one, and not at all as long
        as there are others: those are most likely the same.
        """
        return max(1, self.account.leases - 1) if self._outside else self.account.leases

    @property
    def pinned(self) -> bool:
        """Only those use it who keep what they were given though they need it no longer."""
        return self._outside is not None and self.account.leases == 1

    def piece(self, number: int) -> Piece:
        """Where piece *number* lies. Raises InvalidRequest when there is no such piece."""
        record = self.record
        if record.content_length is None or record.piece_length is None:
            raise PieceNotFound(self.id, number)
        return piece_at(
            number, content_length=record.content_length, piece_length=record.piece_length
        )

    # -- users ---------------------------------------------------------------------------------

    def lease(self) -> Lease:
        """Keep the bytes where they are.

        Raises:
            TaskDeleted: It takes no new users.
        """
        self._home.ledger.lease(self.account)
        return Lease(self)

    def touch(self) -> None:
        """It was used."""
        if not self.gone:
            self._home.ledger.touch(self.account)
            self._home.metadata.touch(*self._key, self._home.now())

    def _lease_ended(self) -> None:
        if self._home.ledger.release(self.account):
            self._free()
        else:
            self.recall()
        self._home.on_room()

    def recall(self) -> None:
        """Stop counting what was handed out as used, once nobody has it any more."""
        if not self.pinned or (self._content is not None and self._content.is_elsewhere()):
            return
        lease, self._outside = self._outside, None
        self.takers.clear()
        self._home.handed_out.discard(self)
        if lease is not None:
            lease.end()

    # -- bytes ---------------------------------------------------------------------------------

    def check_fits(self, amount: int) -> None:
        """Raise OutOfSpace when even an empty store could not hold *amount* bytes."""
        ledger = self._home.ledger
        if amount > ledger.capacity:
            raise OutOfSpace(amount, capacity=ledger.capacity, leased=ledger.leased)

    def lacks(self, numbers: Iterable[int]) -> int:
        """Bytes that :meth:`reserve` would need more."""
        return sum(self.piece(number).length for number in set(numbers) - self._reserved)

    def no_room(self, need: int) -> OutOfSpace:
        """The error for *need* bytes that do not fit beside what this content has already."""
        ledger = self._home.ledger
        error = OutOfSpace(need, capacity=ledger.capacity, leased=ledger.leased)
        error.hopeless = self.account.size + need > ledger.capacity
        return error

    @property
    def needs(self) -> Needs:
        """What it takes besides bytes when the first are reserved; nothing once they are."""
        if self._content is not None or self.account.besides != Needs():
            return Needs()
        return memory.needs(self.total, abundant=self._home.ledger.abundant)

    def reserve(self, numbers: Iterable[int], *, early: bool = False) -> None:
        """Make room for pieces. Those that have room already cost nothing.

        A content for all of which there is room takes over the memory of one that had to go for
        it, if it can: receiving into that costs less than half.

        Args:
            numbers: Of the pieces.
            early: Somebody wants a :meth:`handout` before all is here, for which memory that
                was another content's is no good.

        Raises:
            OutOfSpace: They do not fit. Nothing has changed.
            TaskDeleted: The task was deleted.
            Unavailable: The system has no memory for it.
        """
        new = set(numbers) - self._reserved
        amount = self.lacks(new)
        spare = self._home.admit(self.account, amount, self.needs)
        self._reserved |= new
        if self._content is None and self.total:
            self._content = self._make_content(spare, early=early)
        else:
            self._home.discard(spare)

    def _make_content(self, spare: list[memory.Content], *, early: bool) -> memory.Content:
        heir = None
        descriptor = self.account.besides.descriptors > 0
        if self.fully_reserved and descriptor and not early:
            heir = memory.heir_for(self.total, spare)
        self._home.discard(content for content in spare if content is not heir)
        if heir is not None:
            if heir.become(self.total):
                return heir
            self._home.discard([heir])
        return self._home.make(
            lambda: memory.create(self.total, descriptor=descriptor, lock=self._home.lock_pages)
        )

    @property
    def fully_reserved(self) -> bool:
        """There is room for every piece, so that a reader of it all can make it no larger."""
        return len(self._reserved) == self.record.piece_count

    def settle(self) -> None:
        """Give back what was reserved for pieces that did not come."""
        if self._growing is not None:
            self._home.remove(self, Reason.FAILED)
            return
        if self.gone:
            return
        for number in sorted(self._reserved - self.pieces.keys() - self._claims.keys()):
            piece = self.piece(number)
            content = self._content
            punched = content is None or content.punch(piece.offset, piece.length)
            # What stays in the heap is bounded by how small such contents are.
            if punched or isinstance(content, memory.SmallContent):
                self._reserved.discard(number)
                self._home.ledger.give_back(self.account, piece.length)
        if not self.pieces and self.record.content_length != 0:
            self._home.remove(self, Reason.FAILED)
        self._home.on_room()

    def view(self, part: ByteRange) -> memoryview:
        """The bytes of *part*, read-only. Hold a lease for as long as you use it.

        Raises:
            PieceNotFound: Not all of it is here.
        """
        if part.length == 0:
            return memoryview(b"")
        record = self.record
        if record.content_length is None or record.piece_length is None:
            raise PieceNotFound(self.id, 0)
        for piece in pieces_for(
            part, content_length=record.content_length, piece_length=record.piece_length
        ):
            if piece.number not in self.pieces:
                raise PieceNotFound(self.id, piece.number)
        return self.content.readable(part.start, part.length)

    def handout(self, user: int = NOBODY) -> int | None:
        """A read-only descriptor of the whole content for another process, or None.

        From here on the content counts as used, until the kernel says that nobody else has it.
        None when the content has no descriptor, or when a reader of parts that are not here
        could make it larger than what is accounted for, or would see another content there; or
        when programs of *user* keep more than they may already.

        Args:
            user: Whose program it is for.

        Raises:
            Unavailable: The system has no descriptor left.
        """
        if self._content is None or not self.fully_reserved or self.gone:
            return None
        if self._content.inherited and not self.complete:
            return None
        if not self._home.may_take(user):
            return None
        fd = self._content.handout()
        if fd is not None:
            self.takers.add(user)
            self._home.handed_out.add(self)
            if self._outside is None:
                self._outside = self.lease()
        return fd

    # -- content of unknown length -------------------------------------------------------------

    def extend(self) -> MemorySink:
        """Room for the next :data:`~.memory.GROWTH_STEP` bytes of growing content.

        Raises:
            OutOfSpace, TaskDeleted, Unavailable: As for :meth:`reserve`.
        """
        first = self._growing is None and self.account.besides == Needs()
        besides = Needs(descriptors=1, mappings=1) if first else Needs()
        self._home.discard(self._home.admit(self.account, memory.GROWTH_STEP, besides))
        if self._growing is None:
            self._growing = self._home.make(memory.Growing)
        return MemorySink(self._growing.extend())

    def finish_growing(self, length: int, piece_length: int) -> None:
        """It ended after *length* bytes.

        They lie where they belong, but no piece is published: that takes claims, as ever.

        Raises:
            TaskDeleted: The task was deleted.
            Unavailable: The system has no memory for it.
        """
        if self.gone:
            raise TaskDeleted(f"task {self.id} was deleted")
        growing, self._growing = self._growing, None
        ledger = self._home.ledger
        ledger.give_back(self.account, self.account.size - length)
        if growing is not None:
            besides = memory.needs(length, abundant=ledger.abundant)
            ledger.give_up(self.account, besides)
            if length:
                self._content = growing.finish(
                    length, descriptor=besides.descriptors > 0, lock=self._home.lock_pages
                )
            growing.close()
        self._home.open(
            replace(
                self.record,
                content_length=length,
                piece_length=piece_length,
                updated_at=self._home.now(),
            )
        )
        self._reserved = set(range(-(-length // piece_length)))

    # -- pieces --------------------------------------------------------------------------------

    def claim(self, number: int) -> Claim:
        """Become the one who fetches a piece that is reserved and not here.

        Raises:
            TaskDeleted: The task was deleted.
        """
        if self.gone:
            raise TaskDeleted(f"task {self.id} was deleted")
        if number in self._claims or number in self.pieces or number not in self._reserved:
            raise ValueError(f"piece {number} of {self!r} cannot be claimed")
        claim = self._claims[number] = Claim(self, self.piece(number), self._home.now())
        return claim

    def _claim_ended(self, number: int) -> None:
        self._claims.pop(number).over.set()

    def _published(
        self, claim: Claim, digest: str, *, parent_id: str | None, traffic: Traffic, since: float
    ) -> PieceRecord:
        piece = claim.piece
        now = self._home.now()
        self._claims.pop(piece.number)
        try:
            if self.gone:
                raise TaskDeleted(f"task {self.id} was deleted")
            record = PieceRecord(
                number=piece.number,
                offset=piece.offset,
                length=piece.length,
                digest=digest,
                parent_id=parent_id,
                traffic=traffic,
                cost=max(0.0, now - since),
                created_at=now,
            )
            self._home.metadata.piece_finished(*self._key, record)
            self._home.published += piece.length
            if self.complete:
                self._home.metadata.download_finished(*self._key, now)
        finally:
            claim.over.set()
        self._notify(piece.number)
        return record

    async def wait_for_piece(self, number: int, limit: float) -> PieceRecord:
        """The record of a piece, once it is here. Hold a lease meanwhile.

        Raises:
            PieceNotFound: It is not here and nobody fetches it.
            TaskDeleted: The task was deleted.
            TimedOut: After *limit* seconds it was still being fetched.
        """
        try:
            async with asyncio.timeout(limit):
                while (found := self.pieces.get(number)) is None:
                    if self.gone:
                        raise TaskDeleted(f"task {self.id} was deleted")
                    claim = self._claims.get(number)
                    if claim is None:
                        raise PieceNotFound(self.id, number)
                    await claim.over.wait()
        except TimeoutError:
            raise TimedOut(f"piece {number} of task {self.id} is still on its way") from None
        return found

    @property
    def coming(self) -> frozenset[int]:
        """Pieces that a flight on this node means to bring."""
        return self._coming

    @coming.setter
    def coming(self, numbers: frozenset[int]) -> None:
        self._coming = numbers
        self._notify(None)

    @contextmanager
    def watch(self) -> Iterator[asyncio.Queue[int | None]]:
        """A queue of what happens: the number of each piece published; None for other news."""
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)

    def _notify(self, news: int | None) -> None:
        for queue in self._watchers:
            queue.put_nowait(news)

    # -- the end -------------------------------------------------------------------------------

    def removed(self, *, freed: bool) -> None:
        """Called by :class:`Holdings` when the account is doomed and before records go."""
        self._last = self.record, dict(self.pieces)
        self._notify(None)
        if freed:
            self._free()
        if self.on_gone is not None:
            self.on_gone()

    def surrender(self) -> memory.Content | None:
        """Give up the bytes, which nobody uses any more, to :class:`Holdings`."""
        content, self._content = self._content, None
        return content

    def _free(self) -> None:
        for thing in (self._content, self._growing):
            if thing is not None:
                thing.retire()
                self._home.dispose(thing.close)
        self._content = self._growing = None
