"""What a parent tells a child, on the way from one to the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pantala.core import transfer as t

from .host import Holding

if TYPE_CHECKING:
    from .flight import Flight


class Following:
    """What a parent tells a flight, from one ``Follow`` on. A :class:`.uploads.Follower`.

    Args:
        flight: Who hears it.
        parent: Name of the peer that is followed.
        giver: The parent's upload side.
        missing: Pieces that are asked for, as bits.
    """

    __slots__ = ("delay", "flight", "giver", "missing", "over", "parent")

    def __init__(self, flight: Flight, parent: str, giver: Holding, missing: int) -> None:
        self.flight = flight
        self.parent = parent
        self.giver = giver
        self.missing = missing
        self.over = False
        self.delay = flight.swarm.latency(giver.host, flight.host)

    def begin(self) -> None:
        """The question has arrived at the parent."""
        host = self.giver.host
        if self.over:
            return
        if host.alive:
            self.giver.uploads.follow(self)
        elif not host.silent:
            self.close()
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

    def offer(self, numbers: Iterable[int]) -> None:
        """See :class:`.uploads.Follower`."""
        for number in numbers:
            self.missing &= ~(1 << number)
        self.flight.swarm.clock.after(self.delay, self._offered, numbers)

    def close(self) -> None:
        """See :class:`.uploads.Follower`."""
        self.flight.swarm.clock.after(self.delay, self._closed)

    def _offered(self, numbers: Iterable[int]) -> None:
        flight = self.flight
        if self.over or flight.over:
            return
        flight.pace.heard(self.parent, flight.swarm.clock.now)
        for number in numbers:
            flight.on(t.Offered(self.parent, number))

    def _closed(self) -> None:
        if not self.over:
            self.end()
            self.flight.on(t.Closed(self.parent))
