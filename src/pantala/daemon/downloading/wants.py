"""What one parent is told of what this host wants: all of it at first, then what changes.

What changes within a moment is one message. A parent that is told too late that we have a piece
offers it in vain; one that is told at once of each costs us a message a piece and parent.
"""

from __future__ import annotations

import asyncio

from pantala.core.giving import pause
from pantala.model.exchange import Wish


class Wants:
    """See the module. What a download tells one of its parents; :class:`~pantala.ports.Wants`.

    Args:
        lacks: The pieces that are wanted now, and not being fetched.
        room: So many would be fetched at once.
        has: Those that are here, or being fetched.
        later: Of those that are wanted, what comes from elsewhere.
        name: Of the download.
    """

    def __init__(
        self, lacks: int, room: int, *, has: int = 0, later: int = 0, name: str = ""
    ) -> None:
        lacks &= ~later
        self.first = Wish(lacks, has, room, later)
        self.name = name
        #: What the parent need not offer, as it was told last, and what is to be told of that.
        self._spared, self._later = later, 0
        self._room = self._told_room = room
        self._lacks = self._has = 0
        #: What was wanted, and not offered since.
        self._owed = lacks
        self._told_at = 0.0
        #: Seconds for which it may wait to hear of a piece: see :func:`~pantala.core.giving.pause`.
        self.leisure = 0.0
        self._news = asyncio.Event()

    def has(self, number: int) -> None:
        """A piece is fetched from somebody else."""
        self._has |= 1 << number
        self._lacks &= ~(1 << number)
        self._later &= ~(1 << number)
        self._news.set()

    def lacks(self, number: int) -> None:
        """A piece is wanted again."""
        self._lacks |= 1 << number
        self._has &= ~(1 << number)
        self._later &= ~(1 << number)
        self._owed |= 1 << number
        self._news.set()

    def spare(self, pieces: int, lacking: int) -> None:
        """These come from elsewhere, and no others; what is *lacking* of these is wanted now."""
        new, again = pieces & ~self._spared, self._spared & ~pieces & lacking
        self._spared = pieces
        if new or again:
            self._lacks = (self._lacks | again) & ~new
            self._later = (self._later | new) & ~again
            self._has &= ~(new | again)
            self._owed = (self._owed | again) & ~new
            self._news.set()

    def has_room(self, room: int) -> None:
        """So many would be fetched at once now. A parent that thinks that there are some, may."""
        self._room = room
        if room > 0 >= self._told_room:
            self._news.set()

    def take_offers(self, pieces: int) -> int:
        """Those of the pieces offered that are news: wanted, and not offered since."""
        news = pieces & self._owed
        self._owed &= ~pieces
        return news

    async def next(self) -> Wish:
        """What has changed; waits until something has."""
        await self._news.wait()
        loop = asyncio.get_running_loop()
        seconds = pause(loop.time(), self._told_at, leisure=self.leisure)
        await asyncio.sleep(seconds)  # for what changes by then
        self._told_at = loop.time()
        self._news.clear()
        wish = Wish(self._lacks, self._has, self._room, self._later)
        self._lacks = self._has = self._later = 0
        self._told_room = self._room
        return wish
