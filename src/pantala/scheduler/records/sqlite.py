"""Rows of imported tasks in a file of SQLite, which is one scheduler's alone."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from pantala.core.sched.entities import TaskKey
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import PeerState, TaskState
from pantala.errors import FeatureOff, Unavailable
from pantala.model.task import Kind

from .store import PAGE, TaskAndPeers

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: The setting that says where.
_SETTING: Final = "database.sqlite.path"

#: Of the tables below; stands in the file as ``user_version``.
_VERSION: Final = 1

_SCHEMA: Final = """
    CREATE TABLE task (
        kind INTEGER NOT NULL, id TEXT NOT NULL,
        replicas INTEGER NOT NULL, content_length INTEGER NOT NULL, piece_length INTEGER NOT NULL,
        ttl REAL NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL,
        state TEXT NOT NULL, tag TEXT, application TEXT,
        expires_at REAL NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE TABLE peer (
        kind INTEGER NOT NULL, id TEXT NOT NULL,
        task_id TEXT NOT NULL, host_id TEXT NOT NULL, persistent INTEGER NOT NULL,
        created_at REAL NOT NULL, updated_at REAL NOT NULL,
        state TEXT NOT NULL, cost REAL NOT NULL, concurrent_pieces INTEGER NOT NULL,
        PRIMARY KEY (kind, id),
        FOREIGN KEY (kind, task_id) REFERENCES task (kind, id) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX peer_of_task ON peer (kind, task_id);
"""

_TASK: Final = (
    "kind, id, replicas, content_length, piece_length, ttl, created_at, updated_at, state, tag, "
    "application"
)
_PEER: Final = (
    "kind, id, task_id, host_id, persistent, created_at, updated_at, state, cost, concurrent_pieces"
)

T = TypeVar("T")


class SqliteRecords:
    """A :class:`.store.RecordStore`. The file comes to be with the first task.

    A file that is damaged is moved aside, with a line in the log; the hosts still have what they
    have, and it can be imported again. One that somebody removes under us is written again.

    Args:
        path: The file. Nobody else may use it meanwhile. None: nothing is kept, and every call
            raises FeatureOff.
        clock: Unix time.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "records")
        self._is_closed = False
        #: Used in the thread alone.
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    async def open(self) -> None:
        """See :class:`.store.RecordStore`. A file that is not there yet is not made."""
        if self._path is not None and self._path.exists():
            await self._run(lambda db: db.execute("SELECT 1 FROM task LIMIT 1").fetchall())

    async def close(self) -> None:
        """See :class:`.store.RecordStore`."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown()

    async def task(self, key: TaskKey) -> TaskRow | None:
        """See :class:`.store.RecordStore`."""
        wanted = f"SELECT {_TASK} FROM task WHERE kind = ? AND id = ? AND expires_at > ?"  # noqa: S608  names of ours
        rows = await self._read(wanted, *key, self._clock())
        return _task(rows[0]) if rows else None

    async def walk(self, kind: Kind) -> AsyncGenerator[list[TaskAndPeers], None]:
        """See :class:`.store.RecordStore`. Tasks that have ended go at this moment."""
        await self._read("DELETE FROM task WHERE expires_at <= ?", self._clock())
        last = ""
        while page := await self._run(functools.partial(_page, kind=kind, after=last)):
            yield page
            last = page[-1][0].id

    async def peer(self, kind: Kind, peer_id: str) -> PeerRow | None:
        """See :class:`.store.RecordStore`."""
        rows = await self._peers("peer.kind = ? AND peer.id = ?", kind, peer_id)
        return rows[0] if rows else None

    async def peers(self, key: TaskKey) -> list[PeerRow]:
        """See :class:`.store.RecordStore`."""
        return await self._peers("peer.kind = ? AND peer.task_id = ?", *key)

    async def put_task(self, row: TaskRow, *, was: TaskState | None) -> bool:
        """See :class:`.store.RecordStore`."""
        return await self._run(lambda db: _put_task(db, row, was, self._clock()))

    async def begin(self, row: TaskRow, first: PeerRow, *, was: TaskState | None) -> bool:
        """See :class:`.store.RecordStore`."""

        def begin(db: sqlite3.Connection) -> bool:
            now = self._clock()
            if not _put_task(db, row, was, now):
                return False
            db.execute("DELETE FROM peer WHERE kind = ? AND task_id = ?", (row.kind, row.id))
            return _put_peer(db, first, now, anew=True)

        return await self._run(begin)

    async def put_peer(self, row: PeerRow, *, anew: bool = True) -> bool:
        """See :class:`.store.RecordStore`."""
        return await self._run(lambda db: _put_peer(db, row, self._clock(), anew=anew))

    async def remove_peer(self, row: PeerRow) -> None:
        """See :class:`.store.RecordStore`."""
        await self._read("DELETE FROM peer WHERE kind = ? AND id = ?", row.kind, row.id)

    async def remove_task(self, key: TaskKey) -> None:
        """See :class:`.store.RecordStore`."""
        await self._read("DELETE FROM task WHERE kind = ? AND id = ?", *key)

    async def lease(self, name: str, seconds: float) -> bool:  # noqa: ARG002  there are no others
        """See :class:`.store.RecordStore`. Nobody else has this file."""
        return True

    async def release(self, name: str) -> None:
        """See :class:`.store.RecordStore`."""

    async def _peers(self, where: str, *values: object) -> list[PeerRow]:
        names = ", ".join(f"peer.{name}" for name in _PEER.split(", "))
        rows = await self._read(
            f"SELECT {names} FROM peer JOIN task ON task.kind = peer.kind "  # noqa: S608  words of ours
            f"AND task.id = peer.task_id WHERE {where} AND task.expires_at > ?",
            *values,
            self._clock(),
        )
        return [_peer(row) for row in rows]

    async def _read(self, statement: str, *values: object) -> list[Any]:
        return await self._run(lambda db: db.execute(statement, values).fetchall())

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Let *work* have the file, as one transaction, in the thread."""

        def run() -> T:
            connection = self._connected()
            try:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    return work(connection)
            except sqlite3.Error as error:
                # What it was cannot be known; the next call looks at the file anew.
                self._disconnect()
                raise Unavailable(
                    f"records of imported tasks in {self._path}: {error}; nothing was changed, "
                    "try again when that is remedied"
                ) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        """The connection, made if need be.

        Raises:
            FeatureOff: The file cannot be had.
            Unavailable: It is not there any more.
        """
        if self._path is None:
            raise FeatureOff(f"imported tasks are not kept here: set {_SETTING}")
        if self._connection is not None and _file(self._path) != self._opened:
            self._write_again(self._path, self._connection)
        if self._connection is None:
            try:
                self._connection = self._connect(self._path)
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise FeatureOff(
                        f"imported tasks cannot be kept in {self._path} ({_SETTING}): {error}"
                    ) from error
                self._move_aside(self._path, error)
                self._connection = self._connect(self._path)
            except OSError as error:
                raise FeatureOff(
                    f"imported tasks cannot be kept in {self._path} ({_SETTING}): "
                    f"{error.strerror or error}"
                ) from error
            self._opened = _file(self._path)
        return self._connection

    def _write_again(self, path: Path, connection: sqlite3.Connection) -> None:
        """Somebody has removed the file. What was in it is here as long as it is open.

        Raises:
            Unavailable: It cannot be written, or another one is there.
        """
        if _file(path) is not None:
            raise Unavailable(
                f"records of imported tasks: {path} is not the file that is in use; put that back, "
                "or start the scheduler anew with the one that is there"
            )
        copy = path.with_name(f"{path.name}.copy")
        try:
            copy.unlink(missing_ok=True)
            connection.execute("VACUUM INTO ?", (str(copy),))
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(
                f"records of imported tasks: {path} was removed, and cannot be written again: "
                f"{error}"
            ) from error
        self._disconnect()  # which removes the rest of the old file, by name
        copy.rename(path)
        logger.warning("records of imported tasks were removed; written again", path=str(path))

    def _connect(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        try:
            # Whoever else opens the file gets an error, not half of the truth.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _check(connection, path)
            path.chmod(0o600)
        except BaseException:  # whatever it is, the file is ours to close
            connection.close()
            raise
        return connection

    def _move_aside(self, path: Path, error: Exception) -> None:
        target = path.with_name(f"{path.name}.damaged-{int(self._clock())}")
        path.rename(target)
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        logger.warning(
            "records of imported tasks are damaged; moved aside, starting without any",
            path=str(path),
            moved_to=str(target),
            why=str(error),
        )


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there, if one is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Damaged(sqlite3.DatabaseError):
    """The file was looked through, and is wrong."""


def _is_damaged(error: sqlite3.DatabaseError) -> bool:
    """Not: locked, read-only, or full."""
    codes = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, _Damaged) or getattr(error, "sqlite_errorcode", None) in codes


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Look the file through, and see to it that the tables are there."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(str(verdict))
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise FeatureOff(
            f"{path} ({_SETTING}) was written by a newer version of this program (schema "
            f"{version}, want {_VERSION}): name another file"
        )
    if version < _VERSION:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
        )


