"""Jobs in a file of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from pantala.core.sched.jobs import JobOrder, JobPlan, JobRow, Outcome
from pantala.model.task import Kind

from .job_layout import order_from, order_text, outcome_from, outcome_text, plan_from, plan_text
from .sqlite_file import SqliteFile

T = TypeVar("T")

_ROW: Final = "id, kind, scope, created_at, ends_at, pairs, done, failed, received, ended_at"
_PUT: Final = f"INSERT INTO job ({_ROW}) VALUES ({', '.join('?' * 10)})"  # noqa: S608  names of ours
_TEXT: Final = "INSERT INTO job_text (job_id, plan, secret) VALUES (?, ?, ?)"
_WIPE: Final = "UPDATE job_text SET secret = NULL WHERE job_id = ?"
_PAIR: Final = "REPLACE INTO job_pair (job_id, number, outcome) VALUES (?, ?, ?)"

# What is over stays so, whoever comes late; it may be said again.
_TALLY: Final = (
    "UPDATE job SET done = ?, failed = ?, received = ?, ended_at = ? "
    "WHERE id = ? AND (ended_at IS NULL OR ended_at = ?)"
)


class SqliteJobs:
    """A :class:`.store.JobStore`.

    Args:
        file: Which one. It is not made to look what is in it.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def put(self, row: JobRow, plan: JobPlan, order: JobOrder) -> None:
        """See :class:`.store.JobStore`."""

        # Of a large job the text takes a while, here and below, so that is done in the thread.
        def put(db: sqlite3.Connection) -> None:
            db.execute(_PUT, _values(row))
            db.execute(_TEXT, (row.id, plan_text(plan), order_text(order)))

        await self._file.write(put)

    async def rows(self) -> list[JobRow]:
        """See :class:`.store.JobStore`."""
        return await self._read(f"SELECT {_ROW} FROM job", lambda *found: _row(found))  # noqa: S608  names of ours

    async def plan(self, job_id: str) -> JobPlan | None:
        """See :class:`.store.JobStore`."""
        wanted = "SELECT plan FROM job_text WHERE job_id = ?"
        return next(iter(await self._read(wanted, plan_from, job_id)), None)

    async def order(self, job_id: str) -> JobOrder | None:
        """See :class:`.store.JobStore`."""
        wanted = "SELECT secret FROM job_text WHERE job_id = ? AND secret IS NOT NULL"
        return next(iter(await self._read(wanted, order_from, job_id)), None)

    async def outcomes(self, job_id: str) -> list[Outcome]:
        """See :class:`.store.JobStore`."""
        wanted = "SELECT number, outcome FROM job_pair WHERE job_id = ? ORDER BY number"
        return await self._read(wanted, outcome_from, job_id)

    async def save(self, row: JobRow, outcomes: Sequence[Outcome]) -> bool:
        """See :class:`.store.JobStore`."""
        over = row.ended_at is not None

        def save(db: sqlite3.Connection) -> bool:
            tally = (row.done, row.failed, row.received, row.ended_at, row.id, row.ended_at)
            if not db.execute(_TALLY, tally).rowcount:
                return False
            if over:
                db.execute(_WIPE, (row.id,))
            db.executemany(_PAIR, ((row.id, each.number, outcome_text(each)) for each in outcomes))
            return True

        saved = await self._file.write(save)
        if over:
            await self._file.checkpoint()  # or what was wiped would be in the log for a while
        return saved

    async def remove(self, job_ids: Iterable[str]) -> None:
        """See :class:`.store.JobStore`."""
        gone = [(job_id,) for job_id in job_ids]
        if gone:
            await self._file.write(lambda db: db.executemany("DELETE FROM job WHERE id = ?", gone))

    async def _read(self, statement: str, make: Callable[..., T], *values: object) -> list[T]:
        """What *make* makes of the rows that are found."""
        if not self._file.is_there:
            return []
        return await self._file.read(
            lambda db: [make(*found) for found in db.execute(statement, values)]
        )


def _values(row: JobRow) -> tuple[object, ...]:
    return (
        *(row.id, int(row.kind), row.scope, row.created_at, row.ends_at),
        *(row.pairs, row.done, row.failed, row.received, row.ended_at),
    )


def _row(found: Any) -> JobRow:
    job_id, kind, *rest = found
    return JobRow(job_id, Kind(kind), *rest)
