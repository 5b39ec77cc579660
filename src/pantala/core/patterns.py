r"""Regular expressions that are found in a text in time that only grows with its length.

Patterns are an operator's, texts are anybody's. What backtracks, as Python's own ``re`` does, takes
hours for some texts of a few kilobytes, and a pattern as plain as ``.*a.*b`` is enough. So
this goes through a text once, and keeps the set of all places in the pattern where it may be.

The language is that of Dragonfly, whose patterns are RE2's:

    x . [a-z] [^x] [[:alpha:]] \d \w \s \D \W \S \. \x7e    one character
    ab  a|b  (a)  (?:a)  (?P<name>a)                        one after the other; either; groups
    a* a+ a? a{2} a{2,} a{2,5}, and each with a ? after it  repeated; what follows is no matter here
    ^ $ \A \z                                               the text's ends
    (?i) (?s) (?U), (?i:a), (?-i)                           case does not matter; . is anything

Look-around and back-references are no part of it. Nor are, here, word boundaries (``\b``), Unicode
classes (``\p``), ``(?m)`` and ``\Q``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .pattern_syntax import Begin, Chars, Either, End, Node, Repeat, Sequence, parse

#: Characters that a pattern may take one after the other, all repetitions written out.
_MOST_PLACES: Final = 500

#: Steps that are remembered of a pattern: so many of each kind, then they are found out anew.
_MOST_KEPT: Final = 4096


class Pattern:
    """One of them.

    Args:
        text: As an operator wrote it.

    Raises:
        ValueError: It makes no sense, is not supported, or is too large; in words.
    """

    def __init__(self, text: str) -> None:
        tree = parse(text)
        if _size(tree) > _MOST_PLACES:
            raise ValueError(f"too large: want at most {_MOST_PLACES} characters and repetitions")
        places = _Places()
        self._nullable, self._first, self._last = places.add(tree)
        self._follow = places.follow
        self._fit = {chars: _mask(at) for chars, at in places.chars.items()}
        self._begin, self._end = _mask(places.begins), _mask(places.ends)
        #: Places that a character fits, and those that may come after a set of places.
        self._fitting: dict[str, int] = {}
        self._after: dict[int, int] = {0: self._first}

    def found_in(self, text: str) -> bool:
        """Whether it fits some part of *text*."""
        if self._nullable:
            return True
        here = self._at_edge(self._first & self._begin, self._begin)
        if here & self._last:
            return True
        last, after, fitting = self._last, self._after, self._fitting
        for char in text:
            may_come = after.get(here)
            if may_come is None:
                may_come = self._find_after(here)
            fits = fitting.get(char)
            if fits is None:
                fits = self._find_fitting(char)
            here = may_come & fits
            if here & last:
                return True
        here = self._at_edge((self._first | self._union(here)) & self._end, self._end)
        return bool(here & last)

    def _at_edge(self, here: int, edge: int) -> int:
        """All places that an end of a text fits, from those *here*: it may be asked for twice."""
        before = -1
        while here != before:
            before, here = here, here | (self._union(here) & edge)
        return here

    def _union(self, here: int) -> int:
        found = 0
        for place in _bits(here):
            found |= self._follow[place]
        return found

    def _find_after(self, here: int) -> int:
        if len(self._after) >= _MOST_KEPT:
            self._after.clear()
        self._after[here] = found = self._first | self._union(here)
        return found

    def _find_fitting(self, char: str) -> int:
        if len(self._fitting) >= _MOST_KEPT:
            self._fitting.clear()
        found = 0
        for chars, places in self._fit.items():
            if chars.has(char):
                found |= places
        self._fitting[char] = found
        return found


#: Whether a part of a pattern fits the empty text, where it may begin, and where it may end.
_Part = tuple[bool, int, int]


class _Places:
    """The places of a pattern, one for each character in it, and which may follow which."""

    def __init__(self) -> None:
        self.follow: list[int] = []
        self.chars: dict[Chars, list[int]] = {}
        self.begins: list[int] = []
        self.ends: list[int] = []

    def add(self, node: Node) -> _Part:
        """A part of the pattern. It stands nowhere yet."""
        match node:
            case Chars():
                return self._new(self.chars.setdefault(node, []))
            case Begin():
                return self._new(self.begins)
            case End():
                return self._new(self.ends)
            case Sequence(parts):
                return self._one_after_the_other(map(self.add, parts))
            case Either(parts):
                return self._either(map(self.add, parts))
            case Repeat():  # pragma: no branch  there is no other
                return self._one_after_the_other(self._repeat(node))

    def _new(self, among: list[int]) -> _Part:
        place = len(self.follow)
        self.follow.append(0)
        among.append(place)
        return False, 1 << place, 1 << place

    def _one_after_the_other(self, parts: Iterator[_Part]) -> _Part:
        nullable, first, last = True, 0, 0
        for part_nullable, part_first, part_last in parts:
            self._join(last, part_first)
            first |= part_first if nullable else 0
            last = part_last | (last if part_nullable else 0)
            nullable = nullable and part_nullable
        return nullable, first, last

    @staticmethod
    def _either(parts: Iterator[_Part]) -> _Part:
        nullable, first, last = False, 0, 0
        for part_nullable, part_first, part_last in parts:
            nullable, first, last = nullable or part_nullable, first | part_first, last | part_last
        return nullable, first, last

    def _repeat(self, node: Repeat) -> Iterator[_Part]:
        """As often as it must be there, then as often as it may."""
        endless = node.most is None
        must, may = node.least, 0 if node.most is None else node.most - node.least
        for n in range(must):
            part = self.add(node.part)
            if endless and n == must - 1:
                self._join(part[2], part[1])
            yield part
        if endless and not must:
            _, first, last = self.add(node.part)
            self._join(last, first)
            yield True, first, last
        for _ in range(may):
            _, first, last = self.add(node.part)
            yield True, first, last

    def _join(self, last: int, first: int) -> None:
        for place in _bits(last):
            self.follow[place] |= first


def _size(node: Node) -> int:
    """How many parts it has with all repetitions written out, and so how long it takes to do so."""
    match node:
        case Sequence(parts) | Either(parts):
            return 1 + sum(map(_size, parts))
        case Repeat(part, least, most):
            return 1 + _size(part) * max(1, least, most or 0)
        case _:
            return 1


def _mask(places: list[int]) -> int:
    return sum(1 << place for place in places)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
