"""A journal in SQLite: one schema for all kinds that outlive the process.

What happens is queued on the event loop and written by a thread, as many entries at a time as are
there, in order. After a crash of the process all that was reported is there; after one of the
machine the last moments may be missing, and bytes too, which the checksums of pieces show.

A file that is damaged is moved aside and begun anew: what it spoke of is fetched again.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from pantala.errors import ConfigError, DragonflyError, StoreFailed
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic

from .journal import Written

logger = structlog.get_logger(__name__)

#: Seconds between two tries to write what could not be written.
_RETRY: Final = 1.0

#: Seconds by which the last use of a task may be older in the file than it is.
_TOUCH: Final = 60.0

#: What makes a file of one version one of the next; the first makes it from nothing.
MIGRATIONS: Final[Sequence[str]] = (
    """
    CREATE TABLE task (
        kind INTEGER NOT NULL, id TEXT NOT NULL, url TEXT NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL, finished_at REAL, failed_at REAL,
        identity TEXT NOT NULL, tag TEXT, application TEXT,
        piece_length INTEGER, content_length INTEGER, response_header TEXT NOT NULL,
        version TEXT NOT NULL, uploaded_count INTEGER NOT NULL,
        persistent INTEGER NOT NULL, ttl REAL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE TABLE piece (
        kind INTEGER NOT NULL, task_id TEXT NOT NULL, number INTEGER NOT NULL,
        offset INTEGER NOT NULL, length INTEGER NOT NULL, digest TEXT NOT NULL,
        parent_id TEXT, traffic INTEGER NOT NULL, cost REAL NOT NULL, created_at REAL NOT NULL,
        PRIMARY KEY (kind, task_id, number)
    ) WITHOUT ROWID;
    """,
    "ALTER TABLE task ADD COLUMN peer_id TEXT NOT NULL DEFAULT ''",
)

#: Fields of a record that are of the process, and not of the task.
_PASSING: Final = {"uploading_count", "prefetched_at"}
_TASK: Final = [f.name for f in fields(TaskRecord) if f.name not in _PASSING]
_PIECE: Final = [f.name for f in fields(PieceRecord)]

_PUT_TASK: Final = (
    f"INSERT OR REPLACE INTO task ({', '.join(_TASK)}) "  # noqa: S608  names of our own fields
    f"VALUES ({', '.join('?' * len(_TASK))})"
)
_PUT_PIECE: Final = (
    f"INSERT OR REPLACE INTO piece (kind, task_id, {', '.join(_PIECE)}) "  # noqa: S608  names of our own fields
    f"VALUES (?, ?, {', '.join('?' * len(_PIECE))})"
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be written.

    Attributes:
        written: Who wants to know; whatever nobody asks for is tried again until it is written.
    """

    statements: tuple[tuple[str, tuple[object, ...]], ...]
    written: Written | None = None


class SqliteJournal:
    """See :class:`~.journal.Journal`.

    Args:
        path: Of the file; made if it is not there.
        deliver: Has a function called on the event loop's thread.
    """

    lasts = True

    def __init__(self, path: Path, deliver: Callable[[Callable[[], None]], object]) -> None:
        self._path = path
        self._deliver = deliver
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._noted: dict[tuple[Kind, str], TaskRecord] = {}
        #: What says no more than that a task was used, and need not be written at once.
        self._used: dict[tuple[Kind, str], TaskRecord] = {}
        self._closed = False
        #: Why what happened lately is not written yet; None: it is.
        self.trouble: str | None = None
        self._thread: threading.Thread | None = None

    # -- the beginning -------------------------------------------------------------------------

    def _open(self) -> list[tuple[TaskRecord, list[PieceRecord]]]:
        """Open the file, make it one of this version, and read it."""
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._check()
            self._migrate()
            return self._read()
        except (LookupError, TypeError, ValueError) as error:  # rows that nobody of us wrote
            self._db.close()
            raise sqlite3.DatabaseError(str(error)) from error
        except BaseException:  # whatever it is, the file is ours to close
            self._db.close()
            raise

    def _check(self) -> None:
        (said,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise sqlite3.DatabaseError(said)

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"{self._path} was made by a later version of pantala (schema {version}, known up "
                f"to {len(MIGRATIONS)}); use that one, or another storage.dir"
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            self._db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT")

    def _read(self) -> list[tuple[TaskRecord, list[PieceRecord]]]:
        pieces: dict[tuple[int, str], list[PieceRecord]] = {}
        names = f"kind, task_id, {', '.join(_PIECE)}"
        for kind, task_id, *row in self._db.execute(f"SELECT {names} FROM piece"):  # noqa: S608  names of our own fields
            pieces.setdefault((kind, task_id), []).append(_piece(row))
        rows = self._db.execute(f"SELECT {', '.join(_TASK)} FROM task")  # noqa: S608  names of our own fields
        records = [_task(row) for row in rows]
        return [(record, pieces.get((record.kind, record.id), [])) for record in records]

    def _set_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(f"{aside}{suffix}")
        logger.error("journal damaged: begun anew", path=str(aside), why=str(error))

    def load(self) -> list[tuple[TaskRecord, list[PieceRecord]]]:
        try:
            found = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise ConfigError(f"cannot open {self._path}: {error}") from error
            self._set_aside(error)
            found = self._open()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()
        return found

    # -- meanwhile -----------------------------------------------------------------------------

    def task(self, record: TaskRecord) -> None:
        key = record.kind, record.id
        old = self._noted.get(key)
        if old is not None and _is_mere_use(old, record):
            self._used[key] = record
            return
        self._noted[key] = record
        self._used.pop(key, None)
        self._queue.put(_Entry(((_PUT_TASK, _row(record)),)))

    def piece(self, record: TaskRecord, piece: PieceRecord, written: Written) -> None:
        if self._closed:
            written(StoreFailed("the daemon is stopping"))
            return
        values = tuple(getattr(piece, name) for name in _PIECE)
        self._queue.put(_Entry(((_PUT_PIECE, (record.kind, record.id, *values)),), written))

    def dropped(self, kind: Kind, task_id: str, number: int) -> None:
        sql = "DELETE FROM piece WHERE kind = ? AND task_id = ? AND number = ?"
        self._queue.put(_Entry(((sql, (kind, task_id, number)),)))

    def deleted(self, kind: Kind, task_id: str) -> None:
        key = kind, task_id
        self._noted.pop(key, None)
        self._used.pop(key, None)
        self._queue.put(
            _Entry(
                (
                    ("DELETE FROM piece WHERE kind = ? AND task_id = ?", key),
                    ("DELETE FROM task WHERE kind = ? AND id = ?", key),
                )
            )
        )

    def close(self) -> None:
        self._closed = True
        for record in self._used.values():
            self._queue.put(_Entry(((_PUT_TASK, _row(record)),)))
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    # -- the thread ----------------------------------------------------------------------------

    def _write(self) -> None:
        left: list[_Entry] = []
        ending = False
        while not ending:
            with contextlib.suppress(queue.Empty):
                first = self._queue.get(timeout=_RETRY if left else None)
                batch = [first, *self._rest()]
                ending = None in batch
                left += [entry for entry in batch if entry is not None]
            left = self._write_all(left)
        if left:
            logger.error("journal incomplete", path=str(self._path), entries=len(left))
        self._db.close()

    def _rest(self) -> list[_Entry | None]:
        """What else is there now."""
        rest = []
        with contextlib.suppress(queue.Empty):
            while True:
                rest.append(self._queue.get_nowait())
        return rest

    def _write_all(self, entries: list[_Entry]) -> list[_Entry]:
        """Write them; those that are to be tried again."""
        try:
            self._commit(entries)
        except sqlite3.OperationalError as error:
            if self.trouble is None:
                logger.warning("journal cannot be written", path=str(self._path), why=str(error))
            self.trouble = f"cannot write {self._path}: {error}"
            self._tell(entries, StoreFailed(self.trouble))
            return [entry for entry in entries if entry.written is None]
        except Exception as error:  # one bad entry must not keep the others from the disk
            if len(entries) > 1:
                return [left for entry in entries for left in self._write_all([entry])]
            logger.exception("journal entry refused", path=str(self._path))
            self._tell(entries, StoreFailed(f"cannot write {self._path}: {error}"))
            return []
        if self.trouble is not None:
            logger.info("journal is written again", path=str(self._path))
        self.trouble = None
        self._tell(entries, None)
        return []

    def _commit(self, entries: list[_Entry]) -> None:
        try:
            self._db.execute("BEGIN")
            for entry in entries:
                for sql, values in entry.statements:
                    self._db.execute(sql, values)
            self._db.execute("COMMIT")
        except BaseException:  # whatever it is, half a batch must not be left open
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _tell(self, entries: list[_Entry], failure: DragonflyError | None) -> None:
        for entry in entries:
            if entry.written is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and who asked with it
                    self._deliver(partial(entry.written, failure))


def _is_mere_use(old: TaskRecord, new: TaskRecord) -> bool:
    """Whether *new* says no more than *old*, but for when and how often it was used lately."""
    passing = {name: getattr(old, name) for name in (*_PASSING, "updated_at", "uploaded_count")}
    return new.updated_at - old.updated_at < _TOUCH and replace(new, **passing) == old


def _row(record: TaskRecord) -> tuple[object, ...]:
    values = {name: getattr(record, name) for name in _TASK}
    values["response_header"] = json.dumps(dict(record.response_header))
    return tuple(values.values())


def _task(row: Sequence[Any]) -> TaskRecord:
    values = dict(zip(_TASK, row, strict=True))
    header = json.loads(values["response_header"])
    if not isinstance(header, dict):
        raise TypeError("headers are no map")
    values.update(
        kind=Kind(values["kind"]),
        response_header=header,
        persistent=bool(values["persistent"]),
    )
    return TaskRecord(**values)


def _piece(row: Sequence[Any]) -> PieceRecord:
    values = dict(zip(_PIECE, row, strict=True))
    values["traffic"] = Traffic(values["traffic"])
    return PieceRecord(**values)
