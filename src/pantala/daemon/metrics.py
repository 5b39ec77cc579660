"""What a daemon counts, as Prometheus families. Nothing else here knows Prometheus.

Names and labels are those of Dragonfly's client (prefix ``dragonfly_client_``), so its dashboards
work. The families that begin with ``cache`` are ours.
"""

from __future__ import annotations

import platform
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pantala import BUILD_VERSION
from pantala.model.task import Kind, Traffic

#: Of what :meth:`Metrics.render` gives.
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_PREFIX: Final = "dragonfly_client_"

#: Milliseconds: 1, 2, 4 … 2**23 (2 h 20 min), as Dragonfly's client has them.
_MILLISECONDS: Final = tuple(float(1 << power) for power in range(24))

#: Where task size levels 2, 3 … begin, in MiB; those of Dragonfly's client, which has no 2 GiB.
_LEVELS: Final = (
    *(1, 4, 8, 16, 32, 64, 128, 256, 512),
    *(gib << 10 for gib in (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024)),
)

#: Distinct pairs of tag and application that get time series of their own. Callers choose these
#: words freely and a series is never freed, so without a limit they would fill the memory.
_MAX_NAMES: Final = 500
#: Characters in such a word, for the same reason.
_MAX_NAME_LENGTH: Final = 128
_OTHER: Final = "other"


def size_level(length: int) -> str:
    """The label ``task_size_level`` of a task, or range of one, of *length* bytes.

    >>> [size_level(n) for n in (0, 1, 1 << 20, 4 << 20, 1 << 40)]
    ['0', '1', '2', '3', '20']
    """
    return str(bisect_right(_LEVELS, length >> 20) + 1) if length > 0 else "0"


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """What a download is counted under.

    Attributes:
        tag: ``""`` for none.
        app: The request's application; ``""`` for none.
    """

    kind: Kind
    tag: str = ""
    app: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """How full a store is. Bytes, but for *tasks* and *waiting*.

    Attributes:
        capacity: What it may hold.
        used: What it holds, reserved but empty parts included.
        leased: The part of *used* that belongs to tasks in use, safe from eviction.
        pinned: The part of *leased* that programs keep though their connections have ended.
        reserved: The part of *used* that is set aside for pieces still to come. None: nobody
            has counted.
        tasks: How many tasks it holds.
        waiting: How many downloads wait for room.
    """

    capacity: int
    used: int
    leased: int
    pinned: int
    reserved: int | None
    tasks: int
    waiting: int


@dataclass(slots=True)
class Hits:
    """Downloads of one sort that are to be counted yet. Raised in the event loop's thread."""

    count: int = 0


