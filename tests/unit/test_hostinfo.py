"""What is announced of a host, compared with what the system says by other ways."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from pathlib import Path

import psutil
import pytest

from pantala import BUILD_VERSION
from pantala.daemon.config import load
from pantala.daemon.host.hostinfo import HostMeter

LOOPBACK = {"host.ip": "127.0.0.1", "host.hostname": "me"}


def facts(**more: object) -> HostMeter:
    """Facts about this machine, as 127.0.0.1; ``__`` stands for ``.`` in keys."""
    return HostMeter(
        load(None, LOOPBACK | {k.replace("__", "."): v for k, v in more.items()}), 4000
    )


def test_who() -> None:
    """Names and ports are those of the configuration and of the listening server."""
    host = facts(
        seedPeer__enable=True,
        host__schedulerClusterID=5,
        upload__disableShared=True,
        host__idc="z",
        host__location="eu",
    ).host(0.0)
    assert (host.id, host.type, host.name) == ("127.0.0.1-me-seed", 1, "me")
    assert (host.ip, host.port, host.download_port) == ("127.0.0.1", 4000, 4000)
    assert (host.scheduler_cluster_id, host.disable_shared, host.proxy_port) == (5, True, 0)
    assert (host.network.idc, host.network.location) == ("z", "eu")
    assert host.build.git_version == BUILD_VERSION
    assert facts().host(0.0).type == 0


def test_machine(tmp_path: Path) -> None:
    """Figures agree with the system's own tools."""
    host = facts(storage__dir=str(tmp_path / "not" / "yet")).host(0.0)
    assert host.os == host.platform == "linux"
    assert host.kernel_version == platform.release()
    assert host.cpu.logical_count == os.cpu_count()
    assert 0 < host.cpu.physical_count <= host.cpu.logical_count
    assert host.memory.total == psutil.virtual_memory().total
    assert 0 < host.memory.process_used_percent < 100
    assert host.disk.total == shutil.disk_usage(tmp_path).total
    assert 0 <= host.disk.used_percent <= 100


def test_pod_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Kubernetes the pod gives the name."""
    monkeypatch.setenv("POD_NAMESPACE", "ns")
    assert facts().host(0.0).name == "me"
    monkeypatch.setenv("POD_NAME", "pod-0")
    assert facts().host(0.0).name == "ns-pod-0"


def test_container(tmp_path: Path) -> None:
    """In a container its limits are announced too, and what is used of them."""
    group = tmp_path / "sys/fs/cgroup"
    for path, text in (
        (tmp_path / "proc/self/cgroup", "0::/"),
        (group / "memory.max", "1000"),
        (group / "memory.current", "250"),
        (group / "cpu.max", "200000 100000"),
        (group / "cpu.stat", "usage_usec 1000000"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    about = HostMeter(load(None, LOOPBACK), 4000, tmp_path)
    first = about.host(10.0)
    assert (first.memory.cgroup.limit, first.memory.cgroup.usage) == (1000, 250)
    assert first.memory.cgroup.used_percent == 25
    assert (first.cpu.cgroup.quota, first.cpu.cgroup.period) == (200000, 100000)
    assert first.cpu.cgroup.used_percent == 0
    (group / "cpu.stat").write_text("usage_usec 3000000")
    # Two seconds of CPU in four: half a core of the two that are allowed.
    assert about.host(14.0).cpu.cgroup.used_percent == 25


def test_no_container(tmp_path: Path) -> None:
    """Without limits nothing is said of them."""
    host = HostMeter(load(None, LOOPBACK), 4000, tmp_path).host(0.0)
    assert not host.memory.HasField("cgroup")
    assert not host.cpu.HasField("cgroup")


def test_bandwidth_limit() -> None:
    """Where the interface does not say what it can do, the configured rate counts, in bits."""
    network = facts(upload__bandwidthLimit="1MB").network(0.0)
    assert network.max_rx_bandwidth == network.max_tx_bandwidth == 8_000_000
    unknown = facts(host__ip="203.0.113.77", upload__bandwidthLimit="2MB").network(0.0)
    assert unknown.max_tx_bandwidth == 16_000_000
    assert not unknown.HasField("tx_bandwidth")


def send_over_loopback(size: int) -> None:
    """Have the system count at least *size* bytes more in each direction."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        left = size
        while left > 0:
            client.sendall(bytes(65536))
            left -= len(accepted.recv(65536, socket.MSG_WAITALL))


def test_network_rates() -> None:
    """A rate needs two samples some time apart, and is in bits a second."""
    about = facts()
    first = about.network(100.0)
    assert not first.HasField("rx_bandwidth")
    assert not first.HasField("tx_bandwidth")
    send_over_loopback(4 << 20)
    assert not about.network(100.1).HasField("rx_bandwidth")
    second = about.network(102.0)
    assert second.rx_bandwidth >= (4 << 20) * 8 / 2
    assert second.tx_bandwidth >= (4 << 20) * 8 / 2
    again = about.network(102.1)
    assert again.rx_bandwidth == second.rx_bandwidth
