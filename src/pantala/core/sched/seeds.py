"""Which seed fetches a task from its origin."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pantala.core.ring import SeedRing
from pantala.model.task import DownloadRequest

from .entities import Host, Task

#: Bytes of a task up to which a stock daemon goes to the origin without telling a scheduler.
_STOCK_IS_QUIET: Final = 4 * 1024 * 1024


def for_seed(request: DownloadRequest) -> DownloadRequest:
    """What a seed is asked for, so that it fetches what a peer wants: from the origin."""
    return replace(request, need_back_to_source=True, disable_back_to_source=False)


def _is_for_stock(task: Task) -> bool:
    """Whether a stock daemon can be asked for *task*, and would then be a parent."""
    return not task.rules.ours_only and task.shape.content_length > _STOCK_IS_QUIET


class Seeds:
    """The hosts that are seeds, placed on a hash ring."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        #: Until when those that failed are not asked.
        self._resting: dict[str, float] = {}
        self._members: frozenset[str] = frozenset()
        self._ring = SeedRing(())

    def update(self, host: Host) -> None:
        """*host* has announced itself: it is a seed, or is none any more, and need not rest."""
        self._resting.pop(host.id, None)
        if host.is_seed and host.shares:
            self._hosts[host.id] = host
        else:
            self.discard(host)

    def discard(self, host: Host) -> None:
        """*host* is gone, or is no seed any more."""
        self._resting.pop(host.id, None)
        self._hosts.pop(host.id, None)

    def leave_out(self, host: Host, until: float) -> None:
        """*host* could not be reached: do not ask it again until then, or until it is heard of."""
        if host.id in self._hosts:
            self._resting[host.id] = until

    def order(self, task: Task, now: float) -> list[Host]:
        """Seeds that may be asked for *task*: the one it belongs to first, then the others."""
        return self.order_of(task.id, now, ours_only=not _is_for_stock(task))

    def order_of(self, task_id: str, now: float, *, ours_only: bool) -> list[Host]:
        """Likewise of a task that need not be known; *ours_only*: stock seeds are left out."""
        able = {
            host.facts.address: host
            for host in self._hosts.values()
            if (host.is_ours or not ours_only) and self._resting.get(host.id, now) <= now
        }
        if self._members != able.keys():
            self._members = frozenset(able)
            self._ring = SeedRing(able)
        return [able[address] for address in self._ring.order(task_id)]
