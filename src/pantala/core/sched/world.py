"""Everything that can happen to hosts, tasks and peers.

Each method takes one event, moves what has to move, and keeps the collections of
:mod:`.entities` true to their descriptions; of tasks, with :mod:`.holders`. Nothing else changes
them. What happens to several at once, :mod:`.expire` and :mod:`.imported` make of these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pantala.errors import (
    CREDENTIALS_REFUSED,
    HostUnknown,
    InvalidRequest,
    NotFound,
    TaskNotFound,
)
from pantala.model.announce import HostFacts, PieceSum, Registration
from pantala.model.task import Kind

from .ages import Ages
from .arrivals import UNKNOWN, credentials_of, new_host, new_peer, new_task
from .blame import blame_origin, blame_parent, block
from .costs import Costs
from .digests import Digests
from .edges import connect, disconnect_parents
from .entities import OVER, Caller, Host, Peer, PeerKey, Task, TaskKey
from .holders import Holders, sharing
from .partners import Partners
from .priorities import Priorities
from .room import Room
from .roster import Roster
from .rules import RULES, Limits, Rules
from .seeds import Seeds
from .states import PeerEvent, PeerState, TaskEvent, TaskState


def _ignore(_: Peer) -> None:
    """Nobody wants to know."""


#: Characters of a version that a peer tells later than in its first words, which are charged to it.
_MOST_VERSION: Final = 256


class World:
    """All hosts, tasks and peers that a scheduler knows.

    Args:
        limits: How far to go.
        on_change: Called with a task when peers that wait for it should look again.
        rules: The kinds of task that are served.
        on_orphan: Called with a peer of ours that had parents, and by no doing of its own has none.
            It may have partners, for whom it would wait; where there are none, it asks itself.
        on_partner: Called with a peer that has got a partner of which it has not heard.
    """

    def __init__(
        self,
        limits: Limits,
        on_change: Callable[[Task], None],
        rules: Mapping[Kind, Rules] = RULES,
        *,
        on_orphan: Callable[[Peer], None] = _ignore,
        on_partner: Callable[[Peer], None] = _ignore,
    ) -> None:
        self.limits = limits
        #: What is wanted of applications; another one, when that changes.
        self.priorities = Priorities()
        self.hosts: dict[str, Host] = {}
        #: What these say of themselves.
        self.roster = Roster()
        self.tasks: dict[TaskKey, Task] = {}
        #: Those of them that were imported.
        self.imported: dict[TaskKey, Task] = {}
        self.peers: dict[PeerKey, Peer] = {}
        self._on_change = on_change
        #: Changed by these alone, and by what happens here.
        self.partners = Partners(limits, on_partner)
        orphaned = on_orphan if limits.partners else _ignore
        #: Changed by these, too, and by :mod:`.expire`.
        self.ages = Ages(limits)
        self._holders = Holders(self.partners, self.ages, on_change, orphaned)
        self._rules = rules
        self.seeds = Seeds()
        self.room = Room(limits)
        self.digests = Digests(self.room)
        #: Hosts ever.
        self._met = 0

    def adopt(self, limits: Limits) -> None:
        """Other limits from now on; what was decided by the old ones stays.

        A host that has more children than it may have now keeps them, and gets no more until it has
        fewer. How much may be kept, and of how many tasks without peers, stays as it was.
        """
        self.limits = limits
        self.partners.adopt(limits, self.peers.values())
        for host in self.hosts.values():
            host.upload_limit = limits.uploads_of(is_seed=host.is_seed)

    # Hosts

    def announce(self, facts: HostFacts, now: float, caller: Caller) -> Host:
        """A host tells of itself, for the first time or again. A new one is *caller*'s.

        Raises:
            Busy: Too much is kept of hosts at the caller's address, or of all.
        """
        limit = self.limits.uploads_of(is_seed=facts.is_seed)
        host = self.hosts.get(facts.id)
        if host is None:
            self.room.admit_host(caller.account)
            self._met += 1
            host = self.hosts[facts.id] = new_host(facts, limit, caller, self._met, now)
        before = sharing(host.facts)
        host.learn(facts)
        host.upload_limit = limit
        host.updated_at = host.heard_at = now
        self.ages.host(host)
        self.roster.put(facts)
        self.seeds.update(host)
        if before != sharing(facts):
            self._holders.moved(host)
        return host

    def host(self, host_id: str) -> Host:
        """The host of that id.

        Raises:
            HostUnknown: It never announced itself, or not for too long.
        """
        try:
            return self.hosts[host_id]
        except KeyError:
            raise HostUnknown(
                f"host {host_id} is not known here; announce it (AnnounceHost), then try again"
            ) from None

    def remove_host(self, host: Host) -> None:
        """A host is gone, and all its peers with it."""
        for key in list(host.peers):
            self.remove_from_host(host, key)
        self.seeds.discard(host)
        self.ages.hosts.forget(host)
        self.roster.discard(host.id)
        del self.hosts[host.id]
        self.room.host_left(host.account)

    def stream_opened(self, peer: Peer) -> None:
        """*peer* has a stream open, which its host's process holds."""
        peer.host.streams += 1

    def stream_closed(self, peer: Peer) -> None:
        """The stream of *peer*, which :meth:`stream_opened` told of, has ended."""
        peer.host.streams -= 1

    # Tasks

    def task(self, key: TaskKey) -> Task:
        """The task of that kind and id.

        Raises:
            TaskNotFound: No peer registered for it, or not for too long.
        """
        try:
            return self.tasks[key]
        except KeyError:
            raise TaskNotFound(key[1]) from None

    def remove_from_host(self, host: Host, key: TaskKey) -> None:
        """A host has dropped a task: its peers are parents no more."""
        for peer in list(host.peers.get(key, {}).values()):
            self.remove_peer(peer)

    def is_held_by(self, host: Host, task: Task) -> bool:
        """Whether *host* can be a parent for *task*."""
        return any(peer in task.holders for peer in host.peers.get(task.key, {}).values())

    def end_trigger(self, task: Task, *, no_seed_before: float) -> None:
        """The answer of the seed that was asked for *task* has ended, well or badly."""
        task.trigger = None
        task.no_seed_before = no_seed_before
        self.ages.task(task)
        self._on_change(task)

    def remove_task(self, task: Task) -> None:
        """Forget a task that has no peers."""
        del self.tasks[task.key]
        self.imported.pop(task.key, None)
        self.ages.tasks.forget(task)
        self.room.task_left(task.key)

    # Peers

    def peer(self, key: PeerKey) -> Peer:
        """The peer of that kind and id.

        Raises:
            NotFound: It did not register, or was deleted.
        """
        try:
            return self.peers[key]
        except KeyError:
            raise NotFound(f"peer {key[1]} is not known here; register it first") from None

    def register(self, registration: Registration, now: float) -> Peer:
        """A peer joins the task that it names, which comes to be if need be.

        Of its words those are kept that may be shown.

        Raises:
            HostUnknown: Its host is not known.
            InvalidRequest: The kind of task is not served, or its URL cannot be parsed.
            InvalidTransition: A peer of that id is there already.
            NoProvider: Too much is kept of hosts at its host's address, or of all.
        """
        host = self.host(registration.host_id)
        known = self.peers.get((registration.kind, registration.peer_id))
        if known is not None:
            known.machine.fire(PeerEvent.REGISTER_NORMAL)  # mostly refused: it is past that
            self.remove_peer(known)
        wish, registration = registration.request, registration.public()
        credentials = credentials_of(wish)
        self.room.check_peer(host.account, registration)
        task = self._task_for(registration, now)
        peer = self.add_peer(host, task, registration, credentials, now)
        self._keep_running(task)
        empty = peer.shape.content_length == 0
        peer.machine.fire(PeerEvent.REGISTER_EMPTY if empty else PeerEvent.REGISTER_NORMAL)
        return peer

    def start(self, peer: Peer, now: float) -> None:
        """A peer fetches from parents. Saying it again, after other parents, is no event."""
        if peer.state is PeerState.RUNNING:
            self._holders.started(peer)
        else:
            self.move(peer, PeerEvent.DOWNLOAD, now)

    def start_back_to_source(self, peer: Peer, now: float) -> None:
        """A peer fetches from the origin."""
        if peer.state is not PeerState.BACK_TO_SOURCE:
            self.move(peer, PeerEvent.DOWNLOAD_BACK_TO_SOURCE, now)
            self._keep_running(peer.task)

    def finish(self, peer: Peer, now: float) -> None:
        """A peer has all that it wanted."""
        self.move(peer, PeerEvent.SUCCEED, now)
        peer.cost = now - peer.created_at
        peer.costs, peer.lags = Costs(), False  # how slow its last piece was says nothing any more
        task = peer.task
        task.origin_failures.clear()
        if peer.range is None and task.state is not TaskState.SUCCEEDED:
            task.machine.fire(TaskEvent.SUCCEED)
        self._merge(peer)

    def fail(
        self, peer: Peer, now: float, *, origin: str | None = None, status: int | None = None
    ) -> None:
        """A peer has given up, or is gone. No event for one that is over.

        Args:
            peer: Who.
            now: When.
            origin: What it said of the origin, if the origin is why.
            status: What the origin answered, by HTTP; None if it is not known.
        """
        if peer.state in OVER:
            return
        task = peer.task
        if origin is not None and status not in CREDENTIALS_REFUSED:
            blame_origin(peer, self.limits, now, origin, status)
        self.move(peer, PeerEvent.FAIL, now)
        if task.state is TaskState.RUNNING and not task.holders and not task.expected:
            task.machine.fire(TaskEvent.FAIL)

    def remove_peer(self, peer: Peer) -> None:
        """Forget a peer; its children and partners are without it at once."""
        peer.machine.fire(PeerEvent.LEAVE)
        self._holders.settle(peer)
        task, host = peer.task, peer.host
        del self.peers[peer.key]
        del task.peers[peer.id]
        del host.peers[task.key][peer.id]
        if not host.peers[task.key]:
            del host.peers[task.key]
        self.room.peer_left(host.account, peer.registration)
        self.ages.peer_left(peer)
        self.ages.task(task)
        if not task.peers:
            self.digests.forget(task.key)
            oldest = self.room.task_idle(task.key)
            if oldest is not None:
                self.remove_task(self.tasks[oldest])
        self._on_change(task)

    def piece(
        self, peer: Peer, cost: float, parent_id: str | None, now: float, count: int = 1
    ) -> None:
        """A peer has one more piece, or several.

        Args:
            peer: Who.
            cost: Seconds that it took, or the last one of them.
            parent_id: Who gave it; None for the origin.
            now: When.
            count: How many, all of the same parent.
        """
        peer.costs.add(cost)
        peer.pieces += count
        peer.lags = peer.costs.last_stands_out()
        peer.piece_at = peer.updated_at = peer.task.updated_at = now
        parent = peer.task.peers.get(parent_id or "")
        if parent is not None:
            self.learn_version(peer, parent.version)  # pieces of two are never joined
            parent.updated_at = parent.host.updated_at = now
            parent.accusers.clear()

    @staticmethod
    def learn_version(peer: Peer, version: str) -> None:
        """It shows which version a peer has, if that was not known."""
        if not peer.version and len(version) <= _MOST_VERSION:
            peer.version = sys.intern(version)

    def batch(self, peer: Peer, number: int, sums: Iterable[PieceSum], now: float) -> bool:
        """A peer has more pieces; False: that batch was told before, and changes nothing."""
        if number <= peer.batch:
            return False
        peer.batch = number
        for told in sums:
            self.piece(peer, told.cost, told.parent_id, now, told.count)
        return True

    def touch(self, peer: Peer, now: float) -> None:
        """A peer is still there."""
        peer.updated_at = peer.task.updated_at = now

    def piece_failed(self, peer: Peer, parent_id: str, now: float) -> None:
        """A parent failed a peer, which shall not get it again.

        A parent that failed several hosts is taken for one that has lost the content: no child
        gets it any more. Its own download may go on.
        """
        peer.updated_at = peer.task.updated_at = now
        parent = self.block(peer, parent_id)
        if parent is not None and parent is not peer:
            blame_parent(parent, peer, self.limits)
            self._holders.refresh(parent)

    def block(self, peer: Peer, parent_id: str) -> Peer | None:
        """Never give *peer* that one again. Returns it, if it is there."""
        other = block(peer, parent_id)
        if other is not None:
            self.partners.part(peer, other)
        return other

    def link(self, parents: list[Peer], child: Peer) -> None:
        """*parents* shall serve *child*, and no others."""
        disconnect_parents(child)
        for parent in parents:
            connect(parent, child)
        self._holders.refresh(child)

    def expect(self, peer: Peer, until: float) -> None:
        """*peer* was told what to do; others may wait *until* then for it to start."""
        task = peer.task
        if peer not in task.holders and peer.id not in task.at_origin:
            task.expected[peer.id] = until

    # What the above is made of, and :mod:`.imported`

    def add_task(self, registration: Registration, now: float) -> Task:
        """A task that is not known yet.

        Raises:
            InvalidRequest: The kind is not served.
        """
        task = new_task(registration, self._rules_of(registration.kind), now)
        self.tasks[task.key] = task
        if task.rules.imported:
            self.imported[task.key] = task
        self.ages.task(task)
        return task

    def add_peer(
        self, host: Host, task: Task, registration: Registration, credentials: str, now: float
    ) -> Peer:
        """A peer that is not known yet. It has not moved, and counts nowhere.

        Args:
            host: Whose attempt it is.
            task: At what.
            registration: What it says, as it may be shown.
            credentials: See :attr:`.Peer.credentials`.
            now: When.
        """
        peer = new_peer(host, task, registration, credentials, now)
        self.room.peer_came(host.account, registration, task.key)
        self.peers[peer.key] = task.peers[peer.id] = peer
        host.peers.setdefault(task.key, {})[peer.id] = peer
        self.ages.peer(peer)
        return peer

    def move(self, peer: Peer, event: PeerEvent, now: float) -> None:
        """Move *peer* on from where its registration left it.

        Raises:
            InvalidTransition: It cannot go that way from there.
        """
        peer.machine.fire(event)
        peer.updated_at = peer.piece_at = peer.task.updated_at = now
        self._holders.settle(peer)
        self.ages.peer(peer)

    def _task_for(self, registration: Registration, now: float) -> Task:
        """The task of a registration, created or brought up to date."""
        task = self.tasks.get((registration.kind, registration.task_id))
        if task is None:
            if self._rules_of(registration.kind).imported:
                raise TaskNotFound(registration.task_id)
            return self.add_task(registration, now)
        if not task.holders and not task.rules.imported:
            task.shape = UNKNOWN.told(registration)
        task.registration, task.updated_at = registration, now
        return task

    def _rules_of(self, kind: Kind) -> Rules:
        rules = self._rules.get(kind)
        if rules is None:
            raise InvalidRequest(f"{kind.name} tasks are not served here")
        return rules

    def _keep_running(self, task: Task) -> None:
        """Something is going on; a task that is held stays so, and so does an imported one."""
        if task.rules.imported:
            return
        held = task.state is TaskState.SUCCEEDED and bool(task.holders)
        if task.state is not TaskState.RUNNING and not held:
            task.machine.fire(TaskEvent.DOWNLOAD)

    def _merge(self, peer: Peer) -> None:
        """One peer, which has just finished, speaks for what its host had before, too.

        Of a host that read a thousand parts there would be a thousand peers to choose from.
        Imported tasks are not read in parts, and each of their peers has a row of its own.
        """
        if peer.task.rules.imported:
            return
        for other in list(peer.host.peers[peer.task.key].values()):
            idle = other.state is PeerState.SUCCEEDED and not other.children
            if other is not peer and idle and peer.absorb(other):
                self.remove_peer(other)
