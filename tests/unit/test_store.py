"""storage/store.py and what it is made of: bytes, records and users of a task are one thing."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pantala.core.ledger import Ledger
from pantala.errors import (
    InvalidRequest,
    OutOfDescriptors,
    OutOfSpace,
    PieceNotFound,
    TaskDeleted,
    TimedOut,
)
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.journal import NullJournal, Written
from pantala.storage.leases import Handouts, Lease
from pantala.storage.memory import MemoryMedium
from pantala.storage.segments import GROWTH_STEP, Segment
from pantala.storage.store import Figures, Store

MIB = 1 << 20
CAPACITY = 64 * MIB
TTL = {Kind.CACHE: 60.0}


class Noted(NullJournal):
    """What a journal that keeps it would have in it."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[TaskRecord, dict[int, PieceRecord]]] = {}

    def task(self, record: TaskRecord) -> None:
        _, pieces = self.tasks.get(record.id, (record, {}))
        self.tasks[record.id] = record, pieces

    def piece(self, record: TaskRecord, piece: PieceRecord, written: Written) -> None:
        self.tasks[record.id][1][piece.number] = piece
        super().piece(record, piece, written)

    def deleted(self, kind: Kind, task_id: str) -> None:
        assert kind is Kind.CACHE
        del self.tasks[task_id]


