"""What a piece must be is the word of who read the origin, not that of who gives it away."""

from __future__ import annotations

import pytest

from pantala.model.ids import task_id
from pantala.testing.bad_parent import BadParent
from pantala.testing.cluster import Cluster, Node, Program, until
from pantala.testing.origin import Fault, Origin, Pattern
from pantala.testing.stage import MIB

pytestmark = pytest.mark.usefixtures("kind", "unharmed")

CONTENT = Pattern(13 * MIB + 12345, 7)
#: As long, and consistent in itself.
OTHER = Pattern(13 * MIB + 12345, 8)


@pytest.fixture
def nodes(cluster: Cluster, scheduler: Program) -> list[Node]:
    """Three daemons at it."""
    assert scheduler.ready
    cluster.capacity = "64MiB"
    return cluster.daemons("a", "b", "c")


@pytest.fixture
def url(origin: Origin) -> str:
    """Where the content is, by a name that it keeps when it changes."""
    origin.put("/f", CONTENT, headers={"ETag": '"always"'})
    return origin.url("/f")


def liar(cluster: Cluster, url: str, offers: int | None = None) -> BadParent:
    """Holds all of the other content, by the name of this one, with the digests that it has."""
    task = task_id(cluster.kind, url)
    return BadParent(
        cluster.scheduler_port, task, OTHER.read(), url=url, kind=cluster.kind, offers=offers
    )


def test_a_parent_that_lies(cluster: Cluster, nodes: list[Node], url: str) -> None:
    """Nothing of it is taken, though it is what the parent says that it is."""
    reader, child, last = nodes
    assert cluster.get(reader, url).bytes() == CONTENT.read()
    with liar(cluster, url) as parent:
        assert reader.stop() == 0  # so that there is nobody else
        got = cluster.get(child, url)
        assert got.bytes() == CONTENT.read()
        assert parent.asked
        assert "begun anew" not in child.log  # nothing wrong was ever here
        assert "digest mismatch of piece" in child.log
        # Whoever has read it since, and whoever has it of him, has the same.
        assert cluster.get(last, url).bytes() == CONTENT.read()


def test_a_lie_that_comes_before_the_truth(
    cluster: Cluster, origin: Origin, nodes: list[Node], url: str
) -> None:
    """A piece that nobody has read yet is taken from whoever has it; later it is found out."""
    reader, child, _ = nodes
    origin.fault("/f", Fault(stall_after=MIB // 2))
    reading = cluster.begin(reader, url)
    until(lambda: origin.sent("/f") >= MIB // 2 or None, "the reader is at the origin")
    with liar(cluster, url, offers=1) as parent:
        fetching = cluster.begin(child, url)
        until(lambda: parent.asked or None, "the lie is fetched")
        origin.release()
        assert cluster.finish(*reading).bytes() == CONTENT.read()
        assert cluster.finish(*fetching).bytes() == CONTENT.read()
        assert "is not what the origin gave" in child.log


def test_two_contents_by_one_name(
    cluster: Cluster, origin: Origin, nodes: list[Node], url: str
) -> None:
    """The origin changes, and says that it has not: no content is made of both."""
    reader, child, _ = nodes
    assert cluster.get(reader, url).bytes() == CONTENT.read()
    part = ("--range", f"0-{4 * MIB - 1}")
    assert cluster.get(child, url, *part).bytes() == CONTENT.read()[: 4 * MIB]
    origin.put("/f", OTHER, headers={"ETag": '"always"'})
    assert reader.stop() == 0
    assert cluster.get(child, url).bytes() == OTHER.read()
    assert "is not the one that others have read" in child.log


def test_a_scheduler_that_starts_anew(
    cluster: Cluster, origin: Origin, nodes: list[Node], scheduler: Program, url: str
) -> None:
    """What it has forgotten nobody waits for."""
    origin.fault("/f", Fault(rate=8 * MIB))
    downloads = [cluster.begin(node, url) for node in nodes]
    until(lambda: origin.sent("/f") >= 5 * MIB or None, "some of it is here")
    port = cluster.scheduler_port
    scheduler.kill()
    cluster.scheduler(port=port)
    assert all(cluster.finish(*each).bytes() == CONTENT.read() for each in downloads)
