"""The scheduler is absent, dies, hangs or forgets; downloads go on, and the swarm comes back."""

from __future__ import annotations

import signal

import pytest

from pydragonfly.testing.cluster import PATIENCE, Cluster, Got, Node, Program, until
from pydragonfly.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)


def _from_peers(cluster: Cluster, node: Node, url: str) -> Got:
    """What *node* gets of others, as soon as the scheduler knows of any."""

    def known() -> Got | None:
        got = cluster.get(node, url, "--disable-back-to-source")
        assert got.code == 0 or "no peer" in got.refusal
        return got if got.code == 0 else None

    return until(known, "a holder found", PATIENCE / 3)


def test_there_is_none(cluster: Cluster, origin: Origin) -> None:
    """Daemons start without the one they know, and ask the origin."""
    scheduler = cluster.scheduler()
    scheduler.kill()
    node = cluster.daemon("a")
    origin.put("/f", CONTENT)
    assert cluster.get(node, origin.url("/f")).bytes() == CONTENT.read()
    line = cluster.get(node, origin.url("/g"), "--disable-back-to-source").refusal
    assert "no peer is known to have the content" in line


def test_it_comes_later(cluster: Cluster, origin: Origin) -> None:
    """What was held before it came is announced to it."""
    cluster.scheduler().kill()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    cluster.scheduler(port=cluster.scheduler_port)
    origin.pause()
    assert _from_peers(cluster, child, origin.url("/f")).bytes() == CONTENT.read()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_restarts(cluster: Cluster, origin: Origin, number: signal.Signals) -> None:
    """It comes back knowing nothing; a moment later holders are found without the origin."""
    scheduler = cluster.scheduler()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    scheduler.signal(number)
    scheduler.process.wait(30)
    cluster.scheduler(port=cluster.scheduler_port)
    assert _from_peers(cluster, child, origin.url("/f")).bytes() == CONTENT.read()
    assert not child.errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_during_downloads(cluster: Cluster, origin: Origin, number: signal.Signals) -> None:
    """One node is at the origin, one fetches from it: both go on."""
    scheduler = cluster.scheduler()
    first, second = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=2 * MIB))
    begun = [cluster.begin(first, origin.url("/f"))]
    until(first.tasks, "the first at work")
    begun.append(cluster.begin(second, origin.url("/f")))
    until(second.tasks, "the second at work")
    scheduler.signal(number)
    for download in begun:
        assert cluster.finish(*download).bytes() == CONTENT.read()


def test_it_dies_and_nobody_may_ask_the_origin(cluster: Cluster, origin: Origin) -> None:
    """A child without the right to the origin keeps the parent that it has."""
    scheduler = cluster.scheduler()
    holder = cluster.daemon("a", config={"upload": {"bandwidthLimit": "4MiB"}})
    child = cluster.daemon("b", config={"download": {"concurrentPieceCount": 1}})
    origin.put("/f", CONTENT)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    download = cluster.begin(child, origin.url("/f"), "--disable-back-to-source")
    until(lambda: sum(t.finished_piece_count for t in child.tasks().values()), "a piece here")
    scheduler.kill()
    assert cluster.finish(*download).bytes() == CONTENT.read()


def test_it_hangs(cluster: Cluster, origin: Origin) -> None:
    """A scheduler that answers nothing is done without after a few seconds, and used again."""
    scheduler = cluster.scheduler()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    scheduler.signal(signal.SIGSTOP)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    scheduler.signal(signal.SIGCONT)
    origin.pause()
    assert _from_peers(cluster, child, origin.url("/f")).bytes() == CONTENT.read()


def _left(scheduler: Program) -> int:
    return sum(event.get("event") == "host left" for event in scheduler.events)


def test_a_daemon_says_goodbye(cluster: Cluster, origin: Origin) -> None:
    """Nobody is sent to one that has ended: the next is told so at once."""
    scheduler = cluster.scheduler()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    assert holder.stop() == 0
    assert _left(scheduler) == 1
    got = cluster.get(child, origin.url("/f"))
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_origin"] == CONTENT.size
    assert "connection refused" not in child.log
