"""Who relies on bytes: users in this process, and programs that were handed a descriptor.

What was handed off counts as used until the kernel says that nobody else has it any more
(docs/adr/0008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from pantala.core.ledger import Account

#: Whom a hand-off is for where the system does not say: the user id that is none.
NOBODY: Final = -1


class Lease:
    """The right to find a holding's bytes where they are, until it ends."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it. A second time does nothing."""
        end, self._end = self._end, None
        if end is not None:
            end()


class HandedOff(Protocol):
    """What was handed off.

    Attributes:
        account: Its account, where the lease for its readers in other programs counts.
    """

    account: Account

    def is_elsewhere(self) -> bool:
        """Whether anybody may still have it by a hand-off."""

    def lease(self) -> Lease:
        """Keep the bytes where they are."""


@dataclass(slots=True)
class _Readers:
    """Programs that may have the bytes of a task.

    Attributes:
        lease: Ended when they have it no more.
        users: Whose programs were given it since nobody had it.
    """

    lease: Lease
    users: set[int] = field(default_factory=set)


class HandOffs:
    """See the module.

    Args:
        limit: Bytes that programs of one user may keep by a descriptor or mapping alone and still
            be given more. None: any number.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._readers: dict[HandedOff, _Readers] = {}

    def __contains__(self, content: HandedOff) -> bool:
        return content in self._readers

    def add(self, content: HandedOff, user: int) -> None:
        """A program of *user* was given *content*."""
        if content not in self._readers:
            self._readers[content] = _Readers(content.lease())
        self._readers[content].users.add(user)

    def is_kept(self, content: HandedOff) -> bool:
        """Only those use it who keep what they were given though they need it no longer."""
        return content in self._readers and content.account.leases == 1

    def recall(self, content: HandedOff) -> None:
        """Stop counting it as used, once nobody has it any more."""
        if self.is_kept(content) and not content.is_elsewhere():
            self._readers.pop(content).lease.end()

    def recall_all(self) -> None:
        """Look what of all that was handed off is back: 4 µs for each that only outsiders use."""
        for content in list(self._readers):
            self.recall(content)

    def kept(self, user: int | None = None) -> int:
        """Bytes that programs, or those of *user*, keep by a descriptor or mapping alone."""
        return sum(
            content.account.size
            for content, readers in self._readers.items()
            if self.is_kept(content) and (user is None or user in readers.users)
        )

    def keepers(self) -> list[int]:
        """The users whose programs do so, in order."""
        kept = (r for content, r in self._readers.items() if self.is_kept(content))
        return sorted({user for readers in kept for user in readers.users})

    def may_take(self, user: int) -> bool:
        """Whether programs of *user* may be given more."""
        if self._limit is None or self.kept(user) <= self._limit:
            return True
        self.recall_all()
        return self.kept(user) <= self._limit
