"""Which hosts shall keep copies of an imported task, so that there are as many as were wanted.

    count     what there is: replicas that are held, that come, that are lost
    plan      what to do for those that are missing: keep a copy that is there, or fetch one

A copy is lost when its host is: not at once, since a daemon that is started anew comes back with
all that it held (:class:`Presence`). A host that was asked and failed is left alone for a while
(:class:`Attempts`). So whatever was planned and came to nothing is planned again, and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pantala.core.sample import Chance
from pantala.model.announce import HostFacts

from .entities import TaskKey
from .records import ON_THE_WAY, PeerRow, TaskRow
from .rules import Rules
from .states import PeerState, TaskState

#: Seconds until a host that could not take a copy of a task is asked for it again; doubled for
#: each time, up to the last.
_BACKOFF: Final = (5.0, 640.0)

#: Why no host fetches at all: all that have it are away.
NO_SOURCE: Final = "no host that has a copy is here"


class Presence:
    """When the hosts that have copies were last heard of.

    The world forgets a host that is silent or says goodbye, and knows none when it is new.

    Args:
        grace: Seconds for which a host that is not here may not be heard of, before its copies
            count as lost. At least as long as it takes until all have announced themselves to a
            scheduler that is new.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._heard: dict[str, float] = {}
        self._away: set[str] = set()

    def look(self, holders: Collection[str], here: Mapping[str, float], now: float) -> None:
        """Take in which of the *holders*, who have copies, are here, and when each was heard of."""
        for host in holders:
            if host in here:
                self._heard[host] = here[host]
                self._away.discard(host)
            else:
                self._heard.setdefault(host, now)
                self._away.add(host)

    def keep_only(self, holders: Collection[str]) -> None:
        """Forget all hosts but *holders*: the others have no copies any more."""
        self._heard = {host: at for host, at in self._heard.items() if host in holders}
        self._away &= self._heard.keys()

    def away(self, host_id: str) -> bool:
        """Whether it cannot be asked for its copies now."""
        return host_id in self._away

    def lost(self, host_id: str, now: float) -> bool:
        """Whether it has been away for so long that its copies do not count."""
        return host_id in self._away and now - self._heard[host_id] >= self._grace

    def next_loss(self, now: float) -> float | None:
        """Seconds until the copies of another host count as lost; None: no host is away."""
        ends = (self._heard[host] + self._grace - now for host in self._away)
        return min((left for left in ends if left > 0), default=None)


class Attempts:
    """Hosts that were asked for a copy of a task and failed, and until when they are left alone."""

    def __init__(self) -> None:
        self._failures: dict[TaskKey, dict[str, tuple[int, float]]] = {}

    def failed(self, task: TaskKey, host_id: str, now: float) -> None:
        """It was asked, and has no copy."""
        hosts = self._failures.setdefault(task, {})
        count, _ = hosts.get(host_id, (0, 0.0))
        first, last = _BACKOFF
        hosts[host_id] = (count + 1, now + min(first * 2 ** min(count, 32), last))

    def succeeded(self, task: TaskKey, host_id: str) -> None:
        """The host has a copy now: earlier failures with this task do not count any more."""
        self._failures.get(task, {}).pop(host_id, None)

    def rests(self, task: TaskKey, host_id: str, now: float) -> bool:
        """Whether it is not to be asked now."""
        _, until = self._failures.get(task, {}).get(host_id, (0, 0.0))
        return now < until

    def keep_only(self, tasks: Collection[TaskKey]) -> None:
        """Forget all tasks but these: the others have ended."""
        self._failures = {key: hosts for key, hosts in self._failures.items() if key in tasks}


@dataclass(frozen=True, slots=True)
class Count:
    """The copies of a task.

    Attributes:
        replicas: Held, and kept until the task ends; their hosts may be away for a moment.
        coming: Replicas on the way.
        spare: Copies that may go at any time, on hosts that are here.
        lost: Copies of hosts that are gone.
    """

    replicas: tuple[PeerRow, ...] = ()
    coming: tuple[PeerRow, ...] = ()
    spare: tuple[PeerRow, ...] = ()
    lost: tuple[PeerRow, ...] = ()

    @property
    def held(self) -> int:
        """Hosts that have a copy."""
        return len(_hosts(self.replicas) | _hosts(self.spare))

    @property
    def kept(self) -> int:
        """How many hosts have a replica, whole."""
        return len(_hosts(self.replicas))

    def missing(self, task: TaskRow) -> int:
        """Replicas that nobody has and nobody is about to get."""
        return max(0, task.replicas - len(_hosts(self.replicas) | _hosts(self.coming)))


def _hosts(rows: Iterable[PeerRow]) -> set[str]:
    return {row.host_id for row in rows}


