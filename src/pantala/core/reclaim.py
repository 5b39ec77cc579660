"""Which tasks have outlived their time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pantala.model.task import Kind, TaskRecord


def expired(
    records: Iterable[TaskRecord], *, ttl: Mapping[Kind, float], now: float
) -> list[TaskRecord]:
    """The tasks to evict because nobody used them for their time to live.

    Whether one is in use right now is the store's to know: it spares leased tasks.

    Args:
        records: What is held.
        ttl: Seconds to live, by kind.
        now: Unix time, seconds.
    """
    return [record for record in records if record.updated_at + ttl[record.kind] <= now]
