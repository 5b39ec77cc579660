"""How a task is cut, if those who hold it do not agree.

The shape that is vouched for from the most addresses counts, else the one that somebody vouched
for first: a stranger at one address outvotes nobody who was there before him, however many hosts
he makes up, and two honest hosts elsewhere outvote him. Among voters at the very same addresses,
as where all are behind one, hosts are counted instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import KeysView

from .shape import Shape


class Votes:
    """Who vouches for which shape."""

    __slots__ = ("_cast", "_voters", "winner")

    def __init__(self) -> None:
        #: By who cast it: a shape, an address, and a host.
        self._cast: dict[str, tuple[Shape, str, str]] = {}
        #: By shape: addresses, and hosts, with how many votes each cast.
        self._voters: dict[Shape, tuple[Counter[str], Counter[str]]] = {}
        #: The shape that counts; None while nobody vouches for any.
        self.winner: Shape | None = None

    @property
    def voters(self) -> KeysView[str]:
        """Who vouches for any."""
        return self._cast.keys()

    def cast(self, voter: str, shape: Shape, address: str, host: str) -> bool:
        """*voter*, of *host* at *address*, vouches for *shape*. Whether that is news."""
        if voter in self._cast:
            return False
        self._cast[voter] = (shape, address, host)
        addresses, hosts = self._voters.setdefault(shape, (Counter(), Counter()))
        addresses[address] += 1
        hosts[host] += 1
        winner = self.winner
        if winner is None or (shape != winner and self._beats(shape, winner)):
            self.winner = shape
        return True

    def withdraw(self, voter: str) -> bool:
        """*voter* vouches for nothing. Whether that is news."""
        vote = self._cast.pop(voter, None)
        if vote is None:
            return False
        shape, address, host = vote
        addresses, hosts = self._voters[shape]
        for counter, name in ((addresses, address), (hosts, host)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]
        if not hosts:
            del self._voters[shape]
        if shape == self.winner:
            self.winner = None
            for rival in self._voters:
                if self.winner is None or self._beats(rival, self.winner):
                    self.winner = rival
        return True

    def _beats(self, shape: Shape, other: Shape) -> bool:
        mine, theirs = self._voters[shape], self._voters[other]
        if mine[0].keys() == theirs[0].keys():
            return len(mine[1]) > len(theirs[1])
        return len(mine[0]) > len(theirs[0])
