"""Preheating: which hosts are to have which content, and how far each of them is.

    WAITING ──► ASKED ──► FETCHING ──► DONE
       │          │           │
       └──────────┴───────────┴─────► FAILED, with a reason

A pair is one URL on one host. A host that is chosen and cannot be asked is a pair all the same: it
has failed, and whoever wants to know is told why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import islice
from typing import Final

from pantala.errors import InvalidRequest, NoProvider
from pantala.model.announce import HostFacts

from .roster import Roster

#: As in the contract.
_MAX_COUNT: Final = 200
_MAX_IPS: Final = 100

#: Characters of a reason: a host may have much to say.
_MAX_REASON: Final = 500


class Scope(StrEnum):
    """Among which hosts; by the contract's names."""

    SINGLE_SEED = "single_seed_peer"
    ALL_SEEDS = "all_seed_peers"
    ALL_PEERS = "all_peers"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of them. Of several ways to say so the first that is used counts.

    Attributes:
        ips: Those at these addresses.
        count: So many; all, if there are fewer.
        percentage: So many of a hundred, rounded down, but at least one.
    """

    scope: Scope = Scope.SINGLE_SEED
    ips: tuple[str, ...] = ()
    count: int | None = None
    percentage: int | None = None


def selection(
    scope: str, ips: Iterable[str] = (), count: int | None = None, percentage: int | None = None
) -> Selection:
    """What a caller asks for.

    Raises:
        InvalidRequest: It makes no sense; one line says what.
    """
    try:
        among = Scope(scope or Scope.SINGLE_SEED)
    except ValueError:
        known = ", ".join(Scope)
        raise InvalidRequest(f"scope {scope[:100]!r}: want one of {known}") from None
    named = tuple(dict.fromkeys(ips))
    if len(named) > _MAX_IPS:
        raise InvalidRequest(f"{len(named)} ips: want at most {_MAX_IPS}")
    check_number("count", count, _MAX_COUNT)
    check_number("percentage", percentage, 100)
    return Selection(among, named, count, percentage)


def check_number(name: str, number: int | None, most: int) -> None:
    """Raises InvalidRequest unless *number* is None, or 1 to *most*."""
    if number is not None and not 1 <= number <= most:
        raise InvalidRequest(f"{name} {number}: want 1 to {most}")


def select(hosts: Roster, wanted: Selection, *, ours_only: bool) -> list[HostFacts]:
    """The hosts that are meant, in the order of their ids: the same each time it is asked.

    Args:
        hosts: All that are here.
        wanted: Which of them.
        ours_only: Only daemons of ours can be asked. Among so many, or so many of a hundred, they
            come first; another that is meant by its address, or because all are, is among the
            result.

    Returns:
        Hosts; of an address without one of the scope, one without an id.

    Raises:
        NoProvider: There is none at all.
        InvalidRequest: There is none at the addresses.
    """
    seeds = wanted.scope is not Scope.ALL_PEERS
    there = hosts.count(seeds=seeds)
    if not there:
        raise NoProvider(f"no {'seed' if seeds else 'host that is no seed'} is known here")
    if wanted.ips:
        found = [host for ip in wanted.ips for host in hosts.at(ip, seeds=seeds)]
        found.sort(key=lambda host: (ours_only and not host.is_ours, host.id))
        if not found:
            asked = ", ".join(wanted.ips[:5]) + (", …" if len(wanted.ips) > 5 else "")
            raise InvalidRequest(f"no host of scope {wanted.scope} is known at {asked}")
        known = {host.ip for host in found}
        missing = (ip for ip in wanted.ips if ip not in known)
        return [*found, *(HostFacts("", "", ip, 0) for ip in missing)]
    most = there
    if wanted.count is not None:
        most = wanted.count
    elif wanted.percentage is not None:
        most = max(1, there * wanted.percentage // 100)
    return list(islice(hosts.each(seeds=seeds, ours_first=ours_only or None), most))


class PairState(IntEnum):
    """Where a pair is; the numbers are those of ``pantala.v1.PairState``."""

    WAITING = 0
    ASKED = 1
    FETCHING = 2
    DONE = 3
    FAILED = 4


_OVER: Final = frozenset({PairState.DONE, PairState.FAILED})


@dataclass(eq=False, slots=True)
class Pair:
    """One URL on one host.

    Attributes:
        number: Among those of its job, from 0.
        task: The number of the URL, likewise.
        host: Whom it is about; without an id, nobody is there.
        others: Hosts that may be asked in its place, best first.
        received: Bytes that the host has told of.
        content_length: None while nobody has said.
        reason: Why it failed.
    """

    number: int
    task: int
    host: HostFacts
    others: Sequence[HostFacts] = ()
    state: PairState = PairState.WAITING
    received: int = 0
    content_length: int | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Nothing more comes of it."""
        return self.state in _OVER


