"""A set that gives its members in random order, at a cost of only those taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Chance(Protocol):
    """What is wanted of ``random.Random``."""

    def randrange(self, stop: int, /) -> int:
        """A number from 0 up to, not including, *stop*."""

    def random(self) -> float:
        """A number from 0.0 up to, not including, 1.0."""


class SampleSet(Generic[T]):
    """Members each once; adding, removing and drawing take constant time."""

    __slots__ = ("_members", "_places")

    def __init__(self) -> None:
        self._members: list[T] = []
        self._places: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: T) -> bool:
        return member in self._places

    def __iter__(self) -> Iterator[T]:
        return iter(self._members)

    def add(self, member: T) -> None:
        """Take *member* in, unless it is there."""
        if member not in self._places:
            self._places[member] = len(self._members)
            self._members.append(member)

    def discard(self, member: T) -> None:
        """Let *member* go, if it is there."""
        place = self._places.pop(member, None)
        if place is None:
            return
        last = self._members.pop()
        if place < len(self._members):
            self._members[place] = last
            self._places[last] = place

    def choice(self, chance: Chance) -> T:
        """Any member, each as likely as any other. Raises ValueError if there is none."""
        return self._members[chance.randrange(len(self._members))]

    def shuffled(self, chance: Chance) -> Iterator[T]:
        """All members, each order as likely as any other. Do not change the set meanwhile."""
        # Fisher and Yates, except that swaps are noted beside the list: only what is drawn costs.
        swapped: dict[int, int] = {}
        members, random, get = self._members, chance.random, swapped.get
        for last in range(len(members) - 1, -1, -1):
            at = int(random() * (last + 1))  # a third of the time that randrange takes
            drawn = get(at, at)
            swapped[at] = get(last, last)
            yield members[drawn]
