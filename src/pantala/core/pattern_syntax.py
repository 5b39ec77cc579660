"""How a pattern is written (:mod:`.patterns`): text to a tree."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Final, NoReturn

#: Characters of a pattern, and groups within groups.
_LONGEST: Final = 1000
_DEEPEST: Final = 50
#: Repetitions, as in RE2.
_MOST_REPEATS: Final = 1000

_LAST: Final = chr(0x10FFFF)
_Ranges = tuple[tuple[str, str], ...]

_DIGIT: Final[_Ranges] = (("0", "9"),)
_LOWER: Final[_Ranges] = (("a", "z"),)
_UPPER: Final[_Ranges] = (("A", "Z"),)
_SPACE: Final[_Ranges] = (("\t", "\n"), ("\f", "\r"), (" ", " "))

#: ``\d``; those in capitals are all others.
_CLASSES: Final = {"d": _DIGIT, "s": _SPACE, "w": (*_DIGIT, *_LOWER, *_UPPER, ("_", "_"))}
#: ``[[:alpha:]]``.
_NAMED: Final[dict[str, _Ranges]] = {
    "alnum": (*_DIGIT, *_LOWER, *_UPPER),
    "alpha": (*_LOWER, *_UPPER),
    "ascii": (("\0", "\x7f"),),
    "blank": (("\t", "\t"), (" ", " ")),
    "cntrl": (("\0", "\x1f"), ("\x7f", "\x7f")),
    "digit": _DIGIT,
    "graph": (("!", "~"),),
    "lower": _LOWER,
    "print": ((" ", "~"),),
    "punct": (("!", "/"), (":", "@"), ("[", "`"), ("{", "~")),
    "space": (("\t", "\r"), (" ", " ")),
    "upper": _UPPER,
    "word": _CLASSES["w"],
    "xdigit": (*_DIGIT, ("a", "f"), ("A", "F")),
}
_CONTROLS: Final = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_COUNT: Final = re.compile(r"\{(\d{1,9})(,?)(\d{0,9})\}")
_FLAGS: Final = re.compile(r"\?([isU]*)(-[isU]+)?([:)])")
_NAME: Final = re.compile(r"\?P?<[A-Za-z_]\w*>")
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_POSIX: Final = re.compile(r"\[:(\^?)(\w+):\]")


@dataclass(frozen=True, slots=True)
class Chars:
    """One character, of these, or of all others."""

    ranges: _Ranges
    negated: bool = False
    any_case: bool = False

    def has(self, char: str) -> bool:
        """Whether *char* fits."""
        forms = {char, char.lower(), char.upper()} if self.any_case else {char}
        found = any(low <= form <= high for form in forms for low, high in self.ranges)
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class Begin:
    """Before the first character."""


@dataclass(frozen=True, slots=True)
class End:
    """After the last one."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same again; *most* None: as often as one likes."""

    part: Node
    least: int
    most: int | None


Node = Chars | Begin | End | Sequence | Either | Repeat

#: Of one character, with no more to it. Without ``(?s)`` a dot is no end of a line.
_PLAIN: Final[dict[str, Node]] = {".": Chars((), negated=True), "^": Begin(), "$": End()}

