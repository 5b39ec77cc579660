"""A quarter of a minute of what ``bench/soak.py`` does for ten."""

from __future__ import annotations

import pytest

from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin
from pantala.testing.soak import Soak


@pytest.mark.timeout(400)
def test_background_work_that_fails_at_random_harms_nobody(
    cluster: Cluster, origin: Origin
) -> None:
    """No loop ends or stands still, no node is forgotten, no download fails, memory stays flat."""
    soak = Soak(cluster, origin, seconds=15.0, seed=1)
    wrong = soak.run()

    assert wrong == []
    assert soak.done["downloads"] > 40
    assert soak.done["dfget"] > 3
    assert soak.done["faults survived"] > 50
