"""A daemon that is killed in the midst of its work. ``bench/kills.py`` does it more often."""

from __future__ import annotations

from pantala.model.task import Kind
from pantala.testing.cluster import Cluster
from pantala.testing.kills import Kills
from pantala.testing.origin import Origin


def test_killed_again_and_again(cluster: Cluster, origin: Origin) -> None:
    """What it said to be finished is there when it is back, and right; nothing else is left."""
    kills = Kills(cluster, origin, kind=Kind.STANDARD, rounds=4, contents=3, seed=7)
    assert kills.run() == []
    assert kills.done["kills"] >= 4
    assert kills.done["pieces looked at"] > 0
