"""What a daemon announces of its host."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import structlog

from pantala import BUILD_VERSION
from pantala.daemon.config import DaemonConfig
from pantala.pb import common_pb2

from .machine import CpuGroup, cpu_group, interface_of, memory_group

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_Part = TypeVar("_Part")

#: Seconds that a rate is measured over at least. Each stream of a child asks once a second;
#: measured from one question to the next, many streams would see nothing but noise.
_MIN_SPAN = 0.5


@dataclass(slots=True)
class _Rate:
    """A counter that only grows, as a rate. What is None has not been seen twice yet."""

    value: float | None = None
    _count: float | None = None
    _at: float = 0.0

    def update(self, count: float, now: float) -> float | None:
        """The rate a second, now that the counter stands at *count*."""
        span = now - self._at
        if self._count is not None and span < _MIN_SPAN:
            return self.value
        if self._count is not None:
            self.value = max(0.0, (count - self._count) / span)
        self._count, self._at = count, now
        return self.value


class HostMeter:
    """Asks the operating system; keeps the samples that rates need. Does not block.

    A part that the system does not tell just now, for want of a descriptor perhaps, is what it was
    when it last told it, or left out: a host that is not announced is forgotten by the swarm.

    Args:
        config: Of this daemon.
        port: Where its gRPC server for other machines listens.
        root: Where ``proc`` and ``sys`` lie, for the limits of a container.
    """

    def __init__(self, config: DaemonConfig, port: int, root: Path = Path("/")) -> None:
        self._config = config
        self._port = port
        self._root = root
        self._process = psutil.Process()
        self._received, self._sent = _Rate(), _Rate()
        self._read, self._written = _Rate(), _Rate()
        self._group_cpu = _Rate()
        self._network: common_pb2.Network | None = None
        self._network_at = 0.0
        #: What each part was when it was last measured, and what keeps it from that now.
        self._last: dict[str, Any] = {}
        self._troubles: dict[str, str] = {}
        # The first answer of these two is a meaningless 0.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def host(self, now: float) -> common_pb2.Host:
        """All of it.

        Args:
            now: Seconds on the monotonic clock.
        """
        config = self._config
        return common_pb2.Host(
            id=config.host_id,
            type=config.host_type,
            hostname=config.host.hostname,
            ip=config.host.ip,
            port=self._port,
            download_port=self._port,
            os=platform.system().lower(),
            platform=platform.system().lower(),
            platform_family="unix",
            platform_version=_system_version(),
            kernel_version=platform.release(),
            cpu=self._measured("cpu", lambda: self._cpu(now)),
            memory=self._measured("memory", self._memory),
            network=self.network(now),
            disk=self._measured("disk", lambda: self._disk(now)),
            build=common_pb2.Build(git_version=BUILD_VERSION, platform=platform.platform()),
            scheduler_cluster_id=config.host.scheduler_cluster_id,
            disable_shared=config.upload.disable_shared,
            name=_pod_name() or config.host.hostname,
        )

    def network(self, now: float) -> common_pb2.Network:
        """Bandwidths in bit/s. The actual ones are absent until there are two samples.

        Asked again at once it says the same again: each child asks once a second.

        Args:
            now: Seconds on the monotonic clock.
        """
        if self._network is None or not 0 <= now - self._network_at < _MIN_SPAN:
            host = self._config.host
            found = self._measured("network", lambda: self._measure_network(now))
            self._network = found or common_pb2.Network(location=host.location, idc=host.idc)
            self._network_at = now
        return self._network

    def _measured(self, part: str, measure: Callable[[], _Part]) -> _Part | None:
        """What *measure* gives, or what it gave when it last did; None if it never has."""
        try:
            self._last[part] = measure()
        except Exception as error:  # noqa: BLE001  psutil reads what the kernel writes, and raises anything
            trouble = f"{type(error).__name__}: {error}"
            if self._troubles.get(part) != trouble:
                logger.warning("cannot measure this host", part=part, why=trouble)
            self._troubles[part] = trouble
        else:
            self._troubles.pop(part, None)
        known: _Part | None = self._last.get(part)
        return known

    def _measure_network(self, now: float) -> common_pb2.Network:
        host = self._config.host
        interface = interface_of(host.ip)
        limit = self._bandwidth_limit(interface)
        network = common_pb2.Network(
            location=host.location,
            idc=host.idc,
            max_rx_bandwidth=limit,
            max_tx_bandwidth=limit,
        )
        counters = psutil.net_io_counters(pernic=True).get(interface or "")
        if counters is not None:
            received = self._received.update(counters.bytes_recv * 8, now)
            sent = self._sent.update(counters.bytes_sent * 8, now)
            if received is not None:
                network.rx_bandwidth = int(received)
            if sent is not None:
                network.tx_bandwidth = int(sent)
        return network

    def _bandwidth_limit(self, interface: str | None) -> int:
        """What the interface can do, or less if so configured. Virtual ones do not say."""
        limit = self._config.upload.bandwidth_limit * 8
        stats = psutil.net_if_stats().get(interface or "")
        return min(limit, stats.speed * 10**6) if stats is not None and stats.speed > 0 else limit

    def _cpu(self, now: float) -> common_pb2.CPU:
        logical = psutil.cpu_count() or 1
        cpu = common_pb2.CPU(
            logical_count=logical,
            physical_count=psutil.cpu_count(logical=False) or logical,
            percent=psutil.cpu_percent(),
            process_percent=self._process.cpu_percent(),
        )
        group = cpu_group(self._root)
        if group is not None:
            cpu.cgroup.CopyFrom(self._cpu_group(group, now))
        return cpu

    def _cpu_group(self, group: CpuGroup, now: float) -> common_pb2.CgroupCPU:
        cores = self._group_cpu.update(group.usage, now) or 0.0
        return common_pb2.CgroupCPU(
            period=group.period,
            quota=group.quota,
            used_percent=100 * cores * group.period / group.quota,
        )

    def _memory(self) -> common_pb2.Memory:
        seen = psutil.virtual_memory()
        memory = common_pb2.Memory(
            total=seen.total,
            available=seen.available,
            used=seen.used,
            used_percent=seen.percent,
            process_used_percent=self._process.memory_percent(),
            free=seen.free,
        )
        group = memory_group(self._root)
        if group is not None:
            memory.cgroup.CopyFrom(
                common_pb2.CgroupMemory(
                    limit=group.limit,
                    usage=group.usage,
                    used_percent=100 * group.usage / group.limit,
                )
            )
        return memory

    def _disk(self, now: float) -> common_pb2.Disk:
        try:
            usage = shutil.disk_usage(_existing(self._config.storage.dir))
        except OSError:
            return common_pb2.Disk()  # a broken disk is no reason to be silent about the rest
        disk = common_pb2.Disk(
            total=usage.total,
            free=usage.free,
            used=usage.used,
            used_percent=100 * usage.used / usage.total if usage.total else 0.0,
        )
        if psutil.LINUX:  # elsewhere the system does not count by process
            counters = self._process.io_counters()
            disk.read_bandwidth = int(self._read.update(counters.read_bytes, now) or 0)
            disk.write_bandwidth = int(self._written.update(counters.write_bytes, now) or 0)
        return disk


def _system_version() -> str:
    if platform.system() == "Darwin":
        return platform.mac_ver()[0]
    try:
        return platform.freedesktop_os_release().get("VERSION_ID", "")
    except OSError:
        return ""  # a system without the file, such as a bare container


def _pod_name() -> str | None:
    namespace, name = os.environ.get("POD_NAMESPACE"), os.environ.get("POD_NAME")
    return f"{namespace}-{name}" if namespace and name else None


def _existing(path: Path) -> Path:
    """*path*, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))
