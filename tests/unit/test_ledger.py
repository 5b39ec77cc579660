"""core/ledger.py: whose bytes fill a store, and who must go."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pantala.core.ledger import Account, Ledger
from pantala.errors import NoRoom, TaskDeleted


def _filled(ledger: Ledger, **sizes: int) -> list[Account]:
    """Accounts of these sizes, the first used longest ago."""
    accounts = []
    for key, size in sizes.items():
        accounts.append(ledger.open(key))
        ledger.reserve(accounts[-1], size)
    return accounts


def test_reserving_adds_up() -> None:
    """Twice is the sum; nothing is counted twice."""
    ledger = Ledger(100)
    account = ledger.open("a")

    assert ledger.reserve(account, 30) == []
    assert ledger.reserve(account, 20) == []
    assert (account.size, ledger.used, ledger.leased, len(ledger)) == (50, 50, 0, 1)


def test_the_least_recently_used_go_first() -> None:
    """And no more of them than it takes."""
    ledger = Ledger(100)
    a, b, c = _filled(ledger, a=40, b=30, c=30)
    ledger.touch(a)

    assert ledger.reserve(ledger.open("d"), 50) == [b, c]
    assert (b.doomed, c.doomed, a.doomed) == (True, True, False)
    assert (ledger.used, len(ledger)) == (90, 2)


@pytest.mark.parametrize("use", ["touch", "lease", "reserve"])
def test_what_counts_as_use(use: str) -> None:
    """The other one goes."""
    ledger = Ledger(100)
    a, b = _filled(ledger, a=50, b=50)
    if use == "touch":
        ledger.touch(a)
    elif use == "lease":
        ledger.lease(a)
        ledger.release(a)
    else:
        ledger.reserve(a, 0)

    assert ledger.reserve(ledger.open("c"), 50) == [b]


def test_leased_accounts_are_never_victims() -> None:
    """Even if they were used longest ago."""
    ledger = Ledger(100)
    a, b = _filled(ledger, a=50, b=50)
    ledger.lease(a)
    ledger.touch(b)

    assert ledger.reserve(ledger.open("c"), 50) == [b]


def test_accounts_of_nothing_are_no_victims() -> None:
    """Their going would make no room."""
    ledger = Ledger(100)
    ledger.open("empty")
    (a,) = _filled(ledger, a=100)

    assert ledger.reserve(ledger.open("b"), 10) == [a]
    assert len(ledger) == 2


def test_an_account_does_not_evict_itself() -> None:
    """Growing beyond the store is refused."""
    ledger = Ledger(100)
    (a,) = _filled(ledger, a=60)

    with pytest.raises(NoRoom):
        ledger.reserve(a, 41)
    assert (a.size, ledger.used) == (60, 60)


def test_a_refusal_names_what_is_needed_and_changes_nothing() -> None:
    """Those who could have gone stay: their going would not have sufficed."""
    ledger = Ledger(100)
    _, b = _filled(ledger, a=50, b=40)
    ledger.lease(b)

    with pytest.raises(NoRoom, match="70 bytes needed, capacity 100, 40 in use") as caught:
        ledger.reserve(ledger.open("c"), 70)
    assert (caught.value.needed, caught.value.capacity, caught.value.leased) == (70, 100, 40)
    assert (ledger.used, ledger.leased, len(ledger)) == (90, 40, 3)


def test_a_doomed_account_counts_until_its_last_lease_ends() -> None:
    """Its bytes are still in somebody's hands."""
    ledger = Ledger(100)
    (a,) = _filled(ledger, a=100)
    ledger.lease(a)
    ledger.lease(a)

    assert not ledger.doom(a)
    assert not ledger.doom(a), "a second time says nothing new"
    assert (ledger.used, ledger.leased, len(ledger)) == (100, 100, 0)
    with pytest.raises(NoRoom):
        ledger.reserve(ledger.open("b"), 1)
    assert not ledger.release(a)
    assert ledger.release(a)
    assert (ledger.used, ledger.leased) == (0, 0)


