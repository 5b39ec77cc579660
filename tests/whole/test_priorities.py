"""Dragonfly's priorities: what a scheduler refuses for its priority is not asked of the origin."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import grpc
import pytest

from pantala.pb import dfdaemon_pb2
from pantala.testing.cluster import PATIENCE, Cluster, Program
from pantala.testing.origin import Origin, Pattern

MIB = 1 << 20


def _scheduler(cluster: Cluster) -> Program:
    path = cluster.directory / "scheduler.yaml"
    path.write_text(json.dumps({"metrics": {"enable": True, "addr": "127.0.0.1:0"}}))
    return cluster.scheduler("--config", str(path))


def _count(scheduler: Program, family: str) -> int:
    """The sum of a counter of the scheduler's."""
    url = f"http://127.0.0.1:{scheduler.ready['metrics_port']}/metrics"
    with urlopen(url, timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    name = f"dragonfly_scheduler_{family}_total"
    return sum(int(float(x.split()[-1])) for x in lines if x.startswith((f"{name}{{", f"{name} ")))


def test_only_peers(cluster: Cluster, origin: Origin) -> None:
    """LEVEL2 gets what peers have. What they lack is refused in words, once and for all."""
    scheduler = _scheduler(cluster)
    a, b = cluster.daemons("a", "b")
    content = Pattern(12 * MIB, 1)
    origin.put("/model", content)
    for number in range(10):
        origin.put(f"/{number}", Pattern(1000, number))
        cluster.get(b, origin.url(f"/{number}")).bytes()
    cluster.get(a, origin.url("/model"), "--range", "0-4194303").bytes()
    asked = origin.count()
    registered = _count(scheduler, "register_peer")
    announced = _count(scheduler, "announce_host")
    words = cluster.get(b, origin.url("/model"), "--priority", "2").refusal
    assert "LEVEL2 allows only peers" in words
    assert origin.count() == asked
    # Its own, and perhaps one of a node that tells late what it holds; not one for each.
    assert _count(scheduler, "register_peer") <= registered + 3
    assert _count(scheduler, "announce_host") == announced
    cluster.get(a, origin.url("/model")).bytes()
    got = cluster.get(b, origin.url("/model"), "--priority", "2")
    assert got.bytes() == content.read()
    assert got.result["bytes_from_origin"] == 0


def test_what_nobody_knows_is_refused_without_the_origin(cluster: Cluster, origin: Origin) -> None:
    """Not even its length is asked for."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/model", Pattern(12 * MIB, 1))
    words = cluster.get(node, origin.url("/model"), "--priority", "2").refusal
    assert "must not ask the origin" in words
    assert origin.count() == 0


def test_forbidden(cluster: Cluster, origin: Origin) -> None:
    """LEVEL1 is refused by every node, whatever it holds."""
    cluster.scheduler()
    nodes = cluster.daemons("a", "b", "c")
    origin.put("/model", Pattern(MIB, 1))
    for got in cluster.get_on_all(nodes, origin.url("/model"), "--priority", "1"):
        assert "LEVEL1 are forbidden" in got.refusal
    assert origin.count() == 0
    cluster.get(nodes[0], origin.url("/model")).bytes()
    assert "LEVEL1" in cluster.get(nodes[0], origin.url("/model"), "--priority", "1").refusal


def test_no_priority_at_all(cluster: Cluster, origin: Origin) -> None:
    """A number that the contract does not have is refused at the daemon's door."""
    node = cluster.daemon("a")
    request = dfdaemon_pb2.DownloadCacheTaskRequest(url=origin.url("/x"), priority=99)  # type: ignore[arg-type]  # on purpose
    with node.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(node.download_stub(channel).DownloadCacheTask(request, timeout=PATIENCE))
    error: Any = caught.value  # a Call, too
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "priority 99" in error.details()
    assert origin.count() == 0
