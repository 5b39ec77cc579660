"""What those who follow this host say that they have, believed of who they are.

A follower names itself as schedulers know it. Anybody could name another: then this host would
wait for pieces of one who has not got them. So it counts only from the address at which the
scheduler says that this peer is. Who is not known yet may be named in a moment; until then it is
kept what was said, of each that follows here now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import AddressValueError

from pantala.core.places import owner_of
from pantala.core.transfer import GONE
from pantala.model.announce import Candidate


def _whose(ip: str) -> str:
    """Who stands behind an address; what is none stands for itself."""
    try:
        return owner_of(ip)
    except AddressValueError:
        return ip


class Hearing:
    """See the module.

    Args:
        tell: Called with a peer, what it lacks, and what it has or fetches, if that is its word.
    """

    def __init__(self, tell: Callable[[str, int, int], None]) -> None:
        self._tell = tell
        #: Where the peers are of which the scheduler has told.
        self._at: dict[str, str] = {}
        #: Of those of which it has not: by name and address, what each has.
        self._early: dict[tuple[str, str], int] = {}

    def told(self, peer: str, address: str, lacks: int, has: int) -> None:
        """Whoever calls from *address* says so, of *peer*; :data:`GONE`: it follows no more."""
        whose, at = _whose(address), self._at.get(peer)
        if at == whose:
            self._tell(peer, lacks, has)
        elif at is None:
            early = 0 if lacks == GONE else (self._early.get((peer, whose), 0) | has) & ~lacks
            if early:
                self._early[peer, whose] = early
            else:
                self._early.pop((peer, whose), None)

    def know(self, candidates: Iterable[Candidate]) -> None:
        """The scheduler tells of these."""
        for candidate in candidates:
            self._at[candidate.peer_id] = _whose(candidate.host.ip)
        for peer, whose in [each for each in self._early if each[0] in self._at]:
            has = self._early.pop((peer, whose))
            if self._at[peer] == whose:
                self._tell(peer, 0, has)