def count(rows: Iterable[PeerRow], presence: Presence, now: float, *, fresh: float) -> Count:
    """What there is of a task, by the *rows* of its peers.

    Args:
        rows: All of them.
        presence: Of their hosts.
        now: On the clock of *presence*.
        fresh: Unix time. Who is on the way and gave no news since does not come any more.
    """
    found: dict[str, list[PeerRow]] = {"replicas": [], "coming": [], "spare": [], "lost": []}
    for row in rows:
        if row.state is PeerState.SUCCEEDED:
            if presence.lost(row.host_id, now):
                found["lost"].append(row)
            elif row.persistent:
                found["replicas"].append(row)
            elif not presence.away(row.host_id):
                found["spare"].append(row)
        elif row.persistent and _comes(row, fresh) and not presence.away(row.host_id):
            found["coming"].append(row)
    return Count(**{name: tuple(members) for name, members in found.items()})


def _comes(row: PeerRow, fresh: float) -> bool:
    return row.state in ON_THE_WAY and row.updated_at >= fresh


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for a task.

    Attributes:
        keep: Spare copies that shall be replicas from now on.
        fetch: Hosts that shall get a replica each.
        short: Replicas for which there is no host.
        unfit: Why other hosts were not taken, and how many of them for each reason; or
            :data:`NO_SOURCE`.
    """

    keep: tuple[PeerRow, ...] = ()
    fetch: tuple[HostFacts, ...] = ()
    short: int = 0
    unfit: Counter[str] = field(default_factory=Counter)


def plan(
    task: TaskRow,
    rows: Sequence[PeerRow],
    counted: Count,
    hosts: Sequence[HostFacts],
    *,
    unfit: Callable[[HostFacts], str | None],
    chance: Chance,
    fresh: float,
) -> Plan:
    """How *task* comes to have as many replicas as it shall have.

    Spare copies are kept first, for that moves no bytes. Then hosts fetch, each from a data centre
    that has the fewest copies, so that one that fails takes as few as possible with it.

    Args:
        task: The task. While it is being imported, or its import failed, nothing is to be done.
        rows: Of all its peers.
        counted: What :func:`count` made of them.
        hosts: All that are here.
        unfit: Why a host cannot be asked, see :func:`obstacle`; None: it can.
        chance: Which of several that are as good.
        fresh: As for :func:`count`.
    """
    missing = counted.missing(task) if task.state is TaskState.SUCCEEDED else 0
    if not missing:
        return Plan()
    facts = {host.id: host for host in hosts}
    replicas = _hosts(counted.replicas) | _hosts(counted.coming)
    reasons: Counter[str] = Counter()
    spare: dict[str, PeerRow] = {}
    for row in counted.spare:
        why = unfit(facts[row.host_id]) if row.host_id in facts else "is not here"
        if why is not None:
            reasons[why] += 1
        elif row.host_id not in replicas:
            spare.setdefault(row.host_id, row)
    keep = tuple(spare.values())[:missing]
    missing -= len(keep)
    if not any(row.host_id in facts for row in (*counted.replicas, *counted.spare)):
        reasons[NO_SOURCE] = 0
        return Plan(keep, (), missing, reasons)
    taken = replicas | _hosts(
        row for row in rows if row.state is PeerState.SUCCEEDED or _comes(row, fresh)
    )
    able: dict[str, list[HostFacts]] = {}
    for host in hosts:
        if host.id in taken:
            continue
        why = unfit(host)
        if why is None:
            able.setdefault(host.idc.lower(), []).append(host)
        else:
            reasons[why] += 1
    holding = Counter(facts[id_].idc.lower() for id_ in replicas | _hosts(keep) if id_ in facts)
    fetch = tuple(_spread(able, holding, missing, chance))
    return Plan(keep, fetch, missing - len(fetch), reasons)


def _spread(
    able: dict[str, list[HostFacts]], holding: Counter[str], number: int, chance: Chance
) -> Iterable[HostFacts]:
    """Up to *number* of those that are *able*, by data centre, where the fewest copies are."""
    for _ in range(number):
        centres = sorted(idc for idc, hosts in able.items() if hosts)
        if not centres:
            return
        fewest = min(holding[idc] for idc in centres)
        best = [idc for idc in centres if holding[idc] == fewest]
        idc = best[chance.randrange(len(best))]
        hosts = able[idc]
        yield hosts.pop(chance.randrange(len(hosts)))
        holding[idc] += 1


def obstacle(task: TaskRow, host: HostFacts, rules: Rules) -> str | None:
    """Why *host* cannot keep a copy of *task*, in words; None: it can, for all that is known."""
    if host.disable_shared:
        return "shares nothing"
    if not 0 < host.download_port < 65536:
        return "cannot be called"
    if rules.ours_only and not host.is_ours:
        return "does not know such tasks"
    if host.disk_free < task.content_length:
        return "has too little disk"
    return None
