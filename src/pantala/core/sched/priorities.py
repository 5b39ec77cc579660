"""How much a download matters: by its own word, or by what is wanted of its application.

    its own priority, unless that is 0                  LEVEL0 says nothing
    of the first application of its name:
        the first URL pattern that is found in its URL
        else the application's own

Tasks that were imported have no URL, and come from no origin: their own word alone counts.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from pantala.core.patterns import Pattern
from pantala.model.cluster import Application
from pantala.model.task import DownloadRequest

from .rules import RULES

#: URLs whose priorities are remembered; of a swarm all ask by the same.
_MOST_KEPT: Final = 4096


class Priorities:
    """What is wanted of applications.

    Args:
        applications: Those that have a say.

    Attributes:
        skipped: A line for each pattern that makes no sense, or is not supported: no URL fits it.
    """

    def __init__(self, applications: Iterable[Application] = ()) -> None:
        skipped: list[str] = []
        #: By name: patterns with their values, and the value where none is found.
        self._known: dict[str, tuple[list[tuple[Pattern, int]], int]] = {}
        for application in applications:
            if application.name in self._known:
                continue
            patterns: list[tuple[Pattern, int]] = []
            for each in application.urls:
                try:
                    patterns.append((Pattern(each.regex), each.value))
                except ValueError as error:
                    skipped.append(f"application {application.name}: {each.regex!r}: {error}")
            self._known[application.name] = patterns, application.priority
        self.skipped = tuple(skipped)
        #: By application and a digest of the URL, which may hold secrets.
        self._found: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    def judge(self, request: DownloadRequest) -> DownloadRequest:
        """*request* with the priority that counts."""
        known = self._known.get(request.application or "")
        rules = RULES.get(request.kind)
        if request.priority or known is None or rules is None or not rules.from_source:
            return request
        patterns, value = known
        if patterns:
            value = self._by_url(request.application or "", request.url, patterns, value)
        return replace(request, priority=value) if value else request

    def _by_url(
        self, name: str, url: str, patterns: list[tuple[Pattern, int]], otherwise: int
    ) -> int:
        key = name, hashlib.blake2b(url.encode(), digest_size=16).digest()
        value = self._found.get(key)
        if value is None:
            fits = (value for pattern, value in patterns if pattern.found_in(url))
            value = self._found[key] = next(fits, otherwise)
            if len(self._found) > _MOST_KEPT:
                self._found.popitem(last=False)
        else:
            self._found.move_to_end(key)
        return value
