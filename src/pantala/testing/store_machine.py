"""A store of any medium in the hands of hypothesis: four tasks, room for two and a half of them."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pantala.errors import NoRoom
from pantala.model.pieces import ByteRange
from pantala.ports import fill
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.leases import Lease

from .stores import Watched, data_of

NAMES: Final = "abcd"
PIECES: Final = 4
PIECE: Final = 100 * 1024


class StoreMachine(RuleBasedStateMachine):
    """Four tasks in room for two and a half of them; every byte is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make(10 * PIECE)
        #: Every holding that was ever used and is not forgotten yet, with its leases.
        self.leases: list[tuple[Holding, Lease]] = []
        self.reserved: dict[Holding, set[int]] = {}
        #: Whose memory others may have got hold of.
        self.handed_off: set[Holding] = set()

    def make(self, capacity: int) -> Watched:
        """An empty store."""
        raise NotImplementedError

    def allocated(self, holding: Holding) -> int:
        """Bytes that the system has given it."""
        raise NotImplementedError

    def holding(self, name: str) -> Holding | None:
        """What is held under *name*."""
        return self.store.get(self.store.kind, name)

    @rule(
        name=st.sampled_from(NAMES),
        numbers=st.sets(st.integers(0, PIECES - 1)) | st.just(set(range(PIECES))),
        early=st.booleans(),
    )
    def reserve(self, name: str, numbers: set[int], early: bool) -> None:  # noqa: FBT001  hypothesis calls by name
        """Open it if need be."""
        holding = self.store.add(name, PIECES * PIECE, PIECE)
        before = self.store.ledger.used, list(self.store)
        try:
            holding.reserve(numbers, early=early)
        except NoRoom:
            assert (self.store.ledger.used, list(self.store)) == before
        else:
            self.reserved.setdefault(holding, set()).update(numbers)

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, PIECES - 1), good=st.booleans())
    def receive(self, name: str, number: int, good: bool) -> None:  # noqa: FBT001  hypothesis calls by name
        """All of it or half."""
        holding = self.holding(name)
        if holding is None or number not in self.reserved.get(holding, ()):
            return
        if number in holding.pieces:
            return
        if good:
            self.store.bring(holding, number)
            return
        claim = holding.claim(number)
        fill(claim.sink, b"?" * (PIECE // 2))
        claim.abandon()

    @rule(name=st.sampled_from(NAMES))
    def lease(self, name: str) -> None:
        """Somebody uses a task: it must stay."""
        holding = self.holding(name)
        if holding is not None:
            self.leases.append((holding, holding.lease()))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """Somebody uses a task no more."""
        _, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        lease.end()

    @rule(name=st.sampled_from(NAMES))
    def settle(self, name: str) -> None:
        """A flight ends: what did not come gives its room back."""
        holding = self.holding(name)
        if holding is not None:
            holding.settle()
            if holding in self.reserved and self.gives_back(holding):
                self.reserved[holding] &= set(holding.pieces)

    def gives_back(self, holding: Holding) -> bool:
        """What did not come of it gives its room back."""
        return holding not in self.handed_off

    @rule(name=st.sampled_from(NAMES))
    def hand_off(self, name: str) -> None:
        """Whoever gets a descriptor sees nothing of other tasks."""
        holding = self.holding(name)
        fd = None if holding is None else holding.hand_off()
        if holding is None or fd is None:
            return
        self.handed_off.add(holding)
        assert os.fstat(fd).st_size == PIECES * PIECE
        for number in range(PIECES):
            seen = os.pread(fd, PIECE, number * PIECE)
            if number in holding.pieces:
                assert seen == data_of(number, PIECE)
            else:
                assert not seen.strip(b"?\0")
        os.close(fd)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        """A task is deleted by hand, used or not."""
        holding = self.holding(name)
        if holding is not None:
            self.store.remove(holding, Reason.DELETED)

    def teardown(self) -> None:
        """Everybody goes, and nothing is left."""
        try:
            self.store.empty()
            for _, lease in self.leases:
                lease.end()
            assert (self.store.ledger.used, self.store.ledger.leased) == (0, 0)
        finally:
            self.store.close()

    @invariant()
    def sums_are_right(self) -> None:
        """Every reserved byte is somebody's, and counts once."""
        self.store.recall()
        alive = {*self.store, *(holding for holding, _ in self.leases)}
        self.reserved = {h: numbers for h, numbers in self.reserved.items() if h in alive}
        used = sum(len(numbers) * PIECE for numbers in self.reserved.values())
        assert self.store.ledger.used == used <= self.store.ledger.capacity
        leased = {holding for holding, _ in self.leases}
        assert self.store.ledger.leased == sum(h.reserved_bytes for h in leased)
        assert all(h.gone or self.holding(h.id) is h for h in alive)

    @invariant()
    def room_is_accounted_for(self) -> None:
        """The system has given no task more than it has reserved."""
        for holding in self.store:
            if self.reserved.get(holding):
                assert self.allocated(holding) <= holding.reserved_bytes

    @invariant()
    def bytes_are_right(self) -> None:
        """Of every piece that anybody can see."""
        for holding in {*self.store, *(holding for holding, _ in self.leases)}:
            for number, piece in holding.pieces.items():
                view = holding.view(ByteRange(piece.offset, piece.length))
                assert view[:100] == data_of(number, PIECE)[:100]
                assert view[-1] == data_of(number, PIECE)[-1]
