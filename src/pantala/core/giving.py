"""Which piece a parent offers to which child next, so that its children feed each other.

A parent whose children all want everything could send each piece to each of them. Its link would
then carry every byte as often as there are children, while theirs were idle. So it offers a piece
to one of them, and to the next only when nothing rarer is there to be offered: what one has, it
gives to the others. Rare is, of the pieces that are here, the one that the most children lack.

An offer is a *grant*: it keeps one of few places (:class:`.window.Window`), as many as fill the
link, until the piece is sent. So pieces leave one soon after the other and are passed on soon,
instead of all at the end.

    granted ──asked for──► being sent ──► sent: the place is free
       │
       └── not asked for in time: lapsed. The place is free, the offer stands.

Nobody waits for ever: while a place is free and some child lacks what is here, something is
granted. A child that takes slowly keeps no place from the others, nor does who has never asked for
what it was granted: it may come again and again by other names, so one place is always for those
who have. One child alone is offered everything at once.

Sets of pieces are numbers, of which bit *n* stands for piece *n*: a parent has to look at hundreds
of them for each grant.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from .window import Window

#: Places of a host, for all children that exchange: never more, and hardly fewer. With few, the
#: link is idle whenever some of them are held up by their children's (ADR 26, 32).
MOST_PLACES: Final = 64
LEAST_PLACES: Final = 5

#: Seconds in which a child asks for what it was granted, or others come first...
LAPSE: Final = 0.1

#: ...and between two looks whether some have not.
LOOK: Final = LAPSE / 2

#: While a source has not read everything, it gives a piece a second time only after so many times
#: the seconds that a piece takes: until then whoever has it has given it to the others.
HOLD: Final = 20

#: A child alone is offered so many pieces that it has not asked for; more when half of them are
#: left, so that an offer is one of many in its message.
AHEAD: Final = 64

#: Seconds in which what is to be told is gathered, and between two words: see :func:`pause`.
_GATHER: Final = 0.002
_BETWEEN: Final = 0.02

#: Between two words to a parent so many pieces come, if that does not take too long: there are a
#: dozen of parents to be told of each (ADR 32).
_PIECES: Final = 2
_MOST_BETWEEN: Final = 0.1

#: Seconds to gather offers for a child that has so many left.
_LONG: Final = 0.05
_PLENTY: Final = 8

#: A child that has asked for nothing yet comes no sooner than one that has room for so many.
_ROOM_OF_STRANGERS: Final = 2


def pause(now: float, told_at: float, left: int = 0, *, leisure: float = 0.0) -> float:
    """Seconds to gather what a parent tells a child, or a child a parent, before it is one message.

    On a slow link each thing is told nearly at once, on a fast one many together.

    Args:
        now: When there was something to tell again, in seconds.
        told_at: When the last message went, on the same clock.
        left: Offers that a child has not made use of, and with which it is busy meanwhile.
        leisure: Seconds in which a piece comes at best, for who tells each of many parents of it.
    """
    if left >= _PLENTY:
        return _LONG
    between = max(_BETWEEN, min(_PIECES * leisure, _MOST_BETWEEN))
    return max(_GATHER, told_at + between - now)


@dataclass(slots=True)
class _Child:
    #: Pieces that it wants, and neither fetches from anybody nor was granted here.
    lacks: int
    #: Pieces that it may want later, if others do not bring them.
    later: int = 0
    #: What it was offered here.
    offered: int = 0
    #: Of these, what it has not asked for, and wants still.
    open: int = 0
    #: Grants that keep a place now.
    busy: int = 0
    #: Grants that it let lapse, since it last asked for one.
    lapsed: int = 0
    #: So many more it would fetch at once, as far as is known.
    room: int = 1
    #: It has asked for something that it was granted.
    known: bool = False

    def rank(self, dice: float) -> tuple[int, int, int, float]:
        """Who has the least comes first. A stranger is not believed to have much room."""
        room = self.room
        if room > _ROOM_OF_STRANGERS and not self.known:
            room = _ROOM_OF_STRANGERS
        return self.busy, self.lapsed, -room, dice


@dataclass(eq=False, slots=True)
class Grant:
    """A piece that a child was offered, and that keeps a place.

    Attributes:
        child: Who.
        number: Of the piece.
        at: When it was granted.
        asked: The child has asked for it.
    """

    child: str
    number: int
    at: float
    asked: bool = False


@dataclass(slots=True)
class Giving:
    """One task's pieces on this host, and its children.

    Args:
        slots: The places, which all tasks of the host share.
        rng: For choosing among equals.
        length: Bytes in a piece.
    """

    slots: Window
    rng: random.Random
    length: int

    #: The pieces that are here.
    here: int = field(init=False, default=0)
    #: More are being fetched from the origin: until they are here, and given, none is given twice.
    at_source: bool = field(init=False, default=False)
    #: Pieces that were granted, and when each was for the first time, oldest first.
    _given: int = field(init=False, default=0)
    _held: deque[tuple[float, int]] = field(init=False, default_factory=deque)
    _children: dict[str, _Child] = field(init=False, default_factory=dict)
    #: What keeps a place, oldest first.
    _grants: dict[Grant, None] = field(init=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self._children)

    # -- what happens --------------------------------------------------------------------------

    def join(self, child: str, lacks: int, room: int) -> None:
        """A child has come, wants these pieces, and would fetch so many at once."""
        self._children[child] = _Child(lacks, room=room)

    def leave(self, child: str, now: float) -> None:
        """A child has gone."""
        for grant in [g for g in self._grants if g.child == child and not g.asked]:
            self._end(grant, now, arrived=False)
        del self._children[child]

    def has_room(self, child: str, room: int) -> None:
        """A child would fetch so many pieces more than it does now."""
        self._children[child].room = room

    def ahead_of(self, child: str) -> int:
        """Pieces that a child was offered, wants, and has not asked for."""
        return self._children[child].open.bit_count()

    def lacks(self, child: str, pieces: int) -> None:
        """A child wants these, perhaps again, and will have to be offered them anew."""
        who = self._children[child]
        who.offered &= ~pieces
        who.open &= ~pieces
        who.later &= ~pieces
        who.lacks |= pieces

    def has(self, child: str, pieces: int, now: float) -> None:
        """A child needs these no more: it has them, or fetches them from others."""
        who = self._children[child]
        who.lacks &= ~pieces
        who.later &= ~pieces
        who.open &= ~pieces
        if not who.busy:
            return
        for grant in [g for g in self._grants if g.child == child and not g.asked]:
            if pieces >> grant.number & 1:
                self._end(grant, now, arrived=False)

    def spares(self, child: str, pieces: int, now: float) -> None:
        """A child has these coming from elsewhere, nearer to it, and may want them later yet."""
        if pieces:
            self.has(child, pieces, now)
            self._children[child].later |= pieces

    def asked(self, number: int) -> Grant | None:
        """Somebody asks for a piece: the grant that he was given, if he was given one.

        Who asks is not known, so it is the oldest for that piece.
        """
        for grant in self._grants:
            if grant.number == number and not grant.asked:
                grant.asked = True
                who = self._children[grant.child]
                who.lapsed, who.known = 0, True
                who.open &= ~(1 << number)
                return grant
        for who in self._children.values():
            if who.open >> number & 1:
                who.open &= ~(1 << number)
                who.lacks &= ~(1 << number)
                break
        return None

    def sent(self, grant: Grant, now: float, *, arrived: bool) -> None:
        """What was asked for by *grant* is sent, or was not."""
        if grant in self._grants:
            self._end(grant, now, arrived=arrived)

    # -- what is to be done --------------------------------------------------------------------

    def grant(self, now: float) -> list[tuple[str, int]]:
        """Offers to make now: child and piece."""
        self._lapse(now)
        if len(self._children) == 1:
            return self._offer_ahead()
        offers: list[tuple[str, int]] = []
        while self.slots.has_place(now):
            found = self._rarest(now)
            if found is None:
                break
            child, number = found
            grant = Grant(child, number, now)
            self._grants[grant] = None
            self.slots.began(grant, now, self.length)
            who = self._children[child]
            who.busy += 1
            who.room -= 1
            self._offer(who, 1 << number)
            if self.at_source and not self._given >> number & 1:
                self._given |= 1 << number
                self._held.append((now, number))
            offers.append(found)
        return offers

    def is_through_with(self, child: str, coming: int) -> bool:
        """Whether there is nothing here, nor will be, that a child might still ask for."""
        who = self._children[child]
        return not who.busy and not (who.lacks | who.open | who.later) & (self.here | coming)

    # -- how -----------------------------------------------------------------------------------

    def _offer_ahead(self) -> list[tuple[str, int]]:
        ((child, who),) = self._children.items()
        ahead = who.open.bit_count()
        if ahead > AHEAD // 2:
            return []
        offers: list[tuple[str, int]] = []
        left = who.lacks & self.here & ~who.offered
        while left and ahead < AHEAD:
            number = (left & -left).bit_length() - 1
            left &= left - 1
            ahead += 1
            who.offered |= 1 << number
            who.open |= 1 << number
            offers.append((child, number))
        return offers

    def _to_give(self, now: float) -> int:
        """Pieces that may be given now."""
        if not self.at_source:
            return self.here
        hold = self.slots.seconds(self.length) * HOLD
        while self._held and now - self._held[0][0] > hold:
            self._held.popleft()
        held = 0
        for _, number in self._held:
            held |= 1 << number
        return self.here & ~held

    def _rarest(self, now: float) -> tuple[str, int] | None:
        """A piece that the most children lack, and one of them: who has least to do here."""
        here = self._to_give(now)
        children, random = self._children, self.rng.random
        everybody = [
            (who.rank(random()), name, who)
            for name, who in children.items()
            if who.room > 0 and who.lacks & here & ~who.offered
        ]
        if not everybody:
            return None
        everybody.sort()
        waiting = sum(1 for g in self._grants if not g.asked and not children[g.child].known)
        if waiting and waiting >= self.slots.limit - 1:
            known = [(name, who) for _, name, who in everybody if who.known]
            found = self._rarest_of(here, known)
            if found is not None:
                return found
        return self._rarest_of(here, [(name, who) for _, name, who in everybody])

    def _rarest_of(self, here: int, wanted: list[tuple[str, _Child]]) -> tuple[str, int] | None:
        some = 0
        for _, who in wanted:
            some |= who.lacks & ~who.offered
        rarest = self._most_lacked(some & here)
        for name, who in wanted:
            pieces = who.lacks & rarest & ~who.offered
            if pieces:
                return name, self._any_of(pieces)
        return None

    def _most_lacked(self, pieces: int) -> int:
        """Of *pieces* those that the most children lack.

        How many lack each is counted in binary, for all of them at once: a number has the ones of
        all counts, the next one their twos, and so on. So a count costs two operations a child, and
        what children tell, far more often than something is granted, next to nothing.
        """
        digits: list[int] = []
        for who in self._children.values():
            carry, at = who.lacks & pieces, 0
            while carry:
                if at == len(digits):
                    digits.append(carry)
                    break
                digit = digits[at]
                digits[at], carry, at = digit ^ carry, digit & carry, at + 1
        for digit in reversed(digits):
            pieces = pieces & digit or pieces
        return pieces

    def _any_of(self, pieces: int) -> int:
        """One of them, at random: the first that follows some place."""
        from_here = pieces >> self.rng.randrange(pieces.bit_length())
        at = pieces.bit_length() - from_here.bit_length()
        return at + (from_here & -from_here).bit_length() - 1

    def _offer(self, who: _Child, piece: int) -> None:
        who.offered |= piece
        who.open |= piece
        who.lacks &= ~piece

    def _lapse(self, now: float) -> None:
        """Grants that were not asked for in time keep no place; the offers stand."""
        for grant in list(self._grants):
            if grant.asked:
                continue
            if grant.at + LAPSE > now:
                return  # those that follow are younger
            who = self._children[grant.child]
            who.lapsed += 1
            who.lacks |= 1 << grant.number
            self._end(grant, now, arrived=False)

    def _end(self, grant: Grant, now: float, *, arrived: bool) -> None:
        del self._grants[grant]
        self.slots.ended(grant, now, arrived=arrived)
        who = self._children.get(grant.child)
        if who is not None:
            who.busy -= 1
            who.room += grant.asked  # what lapses is at the child still
