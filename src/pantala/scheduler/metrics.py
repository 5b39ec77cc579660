"""What a scheduler counts, as Prometheus families. Nothing else here knows Prometheus.

Names and labels are those of Dragonfly's scheduler (prefix ``dragonfly_scheduler_``), so its
dashboards work: cache tasks are told apart by ``task_type="CACHE"``.
"""

from __future__ import annotations

import platform
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Summary,
    make_wsgi_app,
    start_http_server,
)

from pantala import BUILD_VERSION
from pantala.core.sched.entities import Host, Peer
from pantala.errors import CannotListen, NotFound
from pantala.pb import common_pb2

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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

#: The family that counts each method's calls. Kinds of task share them, as do their labels.
_METHODS: Final = {
    "AnnounceCachePeer": "announce_peer",
    "StatCachePeer": "stat_peer",
    "DeleteCachePeer": "leave_peer",
    "StatCacheTask": "stat_task",
    "DeleteCacheTask": "leave_task",
    "AnnounceHost": "announce_host",
    "ListHosts": "list_hosts",
    "DeleteHost": "leave_host",
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
        self._pieces = self._counter("download_piece_finished", _PIECE)
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
        self._sessions = Gauge(
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
        self._version()

    def loop_failed(self, name: str) -> None:
        """A turn of a background loop went wrong. *name* is one of a fixed few."""
        self._loop_failures.labels(name).inc()

    def observe(self, method: str, error: BaseException | None) -> None:
        """A call has ended."""
        if method in _METHODS:
            calls, failures = self._calls[_METHODS[method]]
            calls.inc()
            if error is not None and not isinstance(error, _HARMLESS.get(method, ())):
                failures.inc()

    def session_opened(self) -> None:
        """An announce stream was opened."""
        self._sessions.inc()

    def session_closed(self) -> None:
        """An announce stream has ended."""
        self._sessions.dec()

    def scheduled(self, seconds: float) -> None:
        """A peer got an answer."""
        self._scheduling.observe(seconds * 1000)

    def peer_event(self, name: str, peer: Peer) -> None:
        """A peer told something."""
        priority = common_pb2.Priority.Name(peer.registration.priority)  # type: ignore[arg-type]  # checked when it registered
        self._peer_events[name].labels(priority, *_labels(peer)).inc()

    def peer_finished(self, peer: Peer) -> None:
        """A peer has succeeded."""
        self.peer_event("download_peer_finished", peer)
        level = size_level(peer.shape.content_length)
        self._durations.labels(level).observe((peer.cost or 0.0) * 1000)

    def piece_finished(self, peer: Peer, piece: common_pb2.Piece) -> None:
        """A peer has one more piece."""
        known = piece.traffic_type in common_pb2.TrafficType.values()
        traffic = common_pb2.TrafficType.Name(piece.traffic_type) if known else "UNKNOWN"
        self._pieces.labels(traffic, *_labels(peer)).inc()
        self._traffic.labels(traffic, *_labels(peer)).inc(piece.length)

    def piece_failed(self, peer: Peer, *, from_source: bool) -> None:
        """A piece did not come."""
        traffic = "BACK_TO_SOURCE" if from_source else "REMOTE_PEER"
        self._piece_failures.labels(traffic, *_labels(peer)).inc()

    def serve(self, address: str) -> tuple[int, Callable[[], None]]:
        """Answer ``GET /metrics``, and ``HEAD``.

        Args:
            address: ``host:port``; no host means every interface, port 0 any free port.

        Returns:
            The port, and a function that ends it.

        Raises:
            CannotListen: The address is taken, or not one of this machine.
        """
        host, _, port = address.rpartition(":")
        host = host or "0.0.0.0"
        try:
            server, thread = start_http_server(int(port), host, self.registry)
        except (OSError, ValueError) as error:  # a ValueError: the host is no name at all
            raise CannotListen(
                f"{host}:{port}",
                getattr(error, "strerror", None) or str(error),
                getattr(error, "errno", -1),
                ip_key="metrics.addr",
                port_key="metrics.addr",
                any_port=":0",
            ) from error

        server.set_app(_with_head(make_wsgi_app(self.registry)))

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return server.server_port, close

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


def _with_head(app: WSGIApplication) -> WSGIApplication:
    """*app*, which knows GET only, with HEAD beside it."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return app(environ, start)
        said: list[tuple[str, list[tuple[str, str]]]] = []

        def note(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[..., object]:
            said.append((status, headers))
            return lambda _: None

        length = sum(len(part) for part in app({**environ, "REQUEST_METHOD": "GET"}, note))
        status, headers = said[0]
        start(status, [*headers, ("Content-Length", str(length))])
        return ()

    return answer


def _labels(peer: Peer) -> tuple[str, str]:
    return peer.task.kind.name, _host_type(peer.host)


def _host_type(host: Host) -> str:
    return "super" if host.facts.is_seed else "normal"
