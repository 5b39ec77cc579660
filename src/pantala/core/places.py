"""Who may have how many of the places that a server has: connections, threads.

Nobody is refused what nobody else wants, and nobody can take so much that others get nothing. An
owner (an address, a user) may have up to four times what is free: one alone gets four fifths of
all, two get four ninths each, and something is always left for the next. (Choudhury and Hahne
share the memory of a switch among its ports that way, 1998.) Beyond that, a newcomer takes the
place of a connection on which nothing goes on: of the owner who has most.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from heapq import heapify, heappop, heapreplace
from typing import Final, Generic, TypeVar

#: How often what is free an owner may have.
GREED: Final = 4

Who = TypeVar("Who", bound=Hashable)


def owner_of(ip: str) -> str:
    """Who stands behind an address: of IPv6, whoever was given its 64 bits of network.

    >>> owner_of("::ffff:10.0.0.1"), owner_of("2001:db8::1"), owner_of("10.0.0.1")
    ('10.0.0.1', '2001:db8::', '10.0.0.1')
    """
    if ":" not in ip:
        return ip
    address = ipaddress.IPv6Address(ip.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def is_fair(has: int, free: int) -> bool:
    """Whether an owner who has so many may have one more of those that are free."""
    return free > 0 and has < GREED * free


class Places(Generic[Who]):
    """The connections of one server.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: Of each owner, the connections without work, in the order in which they ran out of it.
        self._idle: dict[Hashable, OrderedDict[Who, None]] = {}
        self._count: dict[Hashable, int] = {}
        self._owner: dict[Who, Hashable] = {}

    def __len__(self) -> int:
        return len(self._owner)

    def enter(self, owner: Hashable, who: Who) -> tuple[bool, Who | None]:
        """A connection has come, without work yet.

        Returns:
            Whether it may stay, and whom to hang up on for it: that one is not counted any more.
        """
        has = self._count.get(owner, 0)
        leaver = None
        if not is_fair(has, self._limit - len(self)):
            leaver = self._dispensable(has)
            if leaver is None:
                return False, None
            self.leave(leaver)
        self._owner[who] = owner
        self._count[owner] = self._count.get(owner, 0) + 1
        self._idle.setdefault(owner, OrderedDict())[who] = None
        return True, leaver

    def works(self, who: Who) -> None:
        """Something goes on there, and it stays."""
        if who in self._owner:
            self._idle[self._owner[who]].pop(who, None)

    def rests(self, who: Who) -> None:
        """Nothing goes on there any more, from now on."""
        if who in self._owner:
            idle = self._idle[self._owner[who]]
            idle[who] = None
            idle.move_to_end(who)

    def leave(self, who: Who) -> None:
        """It has ended. A second time is harmless."""
        if who not in self._owner:
            return
        owner = self._owner.pop(who)
        self._idle[owner].pop(who, None)
        self._count[owner] -= 1
        if not self._count[owner]:
            del self._count[owner], self._idle[owner]

    def _dispensable(self, least: int) -> Who | None:
        """Whoever has been without work for longest, of the owner who has most.

        Args:
            least: That one must have so many: nobody makes room for one who has more.
        """
        owners = [o for o, idle in self._idle.items() if idle and self._count[o] >= least]
        if not owners:
            return None
        largest = max(owners, key=self._count.__getitem__)
        return next(iter(self._idle[largest]))


def crowded_out(found: Mapping[Who, tuple[Hashable, tuple[bool, int]]], limit: int) -> list[Who]:
    """Which of connections that were all let in must go, so that each owner has his share.

    Args:
        found: The owner of each, and how little it does: whether it never said anything, and
            for how long it has been silent.
        limit: How many there may be.
    """
    by_owner: dict[Hashable, list[Who]] = {}
    for who, (owner, _) in sorted(found.items(), key=lambda item: item[1][1]):
        by_owner.setdefault(owner, []).append(who)
    going, left = [], len(found)
    heap = [(-len(mine), at, mine) for at, mine in enumerate(by_owner.values())]
    heapify(heap)
    while heap:
        count, at, mine = heap[0]
        if is_fair(-count - 1, limit - left + 1):  # he would be given the last one now
            break
        going.append(mine.pop())
        left -= 1
        if mine:
            heapreplace(heap, (count + 1, at, mine))
        else:
            heappop(heap)
    return going