class Watched(Store):
    """A store with a clock that is set by hand, and a list of what left."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.time = 1000.0
        self.noted = Noted()
        super().__init__(MemoryMedium(capacity), self.noted, clock=lambda: self.time)
        self.removed: list[tuple[str, Reason]] = []
        self.on_removed = self._note

    def _note(self, holding: Holding, reason: Reason) -> None:
        # Whoever hears of it must find nothing of it any more.
        assert self.get(holding.kind, holding.id) is None
        assert holding.id not in self.noted.tasks
        assert holding.gone
        self.removed.append((holding.id, reason))

    def add(self, name: str, length: int, piece_length: int = MIB) -> Holding:
        """A task of which nothing is here."""
        return self.open(record(name, length, piece_length))

    def fill(self, name: str, length: int) -> Holding:
        """A task of which everything is here."""
        holding = self.add(name, length)
        holding.reserve(range(holding.record.piece_count or 0))
        for number in range(holding.record.piece_count or 0):
            publish(holding, number)
        return holding


def record(name: str, length: int | None, piece_length: int | None = MIB) -> TaskRecord:
    """A record of a task of this name."""
    return TaskRecord(
        kind=Kind.CACHE,
        id=name,
        url=f"http://origin/{name}",
        created_at=1000.0,
        updated_at=1000.0,
        content_length=length,
        piece_length=piece_length,
    )


def data_of(number: int, length: int) -> bytes:
    """What piece *number* contains."""
    return random.Random(number).randbytes(length)


def publish(holding: Holding, number: int) -> PieceRecord:
    """Receive a piece and publish it."""
    claim = holding.claim(number)
    fill(claim.sink, data_of(number, claim.piece.length))
    return claim.publish(f"crc32:{number}", parent_id="parent", traffic=Traffic.REMOTE_PEER)


def allocated(holding: Holding) -> int:
    """Bytes of memory that the kernel has given it."""
    assert isinstance(holding.content, Segment)
    return os.fstat(holding.content._fd).st_blocks * 512


def inode(holding: Holding) -> int:
    """Which file in memory it is."""
    assert isinstance(holding.content, Segment)
    return os.fstat(holding.content._fd).st_ino


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def store() -> Iterator[Watched]:
    """Room for 64 MiB; empty in the end."""
    store = Watched()
    yield store
    store.close()
    assert (store.ledger.used, store.ledger.records, len(store)) == (0, 0, 0)


# -- pieces --------------------------------------------------------------------------------------


def test_a_piece_is_seen_once_it_is_published(store: Watched) -> None:
    """Claimed is not here; published it is, as it was received."""
    holding = store.add("t", 3 * MIB + 10)
    holding.reserve([1, 3])
    claim = holding.claim(3)
    fill(claim.sink, data_of(3, 10))
    with pytest.raises(PieceNotFound):
        holding.view(ByteRange(3 * MIB, 10))
    store.time = 1002.5
    published = claim.publish("crc32:3", parent_id="p", traffic=Traffic.REMOTE_PEER)

    assert published == PieceRecord(
        number=3,
        offset=3 * MIB,
        length=10,
        digest="crc32:3",
        parent_id="p",
        traffic=Traffic.REMOTE_PEER,
        cost=2.5,
        created_at=1002.5,
    )
    assert dict(holding.pieces) == {3: published}
    assert holding.view(ByteRange(3 * MIB + 2, 5)) == data_of(3, 10)[2:7]
    assert bytes(holding.view(ByteRange(0, 0))) == b""
    assert claim.over.is_set()


def test_a_claim_can_be_abandoned(store: Watched) -> None:
    """Another may try; what was received of it is not here."""
    holding = store.add("t", MIB)
    holding.reserve([0])
    holding.claim(0).abandon()
    assert not holding.pieces
    publish(holding, 0)
    assert holding.complete


@pytest.mark.parametrize("why", ["claimed", "here", "not reserved"])
def test_what_cannot_be_claimed(store: Watched, why: str) -> None:
    """Two receivers in one place would be a bug of ours."""
    holding = store.add("t", 2 * MIB)
    holding.reserve([0])
    if why == "claimed":
        claim = holding.claim(0)
    elif why == "here":
        publish(holding, 0)
    with pytest.raises(ValueError, match="cannot be claimed"):
        holding.claim(1 if why == "not reserved" else 0)
    if why == "claimed":
        claim.abandon()


def test_the_view_of_a_claim_ends_with_it(store: Watched) -> None:
    """No late write into a verified piece."""
    holding = store.add("t", 2 * MIB)
    holding.reserve([0, 1])
    first, second = holding.claim(0), holding.claim(1)
    first.publish("d", parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
    second.abandon()
    for claim in (first, second):
        with pytest.raises(ValueError, match="released"):
            claim.sink.window(0)


def test_the_last_piece_completes_it(store: Watched) -> None:
    """And nothing else does."""
    holding = store.add("t", 2 * MIB)
    holding.reserve([0, 1])
    publish(holding, 1)
    assert (holding.complete, holding.record.finished_at) == (False, None)
    store.time = 1005.0
    publish(holding, 0)
    assert (holding.complete, holding.record.finished_at) == (True, 1005.0)


def test_an_empty_content_is_complete(store: Watched) -> None:
    """It has no bytes, and is nowhere."""
    holding = store.add("t", 0)
    holding.reserve([])
    holding.settle()

    assert (holding.complete, holding.total, holding.reserved_bytes) == (True, 0, 0)
    assert holding.record.finished_at == 1000.0
    assert holding.handout() is None
    assert bytes(holding.view(ByteRange(0, 0))) == b""
    assert store.get(Kind.CACHE, "t") is holding


def test_a_view_takes_every_piece_it_touches(store: Watched) -> None:
    """The message names the first that is missing."""
    holding = store.add("t", 4 * MIB)
    holding.reserve(range(4))
    for number in (0, 1, 3):
        publish(holding, number)

    assert holding.view(ByteRange(MIB - 1, 2)) == data_of(0, MIB)[-1:] + data_of(1, MIB)[:1]
    with pytest.raises(PieceNotFound, match="piece 2 of task t"):
        holding.view(ByteRange(MIB, MIB + 1))
    assert holding.view(ByteRange(0, MIB)).readonly


def test_what_is_not_known_yet(store: Watched) -> None:
    """Of a content of unknown length there are no pieces."""
    holding = store.open(record("t", None, None))
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
    assert holding.handout() is None


def test_a_piece_that_does_not_exist(store: Watched) -> None:
    """Neither can it be reserved, and nothing changes by trying."""
    holding = store.add("t", MIB)
    with pytest.raises(InvalidRequest):
        holding.piece(1)
    with pytest.raises(InvalidRequest):
        holding.reserve([0, 1])
    assert store.ledger.used == 0


# -- waiting -------------------------------------------------------------------------------------


async def test_waiting_for_a_claim(store: Watched) -> None:
    """Everybody who waits gets it."""
    holding = store.add("t", MIB)
    holding.reserve([0])
    claim = holding.claim(0)
    waiting = [asyncio.ensure_future(holding.wait_for_piece(0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    published = claim.publish("d", parent_id=None, traffic=Traffic.BACK_TO_SOURCE)

    assert await asyncio.gather(*waiting) == [published] * 3
    assert await holding.wait_for_piece(0, 60) is published


async def test_waiting_for_a_claim_that_is_abandoned(store: Watched) -> None:
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


async def test_nobody_waits_for_ever(store: Watched) -> None:
    """Nor for what nobody fetches."""
    holding = store.add("t", 2 * MIB)
    holding.reserve([0])
    claim = holding.claim(0)
    with pytest.raises(TimedOut, match="piece 0 of task t is still on its way"):
        await holding.wait_for_piece(0, 0.001)
    with pytest.raises(PieceNotFound):
        await holding.wait_for_piece(1, 60)
    claim.abandon()


async def test_waiting_for_what_is_deleted(store: Watched) -> None:
    """Those who wait are told when its receiver has let go."""
    holding = store.add("t", MIB)
    holding.reserve([0])
    lease, claim = holding.lease(), holding.claim(0)
    waiting = asyncio.ensure_future(holding.wait_for_piece(0, 60))
    await asyncio.sleep(0)
    store.remove(holding, Reason.DELETED)
    with pytest.raises(TaskDeleted, match="task t was deleted"):
        claim.publish("d", parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
    with pytest.raises(TaskDeleted, match="task t was deleted"):
        await waiting
    lease.end()


async def test_watching(store: Watched) -> None:
    """Every piece once, and that there is other news."""
    holding = store.add("t", 2 * MIB)
    holding.reserve([0, 1])
    with holding.watch() as first, holding.watch() as second:
        holding.coming = frozenset({0, 1})
        publish(holding, 1)
        holding.claim(0).abandon()
        holding.coming = frozenset()
        store.remove(holding, Reason.DELETED)
    news = [first.get_nowait() for _ in range(first.qsize())]

    assert news == [None, 1, None, None]
    assert second.qsize() == 4
    assert holding._claims._watchers == set()


# -- room ----------------------------------------------------------------------------------------


def test_a_part_of_a_huge_content_takes_room_for_itself_only(store: Watched) -> None:
    """However large the whole, and whatever the kernel would have to say."""
    holding = store.add("t", 100 << 30)
    holding.reserve([50_000, 50_001])
    holding.reserve([50_001, 50_002])
    publish(holding, 50_001)

    assert store.ledger.used == holding.reserved_bytes == 3 * MIB
    assert allocated(holding) == MIB
    assert (holding.fully_reserved, holding.handout()) == (False, None)


def test_reserving_twice_costs_nothing(store: Watched) -> None:
    """A put that is repeated must not leak."""
    holding = store.add("t", 10 * MIB)
    for _ in range(3):
        holding.reserve(range(10))
        store.open(record("t", 10 * MIB))
    assert store.ledger.used == 10 * MIB
    assert holding.fully_reserved


def test_what_does_not_fit_changes_nothing(store: Watched) -> None:
    """Those who would not have sufficed stay."""
    other = store.fill("other", 20 * MIB)
    with other.lease():
        holding = store.add("t", 60 * MIB)
        with pytest.raises(OutOfSpace, match=r"62914560 bytes needed, capacity 67108864, 20971520"):
            holding.reserve(range(60))
        assert store.ledger.used == 20 * MIB
        assert not store.removed
        with pytest.raises(ValueError, match="cannot be claimed"):
            holding.claim(0)


def test_eviction_is_one_act(store: Watched) -> None:
    """The one used longest ago goes: bytes, records, and one word about it."""
    for name in "abcd":
        store.fill(name, 16 * MIB)
    for name in "bda":
        found = store.get(Kind.CACHE, name)
        assert found is not None
        found.touch()
    store.add("e", 20 * MIB).reserve(range(20))

    assert store.removed == [("c", Reason.LRU), ("b", Reason.LRU)]
    assert sorted(h.id for h in store) == ["a", "d", "e"]
    assert store.ledger.used == 52 * MIB


def test_tasks_without_bytes_are_evicted_too(store: Watched) -> None:
    """What is known of them has its limit; those in use stay, and their bytes are not concerned."""
    store.fill("whole", 64 * MIB)
    used = store.add("used", 0)
    lease = used.lease()
    headers = {"X": "v" * 100_000}
    for number in range(1000):
        store.open(replace(record(f"{number}", 0), response_header=headers))
        if store.removed:
            break

    assert store.removed == [("whole", Reason.LRU), ("0", Reason.LRU)]
    assert 100 < number < 200
    store.open(replace(record("next", 0), response_header=headers))
    assert store.removed[2:] == [("1", Reason.LRU)]
    assert not used.gone
    assert store.ledger.used == 0
    lease.end()
    assert store.fill("all", 64 * MIB).complete


def test_memory_passes_from_the_evicted_to_the_evictor(store: Watched) -> None:
    """No new page is needed; and nobody gets to see what was in the old ones."""
    old = store.fill("old", 48 * MIB)
    memory, file = old.content, inode(old)
    new = store.add("new", 48 * MIB + 10)
    new.reserve(range(49))

    assert (new.content, inode(new), store.removed) == (memory, file, [("old", Reason.LRU)])
    assert allocated(new) == 48 * MIB
    assert store.ledger.used == 48 * MIB + 10
    with pytest.raises(PieceNotFound):
        new.view(ByteRange(0, 10))
    for number in range(49):
        assert new.handout() is None
        publish(new, number)
    fd = new.handout()
    assert fd is not None
    assert os.fstat(fd).st_size == 48 * MIB + 10
    assert os.pread(fd, MIB, 7 * MIB) == data_of(7, MIB)
    assert os.pread(fd, 100, 48 * MIB) == data_of(48, 10)
    os.close(fd)


def test_the_best_memory_is_taken_and_the_rest_is_freed(store: Watched) -> None:
    """Of several that had to go."""
    for name, length in (("small", 10 * MIB), ("fits", 24 * MIB), ("large", 30 * MIB)):
        store.fill(name, length)
    fits = store.get(Kind.CACHE, "fits")
    assert fits is not None
    file, before = inode(fits), descriptors()
    store.add("new", 20 * MIB).reserve(range(20))
    assert [name for name, _ in store.removed] == ["small", "fits"]
    new = store.get(Kind.CACHE, "new")
    assert new is not None
    assert (inode(new), allocated(new)) == (file, 20 * MIB)
    assert descriptors() == before - 1, "a segment has one"


@pytest.mark.parametrize("why", ["a part", "early", "handed out", "in somebody's view"])
def test_memory_that_does_not_pass_on(store: Watched, why: str) -> None:
    """Where others could read in it, or it would count for less than it is."""
    old = store.fill("old", 60 * MIB)
    file = inode(old)
    view = None
    if why == "handed out":
        fd = old.handout()
        assert fd is not None
        os.close(fd)  # nobody has it any more, but its length is sealed
    if why == "in somebody's view":
        view = old.view(ByteRange(0, 100))
    new = store.add("new", 60 * MIB)
    new.reserve(range(59 if why == "a part" else 60), early=why == "early")

    assert inode(new) != file
    assert allocated(new) == 0
    if view is not None:
        assert view == data_of(0, MIB)[:100]
    early = new.handout()
    assert (early is None) == (why == "a part")
    if early is not None:
        assert os.pread(early, 100, 0) == bytes(100)
        os.close(early)


_LOCKED = """
import os, resource
from pantala.model.task import Kind, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage.store import Store
from pantala.storage.journal import NullJournal
from pantala.storage.memory import MemoryMedium

