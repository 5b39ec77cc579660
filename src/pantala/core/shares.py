"""A share for each of those who ask, of what there is for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Shares:
    """How much is in use, and by whom.

    Args:
        total: What all may use at once.
        each: What one may use at once.
    """

    def __init__(self, *, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._used = 0
        #: What each of those who use something uses.
        self._by: dict[str, int] = {}

    @property
    def used(self) -> int:
        """How much all together use now."""
        return self._used

    def __len__(self) -> int:
        """How many use something now."""
        return len(self._by)

    def fits(self, who: str, amount: int) -> bool:
        """Whether *who* may use *amount* more."""
        mine = self._by.get(who, 0) + amount
        return mine <= self._each and self._used + amount <= self._total

    @contextmanager
    def hold(self, who: str, amount: int) -> Iterator[None]:
        """Let *who* use *amount*, which :meth:`fits`, inside the ``with``."""
        self.take(who, amount)
        try:
            yield
        finally:
            self.give(who, amount)

    def take(self, who: str, amount: int) -> None:
        """*who* uses *amount* more, which :meth:`fits`, until he gives it back."""
        self._used += amount
        self._by[who] = self._by.get(who, 0) + amount

    def give(self, who: str, amount: int) -> None:
        """*who* gives back some of what he took."""
        self._used -= amount
        self._by[who] -= amount
        if not self._by[who]:
            del self._by[who]
