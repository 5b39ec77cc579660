"""An origin and its swarm: it dies, changes its mind or names no version, or they hold parts."""

from __future__ import annotations

import grpc
import pytest

from pantala.core.policy import policy_of
from pantala.model.ids import task_id
from pantala.rpc.dialects import dialect_of
from pantala.rpc.transport import channel_options
from pantala.testing.cluster import PATIENCE, Cluster, until
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)

#: Daemons that give up soon, so that a test need not wait for Dragonfly's patience.
IMPATIENT = {
    "download": {
        "pieceTimeout": "2s",
        "pieceStallTimeout": "700ms",
        "collectedPieceTimeout": "2s",
    }
}


@pytest.mark.usefixtures("kind")
def test_the_origin_dies_under_a_swarm(cluster: Cluster, origin: Origin) -> None:
    """One node is at the origin and the others wait for it: everybody is told."""
    del origin  # another one, which can be killed
    cluster.scheduler()
    nodes = cluster.daemons("a", "b", "c", config=IMPATIENT)
    arguments = (f"--pattern=/f={CONTENT.size}", f"--rate={4 * MIB}")
    dying = cluster.start("pantala.testing.origin", *arguments, name="origin")
    port = int(until(lambda: dying.log, "the origin's port printed"))
    begun = [cluster.begin(node, f"http://127.0.0.1:{port}/f") for node in nodes]
    until(lambda: all(node.tasks() for node in nodes), "all of them at work")
    dying.kill()
    for download in begun:
        assert "connection refused" in cluster.finish(*download).refusal


@pytest.mark.usefixtures("kind")
def test_holders_of_parts_without_an_origin(cluster: Cluster, origin: Origin) -> None:
    """Two who hold a part each and want it all do not wait for each other."""
    cluster.scheduler()
    nodes = cluster.daemons("a", "b", config=IMPATIENT)
    origin.put("/f", CONTENT)
    for node, start in zip(nodes, (0, 8 * MIB), strict=True):
        part = cluster.get(node, origin.url("/f"), "--range", f"{start}-{start + 9}")
        assert part.bytes() == CONTENT.read(start, 10)
    origin.pause()
    for got in cluster.get_on_all(nodes, origin.url("/f")):
        assert "connection refused" in got.refusal
    origin.resume()
    for got in cluster.get_on_all(nodes, origin.url("/f")):
        assert got.bytes() == CONTENT.read()


def test_holders_of_parts_who_both_want_the_rest(cluster: Cluster, origin: Origin) -> None:
    """They do not wait for each other, whoever has registered first."""
    cluster.scheduler()
    nodes = cluster.daemons("a", "b")
    for number in range(3):
        path = f"/{number}"
        origin.put(path, CONTENT)
        for node in nodes:
            assert cluster.get(node, origin.url(path), "--range", "0-9").code == 0
        begun = [cluster.begin(node, origin.url(path), "--timeout", "30s") for node in nodes]
        for download in begun:
            assert cluster.finish(*download).bytes() == CONTENT.read()


def test_a_slow_origin_that_names_no_version(cluster: Cluster, origin: Origin) -> None:
    """Nodes wait for the first piece however long it takes; the origin is read once."""
    cluster.scheduler()
    seed, *nodes = cluster.daemon("s", seed=True), *cluster.daemons("a", "b")
    content = Pattern(5 * MIB, seed=9)
    origin.put("/f", content, headers={"ETag": "", "Last-Modified": ""})
    origin.fault("/f", Fault(rate=0.6 * MIB))
    begun = [cluster.begin(node, origin.url("/f")) for node in nodes]
    for download in begun:
        assert cluster.finish(*download).bytes() == content.read()
    assert origin.sent("/f") < 1.1 * content.size
    assert len(seed.tasks()) == 1


@pytest.mark.usefixtures("kind")
def test_a_file_that_changed_since(cluster: Cluster, origin: Origin) -> None:
    """Where nobody asks for it, holders keep alive what they have; where it is, all move on."""
    cluster.scheduler()
    a, b, c = cluster.daemons("a", "b", "c")
    changed = Pattern(CONTENT.size + MIB, seed=2)
    origin.put("/f", CONTENT)
    task = cluster.get(a, origin.url("/f")).result["task_id"]
    origin.put("/f", changed)
    now = changed if policy_of(cluster.kind).revalidates else CONTENT
    # Who has asked just now asks again. Others would be told what it heard, for a moment.
    assert cluster.get(a, origin.url("/f")).bytes() == now.read()
    assert cluster.get(b, origin.url("/f")).bytes() == now.read()
    if now is CONTENT:
        for node in (a, b):
            node.delete(task)
    for node in (c, a):
        assert cluster.get(node, origin.url("/f")).bytes() == changed.read()


@pytest.mark.usefixtures("kind")
def test_parents_of_two_versions(cluster: Cluster, origin: Origin) -> None:
    """Two nodes hold what the origin had at different times: a child has one of them, whole."""
    scheduler = cluster.scheduler()
    old, new, child = cluster.daemons("a", "b", "c")
    changed = Pattern(CONTENT.size, seed=2)
    origin.put("/f", CONTENT)
    assert cluster.get(old, origin.url("/f")).bytes() == CONTENT.read()
    scheduler.kill()
    origin.put("/f", changed)
    until(lambda: "scheduler does not answer" in new.log, "the scheduler missed")
    assert cluster.get(new, origin.url("/f")).bytes() == changed.read()
    cluster.scheduler(port=cluster.scheduler_port)
    url = origin.url("/f")
    identity = task_id(cluster.kind, url)
    until(lambda: _holders(cluster, identity) == 2, "both announced")
    until(lambda: child.log.count('"event": "announced"') == 2, "the child has its scheduler back")
    origin.pause()
    assert cluster.get(child, url).bytes() in (CONTENT.read(), changed.read())


def _holders(cluster: Cluster, identity: str) -> int:
    """How many peers the scheduler knows of a task."""
    target = f"127.0.0.1:{cluster.scheduler_port}"
    with grpc.insecure_channel(target, channel_options(target)) as channel:
        name, request = dialect_of(cluster.kind).stat
        stat = getattr(cluster.scheduler_stub(channel), name)
        try:
            answer = stat(request(task_id=identity), timeout=PATIENCE)
        except grpc.RpcError:
            return 0
        return int(answer.peer_count)
