"""How far a download is, for a program that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .meter import Meter


class Progress(NamedTuple):
    """How far a download is.

    Attributes:
        total: Bytes that are wanted; None as long as nobody knows.
        done: Bytes of them that are here.
        here: Of these, those that this machine had before.
        peers: Those that came from other machines.
        origin: Those that this machine read at the origin.
        rate: Bytes a second, of the last seconds.
        eta: Seconds until all is here, if it goes on like this; None when nobody can know.
    """

    total: int | None
    done: int
    here: int
    peers: int
    origin: int
    rate: float
    eta: float | None


class Telling:
    """Tells a program how far a download is, ten times a second at most, and at its end.

    Args:
        tell: The program's.
    """

    #: Between two words, when nothing happens.
    pause = 0.5
    _INTERVAL = 0.1

    def __init__(self, tell: Callable[[Progress], object]) -> None:
        self._tell = tell
        now = time.monotonic()
        self._meter = Meter(now)
        self._next = now
        self._total: int | None = None
        self._received: Mapping[str, int] = {}

    def waiting(self, size: int) -> None:
        """The daemon has no room yet: nothing moves."""
        del size
        self.tick()

    def growing(self, size: int) -> None:
        """So much is here of content whose length nobody knows."""
        self.moved({"origin": size})

    def started(self, total: int) -> None:
        self._total = total
        self.tick()

    def moved(self, received: Mapping[str, int]) -> None:
        self._received = received
        self.tick(at_once=sum(received.values()) == self._total)

    def coming(self, size: int) -> None:
        """What is not whole is not counted."""
        del size

    def say(self, text: str) -> None:
        """Warnings are for people; a program sees what came of it."""
        del text

    def tick(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now < self._next and not at_once:
            return
        self._next = now + self._INTERVAL
        here, peers, origin = (self._received.get(n, 0) for n in ("cache", "peers", "origin"))
        done, total = here + peers + origin, self._total
        rate = self._meter.rate(now, done)
        eta = None if total is None else self._meter.eta(now, done, total)
        self._tell(Progress(total, done, here, peers, origin, rate, eta))
