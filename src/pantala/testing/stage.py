"""A scheduler's world with a clock that only moves when told, and short words for events."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import fields
from random import Random
from typing import Any, Final

from pantala.core.sched.centres import ENOUGH, is_way_out
from pantala.core.sched.choose import Decision, Parents, ToSource, decide
from pantala.core.sched.entities import Caller, Host, Peer, Task
from pantala.core.sched.room import HOST, PEER
from pantala.core.sched.rules import RULES, Limits, Rules
from pantala.core.sched.states import PeerState, TaskState
from pantala.core.sched.world import World
from pantala.model.announce import HostFacts, Registration
from pantala.model.task import DownloadRequest, Kind

MIB = 1024 * 1024

_WISHED: Final = {each.name for each in fields(DownloadRequest)} - {"piece_length"}


def task_id(name: str) -> str:
    """The id of a task that a test calls *name*."""
    return hashlib.sha256(name.encode()).hexdigest()


class Stage:
    """A world at a time of its own.

    Attributes:
        kind: Of those tasks whose kind is not said.
        changed: Tasks whose waiters were woken, in order.
        orphans: Peers that lost their last parent, in order.
        news: Peers that got a partner of which they had not heard, in order.
    """

    kind = Kind.CACHE

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        seed: int = 0,
        rules: Mapping[Kind, Rules] = RULES,
    ) -> None:
        self.changed: list[Task] = []
        self.orphans: list[Peer] = []
        self.news: list[Peer] = []
        self.world = World(
            limits or Limits(),
            self.changed.append,
            rules,
            on_orphan=self.orphans.append,
            on_partner=self.news.append,
        )
        self.now = 1000.0
        self.rng = Random(seed)
        self._numbers = itertools.count()

    def host(self, name: str, *, at: str = "10.0.0.1", **facts: Any) -> Host:
        """*name* announces itself, reachable and with a fast link unless *facts* say otherwise.

        It calls from *at*.
        """
        number = len(self.world.hosts) + 1
        said: dict[str, Any] = {
            "hostname": name,
            "ip": f"10.0.{number // 250}.{number % 250}",
            "port": 4000,
            "max_tx_bandwidth": 10**10,
            "version": "pantala/0",
        }
        return self.world.announce(HostFacts(id=name, **(said | facts)), self.now, Caller(at))

    def register(self, host: str, task: str = "t", **said: Any) -> Peer:
        """A new peer of *host* registers; the host announces itself if it has not."""
        if host not in self.world.hosts:
            self.host(host)
        first: dict[str, Any] = {
            "kind": self.kind,
            "peer_id": f"{host}-{next(self._numbers)}",
            "url": "http://origin/f",
            "content_length": 10 * MIB,
            "piece_length": 4 * MIB,
        }
        said = first | said
        wish = {name: said.pop(name) for name in said.keys() & _WISHED}
        request = DownloadRequest(**wish)
        words = Registration(host_id=host, task_id=task_id(task), request=request, **said)
        return self.world.register(words, self.now)

    def decide(self, peer: Peer) -> Decision:
        """What *peer* is told now."""
        return decide(self.world, peer, self.now, self.rng)

    def source(self, host: str, task: str = "t", **said: Any) -> Peer:
        """A new peer that is at the origin."""
        peer = self.register(host, task, need_back_to_source=True, **said)
        assert isinstance(self.decide(peer), ToSource)
        self.world.start_back_to_source(peer, self.now)
        return peer

    def holder(self, host: str, task: str = "t", **said: Any) -> Peer:
        """A new peer that has all it wanted."""
        peer = self.source(host, task, **said)
        self.world.finish(peer, self.now)
        return peer

    def child(self, host: str, task: str = "t", **said: Any) -> Peer:
        """A new peer that fetches from those parents that it was given."""
        peer = self.register(host, task, **said)
        assert isinstance(self.decide(peer), Parents)
        self.world.start(peer, self.now)
        return peer

    def check(self) -> None:
        """Everything that the descriptions in ``entities`` promise."""
        _check_ages(self.world)
        for task in self.world.tasks.values():
            _check_task(self.world, task)
        for host in self.world.hosts.values():
            _check_host(self.world, host)
        words = sum(peer.registration.size for peer in self.world.peers.values())
        kept = HOST * len(self.world.hosts) + PEER * len(self.world.peers) + words
        assert self.world.room.used == kept
        for key, peer in self.world.peers.items():
            assert peer.key == key
            assert peer.task.peers[peer.id] is peer
            assert peer.host.peers[peer.task.key][peer.id] is peer
            assert not _is_below_itself(peer)
            for parent_id, edge in peer.parents.items():
                assert (edge.parent.id, edge.child) == (parent_id, peer)
                assert edge.parent.children[peer.id] is edge
                assert self.world.peers[edge.parent.key] is edge.parent
            assert not peer.parents or peer.state in (PeerState.RECEIVED_NORMAL, PeerState.RUNNING)
            _check_partners(self.world, peer)


def _check_ages(world: World) -> None:
    ages, idle = world.ages, (PeerState.SUCCEEDED, PeerState.FAILED)
    assert all(host in ages.hosts for host in world.hosts.values())
    assert len(ages.hosts) == len(world.hosts)
    for task in world.tasks.values():
        assert task.peers or task.trigger is not None or task in ages.tasks
    for peer in world.peers.values():
        useless = peer.state in idle and peer not in peer.task.holders
        assert (peer in ages.useless) == useless
        assert (peer in ages.peers) == (peer.state not in idle)
    assert len(ages.peers) + len(ages.useless) <= len(world.peers)
    assert len(ages.tasks) <= len(world.tasks)


def _check_partners(world: World, peer: Peer) -> None:
    most = world.limits.most_partners + (ENOUGH if is_way_out(peer) else 0)
    assert len(peer.partners) <= most
    assert 0 <= peer.unheard <= len(peer.partners)
    for partner in peer.partners:
        assert world.peers[partner.key] is partner
        assert partner.task is peer.task
        assert peer in partner.partners
        assert partner.host is not peer.host
        assert partner.id not in peer.blocked
    if peer.partners:
        assert peer.host.facts.is_ours
        assert not peer.host.facts.disable_shared
        assert not peer.distrusted
        assert peer.state is not PeerState.FAILED


def _is_sociable(world: World, peer: Peer) -> bool:
    told = peer.state is PeerState.RECEIVED_NORMAL and bool(peer.parents)
    return (
        peer.host.facts.is_ours
        and not peer.host.facts.disable_shared
        and not peer.distrusted
        and len(peer.partners) < world.limits.most_partners
        and (told or peer.state is PeerState.RUNNING)
    )


def _is_below_itself(peer: Peer) -> bool:
    seen: set[str] = set()
    todo = [peer]
    while todo:
        for child_id, edge in todo.pop().children.items():
            if child_id not in seen:
                seen.add(child_id)
                todo.append(edge.child)
    return peer.id in seen


def _check_task(world: World, task: Task) -> None:
    assert all(world.peers[peer.key] is peer for peer in task.peers.values())
    assert set(task.holders) == {peer for peer in task.peers.values() if _is_holder(peer)}
    assert task.votes.voters == {
        peer.id for peer in task.holders if peer.state is not PeerState.RUNNING
    }
    sociable = {peer for peer in task.peers.values() if _is_sociable(world, peer)}
    pool = task.sociable
    assert set(pool or ()) == sociable
    assert (pool is None) == (not sociable)
    assert pool is None or all(
        pool.group_of(peer) == peer.host.facts.idc.lower() for peer in sociable
    )
    inside = {peer for peer in task.holders if peer.host.centre}
    assert set(task.inside or ()) == inside
    ways = {peer for peer in task.peers.values() if peer.host.centre and _leads_out(peer)}
    assert set(task.ways or ()) == ways
    for grouped in (task.inside, task.ways):
        if grouped is not None:
            assert grouped
            assert all(grouped.group_of(peer) == peer.host.centre for peer in grouped)
    assert set(task.at_origin) == {
        peer.id for peer in task.peers.values() if peer.state is PeerState.BACK_TO_SOURCE
    }
    for peer_id in task.expected:
        assert task.peers[peer_id].state not in (
            *(PeerState.BACK_TO_SOURCE, PeerState.SUCCEEDED),
            *(PeerState.FAILED, PeerState.LEAVE),
        )
    assert task.state is not TaskState.PENDING or not task.peers


def _leads_out(peer: Peer) -> bool:
    places = {edge.parent.host.centre for edge in peer.parents.values()}
    gives = not peer.distrusted and not peer.host.facts.disable_shared
    return gives and bool(places - {peer.host.centre} if places else _is_holder(peer))


def _is_holder(peer: Peer) -> bool:
    sourced = bool(peer.parents) or peer.host.facts.is_seed
    return (
        not peer.distrusted
        and not peer.host.facts.disable_shared
        and (
            peer.state in (PeerState.BACK_TO_SOURCE, PeerState.SUCCEEDED)
            or (peer.state is PeerState.RUNNING and sourced)
        )
    )


def _check_host(world: World, host: Host) -> None:
    peers = [peer for peers in host.peers.values() for peer in peers.values()]
    assert all(host.peers.values())
    assert all(world.peers[peer.key] is peer and peer.host is host for peer in peers)
    edges = [edge for peer in peers for edge in peer.children.values()]
    assert host.uploads == len(edges)
    assert host.tx_bandwidth == sum(edge.tx_bandwidth for edge in edges)
    assert host.upload_content_length == sum(edge.content_length for edge in edges)
    assert host.concurrent_pieces == sum(edge.pieces for edge in edges)
