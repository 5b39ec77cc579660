"""What every journal that outlives the process must do.

A subclass says where it is::

    class TestSqliteJournal(JournalContract):
        def make(self, path, deliver) -> Journal: ...
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pantala.errors import DragonflyError
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.storage.journal import Journal

MIB = 1 << 20

#: A task of three pieces, with every field set that outlives the process.
RECORD = TaskRecord(
    kind=Kind.STANDARD,
    id="a" * 64,
    url="http://origin/file",
    created_at=100.0,
    updated_at=101.5,
    identity="identity",
    tag="tag",
    application="application",
    piece_length=4 * MIB,
    content_length=9 * MIB,
    response_header={"Content-Type": "text/plain", "X": "ü"},
    version='"1"',
    uploaded_count=7,
    failed_at=102.0,
    finished_at=103.0,
    persistent=True,
    ttl=86400.0,
)


def piece(number: int) -> PieceRecord:
    """A piece of :data:`RECORD`."""
    return PieceRecord(
        number=number,
        offset=number * 4 * MIB,
        length=4 * MIB if number < 2 else MIB,
        digest=f"crc32:{number}",
        parent_id="parent" if number else None,
        traffic=Traffic.REMOTE_PEER if number else Traffic.BACK_TO_SOURCE,
        cost=0.25,
        created_at=150.0 + number,
    )


class Told:
    """Those who are told that something was written, on this thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.answers: list[DragonflyError | None] = []

    def deliver(self, call: Callable[[], None]) -> None:
        """Called on the journal's thread."""
        self._calls.put(call)

    def wait(self, count: int) -> list[DragonflyError | None]:
        """The next *count* answers."""
        while len(self.answers) < count:
            self._calls.get(timeout=30)()
        answers, self.answers = self.answers, []
        return answers


class JournalContract:
    """Tests that each implementation of a journal must pass."""

    def make(self, path: Path, told: Told) -> Journal:
        """One at *path*, with what was written there before; not loaded yet."""
        raise NotImplementedError

    def loaded(self, path: Path, told: Told | None = None) -> Journal:
        """An empty journal, loaded and ready."""
        journal = self.make(path, told or Told())
        assert journal.load() == []
        return journal

    def reopened(self, journal: Journal, path: Path) -> list[tuple[TaskRecord, list[PieceRecord]]]:
        """What another process finds in it."""
        journal.close()
        again = self.make(path, Told())
        found = again.load()
        again.close()
        return sorted(found, key=lambda entry: entry[0].kind)

    def test_it_begins_empty(self, tmp_path: Path) -> None:
        """Nothing is known of anything."""
        journal = self.loaded(tmp_path)
        assert self.reopened(journal, tmp_path) == []

    def test_everything_is_kept_as_it_is(self, tmp_path: Path) -> None:
        """Every field of both; but not what only the process knows."""
        journal, told = self.loaded(tmp_path), Told()
        journal.task(replace(RECORD, uploading_count=3, prefetched_at=5.0))
        for number in (2, 0):
            journal.piece(RECORD, piece(number), told.answers.append)
        ((record, pieces),) = self.reopened(journal, tmp_path)
        assert record == RECORD
        assert sorted(pieces, key=lambda p: p.number) == [piece(0), piece(2)]

    def test_the_last_word_counts(self, tmp_path: Path) -> None:
        """Of a task, and of a piece."""
        journal = self.loaded(tmp_path)
        other = replace(RECORD, kind=Kind.PERSISTENT_CACHE)
        last = replace(RECORD, updated_at=300.0, version='"2"', finished_at=None)
        journal.task(RECORD)
        journal.task(other)
        journal.task(last)
        journal.piece(RECORD, piece(1), lambda _: None)
        journal.piece(other, piece(1), lambda _: None)
        journal.dropped(Kind.STANDARD, RECORD.id, 1)
        assert self.reopened(journal, tmp_path) == [(last, []), (other, [piece(1)])]

    def test_deleting_forgets_everything(self, tmp_path: Path) -> None:
        """Also of what comes back under its name; and of no other kind."""
        journal = self.loaded(tmp_path)
        other = replace(RECORD, kind=Kind.PERSISTENT)
        for record in (RECORD, other):
            journal.task(record)
            journal.piece(record, piece(0), lambda _: None)
        journal.deleted(Kind.STANDARD, RECORD.id)
        journal.deleted(Kind.STANDARD, "unknown")
        journal.task(RECORD)
        assert self.reopened(journal, tmp_path) == [(RECORD, []), (other, [piece(0)])]

    def test_who_asks_is_told_when_it_is_certain(self, tmp_path: Path) -> None:
        """By then another process would find it, though this one ended on the spot."""
        told = Told()
        journal = self.loaded(tmp_path, told)
        journal.task(RECORD)
        journal.piece(RECORD, piece(0), told.answers.append)
        assert told.answers == []
        assert told.wait(1) == [None]
        other = self.make(tmp_path, Told())
        assert other.load() == [(RECORD, [piece(0)])]
        other.close()
        journal.close()
