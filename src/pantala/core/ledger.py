"""Whose bytes fill a store of limited size, who must go to make room, and who must not.

    open ──reserve──► live ──doom──► doomed ──last lease ends──► gone
                       │  ▲             ▲
                 lease │  │ release     └── takes no new leases, still counts
                       ▼  │
                      leased: never a victim

An account is one task's share. Reserving picks victims among live accounts without leases, least
recently used first; a doomed account counts until its last lease ends, because its bytes are
still in somebody's hands. What is known of a task takes room as well, if it is empty or tiny most
of all: records have a limit of their own, beyond which tasks go in the same order. So have the
descriptors and mappings that tasks take: whoever wants one has it from those that must go.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from pantala.errors import NoRoom, OutOfDescriptors, TaskDeleted


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task takes of the system besides its bytes."""

    descriptors: int = 0
    mappings: int = 0


_NOTHING: Final = Needs()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a store are, for messages.

    Attributes:
        name: Such as "in memory".
        advice: What an operator does when there is too little room.
    """

    name: str
    advice: str


MEMORY: Final = Place("in memory", "raise storage.cacheCapacity")


@dataclass(slots=True, eq=False)
class Account:
    """One task's share of the store. Changed only by its :class:`Ledger`.

    Attributes:
        key: The task's id, for messages and look-up.
        size: Bytes reserved.
        besides: What its content takes besides.
        record: Bytes that its records take, about.
        leases: Users who rely on the bytes now.
        pinned: Never to go to make room for others.
        doomed: Deleted; it lives on for its leases only.
    """

    key: str
    size: int = 0
    besides: Needs = _NOTHING
    record: int = 0
    leases: int = 0
    pinned: bool = False
    doomed: bool = False

    @property
    def must_stay(self) -> bool:
        """It is in use, or kept for good: nobody's need evicts it."""
        return bool(self.leases) or self.pinned


