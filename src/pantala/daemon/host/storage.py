"""The stores of a daemon, as its settings want them, and what goes from them when."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sized
from concurrent.futures import Executor

import structlog

from pantala.core.policy import POLICIES, Medium, policy_of
from pantala.core.reclaim import Watermarks
from pantala.daemon.config import DaemonConfig
from pantala.daemon.metrics import StoreFigures
from pantala.errors import StoreFailed
from pantala.model.task import Kind, TaskRecord
from pantala.storage.directory import DataDirectory
from pantala.storage.disk import DiskMedium
from pantala.storage.journal import NullJournal
from pantala.storage.memory import MemoryMedium
from pantala.storage.sqlite_journal import SqliteJournal
from pantala.storage.store import Store
from pantala.storage.stores import Stores

from .descriptors import Descriptors

logger = structlog.get_logger(__name__)

#: Bytes that records of what lies on disk may take in memory: some sixty thousand tasks.
_RECORDS: int = 256 << 20


class NodeStorage:
    """A store for each medium that a served kind is in.

    Args:
        config: What the operator wants.
        shares: What tasks in memory may take of descriptors and mappings.
        executor: Where room is freed.
    """

    def __init__(self, config: DaemonConfig, shares: Descriptors, executor: Executor) -> None:
        self._keep = config.storage.keep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._policy = config.gc.policy
        self._interval = config.gc.interval
        self._directory = DataDirectory(config.storage.dir)
        self._journal = SqliteJournal(self._directory.journal, self._deliver)
        self._disk = DiskMedium(
            self._directory, executor=executor, limit=config.gc.policy.disk_threshold
        )
        self._marks = Watermarks(
            high=config.gc.policy.disk_high_threshold_percent,
            low=config.gc.policy.disk_low_threshold_percent,
        )
        made: dict[Medium, Callable[[], Store]] = {
            Medium.MEMORY: lambda: _memory(config, shares, executor),
            Medium.DISK: lambda: Store(
                self._disk, self._journal, clock=time.time, records=_RECORDS
            ),
        }
        wanted = sorted({policy.medium for policy in POLICIES.values()})
        self.stores = Stores({medium: made[medium]() for medium in wanted}, clock=time.time)
        self._uses_disk = Medium.DISK in wanted

    def _deliver(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(call)

    def open(self) -> None:
        """Take up what an earlier process has left. Blocks.

        Raises:
            ConfigError: ``storage.dir`` is another daemon's, or cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        if self._uses_disk:
            self._directory.open()
        for store in self.stores.all():
            store.load(self._keeps)
        if found := sum(1 for _ in self.stores):
            logger.info("found what was kept", tasks=found)

    def _keeps(self, record: TaskRecord) -> bool:
        """Of what was imported, schedulers have written down who has it."""
        return self._keep or policy_of(record.kind).imported

    def close(self) -> None:
        """The process ends; what outlives it is written down. Blocks."""
        self.stores.close()
        self._directory.close()

    @property
    def trouble(self) -> str | None:
        """Why what is on the disk cannot be written down; None: it can."""
        return self._journal.trouble

    @property
    def ttl(self) -> dict[Kind, float]:
        """Seconds to live without being used, by kind."""
        return {
            Kind.CACHE: self._policy.cache_task_ttl,
            Kind.STANDARD: self._policy.task_ttl,
            Kind.PERSISTENT: self._policy.persistent_task_ttl,
            Kind.PERSISTENT_CACHE: self._policy.persistent_cache_task_ttl,
        }

    @property
    def interval(self) -> float:
        """Seconds between two looks: no task is to outlive a short time to live by a long one."""
        shortest = min(self.ttl[kind] for kind in POLICIES)
        return min(self._interval, max(1.0, shortest / 4))

    def collect(self) -> None:
        """Evict what has outlived its time, and what a full disk has no room for."""
        self.stores.expire(self.ttl)
        if not self._uses_disk:
            return
        try:
            excess = self._marks.excess(self._disk.space())
        except StoreFailed as error:
            logger.warning("disk cannot be looked at", why=str(error))
            return
        if excess:
            gone = self.stores.by_medium[Medium.DISK].free(excess)
            logger.info("disk is full", wanted=excess, tasks=gone)


def figures(store: Store, waiting: Sized) -> StoreFigures:
    """How full *store* is, for which *waiting* wait."""
    with contextlib.suppress(StoreFailed):
        store.look_at_room()
    found, reserved = store.figures(), None
    if isinstance(store.medium, MemoryMedium):  # a disk may have too many pieces to count them
        held = sum(piece.length for holding in store for piece in holding.pieces.values())
        reserved = max(0, found.used - held)
    return StoreFigures(
        capacity=found.capacity,
        used=found.used,
        leased=found.leased,
        pinned=found.pinned,
        reserved=reserved,
        tasks=found.tasks,
        waiting=len(waiting),
    )


def _memory(config: DaemonConfig, shares: Descriptors, executor: Executor) -> Store:
    storage = config.storage
    return Store(
        MemoryMedium(
            storage.cache_capacity, lock_pages=storage.cache_lock_pages, executor=executor
        ),
        NullJournal(),
        clock=time.time,
        descriptors=shares.tasks,
        mappings=shares.mappings,
        pinned_per_user=storage.cache_capacity * storage.cache_pinned_percent // 100,
    )
