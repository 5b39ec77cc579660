"""One task on this node: what is known of it, its bytes and its users, as one thing.

A piece comes to be in three steps: its bytes are *reserved*, the one who fetches it *claims* it
and receives into the claim's sink, and only when length and digest are right is it *published*.
It is here once the journal has it. Whoever wants it meanwhile waits for the claim to end.

What is decided without bytes is in :mod:`pantala.core.content_state`.
"""

from __future__ import annotations

from asyncio import Queue
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Final

from pantala.core.content_state import NOTHING, ContentState
from pantala.core.ledger import Account, Needs
from pantala.errors import NoRoom, PieceNotFound, TaskDeleted
from pantala.model.pieces import ByteRange, piece_count
from pantala.model.task import PieceRecord, Traffic
from pantala.ports import Extent, MemoryExtent, Sink

from .claims import Claim, Claims
from .growth import Growth
from .home import Home, Reason
from .known import Known
from .leases import NOBODY, Lease
from .medium import Content, Room

#: One of it for all tasks.
_NONE: Final[frozenset[str]] = frozenset()


class Holding(Known):
    """One task on this node. Made by a store alone."""

    def __init__(
        self,
        home: Home,
        state: ContentState,
        account: Account,
        content: Content | None = None,
    ) -> None:
        super().__init__(state)
        self._home = home
        self.account = account  #: Its share of the store.
        self._content = content
        #: While nobody knows how long it is: what has come of it.
        self.growth: Growth | None = None
        self._claims = Claims(home, state, account)
        #: Since when the origin's word is of that this is what it has, if it was asked for who
        #: insists on that; on the loop's clock.
        self.compared_at: float | None = None
        #: Hosts that pieces came from.
        self.givers = _NONE
        #: Called once when the task is deleted under somebody's feet.
        self.on_gone: Callable[[], None] | None = None
        #: Hears what each that follows it here lacks, and has or fetches: by its own name, and the
        #: address that it calls from.
        self.on_told: Callable[[str, str, int, int], None] | None = None

    def __repr__(self) -> str:
        return f"<Holding {self.id[:8]} {len(self.pieces)} pieces, {self.account}>"

    @property
    def reserved_bytes(self) -> int:
        """Bytes that count against the capacity."""
        return self.account.size

    @property
    def gone(self) -> bool:
        """Deleted or evicted; what is left is for those who hold leases."""
        return self.account.doomed

    @property
    def content(self) -> Content:
        """The bytes. Only once some are reserved."""
        if self._content is None:
            raise PieceNotFound(self.id, 0)
        return self._content

    def now(self) -> float:
        """Unix time, seconds."""
        return self._home.now()

    # -- what happens to it --------------------------------------------------------------------

    def learn_version(self, version: str) -> None:
        """The origin or a parent says what the content's version is; ``""``: it has none.

        What is known of it stays.
        """
        if not self.gone and self.state.learn_version(version, self.now()):
            self._note()
            self._claims.notify(None)

    def touch(self) -> None:
        """Somebody has used it: it is the last to be evicted now."""
        if not self.gone:
            self._home.ledger.touch(self.account)
            self.state.touch(self.now())
            self._note()

    def know_as(self, peer_id: str) -> None:
        """Schedulers know this copy as that peer."""
        if not self.gone:
            self.state.know_as(peer_id, self.now())
            self._note()

    def keep(self, *, persistent: bool = True) -> None:
        """It is to stay until its time is over, or, with False, may go when others need its room.

        Raises:
            PieceNotFound: Not all of it is here, so that there is nothing to keep.
            TaskDeleted: The task was deleted.
        """
        if self.gone:
            raise TaskDeleted(f"task {self.id} was deleted")
        self.state.keep(self.now(), persistent=persistent)
        self.account.pinned = persistent
        self._note()

    def failed(self) -> None:
        """A download ended without all it wanted. Pieces that are here stay good."""
        self.state.fail(self.now())
        self._note()

    def prefetch_started(self) -> None:
        """Somebody fetches the rest.

        Raises:
            InvalidRequest: Somebody does already.
            TaskDeleted: The task was deleted.
        """
        if self.gone:
            raise TaskDeleted(f"task {self.id} was deleted")
        self.state.start_prefetch(self.now())

    def prefetch_failed(self) -> None:
        """Nobody fetches the rest any more."""
        self.state.end_prefetch(self.now())

    def upload_started(self) -> None:
        """A peer begins to receive a piece."""
        self.state.start_upload(self.now())

    def upload_ended(self, *, delivered: bool) -> None:
        """A peer has received a piece, or did not. It was used."""
        self.state.end_upload(self.now(), delivered=delivered)
        self.touch()

    def _note(self) -> None:
        if self._home.journal.lasts and not self.gone:
            self._home.journal.task(self.record)

    # -- users ---------------------------------------------------------------------------------

    @property
    def lease_count(self) -> int:
        """Users who rely on the bytes now.

        All who only have a descriptor that they were given count as one, and not at all as long
        as there are others: those are most likely the same.
        """
        handed_off = self in self._home.hand_offs
        return max(1, self.account.leases - 1) if handed_off else self.account.leases

    def lease(self) -> Lease:
        """Keep the bytes where they are.

        Raises:
            TaskDeleted: It takes no new users.
        """
        self._home.ledger.lease(self.account)
        return Lease(self._lease_ended)

    def _lease_ended(self) -> None:
        if self._home.ledger.release(self.account):
            self._free()
        else:
            self._home.hand_offs.recall(self)
            if self._content is not None and not self.account.leases:
                self._content.rest()
        self._home.on_room()

    @property
    def is_clean(self) -> bool:
        """Nothing in it is another task's; else a :meth:`hand_off` is refused until all is here."""
        return self._content is None or self._content.is_clean

    def is_elsewhere(self) -> bool:
        """Whether a program may still have what was handed off to it."""
        return self._content is not None and self._content.is_elsewhere()

    def hand_off(self, user: int = NOBODY, *, seal: bool = True) -> int | None:
        """A read-only descriptor of the whole content for another process, or None.

        From here on the content counts as used, until the kernel says that nobody else has it.
        None when it has no descriptor; when a reader of parts that are not here could make it
        larger than is accounted for, or would see another task's bytes; or when programs of *user*,
        for whom it is, keep too much already. *seal*: as for :meth:`.Content.hand_off`.

        Raises:
            Unavailable: The system has no descriptor left.
        """
        if self._content is None or not self.fully_reserved or self.gone:
            return None
        if not self._content.is_clean and not self.complete:
            return None
        if not self._home.hand_offs.may_take(user):
            return None
        fd = self._content.hand_off(seal=seal)
        if fd is not None:
            self._home.hand_offs.add(self, user)
        return fd

    # -- bytes ---------------------------------------------------------------------------------

    def check_fits(self, amount: int) -> None:
        """Raise NoRoom when even an empty store could not hold *amount* bytes."""
        self._home.look_at_room()
        if amount > self._home.ledger.capacity:
            raise self.no_room(amount)

    def no_room(self, need: int) -> NoRoom:
        """The error for *need* bytes that do not fit beside what this task has already."""
        ledger = self._home.ledger
        error = ledger.no_room(need)
        error.hopeless |= self.account.size + need > ledger.capacity
        return error

    @property
    def needs(self) -> Needs:
        """What it takes besides bytes when the first are reserved; nothing once they are."""
        if self._content is not None or self.account.besides != Needs():
            return Needs()
        return self._home.medium.needs(self.total, abundant=self._home.ledger.abundant)

    def reserve(self, numbers: Iterable[int], *, early: bool = False) -> None:
        """Make room for pieces. Those that have room already cost nothing.

        A task for all of which there is room takes over that of one that had to go for it, if
        the medium can do that.

        Args:
            numbers: Of the pieces.
            early: Somebody wants a :meth:`hand_off` before all is here.

        Raises:
            NoRoom: They do not fit. Nothing has changed.
            TaskDeleted: The task was deleted.
            Unavailable: The system has no memory for it.
        """
        new = self.state.unreserved(numbers)
        evicted = self._home.admit(self.account, self.lacks(new), self.needs)
        self.state.reserve(new)
        if self._content is None and self.total:
            self._content = self._make_content(evicted, early=early)
        self._home.medium.discard(evicted)

    def _make_content(self, evicted: list[Content], *, early: bool) -> Content:
        medium, needs = self._home.medium, self.account.besides
        if self.fully_reserved and needs.descriptors:
            reused = medium.reuse(self.total, evicted, early=early)
            if reused is not None:
                return reused
        medium.discard(evicted)  # first: the system may have nothing to give but what is theirs
        evicted.clear()
        return self._home.make(lambda: medium.create(self.record, needs))

    def settle(self) -> None:
        """Give back what was reserved for pieces that did not come."""
        if self.growth is not None:
            self._home.drop(self.kind, self.id, Reason.FAILED)
            return
        if self.gone:
            return
        for number in self.state.idle():
            piece = self.piece(number)
            if self._content is None or self._content.punch(piece.offset, piece.length):
                self.state.unreserve(number)
                self._home.ledger.give_back(self.account, piece.length)
        if not self.pieces and self.record.content_length != 0:
            self._home.drop(self.kind, self.id, Reason.FAILED)
        self._home.on_room()

    def extent(self, part: ByteRange) -> Extent:
        """The bytes of *part*, where they lie. Close it before the lease that you hold ends.

        Raises:
            PieceNotFound: Not all of it is here.
            StoreFailed: The disk fails.
        """
        if self.growth is not None:
            return self.growth.extent(part)
        if part.length == 0:
            return MemoryExtent(memoryview(b""))
        self.state.check_here(part)
        return self.content.extent(part.start, part.length)

    def view(self, part: ByteRange) -> memoryview:
        """The same, read: of memory where they lie, else a copy, which may take long."""
        with closing(self.extent(part)) as extent:
            return extent.read(0, part.length)

    def punch_missing(self) -> None:
        """Free what an earlier process has left of pieces that are not here."""
        for number in range(self.record.piece_count or 0):
            if number not in self.pieces:
                piece = self.piece(number)
                self.content.punch(piece.offset, piece.length)

    def drop(self, number: int) -> None:
        """A piece turned out not to be what it was when it was published: it is here no more."""
        if not self.gone and number in self.pieces:
            self.state.drop(number)
            self.account.pinned = False
            self._home.journal.dropped(self.kind, self.id, number)
            self._note()
            self._claims.notify(None)

    def extend(self, *, evict: bool = True) -> Sink:
        """Room for the next bytes of growing content, as many as the medium takes at a time.

        Without *evict* only where it is free: nobody has to go for it.

        Raises:
            NoRoom, TaskDeleted, Unavailable: As for :meth:`reserve`.
        """
        home = self._home
        if not evict and home.ledger.capacity - home.ledger.used < home.medium.step:
            raise self.no_room(home.medium.step)
        first = self.growth is None and self.account.besides == Needs()
        besides = home.medium.growing_needs if first else Needs()
        home.medium.discard(home.admit(self.account, home.medium.step, besides))
        if self.growth is None:
            growing = home.make(lambda: home.medium.grow(self.record))
            self.growth = Growth(self.id, growing, home.medium.step)
        return self.growth.room.extend()

    def grown(self, crc: int, *, parent_id: str | None, traffic: Traffic) -> None:
        """The next step of growing content is here, and others may have it."""
        if self.growth is not None:
            self.growth.add(crc, parent_id=parent_id, traffic=traffic, now=self.now())
            self._claims.notify(None)

    def finish_growing(self, length: int, piece_length: int, *, here: int | None = None) -> None:
        """It has *length* bytes in all.

        Those that are here lie where they belong, but no piece is published: that takes claims, as
        ever.

        Args:
            length: Bytes.
            piece_length: Bytes in every piece but the last.
            here: Of how many bytes from the beginning the pieces are here. None: all.

        Raises:
            TaskDeleted: The task was deleted.
            Unavailable: The system has no memory for it.
        """
        if self.gone:
            raise TaskDeleted(f"task {self.id} was deleted")
        growth, self.growth = self.growth, None
        here = length if here is None else here
        ledger = self._home.ledger
        ledger.give_back(self.account, self.account.size - here)
        if growth is not None:
            besides = self._home.medium.needs(length, abundant=ledger.abundant)
            ledger.give_up(self.account, besides)
            if length:
                self._content = growth.room.finish(length, besides, here=here)
            self._home.medium.discard([growth.room])
        known = replace(self.record, content_length=length, piece_length=piece_length)
        self._home.open(replace(known, updated_at=self.now()))
        self.state.reserve(range(piece_count(here, piece_length)))
        self._claims.notify(None)

    def claim(self, number: int) -> Claim:
        """Become the one who fetches a piece that is reserved and not here.

        Raises:
            TaskDeleted: The task was deleted.
        """
        if self.gone:
            raise TaskDeleted(f"task {self.id} was deleted")
        self.state.claim(number)
        piece = self.piece(number)
        return self._claims.begin(piece, self.content.sink(piece.offset, piece.length))

    async def wait_for_piece(self, number: int, limit: float) -> PieceRecord:
        """The piece, once it is here; see :meth:`.Claims.wait_for`. Of what grows, a step."""
        if self.growth is not None:
            return self.growth.step(number)
        return await self._claims.wait_for(number, limit)

    def received(self, wanted: Container[int]) -> int:
        """Bytes that are here, not verified, of those pieces of *wanted* that are on their way."""
        return self._claims.received(wanted)

    @property
    def coming(self) -> frozenset[int]:
        """Pieces that a flight on this node means to bring."""
        return self.state.coming

    @coming.setter
    def coming(self, numbers: frozenset[int]) -> None:
        self.state.coming = numbers or NOTHING
        self._claims.notify(None)

    def given_by(self, host: str) -> None:
        """A piece came from *host*."""
        if host not in self.givers:
            self.givers |= {host}

    def watch(self) -> AbstractContextManager[Queue[int | None]]:
        """A queue of what happens: the number of each piece published; None for other news."""
        return self._claims.watch()

    # -- the end -------------------------------------------------------------------------------

    def removed(self, *, freed: bool) -> None:
        """Called by the store when the account is doomed."""
        self._claims.notify(None)
        if freed:
            self._free()
        else:
            for room in self._rooms():
                room.hide()
        if self.on_gone is not None:
            self.on_gone()

    def take_content(self) -> Content | None:
        """Give up the bytes, which nobody uses any more, to the store."""
        content, self._content = self._content, None
        return content

    def _free(self) -> None:
        rooms = self._rooms()
        self._content = self.growth = None
        self._home.medium.discard(rooms)

    def _rooms(self) -> list[Room]:
        rooms = (self._content, None if self.growth is None else self.growth.room)
        return [room for room in rooms if room is not None]
