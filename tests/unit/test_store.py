"""storage/store.py and what it is made of: bytes, records and users of a task are one thing."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from pantala.core.ledger import Ledger
from pantala.errors import (
    NoRoom,
    OutOfDescriptors,
    PieceNotFound,
)
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind
from pantala.ports import fill
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.journal import NullJournal
from pantala.storage.leases import HandOffs
from pantala.storage.memory import MemoryMedium
from pantala.storage.segments import Segment
from pantala.storage.store import Store
from pantala.testing.store_machine import StoreMachine
from pantala.testing.store_pieces import PiecesContract
from pantala.testing.store_room import RoomContract
from pantala.testing.stores import CAPACITY, MIB, Noted, Watched, data_of, in_memory


def allocated(holding: Holding) -> int:
    """Bytes of memory that the kernel has given it."""
    assert isinstance(holding.content, Segment)
    return os.fstat(holding.content.fileno()).st_blocks * 512


def inode(holding: Holding) -> int:
    """Which file in memory it is."""
    assert isinstance(holding.content, Segment)
    return os.fstat(holding.content.fileno()).st_ino


def descriptors() -> int:
    """How many this process has open, but for those of stores that nobody refers to any more."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def store() -> Iterator[Watched]:
    """Room for 64 MiB; empty in the end."""
    store = in_memory()
    yield store
    store.close()
    assert (store.ledger.used, store.ledger.records, len(store)) == (0, 0, 0)


class TestPiecesInMemory(PiecesContract):
    """The contract."""


class TestRoomInMemory(RoomContract):
    """The contract."""


def test_a_part_of_a_huge_file_takes_room_for_itself_only(store: Watched) -> None:
    """However large the whole, and whatever the kernel would have to say."""
    holding = store.add("t", 100 << 30)
    holding.reserve([50_000, 50_001])
    holding.reserve([50_001, 50_002])
    store.bring(holding, 50_001)

    assert store.ledger.used == holding.reserved_bytes == 3 * MIB
    assert allocated(holding) == MIB
    assert (holding.fully_reserved, holding.hand_off()) == (False, None)


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
        assert new.hand_off() is None
        store.bring(new, number)
    fd = new.hand_off()
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


def test_memory_that_is_to_be_read_early(store: Watched) -> None:
    """It passes on, and nothing of what was in it can be read."""
    old = store.fill("old", 60 * MIB)
    file = inode(old)
    new = store.add("new", 58 * MIB)
    new.reserve(range(58), early=True)
    assert inode(new) == file
    assert (new.is_clean, new.complete) == (True, False)
    fd = new.hand_off()
    assert fd is not None
    assert os.pread(fd, 60 * MIB, 0) == bytes(58 * MIB)
    os.close(fd)


@pytest.mark.parametrize("why", ["a part", "handed off", "in somebody's view"])
def test_memory_that_does_not_pass_on(store: Watched, why: str) -> None:
    """Where others could read in it, or it would count for less than it is."""
    old = store.fill("old", 60 * MIB)
    file = inode(old)
    view = None
    if why == "handed off":
        fd = old.hand_off()
        assert fd is not None
        os.close(fd)  # nobody has it any more, but it was sealed
    if why == "in somebody's view":
        view = old.view(ByteRange(0, 100))
    new = store.add("new", 60 * MIB)
    new.reserve(range(59 if why == "a part" else 60))

    assert inode(new) != file
    assert allocated(new) == 0
    if view is not None:
        assert view == data_of(0, MIB)[:100]
    early = new.hand_off()
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
    store.bring(new, 3)
    new.settle()

    assert (store.ledger.used, allocated(new)) == (MIB, MIB)
    new.reserve(range(60))
    assert new.hand_off() is None, "pages at the edge of a piece may hold what was there"
    assert new.view(ByteRange(3 * MIB, MIB)) == data_of(3, MIB)


