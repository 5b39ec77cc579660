"""The scheduler is absent, dies, hangs or forgets; downloads go on, and the swarm comes back."""

from __future__ import annotations

import signal
import time

import pytest

from pantala.model.task import Kind
from pantala.testing.cluster import PATIENCE, Cluster, Got, Node, Program, until
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)


#: How it ends, for each kind of task: what differs for files does not differ by how.
ENDS = [
    (Kind.CACHE, signal.SIGKILL),
    (Kind.CACHE, signal.SIGTERM),
    (Kind.STANDARD, signal.SIGKILL),
]


def _name(value: Kind | signal.Signals) -> str:
    """For the id of a test."""
    return value.name.lower()


def _from_peers(cluster: Cluster, node: Node, url: str) -> Got:
    """What *node* gets of others, as soon as the scheduler knows of any."""

    def known() -> Got | None:
        got = cluster.get(node, url, "--disable-back-to-source")
        assert got.code == 0 or "no peer" in got.refusal
        return got if got.code == 0 else None

    return until(known, "a holder found", PATIENCE / 3)


@pytest.mark.usefixtures("kind")
def test_there_is_none(cluster: Cluster, origin: Origin) -> None:
    """Daemons start without the one they know, and ask the origin."""
    scheduler = cluster.scheduler()
    scheduler.kill()
    node = cluster.daemon("a")
    origin.put("/f", CONTENT)
    assert cluster.get(node, origin.url("/f")).bytes() == CONTENT.read()
    line = cluster.get(node, origin.url("/g"), "--disable-back-to-source").refusal
    assert "no peer is known to have the content" in line


@pytest.mark.usefixtures("kind")
def test_it_comes_later(cluster: Cluster, origin: Origin) -> None:
    """What was held before it came is announced to it."""
    cluster.scheduler().kill()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    cluster.scheduler(port=cluster.scheduler_port)
    origin.pause()
    assert _from_peers(cluster, child, origin.url("/f")).bytes() == CONTENT.read()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(("kind", "number"), ENDS, indirect=["kind"], ids=_name)
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


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(("kind", "number"), ENDS, indirect=["kind"], ids=_name)
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


@pytest.mark.usefixtures("kind")
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


@pytest.mark.usefixtures("kind")
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


@pytest.mark.usefixtures("kind")
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


@pytest.mark.usefixtures("kind")
def test_it_forgets_who_holds_a_part(cluster: Cluster, origin: Origin) -> None:
    """Parts are announced as wholes are; a seed that has one already gives it at once."""
    scheduler = cluster.scheduler()
    seed = cluster.daemon("s", seed=True)
    node = cluster.daemon("a")
    origin.put("/f", CONTENT)
    url = origin.url("/f")
    assert cluster.get(seed, url, "--range", "0-9").code == 0
    scheduler.kill()
    cluster.scheduler(port=cluster.scheduler_port)
    origin.pause()

    def known() -> Got | None:
        got = cluster.get(node, url, "--range", "5-99", "--disable-back-to-source")
        return got if got.code == 0 else None

    got = until(known, "the part found", PATIENCE / 3)
    assert got.bytes() == CONTENT.read(5, 95)
    assert got.result["bytes_from_peers"] == 95


def test_another_takes_over_for_good(cluster: Cluster, origin: Origin) -> None:
    """What belonged to a scheduler that is gone is announced to the one that is left."""
    first = cluster.scheduler()
    one = f"127.0.0.1:{cluster.scheduler_port}"
    second = cluster.scheduler()
    holder = cluster.daemon("a", "--scheduler", one)
    child = cluster.daemon("b", "--scheduler", one)
    for number in range(8):
        origin.put(f"/{number}", Pattern(1000, seed=number))
        assert cluster.get(holder, origin.url(f"/{number}")).code == 0

    def served(program: Program) -> int:
        return sum(event.get("event") == "to the origin" for event in program.events)

    assert served(first) + served(second) == 8
    (first if served(first) >= served(second) else second).kill()
    origin.pause()
    for number in range(8):
        got = _from_peers(cluster, child, origin.url(f"/{number}"))
        assert got.bytes() == Pattern(1000, seed=number).read()


