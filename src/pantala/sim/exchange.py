"""The upload side of a host whose daemon exchanges: :mod:`pantala.core.giving` decides.

It does what ``daemon/sharing/exchange.py`` does, with calls on the clock instead of tasks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pantala.core.giving import LAPSE, LEAST_PLACES, LOOK, MOST_PLACES, Giving, Grant, pause
from pantala.core.transfer import Phase
from pantala.core.window import Window

from .uploads import Follower

if TYPE_CHECKING:
    from .host import Holding
    from .swarm import Swarm


class Exchange:
    """All tasks of a host that children follow.

    Args:
        swarm: Where it takes place.
    """

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.slots = Window(MOST_PLACES, LEAST_PLACES)
        #: Those that have children, the next to give something first.
        self.tasks: OrderedDict[Exchanging, None] = OrderedDict()
        #: It will look at them in a moment.
        self._looks = False
        #: Until then something may change by time alone: a grant that is not asked for lapses.
        self._until = 0.0

    def turn(self) -> None:
        """Give away what may be given now."""
        clock, reads = self.swarm.clock, False
        for task in list(self.tasks):
            if task.grant(clock.now):
                self._until = clock.now + LAPSE + LOOK
            reads = reads or task.giving.at_source
        if len(self.tasks) > 1:
            self.tasks.move_to_end(next(iter(self.tasks)))
        if not self._looks and self.tasks and (reads or clock.now < self._until):
            self._looks = True
            clock.after(LOOK, self._look)

    def _look(self) -> None:
        self._looks = False
        self.turn()


class Exchanging:
    """What one host gives away of one task, by and by. See :class:`.uploads.Uploads`.

    Args:
        exchange: That of its host.
        holding: What is held.
    """

    def __init__(self, exchange: Exchange, holding: Holding) -> None:
        swarm = exchange.swarm
        self.offered = 0
        self.giving = Giving(exchange.slots, swarm.rng, holding.task.piece_length)
        self._exchange = exchange
        #: Some are in another data centre: else nobody has to know what children have.
        self._tells = swarm.settings.idcs > 1
        self._holding = holding
        self._names: dict[Follower, str] = {}
        self._children: dict[str, Follower] = {}
        #: What each has told last of how much it would fetch at once.
        self._rooms: dict[str, int] = {}
        #: Offers that are still to be told.
        self._offers: dict[str, list[int]] = {}
        self._said_at: dict[str, float] = {}
        self._count = 0

    @property
    def followers(self) -> Iterable[Follower]:
        """Children that hear of what comes."""
        return self._names

    def began(self) -> None:
        """A download brings pieces from now on."""

    def publish(self, number: int) -> None:
        """A piece is here."""
        self.giving.here |= 1 << number
        if self._names:
            self._exchange.turn()

    def ended(self) -> None:
        """The download is over: those leave who can get nothing more."""
        self._look_again()
        self._exchange.turn()

    def follow(self, child: Follower) -> None:
        """A child has come."""
        self._count += 1
        name = self._names[child] = str(self._count)
        self._children[name] = child
        self._rooms[name] = child.room
        self.giving.join(name, child.lacking, child.room)
        if child.spares:
            self.giving.spares(name, child.spares, self._exchange.swarm.clock.now)
        if self._tells:
            self._tell_flight(child, 0, child.has)
        self._exchange.tasks[self] = None
        self._look_again()
        self._exchange.turn()

    def hear(self, child: Follower, *, lacks: int, has: int, spares: int, room: int) -> None:
        """A child tells what it wants again, what no more, and how much at once."""
        name = self._names.get(child)
        if name is None:
            return
        # Much of what is told changes nothing for anybody else. A turn for that would find nothing.
        giving, slots = self.giving, self._exchange.slots
        before = len(slots)
        if has:
            giving.has(name, has, self._exchange.swarm.clock.now)
        if lacks:
            giving.lacks(name, lacks)
        if spares:
            giving.spares(name, spares, self._exchange.swarm.clock.now)
        if self._tells and (has or lacks):
            self._tell_flight(child, lacks, has)
        has_more = room > self._rooms[name]
        self._rooms[name] = room
        giving.has_room(name, room)
        flight = self._holding.flight
        if (flight is None or flight.over) and giving.is_through_with(name, 0):
            self._close(child, name)
        if (lacks or has_more or giving.at_source or len(slots) < before) and self._may_give():
            self._exchange.turn()

    def _tell_flight(self, child: Follower, lacks: int, has: int) -> None:
        """What a child has, or fetches, may come from there."""
        if self._holding.flight is not None:
            self._holding.flight.on_told(child.name, lacks, has)

    def _may_give(self) -> bool:
        """Whether there is a place, or a child alone, which needs none."""
        now = self._exchange.swarm.clock.now
        return len(self._names) == 1 or self._exchange.slots.has_place(now)

    def leave(self, child: Follower) -> None:
        """A child has gone, if it was there."""
        name = self._names.pop(child, None)
        if name is None:
            return
        del self._children[name], self._rooms[name]
        self._offers.pop(name, None)
        self.giving.leave(name, self._exchange.swarm.clock.now)
        if not self._names:
            del self._exchange.tasks[self]
        self._exchange.turn()

    def asked(self, number: int) -> Grant | None:
        """A child is sent a piece; None: it was not granted."""
        grant = self.giving.asked(number)
        if grant is None:
            self._exchange.turn()  # it has fewer before it now
        return grant

    def sent(self, what: Grant | None, *, arrived: bool) -> None:
        """That has ended, well or badly."""
        if what is not None:
            self.giving.sent(what, self._exchange.swarm.clock.now, arrived=arrived)
            self._exchange.turn()

    def grant(self, now: float) -> bool:
        """Offer what is to be offered now; whether there was something."""
        flight = self._holding.flight
        reads = flight is not None and not flight.over and flight.transfer.phase is Phase.SOURCE
        self.giving.at_source = reads and not self._holding.is_whole
        granted = self.giving.grant(now)
        for name, number in granted:
            self.offered += 1
            offers = self._offers.get(name)
            if offers is not None:
                offers.append(number)
                continue
            self._offers[name] = [number]
            seconds = pause(now, self._said_at.get(name, 0.0), self.giving.ahead_of(name) - 1)
            self._said_at[name] = now + seconds
            self._exchange.swarm.clock.after(seconds, self._tell, name)
        return bool(granted)

    def _tell(self, name: str) -> None:
        offers = self._offers.pop(name, None)
        child = self._children.get(name)
        if offers and child is not None:
            child.offer(offers)

    def _look_again(self) -> None:
        flight, pieces = self._holding.flight, self._holding.task.pieces
        coming = 0 if flight is None or flight.over else (1 << pieces) - 1
        for child, name in list(self._names.items()):
            if self.giving.is_through_with(name, coming):
                self._close(child, name)

    def _close(self, child: Follower, name: str) -> None:
        self._tell(name)
        child.close()
