"""A scenario becomes a swarm, and the swarm is run to its end."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import faults
from .host import Task
from .invariants import Broken, check, check_end, check_time
from .scenario import Scenario
from .swarm import Swarm


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run has ended.

    Attributes:
        swarm: As it is then.
        broken: What did not hold; ``""`` if all did.
    """

    swarm: Swarm
    broken: str


def build(scenario: Scenario, write: Callable[[str], Any] | None = None) -> Swarm:
    """The swarm of a scenario, with all that is to happen to it on its clock.

    Args:
        scenario: Which.
        write: Given each line of the transcript.
    """
    swarm = Swarm(scenario, write)
    chance = random.Random(f"scenario {scenario.seed}")  # noqa: S311  to be repeated
    for at in range(scenario.seeds):
        swarm.add_host(f"seed{at}", idc=0, rate=scenario.seed_rate or scenario.rate, is_seed=True)
    factors = _factors(scenario, chance)
    for at in range(scenario.hosts):
        swarm.add_host(f"h{at}", idc=at % scenario.idcs, rate=round(scenario.rate * factors[at]))
    weights = [1 / (place + 1) for place in range(scenario.tasks)]
    for at, host in enumerate(swarm.hosts):
        tasks = _draw(swarm.tasks, weights, scenario.wants, chance)
        begin = scenario.spread * scenario.ideal * at / scenario.hosts
        swarm.planned += 1
        swarm.clock.at(begin, swarm.want, host, tasks)
    faults.plan(swarm, chance)
    return swarm


def _factors(scenario: Scenario, chance: random.Random) -> list[float]:
    """What each host's rate is multiplied with."""
    factors = [
        factor for share, factor in scenario.mixed for _ in range(round(share * scenario.hosts))
    ][: scenario.hosts]
    factors += itertools.repeat(1.0, scenario.hosts - len(factors))
    chance.shuffle(factors)
    return factors


def _draw(
    tasks: list[Task], weights: list[float], number: int, chance: random.Random
) -> list[Task]:
    """*number* of *tasks*, each once, the likelier the more weight they have."""
    left, found = dict(zip(tasks, weights, strict=True)), []
    for _ in range(number):
        task = chance.choices(list(left), list(left.values()))[0]
        del left[task]
        found.append(task)
    return found


def run(scenario: Scenario, write: Callable[[str], Any] | None = None) -> Outcome:
    """Run it until everybody has finished, or something does not hold."""
    swarm = build(scenario, write)
    clock, every = swarm.clock, scenario.check_every
    # Everybody may begin at one moment, and do a dozen things then.
    still, before = 100_000 + 100 * scenario.hosts, -1.0
    until = scenario.ideal * (scenario.patience + scenario.spread)
    try:
        while (swarm.planned or swarm.active) and len(clock) and clock.now <= until:
            clock.step()
            if every and clock.events % every == 0:
                check(swarm)
            if clock.events % still == 0:
                before = check_time(swarm, before)
        check_end(swarm)
    except Broken as broken:
        return Outcome(swarm, str(broken))
    return Outcome(swarm, "")
