"""With a manager, and without it while it is away: real daemons and schedulers, by the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import pantala
from pantala.errors import Forbidden
from pantala.pb import common_pb2, dfdaemon_pb2, dfdaemon_pb2_grpc, manager_pb2
from pantala.testing.cluster import PATIENCE, Cluster, Node
from pantala.testing.manager_server import ManagerServer
from pantala.testing.origin import Origin, Pattern
from pantala.testing.program import until

MIB = 1 << 20


@pytest.fixture
def manager() -> Iterator[ManagerServer]:
    """One that is up."""
    with ManagerServer() as manager:
        yield manager


def config(manager: ManagerServer, **more: Any) -> dict[str, Any]:
    """Of a daemon that knows nothing but its manager."""
    return {
        "manager": {"addr": f"http://{manager.address}"},
        "dynconfig": {"refreshInterval": "200ms"},
        **more,
    }


def blocks(manager: ManagerServer, **lists: object) -> None:
    """Have these lists, and wait until a daemon has been told."""
    manager.cluster(client_config={"block_list": lists})
    before = len(manager.requests("ListSchedulers"))
    # The one that comes next may have been answered before.
    until(lambda: len(manager.requests("ListSchedulers")) > before + 2, "asked again")


def schedulers(node: Node) -> list[list[str]]:
    """Its lists of schedulers, as logged."""
    return [line["addresses"] for line in node.events if line.get("event") == "schedulers"]


def test_a_daemon_finds_its_schedulers(
    cluster: Cluster, origin: Origin, manager: ManagerServer
) -> None:
    """By the manager; when that is away, by what it said last, also to an earlier life."""
    cluster.scheduler()
    at = f"127.0.0.1:{cluster.scheduler_port}"
    manager.add(cluster.scheduler_port)
    a, b = cluster.daemons("a", "b", config=config(manager), scheduler=False)
    assert schedulers(a) == schedulers(b) == [[at]]
    content = Pattern(9 * MIB, 1)
    origin.put("/model", content)
    assert cluster.get(a, origin.url("/model")).bytes() == content.read()
    got = cluster.get(b, origin.url("/model"))
    assert got.result["bytes_from_peers"] == 9 * MIB

    manager.stop()
    b.wait_for("schedulers could not be refreshed")
    b.kill()
    b = cluster.daemon("b", config=config(manager), scheduler=False)
    assert schedulers(b) == [[at]]
    got = cluster.get(b, origin.url("/model"))
    assert (got.bytes(), got.result["bytes_from_peers"]) == (content.read(), 9 * MIB)
    fresh = cluster.daemon("fresh", config=config(manager), scheduler=False)
    assert schedulers(fresh) == []
    manager.start()
    fresh.wait_for("schedulers")
    got = cluster.get(fresh, origin.url("/model"))
    assert got.result["bytes_from_peers"] == 9 * MIB


def test_what_is_blocked_meanwhile(
    cluster: Cluster, origin: Origin, manager: ManagerServer
) -> None:
    """Counts for the next request, however it is made, also of what is here; until it does not."""
    cluster.scheduler()
    manager.add(cluster.scheduler_port)
    node = cluster.daemon("a", config=config(manager), scheduler=False)
    origin.put("/small", b"x" * 1000)
    origin.put("/other", b"y" * 1000)
    url, other = origin.url("/small"), origin.url("/other")
    path = str(node.socket)
    with pantala.Client(path, timeout=PATIENCE) as client:
        for _ in range(3):
            assert client.get(url) == b"x" * 1000
        blocks(manager, cache_task={"download": {"urls": [r"/small$"]}})
        words = "blocked for this cluster by block_list.cache_task.download.urls in manager"
        for ask in (client.get, client.refresh):
            with pytest.raises(Forbidden, match=words):
                ask(url)
        assert cluster.get(node, url).refusal == f"cannot get {url}: {words} {manager.address}"
        assert client.get(other) == b"y" * 1000
        manager.cluster(client_config=b"{")
        node.wait_for("block lists not read: what was known holds")
        with pytest.raises(Forbidden):
            client.get(url)
        blocks(manager)
        assert client.get(url) == b"x" * 1000


def test_seeds_are_asked_all_the_same(
    cluster: Cluster, origin: Origin, manager: ManagerServer
) -> None:
    """Who asks is refused on his own host; what schedulers ask of a host is not his wish."""
    cluster.scheduler()
    manager.add(cluster.scheduler_port)
    node = cluster.daemon("a", config=config(manager), scheduler=False)
    origin.put("/model", Pattern(MIB, 1))
    blocks(manager, task={"download": {"priorities": [0], "urls": ["model"]}})
    wanted = common_pb2.Download(url=origin.url("/model"))
    message = dfdaemon_pb2.DownloadTaskRequest(download=wanted)
    at = f"127.0.0.1:{node.ports['upload']}"
    with grpc.insecure_channel(at) as channel:
        stub = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)
        assert list(stub.DownloadTask(message, timeout=PATIENCE))
    with node.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(node.download_stub(channel).DownloadTask(message, timeout=PATIENCE))
    assert "PERMISSION_DENIED" in str(caught.value)


def test_an_import_is_blocked(cluster: Cluster, manager: ManagerServer) -> None:
    """By the lists for uploads."""
    sqlite = {"database": {"sqlite": {"path": str(cluster.directory / "s.db")}}}
    settings = cluster.directory / "scheduler.yaml"
    settings.write_text(json.dumps(sqlite))
    cluster.scheduler("--config", str(settings))
    manager.add(cluster.scheduler_port)
    allowed = {"download": {"server": {"allowImportPath": True}}}
    node = cluster.daemon("a", config=config(manager, **allowed), scheduler=False)
    file = cluster.directory / "file"
    file.write_bytes(b"x" * 1000)
    words = ("import", str(file), "--persistent-replica-count", "1", "--ttl", "1h")
    blocks(manager, persistent_cache_task={"upload": {"tags": ["t"]}})
    got = cluster.command("dfcache", node, *words, "--tag", "t")
    assert got.code == 1
    assert "by block_list.persistent_cache_task.upload.tags in manager" in got.stderr
    assert cluster.command("dfcache", node, *words).code == 0


def test_a_scheduler_of_a_managers(
    cluster: Cluster, origin: Origin, manager: ManagerServer
) -> None:
    """It makes itself known, so daemons find it; and does what the manager wants of applications.

    It is started before the manager, and does all else meanwhile.
    """
    manager.stop()
    settings = {
        "manager": {"addr": manager.address, "keepAlive": {"interval": "100ms"}},
        "server": {"advertiseIP": "127.0.0.1", "host": "scheduler"},
        "database": {"sqlite": {"path": str(cluster.directory / "s.db")}},
        "dynConfig": {"refreshInterval": "200ms"},
    }
    path = cluster.directory / "scheduler.yaml"
    path.write_text(json.dumps(settings))
    scheduler = cluster.scheduler("--config", str(path))
    port = cluster.scheduler_port
    scheduler.wait_for("no good answer of the manager")
    manager.start()
    until(lambda: any(row.state == "active" for row in manager.schedulers), "told that it lives")
    (row,) = manager.schedulers
    assert (row.port, row.features) == (port, b'["schedule"]')

    node = cluster.daemon("a", config=config(manager), scheduler=False)
    assert schedulers(node) == [[f"127.0.0.1:{port}"]]
    for number in range(4):
        origin.put(f"/{number}", Pattern(MIB, number))
    words = ("--application", "crawler", "--priority", "0")
    cluster.get(node, origin.url("/0"), *words).bytes()
    forbidden = manager_pb2.ApplicationPriority(value=common_pb2.Priority.LEVEL1)
    manager.applications.append(manager_pb2.Application(name="crawler", priority=forbidden))
    before = len(manager.requests("ListApplications"))
    until(lambda: len(manager.requests("ListApplications")) > before + 2, "asked again")
    assert "forbidden" in cluster.get(node, origin.url("/1"), *words).refusal.lower()
    assert cluster.get(node, origin.url("/1")).code == 0

    manager.stop()
    scheduler.kill()
    scheduler = cluster.scheduler("--config", str(path), port=port)
    until(lambda: node.log.count('"announced"') > 1, "announced again")
    assert "forbidden" in cluster.get(node, origin.url("/2"), *words).refusal.lower()
    manager.start()
    until(lambda: row.state == "active", "told again that it lives")