def test_a_doomed_account_takes_no_new_users() -> None:
    """Nor new bytes; its key is free for another."""
    ledger = Ledger(100)
    (a,) = _filled(ledger, a=10)
    ledger.lease(a)
    ledger.doom(a)
    ledger.touch(a)

    with pytest.raises(TaskDeleted, match="task a was deleted"):
        ledger.lease(a)
    with pytest.raises(TaskDeleted, match="task a was deleted"):
        ledger.reserve(a, 1)
    assert ledger.open("a") is not a


def test_what_is_given_back_can_be_had_by_others() -> None:
    """Leased or not."""
    ledger = Ledger(100)
    (a,) = _filled(ledger, a=100)
    ledger.lease(a)
    ledger.give_back(a, 30)
    assert (ledger.used, ledger.leased) == (70, 70)
    ledger.release(a)
    ledger.give_back(a, 20)
    assert (ledger.used, ledger.leased) == (50, 0)


def test_misuse_is_refused() -> None:
    """A bug of the caller must not bend the sums."""
    ledger = Ledger(100)
    (a,) = _filled(ledger, a=10)

    with pytest.raises(ValueError, match="is open already"):
        ledger.open("a")
    with pytest.raises(ValueError, match="no lease to end"):
        ledger.release(a)
    for amount in (11, -1):
        with pytest.raises(ValueError, match="cannot give back"):
            ledger.give_back(a, amount)


def test_repr_is_a_status_line() -> None:
    """Fit for a log."""
    ledger = Ledger(100)
    a, b = _filled(ledger, a=10, b=20)
    ledger.lease(a)
    ledger.lease(b)
    ledger.doom(b)

    assert repr(ledger) == "<Ledger 30/100 bytes, 30 leased, 1 live, 1 doomed>"


def test_records_have_a_limit_of_their_own() -> None:
    """For them empty tasks go as well, the least recently used first, and no more than it takes."""
    ledger = Ledger(100, records=10)
    empty, full, used, last = (ledger.open(key) for key in ("empty", "full", "used", "last"))
    ledger.reserve(full, 100)
    ledger.lease(used)
    for account in (used, empty, full):
        assert ledger.note(account, 3) == []

    assert ledger.note(last, 4) == [empty]
    assert (ledger.records, ledger.used, len(ledger)) == (10, 100, 3)
    assert ledger.note(last, 10) == [full]
    assert (ledger.records, ledger.used) == (13, 0)
    ledger.doom(used)
    assert ledger.records == 13
    ledger.release(used)
    assert ledger.records == 10
    assert ledger.note(last, 11) == []
    assert not last.doomed


CAPACITY = 100
RECORDS = 50


