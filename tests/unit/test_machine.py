"""What the kernel's files say of limits and addresses."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import psutil
import pytest

from pantala.daemon.host.machine import (
    CpuGroup,
    MemoryGroup,
    cpu_group,
    interface_of,
    memory_group,
    memory_limit,
)
from pantala.net.addresses import _addresses, local_ip

V1_UNLIMITED = 9223372036854771712


def kernel(root: Path, groups: str, **files: object) -> Path:
    """A root folder with these control groups; ``__`` stands for ``/`` in names of files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_no_groups(tmp_path: Path) -> None:
    """Without control groups the machine is the limit."""
    assert memory_group(tmp_path) is None
    assert cpu_group(tmp_path) is None
    assert memory_limit(tmp_path) == psutil.virtual_memory().total


def test_version_2_tightest_wins(tmp_path: Path) -> None:
    """A limit of an outer group holds for the inner one."""
    root = kernel(
        tmp_path,
        "0::/pod/box\n",
        pod__memory_DOT_max=1000,
        pod__memory_DOT_current=900,
        pod__box__memory_DOT_max=5000,
        pod__box__memory_DOT_current=10,
    )
    assert memory_group(root) == MemoryGroup(limit=1000, usage=900)
    assert memory_limit(root) == 1000


def test_version_2_in_a_container(tmp_path: Path) -> None:
    """A container sees its own group as the top, whatever the kernel calls it."""
    root = kernel(tmp_path, "0::/../../far\n", memory_DOT_max=2000, memory_DOT_current=1)
    assert memory_group(root) == MemoryGroup(limit=2000, usage=1)


@pytest.mark.parametrize("limit", ["max", V1_UNLIMITED, 0, "", "-1", "junk"])
def test_no_limit(tmp_path: Path, limit: object) -> None:
    """What says that there is no limit, or nothing at all, is none."""
    root = kernel(tmp_path, "0::/a\n", a__memory_DOT_max=limit, a__memory_DOT_current=1)
    assert memory_group(root) is None


def test_version_1(tmp_path: Path) -> None:
    """Version 1 has a tree for each controller."""
    root = kernel(
        tmp_path,
        "4:memory:/box\n3:cpu,cpuacct:/box\n2:pids:/\n0::/\n",
        memory__memory_DOT_limit_in_bytes=V1_UNLIMITED,
        memory__memory_DOT_usage_in_bytes=7,
        memory__box__memory_DOT_limit_in_bytes=3000,
        memory__box__memory_DOT_usage_in_bytes=5,
        cpu__box__cpu_DOT_cfs_quota_us=50000,
        cpu__box__cpu_DOT_cfs_period_us=100000,
        cpu__box__cpuacct_DOT_usage=2_500_000_000,
    )
    assert memory_group(root) == MemoryGroup(limit=3000, usage=5)
    assert cpu_group(root) == CpuGroup(period=100000, quota=50000, usage=2.5)


def test_version_2_cpu(tmp_path: Path) -> None:
    """The innermost limit is found, also where an inner group has none."""
    root = kernel(
        tmp_path,
        "0::/pod/box\n",
        pod__box__cpu_DOT_max="max 100000",
        pod__box__cpu_DOT_stat="usage_usec 1",
        pod__cpu_DOT_max="150000 100000",
        pod__cpu_DOT_stat="usage_usec 4000000\nuser_usec 3",
    )
    assert cpu_group(root) == CpuGroup(period=100000, quota=150000, usage=4.0)


@pytest.mark.parametrize("ipv6", [False, True])
def test_local_ip(ipv6: bool) -> None:  # noqa: FBT001  a parameter of the test
    """It is an address that a server of this machine can bind."""
    address = local_ip(ipv6=ipv6)
    assert ipaddress.ip_address(address).version == (6 if ipv6 else 4)
    if ipv6 and not socket.has_dualstack_ipv6():
        return
    with socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET) as server:
        server.bind((address, 0))


def test_without_a_route() -> None:
    """Then any address of the machine will do that is not for itself alone."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for address in _addresses(family):
            assert interface_of(address) is not None
            assert not ipaddress.ip_address(address).is_loopback


def test_interface_of() -> None:
    """Found by address; none has an address of the documentation's."""
    name = interface_of("127.0.0.1")
    assert name is not None
    assert name in psutil.net_if_stats()
    assert interface_of("203.0.113.77") is None
