"""How descriptors are shared out."""

from __future__ import annotations

import resource

import pytest

from pantala.daemon.host.descriptors import (
    LEAST_RESERVE,
    Descriptors,
    Doors,
    descriptors,
    doors,
    share_out,
)


def test_a_thousand_descriptors() -> None:
    """Half for tasks, three eighths for connections, the rest in reserve."""
    assert share_out(1024) == Descriptors(tasks=512, connections=384, reserve=128, mappings=32765)


@pytest.mark.parametrize("limit", [0, 10, 64, 65, 100, 256, 300, 1024, 4096, 1 << 20])
def test_parts_never_exceed_the_whole(limit: int) -> None:
    """The reserve comes first; what is beyond it is shared."""
    parts = share_out(limit)
    assert parts.reserve >= LEAST_RESERVE
    assert min(parts.tasks, parts.connections) >= 0
    assert parts.tasks + parts.connections <= max(0, limit - parts.reserve)


def test_doors() -> None:
    """All together they fit into what connections may have, and none is shut."""
    assert doors(384) == Doors(pieces=144, handoff=96, peers=96, programs=24, page=12)
    assert doors(0) == Doors(4, 4, 4, 4, 4)
    for connections in (128, 384, 1000, 1 << 19):
        parts = doors(connections)
        taken = parts.pieces + parts.handoff + parts.peers + parts.programs + 2 * parts.page
        assert taken <= connections


def test_no_limit() -> None:
    """It is taken for a million; mappings are limited all the same."""
    assert share_out(-1, mappings=1000) == share_out(1 << 20, mappings=1000)
    assert share_out(-1, mappings=1000).mappings == 500


def test_the_limits_of_this_process() -> None:
    """They are read, not guessed."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    parts = descriptors()
    assert parts.connections == share_out(soft).connections
    assert (parts.tasks, parts.mappings > 0) == (share_out(soft).tasks, True)
