"""What a parent tells a child, on the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from pantala.core import transfer as t

from .clock import Clock
from .host import Holding

if TYPE_CHECKING:
    from .flight import Flight


#: Seconds within which what a child wants is told as one message; as in production.
_PAUSE: Final = 0.02


class Wish(NamedTuple):
    """What a child tells a parent; pieces are bits."""

    following: Following
    lacks: int
    has: int
    room: int


class Wishes:
    """What a flight is about to tell its parents.

    What it tells all of them at one moment is one event of the clock, not one for each.

    Args:
        clock: Whose time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: list[Following] = []
        #: Messages ever.
        self.told = 0

    def add(self, following: Following) -> None:
        """There is something to be told on one of its followings."""
        if not self._pending:
            self._clock.after(_PAUSE, self._send)
        self._pending.append(following)

    def _send(self) -> None:
        by_delay: dict[float, list[Wish]] = {}
        for following in self._pending:
            wish = following.take_wish()
            if not following.over:
                by_delay.setdefault(following.delay, []).append(wish)
        self._pending.clear()
        for delay, wishes in by_delay.items():
            self.told += len(wishes)
            self._clock.after(delay, _hear, wishes)


def _hear(wishes: list[Wish]) -> None:
    for following, lacks, has, room in wishes:
        if not following.over and following.giver.host.alive:
            following.giver.uploads.hear(following, lacks=lacks, has=has, room=room)


class Following:
    """What a parent and a flight tell each other, from one ``Follow`` on.

    It is a :class:`.uploads.Follower`, and what ``daemon/downloading/wants.py`` is.

    Args:
        flight: Who hears it.
        parent: Name of the peer that is followed.
        giver: The parent's upload side.
        lacking: Pieces that are wanted and not being fetched, as bits.
    """

    __slots__ = (
        *("_has", "_lacks", "_news", "_room", "_told", "delay"),
        *("flight", "giver", "lacking", "over", "parent", "room"),
    )

    def __init__(self, flight: Flight, parent: str, giver: Holding, lacking: int) -> None:
        self.flight = flight
        self.parent = parent
        self.giver = giver
        self.lacking = lacking
        self.over = False
        self.delay = flight.swarm.latency(giver.host, flight.host)
        self.room = self._room = self._told = flight.transfer.room
        self._lacks = self._has = 0
        self._news = False

    def begin(self) -> None:
        """The question has arrived at the parent."""
        host = self.giver.host
        if self.over:
            return
        if host.alive:
            self.giver.uploads.follow(self)
        else:
            self.lose()

    def lose(self) -> None:
        """The parent has died, and will not be heard again."""
        settings = self.flight.swarm.settings
        seconds = settings.keepalive if self.giver.host.silent else self.delay
        self.flight.swarm.clock.after(seconds, self._closed)

    def end(self) -> None:
        """The child listens no more."""
        if not self.over:
            self.over = True
            self.giver.uploads.leave(self)

    # -- what the child tells ----------------------------------------------------------------------

    def has(self, number: int) -> None:
        """A piece is fetched from somebody else."""
        self._has |= 1 << number
        self._lacks &= ~(1 << number)
        self._tell()

    def lacks(self, number: int) -> None:
        """A piece is wanted again."""
        self._lacks |= 1 << number
        self._has &= ~(1 << number)
        self._tell()

    def has_room(self, room: int) -> None:
        """So many pieces would be fetched at once now."""
        self._room = room
        if room > 0 >= self._told:
            self._tell()

    def _tell(self) -> None:
        if not self._news and self.flight.swarm.settings.exchange:  # others have nobody to tell
            self._news = True
            self.flight.wishes.add(self)

    def take_wish(self) -> Wish:
        """What has changed, which is told now."""
        wish = Wish(self, self._lacks, self._has, self._room)
        self._lacks = self._has = 0
        self._told, self._news = self._room, False
        return wish

    # -- what the parent tells ---------------------------------------------------------------------

    def offer(self, numbers: Iterable[int]) -> None:
        """See :class:`.uploads.Follower`."""
        self.flight.swarm.clock.after(self.delay, self._offered, numbers)

    def close(self) -> None:
        """See :class:`.uploads.Follower`."""
        self.flight.swarm.clock.after(self.delay, self._closed)

    def _offered(self, numbers: Iterable[int]) -> None:
        flight = self.flight
        if self.over or flight.over:
            return
        flight.pace.heard(self.parent, flight.swarm.clock.now)
        here = flight.holding.pieces
        for number in numbers:
            if not here >> number & 1:
                flight.on(t.Offered(self.parent, number))

    def _closed(self) -> None:
        if not self.over:
            self.end()
            self.flight.on(t.Closed(self.parent))
