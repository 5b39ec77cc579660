"""Origins that are silent or slow hold up those who want something of them, and nobody else."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from pantala.daemon.host.threads import PROBERS_OF_ONE, READERS_OF_ONE
from pantala.model.task import Kind
from pantala.paths import handoff_path_for
from pantala.testing.cluster import Cluster, Node, until
from pantala.testing.origin import Fault, Origin, Pattern
from pantala.wire.handoff import encode

MIB = 1 << 20
SMALL = Pattern(10_000)

#: Flags of a dfget that is not kept waiting by anybody.
AT_ONCE = ("--timeout", "20s")


@pytest.fixture
def trouble() -> Iterator[Origin]:
    """Another origin."""
    with Origin() as origin:
        yield origin


@contextlib.contextmanager
def callers(node: Node, origin: Origin, count: int) -> Iterator[None]:
    """Programs that want /0, /1 and so on of *origin*, for the block."""
    with contextlib.ExitStack() as connections:
        for number in range(count):
            sock = connections.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(handoff_path_for(str(node.socket)))
            sock.sendall(encode({"op": "download", "url": origin.url(f"/{number}")}))
        yield


def test_a_silent_origin(cluster: Cluster, origin: Origin, trouble: Origin) -> None:
    """Asked by many: others are served; and with its callers gone, nothing keeps the daemon."""
    node = cluster.daemon("a")
    origin.put("/sized", SMALL)
    origin.put("/unsized", SMALL)
    origin.fault("/unsized", Fault(chunked=True, no_range=True))
    for number in range(3 * PROBERS_OF_ONE):
        trouble.put(f"/{number}", SMALL)
        trouble.fault(f"/{number}", Fault(delay=3600))
    with callers(node, trouble, 3 * PROBERS_OF_ONE):
        until(lambda: trouble.count() == PROBERS_OF_ONE, "as many asking as may")
        digest = ("--digest", f"sha256:{SMALL.digest()}")
        assert cluster.get(node, origin.url("/sized"), *AT_ONCE, *digest).bytes() == SMALL.read()
        assert cluster.get(node, origin.url("/unsized"), *AT_ONCE).bytes() == SMALL.read()
        assert trouble.count() == PROBERS_OF_ONE
    assert node.stop() == 0
    assert not node.errors


def test_a_silent_origin_of_a_file(cluster: Cluster, origin: Origin) -> None:
    """It is asked whether that is still the same; who has it serves it without an answer."""
    cluster.kind = Kind.STANDARD
    cluster.scheduler()
    holder, child = cluster.daemons("a", "b", config={"download": {"pieceTimeout": "1s"}})
    origin.put("/f", SMALL)
    assert cluster.get(holder, origin.url("/f")).bytes() == SMALL.read()
    origin.fault("/f", Fault(delay=3600))
    begun = [cluster.begin(node, origin.url("/f"), *AT_ONCE) for node in (holder, child)]
    for download, source in zip(begun, ("cache", "peers"), strict=True):
        got = cluster.finish(*download)
        assert got.bytes() == SMALL.read()
        assert got.result[f"bytes_from_{source}"] == SMALL.size
    assert origin.sent("/f") <= SMALL.size + 1


def test_a_slow_origin(cluster: Cluster, origin: Origin, trouble: Origin) -> None:
    """Read by many: what peers and other origins have comes all the same."""
    cluster.scheduler()
    cluster.capacity = "2GiB"
    holder, node = cluster.daemons("a", "b")
    flights = READERS_OF_ONE + 1
    for number in range(flights):
        trouble.put(f"/{number}", Pattern(4 * MIB))
        trouble.fault(f"/{number}", Fault(rate=20e3))
    for path in ("/held", "/cold"):
        origin.put(path, SMALL)
    assert cluster.get(holder, origin.url("/held")).code == 0
    with callers(node, trouble, flights):
        until(lambda: trouble.count() == flights + READERS_OF_ONE, "as many reading as may")
        assert cluster.get(node, origin.url("/cold"), *AT_ONCE).bytes() == SMALL.read()
        held = cluster.get(node, origin.url("/held"), *AT_ONCE)
        assert held.bytes() == SMALL.read()
        assert held.result["bytes_from_peers"] == SMALL.size
        assert trouble.count() == flights + READERS_OF_ONE
    assert node.stop() == 0
    assert not node.errors
