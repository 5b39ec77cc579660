"""Parents that stop in the middle: nobody waits for them who has another way.

That nobody did shows in the child's log: no fetch ended because its parent was given up, which
takes half a minute by default.
"""

from __future__ import annotations

import signal
import urllib.request

import pytest

from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.testing import bad_parent as bad
from pantala.testing.bad_parent import BadParent, Conduct
from pantala.testing.cluster import Cluster, Node, until
from pantala.testing.origin import Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(48 * MIB, seed=3)

#: Slow enough to be in the middle of something.
SLOW = {"upload": {"bandwidthLimit": "16MiB"}}


def _given_up(child: Node) -> list[str]:
    """Why fetches ended that brought nothing."""
    return [str(line.get("why")) for line in child.events if line.get("event") == "piece lost"]


def _pieces(node: Node) -> int:
    """So many are here."""
    return sum(task.finished_piece_count for task in node.tasks().values())


def _metric(node: Node, name: str) -> int:
    """What a daemon tells of itself."""
    url = f"http://127.0.0.1:{node.ports['metrics']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = f"dragonfly_client_{name} "
    return int(float(next(line.split()[1] for line in lines if line.startswith(name))))


def _in_vain(child: Node) -> int:
    """Bytes that came a second time."""
    return _metric(child, "received_in_vain_bytes_total")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    ("kind", "alone"),
    [
        pytest.param(Kind.CACHE, False, id="another has it"),
        pytest.param(Kind.CACHE, True, id="the only one"),
        pytest.param(Kind.STANDARD, True, id="the only one of a file"),
    ],
    indirect=["kind"],
)
def test_a_parent_stops_in_the_middle(cluster: Cluster, origin: Origin, *, alone: bool) -> None:
    """Another brings what is missing, or the origin does, with the scheduler's word."""
    cluster.capacity = "48MiB"
    cluster.scheduler()
    names = ("a",) if alone else ("a", "b")
    parents = [cluster.daemon(name, config=SLOW) for name in names]
    child = cluster.daemon("c")
    origin.put("/f", CONTENT)
    for parent in parents:
        assert cluster.get(parent, origin.url("/f")).bytes() == CONTENT.read()
    download = cluster.begin(child, origin.url("/f"))
    until(lambda: _pieces(child) > 1, "some are here")
    parents[0].signal(signal.SIGSTOP)
    got = cluster.finish(*download)
    lost = _given_up(child)
    parents[0].signal(signal.SIGCONT)
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_peers"]
    assert bool(got.result["bytes_from_origin"]) == alone
    assert not lost
    again = cluster.get(child, origin.url("/f"), "--digest", f"sha256:{CONTENT.digest()}")
    assert again.result["bytes_from_cache"] == CONTENT.size


def test_one_of_those_who_exchange_stops_while_it_gives(cluster: Cluster, origin: Origin) -> None:
    """The rest were told that its pieces come from it; now they are told that they do not."""
    cluster.capacity = "48MiB"
    cluster.scheduler()
    whole = cluster.daemon("a", config={"upload": {"bandwidthLimit": "4MiB"}})
    # It takes so slowly that it is not through when the other comes; and gives slowly.
    slow = {"download": {"bandwidthLimit": "3MiB"}, "upload": {"bandwidthLimit": "1MiB"}}
    stopping = cluster.daemon("b", config=slow)
    child = cluster.daemon("c")
    content = Pattern(32 * MIB, seed=5)
    origin.put("/f", content)
    assert cluster.get(whole, origin.url("/f")).bytes() == content.read()
    first = cluster.begin(stopping, origin.url("/f"))
    until(lambda: _pieces(stopping) > 1, "the first has some")
    # These the second lacks, and the one that has all gives first what both lack.
    second = cluster.begin(child, origin.url("/f"))
    until(lambda: _metric(stopping, "concurrent_upload_piece_total"), "one gives to the other")
    stopping.signal(signal.SIGSTOP)
    got = cluster.finish(*second)
    lost = _given_up(child)
    stopping.signal(signal.SIGCONT)
    assert got.bytes() == content.read()
    assert got.result["bytes_from_peers"] == content.size
    assert not lost
    assert cluster.finish(*first).bytes() == content.read()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    ("kind", "conduct"),
    [
        pytest.param(Kind.CACHE, bad.stall, id="stall"),
        pytest.param(Kind.CACHE, bad.say_nothing, id="say nothing"),
        pytest.param(Kind.CACHE, bad.trickle, id="trickle"),
        # What comes late is late for another place: that of a file.
        pytest.param(Kind.STANDARD, bad.stall, id="stall of a file"),
    ],
    indirect=["kind"],
)
def test_one_of_two_brings_nothing(cluster: Cluster, origin: Origin, conduct: Conduct) -> None:
    """The other brings all. What comes late, and wrong, changes nothing."""
    cluster.capacity = "48MiB"
    cluster.scheduler()
    parent = cluster.daemon("a", config=SLOW)
    # So few at once that most pieces are asked for when both parents have said what they have.
    child = cluster.daemon("c", config={"download": {"concurrentPieceCount": 3}})
    origin.put("/f", CONTENT)
    assert cluster.get(parent, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    url, task = origin.url("/f"), task_id(cluster.kind, origin.url("/f"))
    worse = BadParent(
        cluster.scheduler_port,
        task,
        CONTENT.read(),
        conduct=conduct,
        url=url,
        name="worse",
        kind=cluster.kind,
    )
    with worse:
        got = cluster.get(child, url)
        assert worse.asked
        assert not _given_up(child)
        worse.released.set()
    assert got.bytes() == CONTENT.read()
    assert got.result["bytes_from_peers"] == CONTENT.size
    again = cluster.get(child, url, "--digest", f"sha256:{CONTENT.digest()}")
    assert again.result["bytes_from_cache"] == CONTENT.size
    assert _in_vain(child) <= 8 * 4 * MIB


def test_a_slow_parent_is_not_taken_for_a_stopped_one(cluster: Cluster, origin: Origin) -> None:
    """Bytes that come are progress: neither the origin nor anybody else is asked as well."""
    cluster.capacity = "48MiB"
    cluster.scheduler()
    parent = cluster.daemon("a", config={"upload": {"bandwidthLimit": "4MiB"}})
    child = cluster.daemon("c")
    content = Pattern(24 * MIB, seed=4)
    origin.put("/f", content)
    assert cluster.get(parent, origin.url("/f")).bytes() == content.read()
    before = origin.count()
    got = cluster.get(child, origin.url("/f"))
    assert got.bytes() == content.read()
    assert got.result["bytes_from_peers"] == content.size
    assert origin.count() == before
    assert _in_vain(child) == 0