class Busy:
    # As the one that frees memory may be: it gets round to nothing.
    submit = staticmethod(lambda close: None)

MIB = 1 << 20
resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 * MIB, 8 * MIB))
if os.geteuid() == 0:
    os.setuid(65534)  # who may lock as much as the limit says, and no more
for early in (False, True):
    for old, new in ((4, 4), (8, 16), (16, 2), (5, 6)):
        old, new = old * MIB // 2, new * MIB // 2
        store = Store(
            MemoryMedium(8 * MIB, lock_pages=True, executor=Busy()),
            NullJournal(),
            clock=lambda: 1.0,
        )
        for name in [*"abcd"[: 8 * MIB // old], "new"]:
            length = new if name == "new" else old
            record = TaskRecord(
                kind=Kind.CACHE, id=name, url="u", created_at=1.0, updated_at=1.0,
                content_length=length, piece_length=length,
            )
            holding = store.open(record)
            holding.reserve([0], early=early)
            claim = holding.claim(0)
            fill(claim.sink, bytes(length))
            claim.publish("crc32:0", parent_id=None, traffic=Traffic.REMOTE_PEER)
        store.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="locks nothing elsewhere")
def test_locked_memory_within_a_limit_of_the_capacity() -> None:
    """What is evicted no longer counts when its successor comes, reused or not."""
    subprocess.run([sys.executable, "-c", _LOCKED], check=True, timeout=60)


def test_a_failed_download_in_memory_of_another(store: Watched) -> None:
    """What did not come is given back, and is nothing of the other's after."""
    store.fill("old", 60 * MIB)
    new = store.add("new", 60 * MIB)
    new.reserve(range(60))
    publish(new, 3)
    new.settle()

    assert (store.ledger.used, allocated(new)) == (MIB, MIB)
    new.reserve(range(60))
    assert new.handout() is None, "pages at the edge of a piece may hold what was there"
    assert new.view(ByteRange(3 * MIB, MIB)) == data_of(3, MIB)


def test_nobody_in_use_is_evicted(store: Watched) -> None:
    """A lease keeps it, whoever came before or after."""
    store.fill("a", 30 * MIB)
    used = store.get(Kind.CACHE, "a")
    assert used is not None
    with used.lease():
        store.fill("b", 30 * MIB)
        store.add("c", 10 * MIB).reserve(range(10))
        assert store.removed == [("b", Reason.LRU)]
        assert bytes(used.view(ByteRange(0, MIB))) == data_of(0, MIB)


def test_memory_that_was_not_needed_comes_back(store: Watched) -> None:
    """Half a piece was received when the download failed; two pieces are here."""
    holding = store.add("t", 5 * MIB)
    holding.reserve(range(5))
    publish(holding, 0)
    publish(holding, 4)
    claim = holding.claim(2)
    fill(claim.sink, data_of(2, MIB // 2))
    claim.abandon()
    assert allocated(holding) == 2 * MIB + MIB // 2
    holding.settle()

    assert holding.reserved_bytes == store.ledger.used == allocated(holding) == 2 * MIB
    assert bytes(holding.view(ByteRange(0, MIB))) == data_of(0, MIB)
    holding.reserve(range(5))
    assert store.ledger.used == 5 * MIB


def test_settling_spares_what_is_under_way(store: Watched) -> None:
    """A claim keeps its room."""
    holding = store.add("t", 3 * MIB)
    holding.reserve(range(3))
    publish(holding, 0)
    claim = holding.claim(1)
    holding.settle()
    assert holding.reserved_bytes == 2 * MIB
    claim.abandon()


def test_a_segment_in_others_hands_keeps_its_room(store: Watched) -> None:
    """A reader of its holes makes them memory."""
    holding = store.add("t", 4 * MIB)
    holding.reserve(range(4))
    publish(holding, 0)
    fd = holding.handout()
    assert fd is not None
    holding.settle()

    assert holding.reserved_bytes == 4 * MIB
    assert len(os.pread(fd, 4 * MIB, 0)) == 4 * MIB
    os.close(fd)


def test_nothing_came(store: Watched) -> None:
    """A task of which there is nothing is none."""
    holding = store.add("t", 4 * MIB)
    holding.reserve(range(4))
    holding.settle()
    holding.settle()

    assert store.removed == [("t", Reason.FAILED)]
    assert store.ledger.used == 0


def test_nothing_came_of_a_small_one(store: Watched) -> None:
    """Which is no segment."""
    holding = store.add("t", 1000)
    holding.reserve([0])
    holding.settle()
    assert store.removed == [("t", Reason.FAILED)]


def test_a_small_content_is_one_piece(store: Watched) -> None:
    """Without a descriptor to give."""
    holding = store.fill("t", 1000)
    holding.settle()
    assert (holding.complete, holding.handout()) == (True, None)
    assert bytes(holding.view(ByteRange(10, 20))) == data_of(0, 1000)[10:30]


def test_figures(store: Watched) -> None:
    """How full it is; what was ever published is never less."""
    holding = store.fill("a", 2 * MIB)
    store.add("b", 4 * MIB).reserve([0, 1, 2])
    with holding.lease():
        assert store.figures() == Figures(
            capacity=CAPACITY, used=5 * MIB, leased=2 * MIB, pinned=0, published=2 * MIB, tasks=2
        )
        assert holding.lease_count == 1
    store.remove(holding, Reason.DELETED)
    assert store.figures() == Figures(
        capacity=CAPACITY, used=3 * MIB, leased=0, pinned=0, published=2 * MIB, tasks=1
    )


def test_repr_is_a_status_line(store: Watched) -> None:
    """Fit for a log."""
    assert repr(store.fill("t", 2 * MIB)).startswith("<Holding t 2 pieces, ")


# -- deleting ------------------------------------------------------------------------------------


def test_deleted_while_it_is_used(store: Watched) -> None:
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


def test_deleted_while_it_is_received(store: Watched) -> None:
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
        claim.publish("d", parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
    assert claim.over.is_set()
    lease.end()

    assert bytes(successor.view(ByteRange(0, MIB))) == data_of(0, MIB)
    assert store.ledger.used == MIB


def test_another_content_under_the_same_name(store: Watched) -> None:
    """What is held is from before it changed, and goes, even when it is used."""
    for change in (
        {"content_length": 3 * MIB},
        {"piece_length": 2 * MIB},
        {"version": "2"},
    ):
        store.removed.clear()
        old = store.open(replace(record("t", 2 * MIB), version="1"))
        with old.lease():
            new = store.open(replace(old.record, **change))
            assert new is not old
            assert old.gone
        assert store.removed == [("t", Reason.CHANGED)]
        store.remove(new, Reason.DELETED)


def test_an_unknown_version_may_be_any(store: Watched) -> None:
    """What the swarm knows of a content has none; it is learnt later."""
    old = store.open(record("t", 2 * MIB))
    new = store.open(replace(record("t", 2 * MIB), version="1"))
    again = store.open(record("t", 2 * MIB))

    assert old is new is again
    assert again.record.version == "1"


def test_what_nobody_named_a_version_of(store: Watched) -> None:
    """Once some of it is here, it is not joined with what has one."""
    old = store.open(record("t", 2 * MIB))
    old.reserve([0])
    old.claim(0).publish("crc32:1", parent_id="p", traffic=Traffic.REMOTE_PEER)
    assert store.open(replace(record("t", 2 * MIB), version="1")) is not old
    assert old.gone


def test_time_to_live(store: Watched) -> None:
    """It counts from the last use, and those in use are spared."""
    for name in "abc":
        store.fill(name, MIB)
    used, leased = (store.get(Kind.CACHE, name) for name in "bc")
    assert used is not None
    assert leased is not None
    store.time = 1030.0
    used.touch()
    store.time = 1060.0
    with leased.lease():
        assert store.expire(TTL) == 1
        assert store.removed == [("a", Reason.TTL)]
    store.time = 1089.0
    assert store.expire(TTL) == 1
    store.time = 1090.0
    assert store.expire(TTL) == 1
    assert store.removed == [("a", Reason.TTL), ("c", Reason.TTL), ("b", Reason.TTL)]


def test_memory_is_freed_elsewhere() -> None:
    """Unmapping a gigabyte takes a while; the loop does not wait for it."""
    with ThreadPoolExecutor(1) as executor:
        store = Store(MemoryMedium(CAPACITY, executor=executor), NullJournal(), clock=lambda: 0.0)
        holding = store.open(record("t", MIB))
        holding.reserve([0])
        segment = holding.content
        assert isinstance(segment, Segment)
        store.close()
    assert segment._fd == -1


@pytest.mark.parametrize("way", ["descriptor", "mapping"])
def test_what_is_kept_counts(store: Watched, way: str) -> None:
    """Without a lease, too: neither evicted nor forgotten until the last user lets go of it."""
    holding = store.fill("t", 40 * MIB)
    with holding.lease():
        fd = holding.handout(user=1000)
        assert fd is not None
        assert store.handouts.kept() == 0
        kept = mmap.mmap(fd, 0, prot=mmap.PROT_READ) if way == "mapping" else None
        if kept is not None:
            os.close(fd)  # the mapping is enough, by a descriptor of its own
    assert store.handouts.kept() == store.figures().pinned == store.ledger.leased == 40 * MIB
    assert (holding.lease_count, store.handouts.kept(1000), store.handouts.kept(1001)) == (
        1,
        40 * MIB,
        0,
    )
    with pytest.raises(OutOfSpace):
        store.add("u", 30 * MIB).reserve(range(30))
    store.time += 100
    assert store.expire(TTL) == 1  # the empty one
    store.remove(holding, Reason.DELETED)
    with pytest.raises(OutOfSpace):
        store.add("u", 30 * MIB).reserve(range(30))

    if kept is not None:
        kept.close()
    else:
        os.close(fd)
    store.add("u", 30 * MIB).reserve(range(30))
    assert (store.handouts.kept(), store.ledger.used) == (0, 30 * MIB)


def test_one_user_keeps_a_share(store: Watched) -> None:
    """Beyond it nothing more is handed out to that user, until something is back."""
    store.handouts = Handouts(3 * MIB)
    kept = []
    for name in "abc":
        holding = store.fill(name, 2 * MIB)
        with holding.lease():
            kept.append(holding.handout(user=1000))
    assert [fd is not None for fd in kept] == [True, True, False]
    holding = store.fill("d", 2 * MIB)
    for user, given in ((1000, False), (1001, True)):
        fd = holding.handout(user)
        assert (fd is not None) == given
        if fd is not None:
            os.close(fd)
    assert kept[0] is not None
    assert kept[1] is not None
    os.close(kept[0])
    fd = holding.handout(1000)
    assert fd is not None, "one is back"
    os.close(fd)
    os.close(kept[1])


def test_a_reader_in_another_process_that_is_killed(store: Watched) -> None:
    """With its lease goes its memory: capacity stays honest."""
    holding = store.fill("t", 4 * MIB)
    lease, fd = holding.lease(), holding.handout()
    assert fd is not None
    program = f"import mmap, signal; m = mmap.mmap({fd}, 0, prot=1); m[:]; print(flush=True)"
    reader = subprocess.Popen(
        [sys.executable, "-c", f"{program}; signal.pause()"],
        pass_fds=(fd,),
        stdout=subprocess.PIPE,
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    os.close(fd)
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    reader.stdout.close()
    lease.end()  # as the end of its connection does
    store.add("u", CAPACITY).reserve(range(64))

    assert store.removed == [("t", Reason.LRU)]


# -- content of unknown length -------------------------------------------------------------------


def test_growing(store: Watched) -> None:
    """Room is taken step by step, others go for it, and what was too much comes back."""
    store.fill("old", 60 * MIB)
    holding = store.open(record("t", None, None))
    lease = holding.lease()
    data = random.Random(1).randbytes(2 * GROWTH_STEP)
    for at in (0, GROWTH_STEP):
        fill(holding.extend(), data[at : at + GROWTH_STEP])
        assert holding.reserved_bytes == at + GROWTH_STEP
    assert store.removed == [("old", Reason.LRU)]
    holding.finish_growing(GROWTH_STEP + 100, GROWTH_STEP)

    assert (holding.total, holding.record.piece_count) == (GROWTH_STEP + 100, 2)
    assert store.ledger.used == store.ledger.leased == GROWTH_STEP + 100
    assert store.get(Kind.CACHE, "t") is holding
    assert holding.fully_reserved
    assert not holding.pieces
    for number in (0, 1):
        holding.claim(number).publish("d", parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
    assert holding.complete
    assert holding.view(ByteRange(0, holding.total)) == data[: GROWTH_STEP + 100]
    fd = holding.handout()
    assert fd is not None
    os.close(fd)
    lease.end()


def test_it_grew_to_nothing(store: Watched) -> None:
    """An empty content, and no bytes reserved."""
    holding = store.open(record("t", None, None))
    holding.extend().close()
    holding.finish_growing(0, GROWTH_STEP)
    holding.settle()
    assert (holding.complete, store.ledger.used) == (True, 0)


def test_it_grew_too_large(store: Watched) -> None:
    """It never evicts itself, and what it had is free again."""
    holding = store.open(record("t", None, None))
    lease = holding.lease()
    for _ in range(CAPACITY // GROWTH_STEP):
        holding.extend().close()
    with pytest.raises(OutOfSpace):
        holding.extend()
    assert not store.removed
    holding.settle()
    assert store.removed == [("t", Reason.FAILED)]
    lease.end()
    assert store.ledger.used == 0


def test_deleted_while_it_grows(store: Watched) -> None:
    """Nothing of it is left, and nothing comes back under its name."""
    holding = store.open(record("t", None, None))
    lease = holding.lease()
    holding.extend().close()
    store.remove(holding, Reason.DELETED)
    with pytest.raises(TaskDeleted):
        holding.extend()
    with pytest.raises(TaskDeleted):
        holding.finish_growing(100, GROWTH_STEP)
    assert store.get(Kind.CACHE, "t") is None
    holding.settle()
    lease.end()
    assert store.ledger.used == 0


def test_it_failed_before_it_grew(store: Watched) -> None:
    """Not a byte came."""
    holding = store.open(record("t", None, None))
    holding.settle()
    assert store.removed == [("t", Reason.FAILED)]


# -- whatever happens ----------------------------------------------------------------------------

NAMES = "abcd"
PIECES = 4
PIECE = 100 * 1024


class HoldingsMachine(RuleBasedStateMachine):
    """Four tasks in room for two and a half of them; every byte is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Watched(10 * PIECE)
        #: Every holding that was ever used and is not forgotten yet, with its leases.
        self.leases: list[tuple[Holding, Lease]] = []
        self.reserved: dict[Holding, set[int]] = {}
        #: Whose memory others may have got hold of.
        self.handed_out: set[Holding] = set()

    def holding(self, name: str) -> Holding | None:
        """What is held under *name*."""
        return self.store.get(Kind.CACHE, name)

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
        except OutOfSpace:
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
            publish(holding, number)
            return
        claim = holding.claim(number)
        fill(claim.sink, b"?" * (PIECE // 2))
        claim.abandon()

    @rule(name=st.sampled_from(NAMES))
    def lease(self, name: str) -> None:
        """Use it."""
        holding = self.holding(name)
        if holding is not None:
            self.leases.append((holding, holding.lease()))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """Use it no more."""
        _, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        lease.end()

    @rule(name=st.sampled_from(NAMES))
    def settle(self, name: str) -> None:
        """A flight ends."""
        holding = self.holding(name)
        if holding is not None:
            holding.settle()
            if holding in self.reserved and holding not in self.handed_out:
                self.reserved[holding] &= set(holding.pieces)

    @rule(name=st.sampled_from(NAMES))
    def hand_out(self, name: str) -> None:
        """Whoever gets a descriptor sees nothing of other tasks."""
        holding = self.holding(name)
        fd = None if holding is None else holding.handout()
        if holding is None or fd is None:
            return
        self.handed_out.add(holding)
        for number in range(PIECES):
            seen = os.pread(fd, PIECE, number * PIECE)
            if number in holding.pieces:
                assert seen == data_of(number, PIECE)
            else:
                assert not seen.strip(b"?\0")
        os.close(fd)
        assert os.fstat(holding.content._fd).st_size == PIECES * PIECE  # type: ignore[attr-defined]  # it has one, or it gave none

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        """By hand."""
        holding = self.holding(name)
        if holding is not None:
            self.store.remove(holding, Reason.DELETED)

    def teardown(self) -> None:
        """Everybody goes, and nothing is left."""
        self.store.close()
        for _, lease in self.leases:
            lease.end()
        assert (self.store.ledger.used, self.store.ledger.leased) == (0, 0)

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
        assert {h.id for h in self.store} == self.store.noted.tasks.keys()
        for held in self.store:
            task, pieces = self.store.noted.tasks[held.id]
            assert (task, pieces) == (held.record, held.pieces)
        assert all(h.gone or self.holding(h.id) is h for h in alive)

    @invariant()
    def memory_is_accounted_for(self) -> None:
        """The kernel has given no task more than it has reserved."""
        for holding in self.store:
            if holding in self.reserved and holding._content is not None:
                assert allocated(holding) <= holding.reserved_bytes

    @invariant()
    def bytes_are_right(self) -> None:
        """Of every piece that anybody can see."""
        for holding in {*self.store, *(holding for holding, _ in self.leases)}:
            for number, piece in holding.pieces.items():
                view = holding.view(ByteRange(piece.offset, piece.length))
                assert view[:100] == data_of(number, PIECE)[:100]
                assert view[-1] == data_of(number, PIECE)[-1]


TestHoldingsMachine = HoldingsMachine.TestCase
TestHoldingsMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class TestDescriptors:
    """Descriptors and mappings are as scarce as bytes."""

    def few(self, *, descriptors: int, mappings: int | None = None) -> Watched:
        """A store with room for anything but those."""
        store = Watched(1 << 40)
        store.ledger = Ledger(1 << 40, descriptors=descriptors, mappings=mappings)
        return store

    def test_large_contents_go_for_descriptors(self) -> None:
        """Least recently used first, and never one in use."""
        store = self.few(descriptors=4)
        contents = [store.add(f"t{n}", 5 * MIB) for n in range(4)]
        for content in contents:
            content.reserve([0])
        lease = contents[0].lease()
        store.add("new", 5 * MIB).reserve([0])
        assert store.removed == [("t1", Reason.LRU)]
        assert store.ledger.descriptors == store.ledger.mappings == 4
        lease.end()
        store.close()
        assert (store.ledger.descriptors, store.ledger.mappings) == (0, 0)

    def test_all_in_use(self) -> None:
        """Refused in words, and nothing has changed."""
        store = self.few(descriptors=2)
        for name in "ab":
            content = store.add(name, 5 * MIB)
            content.reserve([0])
            content.lease()
        with pytest.raises(OutOfDescriptors, match="all 2 descriptors that they may have; raise"):
            store.add("c", 5 * MIB).reserve([0])
        assert (store.ledger.used, store.ledger.descriptors) == (2 * MIB, 2)

    def test_medium_contents_do_without(self) -> None:
        """Half of the descriptors is theirs at most; nobody has to go for the others."""
        store, before = self.few(descriptors=8), descriptors()
        for number in range(20):
            store.fill(f"t{number}", 300 * 1024)
        assert (len(store), store.ledger.descriptors, store.ledger.mappings) == (20, 4, 20)
        assert descriptors() - before == 4
        for number in range(20):
            content = store.get(Kind.CACHE, f"t{number}")
            assert content is not None
            with content.view(ByteRange(0, 300 * 1024)) as view:
                assert view == data_of(0, 300 * 1024)
            fd = content.handout()
            assert (fd is not None) == (number < 4)
            if fd is not None:
                os.close(fd)

    def test_mappings_have_a_limit_too(self) -> None:
        """With descriptors or without."""
        store = self.few(descriptors=4, mappings=6)
        for number in range(9):
            store.fill(f"t{number}", 300 * 1024)
        assert (len(store), store.ledger.mappings) == (6, 6)

    def test_growing_contents_count(self) -> None:
        """From their first byte; when they end, by what they have become."""
        store = self.few(descriptors=2)
        contents = [store.open(record(name, None, None)) for name in "abc"]
        for content in contents[:2]:
            content.lease()
            content.extend().close()
        with pytest.raises(OutOfDescriptors):
            contents[2].extend()
        contents[0].finish_growing(100, MIB)
        assert (store.ledger.descriptors, store.ledger.mappings) == (1, 1)
        contents[1].finish_growing(3 * MIB, MIB)
        assert (store.ledger.descriptors, store.ledger.mappings) == (0, 1)
        contents[2].extend().close()

    def test_the_system_has_none_left(self) -> None:
        """Others took more than their share: who has one goes, until there is one."""
        program = """if True:
            import os, resource
            from tests.unit.test_store import MIB, Watched
            store = Watched(1 << 40)
            store.fill("used", 5 * MIB).lease()
            store.fill("older", 5 * MIB)
            store.fill("old", 5 * MIB)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            while True:
                try: os.dup(0)
                except OSError: break
            store.add("new", 5 * MIB).reserve([0])
            # For a moment it takes two.
            assert [name for name, _ in store.removed] == ["older", "old"], store.removed
        """
        _run(program)

    def test_twenty_thousand_tasks(self) -> None:
        """Of 300 KiB, where the system gives a thousand descriptors."""
        program = """if True:
            import resource
            from pantala.daemon.host.descriptors import descriptors
            from tests.unit.test_store import Watched
            from tests.unit.test_store import descriptors as opened
            from pantala.core.ledger import Ledger
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
            shares, before = descriptors(), opened()
            store = Watched(1 << 40)
            store.ledger = Ledger(
                1 << 40, descriptors=shares.contents, mappings=shares.mappings)
            for number in range(20_000):
                store.add(f"t{number}", 300 << 10).reserve([0])
            assert len(store) == 20_000, len(store)
            assert opened() - before <= shares.contents, opened()
            store.close()
            assert opened() == before, opened()
        """
        _run(program)


def _run(program: str) -> None:
    """Run Python in a process of its own, whose limits may be changed."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
