"""What every store must do, whatever its medium is: who has room, who goes for it, and what ends.

A subclass says how to make one::

    class TestMemory(RoomContract):
        @pytest.fixture
        def store(self) -> Iterator[Watched]: ...
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from pantala.errors import NoRoom, PieceNotFound, TaskDeleted
from pantala.model.digest import crc32
from pantala.model.pieces import ByteRange
from pantala.model.task import Traffic
from pantala.ports import fill
from pantala.storage.home import Reason
from pantala.storage.store import Figures

from .stores import CAPACITY, MIB, Watched, data_of

#: By so much a task of unknown length grows at a time, in every medium.
STEP = 4 * MIB

REMOTE = Traffic.REMOTE_PEER
#: Seconds to wait for what is there, or is not.
LIMIT = 1.0


class RoomContract:
    """Tests with room that a store must pass on each medium."""

    def test_reserving_twice_costs_nothing(self, store: Watched) -> None:
        """A put that is repeated must not leak."""
        holding = store.add("t", 10 * MIB)
        for _ in range(3):
            holding.reserve(range(10))
            store.open(store.record("t", 10 * MIB))
        assert store.ledger.used == 10 * MIB
        assert holding.fully_reserved

    def test_what_does_not_fit_changes_nothing(self, store: Watched) -> None:
        """Those who would not have sufficed stay."""
        other = store.fill("other", 20 * MIB)
        with other.lease():
            holding = store.add("t", 60 * MIB)
            with pytest.raises(NoRoom, match=r"62914560 bytes needed, capacity \d+, 20971520"):
                holding.reserve(range(60))
            assert store.ledger.used == 20 * MIB
            assert not store.removed
            with pytest.raises(ValueError, match="cannot be claimed"):
                holding.claim(0)

    def test_eviction_is_one_act(self, store: Watched) -> None:
        """The one used longest ago goes: bytes, records, and one word about it."""
        for name in "abcd":
            store.fill(name, 16 * MIB)
        for name in "bda":
            store.find(name).touch()
        store.add("e", 20 * MIB).reserve(range(20))

        assert store.removed == [("c", Reason.LRU), ("b", Reason.LRU)]
        assert sorted(h.id for h in store) == ["a", "d", "e"]
        assert store.ledger.used == 52 * MIB

    def test_tasks_without_bytes_are_evicted_too(self, store: Watched) -> None:
        """What is known of them has its limit; those in use stay, whatever their bytes."""
        store.fill("whole", 64 * MIB)
        used = store.add("used", 0)
        lease = used.lease()
        headers = {"X": "v" * 100_000}
        for number in range(1000):
            store.open(replace(store.record(f"{number}", 0), response_header=headers))
            if store.removed:
                break

        assert store.removed == [("whole", Reason.LRU), ("0", Reason.LRU)]
        assert 100 < number < 200
        store.open(replace(store.record("next", 0), response_header=headers))
        assert store.removed[2:] == [("1", Reason.LRU)]
        assert not used.gone
        assert store.ledger.used == 0
        lease.end()
        assert store.fill("all", 64 * MIB).complete

    def test_nobody_in_use_is_evicted(self, store: Watched) -> None:
        """A lease keeps it, whoever came before or after."""
        store.fill("a", 30 * MIB)
        used = store.find("a")
        with used.lease():
            store.fill("b", 30 * MIB)
            store.add("c", 10 * MIB).reserve(range(10))
            assert store.removed == [("b", Reason.LRU)]
            assert bytes(used.view(ByteRange(0, MIB))) == data_of(0, MIB)

    def test_settling_spares_what_is_under_way(self, store: Watched) -> None:
        """A claim keeps its room."""
        holding = store.add("t", 3 * MIB)
        holding.reserve(range(3))
        store.bring(holding, 0)
        claim = holding.claim(1)
        holding.settle()
        assert holding.reserved_bytes == 2 * MIB
        claim.abandon()

    def test_nothing_came(self, store: Watched) -> None:
        """A task of which there is nothing is none."""
        holding = store.add("t", 4 * MIB)
        holding.reserve(range(4))
        holding.settle()
        holding.settle()

        assert store.removed == [("t", Reason.FAILED)]
        assert store.ledger.used == 0

    def test_nothing_came_of_a_small_one(self, store: Watched) -> None:
        """However it lies."""
        holding = store.add("t", 1000)
        holding.reserve([0])
        holding.settle()
        assert store.removed == [("t", Reason.FAILED)]

    def test_figures(self, store: Watched) -> None:
        """How full it is; what was ever published is never less."""
        holding = store.fill("a", 2 * MIB)
        store.add("b", 4 * MIB).reserve([0, 1, 2])
        with holding.lease():
            assert store.figures() == Figures(
                capacity=CAPACITY,
                used=5 * MIB,
                leased=2 * MIB,
                pinned=0,
                published=2 * MIB,
                tasks=2,
            )
            assert holding.lease_count == 1
        store.remove(holding, Reason.DELETED)
        assert store.figures() == Figures(
            capacity=CAPACITY, used=3 * MIB, leased=0, pinned=0, published=2 * MIB, tasks=1
        )

    def test_repr_is_a_status_line(self, store: Watched) -> None:
        """Fit for a log."""
        assert repr(store.fill("t", 2 * MIB)).startswith("<Holding t 2 pieces, ")

    def test_deleted_while_it_is_used(self, store: Watched) -> None:
        """It takes no new users; those it has keep what they have, and it counts until they go."""
        holding = store.fill("t", 4 * MIB)
        first, second = holding.lease(), holding.lease()
        store.remove(holding, Reason.DELETED)
        store.remove(holding, Reason.DELETED)

        assert store.removed == [("t", Reason.DELETED)]
        with pytest.raises(TaskDeleted):
            holding.lease()
        with pytest.raises(TaskDeleted):
            holding.reserve([0])
        holding.touch()
        holding.settle()
        assert bytes(holding.view(ByteRange(0, MIB))) == data_of(0, MIB)
        assert (holding.record.content_length, len(holding.pieces)) == (4 * MIB, 4)
        assert store.ledger.used == 4 * MIB
        first.end()
        first.end()
        assert store.ledger.used == 4 * MIB
        second.end()
        assert store.ledger.used == 0
        with pytest.raises(PieceNotFound):
            holding.view(ByteRange(0, MIB))

    def test_deleted_while_it_is_received(self, store: Watched) -> None:
        """The receiver may go on into memory that nobody will see; its successor is another."""
        holding = store.add("t", MIB)
        holding.reserve([0])
        called: list[None] = []
        holding.on_gone = lambda: called.append(None)
        lease, claim = holding.lease(), holding.claim(0)
        store.remove(holding, Reason.DELETED)
        assert len(called) == 1
        with pytest.raises(TaskDeleted):
            holding.claim(0)
        successor = store.fill("t", MIB)
        fill(claim.sink, bytes(MIB))
        with pytest.raises(TaskDeleted):
            store.publish(claim)
        assert claim.over.is_set()
        lease.end()

        assert bytes(successor.view(ByteRange(0, MIB))) == data_of(0, MIB)
        assert store.ledger.used == MIB

    def test_another_file_under_the_same_name(self, store: Watched) -> None:
        """What is held is from before it changed, and goes, even when it is used."""
        for change in (
            {"content_length": 3 * MIB},
            {"piece_length": 2 * MIB},
            {"version": "2"},
        ):
            store.removed.clear()
            old = store.open(replace(store.record("t", 2 * MIB), version="1"))
            with old.lease():
                new = store.open(replace(old.record, **change))
                assert new is not old
                assert old.gone
            assert store.removed == [("t", Reason.CHANGED)]
            store.remove(new, Reason.DELETED)

    def test_an_unknown_version_may_be_any(self, store: Watched) -> None:
        """What the swarm knows of a task has none; it is learnt later."""
        old = store.open(store.record("t", 2 * MIB))
        new = store.open(replace(store.record("t", 2 * MIB), version="1"))
        again = store.open(store.record("t", 2 * MIB))

        assert old is new is again
        assert again.record.version == "1"

    def test_what_nobody_named_a_version_of(self, store: Watched) -> None:
        """Once some of it is here, it is not joined with what has one."""
        old = store.open(store.record("t", 2 * MIB))
        old.reserve([0])
        store.bring(old, 0)
        assert store.open(replace(store.record("t", 2 * MIB), version="1")) is not old
        assert old.gone

    def test_time_to_live(self, store: Watched) -> None:
        """It counts from the last use, and those in use are spared."""
        for name in "abc":
            store.fill(name, MIB)
        used, leased = store.find("b"), store.find("c")
        store.time = 1030.0
        used.touch()
        store.time = 1060.0
        with leased.lease():
            assert store.expire({store.kind: 60.0}) == 1
            assert store.removed == [("a", Reason.TTL)]
        store.time = 1089.0
        assert store.expire({store.kind: 60.0}) == 1
        store.time = 1090.0
        assert store.expire({store.kind: 60.0}) == 1
        assert store.removed == [("a", Reason.TTL), ("c", Reason.TTL), ("b", Reason.TTL)]

    def test_growing(self, store: Watched) -> None:
        """Room is taken step by step, others go for it, and what was too much comes back."""
        store.fill("old", 60 * MIB)
        holding = store.open(store.record("t", None, None))
        lease = holding.lease()
        data = data_of(1, 2 * STEP)
        for at in (0, STEP):
            fill(holding.extend(), data[at : at + STEP])
            assert holding.reserved_bytes == at + STEP
        assert store.removed == [("old", Reason.LRU)]
        holding.finish_growing(STEP + 100, STEP)

        assert (holding.total, holding.record.piece_count) == (STEP + 100, 2)
        assert store.ledger.used == store.ledger.leased == STEP + 100
        assert store.get(store.kind, "t") is holding
        assert holding.fully_reserved
        assert not holding.pieces
        for number in (0, 1):
            store.publish(holding.claim(number))
        assert holding.complete
        assert holding.view(ByteRange(0, holding.total)) == data[: STEP + 100]
        lease.end()

    async def test_what_grows_can_be_read(self, store: Watched) -> None:
        """Step after step, and nothing of one that is not whole; none of it is a piece."""
        holding = store.open(store.record("t", None, None))
        data = data_of(1, 2 * STEP)
        with holding.lease(), holding.watch() as news:
            for at in (0, STEP):
                fill(holding.extend(), data[at : at + STEP])
                with pytest.raises(PieceNotFound):
                    await holding.wait_for_piece(at // STEP, LIMIT)
                with pytest.raises(PieceNotFound):
                    holding.extent(ByteRange(at, STEP))
                holding.grown(crc32(data[at : at + STEP]), parent_id="p", traffic=REMOTE)
                assert news.get_nowait() is None
            for at in (0, STEP):
                step = await holding.wait_for_piece(at // STEP, LIMIT)
                assert (step.offset, step.length, step.parent_id) == (at, STEP, "p")
                with closing(holding.extent(ByteRange(at, STEP))) as extent:
                    extent.check(step.digest)
                    assert extent.read(0, STEP) == data[at : at + STEP]
            assert not holding.pieces
            holding.settle()

    def test_the_rest_comes_otherwise(self, store: Watched) -> None:
        """Where others know how long it is, what is here is kept, and takes what it takes."""
        holding = store.open(store.record("t", None, None))
        lease = holding.lease()
        data = data_of(1, 3 * STEP + 100)
        for at in (0, STEP, 2 * STEP):
            fill(holding.extend(), data[at : at + STEP])
        holding.finish_growing(len(data), 2 * STEP, here=2 * STEP)

        assert store.ledger.used == 2 * STEP
        store.publish(holding.claim(0))
        with pytest.raises(ValueError, match="cannot be claimed"):
            holding.claim(1)
        holding.reserve([1])
        claim = holding.claim(1)
        fill(claim.sink, data[2 * STEP :])
        store.publish(claim)
        assert holding.complete
        assert holding.view(ByteRange(0, holding.total)) == data
        assert store.ledger.used == len(data)
        lease.end()

    def test_it_grew_to_nothing(self, store: Watched) -> None:
        """An empty task, and no bytes reserved."""
        holding = store.open(store.record("t", None, None))
        holding.extend().close()
        holding.finish_growing(0, STEP)
        holding.settle()
        assert (holding.complete, store.ledger.used) == (True, 0)

    def test_it_grew_too_large(self, store: Watched) -> None:
        """It never evicts itself, and what it had is free again."""
        holding = store.open(store.record("t", None, None))
        lease = holding.lease()
        for _ in range(CAPACITY // STEP):
            holding.extend().close()
        with pytest.raises(NoRoom):
            holding.extend()
        assert not store.removed
        holding.settle()
        assert store.removed == [("t", Reason.FAILED)]
        lease.end()
        assert store.ledger.used == 0

    def test_deleted_while_it_grows(self, store: Watched) -> None:
        """Nothing of it is left, and nothing comes back under its name."""
        holding = store.open(store.record("t", None, None))
        lease = holding.lease()
        holding.extend().close()
        store.remove(holding, Reason.DELETED)
        with pytest.raises(TaskDeleted):
            holding.extend()
        with pytest.raises(TaskDeleted):
            holding.finish_growing(100, STEP)
        assert store.get(store.kind, "t") is None
        holding.settle()
        lease.end()
        assert store.ledger.used == 0

    def test_it_failed_before_it_grew(self, store: Watched) -> None:
        """Not a byte came."""
        holding = store.open(store.record("t", None, None))
        holding.settle()
        assert store.removed == [("t", Reason.FAILED)]
