"""Hosts, tasks and peers, and who is whose parent, or partner. Only the world changes them.

    Host 1 ── n Peer n ── 1 Task          a peer is one attempt of a host at a task
    Peer n ── n Peer                      an edge: the child fetches pieces from the parent
    Peer n ── n Peer                      partners: each fetches pieces from the other

Whoever shows one of them shows it without the others: the whole swarm hangs together.

Times are seconds on the clock that the world's caller reads; they only go forward.
"""

from __future__ import annotations

import ipaddress
import math
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pantala.core.fsm import Machine
from pantala.core.sample import SampleSet
from pantala.model.announce import HostFacts, Registration
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind

from .costs import Costs
from .pool import Pool
from .rules import Rules
from .shape import Shape
from .states import PeerEvent, PeerState, TaskEvent, TaskState
from .votes import Votes

#: A task is known by its kind and id. Kinds do not share a namespace.
TaskKey = tuple[Kind, str]
#: Likewise a peer.
PeerKey = tuple[Kind, str]

#: Pieces that a peer fetches at once, when it does not say; as in Dragonfly's scheduler.
DEFAULT_CONCURRENT_PIECES: Final = 8

#: In these states a peer is at work and its content grows.
AT_WORK: Final = frozenset({PeerState.RUNNING, PeerState.BACK_TO_SOURCE})
#: In these a peer is over: it gives no more news.
OVER: Final = frozenset({PeerState.SUCCEEDED, PeerState.FAILED, PeerState.LEAVE})


class Caller(NamedTuple):
    """Who calls, as far as that can be known.

    Attributes:
        address: Of its machine, or of what stands before it.
        proof: Digest of the secret that it sent along; empty if it sent none.
    """

    address: str = ""
    proof: bytes = b""

    def __repr__(self) -> str:
        return f"<Caller at {self.address}>"

    @property
    def account(self) -> str:
        """Who he is when it comes to shares: of IPv6, a whole /64 is one customer's."""
        if ":" not in self.address:
            return self.address
        return str(ipaddress.ip_network((self.address, 64), strict=False))


# A choice looks at dozens of peers and their hosts, which lie anywhere in memory: of thousands, it
# mostly waits for that. What a class inherits lies before what it adds, so what a choice reads of
# each is in the first class of two, and in one or two lines of a cache instead of four.


@dataclass(eq=False, slots=True, kw_only=True)
class LookedAtHost:
    """What a choice reads of the host of each peer that it might choose."""

    upload_limit: int
    #: Edges to children of all its peers.
    uploads: int = 0
    #: How much of its link is left (:mod:`.evaluate`); None: that is to be found out.
    quality: float | None = None
    #: Its data centre, as one string for all its hosts; ``""`` is none.
    centre: str = ""
    is_seed: bool = False
    shares: bool = True


@dataclass(eq=False, slots=True)
class Host(LookedAtHost):
    """A daemon, and how much it is busy serving children of every kind of task."""

    facts: HostFacts
    created_at: float
    #: Its last announcement, or a piece that it served.
    updated_at: float
    #: Who may speak for it, see :mod:`.owners`.
    owner: Caller
    #: The last word of its owner's.
    heard_at: float
    #: Where it was met first, see :attr:`Caller.account`: what is kept of it and of its peers is
    #: charged there, and it has a vote from there.
    account: str
    #: Which of all hosts that were ever met it is: one that is forgotten comes back as another.
    life: int
    #: Its daemon is one of ours.
    is_ours: bool = False
    #: What its children are told of it, as it goes on the wire; empty: that is to be written anew.
    #: Not looked into here.
    told: bytes = b""
    #: Downloads whose streams are open.
    streams: int = 0
    #: All its peers, by task and id; no task without a peer.
    peers: dict[TaskKey, dict[str, Peer]] = field(default_factory=dict, repr=False)
    #: Sums over the edges to children of all its peers: bits a second that the children may
    #: draw, bytes of the tasks, pieces at once.
    tx_bandwidth: int = 0
    upload_content_length: int = 0
    concurrent_pieces: int = 0
    #: Ever: edges, and failures that children reported.
    upload_count: int = 0
    upload_failed_count: int = 0

    def __post_init__(self) -> None:
        self.learn(self.facts)

    def learn(self, facts: HostFacts) -> None:
        """It tells of itself."""
        self.facts, self.quality, self.told = facts, None, b""
        self.centre = sys.intern(facts.idc.lower())
        self.is_seed, self.is_ours = facts.is_seed, facts.is_ours
        self.shares = not facts.disable_shared

    @property
    def id(self) -> str:
        """As the daemon chose it."""
        return self.facts.id

    @property
    def is_free(self) -> bool:
        """Whether it may get one more child."""
        return self.uploads < self.upload_limit


