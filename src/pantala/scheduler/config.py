"""A scheduler's settings: Dragonfly's YAML, checked at start.

Keys and defaults are those of Dragonfly's scheduler, but for ``hostGCInterval`` (there 5m:
hosts that hold content in memory come and go) and the limits that it gets from a manager.
Durations are in seconds.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from pantala.core.sched.rules import Algorithm, Limits
from pantala.logs import LEVELS
from pantala.model.addresses import MAX_RANGE
from pantala.settings import (
    Address,
    Catalogue,
    Count,
    Duration,
    Ip,
    ManagerAddress,
    Port,
    Root,
    Settings,
    Size,
    Switch,
    read_settings,
)


def _level(name: str) -> str:
    if name.lower() not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}")
    return name.lower()


def _algorithm(value: object) -> object:
    known = " or ".join(get_args(Algorithm))
    if value == "plugin":
        raise ValueError(f"plugins are not supported: expected {known}")
    if value not in get_args(Algorithm):
        raise ValueError(f"expected {known}")
    return value


def _metrics_address(text: str) -> str:
    _, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port or :port, such as :8000")
    return text


class Server(Settings):
    """The gRPC server for daemons.

    Attributes:
        port: 0 lets the system choose. Of several workers it is the first one's; each other one
            has the next.
        workers: Schedulers, each a process of its own.
        advertise_ip, advertise_port: Where daemons reach it, as a manager is told. None: found out;
            0: where it listens.
        host: By which name a manager knows it.
        request_rate_limit: Unary calls, but for reports of pieces, and new streams a second; more
            are refused.
    """

    listen_ip: Ip = "0.0.0.0"
    port: Port = 8002
    workers: Annotated[int, Field(strict=True, ge=1, le=MAX_RANGE)] = 1
    advertise_ip: Ip | None = None
    advertise_port: Port = 0
    host: Annotated[str, Field(min_length=1)] = Field(default_factory=socket.gethostname)
    request_rate_limit: Annotated[float, Field(gt=0)] = 4000.0
    log_level: Annotated[str, AfterValidator(_level)] = "info"


class Gc(Settings):
    """When to look for what has gone, and after how long it has."""

    piece_download_timeout: Duration = 1800.0
    peer_gc_interval: Duration = Field(default=10.0, alias="peerGCInterval")
    peer_ttl: Duration = 86400.0
    task_gc_interval: Duration = Field(default=1800.0, alias="taskGCInterval")
    host_gc_interval: Duration = Field(default=60.0, alias="hostGCInterval")
    host_ttl: Duration = 3600.0
    replica_interval: Duration = 60.0
    replica_grace: Duration = 600.0


class Scheduling(Settings):
    """How far to go for a peer.

    Attributes:
        algorithm: By which formula parents are compared.
        back_to_source_count: Peers of one task at the origin at once.
        retry_back_to_source_limit: Peers that may fail at the origin, before it is left alone.
        retry_limit, retry_interval: Their product is how long a peer that may not ask the
            origin waits for others.
        candidate_parent_limit: Parents that a peer is given.
        filter_parent_limit: Parents that are compared.
        partner_limit: Peers that a peer of ours is given to exchange pieces with; 0: none.
        load_limit: Children of a normal host at once.
        seed_load_limit: Children of a seed at once.
        state_limit: Bytes that are kept of all hosts and their tasks.
        state_limit_per_address: Likewise of hosts that call from one address.
    """

    algorithm: Annotated[Algorithm, BeforeValidator(_algorithm)] = "default"
    back_to_source_count: Count = 200
    retry_back_to_source_limit: Count = 4
    retry_limit: Count = 5
    retry_interval: Duration = 0.5
    candidate_parent_limit: Annotated[int, Field(strict=True, ge=1, le=20)] = 3
    filter_parent_limit: Annotated[int, Field(strict=True, ge=10, le=1000)] = 15
    partner_limit: Annotated[int, Field(strict=True, ge=0, le=100)] = 13
    load_limit: Annotated[int, Field(strict=True, ge=1, le=2000)] = 200
    seed_load_limit: Annotated[int, Field(strict=True, ge=1, le=50000)] = 2000
    state_limit: Size = 4 << 30
    state_limit_per_address: Size = 1 << 30
    gc: Gc = Field(default_factory=Gc)


class SeedPeer(Settings):
    """Asking seeds to fetch, and other hosts to keep replicas."""

    task_download_timeout: Duration = 10 * 3600.0


class MetricsSettings(Settings):
    """Where ``GET /metrics`` is answered.

    Attributes:
        addr: Of several workers it is the first one's; each other one has the next port.
    """

    enable: Switch = False
    addr: Annotated[str, AfterValidator(_metrics_address)] = ":8000"

    @property
    def port(self) -> int:
        """That of *addr*."""
        return int(self.addr.rpartition(":")[2])


class Redis(Settings):
    """A Redis that has what is known of imported tasks, for all schedulers that share it.

    Attributes:
        addrs: One ``host:port``; none: SQLite has it.
        pool_size: Connections at most.
        pool_timeout: How long a call waits for one.
    """

    addrs: Annotated[tuple[Address, ...], Field(max_length=1)] = ()
    username: str = ""
    password: SecretStr = SecretStr("")
    pool_size: Count = 20
    pool_timeout: Duration = 10.0


class Sqlite(Settings):
    """A file that has what is known of imported tasks, for all schedulers of this machine.

    Attributes:
        path: It comes to be with the first of them. None, in a file the word ``none``: nothing can
            be imported, and jobs end with their scheduler.
    """

    path: Annotated[
        Path | None,
        BeforeValidator(lambda value: None if value == "none" else value),
        PlainSerializer(lambda path: "none" if path is None else str(path), when_used="json"),
    ] = Path("/var/lib/dragonfly/scheduler.db")


class Database(Settings):
    """Where that is kept which outlives a scheduler: what was imported."""

    redis: Redis = Field(default_factory=Redis)
    sqlite: Sqlite = Field(default_factory=Sqlite)


class KeepAlive(Settings):
    """How often a manager is told that this scheduler lives."""

    interval: Duration = 5.0


class Manager(Settings):
    """Dragonfly's manager, and the cluster that this scheduler is of.

    Attributes:
        addr: None: there is no manager.
        scheduler_cluster_id: Schedulers with the same number share what they have in Redis.
    """

    addr: ManagerAddress | None = None
    scheduler_cluster_id: Count = Field(default=1, alias="schedulerClusterID")
    keep_alive: KeepAlive = Field(default_factory=KeepAlive)


class Host(Settings):
    """Where this scheduler is, as a manager is told."""

    idc: str = ""
    location: str = ""


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8, or an address") from None


class Job(Settings):
    """Preheating, and questions to all hosts at once.

    Attributes:
        limit: Jobs at once; more are refused.
        durable: Jobs that outlive their caller are written down, with what they must know, so that
            they outlive their scheduler, too.
        blocked_networks: Addresses that no URL of a job may lead to: those by which a machine, or
            the cloud that it runs in, speaks to itself.
    """

    enable: Switch = True
    limit: Count = 32
    durable: Switch = True
    blocked_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = (
        *("169.254.0.0/16", "fe80::/10"),
        *("fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32"),
    )


class DynConfig(Settings):
    """What is wanted of the cluster, which may change while the scheduler runs.

    Attributes:
        path: The file that says so. None: the usual one, if it is there.
        refresh_interval: How often it is read.
    """

    path: Path | None = None
    refresh_interval: Duration = 60.0


class SchedulerConfig(Root):
    """All settings of a scheduler. Made by :func:`load`."""

    server: Server = Field(default_factory=Server)
    scheduler: Scheduling = Field(default_factory=Scheduling)
    seed_peer: SeedPeer = Field(default_factory=SeedPeer)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    database: Database = Field(default_factory=Database)
    manager: Manager = Field(default_factory=Manager)
    host: Host = Field(default_factory=Host)
    job: Job = Field(default_factory=Job)
    dyn_config: DynConfig = Field(default_factory=DynConfig)

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Keys that were set in vain; also those that say what a manager says."""
        path = self.manager.addr is not None and self.dyn_config.path is not None
        return (*self.ignored, "dynConfig.path") if path else self.ignored

    #: Which of several workers these are the settings of; 0: of the first, or the only one.
    _worker: int = PrivateAttr(0)

    @property
    def worker(self) -> int:
        """Which of several workers has these settings, from 0."""
        return self._worker

    @model_validator(mode="after")
    def _room_for_workers(self) -> Self:
        """Each worker has ports of its own."""
        serving = _ports(self.server.port, self.server.workers, "server.port")
        if self.server.workers > 1 and self.metrics.enable:
            telling = _ports(self.metrics.port, self.server.workers, "metrics.addr")
            if shared := sorted({*serving} & {*telling}):
                raise ValueError(
                    f"{self.server.workers} workers: metrics.addr has the ports {_span(telling)}, "
                    f"and server.port {_span(serving)}: both want {shared[0]}"
                )
        return self

    def of_worker(self, number: int, port: int, metrics_port: int) -> SchedulerConfig:
        """The settings of one worker.

        Args:
            number: Which one, from 0.
            port: Where it listens, if it did so before; 0: where the settings say.
            metrics_port: Likewise.
        """
        port = port or (self.server.port and self.server.port + number)
        metrics_port = metrics_port or (self.metrics.port and self.metrics.port + number)
        host = self.metrics.addr.rpartition(":")[0]
        advertised = self.server.advertise_port and self.server.advertise_port + number
        # To a manager each is a scheduler of its own.
        name = f"{self.server.host}-{number}" if number else self.server.host
        server = {"port": port, "advertise_port": advertised, "host": name}
        own = self.model_copy(
            update={
                "server": self.server.model_copy(update=server),
                "metrics": self.metrics.model_copy(update={"addr": f"{host}:{metrics_port}"}),
            }
        )
        own._worker = number  # noqa: SLF001  it is of this class
        return own

    def limits(self) -> Limits:
        """As the core wants them."""
        scheduling, gc = self.scheduler, self.scheduler.gc
        return Limits(
            candidates=scheduling.candidate_parent_limit,
            sample=scheduling.filter_parent_limit,
            partners=scheduling.partner_limit,
            back_to_source=scheduling.back_to_source_count,
            origin_failures=scheduling.retry_back_to_source_limit,
            patience=scheduling.retry_limit * scheduling.retry_interval,
            uploads=scheduling.load_limit,
            seed_uploads=scheduling.seed_load_limit,
            piece_timeout=gc.piece_download_timeout,
            peer_ttl=gc.peer_ttl,
            host_ttl=gc.host_ttl,
            task_ttl=gc.task_gc_interval,
            replica_grace=gc.replica_grace,
            kept=scheduling.state_limit,
            kept_each=scheduling.state_limit_per_address,
            algorithm=scheduling.algorithm,
        )


