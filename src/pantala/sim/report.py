"""What came of a run, in figures: times against what is possible at best, bytes, and messages.

Two bounds, in seconds; neither knows of headers or latencies:

    fluid   max(all files / the seeds' rate, what a host wants / the slowest one's rate, all that
            is wanted / all that is sent with): what bits could do that flow as water does
    rounds  (M − 1 + ⌈log2(N + 1)⌉) rounds, in each of which a link carries one of M pieces: what N
            hosts could do that give on whole pieces only
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .flight import Flight
from .run import Outcome
from .scenario import Scenario
from .swarm import Swarm


@dataclass(frozen=True, slots=True)
class Report:
    """One run. Times are seconds from the begin of each download, but for ``over``.

    Attributes:
        seed: Repeats the run.
        hosts: That wanted something.
        wanted: Downloads of them.
        finished: Downloads that have brought all that was wanted.
        lost: Downloads that ended with their hosts.
        failed: Others that did not finish.
        ideal: In which a link carries one file at its full rate.
        fluid, rounds: Bounds, see the module.
        first, median, p99, last: Of the downloads that have finished.
        over: When the last one ended.
        origin: Bytes that the origin sent, as multiples of all files.
        across: Bytes that went from one data centre to another, likewise.
        entered: Likewise those that came to one from the others, the most of any.
        seeds: Bytes that seeds sent, likewise.
        spread: Bytes that hosts sent, seeds not counted, as multiples of a file: least, quartiles
            and most.
        again: Bytes that came in vain, as a share of those that were wanted.
        messages, answers, decisions: From hosts to the scheduler, back, and made by it.
        offers: From parents to children.
        wishes: Messages of children to parents.
        events: Of the simulation.
    """

    scenario: str
    seed: int
    broken: str
    hosts: int
    wanted: int
    finished: int
    lost: int
    failed: int
    ideal: float
    fluid: float
    rounds: float
    first: float
    median: float
    p99: float
    last: float
    over: float
    origin: float
    across: float
    entered: float
    seeds: float
    spread: tuple[float, ...]
    again: float
    messages: int
    answers: int
    decisions: int
    offers: int
    wishes: int
    events: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON. A time that there is not is null."""
        values = asdict(self)
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


def report(outcome: Outcome) -> Report:
    """The figures of a run."""
    swarm, settings = outcome.swarm, outcome.swarm.settings
    flights = wanted(swarm)
    times = seconds(flights)
    files = settings.size * settings.tasks
    gave = sorted(host.up.carried / settings.size for host in swarm.hosts)
    holdings = [h for host in (*swarm.hosts, *swarm.seeds) for h in host.holdings.values()]
    came = sum(host.down.carried for host in (*swarm.hosts, *swarm.seeds))
    kept = sum(h.bytes for h in holdings)
    scheduler = swarm.scheduler
    return Report(
        scenario=settings.name,
        seed=settings.seed,
        broken=outcome.broken,
        hosts=len(swarm.hosts),
        wanted=settings.hosts * settings.wants,
        finished=len(times),
        lost=sum(1 for flight in flights if not flight.host.alive and flight.failed),
        failed=sum(1 for flight in flights if flight.host.alive and flight.failed),
        ideal=settings.ideal,
        fluid=fluid_bound(swarm),
        rounds=round_bound(settings),
        first=quantile(times, 0.0),
        median=quantile(times, 0.5),
        p99=quantile(times, 0.99),
        last=quantile(times, 1.0),
        over=max((flight.ended or 0.0 for flight in flights), default=0.0),
        origin=swarm.bytes["origin"] / files,
        across=swarm.bytes["across"] / files,
        entered=max(swarm.entered.values(), default=0) / files,
        seeds=sum(host.up.carried for host in swarm.seeds) / files,
        spread=tuple(quantile(gave, q) for q in (0.0, 0.25, 0.5, 0.75, 1.0)),
        again=max(0.0, came / kept - 1) if kept else 0.0,
        messages=scheduler.messages,
        answers=scheduler.answers,
        decisions=scheduler.decisions,
        offers=sum(h.uploads.offered for h in holdings),
        wishes=sum(flight.wishes.told for flight in swarm.flights),
        events=swarm.clock.events,
    )


def wanted(swarm: Swarm) -> list[Flight]:
    """Downloads that somebody waits for; not those of seeds for others."""
    return [flight for flight in swarm.flights if not flight.for_others]


def seconds(flights: list[Flight]) -> list[float]:
    """How long each took that has brought all that was wanted; the quickest first."""
    return sorted(
        flight.ended - flight.begun
        for flight in flights
        if flight.ended is not None and not flight.failed
    )


def fluid_bound(swarm: Swarm) -> float:
    """See the module. Hosts that die, and lines between data centres, are not in it."""
    settings = swarm.settings
    all_hosts = (*swarm.hosts, *swarm.seeds)
    up = sum(host.facts.max_tx_bandwidth for host in all_hosts) / 8
    feed = sum(host.facts.max_tx_bandwidth for host in swarm.seeds) / 8
    feed = feed or settings.origin_rate / 8
    slowest = min(host.facts.max_tx_bandwidth for host in swarm.hosts) / 8
    wants = settings.hosts * settings.wants * settings.size
    files = len({task for host in swarm.hosts for task in host.holdings})
    return max(files * settings.size / feed, settings.wants * settings.size / slowest, wants / up)


def round_bound(settings: Scenario) -> float:
    """See the module."""
    pieces = -(-settings.size // settings.piece) * settings.wants
    rounds = pieces - 1 + math.ceil(math.log2(settings.hosts + 1))
    return rounds * settings.piece * 8 / settings.rate


def quantile(values: list[float], q: float) -> float:
    """Of sorted *values* the one below which a share of *q* lies; no number if there are none."""
    if not values:
        return math.nan
    return values[max(0, math.ceil(q * len(values)) - 1)]


def lines(found: Report) -> list[str]:
    """A report for people; times as multiples of the ideal, too."""
    gave = " ".join(f"{value:.2f}" for value in found.spread)
    done = f"{found.finished} of {found.wanted} downloads on {found.hosts} hosts have finished"
    against = f"{found.last / found.fluid:.2f} × fluid, {found.last / found.rounds:.2f} × rounds"
    rows = [
        ("ideal", found.ideal, "size / rate of a link"),
        ("fluid", found.fluid, "what bits could do"),
        ("rounds", found.rounds, "what whole pieces could do"),
        ("first", found.first, ""),
        ("median", found.median, ""),
        ("p99", found.p99, ""),
        ("last", found.last, against),
    ]
    times = [
        f"  {name:7}{value:10.2f} s {value / found.ideal:7.2f} ×   {what}".rstrip()
        for name, value, what in rows
        if math.isfinite(value)
    ]
    sent = f"origin {found.origin:.2f}, seeds {found.seeds:.2f}, across {found.across:.2f}"
    if found.entered:
        sent += f" (into one data centre {found.entered:.2f})"
    told = f"{found.messages} messages, {found.answers} answers, {found.decisions} decisions"
    return [
        f"{found.scenario}, seed {found.seed}: {done}, {found.lost} died, {found.failed} failed",
        *times,
        f"  bytes      {sent} × the files; in vain {100 * found.again:.1f} %",
        f"  hosts sent {gave} × a file (least, quartiles, most)",
        f"  scheduler  {told}",
        f"  hosts told {found.offers} offers, {found.wishes} wishes",
    ]
