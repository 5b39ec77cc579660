"""What goes wrong: hosts that die, seeds, and the scheduler."""

from __future__ import annotations

import random

from .host import Host
from .swarm import Swarm


def kill(swarm: Swarm, host: Host) -> None:
    """*host* dies: all at once, and for good."""
    if not host.alive:
        return
    host.alive, host.silent, host.died = False, swarm.settings.silent, swarm.clock.now
    swarm.log(host.name, "dies")
    for holding in host.holdings.values():
        if holding.flight is not None:
            holding.flight.die()
            swarm.died(holding.flight)
    for job, fetches in list(swarm.sending.get(host, {}).items()):
        fetches.giver_died(job)


def stop_scheduler(swarm: Swarm) -> None:
    """The scheduler's process ends; a new one is there after a while."""
    swarm.log("scheduler", "stops")
    swarm.scheduler.stop()
    swarm.clock.after(swarm.settings.scheduler_away, _start_scheduler, swarm)


def _start_scheduler(swarm: Swarm) -> None:
    swarm.log("scheduler", "starts")
    swarm.scheduler.start()
    for host in (*swarm.seeds, *swarm.hosts):
        # Daemons notice within a second.
        swarm.clock.after(swarm.rng.random(), _tell_all, swarm, host)


def _tell_all(swarm: Swarm, host: Host) -> None:
    """A host tells a new scheduler of itself, and of all that it holds."""
    if not host.alive or not swarm.scheduler.up:
        return
    swarm.scheduler.announce(host)
    for holding in host.holdings.values():
        if holding.is_whole:
            swarm.tell_held(holding)


def plan(swarm: Swarm, chance: random.Random) -> None:
    """Put everything on the clock that is to go wrong."""
    settings, ideal = swarm.settings, swarm.settings.ideal
    for host in chance.sample(swarm.hosts, round(settings.dying * len(swarm.hosts))):
        when = chance.uniform(settings.dying_from, settings.dying_until) * ideal
        swarm.clock.at(when, kill, swarm, host)
    if settings.seed_dies and swarm.seeds:
        swarm.clock.at(settings.seed_dies * ideal, kill, swarm, swarm.seeds[0])
    if settings.scheduler_stops:
        swarm.clock.at(settings.scheduler_stops * ideal, stop_scheduler, swarm)
