"""Stores for tests: their clock is set by hand, and they list what left."""

from __future__ import annotations

import queue
import random
from collections.abc import Callable
from pathlib import Path

from pantala.model.digest import crc32, piece_digest
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage.claims import Claim
from pantala.storage.directory import DataDirectory
from pantala.storage.disk import DiskMedium
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.journal import Journal, NullJournal, Written
from pantala.storage.medium import Medium
from pantala.storage.memory import MemoryMedium
from pantala.storage.sqlite_journal import SqliteJournal
from pantala.storage.store import Store

MIB = 1 << 20
CAPACITY = 64 * MIB


class Noted(NullJournal):
    """What a journal that keeps it would have in it."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[TaskRecord, dict[int, PieceRecord]]] = {}

    def task(self, record: TaskRecord) -> None:
        """The record of a task, as it is from now on."""
        _, pieces = self.tasks.get(record.id, (record, {}))
        self.tasks[record.id] = record, pieces

    def piece(self, record: TaskRecord, piece: PieceRecord, written: Written) -> None:
        """A piece is here; *written* is told at once."""
        self.tasks[record.id][1][piece.number] = piece
        super().piece(record, piece, written)

    def deleted(self, kind: Kind, task_id: str) -> None:
        """A task is gone, and its pieces with it."""
        del kind
        del self.tasks[task_id]


class Watched(Store):
    """See the module.

    Args:
        medium: Where bytes lie.
        journal: Where it is written.
        kind: Of the tasks in it.
        said: What the journal's thread has to say, if it has one.
    """

    def __init__(
        self,
        medium: Medium,
        journal: Journal,
        kind: Kind,
        said: queue.SimpleQueue[Callable[[], None]] | None = None,
    ) -> None:
        self.time = 1000.0
        self.kind = kind
        super().__init__(medium, journal, clock=lambda: self.time)
        self.removed: list[tuple[str, Reason]] = []
        self.on_removed = self._gone
        self._said = said or queue.SimpleQueue()

    def _gone(self, holding: Holding, reason: Reason) -> None:
        # Whoever hears of it must find nothing of it any more.
        assert self.get(holding.kind, holding.id) is None
        assert holding.gone
        self.removed.append((holding.id, reason))

    def record(self, name: str, length: int | None, piece_length: int | None = MIB) -> TaskRecord:
        """A record of a task of this name."""
        return TaskRecord(
            kind=self.kind,
            id=name,
            url=f"http://origin/{name}",
            created_at=1000.0,
            updated_at=1000.0,
            content_length=length,
            piece_length=piece_length,
        )

    def find(self, name: str) -> Holding:
        """What is held of a task, which must be something."""
        holding = self.get(self.kind, name)
        if holding is None:
            raise LookupError(name)
        return holding

    def add(self, name: str, length: int, piece_length: int = MIB) -> Holding:
        """A task of which nothing is here."""
        return self.open(self.record(name, length, piece_length))

    def fill(self, name: str, length: int) -> Holding:
        """A task of which everything is here."""
        holding = self.add(name, length)
        holding.reserve(range(holding.record.piece_count or 0))
        for number in range(holding.record.piece_count or 0):
            self.bring(holding, number)
        return holding

    def bring(self, holding: Holding, number: int) -> PieceRecord:
        """Receive a piece and publish it."""
        claim = holding.claim(number)
        fill(claim.sink, data_of(number, claim.piece.length))
        return self.publish(claim)

    def publish(self, claim: Claim) -> PieceRecord:
        """Publish what was received, and wait until it is here."""
        piece = self.begin_to_publish(claim)
        self.wait(claim)
        return piece

    def begin_to_publish(self, claim: Claim) -> PieceRecord:
        """Publish what was received; the journal may have to be waited for."""
        digest = piece_digest(crc32(data_of(claim.piece.number, claim.piece.length)))
        return claim.publish(digest, parent_id="parent", traffic=Traffic.REMOTE_PEER)

    def wait(self, claim: Claim) -> None:
        """Hear what the journal has to say until the claim is over."""
        while not claim.over.is_set():
            self._said.get(timeout=30)()

    def empty(self) -> None:
        """Delete everything."""
        for holding in self:
            self.remove(holding, Reason.DELETED)


def in_memory(capacity: int = CAPACITY) -> Watched:
    """A store in memory."""
    return Watched(MemoryMedium(capacity), Noted(), Kind.CACHE)


def on_disk(path: Path, capacity: int = CAPACITY) -> Watched:
    """A store on the disk, below *path*, that is loaded."""
    directory = DataDirectory(path)
    directory.open()
    said: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    journal = SqliteJournal(directory.journal, said.put)
    store = Watched(DiskMedium(directory, limit=capacity), journal, Kind.STANDARD, said)
    store.load()
    return store


def data_of(number: int, length: int) -> bytes:
    """What piece *number* contains."""
    return random.Random(number).randbytes(length)
