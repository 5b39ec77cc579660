"""What has gone without saying so.

A peer that has finished lives as long as its host: the most wanted tasks are those that
nobody has had to fetch again for long.
"""

from __future__ import annotations

from .entities import AT_WORK, Host, Peer
from .rules import Limits
from .states import PeerState
from .world import World


def sweep_peers(world: World, now: float) -> int:
    """Remove peers that are over, or have stopped in the middle. Returns how many."""
    gone = [peer for peer in world.peers.values() if _is_gone(peer, world.limits, now)]
    for peer in gone:
        world.remove_peer(peer)
    return len(gone)


def sweep_hosts(world: World, now: float) -> list[Host]:
    """Remove hosts that have not announced themselves for too long, and their peers."""
    silent = [host for host in world.hosts.values() if _is_silent(host, world.limits, now)]
    for host in silent:
        world.remove_host(host)
    return silent


def sweep_tasks(world: World, now: float) -> int:
    """Forget tasks that have had no peers for long. Returns how many."""
    gone = [
        task
        for task in world.tasks.values()
        if not task.peers and task.trigger is None and now - task.updated_at > world.limits.task_ttl
    ]
    for task in gone:
        world.remove_task(task)
    return len(gone)


def _is_gone(peer: Peer, limits: Limits, now: float) -> bool:
    if peer.state in (PeerState.FAILED, PeerState.LEAVE):
        return True
    if peer.state is PeerState.SUCCEEDED:
        return peer not in peer.task.holders  # nobody may fetch from it
    if peer.state in AT_WORK:
        return now - peer.piece_at > limits.piece_timeout
    return now - peer.updated_at > limits.peer_ttl


def _is_silent(host: Host, limits: Limits, now: float) -> bool:
    allowed = 2 * limits.interval(host.facts.interval) or limits.host_ttl
    return now - host.updated_at > allowed