@dataclass(eq=False)
class Entry:
    """What the model knows of an account."""

    account: Account
    size: int = 0
    record: int = 0
    leases: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside two plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(CAPACITY, records=RECORDS)
        #: Least recently used first.
        self.live: list[Entry] = []
        self.doomed: list[Entry] = []
        self.count = 0

    def _pick(self, data: st.DataObject, entries: list[Entry]) -> Entry:
        return entries[data.draw(st.integers(0, len(entries) - 1))]

    def _use(self, entry: Entry) -> None:
        self.live.remove(entry)
        self.live.append(entry)

    def _used(self) -> int:
        return sum(entry.size for entry in self.live + self.doomed)

    @rule()
    def open(self) -> None:
        """A new account."""
        self.live.append(Entry(self.ledger.open(f"task{self.count}")))
        self.count += 1

    @precondition(lambda self: self.live)
    @rule(data=st.data(), amount=st.integers(0, CAPACITY + 10))
    def reserve(self, data: st.DataObject, amount: int) -> None:
        """The oldest unleased ones go until it fits, or nobody does."""
        entry = self._pick(data, self.live)
        victims, short = [], self._used() + amount - CAPACITY
        for other in self.live:
            if short > 0 and other is not entry and not other.leases and other.size:
                victims.append(other)
                short -= other.size
        if short > 0:
            with pytest.raises(NoRoom):
                self.ledger.reserve(entry.account, amount)
            return

        assert self.ledger.reserve(entry.account, amount) == [v.account for v in victims]
        self.live = [other for other in self.live if other not in victims]
        entry.size += amount
        self._use(entry)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), record=st.integers(0, RECORDS))
    def note(self, data: st.DataObject, record: int) -> None:
        """The oldest unleased ones go until there is room, or none is left."""
        entry = self._pick(data, self.live)
        entry.record = record
        victims, short = [], sum(e.record for e in self.live + self.doomed) - RECORDS
        for other in self.live:
            if short > 0 and other is not entry and not other.leases:
                victims.append(other)
                short -= other.record

        assert self.ledger.note(entry.account, record) == [v.account for v in victims]
        self.live = [other for other in self.live if other not in victims]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        """Somebody relies on it."""
        entry = self._pick(data, self.live)
        self.ledger.lease(entry.account)
        entry.leases += 1
        self._use(entry)

    @precondition(lambda self: self.doomed)
    @rule(data=st.data())
    def use_doomed(self, data: st.DataObject) -> None:
        """Too late for that."""
        entry = self._pick(data, self.doomed)
        with pytest.raises(TaskDeleted):
            self.ledger.lease(entry.account)
        with pytest.raises(TaskDeleted):
            self.ledger.reserve(entry.account, 1)

    @precondition(lambda self: any(e.leases for e in self.live + self.doomed))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """The last one of a doomed account ends it."""
        entry = self._pick(data, [e for e in self.live + self.doomed if e.leases])
        entry.leases -= 1
        gone = entry in self.doomed and not entry.leases
        assert self.ledger.release(entry.account) == gone
        if gone:
            self.doomed.remove(entry)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        """Used, and nothing else."""
        entry = self._pick(data, self.live)
        self.ledger.touch(entry.account)
        self._use(entry)

    @precondition(lambda self: self.live or self.doomed)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """Some of it was not needed."""
        entry = self._pick(data, self.live + self.doomed)
        amount = data.draw(st.integers(0, entry.size))
        self.ledger.give_back(entry.account, amount)
        entry.size -= amount

    @precondition(lambda self: self.live or self.doomed)
    @rule(data=st.data())
    def doom(self, data: st.DataObject) -> None:
        """Deleted; gone at once if nobody uses it."""
        entry = self._pick(data, self.live + self.doomed)
        gone = entry in self.live and not entry.leases
        assert self.ledger.doom(entry.account) == gone
        if entry in self.live:
            self.live.remove(entry)
            if entry.leases:
                self.doomed.append(entry)

    @invariant()
    def sums_are_right(self) -> None:
        """And the order is that of use."""
        everybody = self.live + self.doomed
        assert self.ledger.used == self._used() <= CAPACITY
        assert self.ledger.leased == sum(e.size for e in everybody if e.leases)
        assert self.ledger.records == sum(e.record for e in everybody)
        assert len(self.ledger) == len(self.live)
        assert list(self.ledger._live.values()) == [e.account for e in self.live]
        assert self.ledger._doomed == {e.account for e in self.doomed}
        assert all(e.account.doomed for e in self.doomed)
        for entry in everybody:
            assert (entry.account.size, entry.account.leases) == (entry.size, entry.leases)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_replicas_are_not_waited_for() -> None:
    """They stay for days; the error says how much room they take."""
    ledger = Ledger(100)
    kept, other = ledger.open("kept"), ledger.open("other")
    ledger.reserve(kept, 80)
    kept.pinned = True
    words = "70 bytes needed, capacity 100, 0 in use, 80 kept as replicas of imported tasks; raise"
    with pytest.raises(NoRoom, match=words) as caught:
        ledger.reserve(other, 70)
    assert caught.value.hopeless
    assert "or wait" not in str(caught.value)
    ledger.reserve(other, 20)
    ledger.lease(other)
    with pytest.raises(NoRoom, match="or wait") as caught:
        ledger.reserve(ledger.open("third"), 20)
    assert not caught.value.hopeless
