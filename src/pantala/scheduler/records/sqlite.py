"""Rows of imported tasks in a file of SQLite, which the schedulers of one machine share."""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final

from pantala.core.sched.entities import TaskKey
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import PeerState, TaskState
from pantala.model.task import Kind

from .living import Living
from .sqlite_file import SqliteFile
from .sqlite_jobs import SqliteJobs
from .store import PAGE, TaskAndPeers

_TASK: Final = (
    "kind, id, replicas, content_length, piece_length, ttl, created_at, updated_at, state, tag, "
    "application"
)
_PEER: Final = (
    "kind, id, task_id, host_id, persistent, created_at, updated_at, state, cost, concurrent_pieces"
)


class SqliteRecords:
    """A :class:`.store.RecordStore`.

    If the file is damaged and moved aside, the hosts still have what they have, and it can be
    imported again.

    Args:
        path: The file. None: nothing is kept, and every call raises FeatureOff.
        clock: Unix time.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = SqliteFile(path, clock)
        self.jobs = SqliteJobs(self._file)

    async def open(self) -> None:
        """See :class:`.store.RecordStore`. A file that is not there yet is not made."""
        if self._file.is_there:
            await self._read("SELECT 1 FROM task LIMIT 1")

    async def close(self) -> None:
        """See :class:`.store.RecordStore`."""
        await self._file.close()

    async def task(self, key: TaskKey) -> TaskRow | None:
        """See :class:`.store.RecordStore`."""
        wanted = f"SELECT {_TASK} FROM task WHERE kind = ? AND id = ? AND expires_at > ?"  # noqa: S608  names of ours
        rows = await self._read(wanted, *key, self._clock())
        return _task(rows[0]) if rows else None

    async def walk(self, kind: Kind) -> AsyncGenerator[list[TaskAndPeers], None]:
        """See :class:`.store.RecordStore`. Tasks that have ended go at this moment."""
        await self._write("DELETE FROM task WHERE expires_at <= ?", self._clock())
        last = ""
        while page := await self._file.read(functools.partial(_page, kind=kind, after=last)):
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
        return await self._file.write(lambda db: _put_task(db, row, was, self._clock()))

    async def begin(self, row: TaskRow, first: PeerRow, *, was: TaskState | None) -> bool:
        """See :class:`.store.RecordStore`."""

        def begin(db: sqlite3.Connection) -> bool:
            now = self._clock()
            if not _put_task(db, row, was, now):
                return False
            db.execute("DELETE FROM peer WHERE kind = ? AND task_id = ?", (row.kind, row.id))
            return _put_peer(db, first, now, anew=True)

        return await self._file.write(begin)

    async def put_peer(self, row: PeerRow, *, anew: bool = True) -> bool:
        """See :class:`.store.RecordStore`."""
        return await self._file.write(lambda db: _put_peer(db, row, self._clock(), anew=anew))

    async def remove_peer(self, row: PeerRow) -> None:
        """See :class:`.store.RecordStore`."""
        await self._write("DELETE FROM peer WHERE kind = ? AND id = ?", row.kind, row.id)

    async def remove_task(self, key: TaskKey) -> None:
        """See :class:`.store.RecordStore`."""
        await self._write("DELETE FROM task WHERE kind = ? AND id = ?", *key)

    async def lease(self, name: str, seconds: float) -> bool:
        """See :class:`.store.RecordStore`."""
        now = self._clock()

        def lease(db: sqlite3.Connection, living: Living) -> bool:
            db.execute("DELETE FROM lease WHERE ends_at <= ?", (now,))
            found = db.execute("SELECT owner FROM lease WHERE name = ?", (name,)).fetchone()
            if found is not None and found[0] != living.name and living.lives(found[0]):
                return False
            db.execute("REPLACE INTO lease VALUES (?, ?, ?)", (name, living.name, now + seconds))
            return True

        return await self._file.write_alive(lease)

    async def release(self, name: str) -> None:
        """See :class:`.store.RecordStore`."""
        statement = "DELETE FROM lease WHERE name = ? AND owner = ?"
        await self._file.write_alive(lambda db, living: db.execute(statement, (name, living.name)))

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
        return await self._file.read(lambda db: db.execute(statement, values).fetchall())

    async def _write(self, statement: str, *values: object) -> None:
        await self._file.write(lambda db: db.execute(statement, values))


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