@dataclass(frozen=True, slots=True)
class Summary:
    """What has come of a job: pairs, and bytes that hosts have told of."""

    done: int
    failed: int
    received: int


@dataclass(slots=True)
class Ledger:
    """All pairs of one job, and which of them have changed since somebody looked.

    However slowly that somebody looks, there is no more to tell than there are pairs.
    """

    pairs: Sequence[Pair]
    _changed: dict[int, None] = field(default_factory=dict)
    _over: deque[Pair] = field(default_factory=deque)
    _done: int = 0
    _failed: int = 0

    def ask(self, pair: Pair, host: HostFacts) -> None:
        """*host* is asked, for the first time or in place of another that failed."""
        if pair.state in _OVER:
            return
        pair.host, pair.state = host, PairState.ASKED
        pair.received, pair.content_length = 0, None
        self._changed[pair.number] = None

    def begin(self, pair: Pair, content_length: int) -> None:
        """The host knows how long the content is."""
        if pair.state not in _OVER:
            pair.state, pair.content_length = PairState.FETCHING, content_length
            self._changed[pair.number] = None

    def receive(self, pair: Pair, length: int) -> None:
        """The host has so many more bytes of it."""
        if pair.state not in _OVER:
            pair.state = PairState.FETCHING
            pair.received += length
            self._changed[pair.number] = None

    def finish(self, pair: Pair) -> None:
        """All of it is there. Nothing that is said later changes that."""
        if pair.state not in _OVER:
            pair.state = PairState.DONE
            self._done += 1
            self._changed[pair.number] = None
            self._over.append(pair)

    def fail(self, pair: Pair, reason: str) -> None:
        """It is not. Likewise."""
        if pair.state not in _OVER:
            pair.state, pair.reason = PairState.FAILED, reason[:_MAX_REASON]
            self._failed += 1
            self._changed[pair.number] = None
            self._over.append(pair)

    def restore(self, pair: Pair, state: PairState, reason: str) -> None:
        """It was over before this ledger began, with what *pair* has of it; nobody is told."""
        pair.state, pair.reason = state, reason
        if state is PairState.DONE:
            self._done += 1
        else:
            self._failed += 1

    def give_up(self, reason: str) -> list[Pair]:
        """All that is not over has failed; which that was."""
        left = [pair for pair in self.pairs if pair.state not in _OVER]
        for pair in left:
            self.fail(pair, reason)
        return left

    def take(self, most: int) -> list[Pair]:
        """Up to *most* of those that have changed; they count as told."""
        numbers = list(islice(self._changed, most))
        for number in numbers:
            del self._changed[number]
        return [self.pairs[number] for number in numbers]

    def take_over(self, most: int) -> list[Pair]:
        """Up to *most* of those that are over and were not taken so yet, in that order."""
        return [self._over.popleft() for _ in range(min(most, len(self._over)))]

    @property
    def summary(self) -> Summary:
        """As it is now."""
        return Summary(self._done, self._failed, sum(pair.received for pair in self.pairs))
