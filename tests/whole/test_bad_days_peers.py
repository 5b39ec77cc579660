"""Parents lie, stall, crawl and die; their children go elsewhere and never keep a wrong byte."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.testing import bad_parent as bad
from pantala.testing import unharmed
from pantala.testing.bad_parent import BadParent, Conduct
from pantala.testing.cluster import Cluster, Got, until
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)

#: A child that gives up soon, so that a test need not wait for Dragonfly's patience.
IMPATIENT = {
    "download": {
        "pieceTimeout": "2s",
        "pieceStallTimeout": "700ms",
        "collectedPieceTimeout": "2s",
    }
}

#: One that fetches piece after piece, so that there is a middle in which something can happen.
SLOW = {"download": {"concurrentPieceCount": 1}}

#: Each for one kind; what is wrong with bytes that lie somewhere already is for both.
CONDUCTS = [
    bad.corrupt,
    bad.cut,
    bad.stall,
    bad.trickle,
    bad.trickle_head,
    bad.say_nothing,
    bad.babble,
    bad.half_a_frame,
    bad.another_piece,
    bad.longer_piece,
    bad.deny,
]
CASES = [(Kind.CACHE, conduct) for conduct in CONDUCTS]
CASES += [(Kind.STANDARD, conduct) for conduct in (bad.corrupt, bad.cut, bad.stall)]


def _name(value: Kind | signal.Signals) -> str:
    """For the id of a test."""
    return value.name.lower()


def _parent(cluster: Cluster, url: str, conduct: Conduct = bad.honest, **terms: Any) -> BadParent:
    """A peer whose host is named for what it does."""
    return BadParent(
        cluster.scheduler_port,
        task_id(cluster.kind, url),
        CONTENT.read(),
        conduct=conduct,
        url=url,
        name=conduct.__name__,
        kind=cluster.kind,
        **terms,
    )


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Origin]]:
    """A scheduler and two impatient daemons, which tests of one conduct each share."""
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as directory,
        Origin() as origin,
        Cluster(Path(directory), forks=True) as cluster,
    ):
        cluster.kind = request.param
        cluster.capacity = "16MiB"
        cluster.scheduler()
        cluster.daemons("a", "b", config=IMPATIENT)
        yield cluster, origin
        unharmed.check(cluster, origin)


@pytest.mark.parametrize(
    ("programs", "conduct"),
    [
        pytest.param(kind, conduct, id=f"{kind.name.lower()}-{conduct.__name__}")
        for kind, conduct in CASES
    ],
    indirect=["programs"],
)
def test_a_bad_parent(programs: tuple[Cluster, Origin], conduct: Conduct) -> None:
    """Who has no other goes to the origin; who has goes there. Nobody notices a thing."""
    cluster, origin = programs
    first, second = cluster.nodes
    origin.resume()
    url = origin.url(f"/{conduct.__name__}")
    origin.put(f"/{conduct.__name__}", CONTENT)
    with _parent(cluster, url, conduct) as parent:
        got = cluster.get(first, url)
        assert got.bytes() == CONTENT.read()
        assert got.result["bytes_from_origin"] == CONTENT.size
        assert parent.asked
        origin.pause()
        got = cluster.get(second, url)
        assert got.bytes() == CONTENT.read()
        assert got.result["bytes_from_peers"] == CONTENT.size
        assert second.tasks()[got.result["task_id"]].reserved_bytes == CONTENT.size
    unharmed.look(cluster, origin)


@pytest.mark.usefixtures("kind")
def test_only_a_bad_parent(cluster: Cluster, origin: Origin) -> None:
    """The user reads that nobody else has it, and nothing of what it sent is kept."""
    cluster.scheduler()
    child = cluster.daemon("a", config=IMPATIENT)
    with _parent(cluster, origin.url("/f"), bad.corrupt) as parent:
        refusal = cluster.get(child, origin.url("/f"), "--disable-back-to-source").refusal
        assert "no peer" in refusal
        assert parent.asked
        assert not origin.count()
        assert not child.tasks()


@pytest.mark.usefixtures("kind")
def test_a_late_answer(cluster: Cluster, origin: Origin) -> None:
    """What a stalled parent sends after it was given up changes nothing."""
    cluster.scheduler()
    child = cluster.daemon("a", config=IMPATIENT)
    origin.put("/f", CONTENT)
    with _parent(cluster, origin.url("/f"), bad.stall) as parent:
        got = cluster.get(child, origin.url("/f"))
        parent.released.set()
        assert got.bytes() == CONTENT.read()
        assert parent.asked
    again = cluster.get(child, origin.url("/f"), "--digest", f"sha256:{CONTENT.digest()}")
    assert again.bytes() == CONTENT.read()
    assert again.result["bytes_from_cache"] == CONTENT.size


def test_a_parent_that_goes_quiet(cluster: Cluster, origin: Origin) -> None:
    """It offers one piece and then nothing more, without hanging up."""
    cluster.scheduler()
    child = cluster.daemon("a", config=IMPATIENT)
    origin.put("/f", CONTENT)
    with _parent(cluster, origin.url("/f"), offers=1) as parent:
        got = cluster.get(child, origin.url("/f"))
        assert got.bytes() == CONTENT.read()
        assert parent.asked == [0]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (Kind.CACHE, signal.SIGKILL),
        (Kind.CACHE, signal.SIGSTOP),
        (Kind.CACHE, signal.SIGTERM),
        (Kind.STANDARD, signal.SIGKILL),
    ],
    indirect=["kind"],
    ids=_name,
)
def test_a_parent_dies(cluster: Cluster, origin: Origin, number: signal.Signals) -> None:
    """Killed, stopped or ended in the middle: what is missing comes from the origin."""
    cluster.scheduler()
    parent = cluster.daemon("a", config={"upload": {"bandwidthLimit": "4MiB"}})
    child = cluster.daemon("b", config={"download": IMPATIENT["download"] | SLOW["download"]})
    origin.put("/f", CONTENT)
    assert cluster.get(parent, origin.url("/f")).bytes() == CONTENT.read()
    download = cluster.begin(child, origin.url("/f"))
    until(lambda: sum(t.finished_piece_count for t in child.tasks().values()), "a piece here")
    parent.signal(number)
    got = cluster.finish(*download)
    parent.signal(signal.SIGCONT)
    if number is signal.SIGTERM:
        assert parent.process.wait(30) == 0
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_peers"]


def test_a_stopped_parent(cluster: Cluster, origin: Origin) -> None:
    """A parent that hangs from the start is found out, by default settings too."""
    cluster.scheduler()
    parent, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(parent, origin.url("/f")).bytes() == CONTENT.read()
    parent.signal(signal.SIGSTOP)
    got = cluster.get(child, origin.url("/f"))
    parent.signal(signal.SIGCONT)
    assert got.bytes() == CONTENT.read()


def test_a_seed_dies(cluster: Cluster, origin: Origin) -> None:
    """Three nodes wait for what the seed fetches; one takes its place, and all get it."""
    cluster.scheduler()
    seed = cluster.daemon("s", seed=True)
    nodes = cluster.daemons("a", "b", "c", config=IMPATIENT)
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=4 * MIB))
    begun = [cluster.begin(node, origin.url("/f")) for node in nodes]
    until(seed.tasks, "the seed at work")
    until(lambda: origin.sent("/f") > 2 * MIB, "some of it sent")
    seed.kill()
    for download in begun:
        assert cluster.finish(*download).bytes() == CONTENT.read()
    assert origin.sent("/f") < 3 * CONTENT.size


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("alive", [True, False], ids=["origin", "no origin"])
def test_a_holder_of_a_part(cluster: Cluster, origin: Origin, *, alive: bool) -> None:
    """The rest comes from the origin, or a line says that it does not."""
    cluster.scheduler()
    holder, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    part = cluster.get(holder, origin.url("/f"), "--range", f"0-{4 * MIB - 1}")
    assert part.bytes() == CONTENT.read(0, 4 * MIB)
    if alive:
        got = cluster.get(child, origin.url("/f"))
        assert got.bytes() == CONTENT.read()
        assert got.result["bytes_from_peers"] == 4 * MIB
    else:
        origin.pause()
        assert "connection refused" in cluster.get(child, origin.url("/f")).refusal
        got = cluster.get(child, origin.url("/f"), "--range", "5-99")
        assert got.bytes() == CONTENT.read(5, 95)


@pytest.mark.usefixtures("kind")
def test_nobody_has_it(cluster: Cluster, origin: Origin) -> None:
    """Without the origin's help: one line, and the origin hears nothing."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/f", CONTENT)
    line = cluster.get(node, origin.url("/f"), "--disable-back-to-source").refusal
    assert "no peer is known to have the content" in line
    assert not origin.count()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("alive", [True, False], ids=["origin", "no origin"])
