"""What this node holds of each task: its bytes, its records and its users, as one thing.

A piece comes to be in three steps: its bytes are *reserved*, the one who fetches it *claims* it
and receives into the claim's view, and only when length and digest are right is it *published*.
Whoever wants it meanwhile waits for the claim to end. Eviction, expiry and deletion are one act:
content, records, and a word to :attr:`Holdings.on_removed`.

Everything here runs on the event loop's thread and never blocks; only the views are used by
other threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

from pydragonfly.core.ledger import Account, Ledger
from pydragonfly.core.reclaim import expired
from pydragonfly.errors import OutOfSpace, PieceNotFound, TaskDeleted, TimedOut
from pydragonfly.model.pieces import ByteRange, Piece, piece_at, pieces_for
from pydragonfly.model.task import Kind, PieceRecord, TaskRecord, Traffic

from . import memory
from .metadata import MetadataStore

#: What is known of tasks may take this part of the capacity besides; or so many bytes, if that is
#: more: some four thousand tasks with ordinary headers.
_RECORDS_PART: Final = 8
_RECORDS_LEAST: Final = 16 << 20

#: Bytes that a task takes even if it is empty, and a response header besides its text. Measured.
_TASK_COST: Final = 4096
_HEADER_COST: Final = 128


class Reason(StrEnum):
    """Why a task left."""

    LRU = "lru"
    TTL = "ttl"
    DELETED = "deleted"
    FAILED = "failed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Figures:
    """How full the store is; bytes, but for *tasks*."""

    capacity: int
    used: int
    leased: int
    published: int
    tasks: int


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
    :attr:`view` for certain: a late write would change a verified piece.
    """

    def __init__(self, holding: Holding, piece: Piece, now: float) -> None:
        self._holding = holding
        self._since = now
        self.piece = piece
        self.view = holding.content.writable(piece.offset, piece.length)
        #: Set when the claim has ended, one way or the other.
        self.over = asyncio.Event()

    def publish(self, digest: str, *, parent_id: str | None, traffic: Traffic) -> PieceRecord:
        """The bytes are here and verified.

        Raises:
            TaskDeleted: The task was deleted meanwhile; nobody will see the piece.
        """
        self.view.release()
        return self._holding._published(  # noqa: SLF001  the two are one
            self, digest, parent_id=parent_id, traffic=traffic, since=self._since
        )

    def abandon(self) -> None:
        """The bytes are not here, or wrong."""
        self.view.release()
        self._holding._claim_ended(self.piece.number)  # noqa: SLF001  the two are one


class Holding:
    """One task on this node. Made by :class:`Holdings` alone."""

    def __init__(self, home: Holdings, record: TaskRecord, account: Account) -> None:
        self._home = home
        self._account = account
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
        #: Called once when the task is deleted under somebody's feet.
        self.on_gone: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Holding {self.id[:8]} {len(self.pieces)} pieces, {self._account}>"

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
        return self._account.doomed

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
        return self._account.size

    @property
    def lease_count(self) -> int:
        """Users who rely on the bytes now."""
        return self._account.leases

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
        self._home.ledger.lease(self._account)
        return Lease(self)

    def touch(self) -> None:
        """It was used."""
        if not self.gone:
            self._home.ledger.touch(self._account)
            self._home.metadata.touch(*self._key, self._home.now())

    def _lease_ended(self) -> None:
        if self._home.ledger.release(self._account):
            self._free()

    # -- bytes ---------------------------------------------------------------------------------

    def check_fits(self, amount: int) -> None:
        """Raise OutOfSpace when even an empty store could not hold *amount* bytes."""
        ledger = self._home.ledger
        if amount > ledger.capacity:
            raise OutOfSpace(amount, capacity=ledger.capacity, leased=ledger.leased)

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
        spare = self._home.admit(self._account, sum(self.piece(n).length for n in new))
        self._reserved |= new
        if self._content is None and self.total:
            self._content = self._make_content(spare, early=early)
        else:
            self._home.discard(spare)

    def _make_content(self, spare: list[memory.Content], *, early: bool) -> memory.Content:
        heir = None
        if self.fully_reserved and not early:
            heir = memory.heir_for(self.total, spare)
        self._home.discard(content for content in spare if content is not heir)
        if heir is not None:
            if heir.become(self.total):
                return heir
            self._home.discard([heir])
        return memory.create(self.total, lock=self._home.lock_pages)

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
            untouched = self._content is None or isinstance(self._content, memory.SmallContent)
            if untouched or self.content.punch(piece.offset, piece.length):
                self._reserved.discard(number)
                self._home.ledger.give_back(self._account, piece.length)
        if not self.pieces and self.record.content_length != 0:
            self._home.remove(self, Reason.FAILED)

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

    def handout(self) -> int | None:
        """A read-only descriptor of the whole content for another process, or None.

        None when the content has no descriptor, or when a reader of parts that are not here
        could make it larger than what is accounted for, or would see another content there.
        """
        if self._content is None or not self.fully_reserved:
            return None
        if self._content.inherited and not self.complete:
            return None
        return self._content.handout()

    # -- content of unknown length -------------------------------------------------------------

    def extend(self) -> memoryview:
        """Room for the next :data:`~.memory.GROWTH_STEP` bytes of growing content.

        Raises:
            OutOfSpace, TaskDeleted, Unavailable: As for :meth:`reserve`.
        """
        self._home.discard(self._home.admit(self._account, memory.GROWTH_STEP))
        if self._growing is None:
            self._growing = memory.Growing()
        return self._growing.extend()

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
        self._home.ledger.give_back(self._account, self._account.size - length)
        if growing is not None:
            if length:
                self._content = growing.finish(length, lock=self._home.lock_pages)
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

    def _removed(self, *, freed: bool) -> None:
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
                self._home.dispose(thing.close)
        self._content = self._growing = None


