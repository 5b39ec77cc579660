"""The memory medium: which way of lying in memory content gets, and what becomes of it after.

Touching a page for the first time costs more than receiving into it. Two things avoid it: a task
that has to go can hand its memory, still mapped, to the task that it makes room for; and where
the system allows huge pages for shared memory, segments ask for them. docs/adr/0005 has figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor

from pantala.core.ledger import MEMORY, Needs
from pantala.model.pieces import GROWTH_STEP
from pantala.model.task import PieceRecord, TaskRecord

from . import segments
from .medium import Content, Room
from .segments import SMALL, Growing, Segment


class MemoryMedium:
    """See :class:`~.medium.Medium`.

    Args:
        capacity: Bytes.
        lock_pages: Keep content out of swap.
        executor: Where memory is unmapped; a gigabyte takes a tenth of a second. None: here.
    """

    step = GROWTH_STEP
    growing_needs = Needs(descriptors=1, mappings=1)
    place = MEMORY
    decays = False

    def __init__(
        self, capacity: int, *, lock_pages: bool = False, executor: Executor | None = None
    ) -> None:
        self._capacity = capacity
        self.off = None if capacity else "storage.cacheCapacity is 0"
        self._lock_pages = lock_pages
        self._executor = executor

    def capacity(self) -> int:
        return self._capacity

    def needs(self, length: int, *, abundant: bool) -> Needs:
        return segments.needs_of(length, abundant=abundant)

    def create(self, record: TaskRecord, needs: Needs) -> Content:
        return segments.create(
            record.content_length or 0, descriptor=needs.descriptors > 0, lock=self._lock_pages
        )

    def reuse(self, length: int, evicted: list[Content], *, early: bool) -> Content | None:
        """Of those evicted, the one whose memory suits best, if any may.

        The shortest that is long enough, else the longest.
        """
        able = [
            content
            for content in evicted
            if isinstance(content, Segment) and content.can_resize(length)
        ]
        if length <= SMALL or not able:
            return None
        best = min(able, key=lambda c: (c.length < length, abs(c.length - length)))
        if not best.resize(length):
            return None
        evicted.remove(best)
        if early:
            clean = best.begin_cleaning()
            if self._executor is None:
                clean()
            else:
                self._executor.submit(clean)
        return best

    def grow(self, record: TaskRecord) -> Growing:
        del record
        return Growing(lock=self._lock_pages)

    def restore(self, record: TaskRecord, pieces: Iterable[PieceRecord]) -> None:
        del record, pieces

    def clean(self) -> None:
        pass

    def discard(self, rooms: Iterable[Room]) -> None:
        for room in rooms:
            room.retire()
            # Locked pages count against the limit on locked memory until they go.
            if self._executor is None or self._lock_pages:
                room.close()
            else:
                self._executor.submit(room.close)
