"""Everything that can happen to hosts, tasks and peers.

Each method takes one event, moves what has to move, and keeps the collections of
:mod:`.entities` true to their descriptions. Nothing else changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pantala.core.fsm import Machine
from pantala.errors import (
    CREDENTIALS_REFUSED,
    HostUnknown,
    InvalidRequest,
    NotFound,
    TaskNotFound,
)
from pantala.model.announce import HostFacts, Registration
from pantala.model.ids import credentials_id
from pantala.model.task import DownloadRequest, Kind

from .blame import blame_origin, blame_parent, block
from .costs import Costs
from .edges import connect, disconnect, disconnect_parents
from .entities import (
    DEFAULT_CONCURRENT_PIECES,
    OVER,
    Caller,
    Host,
    Peer,
    PeerKey,
    Task,
    TaskKey,
)
from .records import PeerRow, TaskRow
from .room import Room
from .rules import RULES, Limits, Rules
from .seeds import Seeds
from .shape import Shape
from .states import PeerEvent, PeerState, TaskEvent, TaskState

#: The most pieces at once that a peer is believed to fetch: what its parents' hosts are charged for
#: must stay within reason.
_MAX_CONCURRENT_PIECES: Final = 1024

#: Of a content of which nothing has been told.
_UNKNOWN: Final = Shape(0, 0)


class World:
    """All hosts, tasks and peers that a scheduler knows.

    Args:
        limits: How far to go.
        on_change: Called with a task when peers that wait for it should look again.
        rules: The kinds of task that are served.
    """

    def __init__(
        self,
        limits: Limits,
        on_change: Callable[[Task], None],
        rules: Mapping[Kind, Rules] = RULES,
    ) -> None:
        self.limits = limits
        self.hosts: dict[str, Host] = {}
        self.tasks: dict[TaskKey, Task] = {}
        self.peers: dict[PeerKey, Peer] = {}
        self._on_change = on_change
        self._rules = rules
        self.seeds = Seeds()
        self.room = Room(limits)
        #: Hosts ever.
        self._met = 0

    # Hosts

    def announce(self, facts: HostFacts, now: float, caller: Caller) -> Host:
        """A host tells of itself, for the first time or again. A new one is *caller*'s.

        Raises:
            Busy: Too much is kept of hosts at the caller's address, or of all.
        """
        limit = self.limits.seed_uploads if facts.is_seed else self.limits.uploads
        host = self.hosts.get(facts.id)
        if host is None:
            host = self._new_host(facts, limit, now, caller)
        before = host.facts
        host.facts, host.upload_limit = facts, limit
        host.updated_at = host.heard_at = now
        self.seeds.update(host)
        if (before.disable_shared, before.is_seed) != (facts.disable_shared, facts.is_seed):
            for peers in host.peers.values():
                for peer in peers.values():
                    self._refresh(peer)
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
        del self.hosts[host.id]
        self.room.host_left(host.account)

    def begin_talk(self, peer: Peer) -> None:
        """*peer* has a stream open, which its host's process holds."""
        peer.host.talks += 1

    def end_talk(self, peer: Peer) -> None:
        """It has ended."""
        peer.host.talks -= 1

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
        self._on_change(task)

    def remove_task(self, task: Task) -> None:
        """Forget a task that has no peers."""
        del self.tasks[task.key]
        self.room.task_left(task.key)

    # Imported tasks

    def place(self, row: TaskRow, rows: Iterable[PeerRow], read_at: float, now: float) -> None:
        """An imported task that is whole is as its rows say: who has a copy, can be a parent.

        Copies whose rows are gone are gone, too, and those whose host is not here are not taken in.

        Args:
            row: The task.
            rows: Of its peers.
            read_at: When the rows were asked for; what has happened since is not in them.
            now: When.
        """
        task = self.tasks.get(row.key)
        if task is None:
            task = self._new_task(_recorded(row, "", ""), now)
            task.machine = Machine(f"task {row.id}", task.rules.tasks, row.state)
        task.shape, task.updated_at = Shape(row.content_length, row.piece_length), now
        known = {each.id: each for each in rows}
        for peer in list(task.peers.values()):
            over = peer.state is PeerState.SUCCEEDED and peer.updated_at < read_at
            if over and peer.id not in known:
                self.remove_peer(peer)
        for each in known.values():
            host = self.hosts.get(each.host_id)
            if host is not None and each.state is PeerState.SUCCEEDED and each.id not in task.peers:
                peer = self._new_peer(host, task, _recorded(row, each.host_id, each.id), "", now)
                peer.machine.fire(PeerEvent.REGISTER_NORMAL)
                self._fire(peer, PeerEvent.SUCCEED, now)

    def fail_holder(self, peer: Peer, now: float) -> None:
        """A peer that had content has it no more."""
        if peer.state is PeerState.SUCCEEDED:
            self._fire(peer, PeerEvent.FAIL, now)

    def forget(self, key: TaskKey) -> None:
        """An imported task is over, and so are its peers."""
        task = self.tasks.get(key)
        if task is not None:
            for peer in list(task.peers.values()):
                self.remove_peer(peer)

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
        credentials = (
            credentials_id(wish.url, wish.filtered_query_params, wish.request_header, wish.access)
            if wish.url
            else ""
        )
        self.room.check_peer(host.account, registration)
        task = self._task_for(registration, now)
        peer = self._new_peer(host, task, registration, credentials, now)
        self._keep_running(task)
        empty = peer.shape.content_length == 0
        peer.machine.fire(PeerEvent.REGISTER_EMPTY if empty else PeerEvent.REGISTER_NORMAL)
        return peer

    def start(self, peer: Peer, now: float) -> None:
        """A peer fetches from parents. Saying it again, after other parents, is no event."""
        if peer.state is PeerState.RUNNING:
            self._started(peer)
        else:
            self._fire(peer, PeerEvent.DOWNLOAD, now)

    def start_back_to_source(self, peer: Peer, now: float) -> None:
        """A peer fetches from the origin."""
        if peer.state is not PeerState.BACK_TO_SOURCE:
            self._fire(peer, PeerEvent.DOWNLOAD_BACK_TO_SOURCE, now)
            self._keep_running(peer.task)

    def finish(self, peer: Peer, now: float) -> None:
        """A peer has all that it wanted."""
        self._fire(peer, PeerEvent.SUCCEED, now)
        peer.cost = now - peer.created_at
        peer.costs = Costs()  # that its last piece was slow says nothing any more
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
        self._fire(peer, PeerEvent.FAIL, now)
        if task.state is TaskState.RUNNING and not task.holders and not task.expected:
            task.machine.fire(TaskEvent.FAIL)

    def remove_peer(self, peer: Peer) -> None:
        """Forget a peer; its children are without it at once."""
        children = [edge.child for edge in peer.children.values()]
        for child in children:
            disconnect(child.parents[peer.id])
        peer.machine.fire(PeerEvent.LEAVE)
        self._settle(peer)
        task, host = peer.task, peer.host
        del self.peers[peer.key]
        del task.peers[peer.id]
        del host.peers[task.key][peer.id]
        if not host.peers[task.key]:
            del host.peers[task.key]
        self.room.peer_left(host.account, peer.registration)
        for child in children:
            self._refresh(child)
        if not task.peers:
            oldest = self.room.task_idle(task.key)
            if oldest is not None:
                self.remove_task(self.tasks[oldest])
        self._on_change(task)

    def piece(self, peer: Peer, cost: float, parent_id: str | None, now: float) -> None:
        """A peer has one more piece.

        Args:
            peer: Who.
            cost: Seconds that it took.
            parent_id: Who gave it; None for the origin.
            now: When.
        """
        peer.costs.add(cost)
        peer.piece_at = peer.updated_at = peer.task.updated_at = now
        parent = peer.task.peers.get(parent_id or "")
        if parent is not None:
            parent.updated_at = parent.host.updated_at = now
            parent.accusers.clear()

    def touch(self, peer: Peer, now: float) -> None:
        """A peer is still there."""
        peer.updated_at = peer.task.updated_at = now

    def piece_failed(self, peer: Peer, parent_id: str, now: float) -> None:
        """A parent failed a peer, which shall not get it again.

        A parent that failed several hosts is taken for one that has lost the content: no child
        gets it any more. Its own download may go on.
        """
        peer.updated_at = peer.task.updated_at = now
        parent = block(peer, parent_id)
        if parent is not None and parent is not peer:
            blame_parent(parent, peer, self.limits)
            self._refresh(parent)

    def block(self, peer: Peer, parent_id: str) -> None:
        """Never give *peer* that parent again."""
        block(peer, parent_id)

    def link(self, parents: list[Peer], child: Peer) -> None:
        """*parents* shall serve *child*, and no others."""
        disconnect_parents(child)
        for parent in parents:
            connect(parent, child)
        self._refresh(child)

    def expect(self, peer: Peer, until: float) -> None:
        """*peer* was told what to do; others may wait *until* then for it to start."""
        task = peer.task
        if peer not in task.holders and peer.id not in task.at_origin:
            task.expected[peer.id] = until

    # What the above is made of

    def _new_host(self, facts: HostFacts, limit: int, now: float, caller: Caller) -> Host:
        account = caller.account
        self.room.admit_host(account)
        self._met += 1
        host = self.hosts[facts.id] = Host(
            facts,
            limit,
            created_at=now,
            updated_at=now,
            owner=caller,
            heard_at=now,
            account=account,
            life=self._met,
        )
        return host

    def _task_for(self, registration: Registration, now: float) -> Task:
        """The task of a registration, created or brought up to date."""
        task = self.tasks.get((registration.kind, registration.task_id))
        if task is None:
            if self._rules_of(registration.kind).imported:
                raise TaskNotFound(registration.task_id)
            return self._new_task(registration, now)
        if not task.holders and not task.rules.imported:
            task.shape = _UNKNOWN.told(registration)
        task.registration, task.updated_at = registration, now
        return task

    def _rules_of(self, kind: Kind) -> Rules:
        rules = self._rules.get(kind)
        if rules is None:
            raise InvalidRequest(f"{kind.name} tasks are not served here")
        return rules

    def _new_task(self, registration: Registration, now: float) -> Task:
        rules = self._rules_of(registration.kind)
        task = Task(
            kind=registration.kind,
            id=registration.task_id,
            rules=rules,
            machine=Machine(f"task {registration.task_id}", rules.tasks, TaskState.PENDING),
            registration=registration,
            shape=_UNKNOWN.told(registration),
            created_at=now,
            updated_at=now,
        )
        self.tasks[task.key] = task
        return task

    def _new_peer(
        self, host: Host, task: Task, registration: Registration, credentials: str, now: float
    ) -> Peer:
        wanted = registration.concurrent_piece_count or DEFAULT_CONCURRENT_PIECES
        peer = Peer(
            id=registration.peer_id,
            task=task,
            host=host,
            machine=Machine(f"peer {registration.peer_id}", task.rules.peers, PeerState.PENDING),
            registration=registration,
            credentials=credentials,
            concurrent_pieces=min(wanted, _MAX_CONCURRENT_PIECES),
            shape=task.shape.told(registration),
            range=registration.request.range,
            created_at=now,
            updated_at=now,
            piece_at=now,
            blocked={registration.peer_id},
        )
        self.room.peer_came(host.account, registration, task.key)
        self.peers[peer.key] = task.peers[peer.id] = peer
        host.peers.setdefault(task.key, {})[peer.id] = peer
        return peer

    def _keep_running(self, task: Task) -> None:
        """Something is going on; but what is held has been downloaded, whoever joins.

        Nor does it move a task that was imported.
        """
        if task.rules.imported:
            return
        held = task.state is TaskState.SUCCEEDED and bool(task.holders)
        if task.state is not TaskState.RUNNING and not held:
            task.machine.fire(TaskEvent.DOWNLOAD)

    def _fire(self, peer: Peer, event: PeerEvent, now: float) -> None:
        """Move *peer* on from where its registration left it."""
        peer.machine.fire(event)
        peer.updated_at = peer.piece_at = peer.task.updated_at = now
        self._settle(peer)

    def _settle(self, peer: Peer) -> None:
        """After a move: who is its parent, where it is counted, and who should know."""
        if peer.state is PeerState.BACK_TO_SOURCE:
            peer.task.at_origin.add(peer.id)
        else:
            peer.task.at_origin.discard(peer.id)
        if peer.state is not PeerState.RUNNING:
            disconnect_parents(peer)
        self._started(peer)
        self._refresh(peer)

    def _started(self, peer: Peer) -> None:
        if peer.task.expected.pop(peer.id, None) is not None:
            self._on_change(peer.task)

    def _refresh(self, peer: Peer) -> None:
        """Count *peer* among its task's holders if it is one, and only then."""
        task = peer.task
        before = peer in task.holders
        after = peer.id in task.peers and _holds(peer)
        if after:
            task.holders.add(peer)
        else:
            task.holders.discard(peer)
        self._vote(peer, vouches=after and peer.state is not PeerState.RUNNING)
        if before != after:
            self._on_change(task)

    def _vote(self, peer: Peer, *, vouches: bool) -> None:
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


def _holds(peer: Peer) -> bool:
    """Whether *peer* has content, or a source of it, and may share it."""
    if peer.distrusted or peer.host.facts.disable_shared:
        return False
    if peer.state is PeerState.RUNNING:
        return peer.host.facts.is_seed or bool(peer.parents)
    return peer.state in (PeerState.BACK_TO_SOURCE, PeerState.SUCCEEDED)


def _recorded(row: TaskRow, host_id: str, peer_id: str) -> Registration:
    """What a peer would say that registers for a task that is known by its row."""
    wanted = DownloadRequest(kind=row.kind, url="", tag=row.tag, application=row.application)
    return Registration(host_id=host_id, task_id=row.id, peer_id=peer_id, request=wanted)
