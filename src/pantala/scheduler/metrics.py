"""What a scheduler counts, as Prometheus families. Nothing else here knows Prometheus.

Names and labels are those of Dragonfly's scheduler (prefix ``dragonfly_scheduler_``), so its
dashboards work: kinds of task are told apart by ``task_type``.
"""

from __future__ import annotations

import platform
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Summary,
    generate_latest,
)

from pantala import BUILD_VERSION
from pantala.core.sched.entities import Peer
from pantala.errors import NotFound
from pantala.model.task import Kind, PieceRecord, Traffic
from pantala.pb import common_pb2

from .dialects import SCHEDULER_DIALECTS, SchedulerDialect

#: Of what :meth:`Metrics.render` gives.
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_PREFIX: Final = "dragonfly_scheduler_"

_PEER: Final = ("priority", "task_type", "host_type")
_PIECE: Final = ("traffic_type", "task_type", "host_type")

#: Counters of what a peer tells, by the name that :meth:`Metrics.peer_event` gets.
_PEER_EVENTS: Final = (
    "register_peer",
    "download_peer_started",
    "download_peer_back_to_source_started",
    "download_peer_finished",
    "download_peer_finished_failure",
    "download_peer_back_to_source_finished_failure",
)

_DOWNLOADED: Final = [dialect for dialect in SCHEDULER_DIALECTS.values() if dialect.imports is None]


def _methods_of_imported(dialect: SchedulerDialect) -> Iterator[str]:
    said = dialect.shared.imports
    if said is not None:
        yield from (said.started[0], said.finished[0], said.failed[0])
        yield from (dialect.shared.announce, dialect.stat_peer, dialect.delete_peer)
        yield from (dialect.shared.stat[0], dialect.shared.delete[0])


