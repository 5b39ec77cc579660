"""Content that was not what a digest says: who gave them, and which were right after all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pantala.model.task import Kind

#: Seconds for which a suspicion, or the word of the origin that clears of it, is remembered.
MEMORY: Final = 600.0

#: Tasks remembered, and hosts and peers of each: a few hundred bytes a task, as a rule.
_MAX_TASKS: Final = 1024
_MAX_GIVERS: Final = 64


@dataclass(slots=True)
class _Case:
    until: float
    hosts: frozenset[str] = frozenset()
    peers: list[str] = field(default_factory=list)
    #: What the pieces of a task hash to that the origin was read for, and had.
    confirmed: str = ""


class Suspects:
    """See the module. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._cases: OrderedDict[tuple[Kind, str], _Case] = OrderedDict()

    def _case(self, key: tuple[Kind, str], now: float) -> _Case | None:
        case = self._cases.get(key)
        if case is not None and case.until < now:
            del self._cases[key]
            return None
        return case

    def _put(self, key: tuple[Kind, str], case: _Case) -> None:
        self._cases.pop(key, None)
        self._cases[key] = case
        if len(self._cases) > _MAX_TASKS:
            self._cases.popitem(last=False)

    def suspect(
        self, key: tuple[Kind, str], hosts: Iterable[str], peers: set[str], now: float
    ) -> None:
        """What *hosts* gave, as *peers*, was not what it should be. Nor is it of those before."""
        case = self._case(key, now)
        before = frozenset() if case is None else case.hosts
        some = before | frozenset(sorted(hosts)[: _MAX_GIVERS - len(before)])
        self._put(key, _Case(now + MEMORY, some, sorted(peers)[:_MAX_GIVERS]))

    def confirm(self, key: tuple[Kind, str], digests: str, now: float) -> None:
        """The origin has what *digests* says: whoever gave it was right."""
        self._put(key, _Case(now + MEMORY, confirmed=digests))

    def is_suspect(self, key: tuple[Kind, str], host_id: str, now: float) -> bool:
        """Whether *host_id* is not to be asked for this task."""
        case = self._case(key, now)
        return case is not None and host_id in case.hosts

    def is_confirmed(self, key: tuple[Kind, str], digests: str, now: float) -> bool:
        """Whether the origin was read, and had this, not long ago."""
        case = self._case(key, now)
        return case is not None and bool(digests) and case.confirmed == digests

    def accused(self, key: tuple[Kind, str], now: float) -> list[str]:
        """The peers that a scheduler is to hear of; once."""
        case = self._case(key, now)
        if case is None:
            return []
        peers, case.peers = case.peers, []
        return peers
