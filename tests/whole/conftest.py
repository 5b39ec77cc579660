"""What tests of whole clusters share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pantala.testing import unharmed as the_end
from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin


@pytest.fixture
def unharmed(cluster: Cluster, origin: Origin) -> Iterator[None]:
    """After the test every daemon that still runs is well, see ``testing.unharmed``."""
    # Small, so that a leak of a few pieces is a leak of much of it.
    cluster.capacity = "16MiB"
    yield
    the_end.check(cluster, origin)
