"""What must hold at any time, whatever happens to a swarm.

    slots     no host sends more pieces at once than it has slots, or has more children than it may;
              no download fetches more at once than it may
    waiting   nobody waits for nobody: a download fetches something, or the scheduler has the word,
              or a chain of those it follows leads to one that does, or that has what it lacks; or
              it waits for no longer than a transfer waits before it asks again
    whole     who has finished has every byte
    messages  a download says a bounded number of things, and hears so
    time      it goes on: nobody does something again and again without waiting

All of it is looked at now and then during a run, and at its end.
"""

from __future__ import annotations

from collections.abc import Iterable

from pantala.core.giving import MOST_PLACES
from pantala.core.transfer import MAX_TWICE, Phase

from .flight import Flight
from .host import Holding
from .swarm import Swarm

#: Seconds beyond those of a keepalive after which a dead parent is taken for one no more.
_SLACK = 15.0


class Broken(Exception):
    """An invariant does not hold; the message says which, and for whom."""


def check(swarm: Swarm) -> None:
    """Raises Broken: something does not hold now."""
    flights = [flight for flight in swarm.flights if not flight.over]
    check_slots(swarm, flights)
    check_waiting(swarm, flights)
    check_messages(swarm, flights)


def check_end(swarm: Swarm) -> None:
    """Raises Broken: something does not hold, or somebody has not finished who should have."""
    check(swarm)
    check_whole(swarm.flights)
    left = [flight for flight in swarm.flights if _should_finish(flight)]
    if left:
        why = left[0].failed or "it is under way"
        raise Broken(f"{len(left)} have not finished, the first is {_name(left[0])}: {why}")
    if swarm.planned:
        raise Broken(f"{swarm.planned} downloads have not begun")


def check_slots(swarm: Swarm, flights: Iterable[Flight]) -> None:
    """Raises Broken: there is more at once than there may be."""
    for flight in flights:
        transfer = flight.transfer
        fetches = len(transfer.in_flight) + len(transfer.second)
        going = len(flight.fetches.jobs)
        if fetches != going:
            raise Broken(f"{_name(flight)}: {fetches} fetches decided, {going} go on")
        # As many again where some are stuck, and those that are asked for twice.
        if fetches > 2 * transfer.max_in_flight + MAX_TWICE:
            raise Broken(f"{_name(flight)}: {fetches} fetches at once")
    for host in (*swarm.seeds, *swarm.hosts):
        if host.exchange is not None and len(host.exchange.slots) > 2 * MOST_PLACES:
            raise Broken(f"{host.name} sends {len(host.exchange.slots)} pieces at once")
    for known in swarm.scheduler.world.hosts.values():
        if known.uploads > known.upload_limit:
            raise Broken(f"{known.id} has {known.uploads} children, of {known.upload_limit}")


def check_waiting(swarm: Swarm, flights: list[Flight]) -> None:
    """Raises Broken: somebody waits for nobody."""
    hungry = {flight for flight in flights if not flight.fetches.jobs and not _has_word(flight)}
    fed: dict[Holding, bool] = {}
    for flight in hungry:
        if not _is_patient(swarm, flight) and not _is_fed(swarm, flight, hungry, fed):
            parents = ", ".join(each.giver.host.name for each in flight.follows.values())
            raise Broken(f"{_name(flight)} waits for nobody; it follows {parents or 'no one'}")


def _is_patient(swarm: Swarm, flight: Flight) -> bool:
    """Whether it waits for a while for those it follows, whoever they are, and asks then."""
    transfer = flight.transfer
    since = max(transfer.got_on_at, transfer.asked_at)
    return swarm.clock.now - since < transfer.patience + swarm.settings.look + 1e-6


def _is_fed(swarm: Swarm, flight: Flight, hungry: set[Flight], fed: dict[Holding, bool]) -> bool:
    """Whether what *flight* follows leads to somebody who has, or gets, something."""
    todo, seen = [flight], {flight}
    while todo:
        at = todo.pop()
        for following in at.follows.values():
            giver = following.giver
            if following.over or fed.get(giver) is False:
                continue
            if not giver.host.alive:
                if _may_be_believed(swarm, giver):
                    return True
                continue
            other = giver.flight
            if other is None or other.over or other not in hungry:
                return True
            if giver.pieces & ~at.holding.pieces:
                return True
            if other not in seen:
                seen.add(other)
                todo.append(other)
    fed[flight.holding] = False
    return False


def _may_be_believed(swarm: Swarm, dead: Holding) -> bool:
    """Whether it has died so recently that its children need not know."""
    died = dead.host.died or 0.0
    return swarm.clock.now - died < swarm.settings.keepalive + _SLACK


def _has_word(flight: Flight) -> bool:
    """Whether the scheduler is to say something to it."""
    asking = flight.transfer.phase is Phase.ASKING
    return asking and flight.stream is not None and flight.stream.asked


def check_messages(swarm: Swarm, flights: Iterable[Flight]) -> None:
    """Raises Broken: a download has said, or heard, more than is reasonable."""
    for flight in flights:
        transfer, stream = flight.transfer, flight.stream
        # It asks again when nothing comes, ever less often. Of each other download it hears once
        # as of a partner, and perhaps again after they have parted.
        asked = transfer.max_schedules + 1 + (swarm.clock.now - flight.begun)
        if stream is not None and stream.answered > asked:
            raise Broken(f"{_name(flight)} has asked its scheduler {stream.answered} times")
        if stream is not None and stream.pushed > 2 * len(swarm.flights) + 2:
            raise Broken(f"{_name(flight)} has heard {stream.pushed} things without asking")
        # Each piece came once, or was lost, which bans a parent, of which there are few.
        lost = 2 * transfer.max_in_flight * len(transfer.parents)
        if flight.told > 2 * flight.holding.task.pieces + 4 * (asked + lost):
            raise Broken(f"{_name(flight)} has told its scheduler {flight.told} things")


def check_time(swarm: Swarm, before: float) -> float:
    """The time now. Raises Broken: it is still *before*, a great many events later."""
    if swarm.clock.now == before:
        raise Broken(f"time stands still; next is {swarm.clock.next}")
    return swarm.clock.now


def check_whole(flights: Iterable[Flight]) -> None:
    """Raises Broken: somebody has finished without having everything."""
    for flight in flights:
        holding = flight.holding
        if flight.over and not flight.failed and not holding.is_whole:
            raise Broken(f"{_name(flight)} has finished without having everything")
        if holding.is_whole and holding.bytes < holding.task.size:
            raise Broken(f"{_name(flight)} has all pieces, and {holding.bytes} bytes")


def _should_finish(flight: Flight) -> bool:
    return flight.host.alive and (not flight.over or bool(flight.failed))


def _name(flight: Flight) -> str:
    return f"{flight.host.name}, task {flight.holding.task.number}"
