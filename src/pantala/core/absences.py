"""Schedulers that have gone a moment ago: who is waited for, and when another takes over.

Without a scheduler there is the origin alone, and all who begin something meanwhile would go
there, though the swarm has the content. So a scheduler that has answered until now is waited for a
few seconds before it is done without; and when it is back and knows nothing, a moment more, in
which the hosts tell it what they hold. The time counts from when it went, for all who wait: one
that is gone for good costs that once, and whoever begins later waits for nothing.

Where others answer, they take over sooner: by the hash ring each task of the one that is gone is
then another's, and all hosts know whose. They tell it what they hold, and it is given a moment for
that, too.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from .beliefs import owner

#: Seconds that one may be away if there is no other. A container or unit that is started anew takes
#: one to three until it listens, or five where its supervisor pauses before, and hosts call again
#: every second and a half, give or take a fifth.
RETURN: Final = 8.0

#: Seconds until those who hold something have told one that knows nothing: those two until the
#: slowest calls again, a second until one who is at the origin does.
RECALL: Final = 3.0

#: Seconds after which the others take over. All hosts notice at the same moment when a process
#: ends, for the kernel of its machine ends its connections.
TAKE_OVER: Final = 1.0

#: Seconds until those who hold something have told one that took over. They need not call: they
#: have a connection, and a thousand tasks go in a few messages.
HAND_OVER: Final = 1.0


class Absences:
    """Which schedulers are worth waiting for. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        #: When those went that have been there, and when the others have been told; one of each.
        self._away: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def lost(self, address: str, now: float) -> None:
        """A scheduler does not answer that did until *now*."""
        if address in self._told:
            self._away.setdefault(address, now)

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
        patience = TAKE_OVER if available else RETURN
        ends = {address: went + patience for address, went in self._away.items()}
        away = {address for address, end in ends.items() if now < end}
        mine = owner(task_id, frozenset(available | away))
        if mine is None:
            return 0.0
        if mine in away:
            return ends[mine] - now
        heard = {address for address, end in ends.items() if now < end + HAND_OVER}
        former = owner(task_id, frozenset(available | heard))
        handed = ends[former] + HAND_OVER if former in heard else now
        return max(0.0, max(handed, self._told.get(mine, now)) - now)