class Holdings:
    """Every task on this node, in one store of limited size.

    Args:
        capacity: Bytes it may hold.
        metadata: Where the records are.
        clock: Unix time, seconds.
        lock_pages: Keep content out of swap.
        executor: Where memory is unmapped; a gigabyte takes a tenth of a second. None: here.
    """

    def __init__(
        self,
        capacity: int,
        metadata: MetadataStore,
        *,
        clock: Callable[[], float],
        lock_pages: bool = False,
        executor: Executor | None = None,
    ) -> None:
        records = max(capacity // _RECORDS_PART, _RECORDS_LEAST)
        self.ledger = Ledger(capacity, records=records)
        self.metadata = metadata
        self.now = clock
        self.lock_pages = lock_pages
        #: Bytes of all pieces ever published.
        self.published = 0
        #: Called after a task has left, for whatever reason.
        self.on_removed: Callable[[Holding, Reason], None] = lambda _holding, _reason: None
        self._executor = executor
        self._holdings: dict[tuple[Kind, str], Holding] = {}
        self._of_account: dict[Account, Holding] = {}

    def __len__(self) -> int:
        return len(self._holdings)

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._holdings.values()))

    def figures(self) -> Figures:
        """How full it is."""
        return Figures(
            capacity=self.ledger.capacity,
            used=self.ledger.used,
            leased=self.ledger.leased,
            published=self.published,
            tasks=len(self._holdings),
        )

    def get(self, kind: Kind, task_id: str) -> Holding | None:
        """What is held of a task, or None."""
        return self._holdings.get((kind, task_id))

    def open(self, record: TaskRecord) -> Holding:
        """Begin, or go on, to hold a task. Nothing is reserved by this.

        What is held of the same task with other lengths or another version is from before it
        changed, and goes.
        """
        holding = self.get(record.kind, record.id)
        if holding is not None and not _agree(holding.record, record):
            self.remove(holding, Reason.CHANGED)
            holding = None
        if holding is None:
            account = self.ledger.open(f"{record.kind.name}/{record.id}")
            holding = Holding(self, record, account)
            self._holdings[record.kind, record.id] = self._of_account[account] = holding
        known = self.metadata.download_started(record)
        if record.content_length == 0:
            self.metadata.download_finished(record.kind, record.id, self.now())
        account = holding._account  # noqa: SLF001  the two are one
        self.discard(self._evict(self.ledger.note(account, _cost(known))))
        return holding

    def admit(self, account: Account, amount: int) -> list[memory.Content]:
        """Reserve bytes, evicting whom the ledger names. Raises as it does.

        Returns:
            What the evicted held, to be used again or closed.
        """
        return self._evict(self.ledger.reserve(account, amount))

    def _evict(self, victims: Iterable[Account]) -> list[memory.Content]:
        """Part with tasks whose accounts are closed; what they held."""
        spare = []
        for victim in victims:
            holding = self._of_account[victim]
            if (content := holding.surrender()) is not None:
                spare.append(content)
            self._forget(holding, Reason.LRU, freed=True)
        return spare

    def remove(self, holding: Holding, reason: Reason) -> None:
        """Delete a task: from here on nobody finds it. A second time does nothing."""
        if not holding.gone:
            freed = self.ledger.doom(holding._account)  # noqa: SLF001  the two are one
            self._forget(holding, reason, freed=freed)

    def _forget(self, holding: Holding, reason: Reason, *, freed: bool) -> None:
        del self._holdings[holding.kind, holding.id]
        del self._of_account[holding._account]  # noqa: SLF001  the two are one
        holding._removed(freed=freed)  # noqa: SLF001  the two are one
        self.metadata.delete(holding.kind, holding.id)
        self.on_removed(holding, reason)

    def expire(self, ttl: Mapping[Kind, float]) -> int:
        """Delete what nobody uses and nobody has used for its time to live; how many."""
        dead = [
            holding
            for record in expired(self.metadata.list(), ttl=ttl, now=self.now())
            if (holding := self.get(record.kind, record.id)) and not holding.lease_count
        ]
        for holding in dead:
            self.remove(holding, Reason.TTL)
        return len(dead)

    def discard(self, contents: Iterable[memory.Content]) -> None:
        """Free what the evicted held."""
        for content in contents:
            if self.lock_pages:  # they count against the limit on locked memory until they go
                content.close()
            else:
                self.dispose(content.close)

    def dispose(self, close: Callable[[], None]) -> None:
        """Free memory without keeping the loop waiting."""
        if self._executor is None:
            close()
        else:
            self._executor.submit(close)

    def close(self) -> None:
        """Free everything. Leases end as their holders let go."""
        for holding in self:
            self.remove(holding, Reason.DELETED)


def _cost(record: TaskRecord) -> int:
    """Bytes that a record and what belongs to it take, about."""
    headers = sum(len(k) + len(v) + _HEADER_COST for k, v in record.response_header.items())
    texts = (record.url, record.tag, record.application, record.version)
    return _TASK_COST + headers + sum(len(text or "") for text in texts)


def _agree(old: TaskRecord, new: TaskRecord) -> bool:
    """Whether two records can speak of the same content."""
    lengths = (old.content_length, old.piece_length) == (new.content_length, new.piece_length)
    return (lengths or old.content_length is None) and (
        not old.version or not new.version or old.version == new.version
    )
