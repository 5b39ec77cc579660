"""Which tasks have outlived their time, and when a disk is so full that others must go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pantala.model.task import Kind, TaskRecord


def expired(
    records: Iterable[TaskRecord], *, ttl: Mapping[Kind, float], now: float
) -> list[TaskRecord]:
    """The tasks to evict because their time to live is over.

    That of its kind counts from the last use; one of its own, from the task's creation. Whether a
    task is in use right now is the store's to know: it spares leased tasks.

    Args:
        records: What is held.
        ttl: Seconds to live, by kind.
        now: Unix time, seconds.
    """
    return [record for record in records if _end(record, ttl) <= now]


def _end(record: TaskRecord, ttl: Mapping[Kind, float]) -> float:
    if record.ttl is not None:
        return record.created_at + record.ttl
    return record.updated_at + ttl[record.kind]


@dataclass(frozen=True, slots=True)
class Space:
    """What a disk has.

    Attributes:
        total: Bytes in all.
        left: Bytes that are free for us.
    """

    total: int
    left: int


@dataclass(frozen=True, slots=True)
class Watermarks:
    """How full a disk may be, percent.

    Attributes:
        high: From here on tasks go, the least recently used first,
        low: until it is no fuller than this.
    """

    high: int
    low: int

    def excess(self, space: Space) -> int:
        """Bytes that must go now; 0 below the high mark."""
        used = space.total - space.left
        if used * 100 < space.total * self.high:
            return 0
        return max(0, used - space.total * self.low // 100)