@pytest.mark.usefixtures("kind")
def test_one_that_was_away_hears_what_came_meanwhile(cluster: Cluster, origin: Origin) -> None:
    """It hung while its neighbour was told; when it answers again, it is told, too."""
    first = cluster.scheduler()
    one = f"127.0.0.1:{cluster.scheduler_port}"
    cluster.scheduler()
    holder = cluster.daemon("a", "--scheduler", one)
    child = cluster.daemon("b", "--scheduler", one)
    first.signal(signal.SIGSTOP)
    for number in range(6):
        origin.put(f"/{number}", Pattern(1000, seed=number))
        assert cluster.get(holder, origin.url(f"/{number}")).code == 0
    first.signal(signal.SIGCONT)
    origin.pause()
    for number in range(6):
        got = _from_peers(cluster, child, origin.url(f"/{number}"))
        assert got.bytes() == Pattern(1000, seed=number).read()


def test_deleting_is_not_held_against_the_origin(cluster: Cluster, origin: Origin) -> None:
    """However many nodes delete what they fetch: the others are sent to the origin all the same."""
    scheduler = cluster.scheduler()
    nodes = cluster.daemons(*(f"n{number}" for number in range(6)))
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=MIB))
    begun = {node.socket: cluster.begin(node, origin.url("/f")) for node in nodes}
    deleted: list[Node] = []

    def elected() -> Node | None:
        names = [e["peer"] for e in scheduler.events if e.get("event") == "to the origin"]
        node = next(n for n in nodes if f"-{n.socket.stem}." in names[-1]) if names else None
        return None if node in deleted or node is None or not node.tasks() else node

    for _ in range(5):
        node = until(elected, "one elected")
        node.delete(next(iter(node.tasks())))
        deleted.append(node)
        assert "deleted" in cluster.finish(*begun.pop(node.socket)).refusal
    origin.heal("/f")
    ((_, last),) = begun.items()
    assert cluster.finish(*last).bytes() == CONTENT.read()


@pytest.mark.usefixtures("kind")
def test_it_forgets_who_is_at_the_origin(cluster: Cluster, origin: Origin) -> None:
    """A download under way makes itself known again: nobody else goes there."""
    scheduler = cluster.scheduler()
    seed = cluster.daemon("s", seed=True)
    nodes = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=0.1 * MIB))
    begun = [cluster.begin(nodes[0], origin.url("/f"))]
    until(seed.tasks, "the seed at work")
    scheduler.kill()
    scheduler = cluster.scheduler(port=cluster.scheduler_port)

    def known() -> bool:
        return any(e.get("why") == "the peer asked for it" for e in scheduler.events)

    until(known, "it to be known again")
    begun.append(cluster.begin(nodes[1], origin.url("/f")))
    until(nodes[1].tasks, "the other at work")
    origin.heal("/f")
    origin.release()
    for download in begun:
        assert cluster.finish(*download).bytes() == CONTENT.read()
    assert not any("nobody" in e.get("why", "") for e in scheduler.events)


#: Seconds that whatever restarts a scheduler takes for it.
_AWAY = 2.0


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(("kind", "number"), ENDS, indirect=["kind"], ids=_name)
def test_who_begins_while_it_is_away_waits(
    cluster: Cluster, origin: Origin, number: signal.Signals
) -> None:
    """It is back in a moment: until it knows who holds what, nobody need go to the origin."""
    scheduler = cluster.scheduler()
    holder, *children = cluster.daemons("a", "b", "c", "d")
    origin.put("/f", CONTENT)
    url = origin.url("/f")
    assert cluster.get(holder, url).bytes() == CONTENT.read()
    scheduler.signal(number)
    scheduler.process.wait(30)
    gone = time.monotonic()
    begun = [cluster.begin(child, url) for child in children]
    time.sleep(max(0.0, _AWAY - (time.monotonic() - gone)))  # that is what is played
    cluster.scheduler(port=cluster.scheduler_port)
    for download in begun:
        got = cluster.finish(*download)
        assert got.bytes() == CONTENT.read()
        assert got.result["bytes_from_origin"] == 0
    assert origin.sent("/f") - CONTENT.size < 10  # a byte or two to who asks what it is
