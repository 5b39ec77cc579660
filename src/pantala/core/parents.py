"""What one download knows of those who have pieces for it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Bag:
    """A set of numbers from which a random one can be had in constant time."""

    def __init__(self) -> None:
        self._items: list[int] = []
        self._where: dict[int, int] = {}

    def __contains__(self, item: int) -> bool:
        return item in self._where

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def add(self, item: int) -> None:
        """Put *item* in, once."""
        if item not in self._where:
            self._where[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: int) -> None:
        """Take *item* out if it is there."""
        at = self._where.pop(item, None)
        if at is None:
            return
        last = self._items.pop()
        if last != item:
            self._items[at] = last
            self._where[last] = at

    def choice(self, rng: random.Random) -> int:
        """Any item."""
        return self._items[rng.randrange(len(self._items))]


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
