"""Where a peer counts in its task, and who hears when that changes.

A task keeps collections of its peers, so that no choice has to look at all of them: who has content
or gets some, for which shapes those vouch, who is at the origin, who was told to start. All of it
follows from the states of peers and hosts, as does who may have partners (:mod:`.partners`). So
after each change of one of these the world calls :meth:`Holders.settle` or :meth:`Holders.refresh`,
which set right what has become wrong, and may be called once too often.

Peers that wait for a task are told whenever it gets or loses a holder, or whoever was on the way to
it has started or never will. They are told *after* the change, and look anew themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from pantala.model.announce import HostFacts

from .ages import Ages
from .centres import heir, is_way_out, settle
from .edges import disconnect_children, disconnect_parents
from .entities import Host, Peer, Task
from .partners import Partners
from .states import MAY_HAVE_PARENTS, PeerState


class Holders:
    """Keeps the collections of tasks true to their descriptions.

    Args:
        partners: Settled with each peer.
        ages: Told of each peer that counts, or does not any more.
        on_change: Called with a task when peers that wait for it should look again.
        on_orphan: Called with a peer of ours that by no doing of its own is to have other parents:
            it has lost its last one, or its data centre the way out.
    """

    def __init__(
        self,
        partners: Partners,
        ages: Ages,
        on_change: Callable[[Task], None],
        on_orphan: Callable[[Peer], None],
    ) -> None:
        self._partners = partners
        self._ages = ages
        self._on_change = on_change
        self._on_orphan = on_orphan

    def settle(self, peer: Peer) -> None:
        """After a move: who is its parent, where it is counted, and who should know."""
        if peer.state is PeerState.BACK_TO_SOURCE:
            peer.task.at_origin.setdefault(peer.id)
        else:
            peer.task.at_origin.pop(peer.id, None)
        was_way = is_way_out(peer)
        if peer.state is not PeerState.RUNNING:
            disconnect_parents(peer)
        self.started(peer)
        self.refresh(peer)
        if peer.state in (PeerState.FAILED, PeerState.LEAVE):
            self._abandon_children(peer)
            if was_way:
                self._replace(peer)

    def _replace(self, peer: Peer) -> None:
        """Another is to fetch from beyond the data centre of *peer*, which did."""
        other = heir(peer.task, peer.host.centre)
        if other is not None and other.parents:  # else it has been called already
            self._on_orphan(other)

    def _abandon_children(self, peer: Peer) -> None:
        """Nobody is to wait for what *peer* will not bring."""
        children = disconnect_children(peer)
        for child in children:
            if not child.parents:
                self._expect_no_more(child)
            self.refresh(child)
        for child in children:
            waits = not child.parents and child.state in MAY_HAVE_PARENTS
            if waits and child.host.is_ours:
                self._on_orphan(child)

    def started(self, peer: Peer) -> None:
        """Nobody waits any more for *peer* to begin what it was told, if it has.

        One that begins with parents which it has lost meanwhile has not: it was told something else
        since, or will ask.
        """
        has_way = bool(peer.parents) or peer.host.is_seed
        if has_way or peer.state is not PeerState.RUNNING:
            self._expect_no_more(peer)

    def _expect_no_more(self, peer: Peer) -> None:
        if peer.task.expected.pop(peer.id, None) is not None:
            self._on_change(peer.task)

    def refresh(self, peer: Peer) -> None:
        """Count *peer* among its task's holders if it is one, and only then."""
        task = peer.task
        before = peer in task.holders
        after = peer.id in task.peers and _holds(peer)
        if after:
            task.holders.add(peer)
        else:
            task.holders.discard(peer)
        settle(peer, holds=after)
        _vote(peer, vouches=after and peer.state is not PeerState.RUNNING)
        self._partners.settle(peer)
        if before != after:
            self._ages.peer(peer)
            self._on_change(task)

    def moved(self, host: Host) -> None:
        """Where its peers count has changed, and perhaps where their children do."""
        for peers in host.peers.values():
            for peer in peers.values():
                self.refresh(peer)
                for edge in peer.children.values():
                    self.refresh(edge.child)


def sharing(facts: HostFacts) -> tuple[object, ...]:
    """What of a host decides where its peers count."""
    return facts.disable_shared, facts.is_seed, facts.is_ours, facts.idc


def _holds(peer: Peer) -> bool:
    """Whether *peer* has content, or a source of it, and may share it."""
    if peer.distrusted or not peer.host.shares:
        return False
    if peer.state is PeerState.RUNNING:
        return peer.host.is_seed or bool(peer.parents)
    return peer.state in (PeerState.BACK_TO_SOURCE, PeerState.SUCCEEDED)


def _vote(peer: Peer, *, vouches: bool) -> None:
    """Describe the task as those describe it who should know: there may be two versions.

    Not those who still fetch from others, on whose word they describe it themselves.
    """
    task, host = peer.task, peer.host
    if vouches:
        news = task.votes.cast(peer.id, peer.shape, host.account, host.id)
    else:
        news = task.votes.withdraw(peer.id)
    winner = task.votes.winner if news else None
    if winner is not None:
        task.shape = winner
