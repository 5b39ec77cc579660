"""Which piece is fetched next, from which parent, and which a second time.

Of the pieces that can be had the rarest comes first, that is the one that the fewest parents offer,
and among equals any: so children which start together get different ones, and can give them to each
other. Of the parents that have it, one that has more free bandwidth for each fetch under way is the
likelier.

There are as many places for pieces that are fetched at once as fill the link, *max_in_flight* at
most (:mod:`pantala.core.window`); parents and the origin have places of their own. A parent that is
slow for this link keeps only a part of a place: six pieces that come from hosts with a tenth of the
bandwidth leave nearly all of it to others. A fetch that is stuck, by
:func:`~pantala.core.pace.is_stuck`, keeps no place from those that get on: up to as many more may
be begun, but of parents that are not doubtful, lest all places should go to the one that hangs.

A second fetch of a piece runs beside the first, at another parent; the one that is here first
counts. What arrives twice is traffic for nothing, so there are three limits: few pieces at once,
few in all compared with those that came, and none that the origin sends, in what may be its only
pass.
While others are still to be fetched, it is worth it for what is stuck; when all are under way, for
what another would bring in half the time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from pantala.core.pace import Look, is_slow, is_stuck
from pantala.core.window import Window

from .events import Command, Fetch, Follow, Seek
from .sparing import Sparing
from .supply import Parent

#: Seconds in which a parent may bring a piece that has been asked for none: worth one try.
UNTRIED: Final = 1.0

#: Pieces that are fetched of parents at once to begin with, and at least: a child has several, of
#: which some keep it waiting. (Simulated, see ADR 32: 4 takes 5 per cent longer, 2 a third.)
LEAST_OF_PARENTS: Final = 6

#: Likewise of the origin: one that arrives, and one that is asked for meanwhile.
LEAST_OF_ORIGIN: Final = 2

#: A fetch keeps a whole place if its parent brings so many times what a place is of the link; else
#: the less the less it brings. (Simulated, see ADR 32: with 2 equal links lose.)
_WHOLE_PLACE: Final = 1.5

#: Draws for one that is rare.
_DRAWS: Final = 8

#: Pieces that are asked for twice at once.
MAX_TWICE: Final = 4


def choose(parents: Mapping[str, Parent], names: list[str], rng: random.Random) -> str:
    """One of *names*, the likelier the more free bandwidth it has per fetch under way.

    Those whose last fetch got stuck come last.
    """
    names = [name for name in names if not parents[name].doubtful] or names
    if len(names) == 1:
        return names[0]
    weights = [parents[n].weight / (1 + parents[n].busy) for n in names]
    return rng.choices(names, weights)[0]


@dataclass(slots=True)
class Picker(Sparing):
    """A supply, the fetches of what is in it, and how they get on.

    Args:
        rng: For choosing pieces and parents.
        max_in_flight: Pieces at once. Those that are stuck do not count, up to as many again.
        least_of_parents: So many of parents at once at least, and to begin with.
        least_of_origin: So many of the origin at once at least...
        first_of_origin: ...but so many until one is here.
        source_in_order: The origin serves a single pass from front to back: one fetch at a
            time, in the order of the pieces. May be set at any time.
    """

    rng: random.Random
    max_in_flight: int = 8
    least_of_parents: int = LEAST_OF_PARENTS
    least_of_origin: int = LEAST_OF_ORIGIN
    first_of_origin: int = 1
    source_in_order: bool = False

    #: Fetches of parents, and of the origin.
    of_parents: Window = field(init=False)
    of_origin: Window = field(init=False)
    #: Seconds, as of the last event.
    now: float = field(init=False, default=0.0)
    #: Seconds that pieces need still which do not come soon; see :class:`~pantala.core.pace.Look`.
    left: dict[int, float] = field(init=False, default_factory=dict)
    #: Pieces that do not come, and that others were told to offer.
    sought: set[int] = field(init=False, default_factory=set)
    #: Bytes a second of each parent's last piece, and bytes in a piece.
    rates: Mapping[str, float] = field(init=False, default_factory=dict)
    piece_length: int = field(init=False, default=1)
    #: Of each parent that is slow for this link, how much of a place a fetch keeps.
    shares: dict[str, float] = field(init=False, default_factory=dict)
    #: Second fetches begun.
    doubled: int = field(init=False, default=0)
    #: When a fetch was last begun.
    began_at: float = field(init=False, default=0.0)
    #: Pieces stored.
    stored: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        least = self.least_of_parents
        self.of_parents = Window(self.max_in_flight, least, first=least)
        self.of_origin = Window(
            self.max_in_flight, self.least_of_origin, first=self.first_of_origin
        )

    @property
    def leisure(self) -> float:
        """Seconds in which a piece comes at best: parents need not hear of each sooner.

        0 while that is not known; and where pieces come from afar, as they must hear at once what
        need not come again (:mod:`.sparing`).
        """
        return 0.0 if self.has_far else self.of_parents.seconds(self.piece_length)

    @property
    def room(self) -> int:
        """So many more pieces would be fetched of parents now, if somebody offered them."""
        busy, limit = len(self.of_parents), self.of_parents.limit
        if self.left:
            busy -= min(sum(1 for n in self.left if self._is_held_up(n)), limit)
        if self.shares:
            busy = min(busy, self._places_kept())
        return max(0, limit - busy)

    def _places_kept(self) -> int:
        """Of the link to parents, by those that are fetched of."""
        names = chain(self.in_flight.values(), self.second.values())
        return math.ceil(sum(self.shares.get(name, 1.0) for name in names if name is not None))

    def _share_places(self) -> None:
        """Work out which parents are slow for this link."""
        alone = self.of_parents.seconds(self.of_parents.limit)  # 0: it is not known what it carries
        whole = _WHOLE_PLACE / alone if alone else 0.0
        self.shares = {name: rate / whole for name, rate in self.rates.items() if rate < whole}

    @property
    def has_backlog(self) -> bool:
        """More is wanted than may be fetched at once."""
        return len(self.wanted) > self.max_in_flight

    # -- fetches -------------------------------------------------------------------------------

    def _begin(self, number: int, name: str | None) -> Fetch:
        """Fetch a piece; beside another fetch of it if there is one."""
        second = number in self.in_flight
        self.began_at = self.now
        (self.second if second else self.in_flight)[number] = name
        self.lacking &= ~(1 << number)
        self._window(name).began((number, second), self.now, self.piece_length)
        if name is not None:
            self.parents[name].busy += 1
        if self._is_twice(number):
            self.doubled += 1
        return Fetch(number, name, second)

    def _window(self, name: str | None) -> Window:
        return self.of_origin if name is None else self.of_parents

    def _landed(self, number: int, *, second: bool, arrived: bool) -> None:
        """A fetch has ended, if there was one; it brought the piece, or not."""
        self.left.pop(number, None)
        fetches = self.second if second else self.in_flight
        if number not in fetches:
            return
        name = fetches.pop(number)
        self._window(name).ended((number, second), self.now, arrived=arrived)
        if name is not None:
            self.parents[name].busy -= 1
            self._speaks(name)

    def _look(self, look: Look) -> None:
        """Take note of how fetches get on, and of who says nothing."""
        self.left, self.rates = dict(look.left), look.rates
        self._share_places()
        for number in look.left:
            name = self.in_flight.get(number)
            if name is not None and self._is_stuck_at(number, name):
                self.parents[name].doubtful = True
        self._hush(look.quiet)

    def _seek(self, commands: list[Command]) -> None:
        """Have others offer what does not come, once each time that it comes no more.

        Whoever has nothing more to offer, because nothing was lacking any more, is asked anew.
        """
        held = [number for number, name in self.in_flight.items() if name in self.quiet]
        stuck = {n: name for n in (*self.left, *held) if (name := self._stuck_with(n))}
        new = [number for number in stuck if number not in self.sought]
        self.sought = set(stuck)
        commands += [Seek(number, stuck[number]) for number in new]
        for name, parent in self.parents.items():
            if new and not (parent.open or parent.bad or parent.doubtful):
                parent.open = True
                commands.append(Follow(name))

    def _stuck_with(self, number: int) -> str | None:
        """The parent whose fetch of a piece is stuck, if nobody else is there to fetch it of."""
        fetches = self.in_flight if number in self.in_flight else self.second
        name = fetches.get(number)
        if name is None or number not in self.wanted or self._is_twice(number):
            return None
        if any(not self.parents[other].doubtful for other in self._have(number) if other != name):
            return None
        return name if name in self.quiet or self._is_stuck_at(number, name) else None

    # -- the next piece ------------------------------------------------------------------------

    def _fetch_from_parents(self, commands: list[Command]) -> None:
        while self.ready and self._has_place() and self.room:
            number = self._next()
            if number is None:
                return
            name = choose(self.parents, self._have(number), self.rng)
            self.ready.discard(number)
            commands.append(self._begin(number, name))

    def _next(self) -> int | None:
        """A piece to fetch. The places of those that are stuck are for parents that get on."""
        if len(self.of_parents) < self.of_parents.limit:
            draws = {self.ready.choice(self.rng) for _ in range(min(_DRAWS, len(self.ready)))}
            return min(draws, key=lambda number: (len(self.offers[number]), self.rng.random()))
        good = [
            number
            for number in self.ready
            if any(not self.parents[name].doubtful for name in self._have(number))
        ]
        return self.rng.choice(good) if good else None

    def _has_place(self) -> bool:
        """Whether one more piece may be fetched."""
        busy = (
            len(self.in_flight.keys() | self.second.keys()) if self.second else len(self.in_flight)
        )
        if busy < self.max_in_flight:
            return True
        stuck = sum(1 for n in self.left if self._is_held_up(n))
        return busy - min(stuck, self.max_in_flight) < self.max_in_flight

    def _is_held_up(self, number: int) -> bool:
        """Whether the only fetch of a piece is stuck."""
        name = self.in_flight.get(number)
        return name is not None and number not in self.second and self._is_stuck_at(number, name)

    def _is_stuck_at(self, number: int, name: str) -> bool:
        others = (self._seconds(n) for n in self._have(number) if n != name)
        quickest = min((s for s in others if s is not None), default=None)
        return is_stuck(self.left[number], quickest)

    def _seconds(self, name: str) -> float | None:
        """In which a parent brings a piece, by its last one; None: that is being found out."""
        rate = self.rates.get(name)
        if rate:
            return self.piece_length / rate
        return UNTRIED if not self.parents[name].busy else None

    # -- the origin ----------------------------------------------------------------------------

    def _fetch_from_source(self, commands: list[Command]) -> None:
        while self._has_place() and self._origin_has_place():
            number = self._next_of_source()
            if number is None:
                return
            self.unoffered.pop(number, None)
            commands.append(self._begin(number, None))

    def _next_of_source(self) -> int | None:
        """The next piece to ask the origin for. There may be very many: not all are looked at."""
        if self.source_in_order:
            first = (self._first_unoffered(), *(n for n in self._stranded() if self.wanted[n]))
            return min((n for n in first if n is not None), default=None)
        candidates = chain(self.unoffered, self._stranded())
        return next((n for n in candidates if self.wanted[n]), None)

    def _origin_has_place(self) -> bool:
        """Whether one more piece may be fetched of the origin."""
        if self.source_in_order:
            return not self.of_origin
        return self.of_origin.has_place(self.now)

    # -- a piece for the second time -----------------------------------------------------------

    def _fetch_twice(self, commands: list[Command]) -> None:
        """Ask others as well for what does not come, worst first; few at once, and few in all."""
        for number in sorted(self.left, key=lambda n: self.left[n], reverse=True):
            if self._are_twice() >= MAX_TWICE or not self._may_double():
                return
            name = self._may_be_faster(number)
            if name is not None:
                commands.append(self._begin(number, name))

    def _is_twice(self, number: int) -> bool:
        return number in self.in_flight and number in self.second

    def _are_twice(self) -> int:
        return len(self.in_flight.keys() & self.second.keys())

    def _may_double(self) -> bool:
        """Whether the traffic stays within an eighth more, and a few pieces."""
        return self.doubled < 4 * MAX_TWICE + self.stored // 8

    def _may_be_faster(self, number: int) -> str | None:
        """Another parent for a piece whose only fetch is stuck, or slow when all is under way."""
        fetches = self.in_flight if number in self.in_flight else self.second
        now = fetches.get(number)
        # What the origin has begun to send is not asked of anybody else: it may be its only pass.
        if now is None or number not in self.wanted or self._is_twice(number):
            return None
        is_worth = is_stuck if self.ready else is_slow
        names = [n for n in self._have(number) if n != now and not self.parents[n].doubtful]
        names = [n for n in names if is_worth(self.left[number], self._seconds(n))]
        return choose(self.parents, names, self.rng) if names else None
