"""How an origin has failed hosts that asked it what a task is, and whether another is to try.

Of each host the last failure is remembered. Failures count as in ADR 13: what one's own credentials
would hear again, and what is no answer, counts once for each host; what the origin has answered to
other credentials, once for each of these, and not at all where it refuses just them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pantala.errors import CREDENTIALS_REFUSED, OriginError

from .rules import Limits

#: Seconds for which all are told that the origin has failed, until one may try it again.
REST: Final = 5.0

#: Failures that are remembered, of so many hosts.
_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """How the origin failed a host.

    Attributes:
        at: When, in seconds on the clock of who asks.
        host_id: Which host.
        credentials: With which it had asked.
        said: How, in words.
        status: By which status; None: it did not answer.
    """

    at: float
    host_id: str
    credentials: str
    said: str
    status: int | None

    @property
    def is_answer(self) -> bool:
        """With other credentials the origin may say something else. Many say 404 to strangers."""
        return self.status is not None and 400 <= self.status < 500

    def is_for(self, credentials: str) -> bool:
        """Whether who asks with *credentials* would have heard the same."""
        return not self.is_answer or self.credentials == credentials


class Refusals:
    """Those of one task: the last of each host."""

    def __init__(self) -> None:
        #: Oldest first.
        self._all: list[Refusal] = []

    @property
    def last_at(self) -> float:
        """When the last came; 0.0: none did."""
        return self._all[-1].at if self._all else 0.0

    def add(self, refusal: Refusal) -> None:
        """Remember it; of one host the last only."""
        kept = [each for each in self._all if each.host_id != refusal.host_id]
        self._all = [*kept, refusal][-_MOST:]

    def clear(self) -> None:
        """The origin has answered: forget them."""
        self._all.clear()

    def check(self, credentials: str, limits: Limits, now: float) -> None:
        """Whether it makes sense to ask the origin with *credentials* now.

        Raises:
            OriginError: It has failed several others, the last of them just now.
        """
        counted = [
            each
            for each in self._all
            if now - each.at <= limits.origin_memory
            and (each.is_for(credentials) or each.status not in CREDENTIALS_REFUSED)
        ]
        names = {
            (each.host_id, "") if each.is_for(credentials) else ("", each.credentials)
            for each in counted
        }
        if len(names) >= limits.origin_failures and now - counted[-1].at <= REST:
            raise OriginError(
                f"the origin failed for {len(names)} hosts, the last time by: {counted[-1].said}",
                status=counted[-1].status,
            )
