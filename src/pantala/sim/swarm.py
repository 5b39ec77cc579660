"""A swarm: hosts on their links, a scheduler, an origin, and what is told of all of them."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from pantala.core.sched.entities import Host as KnownHost
from pantala.core.sched.entities import Task as KnownTask
from pantala.core.sched.rules import Limits
from pantala.core.sched.world import World
from pantala.model.announce import SourceFinished, SourceStarted, free_bandwidth

from .clock import Clock
from .exchange import Exchange
from .fetches import Fetches, Job
from .flight import Flight
from .host import Holding, Host, Task
from .network import Flow, Link, Network
from .scenario import Scenario
from .scheduler import Scheduler
from .standing import Standing

#: Lines of the transcript that are kept.
KEPT: Final = 40

#: Seconds between two looks whether a scheduler is there again; as in production.
_LOOK_AGAIN: Final = 1.0

#: What a scheduler is asked that was called for a seed.
Call = tuple[World, KnownTask, tuple[KnownHost, ...]]


class Swarm:
    """All of it. Made from a scenario; nothing happens until the clock is moved.

    Attributes:
        settings: The scenario.
        rng: All chance in the run.
        hosts: Those that want something.
        seeds: Those that fetch for others.
        flights: Downloads of hosts, in the order in which they began; of seeds, too.
        givers: What a peer is, by its name.
        sending: Fetches whose bytes a host sends.
        planned: Downloads that have still to begin.
        active: Those that have, and are not over.
    """

    def __init__(self, scenario: Scenario, write: Callable[[str], Any] | None = None) -> None:
        self.settings = scenario
        self.rng = random.Random(f"run {scenario.seed}")  # noqa: S311  a simulation's, to be repeated
        self.clock = Clock()
        self.network = Network(
            self.clock,
            exact=scenario.is_exact,
            grain=0.0 if scenario.is_exact else scenario.grain,
        )
        self.tasks = [
            Task(number, scenario.size, scenario.piece) for number in range(1, scenario.tasks + 1)
        ]
        self.hosts: list[Host] = []
        self.seeds: list[Host] = []
        self.by_name: dict[str, Host] = {}
        self.flights: list[Flight] = []
        self.givers: dict[str, Holding] = {}
        self.sending: dict[Host, dict[Job, Fetches]] = {}
        self.planned = 0
        self.active = 0
        self.bytes: Counter[str] = Counter()
        #: Bytes that came to a data centre from others.
        self.entered: Counter[int] = Counter()
        self.lines: deque[tuple[Any, ...]] = deque(maxlen=KEPT)
        self._write = write
        self._goodput = 1 / (1 + scenario.headers)
        self._origin = Link("origin", self._content(scenario.origin_rate))
        self._lines: dict[str, Link] = {}
        self._asked: dict[Flight, list[Call]] = {}
        self.scheduler = Scheduler(self, Limits(partners=scenario.partners))

    # -- what it is made of ------------------------------------------------------------------------

    def add_host(self, name: str, *, idc: int, rate: int, is_seed: bool = False) -> Host:
        """A host with a link of *rate* bits a second each way, which announces itself."""
        host = Host(
            name,
            idc=idc,
            up=Link(f"{name} up", self._content(rate)),
            down=Link(f"{name} down", self._content(rate)),
            rate=rate,
            is_seed=is_seed,
        )
        if self.settings.exchange:
            host.exchange = Exchange(self)
        (self.seeds if is_seed else self.hosts).append(host)
        self.by_name[name] = host
        self.scheduler.announce(host)
        return host

    def _content(self, rate: float) -> float:
        """Bytes of content a second over a link of *rate* bits a second."""
        return rate / 8 * self._goodput

    def latency(self, one: Host | None, other: Host | None) -> float:
        """Seconds from one to the other; None: the scheduler, or the origin."""
        near = (one.idc if one else 0) == (other.idc if other else 0)
        return self.settings.latency if near else self.settings.line_latency

    def route(self, source: Host | None, host: Host) -> tuple[Link, ...]:
        """What bytes from *source* to *host* go over; None: from the origin."""
        first = self._origin if source is None else source.up
        here, there = source.idc if source else 0, host.idc
        if here == there:
            return first, host.down
        lines: tuple[Link, ...] = ()
        if self.settings.oversubscribed:
            lines = self._gate(here, "out"), self._gate(there, "in")
        if self.settings.line:
            lines += (self._link(f"idc{here} to idc{there}", self.settings.line),)
        return first, *lines, host.down

    def _gate(self, idc: int, way: str) -> Link:
        """What all that leaves a data centre, or enters it, goes over."""
        settings = self.settings
        return self._link(
            f"idc{idc} {way}",
            settings.rate * settings.hosts / settings.idcs / settings.oversubscribed,
        )

    def _link(self, name: str, rate: float) -> Link:
        found = self._lines.get(name)
        if found is None:
            found = self._lines[name] = Link(name, self._content(rate))
        return found

    def new_peer(self, holding: Holding) -> str:
        """A name for an attempt at what *holding* is for."""
        name = f"{holding.host.name}.{holding.task.number}.{len(self.givers)}"
        self.givers[name] = holding
        return name

    # -- downloads ---------------------------------------------------------------------------------

    def want(self, host: Host, tasks: Sequence[Task]) -> None:
        """*host* wants these, one after the other."""
        self.planned -= 1
        if host.alive:
            self._begin(host.holding(tasks[0]), then=tasks[1:])

    def _begin(
        self, holding: Holding, *, then: Sequence[Task] = (), for_others: bool = False
    ) -> Flight:
        peer = self.new_peer(holding)
        flight = Flight(self, holding, peer, for_others=for_others, then=then)
        self.flights.append(flight)
        self.active += 1
        flight.begin()
        return flight

    def seed(self, host: Host, number: int, call: Call) -> None:
        """The scheduler has asked a seed for a task."""
        holding = host.holding(self.tasks[number - 1])
        flight = holding.flight
        if flight is None or (flight.over and not holding.is_whole):
            flight = self._begin(holding, for_others=True)
        if flight.over:
            self.clock.after(self.latency(None, host), self.scheduler.seed_done, *call)
        else:
            self._asked.setdefault(flight, []).append(call)

    def ended(self, flight: Flight) -> None:
        """A download is over."""
        host = flight.host
        self.active -= 1
        for call in self._asked.pop(flight, ()):
            self.clock.after(self.latency(None, host), self.scheduler.seed_done, *call)
        if not flight.was_heard and flight.holding.is_whole:
            self.tell_held(flight.holding)
        if flight.then:
            self.planned += 1
            self.clock.after(0.0, self.want, host, flight.then)

    def died(self, flight: Flight) -> None:
        """A download has gone with its host."""
        for world, task, seeds in self._asked.pop(flight, ()):
            seconds = self.settings.keepalive if flight.host.silent else self.settings.latency
            self.clock.after(seconds, self.scheduler.seed_failed, world, task, seeds)

    # -- what schedulers do not know ---------------------------------------------------------------

    def tell_held(self, holding: Holding) -> None:
        """A host tells a scheduler that all of a task is here, if there is one."""
        if self.scheduler.up and holding.host.alive and holding.flight is not None:
            words = holding.flight.registration(comes=True)
            self.scheduler.open(Standing(holding, (SourceStarted(), SourceFinished())), words)

    def reappear(self, flight: Flight, standing: Standing | None = None) -> None:
        """Have a new scheduler know that a task is on its way to a host, until it is there."""
        if standing is not None and (flight.over or flight.stream or not flight.host.alive):
            flight.reappears = False
            if standing.stream is not None:
                standing.stream.close()
            return
        if standing is None:
            standing = Standing(flight.holding, (SourceStarted(),))
        elif standing.stream is None and self.scheduler.up:
            self.scheduler.open(standing, flight.registration(comes=True))
        self.clock.after(_LOOK_AGAIN, self.reappear, flight, standing)

    # -- what hosts can give -----------------------------------------------------------------------

    def listen(self, host: Host, flight: Flight, parent: str) -> None:
        """*flight* hears what *host* can give, as that of its peer *parent*."""
        host.listeners[flight, parent] = None
        if self.settings.weights and not host.telling:
            host.telling = True
            self.clock.after(self.latency(host, flight.host), self._tell, host)

    def _tell(self, host: Host) -> None:
        if not host.listeners or not host.alive:
            host.telling = False
            return
        most = host.facts.max_tx_bandwidth
        weight = free_bandwidth(most, round(host.up.load * 8 / self._goodput))
        for flight, parent in list(host.listeners):
            flight.weighed(parent, weight)
        self.clock.after(self.settings.weights, self._tell, host)

    # -- what is written down ----------------------------------------------------------------------

    def carried(self, giver: Holding | None, host: Host, flow: Flow) -> None:
        """Bytes of a piece have come, all or some."""
        came = flow.received(self.clock.now)
        if giver is None:
            self.bytes["origin"] += came
        if host.idc != (giver.host.idc if giver else 0):
            self.bytes["across"] += came
            self.entered[host.idc] += came

    def log(self, *words: Any) -> None:
        """A line of the transcript."""
        line = (self.clock.now, *words)
        self.lines.append(line)
        if self._write is not None:
            self._write(written(line))


def written(line: tuple[Any, ...]) -> str:
    """A line of the transcript as people read it."""
    now, *words = line
    return f"{now:12.6f}  {' '.join(map(str, words))}"