def test_the_parent_deletes_it(cluster: Cluster, origin: Origin, *, alive: bool) -> None:
    """A task is deleted at its holder while a child fetches it from there."""
    cluster.scheduler()
    holder = cluster.daemon("a", config={"upload": {"bandwidthLimit": "4MiB"}})
    child = cluster.daemon("b", config=SLOW)
    origin.put("/f", CONTENT)
    task = cluster.get(holder, origin.url("/f")).result["task_id"]
    if not alive:
        origin.pause()
    download = cluster.begin(child, origin.url("/f"))
    until(lambda: task in child.tasks() and child.tasks()[task].finished_piece_count, "a piece")
    holder.delete(task)
    got = cluster.finish(*download)
    if alive:
        assert got.bytes() == CONTENT.read()
    else:
        assert "connection refused" in got.refusal
    assert task not in holder.tasks()


@pytest.mark.usefixtures("kind")
def test_the_parent_evicts_it(cluster: Cluster, origin: Origin) -> None:
    """The holder needs the room while a child fetches from there: both get what they want."""
    cluster.scheduler()
    config = {"upload": {"bandwidthLimit": "4MiB"}}
    holder, child = cluster.daemon("a", config=config), cluster.daemon("b", config=SLOW)
    other = Pattern(12 * MIB, seed=5)
    origin.put("/f", CONTENT)
    origin.put("/g", other)
    task = cluster.get(holder, origin.url("/f")).result["task_id"]
    download = cluster.begin(child, origin.url("/f"))
    until(lambda: task in child.tasks() and child.tasks()[task].finished_piece_count, "a piece")

    def fits() -> Got | None:
        got = cluster.get(holder, origin.url("/g"))
        # While the child is being served, the task is in use and stays.
        assert got.code == 0 or "no room in memory" in got.refusal
        return got if got.code == 0 else None

    assert until(fits, "room for another task").bytes() == other.read()
    assert cluster.finish(*download).bytes() == CONTENT.read()
    assert task not in holder.tasks()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    ("kind", "number"),
    [(Kind.CACHE, signal.SIGKILL), (Kind.CACHE, signal.SIGSTOP), (Kind.STANDARD, signal.SIGKILL)],
    indirect=["kind"],
    ids=_name,
)
def test_a_child_dies(cluster: Cluster, origin: Origin, number: signal.Signals) -> None:
    """Killed or stopped while it is served: its parent serves the next, and keeps no lease."""
    cluster.scheduler()
    # Patient enough for a parent that serves two at this pace.
    patient = {"pieceStallTimeout": "4s", "collectedPieceTimeout": "4s"}
    config = {"upload": {"bandwidthLimit": "8MiB"}, "download": IMPATIENT["download"]}
    parent = cluster.daemon("a", config=config)
    children = cluster.daemons("b", "c", config={"download": patient})
    origin.put("/f", CONTENT)
    assert cluster.get(parent, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    downloads = [cluster.begin(child, origin.url("/f")) for child in children]
    until(lambda: children[0].store()["leased"] and parent.store()["leased"], "both at work")
    children[0].signal(number)
    assert cluster.finish(*downloads[1]).bytes() == CONTENT.read()
    until(lambda: not parent.store()["leased"], "its leases ended")
    origin.resume()  # who slept for so long that all have hung up on it may go there
    children[0].signal(signal.SIGCONT)
    lost = cluster.finish(*downloads[0])
    if number is signal.SIGKILL:
        assert "closed the connection too early" in lost.refusal
    else:
        assert lost.bytes() == CONTENT.read()
