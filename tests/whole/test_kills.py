"""Programs that are killed in the midst of their work. ``bench/kills.py`` does it more often."""

from __future__ import annotations

from pantala.testing.cluster import Cluster
from pantala.testing.kills import Kills
from pantala.testing.origin import Origin


def test_killed_again_and_again(cluster: Cluster, origin: Origin) -> None:
    """What it said to be finished is there when it is back, and right; nothing else is left."""
    kills = Kills(cluster, origin, rounds=3, files=3, slots=2, seed=7)
    assert kills.run() == []
    assert kills.done["kills"] >= 3
    assert kills.done["imports"] > 0
    assert kills.done["exports"] > 0
    assert kills.done["pieces looked at"] > 0