class Metrics:
    """All families of one daemon, in a registry of its own.

    Times are in seconds, sizes in bytes. Every ``…_started`` is followed by exactly one
    ``…_finished`` or ``…_failed`` with the same labels. May be called from any thread.
    """

    def __init__(self) -> None:
        # They would be a second series for each counter, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library gives no type
        self._registry = CollectorRegistry()
        self._names: set[tuple[str, str]] = set()
        self._hits_of: dict[tuple[str, ...], Hits] = {}
        self._define_downloads()
        self._define_the_rest()

    def _define_downloads(self) -> None:
        labels = ("type", "tag", "app", "priority")
        self._downloads = self._counter("download_task_total", "Downloads started.", *labels)
        self._downloads_failed = self._counter(
            "download_task_failure_total", "Downloads failed after their start.", *labels
        )
        self._downloads_now = self._gauge(
            "concurrent_download_task_total", "Downloads going on.", *labels
        )
        self._prefetches = self._counter("prefetch_task_total", "Prefetches started.", *labels)
        self._prefetches_failed = self._counter(
            "prefetch_task_failure_total", "Prefetches failed.", *labels
        )
        self._download_time = self._histogram(
            "download_task_duration_milliseconds",
            "How long finished downloads took.",
            "task_type",
            "task_size_level",
        )
        # The library ends every counter's name in _total; Dragonfly's two have no such end.
        self._downloaded = self._gauge(
            "download_traffic", "Bytes received, a counter, by where they came from.", "type"
        )

        self._in_vain = self._counter(
            "received_in_vain_bytes_total", "Bytes of pieces that another fetch brought sooner."
        )

    def _define_the_rest(self) -> None:
        self._uploads_now = self._gauge(
            "concurrent_upload_piece_total", "Pieces being sent to other daemons."
        )
        self._uploaded = self._gauge("upload_traffic", "Bytes sent to daemons, a counter.")
        origin = ("scheme", "method")
        self._backend = self._counter("backend_request_total", "Requests to origins.", *origin)
        self._backend_failed = self._counter(
            "backend_request_failure_total", "Requests that origins failed.", *origin
        )
        self._backend_time = self._histogram(
            "backend_request_duration_milliseconds", "How long origins took to answer.", *origin
        )
        self._stats = self._counter("stat_task_total", "Task stats.", "type")
        self._stats_failed = self._counter("stat_task_failure_total", "Stats failed.", "type")
        self._deletes = self._counter("delete_task_total", "Task deletions asked for.", "type")
        self._deletes_failed = self._counter(
            "delete_task_failure_total", "Task deletions failed.", "type"
        )
        self._blocked = {
            deed: self._counter(
                f"{deed}_task_blocked_total", f"{deed.title()}s that a block list refused.", "type"
            )
            for deed in ("download", "upload")
        }
        self._evictions = self._counter(
            "cache_evictions_total", "Tasks that left the memory store, by reason.", "reason"
        )
        self._hits = self._counter(
            "cache_hits_total", "Downloads answered from the memory store alone."
        )
        self._misses = self._counter(
            "cache_misses_total", "Downloads for which something had to be fetched."
        )
        self._schedulers = self._gauge(
            "schedulers", "Schedulers known; at 0 every download goes to the origin."
        )
        self._loop_failures = self._counter(
            "background_failure_total",
            "Turns of background loops that went wrong, by loop.",
            "loop",
        )
        version = self._gauge(
            "version", "What runs; always 1.", "git_version", "git_commit", "platform", "build_time"
        )
        version.labels(BUILD_VERSION, "", platform.platform(), "").set(1)

    def render(self) -> bytes:
        """All families as text, of :data:`CONTENT_TYPE`. In the event loop's thread alone."""
        self._count_hits()
        return generate_latest(self._registry)

    def observe_store(self, store: str, figures: Callable[[], StoreFigures]) -> None:
        """Have *figures* asked at each :meth:`render` for the gauges of *store*.

        Args:
            store: How their names begin: ``cache`` for the memory store, or ``disk``.
            figures: What they show.
        """
        self._registry.register(_StoreCollector(store, figures))

    def observe_schedulers(self, count: Callable[[], int]) -> None:
        """Have *count* asked at each :meth:`render` for how many schedulers there are."""
        self._schedulers.set_function(count)

    # Downloads

    def download_started(self, labels: TaskLabels) -> None:
        """A caller's download was admitted."""
        values = self._values(labels)
        self._downloads.labels(*values).inc()
        self._downloads_now.labels(*values).inc()

    def download_finished(self, labels: TaskLabels, *, seconds: float, size: int) -> None:
        """A caller has all of the *size* bytes that it asked for."""
        self._downloads_now.labels(*self._values(labels)).dec()
        self._download_time.labels(str(int(labels.kind)), size_level(size)).observe(seconds * 1000)

    def hits(self, labels: TaskLabels) -> Hits:
        """What counts the downloads under *labels* that take no time, for it is here; not timed."""
        values = self._values(labels)
        if values not in self._hits_of:
            self._hits_of[values] = Hits()
        return self._hits_of[values]

    def _count_hits(self) -> None:
        for values, hits in self._hits_of.items():
            count, hits.count = hits.count, 0
            self._downloads.labels(*values).inc(count)
            self._hits.inc(count)

    def download_failed(self, labels: TaskLabels) -> None:
        """A download that had started ended otherwise."""
        values = self._values(labels)
        self._downloads_failed.labels(*values).inc()
        self._downloads_now.labels(*values).dec()

    def prefetch_started(self, labels: TaskLabels) -> None:
        """The rest of a task is being fetched, of which a range was asked for."""
        self._prefetches.labels(*self._values(labels)).inc()

    def prefetch_failed(self, labels: TaskLabels) -> None:
        """A prefetch that had started failed."""
        self._prefetches_failed.labels(*self._values(labels)).inc()

    # Bytes

    def piece_traffic(self, traffic: Traffic, size: int) -> None:
        """A verified piece of *size* bytes came from *traffic*."""
        self._downloaded.labels(traffic.name).inc(size)

    def received_in_vain(self, size: int) -> None:
        """Another fetch of the same piece was quicker than the one that brought *size* bytes."""
        self._in_vain.inc(size)

    def upload_started(self) -> None:
        """A piece is about to be sent to another daemon."""
        self._uploads_now.inc()

    def upload_finished(self) -> None:
        """It was sent, or it was not: this ends it."""
        self._uploads_now.dec()

    def upload_traffic(self, size: int) -> None:
        """So many bytes of content went to other daemons."""
        self._uploaded.inc(size)

    # Requests

    def backend_request(self, scheme: str, method: str, *, seconds: float, ok: bool) -> None:
        """An origin answered, or failed to, after *seconds*."""
        self._backend.labels(scheme, method).inc()
        self._backend_time.labels(scheme, method).observe(seconds * 1000)
        if not ok:
            self._backend_failed.labels(scheme, method).inc()

    def stat(self, kind: Kind, *, ok: bool) -> None:
        """Someone asked about a task."""
        self._stats.labels(str(int(kind))).inc()
        if not ok:
            self._stats_failed.labels(str(int(kind))).inc()

    def delete(self, kind: Kind, *, ok: bool) -> None:
        """Someone asked to delete a task."""
        self._deletes.labels(str(int(kind))).inc()
        if not ok:
            self._deletes_failed.labels(str(int(kind))).inc()

    def blocked(self, kind: Kind, deed: str) -> None:
        """A block list refused somebody a *deed*, ``download`` or ``upload``."""
        self._blocked[deed].labels(str(int(kind))).inc()

    # The memory store

    def evicted(self, reason: str) -> None:
        """A task left the store. *reason* is one of a fixed few words."""
        self._evictions.labels(reason).inc()

    def cache_hit(self) -> None:
        """All that a caller wanted was here already."""
        self._hits.inc()

    def cache_miss(self) -> None:
        """Something that a caller wanted was not here yet."""
        self._misses.inc()

    # The program itself

    def loop_failed(self, name: str) -> None:
        """A turn of a background loop went wrong. *name* is one of a fixed few."""
        self._loop_failures.labels(name).inc()

    # Parts

    def _values(self, labels: TaskLabels) -> tuple[str, str, str, str]:
        tag, app = self._bounded(labels.tag, labels.app)
        return str(int(labels.kind)), tag, app, str(labels.priority)

    def _bounded(self, tag: str, app: str) -> tuple[str, str]:
        """The pair itself, or ``other`` for both. The same pair gives the same answer always."""
        if (tag, app) in self._names:
            return tag, app
        if len(self._names) >= _MAX_NAMES or max(len(tag), len(app)) > _MAX_NAME_LENGTH:
            return _OTHER, _OTHER
        self._names.add((tag, app))
        return tag, app

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, words, labels, registry=self._registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, words, labels, registry=self._registry)

    def _histogram(self, name: str, words: str, *labels: str) -> Histogram:
        return Histogram(
            _PREFIX + name, words, labels, registry=self._registry, buckets=_MILLISECONDS
        )


class _StoreCollector(Collector):
    """Gauges of a store, all from one look at it."""

    def __init__(self, store: str, figures: Callable[[], StoreFigures]) -> None:
        self._store = store
        self._figures = figures

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not look at the store yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        for name, words, value in (
            ("capacity_bytes", "Bytes the store may hold.", figures.capacity),
            ("used_bytes", "Bytes it holds.", figures.used),
            ("leased_bytes", "Bytes of tasks in use.", figures.leased),
            (
                "pinned_bytes",
                "Bytes that programs keep though their connections have ended.",
                figures.pinned,
            ),
            ("reserved_bytes", "Bytes set aside for pieces still to come.", figures.reserved),
            ("tasks", "Tasks it holds.", figures.tasks),
            ("waiting", "Downloads that wait for room in it.", figures.waiting),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"{_PREFIX}{self._store}_{name}", words, value)
