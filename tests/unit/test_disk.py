"""storage/disk.py: files in a directory as the medium of a store, across processes and mishaps."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from pantala.core.reclaim import Space, Watermarks
from pantala.errors import ConfigError, Damaged, NoRoom, PieceNotFound, StoreFailed, TaskDeleted
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import GROWTH_STEP, ByteRange
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage import disk
from pantala.storage.directory import DataDirectory
from pantala.storage.disk import DiskMedium
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.medium import Content
from pantala.storage.sqlite_journal import SqliteJournal
from pantala.storage.store import Store
from pantala.testing.store_contract import ContentContract
from pantala.testing.store_machine import PIECE, StoreMachine
from pantala.testing.store_pieces import PiecesContract
from pantala.testing.store_room import RoomContract
from pantala.testing.stores import Watched, on_disk

MIB = 1 << 20
KIND = Kind.STANDARD


class Disk:
    """The disk store of one process after the other, on one directory."""

    def __init__(self, path: Path, *, limit: int = 64 * MIB) -> None:
        self.path = path
        self.limit = limit
        self.time = 1000.0
        self.removed: list[tuple[str, Reason]] = []
        self.store = self._open(keep=False)

    def _open(self, *, keep: bool) -> Store:
        self.directory = DataDirectory(self.path)
        self.directory.open()
        loop = asyncio.get_running_loop()
        journal = SqliteJournal(self.directory.journal, loop.call_soon_threadsafe)
        medium = DiskMedium(self.directory, limit=self.limit)
        store = Store(medium, journal, clock=lambda: self.time)
        store.on_removed = lambda holding, reason: self.removed.append((holding.id, reason))
        store.load(lambda _record: keep)
        return store

    def close(self) -> None:
        """The process ends in order."""
        self.store.close()
        self.directory.close()

    def restart(self, *, keep: bool = True) -> Store:
        """And another begins."""
        self.close()
        self.store = self._open(keep=keep)
        return self.store

    def files(self) -> list[str]:
        """What is below the directory of the tasks."""
        below = self.directory.content.rglob("*")
        return sorted(str(p.relative_to(self.directory.content)) for p in below if not p.is_dir())

    async def fill(self, name: str, length: int, numbers: range | None = None) -> Holding:
        """A task of which everything is here, or these pieces."""
        holding = self.store.open(record(name, length))
        numbers = range(holding.record.piece_count or 0) if numbers is None else numbers
        holding.reserve(numbers)
        with holding.lease():
            for number in numbers:
                await publish(holding, number)
        return holding


def record(name: str, length: int | None, piece_length: int | None = MIB) -> TaskRecord:
    """A record of a task of this name."""
    return TaskRecord(
        kind=KIND,
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


async def publish(holding: Holding, number: int) -> PieceRecord:
    """Receive a piece and publish it."""
    claim = holding.claim(number)
    data = data_of(number, claim.piece.length)
    fill(claim.sink, data)
    piece = claim.publish(piece_digest(crc32(data)), parent_id=None, traffic=Traffic.REMOTE_PEER)
    await claim.kept()
    return piece


def read(holding: Holding, number: int) -> bytes:
    """A piece, checked."""
    piece = holding.pieces[number]
    extent = holding.extent(ByteRange(piece.offset, piece.length))
    extent.check(piece.digest)
    return bytes(extent.read(0, piece.length))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Disk]:
    """A disk of 64 MiB."""
    made = Disk(tmp_path / "data")
    yield made
    made.close()


class TestDiskContent(ContentContract):
    """Content in a file."""

    length = 1_234_567
    in_place = False

    @pytest.fixture(autouse=True)
    def _disk(self, tmp_path: Path) -> Iterator[None]:
        self.directory = DataDirectory(tmp_path)
        self.directory.open()
        yield
        self.directory.close()

    def make(self) -> Content:
        medium = DiskMedium(self.directory)
        return medium.create(record("abcdef", self.length), medium.needs(1, abundant=True))

    def peek(self, content: Content, offset: int, length: int) -> bytes:
        del content
        data = self.directory.file_of(KIND, "abcdef").read_bytes()
        return data[offset : offset + length]


class TestGrownOnDisk(TestDiskContent):
    """A file that came to its end."""

    length = GROWTH_STEP + 12_345

    def make(self) -> Content:
        medium = DiskMedium(self.directory)
        growing = medium.grow(record("abcdef", None))
        for _ in range(2):
            growing.extend().close()
        content = growing.finish(self.length, medium.needs(1, abundant=True))
        growing.close()
        assert medium.allocated == self.length
        return content


def test_what_is_not_kept_of_what_grew_is_free(tmp_path: Path) -> None:
    """Where the rest is to come otherwise."""
    directory = DataDirectory(tmp_path)
    directory.open()
    medium = DiskMedium(directory)
    growing = medium.grow(record("abcdef", None))
    for _ in range(3):
        fill(growing.extend(), b"?" * GROWTH_STEP)
    growing.finish(3 * GROWTH_STEP + 10, medium.needs(1, abundant=True), here=GROWTH_STEP)
    found = directory.file_of(KIND, "abcdef").stat()
    assert (found.st_size, medium.allocated) == (3 * GROWTH_STEP + 10, GROWTH_STEP)
    assert found.st_blocks * 512 < 2 * GROWTH_STEP
    directory.close()


# -- across processes ----------------------------------------------------------------------------


async def test_what_was_finished_is_there_after_a_restart(here: Disk) -> None:
    """Whole tasks, and the pieces that are here of others; where Dragonfly has them."""
    await here.fill("whole", 2 * MIB + 10)
    await here.fill("partly", 4 * MIB, range(1, 3))
    here.store.open(record("empty", 0))
    assert here.files() == ["tasks/par/partly", "tasks/who/whole"]
    store = here.restart()

    whole, partly, empty = (store.get(KIND, name) for name in ("whole", "partly", "empty"))
    assert whole is not None
    assert partly is not None
    assert empty is not None
    assert (whole.complete, partly.complete, empty.complete) == (True, False, True)
    assert [read(whole, n) for n in range(3)] == [data_of(n, len(read(whole, n))) for n in range(3)]
    assert sorted(partly.pieces) == [1, 2]
    assert read(partly, 2) == data_of(2, MIB)
    assert store.ledger.used == 4 * MIB + 10
    with pytest.raises(PieceNotFound):
        partly.extent(ByteRange(0, 2 * MIB))
    partly.reserve(range(4))
    with partly.lease():
        await publish(partly, 0)
        await publish(partly, 3)
    assert partly.complete


async def test_what_was_half_written_is_discarded(here: Disk) -> None:
    """And its blocks are free."""
    holding = await here.fill("t", 4 * MIB, range(1))
    holding.reserve(range(4))
    lease, claim = holding.lease(), holding.claim(2)
    fill(claim.sink, data_of(2, MIB // 2))
    growing = here.store.open(record("growing", None, None))
    fill(growing.extend(), b"?" * 100)
    del claim, lease
    path = here.directory.file_of(KIND, "t")
    assert path.stat().st_blocks * 512 >= 2 * MIB
    store = here.restart()
    again = store.get(KIND, "t")
    assert again is not None
    assert sorted(again.pieces) == [0]
    assert store.ledger.used == MIB
    assert path.stat().st_blocks * 512 == MIB
    assert store.get(KIND, "growing") is None
    assert here.files() == ["tasks/t/t"]


@pytest.mark.parametrize("what", ["gone", "shorter", "longer", "a link", "a directory"])
async def test_files_that_are_not_as_they_were_left(here: Disk, tmp_path: Path, what: str) -> None:
    """What is not here is not held, and nothing of it is left."""
    await here.fill("bad", 2 * MIB)
    await here.fill("good", MIB)
    path = here.directory.file_of(KIND, "bad")
    other = tmp_path / "other"
    other.write_bytes(bytes(2 * MIB))
    if what == "shorter":
        os.truncate(path, MIB)
    elif what == "longer":
        os.truncate(path, 3 * MIB)
    else:
        path.unlink()
        if what == "a link":
            path.symlink_to(other)
        if what == "a directory":
            path.mkdir()
    store = here.restart()
    assert [holding.id for holding in store] == ["good"]
    assert here.files() == ["tasks/goo/good"]
    assert other.exists()
    await here.fill("bad", 2 * MIB)


async def test_files_of_nobody_are_removed(here: Disk) -> None:
    """Whatever left them."""
    await here.fill("t", MIB)
    stray = here.directory.content / "tasks" / "xyz" / "xyzzy"
    stray.parent.mkdir()
    stray.write_text("?")
    here.restart()
    assert here.files() == ["tasks/t/t"]


async def test_nothing_is_kept_unless_it_is_to_be(here: Disk) -> None:
    """``storage.keep``."""
    await here.fill("t", MIB)
    store = here.restart(keep=False)
    assert len(store) == 0
    assert here.files() == []
    assert len(here.restart()) == 0


async def test_deleted_tasks_stay_deleted(here: Disk) -> None:
    """Also those that were in use."""
    first, second = await here.fill("a", MIB), await here.fill("b", MIB)
    lease = second.lease()
    here.store.remove(first, Reason.DELETED)
    here.store.remove(second, Reason.DELETED)
    assert here.files() == []
    assert read(second, 0) == data_of(0, MIB)
    successor = await here.fill("b", 2 * MIB)
    assert read(second, 0) == data_of(0, MIB)
    assert read(successor, 1) == data_of(1, MIB)
    lease.end()
    assert here.store.ledger.used == 2 * MIB
    with pytest.raises(TaskDeleted):
        second.lease()
    assert [holding.id for holding in here.restart()] == ["b"]


async def test_a_second_daemon_is_refused(here: Disk) -> None:
    """In words, with the process that is there."""
    with pytest.raises(ConfigError, match=rf"in use by another daemon \(process {os.getpid()}\)"):
        DataDirectory(here.path).open()
    here.directory.close()
    here.directory.open()


@pytest.mark.parametrize("what", ["a file", "read-only"])
def test_a_directory_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    """Said before anything is served."""
    path = tmp_path / "data"
    if what == "a file":
        path.write_text("?")
        with pytest.raises(ConfigError, match=r"cannot use storage\.dir .*: File exists"):
            DataDirectory(path).open()
        return
    program = (
        "import os, sys, pathlib\n"
        "from pantala.storage.directory import DataDirectory\n"
        "from pantala.errors import ConfigError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: DataDirectory(pathlib.Path(sys.argv[1])).open()\n"
        "except ConfigError as error: assert 'Permission denied; make it writable' in str(error)\n"
        "else: raise SystemExit('it was taken')\n"
    )
    path.mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    # Coverage, where it looks on, cannot write its file with so few rights.
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- what happens to disks -----------------------------------------------------------------------


async def test_a_bit_flip_is_found(here: Disk) -> None:
    """The piece is dropped, here and for the next process, and can be fetched again."""
    holding = await here.fill("t", 3 * MIB)
    path = here.directory.file_of(KIND, "t")
    with path.open("r+b") as file:
        file.seek(MIB + 12345)
        byte = file.read(1)
        file.seek(MIB + 12345)
        file.write(bytes([byte[0] ^ 4]))
    assert read(holding, 0) == data_of(0, MIB)
    with pytest.raises(Damaged, match="task t is damaged on this node: expected crc32:"):
        read(holding, 1)
    holding.drop(1)
    assert (holding.complete, sorted(holding.pieces)) == (False, [0, 2])
    store = here.restart()
    again = store.get(KIND, "t")
    assert again is not None
    assert sorted(again.pieces) == [0, 2]
    again.reserve([1])
    with again.lease():
        await publish(again, 1)
    assert again.complete
    assert read(again, 1) == data_of(1, MIB)


async def test_a_file_that_was_cut_short(here: Disk) -> None:
    """An error, not a signal."""
    holding = await here.fill("t", 3 * MIB)
    os.truncate(here.directory.file_of(KIND, "t"), MIB + 5)
    with pytest.raises(Damaged, match="its file has become shorter"):
        read(holding, 1)


async def test_a_disk_that_is_full(here: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the first byte of a piece comes, and nothing is held to be here."""
    holding = here.store.open(record("t", 2 * MIB))
    holding.reserve(range(2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    claim = holding.claim(0)
    monkeypatch.setattr(disk, "_allocate", full)
    with pytest.raises(StoreFailed, match="no room for task t on the disk: No space left"):
        fill(claim.sink, b"?")
    claim.abandon()
    assert not holding.pieces


async def test_room_counts_what_is_reserved(here: Disk) -> None:
    """And what goes makes room, the least recently used first."""
    await here.fill("a", 30 * MIB)
    big = here.store.open(record("big", 30 * MIB))
    big.reserve(range(30))
    with pytest.raises(NoRoom, match=r"no room on disk: 68157440 bytes needed.*; make room on"):
        here.store.open(record("huge", 65 * MIB)).reserve(range(65))
    assert here.removed == []
    lease = big.lease()
    await here.fill("c", 10 * MIB)
    assert here.removed == [("a", Reason.LRU)]
    assert here.files() == ["tasks/big/big", "tasks/c/c"]
    with pytest.raises(NoRoom, match=r"41943040 bytes needed, capacity 67108864, 31457280 in"):
        here.store.open(record("d", 40 * MIB)).reserve(range(40))
    lease.end()
    big.settle()
    assert here.removed[-1] == ("big", Reason.FAILED)


async def test_what_others_write_counts(tmp_path: Path) -> None:
    """The capacity is what the disk has left, and what is ours."""
    here = Disk(tmp_path / "data", limit=0)
    found = os.statvfs(tmp_path)
    before = here.store.medium.capacity()
    assert abs(before - found.f_bavail * found.f_frsize) < 1 << 30
    await here.fill("t", 8 * MIB)
    assert abs(here.store.medium.capacity() - before) < 1 << 30
    here.close()


async def test_what_is_being_freed_counts_as_free(tmp_path: Path) -> None:
    """Else more would go than needs to: blocks are free some time after their task has gone."""
    later: list[Callable[[], None]] = []

    class Slow(Executor):
        def submit(self, fn: Callable[..., Any], /, *_: Any, **__: Any) -> Any:
            later.append(fn)

    directory = DataDirectory(tmp_path)
    directory.open()
    medium = DiskMedium(directory, executor=Slow())
    before = medium.space().left
    content = medium.create(record("t", 64 * MIB), medium.needs(1, abundant=True))
    with contextlib.closing(content.sink(0, 64 * MIB)) as sink:
        fill(sink, b"?")
    assert medium.space().left <= before - 60 * MIB
    medium.discard([content])
    del sink
    assert medium.space().left >= before - 4 * MIB
    for close in later:
        close()
    assert abs(medium.space().left - before) <= 4 * MIB
    directory.close()


async def test_pinned_tasks_stay(here: Disk) -> None:
    """Whatever room others need; across restarts, too."""
    holding = here.store.open(replace(record("pinned", 20 * MIB), persistent=True))
    holding.reserve(range(20))
    with holding.lease():
        for number in range(20):
            await publish(holding, number)
    store = here.restart()
    with pytest.raises(NoRoom):
        store.open(record("huge", 60 * MIB)).reserve(range(60))
    assert store.free(64 * MIB) == 0
    again = store.get(KIND, "pinned")
    assert again is not None
    assert again.complete


async def test_watermarks(here: Disk) -> None:
    """From the high mark on tasks go until the low one, but none that is in use."""
    marks = Watermarks(high=80, low=50)
    for name in "abcdef":
        await here.fill(name, 10 * MIB)
    used = here.store.get(KIND, "a")
    assert used is not None
    medium = here.store.medium
    assert isinstance(medium, DiskMedium)
    lease = used.lease()
    b = here.store.get(KIND, "b")
    assert b is not None
    b.touch()
    assert here.store.free(marks.excess(medium.space())) == 3
    assert here.removed == [(name, Reason.DISK) for name in "cde"]
    assert marks.excess(medium.space()) == 0
    lease.end()


@pytest.mark.parametrize(("left", "excess"), [(100, 0), (21, 0), (20, 20), (0, 40), (19, 21)])
def test_excess(left: int, excess: int) -> None:
    """Of 100 bytes, with marks at 80 and 60."""
    assert Watermarks(high=80, low=60).excess(Space(100, left)) == excess


async def test_a_reader_keeps_what_is_deleted(here: Disk) -> None:
    """A descriptor is as good as the file."""
    store = here.store
    holding = store.open(record("t", 5))
    holding.reserve([0])
    claim = holding.claim(0)
    fill(claim.sink, b"hello")
    claim.publish(piece_digest(crc32(b"hello")), parent_id=None, traffic=Traffic.REMOTE_PEER)
    await claim.kept()
    fd = holding.hand_off()
    assert fd is not None
    store.remove(holding, Reason.DELETED)
    assert os.pread(fd, 10, 0) == b"hello"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"?")
    os.close(fd)


async def test_no_descriptor_stays_open(here: Disk) -> None:
    """Tasks that nobody uses have none, however many there are."""

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for number in range(50):
        holding = here.store.open(record(f"t{number}", 10))
        holding.reserve([0])
        with holding.lease():
            claim = holding.claim(0)
            fill(claim.sink, b"0123456789")
            claim.abandon()
            del claim
    assert opened() <= before


# -- as any store --------------------------------------------------------------------------------


class _OnDisk:
    """A store of 64 MiB, empty in the end."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Watched]:
        """See the class."""
        store = on_disk(tmp_path)
        yield store
        store.empty()
        assert (store.ledger.used, store.ledger.records, len(store)) == (0, 0, 0)
        medium = store.medium
        assert isinstance(medium, DiskMedium)
        assert medium.allocated == 0
        assert not [path for path in (tmp_path / "content").rglob("*") if path.is_file()]
        store.close()
        medium.directory.close()


class TestPiecesOnDisk(_OnDisk, PiecesContract):
    """The contract."""


class TestRoomOnDisk(_OnDisk, RoomContract):
    """The contract."""


class DiskMachine(StoreMachine):
    """Processes follow one another."""

    def make(self, capacity: int) -> Watched:
        self.path = tempfile.TemporaryDirectory()
        return on_disk(Path(self.path.name), capacity)

    @property
    def directory(self) -> DataDirectory:
        """Where it lies."""
        medium = self.store.medium
        assert isinstance(medium, DiskMedium)
        return medium.directory

    def allocated(self, holding: Holding) -> int:
        return self.directory.file_of(holding.kind, holding.id).stat().st_blocks * 512

    def gives_back(self, holding: Holding) -> bool:
        del holding  # whoever has a descriptor does not mind
        return True

    @precondition(lambda self: not self.leases)
    @rule()
    def restart(self) -> None:
        """Of what was here the next process finds everything, and nothing else."""
        before = {h.id: dict(h.pieces) for h in self.store if h.pieces}
        self.store.close()
        self.directory.close()
        self.store = on_disk(Path(self.path.name), 10 * PIECE)
        assert {h.id: dict(h.pieces) for h in self.store} == before
        self.reserved = {holding: set(holding.pieces) for holding in self.store}

    def teardown(self) -> None:
        directory = self.directory
        super().teardown()
        directory.close()
        self.path.cleanup()


TestDiskMachine = DiskMachine.TestCase
TestDiskMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
