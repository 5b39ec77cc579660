"""Where a task is: for people, who want to know which hosts hold how much of it."""

from __future__ import annotations

import heapq

from .entities import AT_WORK, Host, Peer, Task
from .states import PeerState


def whereabouts(task: Task, most: int) -> tuple[list[Peer], int]:
    """One peer of each host that has some of *task*, or fetches it.

    Those first that have all that they wanted, then those that fetch, each by their hosts' ids.

    Args:
        task: Which.
        most: Hosts at most.

    Returns:
        Them, and how many hosts there are beside.
    """
    found: dict[Host, Peer] = {}
    for peer in task.peers.values():
        known = found.get(peer.host)
        if _has_some(peer) and (known is None or _place(peer) < _place(known)):
            found[peer.host] = peer
    listed = heapq.nsmallest(most, found.values(), key=_place)
    return listed, len(found) - len(listed)


def _has_some(peer: Peer) -> bool:
    return peer.state is PeerState.SUCCEEDED or peer.state in AT_WORK


def _place(peer: Peer) -> tuple[bool, bool, str]:
    done = peer.state is PeerState.SUCCEEDED
    return not done, peer.range is not None, peer.host.id
