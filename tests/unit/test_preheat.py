"""core/sched/preheat.py: who is to have what, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from pantala.core.sched.preheat import Ledger, Pair, PairState, Scope, Summary, select, selection
from pantala.core.sched.roster import Roster
from pantala.errors import DragonflyError, InvalidRequest, NoProvider
from pantala.model.announce import HostFacts

STOCK, OURS = "v2.3.0", "pantala/1"


def host(name: str, ip: str = "10.0.0.1", *, seed: bool = False, version: str = OURS) -> HostFacts:
    """A host."""
    return HostFacts(name, name, ip, 4000, type=int(seed), version=version)


HOSTS = [
    *(host(f"h{n}", f"10.0.0.{n}") for n in (3, 1, 2)),
    host("h0", "10.0.0.9", version=STOCK),
    *(host(f"s{n}", f"10.0.1.{n}", seed=True) for n in range(2)),
]


def names(*, ours_only: bool = False, **wanted: Any) -> list[str]:
    """Who is meant."""
    chosen = selection(wanted.pop("scope", "all_peers"), **wanted)
    return [each.id or each.ip for each in select(Roster(HOSTS), chosen, ours_only=ours_only)]


def test_scopes() -> None:
    """Seeds, or those that are none; always in the same order."""
    assert names() == ["h0", "h1", "h2", "h3"]
    assert names(scope="all_seed_peers") == ["s0", "s1"]
    assert selection("").scope is Scope.SINGLE_SEED


def test_addresses_come_before_numbers_and_numbers_before_shares() -> None:
    """Only the first way counts that is used."""
    assert names(ips=["10.0.0.2"], count=1, percentage=50) == ["h2"]
    assert names(count=3, percentage=25) == ["h0", "h1", "h2"]
    assert names(count=200) == ["h0", "h1", "h2", "h3"]
    assert names(percentage=74) == ["h0", "h1"]
    assert names(percentage=1) == ["h0"]


def test_who_cannot_be_asked_is_told_where_he_was_meant() -> None:
    """Of a number others are taken; of all, and by address, he is among them."""
    assert names(ours_only=True, count=3) == ["h1", "h2", "h3"]
    assert names(ours_only=True) == ["h1", "h2", "h3", "h0"]
    assert names(ours_only=True, ips=["10.0.0.9"]) == ["h0"]


def test_an_address_without_a_host() -> None:
    """It is a target that fails, unless nobody at all is meant."""
    assert names(ips=["10.0.0.2", "10.0.0.77", "10.0.1.1"]) == ["h2", "10.0.0.77", "10.0.1.1"]
    with pytest.raises(
        InvalidRequest, match=r"no host of scope all_peers is known at 10\.0\.0\.77"
    ):
        names(ips=["10.0.0.77"])
    with pytest.raises(NoProvider, match="no seed is known here"):
        select(Roster(HOSTS[:3]), selection("all_seed_peers"), ours_only=False)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {"scope": "some"},
            "scope 'some': want one of single_seed_peer, all_seed_peers, all_peers",
        ),
        ({"count": 0}, "count 0: want 1 to 200"),
        ({"count": 201}, "count 201: want 1 to 200"),
        ({"percentage": 101}, "percentage 101: want 1 to 100"),
        ({"ips": [str(n) for n in range(101)]}, "101 ips: want at most 100"),
    ],
)
def test_what_makes_no_sense(wanted: dict[str, Any], words: str) -> None:
    """One line says what."""
    with pytest.raises(DragonflyError) as caught:
        names(**wanted)
    assert str(caught.value) == words


def ledger(number: int = 3) -> Ledger:
    """Of so many pairs."""
    return Ledger([Pair(n, 0, host("a")) for n in range(number)])


def test_what_is_told_is_what_is() -> None:
    """Many changes of a pair are one word, and none is lost."""
    book = ledger()
    one, two, three = book.pairs
    book.ask(one, one.host)
    book.begin(one, 10)
    book.receive(one, 4)
    book.receive(one, 6)
    book.ask(two, two.host)
    assert book.take(1) == [one]
    assert (one.state, one.received, one.content_length) == (PairState.FETCHING, 10, 10)
    book.finish(one)
    assert book.take(5) == [two, one]
    assert book.take(5) == []
    assert book.summary == Summary(done=1, failed=0, received=10)
    assert book.give_up("late") == [two, three]
    assert all(pair.state in (PairState.DONE, PairState.FAILED) for pair in book.pairs)
    assert book.take(5) == [two, three]
    assert book.summary == Summary(done=1, failed=2, received=10)


def test_what_is_over_stays_so() -> None:
    """Words that come late change nothing."""
    book = ledger(2)
    done, failed = book.pairs
    book.finish(done)
    book.fail(failed, "x" * 1000)
    for pair in book.pairs:
        book.ask(pair, host("b"))
        book.begin(pair, 5)
        book.receive(pair, 5)
        book.finish(pair)
        book.fail(pair, "no")
    assert (done.state, failed.state, len(failed.reason)) == (PairState.DONE, PairState.FAILED, 500)
    assert book.summary == Summary(1, 1, 0)


def test_another_host_begins_anew() -> None:
    """What the first one had does not count for it."""
    book = ledger(1)
    (pair,) = book.pairs
    book.ask(pair, host("a"))
    book.begin(pair, 10)
    book.receive(pair, 9)
    book.ask(pair, host("b"))
    assert (pair.host.id, pair.received, pair.content_length) == ("b", 0, None)