def _snake(name: str) -> str:
    """``StatPeer`` as ``stat_peer``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


#: The family that counts each method's calls. Kinds of task share them, but for those that are
#: imported.
_METHODS: Final = {
    "AnnounceHost": "announce_host",
    "ListHosts": "list_hosts",
    "DeleteHost": "leave_host",
    "PreheatFile": "preheat_file",
    "StatFile": "stat_file",
    "PreheatImage": "preheat_image",
    "StatImage": "stat_image",
    **{dialect.shared.announce: "announce_peer" for dialect in _DOWNLOADED},
    **{dialect.stat_peer: "stat_peer" for dialect in _DOWNLOADED},
    **{dialect.delete_peer: "leave_peer" for dialect in _DOWNLOADED},
    **{dialect.shared.stat[0]: "stat_task" for dialect in _DOWNLOADED},
    **{dialect.shared.delete[0]: "leave_task" for dialect in _DOWNLOADED},
    **{
        name: _snake(name)
        for dialect in SCHEDULER_DIALECTS.values()
        for name in _methods_of_imported(dialect)
    },
}

#: What is no failure, by method. A daemon that starts says goodbye for its life before, of which
#: a scheduler need not know.
_HARMLESS: Final = {"DeleteHost": NotFound}

#: Where task size levels 2, 3 … begin, in MiB, as in Dragonfly's scheduler; it has no 2 GiB.
_LEVELS: Final = (
    *(1, 4, 8, 16, 32, 64, 128, 256, 512),
    *(gib << 10 for gib in (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024)),
)


def size_level(length: int) -> str:
    """The label ``task_size_level`` of a task of *length* bytes.

    >>> [size_level(n) for n in (0, 1, 1 << 20, 4 << 20, 1 << 40)]
    ['0', '1', '2', '3', '20']
    """
    return str(bisect_right(_LEVELS, length >> 20) + 1) if length > 0 else "0"


class Metrics:
    """All families, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = {
            family: (self._counter(family), self._counter(f"{family}_failure"))
            for family in sorted(set(_METHODS.values()))
        }
        self._peer_events = {name: self._counter(name, _PEER) for name in _PEER_EVENTS}
        self._peer_numbers: dict[tuple[str, int, Kind, bool], Counter] = {}
        self._pieces = self._counter("download_piece_finished", _PIECE)
        self._piece_numbers: dict[tuple[Traffic, Kind, bool], tuple[Counter, Gauge]] = {}
        self._piece_failures = self._counter("download_piece_finished_failure", _PIECE)
        # A counter's name would end in _total here, which Dragonfly's does not.
        self._traffic = Gauge(
            f"{_PREFIX}traffic",
            "Bytes of pieces that peers have told of.",
            ("type", "task_type", "host_type"),
            registry=self.registry,
        )
        self._durations = Summary(
            f"{_PREFIX}download_peer_duration_milliseconds",
            "From a peer's registration to its success.",
            ("task_size_level",),
            registry=self.registry,
        )
        self._scheduling = Summary(
            f"{_PREFIX}schedule_duration_milliseconds",
            "From a peer's question to an answer with parents, or the origin.",
            registry=self.registry,
        )
        self._streams = Gauge(
            f"{_PREFIX}concurrent_schedule_total",
            "Announce streams that are open.",
            registry=self.registry,
        )
        self._loop_failures = Counter(
            f"{_PREFIX}background_failure",
            "Turns of background loops that went wrong, by loop.",
            ("loop",),
            registry=self.registry,
        )
        self._replicas_missing = Gauge(
            f"{_PREFIX}replicas_missing",
            "Replicas of imported tasks that nobody has and nobody is about to get.",
            registry=self.registry,
        )
        self._replications = self._counter("replication")
        self._replication_failures = self._counter("replication_failure")
        self._told = self._counter("holdings_told", ("type",))
        self._jobs = Gauge(f"{_PREFIX}jobs", "Jobs that are under way.", registry=self.registry)
        self._preheated = self._counter("preheat_pair", ("task_type",))
        self._not_preheated = self._counter("preheat_pair_failure", ("task_type",))
        self._version()

    def jobs(self, number: int) -> None:
        """So many jobs are under way."""
        self._jobs.set(number)

    def preheated(self, kind: Kind, *, done: int, failed: int) -> None:
        """A job has ended: on so many hosts a file of it is there, or is not."""
        self._preheated.labels(kind.name).inc(done + failed)
        self._not_preheated.labels(kind.name).inc(failed)

    def replicas_missing(self, number: int) -> None:
        """So many replicas there are too few."""
        self._replicas_missing.set(number)

    def replicated(self, *, failed: bool) -> None:
        """A host was asked for a replica, and has one, or not."""
        self._replications.inc()
        if failed:
            self._replication_failures.inc()

    def loop_failed(self, name: str) -> None:
        """A turn of a background loop went wrong. *name* is one of a fixed few."""
        self._loop_failures.labels(name).inc()

    def observe(self, method: str, error: BaseException | None) -> None:
        """A call of *method* has ended, with *error* or well."""
        if method in _METHODS:
            calls, failures = self._calls[_METHODS[method]]
            calls.inc()
            if error is not None and not isinstance(error, _HARMLESS.get(method, ())):
                failures.inc()

    def stream_opened(self) -> None:
        """An announce stream was opened."""
        self._streams.inc()

    def stream_closed(self) -> None:
        """An announce stream has ended."""
        self._streams.dec()

    def scheduled(self, seconds: float) -> None:
        """A peer got an answer."""
        self._scheduling.observe(seconds * 1000)

    def peer_event(self, name: str, peer: Peer) -> None:
        """Count what a peer told; *name* is the metric's, without prefix."""
        priority = peer.registration.request.priority
        key = name, priority, peer.task.kind, peer.host.is_seed
        number = self._peer_numbers.get(key)
        if number is None:
            word = common_pb2.Priority.Name(priority)  # type: ignore[arg-type]  # checked when it registered
            number = self._peer_events[name].labels(word, *_labels(peer))
            self._peer_numbers[key] = number
        number.inc()

    def peer_finished(self, peer: Peer) -> None:
        """A peer has succeeded: count it, and how long it took by the size of the content."""
        self.peer_event("download_peer_finished", peer)
        level = size_level(peer.shape.content_length)
        self._durations.labels(level).observe((peer.cost or 0.0) * 1000)

    def piece_finished(self, peer: Peer, piece: PieceRecord) -> None:
        """A peer has one more piece."""
        self.pieces_finished(peer, piece.traffic, 1, piece.length)

    def pieces_finished(self, peer: Peer, traffic: Traffic, count: int, length: int) -> None:
        """A peer has so many more pieces, of *length* bytes in all."""
        pieces, sent = self._of_pieces(traffic, peer.task.kind, peer.host.is_seed)
        pieces.inc(count)
        sent.inc(length)

    def _of_pieces(self, traffic: Traffic, kind: Kind, is_seed: bool) -> tuple[Counter, Gauge]:  # noqa: FBT001  part of a key
        """The numbers that pieces count in; to find them by labels takes longer than all else."""
        key = traffic, kind, is_seed
        known = self._piece_numbers.get(key)
        if known is None:
            labels = traffic.name, kind.name, _host_type(is_seed=is_seed)
            known = self._pieces.labels(*labels), self._traffic.labels(*labels)
            self._piece_numbers[key] = known
        return known

    def holdings_told(self, held: int, dropped: int) -> None:
        """Hosts have told of so many tasks in batches."""
        self._told.labels("held").inc(held)
        self._told.labels("dropped").inc(dropped)

    def piece_failed(self, peer: Peer, *, from_source: bool) -> None:
        """A piece did not come."""
        traffic = Traffic.BACK_TO_SOURCE if from_source else Traffic.REMOTE_PEER
        self._piece_failures.labels(traffic.name, *_labels(peer)).inc()

    def render(self) -> bytes:
        """All of it, as Prometheus reads it; of the type :data:`CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{_PREFIX}{name}", f"Number of {name}.", labels, registry=self.registry)

    def _version(self) -> None:
        major, minor, *_ = BUILD_VERSION.rpartition("/")[2].split(".")
        labels: dict[str, Any] = {
            "major": major,
            "minor": minor,
            "git_version": BUILD_VERSION,
            "platform": f"{platform.system().lower()}/{platform.machine()}",
        }
        Gauge(f"{_PREFIX}version", "This program.", tuple(labels), registry=self.registry).labels(
            **labels
        ).set(1)


def _labels(peer: Peer) -> tuple[str, str]:
    return peer.task.kind.name, _host_type(is_seed=peer.host.is_seed)


def _host_type(*, is_seed: bool) -> str:
    return "super" if is_seed else "normal"
