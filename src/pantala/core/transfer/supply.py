"""Which pieces a download wants, who has them, and which are on their way.

This is bookkeeping, without a choice. Every wanted piece is in one of three places, and what
happens to those who have it moves it from one to another:

                 somebody offers it, or speaks again
    unoffered ─────────────────────────────────────► ready
        ▲ ▲ ◄──────────────────────────────────────   │ ▲
        │ │      the last who offered it is bad,      │ │ its fetches failed, and
        │ │      has it no more, or is quiet          │ │ somebody still offers it
        │ │                                           ▼ │
        │ └───────── begun, by the origin ───────► in flight ───► here: wanted no more
        └─── its fetches failed, nobody offers it ────┘

A parent is *open* while it may still offer something, and *bad* for good: once it failed, nothing
of it counts. In between it may be *quiet*: nothing is heard of it, so what it offers does not
count, until a word or a byte of it arrives. Only those may be quiet of whom something must come in
the end, if only the end of a stream or of a fetch; so a piece whose only provider is quiet is not
lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pantala.core.sample import SampleSet
from pantala.model.numbers import Bits, bits_of_numbers

from .events import Command, Drop, Follow


@dataclass(slots=True)
class Parent:
    """A peer that the scheduler named."""

    #: Free bandwidth, in any unit, above 0.
    weight: float
    #: It may still offer more.
    open: bool = True
    #: Not to be asked again in this download.
    bad: bool = False
    #: Fetches from it under way.
    busy: int = 0
    #: The last fetch from it got stuck: others are asked first.
    doubtful: bool = False
    #: Pieces in a row that it had offered, and did not have.
    denials: int = 0
    #: It is beyond a thin line.
    far: bool = False


@dataclass(slots=True)
class Supply:
    """The pieces of one download, and the parents that have them."""

    #: Every piece wanted and not stored; True where the origin may be asked.
    wanted: dict[int, bool] = field(init=False, default_factory=dict)
    #: Those of them that were wanted last of which the origin may not be asked.
    barred: list[int] = field(init=False, default_factory=list)
    #: Those in :attr:`unoffered` of which it may, the last first; None: to be sorted anew. Some may
    #: have gone from there since.
    ahead: list[int] | None = field(init=False, default=None)
    parents: dict[str, Parent] = field(init=False, default_factory=dict)
    #: Some of them are far.
    has_far: bool = field(init=False, default=False)
    #: Wanted, and not in flight: as bits.
    lacking: int = field(init=False, default=0)
    #: Pieces that far parents need not bring, see :mod:`.sparing`.
    covered: int = field(init=False, default=0)
    #: Per piece, the parents that offered it and are not bad.
    offers: dict[int, list[str]] = field(init=False, default_factory=dict)
    #: Parents of which nothing is heard; each is open or busy. What they offer does not count.
    quiet: set[str] = field(init=False, default_factory=set)
    #: Fetches under way: piece to parent, None for the origin.
    in_flight: dict[int, str | None] = field(init=False, default_factory=dict)
    #: Second fetches under way. Their first may have failed since.
    second: dict[int, str | None] = field(init=False, default_factory=dict)
    #: Wanted, not in flight, offered by somebody who is not quiet.
    ready: SampleSet[int] = field(init=False, default_factory=SampleSet)
    #: Wanted, not in flight, offered by nobody else; in the order in which they became so.
    unoffered: dict[int, None] = field(init=False, default_factory=dict)

    def waits_for(self) -> list[str]:
        """Parents that may still offer something that nobody else does."""
        if not self.unoffered and not self.quiet:
            return []
        return [name for name, parent in self.parents.items() if parent.open]

    # -- what is wanted ------------------------------------------------------------------------

    def _want(self, pieces: Mapping[int, bool]) -> list[Command]:
        """These are wanted, and no others. For new ones everybody is asked anew what it has."""
        new = pieces.keys() - self.wanted.keys()
        old = self.wanted.keys() - pieces.keys()
        for number in old:
            self.ready.discard(number)
            self.unoffered.pop(number, None)
        self.lacking &= ~bits_of_numbers(old)
        self.wanted = dict(pieces)
        self.barred = [number for number, may in pieces.items() if not may]
        self.ahead = None
        self._queue(*sorted(new))
        if not new:
            return []
        again: list[Command] = []
        for name, parent in self.parents.items():
            if not parent.bad:
                parent.open = True
                again.append(Follow(name))
        return again

    def _first_unoffered(self) -> int | None:
        """The first piece that nobody offers, and that the origin may be asked for."""
        if self.ahead is None:
            self.ahead = sorted((n for n in self.unoffered if self.wanted[n]), reverse=True)
        while self.ahead and self.ahead[-1] not in self.unoffered:
            self.ahead.pop()
        return self.ahead[-1] if self.ahead else None

    def _queue(self, *numbers: int) -> None:
        """Put wanted pieces where they belong now: what is done with bits is done once for all."""
        idle = {n for n in numbers if n not in self.in_flight and n not in self.second}
        for number in idle if len(idle) == 1 else ():  # as a rule: that is quicker
            self.lacking |= 1 << number
        if len(idle) > 1:
            self.lacking |= bits_of_numbers(idle)
        spared = Bits(self.covered & self.lacking)
        for number in numbers:
            self.ready.discard(number)
            self.unoffered.pop(number, None)
            if number not in idle:
                continue
            if self._offering(number, near=number in spared):
                self.ready.add(number)
            else:
                self.unoffered[number] = None
                self.ahead = None

    # -- who has it ----------------------------------------------------------------------------

    def _have(self, number: int) -> list[str]:
        """The parents of whom a piece may be had now."""
        return self._offering(
            number, near=bool(self.covered and (self.covered & self.lacking) >> number & 1)
        )

    def _offering(self, number: int, *, near: bool) -> list[str]:
        """Those who offer a piece, and of whom something is heard; with *near* none that is far."""
        names = [name for name in self.offers.get(number, ()) if name not in self.quiet]
        return [name for name in names if not self.parents[name].far] if near else names

    def _meet(self, parents: Mapping[str, float], far: frozenset[str]) -> list[Command]:
        """Follow these parents, by name and weight; but none that was bad."""
        commands: list[Command] = []
        for name, weight in parents.items():
            known = self.parents.get(name)
            if known is None:
                self.parents[name] = Parent(weight)
            elif known.bad:
                continue
            else:
                known.open, known.weight = True, weight
            self.has_far = self.has_far or name in far
            if self.parents[name].far != (name in far):
                self.parents[name].far = name in far
                self._requeue(name)
            commands.append(Follow(name))
        return commands

    def _offer(self, name: str, number: int) -> None:
        parent = self.parents.get(name)
        if parent is None or parent.bad:
            return
        offers = self.offers.setdefault(number, [])
        if name not in offers:
            offers.append(name)
        if number in self.unoffered:
            self._queue(number)

    def _withdraw(self, name: str, number: int) -> None:
        """A parent does not have a piece after all."""
        self._offers_no_more(name, number)
        if number in self.ready:
            self._queue(number)

    def _offers_no_more(self, name: str, number: int) -> None:
        names = self.offers.get(number, [])
        if name in names:
            names.remove(name)
        if not names:
            self.offers.pop(number, None)

    def _close(self, name: str, *, bad: bool) -> list[Command]:
        parent = self.parents.get(name)
        if parent is None:
            return []
        parent.open = False
        return self._ban(name) if bad and not parent.bad else []

    def _ban(self, name: str) -> list[Command]:
        """Nothing of this parent counts any more."""
        parent = self.parents[name]
        if parent.bad:
            return []
        parent.bad, parent.open = True, False
        self.quiet.discard(name)
        mine = [number for number, names in self.offers.items() if name in names]
        for number in mine:
            self._offers_no_more(name, number)
        self._queue(*(number for number in mine if number in self.ready))
        return [Drop(name)]

    # -- who says nothing ----------------------------------------------------------------------

    def _hush(self, names: frozenset[str]) -> None:
        """Of these parents nothing is heard, of all others something."""
        quiet = {name for name in names if self._may_be_quiet(name)}
        changed, self.quiet = quiet ^ self.quiet, quiet
        for name in sorted(changed):  # a replay takes them in the same order
            self._requeue(name)

    def _may_be_quiet(self, name: str) -> bool:
        """Whether something ends the silence of a parent in any case: its stream, or a fetch."""
        parent = self.parents.get(name)
        return parent is not None and not parent.bad and (parent.open or parent.busy > 0)

    def _speaks(self, name: str) -> None:
        """Something is heard of a parent, or nothing more is to be expected of it."""
        if name in self.quiet:
            self.quiet.discard(name)
            self._requeue(name)

    def _requeue(self, name: str) -> None:
        """What a parent offers counts now, or counts no more."""
        offered = (number for number, names in self.offers.items() if name in names)
        self._queue(*(n for n in offered if n in self.ready or n in self.unoffered))

    def _stranded(self) -> list[int]:
        """Pieces that come from nobody but a parent of which nothing is heard."""
        if not self.quiet:
            return []
        return [
            number
            for number, name in self.in_flight.items()
            if name in self.quiet
            and number in self.wanted
            and number not in self.second
            and not self._have(number)
        ]
