"""How kinds of task differ for the scheduler, and the numbers that operators may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from pantala.core.fsm import Table
from pantala.model.cluster import ClusterWishes
from pantala.model.task import Kind

from .states import (
    IMPORTED_PEER,
    IMPORTED_TASK,
    PEER,
    TASK,
    PeerEvent,
    PeerState,
    TaskEvent,
    TaskState,
)


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """How much each quality of a parent counts; they sum to 1."""

    load: float
    idc: float
    location: float
    host_type: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One kind of task.

    Attributes:
        tasks: The life of its tasks.
        peers: The life of its peers.
        from_source: A peer may be told to ask the origin.
        imported: A task comes to be by an import, is recorded (:mod:`.records`) and kept by as
            many hosts as were wanted. Else it comes to be when somebody wants it, and all that is
            known of it is what peers tell.
        ours_only: A seed is asked for it only if it announced itself as pantala: a stock
            daemon ends itself at a cache request.
        weights: Of the evaluation of parents.
    """

    tasks: Table[TaskState, TaskEvent]
    peers: Table[PeerState, PeerEvent]
    from_source: bool
    imported: bool
    ours_only: bool
    weights: ScoreWeights


_WEIGHTS: Final = ScoreWeights(load=0.6, idc=0.2, location=0.1, host_type=0.1)

RULES: Final[Mapping[Kind, Rules]] = {
    Kind.STANDARD: Rules(
        tasks=TASK, peers=PEER, from_source=True, imported=False, ours_only=False, weights=_WEIGHTS
    ),
    Kind.PERSISTENT_CACHE: Rules(
        tasks=IMPORTED_TASK,
        peers=IMPORTED_PEER,
        from_source=False,
        imported=True,
        ours_only=False,
        weights=_WEIGHTS,
    ),
    Kind.CACHE: Rules(
        tasks=TASK, peers=PEER, from_source=True, imported=False, ours_only=True, weights=_WEIGHTS
    ),
}


#: How parents are compared; what each name stands for is in :mod:`.scores`.
Algorithm = Literal["default", "legacy"]

#: Why LEVEL1 and LEVEL2 get nothing, in words for whoever wants it.
_WHOSE: Final = "it is the download's own priority, or its application's"
FORBIDDEN: Final = f"downloads of priority LEVEL1 are forbidden; {_WHOSE}"
ONLY_PEERS: Final = (
    f"priority LEVEL2 allows only peers, none has it, and it must not ask the origin; {_WHOSE}"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers that decide how far the scheduler goes. Times are seconds.

    Attributes:
        candidates: Parents offered to a peer at most.
        sample: Parents compared at most.
        below: Of a peer that has more hosts below it, it is not found out which these are: its new
            parents are those that fetch from nobody, and their children. To find ten thousand takes
            some hundredths of a second.
        partners: Peers that a peer is given to exchange pieces with: with its parents about 16.
            It is given to others, too, until it has :attr:`most_partners`.
        back_to_source: Peers of one task at the origin at most.
        origin_failures: After so many hosts failed at the origin, no other is sent there...
        origin_memory: ...until this long after.
        start: How long a peer may take to start what it was told to, and a child waits for
            a busy parent.
        patience: How long a peer that may not ask the origin waits for somebody to come.
        seed_start: How long a seed may take from being asked to its own registration.
        seed_bar: A task whose origin refused a seed is not given to seeds for so long.
        seed_pause: Nor is one, for so long, whose seeds could not be reached.
        accusers: A peer that failed children on so many hosts, and served none in between, is no
            parent any more.
        uploads: Children of one host at most.
        seed_uploads: Likewise of a seed.
        piece_timeout: A download that gets no piece for so long is over.
        peer_ttl: A peer that registered and did nothing for so long is over.
        host_ttl: A host that did not say how often it announces itself is gone after this;
            others after twice their interval, of which no more than this is believed.
        task_ttl: A task without peers is forgotten after this.
        idle_tasks: So many of them are kept at most: there is nothing to them but the memory that
            an origin, or the seeds, failed.
        replica_grace: Copies of imported tasks on a host that is not here, and was not heard of for
            so long, are lost. Twice as long as daemons take to announce themselves again.
        kept: Bytes that may be kept of all hosts and their peers, 480,000 tasks with one each.
        kept_each: Likewise of hosts that were met at one address, 120,000.
        algorithm: How parents are compared.
    """

    candidates: int = 3
    sample: int = 15
    below: int = 256
    partners: int = 13
    back_to_source: int = 200
    origin_failures: int = 4
    origin_memory: float = 60.0
    start: float = 10.0
    patience: float = 2.5
    seed_start: float = 30.0
    seed_bar: float = 1800.0
    seed_pause: float = 30.0
    accusers: int = 3
    uploads: int = 200
    seed_uploads: int = 2000
    piece_timeout: float = 1800.0
    peer_ttl: float = 86400.0
    host_ttl: float = 3600.0
    task_ttl: float = 1800.0
    idle_tasks: int = 16384
    replica_grace: float = 600.0
    kept: int = 4 << 30
    kept_each: int = 1 << 30
    algorithm: Algorithm = "default"

    def under(self, wishes: ClusterWishes) -> Limits:
        """The same, but for what is wanted of the cluster."""
        return replace(
            self,
            candidates=wishes.candidate_parent_limit or self.candidates,
            sample=wishes.filter_parent_limit or self.sample,
            uploads=wishes.load_limit or self.uploads,
            seed_uploads=wishes.seed_load_limit or self.seed_uploads,
        )

    def uploads_of(self, *, is_seed: bool) -> int:
        """Children that a host may have at once."""
        return self.seed_uploads if is_seed else self.uploads

    @property
    def most_partners(self) -> int:
        """How many a peer may have that was given to others, too.

        Twice what it hears of when it joins. As each one that joins brings as many as it gets, the
        mean comes to twice *partners*. Were that the limit, too, only those who came last would
        have room: a newcomer's partners would be its neighbours in time, and the swarm a chain.
        """
        return 2 * (self.candidates + self.partners) if self.partners else 0

    def interval(self, said: float) -> float:
        """Seconds between two announcements, as far as is believed: nobody is kept for ever."""
        return min(said, self.host_ttl)
