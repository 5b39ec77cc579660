"""How fast pieces come, and who says nothing: when a piece is better asked of another as well.

    a fetch that brings nothing for 1.5 s             stalled: it may take for ever
    a fetch that another parent would do much faster  late: in a fraction of the time that it needs
    a parent of which nothing is heard                quiet: no byte, no offer, no word of its host

Bytes that arrive are progress, however few: a slow link stalls nobody. A parent that has nothing to
say because it waits itself is not quiet, for its host tells once a second what it can give.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

#: Seconds between two looks.
TICK: Final = 0.25

#: Seconds by which a wait ends too late if it was us who were stopped, or our machine: what did not
#: come in that time is nobody's fault.
SLEPT: Final = 1.0

#: Looks over which a fetch is judged: one and a half seconds.
_WINDOW: Final = 6

#: Seconds after which a parent is quiet that owes us a piece, or that only may offer some. The host
#: tells something once a second, and a busy machine is late now and then.
_QUIET: Final = 2.0
_QUIET_IDLE: Final = 3.0

#: Seconds of silence after which it is worth hearing from the host whether it lives.
_LISTEN: Final = 0.5

#: Seconds after which a parent is quiet that brings nothing of what it owes, though its host lives.
#: It may be waiting for bandwidth.
_HELD_UP: Final = 5.0

#: Seconds that a fetch may need still without anybody looking for a faster one.
_SOON: Final = 1.0


class Fetching(NamedTuple):
    """A fetch from a parent under way: what of *length* bytes is here. None: it has not begun."""

    parent: str
    received: int | None
    length: int


class Look(NamedTuple):
    """What one look has found.

    Attributes:
        left: Of each piece that will not be here soon, the seconds that it needs still;
            infinite when it is stalled.
        rates: Bytes a second of each parent's last piece.
        quiet: Parents of which nothing is heard.
    """

    left: Mapping[int, float]
    rates: Mapping[str, float]
    quiet: frozenset[str]


class Pace:
    """Of one download. Its caller looks every :data:`TICK` seconds."""

    def __init__(self) -> None:
        self._samples: dict[tuple[int, bool], deque[tuple[float, int]]] = {}
        self._rates: dict[str, float] = {}
        #: When each parent was last heard: bytes or an offer; and its host.
        self._heard: dict[str, float] = {}
        self._host_heard: dict[str, float] = {}
        #: Parents whose hosts tell nothing at all.
        self._mute: set[str] = set()
        #: Those of whom something was expected at the last look.
        self._judged: set[str] = set()
        self._looked = -math.inf

    def heard(self, parent: str, now: float) -> None:
        """It offers something, or has just been asked what it has."""
        self._heard[parent] = now

    def host_heard(self, parent: str, now: float) -> None:
        """The host of *parent* told something: it lives, though it may not send us anything."""
        self._host_heard[parent] = now

    def is_mute(self, parent: str) -> None:
        """Its host will tell nothing."""
        self._mute.add(parent)

    def took(self, parent: str, length: int, seconds: float) -> None:
        """A piece of *length* bytes came from it."""
        self._rates[parent] = length / max(seconds, 1e-3)

    def silent(self, now: float) -> list[str]:
        """Parents that say nothing just now, though something is expected of them."""
        return [parent for parent in self._judged if now - self._heard[parent] >= _LISTEN]

    def look(
        self, now: float, fetches: Mapping[tuple[int, bool], Fetching], waiting: Collection[str]
    ) -> Look:
        """Judge what is under way.

        Args:
            now: Seconds.
            fetches: By piece, and whether it is the second fetch of it.
            waiting: Parents that may offer something that is wanted.
        """
        if now - self._looked > TICK + SLEPT:  # it is we who slept
            self._samples.clear()
            self._heard = dict.fromkeys(self._heard, now)
        self._looked = now
        for gone in self._samples.keys() - fetches.keys():
            del self._samples[gone]
        left: dict[int, float] = {}
        for key, fetch in fetches.items():
            seconds = self._left(key, fetch, now)
            left[key[0]] = min(seconds, left.get(key[0], math.inf))
        owing = {fetch.parent for fetch in fetches.values() if fetch.received is not None}
        judged = owing.union(waiting)
        for parent in judged - self._judged:
            self._heard[parent] = now  # until now nothing was expected of it
        self._judged = judged
        heard = self._heard
        silent = (parent for parent in judged if now - heard[parent] >= _QUIET)  # few, as a rule
        quiet = [parent for parent in silent if self._is_quiet(parent, now, owes=parent in owing)]
        late = {number: seconds for number, seconds in left.items() if seconds > _SOON}
        return Look(late, self._rates, frozenset(quiet))

    def _left(self, key: tuple[int, bool], fetch: Fetching, now: float) -> float:
        """Seconds until it is here; 0 when that cannot be told yet."""
        if fetch.received is None:
            return 0.0
        samples = self._samples.get(key)
        if samples is None:
            samples = self._samples[key] = deque(maxlen=_WINDOW + 1)
        elif fetch.received > samples[-1][1]:
            self.heard(fetch.parent, now)
        samples.append((now, fetch.received))
        if len(samples) <= _WINDOW:
            return 0.0
        since, before = samples[0]
        came = fetch.received - before
        return (fetch.length - fetch.received) * (now - since) / came if came else math.inf

    def _is_quiet(self, parent: str, now: float, *, owes: bool) -> bool:
        silent = now - self._heard[parent]
        if owes and silent >= _HELD_UP:
            return True
        if parent in self._mute:
            return owes and silent >= _QUIET
        host = now - self._host_heard.get(parent, -math.inf)
        return min(silent, host) >= (_QUIET if owes else _QUIET_IDLE)


def is_stuck(left: float, other: float | None) -> bool:
    """Whether a fetch keeps a place that others need.

    Args:
        left: Seconds that it needs still.
        other: Seconds in which another would bring the whole piece; None: nobody knows.
    """
    return left == math.inf or (other is not None and left > 8 * other + 2 * _SOON)


def is_slow(left: float, other: float | None) -> bool:
    """Whether asking another as well is worth it when there is nothing else to ask for."""
    return left == math.inf or (other is not None and left > 2 * other + _SOON)
