"""Hosts by what they are, in the order of their ids: what is asked of some does not look at all."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from pantala.model.announce import HostFacts


class _Place(NamedTuple):
    seed: bool
    ours: bool
    ip: str


class Roster:
    """What all hosts say of themselves.

    Args:
        hosts: That are there from the beginning.
    """

    def __init__(self, hosts: Iterable[HostFacts] = ()) -> None:
        self._facts: dict[str, HostFacts] = {}
        self._places: dict[str, _Place] = {}
        #: Ids in their order, of seeds or not, and of ours or not.
        self._ids: dict[tuple[bool, bool], list[str]] = {
            (seed, ours): [] for seed in (False, True) for ours in (False, True)
        }
        #: Ids of seeds or not, at an address.
        self._at: dict[tuple[bool, str], set[str]] = {}
        for host in hosts:
            self.put(host)

    def put(self, host: HostFacts) -> None:
        """*host* is there, or has something new to say."""
        place = _Place(host.is_seed, host.is_ours, host.ip)
        self._facts[host.id] = host
        if self._places.get(host.id) == place:
            return
        self._displace(host.id)
        self._places[host.id] = place
        insort(self._ids[place.seed, place.ours], host.id)
        self._at.setdefault((place.seed, place.ip), set()).add(host.id)

    def discard(self, host_id: str) -> None:
        """That host is gone."""
        self._displace(host_id)
        self._facts.pop(host_id, None)

    def count(self, *, seeds: bool) -> int:
        """How many seeds, or others, there are."""
        return len(self._ids[seeds, False]) + len(self._ids[seeds, True])

    def each(self, *, seeds: bool, ours_first: bool | None = None) -> Iterator[HostFacts]:
        """Seeds, or others, by their ids. Do not change it meanwhile.

        Args:
            seeds: Which.
            ours_first: All of ours come before all others; False: after. None: among them.
        """
        ours, others = self._ids[seeds, True], self._ids[seeds, False]
        if ours_first is None:
            ids: Iterable[str] = heapq.merge(ours, others)
        else:
            ids = chain(ours, others) if ours_first else chain(others, ours)
        return map(self._facts.__getitem__, ids)

    def at(self, ip: str, *, seeds: bool) -> list[HostFacts]:
        """Those at an address, in any order."""
        return [self._facts[each] for each in self._at.get((seeds, ip), ())]

    def _displace(self, host_id: str) -> None:
        place = self._places.pop(host_id, None)
        if place is None:
            return
        ids = self._ids[place.seed, place.ours]
        del ids[bisect_left(ids, host_id)]
        here = self._at[place.seed, place.ip]
        here.discard(host_id)
        if not here:
            del self._at[place.seed, place.ip]