_REPEATS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse(text: str) -> Node:
    """The tree of a pattern.

    Raises:
        ValueError: It makes no sense, or is not supported, or too long; in words.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{len(text)} characters: want at most {_LONGEST}")
    parser = _Parser(text)
    tree = parser.either(0)
    if parser.at < len(text):
        raise ValueError(f"a ) at {parser.at + 1} closes nothing")
    return tree


class _Parser:
    """Goes through a pattern once; *at* is how far it has come."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._any_case = self._dot_all = False
        self.at = 0

    def either(self, depth: int) -> Node:
        """All until the end of a group, whose flags end with it."""
        if depth > _DEEPEST:
            self._fail(f"more than {_DEEPEST} groups within each other")
        flags = self._any_case, self._dot_all
        parts = [self._sequence(depth)]
        while self._takes("|"):
            parts.append(self._sequence(depth))
        self._any_case, self._dot_all = flags
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self.at < len(self._text) and self._text[self.at] not in "|)":
            part = self._one(depth)
            if part is not None:
                parts.append(self._repeated(part))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _one(self, depth: int) -> Node | None:
        """What may be repeated; None: flags, which are nothing themselves."""
        char = self._next()
        if char in "*+?":
            self._fail(f"{char} repeats nothing")
        if char == "." and not self._dot_all:
            return Chars((("\n", "\n"),), negated=True)
        special = {"(": lambda: self._group(depth), "[": self._class, "\\": self._escaped}
        if char in special:
            return special[char]()
        return _PLAIN.get(char) or self._chars(((char, char),))

    def _repeated(self, part: Node) -> Node:
        counts = self._count()
        if counts is None:
            return part
        self._takes("?")  # the fewest, or the most: it is there in any case
        if self._count() is not None:
            self._fail("what is repeated is repeated at once: put it into a group")
        return Repeat(part, *counts)

    def _count(self) -> tuple[int, int | None] | None:
        """How often; None: that is not said."""
        found = _COUNT.match(self._text, self.at)
        if found is None:
            counts = _REPEATS.get(self._text[self.at : self.at + 1])
            self.at += counts is not None
            return counts
        self.at = found.end()
        least, comma, last = found.groups()
        most = int(last) if last else None if comma else int(least)
        if max(int(least), most or 0) > _MOST_REPEATS or (most is not None and most < int(least)):
            self._fail(f"{found[0]}: want {{least,most}}, and no more than {_MOST_REPEATS}")
        return int(least), most

    def _group(self, depth: int) -> Node | None:
        before = self._any_case, self._dot_all
        if found := _NAME.match(self._text, self.at):
            self.at = found.end()
        elif found := _FLAGS.match(self._text, self.at):
            self.at = found.end()
            on, off, end = found.groups()
            self._any_case = (self._any_case or "i" in on) and "i" not in (off or "")
            self._dot_all = (self._dot_all or "s" in on) and "s" not in (off or "")
            if end == ")":
                return None
        elif self._takes("?"):
            self._fail(f"(?{self._text[self.at : self.at + 2]} is not supported")
        inside = self.either(depth + 1)
        self._any_case, self._dot_all = before
        if not self._takes(")"):
            self._fail("a ( is not closed")
        return inside

    def _class(self) -> Node:
        negated = self._takes("^")
        ranges: list[tuple[str, str]] = []
        first = True
        while first or not self._takes("]"):
            first = False
            low = self._class_item()
            if isinstance(low, tuple):
                ranges += low
                continue
            high: str | _Ranges = low
            if self._text[self.at : self.at + 1] == "-" and self._text[self.at + 1 :][:1] != "]":
                self.at += 1
                high = self._class_item()
            if isinstance(high, tuple) or high < low:
                self._fail("a range in [] ends before it begins, or with a class")
            ranges.append((low, high))
        return self._chars(tuple(ranges), negated=negated)

    def _class_item(self) -> str | _Ranges:
        """One character within ``[]``, or the ranges of a class."""
        if found := _POSIX.match(self._text, self.at):
            self.at = found.end()
            ranges = _NAMED.get(found[2])
            if ranges is None:
                self._fail(f"[:{found[2]}:] is no class")
            return _others(ranges) if found[1] else ranges
        char = self._next()
        if char != "\\":
            return char
        escaped = self._escaped()
        if not isinstance(escaped, Chars):
            self._fail("an end of the text is not in []")
        (low, high), *more = escaped.ranges
        if escaped.negated:
            return _others(escaped.ranges)
        return low if low == high and not more else escaped.ranges

    def _escaped(self) -> Node:
        if found := _HEX.match(self._text, self.at):
            self.at = found.end()
            code = int(found[1] or found[2], 16)
            if code > ord(_LAST):
                self._fail(f"\\{found[0]} is no character")
            return self._chars(((chr(code), chr(code)),))
        char = self._next()
        if char.lower() in _CLASSES:
            return self._chars(_CLASSES[char.lower()], negated=char.isupper())
        if char == "A":
            return Begin()
        if char == "z":
            return End()
        if char in string.ascii_letters + string.digits and char not in _CONTROLS:
            self._fail(f"\\{char} is not supported")
        char = _CONTROLS.get(char, char)
        return self._chars(((char, char),))

    def _chars(self, ranges: _Ranges, *, negated: bool = False) -> Chars:
        return Chars(ranges, negated, self._any_case)

    def _next(self) -> str:
        if self.at >= len(self._text):
            self._fail("it ends in the middle")
        self.at += 1
        return self._text[self.at - 1]

    def _takes(self, char: str) -> bool:
        found = self._text.startswith(char, self.at)
        self.at += found
        return found

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(f"at {self.at}: {why}")


def _others(ranges: _Ranges) -> _Ranges:
    """All characters that are not in *ranges*."""
    found: list[tuple[str, str]] = []
    start = 0
    for low, high in sorted(ranges):
        if ord(low) > start:
            found.append((chr(start), chr(ord(low) - 1)))
        start = max(start, ord(high) + 1)
    if start <= ord(_LAST):
        found.append((chr(start), _LAST))
    return tuple(found)
