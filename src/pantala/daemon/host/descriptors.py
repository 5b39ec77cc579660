"""Descriptors and mappings that this process may have, and what they are for.

Whatever runs out of them fails: a task that cannot be opened, but also the announcing, the
name look-up, the log. So each use has a part of its own, and none may take another's.
"""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pantala.daemon.serving import handoff_server
from pantala.net import endpoints, piece_server

#: Descriptors that are kept at least for what must always work: listening sockets, gRPC's own,
#: announce streams, name look-ups, logs, files of /proc. A daemon at rest has some forty.
LEAST_RESERVE: Final = 64

#: Connections that a server takes at least, however few descriptors there are.
_LEAST_DOOR: Final = 4

#: Where the system knows no limit it has one all the same: what Linux grants at most by default.
_UNLIMITED: Final = 1 << 20

#: Mappings a process may have where the system does not say: Linux's own default.
_MAPPINGS: Final = 65530


@dataclass(frozen=True, slots=True)
class Descriptors:
    """How the descriptors of this process are shared out.

    Attributes:
        tasks: For tasks in memory, one each.
        connections: For connections that others open to us, on all sockets together: the
            piece server's, the hand-off's, gRPC's and those of metrics and health.
        reserve: For everything else: what we open ourselves to live at all.
        mappings: Mappings for tasks in memory. Not descriptors, but scarce in the same way.
    """

    tasks: int
    connections: int
    reserve: int
    mappings: int


@dataclass(frozen=True, slots=True)
class Doors:
    """How many connections each server takes, so that none of them takes another's.

    Attributes:
        pieces: The piece server.
        handoff: The hand-off socket.
        peers: gRPC from other machines.
        programs: gRPC from this one.
        page: Metrics and health, each.
    """

    pieces: int
    handoff: int
    peers: int
    programs: int
    page: int


def doors(connections: int) -> Doors:
    """Share out *connections*. What many descriptors allow has limits all the same: memory."""

    def part(sixteenths: float, most: int) -> int:
        return max(_LEAST_DOOR, min(most, int(connections * sixteenths / 16)))

    return Doors(
        pieces=part(6, piece_server.MAX_CONNECTIONS),
        handoff=part(4, handoff_server.MAX_CONNECTIONS),
        peers=part(4, 8192),  # a stream each, and the channel of a scheduler
        programs=part(1, 1024),
        page=part(0.5, endpoints.MAX_CONNECTIONS),
    )


def share_out(limit: int, mappings: int = _MAPPINGS) -> Descriptors:
    """Share out *limit* descriptors: about a half to tasks, three eighths to connections.

    Args:
        limit: The soft RLIMIT_NOFILE; below 0 means none.
        mappings: What vm.max_map_count says. A half of them is for tasks; threads, the
            interpreter and its libraries need some as well.
    """
    if limit < 0 or limit > _UNLIMITED:
        limit = _UNLIMITED
    reserve = max(LEAST_RESERVE, limit // 8)
    rest = max(0, limit - reserve)
    connections = rest * 3 // 7
    return Descriptors(rest - connections, connections, reserve, mappings // 2)


def descriptors() -> Descriptors:
    """The shares in this process, as its limits are now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    mappings = _MAPPINGS
    with contextlib.suppress(OSError, ValueError):  # no Linux
        mappings = int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii"))
    return share_out(soft, mappings)
