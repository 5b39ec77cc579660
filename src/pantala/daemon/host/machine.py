"""What the machine, or the container around us, has to offer. Reads the kernel's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

#: Version 1 says "no limit" with the largest multiple of a page; no machine has this much.
_UNLIMITED: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The tightest memory limit of our control groups, in bytes, and what is used of it."""

    limit: int
    usage: int


@dataclass(frozen=True, slots=True)
class CpuGroup:
    """The CPU limit of our control group: *quota* of each *period*, in microseconds.

    Attributes:
        usage: Seconds of CPU used so far.
    """

    period: int
    quota: int
    usage: float


def interface_of(ip: str) -> str | None:
    """Name of the network interface that has *ip*; None when none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == ip for address in addresses):
            return name
    return None


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory we may use: the machine's, or less in a container."""
    total = psutil.virtual_memory().total
    group = memory_group(root)
    return total if group is None else min(total, group.limit)


def memory_group(root: Path = Path("/")) -> MemoryGroup | None:
    """The tightest memory limit of our control groups; None when there is none.

    Args:
        root: Where ``proc`` and ``sys`` lie.
    """
    found = [
        MemoryGroup(limit, usage)
        for folder in _groups(root, "memory")
        for names in (("memory.max", "memory.current"), _V1_MEMORY)
        if (limit := _number(folder / names[0])) is not None and 0 < limit < _UNLIMITED
        if (usage := _number(folder / names[1])) is not None
    ]
    return min(found, key=lambda group: group.limit, default=None)


_V1_MEMORY: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def cpu_group(root: Path = Path("/")) -> CpuGroup | None:
    """The CPU limit of the innermost of our control groups that has one; None when none has.

    Args:
        root: Where ``proc`` and ``sys`` lie.
    """
    for folder in _groups(root, "cpu"):
        quota, period = (*_words(folder / "cpu.max"), "", "")[:2]
        stat = _words(folder / "cpu.stat")
        if quota.isdigit() and period.isdigit() and "usage_usec" in stat:
            usage = int(stat[stat.index("usage_usec") + 1]) / 1e6
            return CpuGroup(int(period), int(quota), usage)
        v1_quota = _number(folder / "cpu.cfs_quota_us")
        v1_period = _number(folder / "cpu.cfs_period_us")
        v1_usage = _number(folder / "cpuacct.usage")  # nanoseconds; there if mounted together
        if v1_quota and v1_quota > 0 and v1_period and v1_usage is not None:
            return CpuGroup(v1_period, v1_quota, v1_usage / 1e9)
    return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of our control groups for *controller*, innermost first.

    Inside a container the path that the kernel names may not be mounted; what is mounted is
    then the container's own group. Folders that do not exist do no harm.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            top = mount
        elif controller in controllers.split(","):
            top = mount / controller
        else:
            continue
        inner = Path(path.lstrip("/"))
        for part in (inner, *inner.parents):
            yield top / part


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _number(path: Path) -> int | None:
    """The number in a file; None for no file, and for words such as ``max``."""
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None
