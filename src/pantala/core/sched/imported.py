"""Imported tasks in the world: what the rows say of them, for as long as somebody asks.

What is imported is written down (:mod:`.records`) and outlives every scheduler; several of them may
share the rows. So the world is no more than a copy of these: a task comes into it when a peer wants
it, each peer that has a copy becomes a parent, and what is no longer written goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from pantala.core.fsm import Machine
from pantala.model.announce import Registration
from pantala.model.task import DownloadRequest

from .entities import Peer, TaskKey
from .records import PeerRow, TaskRow
from .shape import Shape
from .states import PeerEvent, PeerState
from .world import World


def place(world: World, row: TaskRow, rows: Iterable[PeerRow], read_at: float, now: float) -> None:
    """An imported task that is whole is as its rows say: who has a copy, can be a parent.

    Copies whose rows are gone are gone, too, and those whose host is not here are not taken in.

    Args:
        world: Where.
        row: The task.
        rows: Of its peers.
        read_at: When the rows were asked for; what has happened since is not in them.
        now: When.
    """
    task = world.tasks.get(row.key)
    if task is None:
        task = world.add_task(_recorded(row, "", ""), now)
        task.machine = Machine(f"task {row.id}", task.rules.tasks, row.state)
    task.shape, task.updated_at = Shape(row.content_length, row.piece_length), now
    known = {each.id: each for each in rows}
    for peer in list(task.peers.values()):
        over = peer.state is PeerState.SUCCEEDED and peer.updated_at < read_at
        if over and peer.id not in known:
            world.remove_peer(peer)
    for each in known.values():
        host = world.hosts.get(each.host_id)
        if host is not None and each.state is PeerState.SUCCEEDED and each.id not in task.peers:
            peer = world.add_peer(host, task, _recorded(row, each.host_id, each.id), "", now)
            peer.machine.fire(PeerEvent.REGISTER_NORMAL)
            world.move(peer, PeerEvent.SUCCEED, now)


def fail_holder(world: World, peer: Peer, now: float) -> None:
    """A peer that had content has it no more."""
    if peer.state is PeerState.SUCCEEDED:
        world.move(peer, PeerEvent.FAIL, now)


def forget(world: World, key: TaskKey) -> None:
    """An imported task is over, and so are its peers."""
    task = world.tasks.get(key)
    if task is not None:
        for peer in list(task.peers.values()):
            world.remove_peer(peer)


def _recorded(row: TaskRow, host_id: str, peer_id: str) -> Registration:
    """What a peer would say that registers for a task that is known by its row."""
    wanted = DownloadRequest(kind=row.kind, url="", tag=row.tag, application=row.application)
    return Registration(host_id=host_id, task_id=row.id, peer_id=peer_id, request=wanted)
