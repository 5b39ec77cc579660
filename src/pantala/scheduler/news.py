"""What peers are to hear without having asked, on the streams that they have open."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from pantala.core.sched.entities import Peer

#: Seconds in which news are gathered: what a peer is to hear meanwhile is one message. Of peers
#: that start together each hears of most others within that time.
_GATHER: Final = 0.05


class Hearer(Protocol):
    """The announce stream of a peer."""

    def wake(self) -> None:
        """Tell the peer what there is to tell."""

    def orphaned(self) -> None:
        """Find new parents for the peer."""


class News:
    """Knows the streams of all peers. What there is to tell, the world knows."""

    def __init__(self) -> None:
        self._hearers: dict[Peer, Hearer] = {}
        #: Those who have news, the first one first.
        self._due: dict[Peer, None] = {}
        self._some = asyncio.Event()

    def opened(self, peer: Peer, hearer: Hearer) -> None:
        """*peer* can be told something by *hearer*."""
        self._hearers[peer] = hearer

    def closed(self, peer: Peer) -> None:
        """It cannot any more."""
        self._hearers.pop(peer, None)
        self._due.pop(peer, None)

    def partnered(self, peer: Peer) -> None:
        """*peer* has got a partner."""
        if peer in self._hearers:
            self._due[peer] = None
            self._some.set()

    def orphaned(self, peer: Peer) -> None:
        """*peer* has lost its parents."""
        hearer = self._hearers.get(peer)
        if hearer is not None:
            hearer.orphaned()

    async def turn(self) -> None:
        """Wait for news, gather some more, and wake those whom they are for."""
        await self._some.wait()
        await asyncio.sleep(_GATHER)
        self._some.clear()
        due, self._due = self._due, {}
        for peer in due:
            self._hearers[peer].wake()
