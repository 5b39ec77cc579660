"""The stores of a node, one for each medium, and which of them a kind is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pantala.core.policy import Medium, policy_of
from pantala.model.task import Kind, TaskRecord

from .holding import Holding
from .home import Reason
from .store import Store


class Stores:
    """See the module. Whoever names a kind that is not served gets FeatureOff.

    Args:
        by_medium: For each medium that a served kind is in.
        clock: Unix time, seconds.
    """

    def __init__(self, by_medium: Mapping[Medium, Store], *, clock: Callable[[], float]) -> None:
        self.by_medium = dict(by_medium)
        self.now = clock

    def __getitem__(self, kind: Kind) -> Store:
        """The store that a kind is in."""
        return self.by_medium[policy_of(kind).medium]

    def all(self) -> list[Store]:
        """The stores, each once, though several kinds may share one."""
        return list(self.by_medium.values())

    def __iter__(self) -> Iterator[Holding]:
        """Every task that is held."""
        for store in self.all():
            yield from store

    def get(self, kind: Kind, task_id: str) -> Holding | None:
        """What is held of a task, or None."""
        return self[kind].get(kind, task_id)

    def open(self, record: TaskRecord) -> Holding:
        """Begin, or go on, to hold a task; see :meth:`.Store.open`."""
        return self[record.kind].open(record)

    def remove(self, holding: Holding, reason: Reason) -> None:
        """Delete a task: from here on nobody finds it. A second time does nothing."""
        self[holding.kind].remove(holding, reason)

    def recall(self) -> None:
        """Look what of all that was handed off is back."""
        for store in self.all():
            store.recall()

    def expire(self, ttl: Mapping[Kind, float]) -> None:
        """Delete what nobody uses and nobody has used for its time to live."""
        for store in self.all():
            store.expire(ttl)

    def close(self) -> None:
        """Free everything. Leases end as their holders let go."""
        for store in self.all():
            store.close()