@dataclass(eq=False, slots=True)  # and not frozen, which takes four times as long to make
class Edge:
    """A child at a parent, and what the parent's host was charged for it. Nobody changes it."""

    parent: Peer
    child: Peer
    tx_bandwidth: int
    content_length: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """A seed that was asked to fetch a task and may not have registered for it yet."""

    host_id: str
    asked_at: float


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """A peer that failed at the origin, by no fault of its own.

    Attributes:
        host_id: Its host.
        credentials: What may be wrong with them and not with the origin; ``""`` for nothing.
    """

    at: float
    description: str
    host_id: str
    credentials: str

    def says_the_same(self, other: OriginFailure) -> bool:
        """Whether one sick host, or one caller's credentials, may be why both failed."""
        same = bool(self.credentials) and self.credentials == other.credentials
        return same or self.host_id == other.host_id


@dataclass(eq=False, slots=True)
class Task:
    """A task, and all that is going on around it."""

    kind: Kind
    id: str
    rules: Rules
    machine: Machine[TaskState, TaskEvent]
    #: The latest registration that was not refused, as it may be shown.
    registration: Registration
    shape: Shape
    created_at: float
    updated_at: float
    #: All its peers, by id.
    peers: dict[str, Peer] = field(default_factory=dict, repr=False)
    #: All and only those peers that have content or get some, on hosts that share.
    holders: SampleSet[Peer] = field(default_factory=SampleSet, repr=False)
    #: All and only those peers that may be given to others as partners, by their data centres.
    #: None: there are none, as of most tasks nothing is under way.
    sociable: Pool[Peer] | None = field(default=None, repr=False)
    #: Those of the holders that are in data centres, by these; None: there are none.
    inside: Pool[Peer] | None = field(default=None, repr=False)
    #: The ways out of data centres (:mod:`.centres`), by these; None: there are none.
    ways: Pool[Peer] | None = field(default=None, repr=False)
    #: For which shapes those of the holders vouch that have finished, or are at the origin.
    votes: Votes = field(default_factory=Votes)
    #: Ids of all and only those peers that are at the origin now, in the order in which they came.
    at_origin: dict[str, None] = field(default_factory=dict)
    #: Peers that were told what to do and have not started, and until when they may.
    expected: dict[str, float] = field(default_factory=dict)
    #: The seed that was asked, while its answer lasts.
    trigger: Trigger | None = None
    #: Seeds are not asked before this time.
    no_seed_before: float = 0.0
    #: The last few, oldest first; none from before the last success.
    origin_failures: deque[OriginFailure] = field(default_factory=deque)

    @property
    def key(self) -> TaskKey:
        """What it is known by."""
        return self.kind, self.id

    @property
    def state(self) -> TaskState:
        """Where in its life it is; moved by its machine alone."""
        return self.machine.state

    @property
    def piece_count(self) -> int:
        """Pieces in the whole content; 0 while it is not known how it is cut."""
        return self.shape.piece_count


@dataclass(eq=False, slots=True, kw_only=True)
class LookedAtPeer:
    """What a choice reads of each peer that it might choose."""

    host: Host
    shape: Shape
    #: The part of the content that it wants, or has; None: everything.
    range: ByteRange | None
    #: Of the content that it has, or will have; ``""``: not known.
    version: str = ""
    #: Its last piece took far longer than those before it.
    lags: bool = False
    #: There are others than itself among those that it has blocked.
    blocks_others: bool = False
    #: Peers with which it exchanges pieces, in the order in which they came; it is among theirs.
    #: Circles are free here. Not by their ids: a table of strings that grows looks at each of them.
    partners: dict[Peer, None] = field(default_factory=dict, repr=False)
    #: Of so many of them, the last ones, it has not been told.
    unheard: int = 0


