"""Schedulers that have gone a moment ago, and are perhaps only being started anew.

Without a scheduler there is the origin alone, and all who begin something meanwhile would go
there, though the swarm has the content. So a scheduler that has answered until now is waited for a
few seconds before it is done without; and when it is back and knows nothing, a moment more, in
which the hosts tell it what they hold. The time counts from when it went, for all who wait: one
that is gone for good costs that once, and whoever begins later waits for nothing.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from .beliefs import owner

#: Seconds that one may be away. A container or unit that is started anew takes one to three until
#: it listens, or five where its supervisor pauses before, and hosts call again every second and a
#: half, give or take a fifth.
RETURN: Final = 8.0

#: Seconds until those who hold something have told one that knows nothing: those two until the
#: slowest calls again, a second until one who is at the origin does.
RECALL: Final = 3.0


class Absences:
    """Which schedulers are worth waiting for. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        #: When those that have been there are done without, or have been told; one of each.
        self._away: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def lost(self, address: str, now: float) -> None:
        """A scheduler does not answer that did until *now*."""
        if address in self._told:
            self._away.setdefault(address, now + RETURN)

    def back(self, address: str, now: float, *, blank: bool) -> None:
        """One has answered an announcement; *blank*: perhaps it knows nothing of this host."""
        self._away.pop(address, None)
        if address not in self._told:
            self._told[address] = now  # we are who is new
        elif blank:
            self._told[address] = now + RECALL

    def listed(self, addresses: AbstractSet[str]) -> None:
        """There are no others than these any more."""
        for known in (self._away, self._told):
            for address in known.keys() - addresses:
                del known[address]

    def wait(self, task_id: str, available: AbstractSet[str], now: float) -> float:
        """Seconds to wait at most before a task's scheduler is asked; 0: none.

        Args:
            task_id: The task.
            available: Schedulers that answer.
            now: The time.
        """
        away = {address for address, end in self._away.items() if now < end}
        mine = owner(task_id, frozenset(available | away))
        if mine is None:
            return 0.0
        return max(0.0, (self._away if mine in away else self._told).get(mine, now) - now)