class Ledger:
    """The accounts of one store.

    Args:
        capacity: Bytes the store may hold.
        records: Bytes that records may take besides. None: any number.
        descriptors, mappings: How many tasks may have. None: any number.
        place: Where it is.
    """

    def __init__(
        self,
        capacity: int,
        *,
        records: int | None = None,
        descriptors: int | None = None,
        mappings: int | None = None,
        place: Place = MEMORY,
    ) -> None:
        self.capacity = capacity
        self.place = place
        self._descriptors_limit = descriptors
        self._mappings_limit = mappings
        #: Sums of what live and doomed accounts take besides bytes.
        self.descriptors = 0
        self.mappings = 0
        self._records_limit = records
        #: Sum of the records of live and doomed accounts.
        self.records = 0
        #: All and only the live accounts, least recently used first.
        self._live: OrderedDict[str, Account] = OrderedDict()
        #: All and only the doomed accounts that still have leases.
        self._doomed: set[Account] = set()
        #: Sum of the sizes of live and doomed accounts.
        self.used = 0
        #: Sum of the sizes of accounts with leases, doomed ones included.
        self.leased = 0

    def __len__(self) -> int:
        return len(self._live)

    def __repr__(self) -> str:
        return (
            f"<Ledger {self.used}/{self.capacity} bytes, {self.leased} leased, "
            f"{len(self._live)} live, {len(self._doomed)} doomed>"
        )

    def open(self, key: str) -> Account:
        """Start an account of nothing. There must be no live one of that key."""
        if key in self._live:
            raise ValueError(f"account {key} is open already")
        account = self._live[key] = Account(key)
        return account

    def resume(self, key: str, size: int) -> Account:
        """Start an account of what is here already, whether there is room for it or not."""
        account = self.open(key)
        account.size = size
        self.used += size
        return account

    def no_room(self, amount: int) -> NoRoom:
        """The error for *amount* bytes that do not fit."""
        return NoRoom(
            amount,
            capacity=self.capacity,
            leased=self.leased,
            kept=sum(account.size for account in self._live.values() if account.pinned),
            where=self.place.name,
            advice=self.place.advice,
        )

    def eldest(self, amount: int) -> list[Account]:
        """Who must go so that *amount* bytes are free, or as many as can be; they are closed.

        The least recently used first, and nobody who is in use or pinned.
        """
        victims: list[Account] = []
        for account in self._live.values():
            if amount <= 0:
                break
            if account.size and not account.must_stay:
                victims.append(account)
                amount -= account.size
        for victim in victims:
            self.doom(victim)
        return victims

    @property
    def abundant(self) -> bool:
        """Tasks have less than half of the descriptors that they may have."""
        return self._descriptors_limit is None or 2 * self.descriptors < self._descriptors_limit

    def reserve(self, account: Account, amount: int, besides: Needs = _NOTHING) -> list[Account]:
        """Add *amount* bytes to *account*, which becomes the most recently used.

        Args:
            account: Whose.
            amount: Bytes.
            besides: What it takes as well, for the first time.

        Returns:
            The accounts that had to go, already closed. What they held must be freed before
            the new bytes are filled.

        Raises:
            NoRoom: Not even without every unleased task. Nothing has changed.
            TaskDeleted: *account* is doomed.
        """
        if account.doomed:
            raise TaskDeleted(f"task {account.key} was deleted")
        victims = self._victims(account, amount, besides)
        for victim in victims:
            self.doom(victim)
        account.size += amount
        self.used += amount
        if account.leases:
            self.leased += amount
        self._take(account, besides)
        self.touch(account)
        return victims

    def could_reserve(self, account: Account | None, amount: int, besides: Needs) -> bool:
        """Whether :meth:`reserve` would do; *account* None is one that is not open yet."""
        try:
            self._victims(account, amount, besides)
        except NoRoom:
            return False
        return True

    def _victims(self, account: Account | None, amount: int, besides: Needs) -> list[Account]:
        victims: list[Account] = []
        short = self.used + amount - self.capacity
        descriptors = _short(self.descriptors, besides.descriptors, self._descriptors_limit)
        mappings = _short(self.mappings, besides.mappings, self._mappings_limit)
        for other in self._live.values():
            if short <= 0 and descriptors <= 0 and mappings <= 0:
                return victims
            has = other.besides
            helps = (
                (short > 0 and other.size)
                or (descriptors > 0 and has.descriptors)
                or (mappings > 0 and has.mappings)
            )
            if helps and not other.must_stay and other is not account:
                victims.append(other)
                short -= other.size
                descriptors -= has.descriptors
                mappings -= has.mappings
        if short > 0:
            raise self.no_room(amount)
        if descriptors > 0:
            raise OutOfDescriptors("descriptors", self._descriptors_limit)
        if mappings > 0:
            raise OutOfDescriptors("mappings", self._mappings_limit)
        return victims

    def least_used_with_descriptor(self) -> Account | None:
        """Who must go when the system has no descriptor left, whatever the limit says."""
        return next(
            (a for a in self._live.values() if a.besides.descriptors and not a.must_stay), None
        )

    def give_up(self, account: Account, besides: Needs) -> None:
        """*account* takes no more than *besides* now."""
        self._take(account, Needs(-account.besides.descriptors, -account.besides.mappings))
        self._take(account, besides)

    def _take(self, account: Account, more: Needs) -> None:
        has = account.besides
        account.besides = Needs(has.descriptors + more.descriptors, has.mappings + more.mappings)
        self.descriptors += more.descriptors
        self.mappings += more.mappings

    def note(self, account: Account, record: int) -> list[Account]:
        """The records of *account* take *record* bytes now.

        Returns:
            The accounts that had to go for it, already closed; those in use stay in any case.
        """
        self.records += record - account.record
        account.record = record
        victims: list[Account] = []
        short = 0 if self._records_limit is None else self.records - self._records_limit
        for other in self._live.values():
            if short <= 0:
                break
            if not other.must_stay and other is not account:
                victims.append(other)
                short -= other.record
        for victim in victims:
            self.doom(victim)
        return victims

    def give_back(self, account: Account, amount: int) -> None:
        """Take *amount* bytes off *account*: they turned out not to be needed."""
        if not 0 <= amount <= account.size:
            raise ValueError(f"cannot give back {amount} of {account}")
        account.size -= amount
        self.used -= amount
        if account.leases:
            self.leased -= amount

    def touch(self, account: Account) -> None:
        """Make *account* the most recently used."""
        if not account.doomed:
            self._live.move_to_end(account.key)

    def lease(self, account: Account) -> None:
        """Keep *account* from being a victim until :meth:`release`.

        Raises:
            TaskDeleted: It is doomed, and takes no new users.
        """
        if account.doomed:
            raise TaskDeleted(f"task {account.key} was deleted")
        if not account.leases:
            self.leased += account.size
        account.leases += 1
        self.touch(account)

    def release(self, account: Account) -> bool:
        """End one lease.

        Returns:
            Whether the account is gone with it, and its bytes must be freed now.
        """
        if not account.leases:
            raise ValueError(f"{account} has no lease to end")
        account.leases -= 1
        if account.leases:
            return False
        self.leased -= account.size
        if not account.doomed:
            return False
        self._doomed.remove(account)
        self._forget(account)
        return True

    def doom(self, account: Account) -> bool:
        """Delete *account*.

        Returns:
            Whether it is gone already, and its bytes must be freed now; else the last
            :meth:`release` says so. False, too, when it was doomed before.
        """
        if account.doomed:
            return False
        account.doomed = True
        del self._live[account.key]
        if account.leases:
            self._doomed.add(account)
            return False
        self._forget(account)
        return True

    def _forget(self, account: Account) -> None:
        self.used -= account.size
        self.descriptors -= account.besides.descriptors
        self.mappings -= account.besides.mappings
        self.records -= account.record


def _short(used: int, more: int, limit: int | None) -> int:
    """How many too many there would be; not above 0 when nothing more is wanted."""
    return 0 if limit is None or not more else used + more - limit