def test_memory_that_was_not_needed_comes_back(store: Watched) -> None:
    """Half a piece was received when the download failed; two pieces are here."""
    holding = store.add("t", 5 * MIB)
    holding.reserve(range(5))
    store.bring(holding, 0)
    store.bring(holding, 4)
    claim = holding.claim(2)
    fill(claim.sink, data_of(2, MIB // 2))
    claim.abandon()
    assert allocated(holding) == 2 * MIB + MIB // 2
    holding.settle()

    assert holding.reserved_bytes == store.ledger.used == allocated(holding) == 2 * MIB
    assert bytes(holding.view(ByteRange(0, MIB))) == data_of(0, MIB)
    holding.reserve(range(5))
    assert store.ledger.used == 5 * MIB


def test_a_segment_in_others_hands_keeps_its_room(store: Watched) -> None:
    """A reader of its holes makes them memory."""
    holding = store.add("t", 4 * MIB)
    holding.reserve(range(4))
    store.bring(holding, 0)
    fd = holding.hand_off()
    assert fd is not None
    holding.settle()

    assert holding.reserved_bytes == 4 * MIB
    assert len(os.pread(fd, 4 * MIB, 0)) == 4 * MIB
    os.close(fd)


def test_a_small_file_is_one_piece(store: Watched) -> None:
    """Without a descriptor to give."""
    holding = store.fill("t", 1000)
    holding.settle()
    assert (holding.complete, holding.hand_off()) == (True, None)
    assert bytes(holding.view(ByteRange(10, 20))) == data_of(0, 1000)[10:30]


# -- deleting ------------------------------------------------------------------------------------


def test_memory_is_freed_elsewhere() -> None:
    """Unmapping a gigabyte takes a while; the loop does not wait for it."""
    with ThreadPoolExecutor(1) as executor:
        store = Store(MemoryMedium(CAPACITY, executor=executor), NullJournal(), clock=lambda: 0.0)
        holding = store.open(in_memory().record("t", MIB))
        holding.reserve([0])
        segment = holding.content
        assert isinstance(segment, Segment)
        store.close()
    assert segment.fileno() == -1


@pytest.mark.parametrize("way", ["descriptor", "mapping"])
def test_what_is_kept_counts(store: Watched, way: str) -> None:
    """Without a lease, too: neither evicted nor forgotten until the last user lets go of it."""
    holding = store.fill("t", 40 * MIB)
    with holding.lease():
        fd = holding.hand_off(user=1000)
        assert fd is not None
        assert store.hand_offs.kept() == 0
        kept = mmap.mmap(fd, 0, prot=mmap.PROT_READ) if way == "mapping" else None
        if kept is not None:
            os.close(fd)  # the mapping is enough, by a descriptor of its own
    assert store.hand_offs.kept() == store.figures().pinned == store.ledger.leased == 40 * MIB
    assert (holding.lease_count, store.hand_offs.kept(1000), store.hand_offs.kept(1001)) == (
        1,
        40 * MIB,
        0,
    )
    with pytest.raises(NoRoom):
        store.add("u", 30 * MIB).reserve(range(30))
    store.time += 100
    assert store.expire({Kind.CACHE: 60.0}) == 1  # the empty one
    store.remove(holding, Reason.DELETED)
    with pytest.raises(NoRoom):
        store.add("u", 30 * MIB).reserve(range(30))

    if kept is not None:
        kept.close()
    else:
        os.close(fd)
    store.add("u", 30 * MIB).reserve(range(30))
    assert (store.hand_offs.kept(), store.ledger.used) == (0, 30 * MIB)


def test_one_user_keeps_a_share(store: Watched) -> None:
    """Beyond it nothing more is handed off to that user, until something is back."""
    store.hand_offs = HandOffs(3 * MIB)
    kept = []
    for name in "abc":
        holding = store.fill(name, 2 * MIB)
        with holding.lease():
            kept.append(holding.hand_off(user=1000))
    assert [fd is not None for fd in kept] == [True, True, False]
    holding = store.fill("d", 2 * MIB)
    for user, given in ((1000, False), (1001, True)):
        fd = holding.hand_off(user)
        assert (fd is not None) == given
        if fd is not None:
            os.close(fd)
    assert kept[0] is not None
    assert kept[1] is not None
    os.close(kept[0])
    fd = holding.hand_off(1000)
    assert fd is not None, "one is back"
    os.close(fd)
    os.close(kept[1])


def test_a_reader_in_another_process_that_is_killed(store: Watched) -> None:
    """With its lease goes its memory: capacity stays honest."""
    holding = store.fill("t", 4 * MIB)
    lease, fd = holding.lease(), holding.hand_off()
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


# -- whatever happens ----------------------------------------------------------------------------


class MemoryMachine(StoreMachine):
    """What the journal is told is what is here, too."""

    def make(self, capacity: int) -> Watched:
        return in_memory(capacity)

    def allocated(self, holding: Holding) -> int:
        return allocated(holding)

    @invariant()
    def the_journal_knows(self) -> None:
        """Everything, and nothing else."""
        noted = self.store.journal
        assert isinstance(noted, Noted)
        assert {h.id: (h.record, h.pieces) for h in self.store} == noted.tasks


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class TestDescriptors:
    """Descriptors and mappings are as scarce as bytes."""

    def few(self, *, descriptors: int, mappings: int | None = None) -> Watched:
        """A store with room for anything but those."""
        store = in_memory(1 << 40)
        store.ledger = Ledger(1 << 40, descriptors=descriptors, mappings=mappings)
        return store

    def test_large_files_go_for_descriptors(self) -> None:
        """Least recently used first, and never one in use."""
        store = self.few(descriptors=4)
        held = [store.add(f"t{n}", 5 * MIB) for n in range(4)]
        for content in held:
            content.reserve([0])
        lease = held[0].lease()
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

    def test_medium_files_do_without(self) -> None:
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
            fd = content.hand_off()
            assert (fd is not None) == (number < 4)
            if fd is not None:
                os.close(fd)

    def test_mappings_have_a_limit_too(self) -> None:
        """With descriptors or without."""
        store = self.few(descriptors=4, mappings=6)
        for number in range(9):
            store.fill(f"t{number}", 300 * 1024)
        assert (len(store), store.ledger.mappings) == (6, 6)

    def test_growing_files_count(self) -> None:
        """From their first byte; when they end, by what they have become."""
        store = self.few(descriptors=2)
        held = [store.open(store.record(name, None, None)) for name in "abc"]
        for content in held[:2]:
            content.lease()
            content.extend().close()
        with pytest.raises(OutOfDescriptors):
            held[2].extend()
        held[0].finish_growing(100, MIB)
        assert (store.ledger.descriptors, store.ledger.mappings) == (1, 1)
        held[1].finish_growing(3 * MIB, MIB)
        assert (store.ledger.descriptors, store.ledger.mappings) == (0, 1)
        held[2].extend().close()

    def test_the_system_has_none_left(self) -> None:
        """Others took more than their share: who has one goes, until there is one."""
        program = """if True:
            import os, resource
            from pantala.testing.stores import MIB, in_memory
            store = in_memory(1 << 40)
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
            from pantala.testing.stores import in_memory
            from tests.unit.test_store import descriptors as opened
            from pantala.core.ledger import Ledger
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
            shares, before = descriptors(), opened()
            store = in_memory(1 << 40)
            store.ledger = Ledger(
                1 << 40, descriptors=shares.tasks, mappings=shares.mappings)
            for number in range(20_000):
                store.add(f"t{number}", 300 << 10).reserve([0])
            assert len(store) == 20_000, len(store)
            assert opened() - before <= shares.tasks, opened()
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
