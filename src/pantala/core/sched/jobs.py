"""What of a job outlives its scheduler: a row, its plan, and what came of its pairs.

A job whose caller may leave is written down before it is begun. Whoever carries it on has the plan,
asks nothing again of pairs that are over, and knows what was asked for from the order, which may
have passwords in it and is wiped when the job is over.

Times are unix seconds: rows are read by other schedulers, and after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pantala.model.task import Kind

from .preheat import Pair, PairState

#: Seconds for which a job that is over is kept, for those who ask what came of it.
KEPT: Final = 86400.0

#: Jobs that are over, and pairs of all of them; of more the oldest go. A pair is some 200 bytes.
MAX_OVER: Final = 500
MAX_OVER_PAIRS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, as a list of jobs shows it.

    Attributes:
        scope: Among which hosts, by the contract's name.
        ends_at: When its time is over.
        pairs, done, failed: How many; those that are neither done nor failed are pending.
        received: Bytes that hosts have told of.
        ended_at: When it was over; None: it is not.
    """

    id: str
    kind: Kind
    scope: str
    created_at: float
    ends_at: float
    pairs: int
    done: int = 0
    failed: int = 0
    received: int = 0
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedHost:
    """A host of a job; without an id, nobody was there at that address."""

    id: str
    hostname: str
    ip: str


@dataclass(frozen=True, slots=True)
class JobPlan:
    """All that is to be done, as everybody may see it.

    Attributes:
        tasks: Of each its URL, without user, password, query and fragment, and its id.
        hosts: Of whatever pair.
        pairs: Of each the numbers of its task and of its host, in the order of their own numbers.
    """

    tasks: tuple[tuple[str, str], ...]
    hosts: tuple[PlannedHost, ...]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What was asked for, with all that is secret in it.

    Attributes:
        form: Which message it came by.
        asked: That message.
        requests: Of each task its whole URL, and its headers, which may be what a registry wants.
    """

    form: str
    asked: bytes
    requests: tuple[tuple[str, Mapping[str, str]], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a pair that is over."""

    number: int
    state: PairState
    host: PlannedHost
    received: int
    content_length: int | None = None
    reason: str = ""


def plan_of(tasks: Iterable[tuple[str, str]], pairs: Iterable[Pair]) -> JobPlan:
    """The plan of a job that is not begun."""
    hosts: dict[PlannedHost, int] = {}
    placed = tuple((pair.task, hosts.setdefault(_host(pair), len(hosts))) for pair in pairs)
    return JobPlan(tuple(tasks), tuple(hosts), placed)


def outcome_of(pair: Pair) -> Outcome:
    """What came of a pair."""
    return Outcome(
        pair.number, pair.state, _host(pair), pair.received, pair.content_length, pair.reason
    )


def outdated(rows: Iterable[JobRow], now: float) -> list[str]:
    """Which jobs are not kept any more: too old, or too many, the oldest first."""
    over = [(row.ended_at, row) for row in rows if row.ended_at is not None]
    gone, pairs = [], 0
    for number, (ended_at, row) in enumerate(sorted(over, key=lambda each: -each[0])):
        pairs += row.pairs
        # The last one is kept, however large it is.
        too_many = number >= MAX_OVER or (number > 0 and pairs > MAX_OVER_PAIRS)
        if too_many or ended_at + KEPT <= now:
            gone.append(row.id)
    return gone


def _host(pair: Pair) -> PlannedHost:
    return PlannedHost(pair.host.id, pair.host.hostname, pair.host.ip)
