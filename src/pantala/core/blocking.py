"""What the operator of a cluster has blocked: read from its configuration, and compared with.

A cluster's configuration, a manager's JSON or a dynconfig file's YAML, may have a block list for
each kind of task and for each of downloading it and importing it:

    block_list:
      task:
        download: {applications: [a], urls: [regex], tags: [t], priorities: [3]}
      persistent_cache_task:
        download: …
        upload: {applications: …, urls: …, tags: …}

Names may be written in camelCase, too. Whatever matches any of them is blocked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pantala.model.task import PRIORITIES, Kind

from .patterns import Pattern
from .policy import POLICIES

#: Characters of a URL that are compared. A longer one is blocked wherever there are patterns:
#: what stands beyond could be what they are for.
LONGEST_URL: Final = 8192

#: Entries of a list, and patterns, each of which may take a mebibyte.
_MOST: Final = 1000
_MOST_PATTERNS: Final = 256

_HUMP: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")


class Deed(StrEnum):
    """What may be blocked."""

    DOWNLOAD = "download"
    UPLOAD = "upload"


#: How the lists of each kind are called. Those of ``cache_task`` are ours.
_KINDS: Final = {
    "task": Kind.STANDARD,
    "persistent_task": Kind.PERSISTENT,
    "persistent_cache_task": Kind.PERSISTENT_CACHE,
    "cache_task": Kind.CACHE,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What somebody wants to download or import. ``""``: it has none."""

    url: str = ""
    application: str = ""
    tag: str = ""
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class BlockList:
    """One list. Whatever matches any of it is blocked.

    Attributes:
        urls: As they are written.
        patterns: The same, ready to be looked for.
    """

    applications: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    priorities: frozenset[int] = frozenset()
    patterns: tuple[Pattern, ...] = field(default=(), compare=False)

    def match(self, subject: Subject) -> str | None:
        """The part of it that *subject* is on; None if it is on none."""
        if subject.application and subject.application in self.applications:
            return "applications"
        if subject.tag and subject.tag in self.tags:
            return "tags"
        if subject.priority in self.priorities:
            return "priorities"
        if subject.url and self.patterns and self._has(subject.url):
            return "urls"
        return None

    def _has(self, url: str) -> bool:
        return len(url) > LONGEST_URL or any(each.found_in(url) for each in self.patterns)


@dataclass(frozen=True, slots=True)
class BlockLists:
    """All of a cluster. Made by :func:`read`.

    Attributes:
        lists: By kind of task and what is done with it.
        problems: A line for each part that has no effect, and why.
    """

    lists: Mapping[tuple[Kind, Deed], BlockList] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def match(self, kind: Kind, deed: Deed, subject: Subject) -> str | None:
        """The list that *subject* is on, as ``block_list.task.download.tags``; None if on none."""
        found = self.lists.get((kind, deed))
        part = None if found is None else found.match(subject)
        if part is None:
            return None
        name = next(name for name, each in _KINDS.items() if each is kind)
        return f"block_list.{name}.{deed}.{part}"


def read(config: object) -> BlockLists:
    """The block lists in a cluster's configuration, as JSON or YAML has it; there need be none.

    Raises:
        ValueError: It makes no sense; the words name the key. A pattern that is none is left out
            and told of in ``problems``, for the others are still wanted.
    """
    lists: dict[tuple[Kind, Deed], BlockList] = {}
    problems: list[str] = []
    root = _section(config, "").get("block_list")
    for name, kinds in _section(root, "block_list").items():
        key = f"block_list.{name}"
        kind = _KINDS.get(name)
        if kind is None:
            problems.append(f"{key}: no such kind of task; want one of {', '.join(_KINDS)}")
            continue
        for word, given in _section(kinds, key).items():
            where = f"{key}.{word}"
            if word not in tuple(Deed):
                problems.append(f"{where}: want download or upload")
            elif not _is_done(kind, deed := Deed(word)):
                problems.append(f"{where}: there is nothing of that kind to {word}")
            else:
                lists[kind, deed] = _read_list(_section(given, where), where, deed, problems)
    return BlockLists(lists, tuple(problems))


def _is_done(kind: Kind, deed: Deed) -> bool:
    """Whether it is done here with tasks of *kind*; what stock daemons alone do is not told of."""
    policy = POLICIES.get(kind)
    return deed is Deed.DOWNLOAD or policy is None or policy.imported


def _read_list(given: Mapping[str, Any], where: str, deed: Deed, problems: list[str]) -> BlockList:
    known = {"applications", "urls", "tags"} | ({"priorities"} if deed is Deed.DOWNLOAD else set())
    problems += (f"{where}.{name}: unknown" for name in given if name not in known)
    texts = {
        name: frozenset(_texts(given.get(name), f"{where}.{name}"))
        for name in ("applications", "tags")
    }
    patterns = dict(_patterns(given.get("urls"), f"{where}.urls", problems))
    priorities = given.get("priorities") if deed is Deed.DOWNLOAD else None
    return BlockList(
        texts["applications"],
        tuple(patterns),
        texts["tags"],
        frozenset(_priorities(priorities, f"{where}.priorities")),
        tuple(patterns.values()),
    )


def _section(given: object, where: str) -> dict[str, Any]:
    """A mapping with its keys in snake_case; empty if there is none.

    Raises:
        ValueError: It is something else, or has a key in two spellings.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where or 'the configuration'}: expected keys of its own")  # noqa: TRY004  of content, not of an argument
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = _HUMP.sub(r"_\1", str(key)).lower()
        if name in found:
            raise ValueError(f"{where}.{name}".lstrip(".") + " appears twice")
        found[name] = value
    return found


def _entries(given: object, where: str, most: int = _MOST) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list | tuple):
        raise ValueError(f"{where}: expected a list")  # noqa: TRY004  of content, not of an argument
    if len(given) > most:
        raise ValueError(f"{where}: {len(given)} entries, at most {most}")
    return list(given)


def _texts(given: object, where: str, most: int = _MOST) -> Iterator[str]:
    for entry in _entries(given, where, most):
        if not isinstance(entry, str):
            raise ValueError(f"{where}: expected texts, not {entry!r:.100}")  # noqa: TRY004  of content, not of an argument
        if entry:  # no request is of nothing
            yield entry


def _priorities(given: object, where: str) -> Iterator[int]:
    for entry in _entries(given, where):
        number = _priority(entry)
        if number is None:
            raise ValueError(f"{where}: expected 0 to 6, not {entry!r:.100}")
        yield number


def _priority(entry: object) -> int | None:
    if isinstance(entry, str) and entry.upper().startswith("LEVEL") and entry[5:].isdecimal():
        entry = int(entry[5:])
    if isinstance(entry, int) and not isinstance(entry, bool) and entry in PRIORITIES:
        return entry
    return None


def _patterns(given: object, where: str, problems: list[str]) -> Iterator[tuple[str, Pattern]]:
    for text in _texts(given, where, _MOST_PATTERNS):
        try:
            yield text, Pattern(text)
        except ValueError as error:
            problems.append(f"{where}: {text!r:.100}: {error}")
