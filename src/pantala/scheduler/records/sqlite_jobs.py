"""Jobs in a file of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pantala.core.sched.jobs import JobOrder, JobPlan, JobRow, Outcome
from pantala.model.task import Kind

from .job_layout import order_from, order_text, outcome_from, outcome_text, plan_from, plan_text
from .sqlite_file import SqliteFile

_ROW: Final = "id, kind, scope, created_at, ends_at, pairs, done, failed, received, ended_at"
_PUT: Final = f"INSERT INTO job ({_ROW}, plan, secret) VALUES ({', '.join('?' * 12)})"  # noqa: S608  names of ours
_PAIR: Final = "REPLACE INTO job_pair (job_id, number, outcome) VALUES (?, ?, ?)"


class SqliteJobs:
    """A :class:`.store.JobStore`.

    Args:
        file: Which one. It is not made to look what is in it.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def put(self, row: JobRow, plan: JobPlan, order: JobOrder) -> None:
        """See :class:`.store.JobStore`."""
        # Of a large job the text takes a while, so it is made in the thread.
        await self._file.write(
            lambda db: db.execute(_PUT, (*_values(row), plan_text(plan), order_text(order)))
        )

    async def rows(self) -> list[JobRow]:
        """See :class:`.store.JobStore`."""
        return [_row(found) for found in await self._read(f"SELECT {_ROW} FROM job")]  # noqa: S608  names of ours

    async def plan(self, job_id: str) -> JobPlan | None:
        """See :class:`.store.JobStore`."""
        found = await self._read("SELECT plan FROM job WHERE id = ?", job_id)
        return plan_from(found[0][0]) if found else None

    async def order(self, job_id: str) -> JobOrder | None:
        """See :class:`.store.JobStore`."""
        found = await self._read("SELECT secret FROM job WHERE id = ?", job_id)
        return order_from(found[0][0]) if found and found[0][0] is not None else None

    async def outcomes(self, job_id: str) -> list[Outcome]:
        """See :class:`.store.JobStore`."""
        wanted = "SELECT number, outcome FROM job_pair WHERE job_id = ? ORDER BY number"
        return [outcome_from(*found) for found in await self._read(wanted, job_id)]

    async def save(self, row: JobRow, outcomes: Sequence[Outcome]) -> bool:
        """See :class:`.store.JobStore`."""
        pairs = [(row.id, outcome.number, outcome_text(outcome)) for outcome in outcomes]
        over = row.ended_at is not None

        def save(db: sqlite3.Connection) -> bool:
            tally = (row.done, row.failed, row.received, row.ended_at, row.id)
            changes = "done = ?, failed = ?, received = ?, ended_at = ?"
            wipe = ", secret = NULL" if over else ""
            changed = db.execute(f"UPDATE job SET {changes}{wipe} WHERE id = ?", tally)  # noqa: S608  words of ours
            if not changed.rowcount:
                return False
            db.executemany(
                "REPLACE INTO job_pair (job_id, number, outcome) VALUES (?, ?, ?)", pairs
            )
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

    async def _read(self, statement: str, *values: object) -> list[Any]:
        if not self._file.is_there:
            return []
        return await self._file.read(lambda db: db.execute(statement, values).fetchall())


def _values(row: JobRow) -> tuple[object, ...]:
    return (
        *(row.id, int(row.kind), row.scope, row.created_at, row.ends_at),
        *(row.pairs, row.done, row.failed, row.received, row.ended_at),
    )


def _row(found: Any) -> JobRow:
    job_id, kind, *rest = found
    return JobRow(job_id, Kind(kind), *rest)
