"""The daemon's settings: Dragonfly's YAML, checked at start.

``docs/configuration.md`` says what each key means. Here stand their types and defaults; those
of Dragonfly's client are kept, but for request limits and the memory store. Sizes are in
bytes, durations in seconds. Ports may be 0: the system chooses.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from pantala.model.ids import host_id
from pantala.model.task import Kind
from pantala.net.addresses import local_ip
from pantala.paths import DEFAULT_SOCKET, handoff_path_for
from pantala.settings import (
    Addresses,
    Catalogue,
    Count,
    Duration,
    Ip,
    ManagerAddress,
    Port,
    Rate,
    Root,
    Settings,
    Size,
    Switch,
    read_settings,
)

from .config_values import (
    AbsolutePath,
    Capacity,
    Mode,
    OriginHeaders,
    Percent,
    Protocol,
    ReachableIp,
    SocketPath,
    Uid,
    auto_capacity,
)


class Host(Settings):
    """Who this machine is, in ids and to schedulers."""

    idc: str | None = None
    location: str | None = None
    hostname: Annotated[str, Field(min_length=1)] = Field(default_factory=socket.gethostname)
    ip: ReachableIp = Field(default_factory=local_ip)
    scheduler_cluster_id: Annotated[int, Field(strict=True, ge=0)] = 0


class Network(Settings):
    """What addresses are chosen where none is set."""

    enable_ipv6: Switch = False


class RequestLimits(Settings):
    """How many requests a gRPC server takes.

    Attributes:
        request_rate_limit: A second.
        request_buffer_size: At once; more are answered RESOURCE_EXHAUSTED.
    """

    request_rate_limit: Count = 4000
    request_buffer_size: Count = 4000


class DownloadServer(RequestLimits):
    """The sockets for programs on this machine.

    Attributes:
        allow_users: Uids that may ask; empty: whoever can open the socket.
    """

    socket_path: SocketPath = Path(DEFAULT_SOCKET)
    socket_mode: Mode = 0o660
    handoff_path: SocketPath = Path(handoff_path_for(DEFAULT_SOCKET))
    allow_users: tuple[Uid, ...] = ()
    allow_output_path: Literal["auto", True, False] = "auto"
    allow_import_path: Literal["auto", True, False] = "auto"


class Download(Settings):
    """Getting content: from whom, how fast, and how long to wait."""

    server: DownloadServer = Field(default_factory=DownloadServer)
    protocol: Protocol = "tcp"
    bandwidth_limit: Rate = 50 * 10**9
    back_to_source_bandwidth_limit: Rate = 50 * 10**9
    piece_timeout: Duration = 360.0
    piece_stall_timeout: Duration = 30.0
    collected_piece_timeout: Duration = 360.0
    concurrent_piece_count: Count = 8
    bypass_size: Size = 4 << 20
    cache_bypass_size: Size = 0

    @property
    def bypass_sizes(self) -> Mapping[Kind, int]:
        """Bytes up to which downloads of each kind go past the scheduler."""
        return {
            Kind.STANDARD: self.bypass_size,
            Kind.PERSISTENT_CACHE: 0,
            Kind.CACHE: self.cache_bypass_size,
        }


class UploadServer(RequestLimits):
    """The gRPC server for other machines."""

    ip: Ip = "0.0.0.0"
    port: Port = 4000


class Upload(Settings):
    """Giving content to other daemons."""

    server: UploadServer = Field(default_factory=UploadServer)
    disable_shared: Switch = False
    bandwidth_limit: Rate = 50 * 10**9


class Scheduler(Settings):
    """Talking to schedulers.

    Attributes:
        addrs: Instead of the dynconfig file's; a range of ports is a scheduler at each of them.
    """

    addrs: tuple[Addresses, ...] = ()
    announce_interval: Duration = 300.0
    schedule_timeout: Duration = 3 * 3600.0
    max_schedule_count: Count = 5


class SeedPeer(Settings):
    """Being the first to fetch what a swarm wants."""

    enable: Switch = False
    type: Literal["normal", "super"] = "super"


class Manager(Settings):
    """Dragonfly's manager, which knows the schedulers and what is blocked.

    Attributes:
        addr: None: there is none.
    """

    addr: ManagerAddress | None = None


class DynconfigSettings(Settings):
    """The file that names the schedulers where there is no manager.

    Attributes:
        path: None: the usual place, where it may be missing.
    """

    path: AbsolutePath | None = None
    refresh_interval: Duration = 60.0


class StorageServer(Settings):
    """The server that other daemons get pieces from."""

    ip: Ip = "0.0.0.0"
    tcp_port: Port = 4005


class Storage(Settings):
    """Where content lies.

    Attributes:
        cache_capacity: Of the memory store; 0 switches cache tasks off.
        cache_overflow: What becomes of a cache task for which there is no room.
        cache_pinned_percent: Of the capacity, what programs of one user may keep after their
            connections have ended and still be handed more.
    """

    server: StorageServer = Field(default_factory=StorageServer)
    dir: AbsolutePath = Path("/var/lib/dragonfly")
    keep: Switch = False
    cache_capacity: Capacity = Field(default_factory=auto_capacity)
    cache_overflow: Literal["error", "task"] = "error"
    cache_lock_pages: Switch = False
    cache_pinned_percent: Annotated[int, Field(strict=True, ge=0, le=100)] = 12


class Backend(Settings):
    """Asking origins: with which headers, how often, whom to trust."""

    request_header: OriginHeaders = Field(default_factory=dict, repr=False)
    max_retries: Annotated[int, Field(strict=True, ge=0, le=100)] = 1
    enable_cache_temporary_redirect: Switch = True
    enable_revalidation: Switch = True
    cache_temporary_redirect_ttl: Duration = 600.0
    ca_cert: AbsolutePath | None = None
    insecure_skip_verify: Switch = False
    file_roots: tuple[AbsolutePath, ...] = ()


class Proxy(Settings):
    """Of the proxy's section, what does not need one.

    Attributes:
        prefetch_bandwidth_limit: For every prefetch, whoever asked for it.
    """

    prefetch_bandwidth_limit: Rate = 10 * 10**9


class GcPolicy(Settings):
    """When content goes.

    Attributes:
        disk_threshold: What the disk is taken to have in all; 0: what it has.
        disk_high_threshold_percent: Of the disk: from here on tasks go,
        disk_low_threshold_percent: until it is no fuller than this.
    """

    cache_task_ttl: Duration = 3600.0
    task_ttl: Duration = 30 * 86400.0
    persistent_task_ttl: Duration = 86400.0
    persistent_cache_task_ttl: Duration = 86400.0
    disk_threshold: Size = 0
    disk_high_threshold_percent: Percent = 80
    disk_low_threshold_percent: Percent = 60

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.disk_low_threshold_percent > self.disk_high_threshold_percent:
            raise ValueError("diskLowThresholdPercent is above diskHighThresholdPercent")
        return self


class Gc(Settings):
    """Looking for content that must go."""

    interval: Duration = 900.0
    policy: GcPolicy = Field(default_factory=GcPolicy)


class HealthServer(Settings):
    """Where ``GET /healthy`` is answered."""

    ip: Ip = "0.0.0.0"
    port: Port = 4003


class MetricsServer(Settings):
    """Where ``GET /metrics`` is answered."""

    ip: Ip = "0.0.0.0"
    port: Port = 4002


class Health(Settings):
    """Telling orchestrators that the daemon is up."""

    enable: Switch = True
    server: HealthServer = Field(default_factory=HealthServer)


class MetricsSettings(Settings):
    """Telling monitors what the daemon does."""

    enable: Switch = True
    server: MetricsServer = Field(default_factory=MetricsServer)


class DaemonConfig(Root):
    """All settings of a daemon, checked and resolved. Made by :func:`load`."""

    host: Host = Field(default_factory=Host)
    network: Network = Field(default_factory=Network)
    download: Download = Field(default_factory=Download)
    upload: Upload = Field(default_factory=Upload)
    scheduler: Scheduler = Field(default_factory=Scheduler)
    seed_peer: SeedPeer = Field(default_factory=SeedPeer)
    manager: Manager = Field(default_factory=Manager)
    dynconfig: DynconfigSettings = Field(default_factory=DynconfigSettings)
    storage: Storage = Field(default_factory=Storage)
    backend: Backend = Field(default_factory=Backend)
    proxy: Proxy = Field(default_factory=Proxy)
    gc: Gc = Field(default_factory=Gc)
    health: Health = Field(default_factory=Health)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

    @property
    def host_id(self) -> str:
        """The id of this host."""
        return host_id(self.host.ip, self.host.hostname, seed=self.seed_peer.enable)

    @property
    def host_type(self) -> int:
        """``common.v2.Host.type``: 1 for a seed, else 0."""
        return int(self.seed_peer.enable and self.seed_peer.type == "super")


#: Keys of Dragonfly's client that have no effect here, by section. They are listed one by one,
#: so that a misspelt key is found among them too.
_IGNORED: Final = {
    "": "console",
    "backend": "enableHickoryDNS putChunkSize putConcurrentChunkCount putTimeout",
    "gc.policy": "pageCacheIdleTimeout",
    "log": "level",
    "proxy": "disableBackToSource prefetch readBufferSize rules",
    "proxy.registryMirror": "addr cert enableTaskIDBasedBlobDigest",
    "proxy.server": "caCert caKey ip port requestRateLimit",
    "proxy.server.basicAuth": "password username",
    "scheduler": "enableBackToSource",
    "security": "enable",
    "server": "cacheDir pluginDir",
    "server.adaptiveRateLimit": "bucketCount bucketInterval collectInterval cpuThreshold"
    " memoryThreshold shedCooldown",
    "stats.server": "ip port",
    "storage": "readBufferSize writeBufferSize writePieceTimeout",
    "storage.server": "quicPort tcpFastopen",
    "tracing": "endpoint headers path protocol",
}

_NO_TLS: Final = "TLS is not available yet: remove this key"

#: Keys that must not be set: to go on without what they ask for would be worse than to stop.
_REFUSED: Final = {
    f"{section}.{name}": _NO_TLS
    for section in ("upload.server", "upload.client", "scheduler", "manager")
    for name in ("caCert", "cert", "key")
}

CATALOGUE: Final = Catalogue(
    DaemonConfig,
    ignored=frozenset(
        f"{section}.{key}".lstrip(".") for section, keys in _IGNORED.items() for key in keys.split()
    ),
    refused=_REFUSED,
    secret=frozenset({"backend.requestHeader"}),
    # As Dragonfly's own charts write them.
    aliases={
        f"gc.policy.dist{name}": f"gc.policy.disk{name}"
        for name in ("Threshold", "HighThresholdPercent", "LowThresholdPercent")
    },
)


def load(
    path: Path | None,
    overrides: Mapping[str, object] | None = None,
    flags: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> DaemonConfig:
    """The settings of a daemon.

    Args:
        path: As for :func:`.read_settings`, like the others.
        overrides: Such as ``{"storage.cacheCapacity": "2GiB", "upload.server.port": 0}``.
        flags: Where *overrides* come from.
        strict: An unknown key is an error, and not one of the settings' ``unknown``.

    Raises:
        ConfigError: One line for each thing that is wrong, naming file, key and value.
    """
    return read_settings(
        CATALOGUE, path, overrides, _dependent_defaults, flags=flags, strict=strict
    )


def _dependent_defaults(get: Callable[[str], object]) -> dict[str, object]:
    defaults: dict[str, object] = {}
    socket_path = get("download.server.socketPath")
    if isinstance(socket_path, str):
        defaults["download.server.handoffPath"] = handoff_path_for(socket_path)
    if get("network.enableIPv6") is True:
        defaults["host.ip"] = local_ip(ipv6=True)
        for section in ("upload", "storage", "health", "metrics"):
            defaults[f"{section}.server.ip"] = "::"
    return defaults
