"""Members in groups, of which one is drawn mostly from its own."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from pantala.core.sample import Chance, SampleSet

T = TypeVar("T", bound=Hashable)


class Pool(Generic[T]):
    """Members each once, in one group each; all but drawing takes constant time."""

    __slots__ = ("_all", "_group_of", "_groups")

    def __init__(self) -> None:
        self._all: SampleSet[T] = SampleSet()
        #: No group without a member. That of the empty name is not kept: it is no group.
        self._groups: dict[str, SampleSet[T]] = {}
        self._group_of: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, member: T) -> bool:
        return member in self._all

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    def group_of(self, member: T) -> str:
        """The group that *member*, which is there, is in; ``""`` for none."""
        return self._group_of.get(member, "")

    def has_others(self, group: str) -> bool:
        """Whether some are in another group than *group*, or in none; not if that is none."""
        return bool(group) and len(self._groups.get(group, ())) < len(self._all)

    def add(self, member: T, group: str) -> None:
        """Take *member* in, or move it to *group*; ``""`` is none."""
        if member in self._all:
            if self.group_of(member) == group:
                return
            self.discard(member)
        self._all.add(member)
        if group:
            self._group_of[member] = group
            self._groups.setdefault(group, SampleSet()).add(member)

    def discard(self, member: T) -> None:
        """Let *member* go, if it is there."""
        self._all.discard(member)
        group = self._group_of.pop(member, "")
        if group:
            members = self._groups[group]
            members.discard(member)
            if not members:
                del self._groups[group]

    def members(self, group: str) -> SampleSet[T] | tuple[T, ...]:
        """Those of *group*, roughly in the order in which they came."""
        return self._groups.get(group) or ()

    def near(self, group: str, chance: Chance, most: int) -> Iterator[T]:
        """Up to so many members of *group* in random order; of all, if it is none.

        Do not change the pool meanwhile.
        """
        members = self._groups.get(group) if group else self._all
        return islice(members.shuffled(chance), most) if members else iter(())

    def anywhere(self, chance: Chance, most: int) -> Iterator[T]:
        """Likewise of all, whatever their group."""
        return islice(self._all.shuffled(chance), most)
