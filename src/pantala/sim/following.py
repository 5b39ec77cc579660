"""What a parent tells a child, on the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from pantala.core import transfer as t
from pantala.core.giving import pause

from .host import Holding

if TYPE_CHECKING:
    from .flight import Flight


#: What a child tells a parent beside its room: what it lacks, what it has, and what it spares.
_Wish: TypeAlias = "tuple[Following, int, int, int]"


class Wishes:
    """What a flight is about to tell its parents; ``daemon/downloading/wants.py`` of all of them.

    Nearly all of it is told to all, so it is written down once, and is one event of the clock.

    Args:
        flight: Whose wishes they are.
    """

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._lacks = self._has = 0
        #: Pieces of which a parent is told nothing.
        self._not_told: dict[str, int] = {}
        #: What those beyond a thin line were told that they need not bring.
        self.spared = 0
        #: Somebody was told last that nothing would be fetched at once.
        self._some_full = False
        self._pending = False
        self._told_at = 0.0
        #: Messages ever.
        self.told = 0

    def has(self, number: int, but: str | None) -> None:
        """A piece is fetched; all but its giver are told."""
        self._has |= 1 << number
        self._lacks &= ~(1 << number)
        self._tell(number, but)

    def lacks(self, number: int, but: str | None) -> None:
        """A piece is wanted again."""
        self._lacks |= 1 << number
        self._has &= ~(1 << number)
        self._tell(number, but)

    def spare(self, pieces: int) -> None:
        """Those beyond a thin line need not bring these now, and no others."""
        if pieces != self.spared:
            self._begin()

    def has_room(self, room: int) -> None:
        """So many pieces would be fetched at once now."""
        if room > 0 and self._some_full:
            self._begin()

    def was_told(self, room: int) -> None:
        """A parent was told so."""
        self._some_full = self._some_full or room <= 0

    def _tell(self, number: int, but: str | None) -> None:
        for name in self._not_told:
            self._not_told[name] &= ~(1 << number)
        if but is not None:
            self._not_told[but] = self._not_told.get(but, 0) | 1 << number
        self._begin()

    def _begin(self) -> None:
        swarm = self._flight.swarm
        if not self._pending and swarm.settings.exchange:  # others have nobody to tell
            self._pending = True
            leisure = self._flight.transfer.leisure
            swarm.clock.after(pause(swarm.clock.now, self._told_at, leisure=leisure), self._send)

    def _send(self) -> None:
        room, by_delay = self._flight.transfer.room, dict[float, list[_Wish]]()
        some_full = False
        self._told_at = self._flight.swarm.clock.now
        transfer, before = self._flight.transfer, self.spared
        self.spared = transfer.spared
        again = before & ~self.spared & transfer.lacking
        for name, following in self._flight.follows.items():
            told = ~self._not_told.get(name, 0)
            has, lacks, spares = self._has & told, self._lacks & told, 0
            if following.far:
                lacks, spares = (lacks | again) & ~self.spared, self.spared & ~before
            if has or lacks or spares or room > 0 >= following.told:
                following.told = room
                by_delay.setdefault(following.delay, []).append((following, lacks, has, spares))
            some_full = some_full or following.told <= 0
        self._some_full = some_full
        self._lacks = self._has = 0
        self._not_told.clear()
        self._pending = False
        for delay, wishes in by_delay.items():
            self.told += len(wishes)
            self._flight.swarm.clock.after(delay, _hear, wishes, room)


def _hear(wishes: list[_Wish], room: int) -> None:
    for following, lacks, has, spares in wishes:
        giver = following.giver
        if not following.over and giver.host.alive:
            giver.uploads.hear(following, lacks=lacks, has=has, spares=spares, room=room)


class Following:
    """What a parent and a flight tell each other, from one ``Follow`` on.

    It is a :class:`.uploads.Follower`.

    Args:
        flight: Who hears it.
        parent: Name of the peer that is followed.
        giver: The parent's upload side.
        lacking: Pieces that are wanted and not being fetched, as bits.
    """

    __slots__ = (
        *("delay", "far", "flight", "giver", "has", "lacking"),
        *("over", "parent", "room", "spares", "told"),
    )

    def __init__(self, flight: Flight, parent: str, giver: Holding, lacking: int) -> None:
        self.flight = flight
        self.parent = parent
        self.giver = giver
        self.far = giver.host.idc != flight.host.idc
        #: Of these those that it need not bring now, and what is here or fetched.
        self.spares = lacking & flight.transfer.spared if self.far else 0
        flight.wishes.spared |= self.spares
        self.lacking = lacking & ~self.spares
        self.has = ~lacking & ((1 << giver.task.pieces) - 1)
        self.over = False
        self.delay = flight.swarm.latency(giver.host, flight.host)
        #: What it would fetch at once when it asked, and as it has told last.
        self.room = self.told = flight.transfer.room
        flight.wishes.was_told(self.room)

    @property
    def name(self) -> str:
        """See :class:`.uploads.Follower`."""
        return self.flight.peer_id

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
            if self.giver.flight is not None:
                self.giver.flight.on_told(self.flight.peer_id, t.GONE, 0)

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