def _ports(first: int, workers: int, key: str) -> range:
    """Those of all workers; none, if the system chooses."""
    if first + workers - 1 > 65535:
        raise ValueError(f"{key} = {first}: {workers} workers want ports above 65535")
    return range(first, first + workers) if first else range(0)


def _span(ports: range) -> str:
    return f"{ports[0]}-{ports[-1]}"


#: Keys of Dragonfly's scheduler that have no effect here, by section; one by one, so that a
#: misspelt key is found among them too.
_IGNORED: Final = {
    "": "console pprofPort storage verbose",
    "tracing": "protocol endpoint path service-name headers",
    "server": "cacheDir dataDir logDir logMaxSize logMaxAge logMaxBackups pluginDir workHome",
    "database.redis": "brokerDB backendDB",
    "job": "globalWorkerNum schedulerWorkerNum localWorkerNum redis",
    "metrics": "enableHost",
    "network": "enableIPv6",
}

_NO_TLS: Final = "TLS is not available yet: remove this key"

#: To go on without what these ask for would be worse than to stop.
_REFUSED: Final = (
    {
        f"{section}.tls.{name}": _NO_TLS
        for section in ("server", "seedPeer", "peer", "manager")
        for name in ("caCert", "cert", "key")
    }
    | {
        f"database.redis.tls.{name}": _NO_TLS
        for name in ("caCert", "cert", "key", "insecureSkipVerify")
    }
    | {
        f"database.redis.{name}": "Redis Sentinel is not supported: name the master in addrs"
        for name in ("masterName", "sentinelUsername", "sentinelPassword")
    }
)

CATALOGUE: Final = Catalogue(
    SchedulerConfig,
    ignored=frozenset(
        f"{section}.{key}".lstrip(".") for section, keys in _IGNORED.items() for key in keys.split()
    ),
    refused=_REFUSED,
    secret=frozenset({"database.redis.password", "database.redis.sentinelPassword"}),
)


def load(
    path: Path | None,
    overrides: Mapping[str, object] | None = None,
    flags: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> SchedulerConfig:
    """The settings of a scheduler.

    Args:
        path: A YAML file. None: built-in defaults, but for *overrides*.
        overrides: Values that win over the file, by dotted key as in YAML, such as
            ``{"server.port": 0, "server.listenIP": "127.0.0.1"}``.
        flags: By the keys of *overrides*, the flags that they come from.
        strict: An unknown key is an error, and not one of the settings' ``unknown``.

    Raises:
        ConfigError: One line for each thing that is wrong, naming file, key and value.
        UsageError: Flags alone are at fault.
    """
    return read_settings(CATALOGUE, path, overrides, flags=flags, strict=strict)
