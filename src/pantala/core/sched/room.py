"""How much is kept of hosts, peers and tasks: a share for each address, and an end for all."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from pantala.core.shares import Shares
from pantala.errors import Busy, NoProvider
from pantala.model.announce import Registration

from .entities import TaskKey
from .rules import Limits

#: Bytes that a host takes with an announcement of the largest size, and a peer with its task but
#: without its words. Measured: 0.6 KiB and the announcement, and 7.9 KiB.
HOST: Final = 10 * 1024
PEER: Final = 8 * 1024


class Room:
    """Counts what is kept, by the accounts of hosts."""

    def __init__(self, limits: Limits) -> None:
        self._shares = Shares(total=limits.kept, each=limits.kept_each)
        self._idle_limit = limits.idle_tasks
        #: Tasks without peers, the one that lost its last peer first.
        self._idle: OrderedDict[TaskKey, None] = OrderedDict()

    @property
    def used(self) -> int:
        """Bytes that are counted now."""
        return self._shares.used

    def admit_host(self, account: str) -> None:
        """Count a new host. Raises Busy: there is no room for it."""
        if not self._shares.fits(account, HOST):
            raise Busy(_refusal(account))
        self._shares.take(account, HOST)

    def host_left(self, account: str) -> None:
        """A host that was admitted is forgotten: give its share back."""
        self._shares.give(account, HOST)

    def check_peer(self, account: str, words: Registration) -> None:
        """Raises NoProvider: there is no room for a peer with these words."""
        if not self._shares.fits(account, PEER + words.size):
            raise NoProvider(_refusal(account))

    def peer_came(self, account: str, words: Registration, task: TaskKey) -> None:
        """A new peer, which :meth:`check_peer` let in."""
        self._shares.take(account, PEER + words.size)
        self._idle.pop(task, None)

    def peer_left(self, account: str, words: Registration) -> None:
        """A peer that came with these words is forgotten: give its share back."""
        self._shares.give(account, PEER + words.size)

    def admit_digests(self, account: str, size: int) -> bool:
        """Count what digests of pieces take; False: there is no room for them, and none is taken.

        Nothing fails for want of them.
        """
        fits = self._shares.fits(account, size)
        if fits:
            self._shares.take(account, size)
        return fits

    def digests_left(self, account: str, size: int) -> None:
        """Digests that were admitted are forgotten: give their share back."""
        self._shares.give(account, size)

    def task_idle(self, task: TaskKey) -> TaskKey | None:
        """A task has lost its last peer. Returns the task that there is no room for any more."""
        self._idle[task] = None
        return next(iter(self._idle)) if len(self._idle) > self._idle_limit else None

    def task_left(self, task: TaskKey) -> None:
        """A task is forgotten: it waits among the idle ones no more."""
        self._idle.pop(task, None)


def _refusal(account: str) -> str:
    return (
        f"too much is kept of hosts at {account}, or of all: no room for more before some leave; "
        "or raise scheduler.stateLimitPerAddress and scheduler.stateLimit"
    )
