"""What has gone without saying so.

A peer that has finished lives as long as its host: the most wanted tasks are those that
nobody has had to fetch again for long.

What it costs to look grows with what has gone, not with what is there: see :mod:`.ages`.
"""

from __future__ import annotations

from .entities import AT_WORK, Host, Peer
from .rules import Limits
from .world import World


def sweep_peers(world: World, now: float) -> int:
    """Remove peers that are over, or have stopped in the middle. Returns how many."""
    ages = world.ages
    gone = list(ages.useless)
    for peer in ages.peers.due(now):
        if _has_stopped(peer, world.limits, now):
            gone.append(peer)
        else:
            ages.peer(peer)
    for peer in gone:
        world.remove_peer(peer)
    return len(gone)


def sweep_hosts(world: World, now: float) -> list[Host]:
    """Remove hosts that have not announced themselves for too long, and their peers."""
    ages = world.ages
    silent: list[Host] = []
    for host in ages.hosts.due(now):
        if now - host.updated_at > ages.silence(host):
            silent.append(host)
        else:
            ages.host(host)
    for host in silent:
        world.remove_host(host)
    return silent


def sweep_tasks(world: World, now: float) -> int:
    """Forget tasks that have had no peers for long. Returns how many."""
    gone = 0
    for task in world.ages.tasks.due(now):
        is_old = now - task.updated_at > world.limits.task_ttl
        if task.peers or task.trigger is not None:
            continue  # when that is over, the world says so
        if is_old:
            world.remove_task(task)
            gone += 1
        else:
            world.ages.task(task)
    return gone


def _has_stopped(peer: Peer, limits: Limits, now: float) -> bool:
    """Whether *peer*, which neither has finished nor failed, does nothing any more."""
    if peer.state in AT_WORK:
        return now - peer.piece_at > limits.piece_timeout
    return now - peer.updated_at > limits.peer_ttl
