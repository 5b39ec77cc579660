"""storage/sqlite_journal.py meets its contract, and survives what becomes of files."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from pantala.errors import ConfigError, DragonflyError, StoreFailed
from pantala.model.task import Kind
from pantala.storage import sqlite_journal
from pantala.storage.sqlite_journal import SqliteJournal
from pantala.testing.journal_contract import RECORD, JournalContract, Told, piece


def make(path: Path, told: Told | None = None) -> SqliteJournal:
    """The journal in a directory."""
    return SqliteJournal(path / "journal.db", (told or Told()).deliver)


def empty(path: Path, told: Told | None = None) -> SqliteJournal:
    """A new one."""
    journal = make(path, told)
    assert journal.load() == []
    return journal


class TestSqliteJournal(JournalContract):
    """The contract."""

    def make(self, path: Path, told: Told) -> SqliteJournal:
        return make(path, told)


def filled(path: Path) -> Path:
    """The file of a journal in which there is something."""
    journal = empty(path)
    for number in range(200):
        journal.task(replace(RECORD, id=f"{number:064}"))
    journal.close()
    return path / "journal.db"


@pytest.mark.parametrize("how", ["its head", "its middle", "no database", "rows of nobody"])
def test_damaged(tmp_path: Path, how: str) -> None:
    """Moved aside and begun anew."""
    file = filled(tmp_path)
    data = bytearray(file.read_bytes())
    if how == "its head":
        data[100:4096] = b"?" * (4096 - 100)
    elif how == "its middle":
        data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    elif how == "no database":
        data[:] = b"hello"
    file.write_bytes(data)
    if how == "rows of nobody":
        with sqlite3.connect(file) as db:
            db.execute("UPDATE task SET kind = 77 WHERE id LIKE '%9'")
        db.close()
    journal = make(tmp_path)
    assert journal.load() == []
    assert (tmp_path / "journal.db.damaged").exists()
    journal.task(RECORD)
    journal.close()
    again = make(tmp_path)
    assert again.load() == [(RECORD, [])]
    again.close()


def test_of_a_later_version(tmp_path: Path) -> None:
    """It is not touched: whoever made it may want it back."""
    file = filled(tmp_path)
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match=r"later version of pantala \(schema 99, known up to 2\)"):
        make(tmp_path).load()
    assert not (tmp_path / "journal.db.damaged").exists()


def test_of_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are made up for; what was in it is in it still."""
    filled(tmp_path)
    step = "ALTER TABLE task ADD COLUMN note TEXT; UPDATE task SET tag = 'moved'"
    monkeypatch.setattr(sqlite_journal, "MIGRATIONS", (*sqlite_journal.MIGRATIONS, step))
    journal = make(tmp_path)
    loaded = journal.load()
    assert len(loaded) == 200
    assert {record.tag for record, _ in loaded} == {"moved"}
    journal.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """Said in words, with the file."""
    with pytest.raises(ConfigError, match=r"cannot open .*/gone/journal\.db: unable to open"):
        make(tmp_path / "gone").load()


def test_what_cannot_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked is told at once that it is not; what nobody asked for is written later."""
    monkeypatch.setattr(sqlite_journal, "_RETRY", 0.01)
    told = Told()
    journal = empty(tmp_path, told)
    with sqlite3.connect(tmp_path / "journal.db", isolation_level=None, timeout=0) as other:
        other.execute("BEGIN IMMEDIATE")
        journal._db.execute("PRAGMA busy_timeout = 1")
        journal.task(RECORD)
        journal.deleted(Kind.STANDARD, "x")
        journal.piece(RECORD, piece(0), told.answers.append)
        (error,) = told.wait(1)
        assert isinstance(error, StoreFailed)
        assert "database is locked" in str(error)
        assert journal.trouble == str(error)
        other.execute("ROLLBACK")
    other.close()
    answers: list[DragonflyError | None] = []
    while not answers or answers[-1] is not None:
        journal.piece(RECORD, piece(1), told.answers.append)
        answers += told.wait(1)
    journal.close()
    again = make(tmp_path)
    assert again.load() == [(RECORD, [piece(1)])]
    again.close()


def test_mere_use_is_not_written_each_time(tmp_path: Path) -> None:
    """A minute more or less is nothing to a time to live."""
    journal = empty(tmp_path)
    for second in range(300):
        journal.task(replace(RECORD, updated_at=100.0 + second, uploaded_count=second))
    assert journal._queue.qsize() <= 6
    journal.close()
    again = make(tmp_path)
    ((record, _),) = again.load()
    assert (record.updated_at, record.uploaded_count) == (399.0, 299)
    again.close()


def test_no_piece_is_written_after_the_end(tmp_path: Path) -> None:
    """Nobody waits for it in vain."""
    journal = empty(tmp_path)
    journal.close()
    answers: list[DragonflyError | None] = []
    journal.piece(RECORD, piece(0), answers.append)
    assert isinstance(answers[0], StoreFailed)


def test_what_can_never_be_written_holds_nobody_up(tmp_path: Path) -> None:
    """Whoever asked is told; what came with it, before and after, is written."""
    told = Told()
    journal = empty(tmp_path, told)
    with sqlite3.connect(tmp_path / "journal.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")  # so that all of it comes in one go
        journal.task(RECORD)
        journal.piece(RECORD, replace(piece(0), length=1 << 70), told.answers.append)
        journal.piece(RECORD, piece(1), told.answers.append)
        other.execute("ROLLBACK")
    other.close()
    refused, written = told.wait(2)
    assert isinstance(refused, StoreFailed)
    assert "too large" in str(refused)
    assert written is None
    journal.close()
    again = make(tmp_path)
    assert again.load() == [(RECORD, [piece(1)])]
    again.close()
