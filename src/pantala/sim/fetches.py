"""What a download fetches: each piece is a flow over links, that may break off and ends in time.

It does what ``daemon/downloading/fetching.py`` does. What is fetched, and from whom, the transfer
of its :mod:`.flight` has decided, which hears what comes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pantala.core import transfer as t
from pantala.core.pace import Fetching
from pantala.model.task import PieceRecord, Traffic

from .host import Holding
from .network import Flow

if TYPE_CHECKING:
    from .flight import Flight


@dataclass(eq=False, slots=True)
class Job:
    """A fetch under way.

    Attributes:
        giver: Whose upload it is; None: the origin's.
        flow: Its bytes; None before they begin, and after the giver has died.
        sending: What the giver's upload side knows it by.
        begun: When it was asked for.
        received: Bytes that were here when the giver died; None: none were asked for yet.
    """

    number: int
    parent: str | None
    second: bool
    giver: Holding | None
    begun: float
    flow: Flow | None = None
    sending: Any = None
    received: int | None = None
    over: bool = False


class Fetches:
    """Those of one download.

    Args:
        flight: Whose they are.

    Attributes:
        jobs: Those under way, by the number of the piece, and whether it is its second fetch.
    """

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._swarm = flight.swarm
        self.jobs: dict[tuple[int, bool], Job] = {}

    def begin(self, what: t.Fetch) -> None:
        """Ask for a piece."""
        swarm = self._swarm
        giver = None if what.parent is None else swarm.givers[what.parent]
        job = Job(what.number, what.parent, what.second, giver, swarm.clock.now)
        self.jobs[what.number, what.second] = job
        source = None if giver is None else giver.host
        swarm.clock.after(2 * swarm.latency(source, self._flight.host), self._send, job)

    def end(self) -> None:
        """Nothing is to be fetched any more."""
        for job in list(self.jobs.values()):
            self._drop(job)

    def giver_died(self, job: Job) -> None:
        """Nothing more comes of a fetch."""
        if job.flow is not None:
            job.received = job.flow.received(self._swarm.clock.now)
            self._let_go(job)
        self._broken(job)

    def progress(self, now: float) -> dict[tuple[int, bool], Fetching]:
        """How much has come of each that a parent gives."""
        length = self._flight.holding.task.length
        return {
            key: Fetching(
                job.parent,
                job.received if job.flow is None else job.flow.received(now),
                length(key[0]),
            )
            for key, job in self.jobs.items()
            if job.parent is not None
        }

    def _send(self, job: Job) -> None:
        """The first byte of a piece comes, if its giver lives."""
        if job.over:
            return
        if job.giver is not None and not job.giver.host.alive:
            job.received = 0  # it is asked, and says nothing
            self._broken(job)
            return
        if job.giver is not None:
            job.sending = job.giver.uploads.asked(job.number)
        flight, swarm = self._flight, self._swarm
        links = swarm.route(job.giver.host if job.giver else None, flight.host)
        length = flight.holding.task.length(job.number)
        job.flow = swarm.network.start(links, length, self._arrived, job)
        if job.giver is not None:
            swarm.sending.setdefault(job.giver.host, {})[job] = self

    def _arrived(self, job: Job) -> None:
        """All of a piece is here."""
        flight, swarm = self._flight, self._swarm
        holding, number, now = flight.holding, job.number, swarm.clock.now
        length = holding.task.length(number)
        self._drop(job)
        other = self.jobs.get((number, not job.second))
        if other is not None:
            self._drop(other)
        if job.parent is not None:
            flight.pace.took(job.parent, length, now - job.begun)
        traffic = Traffic.BACK_TO_SOURCE if job.parent is None else Traffic.REMOTE_PEER
        piece = PieceRecord(
            number=number,
            offset=number * holding.task.piece_length,
            length=length,
            digest="",
            parent_id=job.parent,
            traffic=traffic,
            cost=now - job.begun,
            created_at=now,
        )
        holding.pieces |= 1 << number
        holding.bytes += length
        swarm.log(flight.host.name, "has", number, "of", job.giver.host.name if job.giver else "")
        holding.uploads.publish(number)
        flight.on(t.Stored(piece, job.second))

    def _drop(self, job: Job) -> None:
        """It goes on no more; its bytes stop."""
        job.over = True
        self.jobs.pop((job.number, job.second), None)
        self._let_go(job)

    def _let_go(self, job: Job) -> None:
        flow = job.flow
        if flow is None:
            return
        self._swarm.carried(job.giver, self._flight.host, flow)
        self._swarm.network.cancel(flow)
        job.flow = None
        if job.giver is not None:
            job.giver.uploads.sent(job.sending, arrived=flow.arrived)
            del self._swarm.sending[job.giver.host][job]

    def _broken(self, job: Job) -> None:
        """The giver is dead: a reset tells of it soon, silence after a while."""
        settings = self._swarm.settings
        silent = job.giver is not None and job.giver.host.silent
        self._swarm.clock.after(settings.stall if silent else settings.latency, self._lost, job)

    def _lost(self, job: Job) -> None:
        if not job.over:
            self._drop(job)
            self._flight.on(t.Lost(job.number, second=job.second))
