"""Many hosts want what nobody has: one of them asks the origin what it is, the others are told."""

from __future__ import annotations

import signal

import pytest

from pantala.testing.cluster import PATIENCE, Cluster, Got, Node, Program, until
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("kind")

MIB = 1 << 20
SIZE = 13 * MIB + 12345
CONTENT = Pattern(SIZE, 7)


@pytest.fixture
def nodes(cluster: Cluster, scheduler: Program) -> list[Node]:
    """Eight daemons at it."""
    assert scheduler.ready
    cluster.capacity = "64MiB"
    return cluster.daemons(*(f"n{i}" for i in range(8)))


def all_is_there(downloads: list[Got]) -> None:
    """Each has the content, to the byte."""
    expected = CONTENT.read()
    assert all(got.bytes() == expected for got in downloads)


def probes(origin: Origin) -> int:
    """How often it was asked what it has, and for no more of it."""
    return sum(seen.headers.get("range") == "bytes=0-0" for seen in origin.requests)


def test_eight_hosts_at_once(cluster: Cluster, origin: Origin, nodes: list[Node]) -> None:
    """One question, and the content once."""
    origin.put("/f", CONTENT)
    all_is_there(cluster.get_on_all(nodes, origin.url("/f")))
    assert probes(origin) == 1
    assert origin.sent("/f") == SIZE + 1


def test_a_length_that_shows_at_the_end(
    cluster: Cluster, origin: Origin, nodes: list[Node]
) -> None:
    """One host reads all of it, slowly; the others wait, and have it from him."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(chunked=True, no_range=True, rate=6 * MIB))
    all_is_there(cluster.get_on_all(nodes, origin.url("/f")))
    assert origin.count("/f") == 1
    assert origin.sent("/f") == SIZE


def describer(nodes: list[Node]) -> Node:
    """Who asks the origin for all."""
    line = "asking the origin for others"
    return until(
        lambda: next((node for node in nodes if line in node.log), None), "somebody asks the origin"
    )


def in_its_midst(cluster: Cluster, origin: Origin, nodes: list[Node]) -> None:
    """Whoever asks the origin is killed meanwhile; the others have the content all the same."""
    downloads = [cluster.begin(node, origin.url("/f")) for node in nodes]
    first = describer(nodes)
    until(lambda: origin.count("/f") or None, "the origin is asked")
    first.kill()
    origin.release()
    gone = cluster.finish(*downloads.pop(nodes.index(first)))
    assert gone.code != 0
    all_is_there([cluster.finish(*each) for each in downloads])


def test_who_asks_is_killed(cluster: Cluster, origin: Origin, nodes: list[Node]) -> None:
    """Another asks instead."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(delay=PATIENCE), times=1)
    in_its_midst(cluster, origin, nodes)
    assert probes(origin) == 2


def test_who_reads_is_killed(cluster: Cluster, origin: Origin, nodes: list[Node]) -> None:
    """Another reads all of it instead, from the beginning."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(chunked=True, no_range=True, stall_after=5 * MIB), times=1)
    origin.fault("/f", Fault(chunked=True, no_range=True))
    in_its_midst(cluster, origin, nodes)
    assert origin.count("/f") == 2


def test_who_reads_hangs(
    cluster: Cluster, origin: Origin, nodes: list[Node], scheduler: Program
) -> None:
    """Likewise, after some seconds without a word of it."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(chunked=True, no_range=True, stall_after=5 * MIB), times=1)
    origin.fault("/f", Fault(chunked=True, no_range=True))
    downloads = [cluster.begin(node, origin.url("/f")) for node in nodes]
    first = describer(nodes)
    scheduler.wait_for("read by one host")
    first.signal(signal.SIGSTOP)
    hanging = downloads.pop(nodes.index(first))
    try:
        all_is_there([cluster.finish(*each) for each in downloads])
        assert origin.count("/f") == 2
    finally:
        first.signal(signal.SIGCONT)
        origin.release()
    all_is_there([cluster.finish(*hanging)])


@pytest.mark.parametrize(
    ("status", "most"),
    [
        (404, 4),
        (403, 4),
        # Each tries it once more; and where others could have it, they ask twice.
        (500, 4 * 2 * 2),
    ],
)
def test_the_origin_has_nothing(
    cluster: Cluster, origin: Origin, nodes: list[Node], status: int, most: int
) -> None:
    """All fail with its reason, though four have asked."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(status=status))
    downloads = cluster.get_on_all(nodes, origin.url("/f"))
    assert all(str(status) in got.refusal for got in downloads)
    assert origin.count("/f") <= most


def test_credentials_that_the_origin_refuses(
    cluster: Cluster, origin: Origin, nodes: list[Node]
) -> None:
    """Their caller fails; whoever has better ones has the content, as do those who wait for him."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(require=("authorization", "right")))
    wrong = [
        cluster.begin(node, origin.url("/f"), "-H", f"Authorization: wrong {i}")
        for i, node in enumerate(nodes[:5])
    ]
    right = [
        cluster.begin(node, origin.url("/f"), "-H", "Authorization: right") for node in nodes[5:]
    ]
    all_is_there([cluster.finish(*each) for each in right])
    for each in wrong:
        got = cluster.finish(*each)
        assert got.code == 0 or "401" in got.refusal


def test_who_may_not_ask_the_origin_has_it_of_a_seed(
    cluster: Cluster, origin: Origin, nodes: list[Node]
) -> None:
    """A seed is asked to fetch what nobody has."""
    cluster.daemon("seed", seed=True)
    origin.put("/f", CONTENT)
    got = cluster.get_on_all(nodes[:3], origin.url("/f"), "--disable-back-to-source")
    all_is_there(got)
    assert probes(origin) == 1
    assert origin.sent("/f") == SIZE + 1


def test_a_seed_reads_what_has_no_length(
    cluster: Cluster, origin: Origin, nodes: list[Node]
) -> None:
    """Likewise."""
    cluster.daemon("seed", seed=True)
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(chunked=True, no_range=True, rate=6 * MIB))
    got = cluster.get_on_all(nodes[:3], origin.url("/f"), "--disable-back-to-source")
    all_is_there(got)
    assert origin.count("/f") == 1


def test_a_seed_that_the_origin_refuses(
    cluster: Cluster, origin: Origin, nodes: list[Node]
) -> None:
    """Who may not ask it is told why there is nothing."""
    cluster.daemon("seed", seed=True)
    got = cluster.get(nodes[0], origin.url("/nothing"), "--disable-back-to-source")
    assert "404" in got.refusal


def test_no_seed(cluster: Cluster, origin: Origin, nodes: list[Node]) -> None:
    """Who may not ask the origin, where nobody else may, is told so; nobody asks it."""
    origin.put("/f", CONTENT)
    got = cluster.get(nodes[0], origin.url("/f"), "--disable-back-to-source")
    assert "must not ask the origin" in got.refusal
    assert not origin.requests