def _page(db: sqlite3.Connection, *, kind: Kind, after: str) -> list[TaskAndPeers]:
    """Tasks whose ids come after that one, and their peers."""
    found = db.execute(
        f"SELECT {_TASK} FROM task WHERE kind = ? AND id > ? ORDER BY id LIMIT {PAGE}",  # noqa: S608  names of ours
        (kind, after),
    ).fetchall()
    tasks = {task.id: (task, list[PeerRow]()) for task in map(_task, found)}
    if tasks:
        rows = db.execute(
            f"SELECT {_PEER} FROM peer WHERE kind = ? AND task_id > ? AND task_id <= ?",  # noqa: S608  names of ours
            (kind, after, max(tasks)),
        )
        for row in map(_peer, rows):
            tasks[row.task_id][1].append(row)
    return list(tasks.values())


def _put_task(db: sqlite3.Connection, row: TaskRow, was: TaskState | None, now: float) -> bool:
    db.execute("DELETE FROM task WHERE expires_at <= ?", (now,))
    known = db.execute(
        "SELECT state FROM task WHERE kind = ? AND id = ?", (row.kind, row.id)
    ).fetchone()
    if (None if known is None else known[0]) != was:
        return False
    values = (*_task_values(row), row.expires_at)
    # Not REPLACE, which would take the task's peers with it.
    names = f"{_TASK}, expires_at".split(", ")
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[2:])
    db.execute(
        f"INSERT INTO task ({', '.join(names)}) VALUES ({_marks(names)}) "  # noqa: S608  names of ours
        f"ON CONFLICT (kind, id) DO UPDATE SET {changes}",
        values,
    )
    return True


