"""The store that a holding is in, as the holding sees it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeVar

from pantala.core.ledger import Account, Ledger, Needs
from pantala.model.task import Kind, TaskRecord

from .journal import Journal
from .leases import HandOffs
from .medium import Content, Medium

_T = TypeVar("_T")


class Reason(StrEnum):
    """Why a task left its store, as the metrics name it."""

    LRU = "lru"
    TTL = "ttl"
    DISK = "disk"
    DELETED = "deleted"
    FAILED = "failed"
    CHANGED = "changed"
    LOST = "lost"


class Home(Protocol):
    """The store that a holding is in, as the holding sees it."""

    ledger: Ledger
    medium: Medium
    journal: Journal
    hand_offs: HandOffs
    now: Callable[[], float]

    #: Called when there may be more room than before.
    on_room: Callable[[], None]

    def admit(self, account: Account, amount: int, besides: Needs) -> list[Content]:
        """Reserve bytes and what is needed besides, evicting who must go for it.

        Returns:
            What the evicted held, to be used again or discarded.

        Raises:
            NoRoom: They do not fit. Nothing has changed.
            TaskDeleted: The account takes no more.
        """

    def look_at_room(self) -> None:
        """Have the ledger know how much room there is now. Raises StoreFailed when nobody says."""

    def make(self, make: Callable[[], _T]) -> _T:
        """Call *make*; while the system has no descriptor for it, evict who has one."""

    def open(self, record: TaskRecord) -> object:
        """Something is known now of a task that is held."""

    def published(self, amount: int) -> None:
        """A piece of so many bytes is here."""

    def drop(self, kind: Kind, task_id: str, reason: Reason) -> None:
        """Delete a task; nothing happens when it is not held."""
