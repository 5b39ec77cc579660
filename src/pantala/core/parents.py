"""What one download knows of those who have pieces for it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Parent:
    """A peer that the scheduler named."""

    weight: float
    #: It may still offer more.
    open: bool = True
    #: Not to be asked again in this download.
    bad: bool = False
    #: Fetches from it under way.
    busy: int = 0
    #: The last fetch from it got stuck: others are asked first.
    doubtful: bool = False


def choose(parents: Mapping[str, Parent], names: list[str], rng: random.Random) -> str:
    """One of *names*, the likelier the more free bandwidth it has per fetch under way.

    Those whose last fetch got stuck come last.
    """
    names = [name for name in names if not parents[name].doubtful] or names
    if len(names) == 1:
        return names[0]
    weights = [parents[n].weight / (1 + parents[n].busy) for n in names]
    return rng.choices(names, weights)[0]
