"""What tests of whole clusters share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pantala.model.task import Kind
from pantala.testing import unharmed as the_end
from pantala.testing.announce import Swarm
from pantala.testing.cluster import Cluster, Program
from pantala.testing.origin import Origin


@pytest.fixture(params=[Kind.STANDARD, Kind.CACHE], ids=lambda kind: kind.name.lower())
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The kind of task that a test is about, each in turn.

    It is what dfget downloads, and what peers which are played by hand speak of.
    """
    found: Kind = request.param
    monkeypatch.setattr(Swarm, "kind", found)
    monkeypatch.setattr(Cluster, "kind", found)
    return found


@pytest.fixture
def scheduler(cluster: Cluster) -> Program:
    """That of all daemons of the test."""
    return cluster.scheduler()


@pytest.fixture
def unharmed(cluster: Cluster, origin: Origin) -> Iterator[None]:
    """After the test every daemon that still runs is well, see ``testing.unharmed``.

    Where a test has a kind, too, that is named first, so that it is there until the end.
    """
    # Small, so that a leak of a few pieces is a leak of much of it.
    cluster.capacity = "16MiB"
    yield
    the_end.check(cluster, origin)