def _put_peer(db: sqlite3.Connection, row: PeerRow, now: float, *, anew: bool) -> bool:
    known = db.execute(
        "SELECT peer.id FROM task LEFT JOIN peer "
        "ON peer.kind = task.kind AND peer.id = ? AND peer.task_id = task.id "
        "WHERE task.kind = ? AND task.id = ? AND task.expires_at > ?",
        (row.id, row.kind, row.task_id, now),
    ).fetchone()
    if known is None or (known[0] is None and not anew):
        return False
    names = _PEER.split(", ")
    db.execute(
        f"REPLACE INTO peer ({_PEER}) VALUES ({_marks(names)})",  # noqa: S608  names of ours
        _peer_values(row),
    )
    return True


def _marks(names: list[str]) -> str:
    return ", ".join("?" * len(names))


def _task_values(row: TaskRow) -> tuple[object, ...]:
    return (
        *(int(row.kind), row.id, row.replicas, row.content_length, row.piece_length),
        *(row.ttl, row.created_at, row.updated_at, row.state.value, row.tag, row.application),
    )


def _peer_values(row: PeerRow) -> tuple[object, ...]:
    return (
        *(int(row.kind), row.id, row.task_id, row.host_id, row.persistent),
        *(row.created_at, row.updated_at, row.state.value, row.cost, row.concurrent_pieces),
    )


def _task(row: Any) -> TaskRow:
    kind, id_, replicas, content_length, piece_length, *times, state, tag, application = row
    ttl, created_at, updated_at = times
    return TaskRow(
        *(Kind(kind), id_, replicas, content_length, piece_length),
        *(ttl, created_at, updated_at, TaskState(state), tag, application),
    )


def _peer(row: Any) -> PeerRow:
    kind, id_, task_id, host_id, persistent, created_at, updated_at, state, cost, pieces = row
    return PeerRow(
        *(Kind(kind), id_, task_id, host_id, bool(persistent), created_at, updated_at),
        *(PeerState(state), cost, pieces),
    )
