"""Parents that exchange lie, and offer what they do not give; their children go elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pantala.model.ids import task_id
from pantala.testing import bad_parent as bad
from pantala.testing import bad_talks as talks
from pantala.testing import unharmed
from pantala.testing.bad_parent import BadParent, Conduct, Talk
from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

MIB = 1 << 20
CONTENT = Pattern(40 * MIB + 77, seed=1)

#: A child that gives up soon, so that a test need not wait for Dragonfly's patience.
IMPATIENT = {
    "download": {
        "pieceTimeout": "2s",
        "pieceStallTimeout": "700ms",
        "collectedPieceTimeout": "2s",
    }
}


@pytest.fixture(scope="module")
def programs() -> Iterator[tuple[Cluster, Origin]]:
    """A scheduler and two impatient daemons, which all tests share."""
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as directory,
        Origin() as origin,
        Cluster(Path(directory), forks=True) as cluster,
    ):
        cluster.scheduler()
        cluster.daemons("a", "b", config=IMPATIENT)
        yield cluster, origin
        unharmed.check(cluster, origin)


@pytest.mark.parametrize(
    ("talk", "conduct"),
    [
        (talks.offer_again, bad.deny),
        (talks.offer_again, bad.say_nothing),
        (talks.offer_again, bad.corrupt),
        (talks.flood, bad.deny),
        (talks.flood, bad.stall),
        (talks.offer_one, bad.honest),
        (talks.offer_one, bad.deny),
        (talks.offer_beyond, bad.honest),
    ],
)
def test_a_bad_parent(programs: tuple[Cluster, Origin], talk: Talk, conduct: Conduct) -> None:
    """Who has no other gets everything in the end; who has another does so from there."""
    cluster, origin = programs
    first, second = cluster.nodes
    name = f"{talk.__name__}-{conduct.__name__}"
    url = origin.url(f"/{name}")
    origin.put(f"/{name}", CONTENT)
    parent = BadParent(
        cluster.scheduler_port,
        task_id(cluster.kind, url),
        CONTENT.read(),
        conduct=conduct,
        talk=talk,
        url=url,
        name=name,
    )
    with parent:
        assert cluster.get(first, url).bytes() == CONTENT.read()
        got = cluster.get(second, url)
        assert got.bytes() == CONTENT.read()
        assert got.result["bytes_from_origin"] <= CONTENT.size // 2
    unharmed.look(cluster, origin)
