"""What every store must do, whatever its medium is: how pieces come to be, and who waits for them.

A subclass says how to make one::

    class TestMemory(PiecesContract):
        @pytest.fixture
        def store(self) -> Iterator[Watched]: ...
"""

from __future__ import annotations

import asyncio

import pytest

from pantala.errors import InvalidRequest, PieceNotFound, TaskDeleted, TimedOut
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import ByteRange
from pantala.model.task import PieceRecord, Traffic
from pantala.ports import fill
from pantala.storage.home import Reason

from .stores import MIB, Watched, data_of


class PiecesContract:
    """Tests with pieces that a store must pass on each medium."""

    def test_a_piece_is_seen_once_it_is_published(self, store: Watched) -> None:
        """Claimed is not here; published it is, as it was received."""
        holding = store.add("t", 3 * MIB + 10)
        holding.reserve([1, 3])
        claim = holding.claim(3)
        fill(claim.sink, data_of(3, 10))
        with pytest.raises(PieceNotFound):
            holding.view(ByteRange(3 * MIB, 10))
        store.time = 1002.5
        published = store.publish(claim)

        assert published == PieceRecord(
            number=3,
            offset=3 * MIB,
            length=10,
            digest=piece_digest(crc32(data_of(3, 10))),
            parent_id="parent",
            traffic=Traffic.REMOTE_PEER,
            cost=2.5,
            created_at=1002.5,
        )
        assert dict(holding.pieces) == {3: published}
        assert holding.view(ByteRange(3 * MIB + 2, 5)) == data_of(3, 10)[2:7]
        assert bytes(holding.view(ByteRange(0, 0))) == b""
        assert claim.over.is_set()

    def test_a_claim_can_be_abandoned(self, store: Watched) -> None:
        """Another may try; what was received of it is not here."""
        holding = store.add("t", MIB)
        holding.reserve([0])
        holding.claim(0).abandon()
        assert not holding.pieces
        store.bring(holding, 0)
        assert holding.complete

    def test_what_is_published_is_not_abandoned(self, store: Watched) -> None:
        """Whoever has published it may leave before the journal has it."""
        holding = store.add("t", MIB)
        holding.reserve([0])
        claim = holding.claim(0)
        fill(claim.sink, data_of(0, MIB))
        store.begin_to_publish(claim)
        claim.abandon()
        store.wait(claim)
        assert holding.complete

    @pytest.mark.parametrize("why", ["claimed", "here", "not reserved"])
    def test_what_cannot_be_claimed(self, store: Watched, why: str) -> None:
        """Two receivers in one place would be a bug of ours."""
        holding = store.add("t", 2 * MIB)
        holding.reserve([0])
        if why == "claimed":
            claim = holding.claim(0)
        elif why == "here":
            store.bring(holding, 0)
        with pytest.raises(ValueError, match="cannot be claimed"):
            holding.claim(1 if why == "not reserved" else 0)
        if why == "claimed":
            claim.abandon()

    def test_the_view_of_a_claim_ends_with_it(self, store: Watched) -> None:
        """No late write into a verified piece."""
        holding = store.add("t", 2 * MIB)
        holding.reserve([0, 1])
        first, second = holding.claim(0), holding.claim(1)
        store.publish(first)
        second.abandon()
        for claim in (first, second):
            with pytest.raises(ValueError, match=r"released|closed"):
                claim.sink.window(0)

    def test_the_last_piece_completes_it(self, store: Watched) -> None:
        """And nothing else does."""
        holding = store.add("t", 2 * MIB)
        holding.reserve([0, 1])
        store.bring(holding, 1)
        assert (holding.complete, holding.record.finished_at) == (False, None)
        store.time = 1005.0
        store.bring(holding, 0)
        assert (holding.complete, holding.record.finished_at) == (True, 1005.0)

    def test_an_empty_file_is_complete(self, store: Watched) -> None:
        """It has no bytes, and is nowhere."""
        holding = store.add("t", 0)
        holding.reserve([])
        holding.settle()

        assert (holding.complete, holding.total, holding.reserved_bytes) == (True, 0, 0)
        assert holding.record.finished_at == 1000.0
        assert holding.hand_off() is None
        assert bytes(holding.view(ByteRange(0, 0))) == b""
        assert store.get(store.kind, "t") is holding

    def test_a_view_takes_every_piece_it_touches(self, store: Watched) -> None:
        """The message names the first that is missing."""
        holding = store.add("t", 4 * MIB)
        holding.reserve(range(4))
        for number in (0, 1, 3):
            store.bring(holding, number)

        assert holding.view(ByteRange(MIB - 1, 2)) == data_of(0, MIB)[-1:] + data_of(1, MIB)[:1]
        with pytest.raises(PieceNotFound, match="piece 2 of task t"):
            holding.view(ByteRange(MIB, MIB + 1))
        assert holding.view(ByteRange(0, MIB)).readonly

    def test_what_is_not_known_yet(self, store: Watched) -> None:
        """Of a task of unknown length there are no pieces."""
        holding = store.open(store.record("t", None, None))
        for ask in (
            lambda: holding.total,
            lambda: holding.content,
            lambda: holding.piece(0),
            lambda: holding.view(ByteRange(0, 1)),
        ):
            with pytest.raises(PieceNotFound):
                ask()
        assert not holding.complete
        assert not holding.fully_reserved
        assert holding.hand_off() is None

    def test_a_piece_that_does_not_exist(self, store: Watched) -> None:
        """Neither can it be reserved, and nothing changes by trying."""
        holding = store.add("t", MIB)
        with pytest.raises(InvalidRequest):
            holding.piece(1)
        with pytest.raises(InvalidRequest):
            holding.reserve([0, 1])
        assert store.ledger.used == 0

    async def test_waiting_for_a_claim(self, store: Watched) -> None:
        """Everybody who waits gets it."""
        holding = store.add("t", MIB)
        holding.reserve([0])
        claim = holding.claim(0)
        waiting = [asyncio.ensure_future(holding.wait_for_piece(0, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        published = store.publish(claim)

        assert await asyncio.gather(*waiting) == [published] * 3
        assert await holding.wait_for_piece(0, 60) is published

    async def test_waiting_for_a_claim_that_is_abandoned(self, store: Watched) -> None:
        """If nobody else has claimed it by then, it is not here."""
        holding = store.add("t", MIB)
        holding.reserve([0])
        first = holding.claim(0)
        waiting = asyncio.ensure_future(holding.wait_for_piece(0, 60))
        await asyncio.sleep(0)
        first.abandon()
        second = holding.claim(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        second.abandon()
        with pytest.raises(PieceNotFound, match="piece 0 of task t not found"):
            await waiting

    async def test_nobody_waits_for_ever(self, store: Watched) -> None:
        """Nor for what nobody fetches."""
        holding = store.add("t", 2 * MIB)
        holding.reserve([0])
        claim = holding.claim(0)
        with pytest.raises(TimedOut, match="piece 0 of task t is still on its way"):
            await holding.wait_for_piece(0, 0.001)
        with pytest.raises(PieceNotFound):
            await holding.wait_for_piece(1, 60)
        claim.abandon()

    async def test_waiting_for_what_is_deleted(self, store: Watched) -> None:
        """Those who wait are told when its receiver has let go."""
        holding = store.add("t", MIB)
        holding.reserve([0])
        lease, claim = holding.lease(), holding.claim(0)
        waiting = asyncio.ensure_future(holding.wait_for_piece(0, 60))
        await asyncio.sleep(0)
        store.remove(holding, Reason.DELETED)
        with pytest.raises(TaskDeleted, match="task t was deleted"):
            store.publish(claim)
        with pytest.raises(TaskDeleted, match="task t was deleted"):
            await waiting
        lease.end()

    async def test_watching(self, store: Watched) -> None:
        """Every piece once, and that there is other news."""
        holding = store.add("t", 2 * MIB)
        holding.reserve([0, 1])
        with holding.watch() as first, holding.watch() as second:
            holding.coming = frozenset({0, 1})
            store.bring(holding, 1)
            holding.claim(0).abandon()
            holding.coming = frozenset()
            store.remove(holding, Reason.DELETED)
        news = [first.get_nowait() for _ in range(first.qsize())]

        assert news == [None, 1, None, None]
        assert second.qsize() == 4
        assert not holding._claims._watchers  # noqa: SLF001  nobody else can say
