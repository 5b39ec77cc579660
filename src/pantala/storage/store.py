"""Every task on this node whose bytes lie in one medium, in a store of limited size.

Eviction, expiry and deletion are one act: content, records, and a word to
:attr:`Store.on_removed`.

Everything here and in :mod:`.holding` runs on the event loop's thread and never blocks; only the
views are used by other threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pantala.core.content_state import ContentState
from pantala.core.ledger import Account, Ledger, Needs
from pantala.core.reclaim import expired
from pantala.errors import NoRoom, StoreFailed, Unavailable
from pantala.model.pieces import piece_at
from pantala.model.task import Kind, PieceRecord, TaskRecord

from .holding import Holding
from .home import Reason
from .journal import Journal
from .leases import HandOffs
from .medium import Content, Medium

_T = TypeVar("_T")

_NOTHING: Final = Needs()

#: What is known of tasks may take this part of the capacity besides; or so many bytes, if that is
#: more: some four thousand tasks with ordinary headers.
_RECORDS_PART: Final = 8
_RECORDS_LEAST: Final = 16 << 20

#: Bytes that a task takes even if it is empty, and a response header besides its text. Measured.
_TASK_COST: Final = 4096
_HEADER_COST: Final = 128


@dataclass(frozen=True, slots=True)
class Figures:
    """How full the store is; bytes, but for *tasks*.

    Attributes:
        pinned: The part of *leased* that programs keep by a descriptor or mapping alone.
    """

    capacity: int
    used: int
    leased: int
    pinned: int
    published: int
    tasks: int


class Store:
    """See the module.

    Args:
        medium: Where the bytes lie.
        journal: Where what is known outlives the process.
        clock: Unix time, seconds.
        records: Bytes that records may take. None: as befits the capacity.
        descriptors: How many its tasks may have. None: any number.
        mappings: How many its tasks may have. None: any number.
        pinned_per_user: Bytes that programs of one user may keep by a descriptor or mapping
            alone and still be given more. None: any number.
    """

    def __init__(
        self,
        medium: Medium,
        journal: Journal,
        *,
        clock: Callable[[], float],
        records: int | None = None,
        descriptors: int | None = None,
        mappings: int | None = None,
        pinned_per_user: int | None = None,
    ) -> None:
        capacity = medium.capacity()
        if records is None:
            records = max(capacity // _RECORDS_PART, _RECORDS_LEAST)
        self.ledger = Ledger(
            capacity,
            records=records,
            descriptors=descriptors,
            mappings=mappings,
            place=medium.place,
        )
        self.medium = medium
        self.journal = journal
        self.hand_offs = HandOffs(pinned_per_user)
        self.now = clock
        #: Called after a task has left, for whatever reason.
        self.on_removed: Callable[[Holding, Reason], None] = lambda _holding, _reason: None
        #: Called when there may be more room than before.
        self.on_room: Callable[[], None] = lambda: None
        self._published = 0
        self._holdings: dict[tuple[Kind, str], Holding] = {}
        self._of_account: dict[Account, Holding] = {}

    def __len__(self) -> int:
        return len(self._holdings)

    def __iter__(self) -> Iterator[Holding]:
        return iter(list(self._holdings.values()))

    def figures(self) -> Figures:
        """How full it is, in bytes and tasks."""
        return Figures(
            capacity=self.ledger.capacity,
            used=self.ledger.used,
            leased=self.ledger.leased,
            pinned=self.hand_offs.kept(),
            published=self._published,
            tasks=len(self._holdings),
        )

    def load(self, keeps: Callable[[TaskRecord], bool] = lambda _record: True) -> None:
        """Take up what an earlier process has left. Blocks; called once, before anything else.

        What the journal says is here and is not is forgotten, and what it does not speak of is
        freed. So is the half of a file whose import the process did not live to end.

        Args:
            keeps: Whether a task is to outlive the process that had it.

        Raises:
            ConfigError: The journal cannot be used.
        """
        found = sorted(self.journal.load(), key=lambda entry: entry[0].updated_at)
        for record, pieces in found:
            if keeps(record):
                self._restore(record, pieces)
            else:
                self.journal.deleted(record.kind, record.id)
        self.medium.clean()
        self.look_at_room()

    def _restore(self, record: TaskRecord, pieces: list[PieceRecord]) -> None:
        state = ContentState(record, pieces)
        content = None
        half = record.persistent and not state.complete
        if pieces and state.is_sound() and not half:
            content = self.medium.restore(record, pieces)
        if half or (content is None and record.content_length != 0):
            self.journal.deleted(record.kind, record.id)
            return
        size = sum(piece.length for piece in pieces)
        account = self.ledger.resume(_key(record), size)
        account.pinned = record.persistent
        holding = Holding(self, state, account, content)
        self._holdings[record.kind, record.id] = self._of_account[account] = holding
        self.ledger.note(account, _cost(record))
        if not state.complete:
            holding.punch_missing()

    def look_at_room(self) -> None:
        """Have the ledger know how much room there is now. Raises StoreFailed when nobody says."""
        self.ledger.capacity = self.medium.capacity()

    def get(self, kind: Kind, task_id: str) -> Holding | None:
        """What is held of a task, or None."""
        return self._holdings.get((kind, task_id))

    def open(self, record: TaskRecord) -> Holding:
        """Begin, or go on, to hold a task. Nothing is reserved by this.

        What is held of the same task with other lengths or another version is from before it
        changed, and goes.
        """
        holding = self.get(record.kind, record.id)
        if holding is not None and not holding.state.agrees_with(record):
            self.remove(holding, Reason.CHANGED)
            holding = None
        if holding is None:
            account = self.ledger.open(_key(record))
            account.pinned = record.persistent
            holding = Holding(self, ContentState(record), account)
            self._holdings[record.kind, record.id] = self._of_account[account] = holding
        holding.state.start(record)
        self.journal.task(holding.record)
        self.medium.discard(self._evict(self.ledger.note(holding.account, _cost(holding.record))))
        return holding

    def published(self, amount: int) -> None:
        """A piece of so many bytes is here."""
        self._published += amount

    def admit(self, account: Account, amount: int, besides: Needs = _NOTHING) -> list[Content]:
        """Reserve bytes, evicting whom the ledger names. Raises as it does.

        Args:
            account: Whose.
            amount: Bytes.
            besides: What it takes as well, for the first time.

        Returns:
            What the evicted held, to be used again or discarded.
        """
        self.look_at_room()
        try:
            victims = self.ledger.reserve(account, amount, besides)
        except NoRoom:
            self.recall()
            try:
                victims = self.ledger.reserve(account, amount, besides)
            except NoRoom as error:
                # A task is no victim of its own.
                error.hopeless |= account.size + amount > self.ledger.capacity
                raise
        return self._evict(victims)

    def has_lengths_of(self, record: TaskRecord) -> bool:
        """Whether what is held of a task is cut into the same pieces as *record* says."""
        holding = self.get(record.kind, record.id)
        return holding is not None and holding.state.has_lengths_of(record)

    def lacks(self, record: TaskRecord, numbers: Iterable[int]) -> int:
        """Bytes that are not reserved yet of pieces of a task, held or not."""
        holding = self.get(record.kind, record.id)
        if holding is not None and self.has_lengths_of(record):
            return holding.lacks(numbers)
        total, length = record.content_length or 0, record.piece_length or 1
        return sum(
            piece_at(number, content_length=total, piece_length=length).length for number in numbers
        )

    def could_hold(self, record: TaskRecord, numbers: Iterable[int]) -> bool:
        """Whether there is room for pieces of a task, held or not, by evicting or without."""
        holding = self.get(record.kind, record.id)
        if holding is not None and self.has_lengths_of(record):
            account, needs = holding.account, holding.needs
        else:
            account = None
            needs = self.medium.needs(record.content_length or 0, abundant=self.ledger.abundant)
        with contextlib.suppress(StoreFailed):
            self.look_at_room()
        return self.ledger.could_reserve(account, self.lacks(record, numbers), needs)

    def holders(self) -> str:
        """Where others want room, and who has it, in words."""
        ledger, kept, users = self.ledger, self.hand_offs.kept(), self.hand_offs.keepers()
        named = f" of user {', '.join(map(str, users[:5]))}" if users else ""
        return (
            f"{ledger.place.name}: capacity {ledger.capacity}, {ledger.leased} in use "
            "by downloads, uploads and readers"
            + (f", {kept} of it kept by programs{named} that have left" if kept else "")
        )

    def recall(self) -> None:
        """Look what of all that was handed off is back."""
        self.hand_offs.recall_all()

    def make(self, make: Callable[[], _T]) -> _T:
        """Call *make*; while the system has no descriptor for it, evict who has one.

        The shares of descriptors should see to it that there is one, but others may have taken
        more than theirs.

        Raises:
            Unavailable: As *make* does, and nobody is left to evict.
        """
        while True:
            try:
                return make()
            except Unavailable:
                victim = self.ledger.least_used_with_descriptor()
                if victim is None:
                    raise
                self.ledger.doom(victim)
                for content in self._evict([victim]):
                    content.close()  # at once: that is what it has to go for

    def _evict(self, victims: Iterable[Account], reason: Reason = Reason.LRU) -> list[Content]:
        """Part with tasks whose accounts are closed; what they held."""
        evicted = []
        for victim in victims:
            holding = self._of_account[victim]
            if (content := holding.take_content()) is not None:
                evicted.append(content)
            self._forget(holding, reason, freed=True)
        return evicted

    def remove(self, holding: Holding, reason: Reason) -> None:
        """Delete a task: from here on nobody finds it. A second time does nothing."""
        if not holding.gone:
            self.hand_offs.recall(holding)
            freed = self.ledger.doom(holding.account)
            self._forget(holding, reason, freed=freed)
            self.on_room()

    def drop(self, kind: Kind, task_id: str, reason: Reason) -> None:
        """The same for what is held of a task, if anything is."""
        holding = self.get(kind, task_id)
        if holding is not None:
            self.remove(holding, reason)

    def _forget(self, holding: Holding, reason: Reason, *, freed: bool) -> None:
        del self._holdings[holding.kind, holding.id]
        del self._of_account[holding.account]
        holding.removed(freed=freed)
        self.journal.deleted(holding.kind, holding.id)
        self.on_removed(holding, reason)

    def expire(self, ttl: Mapping[Kind, float]) -> int:
        """Delete what nobody uses and nobody has used for its time to live; how many."""
        self.recall()
        records = (holding.record for holding in self._holdings.values())
        dead = [
            holding
            for record in expired(records, ttl=ttl, now=self.now())
            if (holding := self.get(record.kind, record.id)) and not holding.lease_count
        ]
        for holding in dead:
            self.remove(holding, Reason.TTL)
        return len(dead)

    def free(self, amount: int) -> int:
        """Evict so that *amount* bytes are free, or as many as can be; how many tasks went."""
        self.recall()
        victims = self.ledger.eldest(amount)
        self.medium.discard(self._evict(victims, Reason.DISK))
        return len(victims)

    def close(self) -> None:
        """The process ends: free what would not outlive it. Leases end as holders let go."""
        if not self.journal.lasts:
            for holding in self:
                self.remove(holding, Reason.DELETED)
        self.journal.close()


def _key(record: TaskRecord) -> str:
    """What the ledger calls a task."""
    return f"{record.kind.name}/{record.id}"


def _cost(record: TaskRecord) -> int:
    """Bytes that a record and what belongs to it take, about."""
    headers = sum(len(k) + len(v) + _HEADER_COST for k, v in record.response_header.items())
    texts = (record.url, record.tag, record.application, record.version)
    return _TASK_COST + headers + sum(len(text or "") for text in texts)