@dataclass(eq=False, slots=True)
class Peer(LookedAtPeer):
    """One attempt of one host at one task."""

    id: str
    task: Task
    machine: Machine[PeerState, PeerEvent]
    #: Its first words, as they may be shown.
    registration: Registration
    #: A name for what it asks the origin with and others do not; ``""`` for nothing.
    credentials: str
    #: Pieces that it fetches at once.
    concurrent_pieces: int
    created_at: float
    #: Its last move, or piece.
    updated_at: float
    piece_at: float
    #: Edges to its parents, and to its children, by the other's id. Never a circle.
    parents: dict[str, Edge] = field(default_factory=dict, repr=False)
    children: dict[str, Edge] = field(default_factory=dict, repr=False)
    #: Peers that it must not be given: itself, and those that failed it.
    blocked: set[str] = field(default_factory=set)
    #: Accounts of hosts whose peers it failed, since the last that it served; of hosts of its own
    #: account their ids.
    accusers: set[str] = field(default_factory=set)
    #: There were too many of them: no child is given to it any more.
    distrusted: bool = False
    costs: Costs = field(default_factory=Costs)
    #: Pieces that it has told of.
    pieces: int = 0
    #: The number of the last batch of pieces that it has told of.
    batch: int = 0
    #: It was sent to the origin because there was nobody else: what it reads there is believed.
    was_sent: bool = False
    #: Seconds from registration to success; None before.
    cost: float | None = None
    #: A seed was asked on its behalf: if that was of no use to it, neither is asking again.
    has_asked_seed: bool = False
    #: When it was last given parents beyond its data centre.
    out_at: float = -math.inf
    #: Since when it has waited without anybody on the way to it.
    waiting_since: float | None = None

    @property
    def key(self) -> PeerKey:
        """What it is known by."""
        return self.task.kind, self.id

    @property
    def state(self) -> PeerState:
        """Where in its life it is; moved by its machine alone."""
        return self.machine.state

    def has_blocked(self, other: Peer) -> bool:
        """Whether it must not be given *other*."""
        # Most have blocked nobody but themselves, and *other* need not be looked at.
        return other is self or (self.blocks_others and other.id in self.blocked)

    def may_join(self, other: Peer) -> bool:
        """Whether, for all that is known, both have the same version."""
        mine, its = self.version, other.version
        return mine is its or not mine or not its or mine == its

    def covers(self, child: Peer) -> bool:
        """Whether it will have all that *child* wants."""
        mine, wanted = self.range, child.range
        if mine is None:
            return True
        return wanted is not None and mine.start <= wanted.start and wanted.end <= mine.end

    def overlaps(self, child: Peer) -> bool:
        """Whether it will have anything that *child* wants."""
        mine, wanted = self.range, child.range
        if mine is None or wanted is None:
            return True
        return mine.start < wanted.end and wanted.start < mine.end

    def absorb(self, other: Peer) -> bool:
        """Count what *other* of the same host has as its own, where that makes one range.

        Returns:
            Whether it did. It does, too, where *other* had another version, which is no more.
        """
        if self.shape != other.shape or not self.may_join(other):
            return True
        (start, end), (other_start, other_end) = self._span(), other._span()
        if end < other_start or other_end < start:
            return False
        start, end = min(start, other_start), max(end, other_end)
        whole = (start, end) == (0, self.shape.content_length)
        self.range = None if whole else ByteRange(start, end - start)
        return True

    def _span(self) -> tuple[int, int]:
        """First byte and end of what it has: whole pieces."""
        content, piece = self.shape
        if self.range is None or not piece:
            return 0, content
        return self.range.start // piece * piece, min(-(-self.range.end // piece) * piece, content)

    def hosts_below(self, most: int) -> set[Host] | None:
        """Hosts that may be waiting for its host to bring what it wants itself.

        Not peers: a host gives away what any of its peers has and waits for what any of them
        brings. Two hosts that read different parts may serve each other.

        Returns:
            None: They are more than *most*. To find them all would take long.
        """
        found: set[Host] = set()
        todo = [self.host]
        while todo:
            for peer in todo.pop().peers.get(self.task.key, {}).values():
                for edge in peer.children.values():
                    host = edge.child.host
                    if host not in found and edge.child.overlaps(self):
                        found.add(host)
                        todo.append(host)
            if len(found) > most:
                return None
        return found
