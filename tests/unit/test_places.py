"""core/places.py: nobody takes so much that others get nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.core.places import Places, crowded_out, is_fair, owner_of


def alone(shares: Places[int], owner: str, first: int = 0) -> list[int]:
    """Let one owner take what he can, and keep it; who got in."""
    got = []
    for who in range(first, first + 1000):
        admitted, leaver = shares.enter(owner, who)
        assert leaver is None
        if not admitted:
            break
        shares.works(who)
        got.append(who)
    return got


def test_one_alone_gets_four_fifths_and_the_next_four_fifths_of_the_rest() -> None:
    """However many there are, something is left."""
    shares: Places[int] = Places(100)
    assert [len(alone(shares, name, at * 1000)) for at, name in enumerate("abc")] == [80, 16, 4]
    assert len(shares) == 100


def test_idle_ones_of_the_largest_make_room() -> None:
    """Those that have idled longest first; whoever works stays."""
    shares: Places[str] = Places(10)
    for who in ("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"):
        assert shares.enter("a", who) == (True, None)
    shares.works("a1")
    shares.works("a3")
    shares.rests("a3")  # from now on, after all others
    assert shares.enter("b", "b1") == (True, None)
    assert shares.enter("b", "b2") == (True, None)
    assert [shares.enter("b", f"b{n}") for n in range(3, 9)] == [
        (True, f"a{n}") for n in (2, 4, 5, 6)
    ] + [(True, "b1"), (True, "b2")]


def test_a_flood_of_one_owner_replaces_itself() -> None:
    """So one who comes with something to do is served even from the same address."""
    shares: Places[int] = Places(10)
    for who in range(1000):
        assert shares.enter("a", who)[0]
    assert len(shares) == 8
    assert shares.enter("b", -1) == (True, None)


def test_many_owners_with_one_each() -> None:
    """The one that has idled longest goes; when all work, the newcomer does."""
    shares: Places[int] = Places(3)
    assert [shares.enter(who, who) for who in range(4)] == [(True, None)] * 3 + [(True, 0)]
    for who in range(1, 4):
        shares.works(who)
    assert shares.enter(9, 9) == (False, None)
    shares.leave(1)
    shares.leave(1)
    assert shares.enter(9, 9) == (True, None)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("ewrl"), st.integers(0, 30))))
def test_the_limit_holds(steps: list[tuple[str, str, int]]) -> None:
    """Whatever happens; and who has left is forgotten."""
    shares: Places[int] = Places(7)
    here: set[int] = set()
    for number, (owner, step, at) in enumerate(steps):
        who = sorted(here)[at % len(here)] if here else -1
        if step == "e":
            admitted, leaver = shares.enter(owner, number)
            assert admitted or leaver is None
            here -= {leaver} if leaver is not None else set()
            here |= {number} if admitted else set()
        else:
            {"w": shares.works, "r": shares.rests, "l": shares.leave}[step](who)
            here -= {who} if step == "l" else set()
        assert len(shares) == len(here) <= 7
    for who in here:
        shares.leave(who)
    assert (shares._count, shares._idle, shares._owner) == ({}, {}, {})


def test_nothing_is_fair_when_nothing_is_free() -> None:
    """And the last one is everybody's."""
    assert [is_fair(0, 0), is_fair(0, 1), is_fair(3, 1), is_fair(4, 1)] == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ip", "owner"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
    ],
)
def test_owner_of_an_address(ip: str, owner: str) -> None:
    """Of IPv6, the network that one is given."""
    assert owner_of(ip) == owner


def test_who_goes_when_all_were_let_in() -> None:
    """Of the largest first those that never spoke, then those silent for longest."""
    found: dict[str, tuple[str, tuple[bool, int]]] = {f"a{n}": ("a", (False, n)) for n in range(6)}
    found |= {f"never{n}": ("a", (True, n)) for n in range(3)}
    found |= {"b1": ("b", (True, 99999))}
    assert crowded_out(found, 6) == ["never2", "never1", "never0", "a5", "a4"]
    assert crowded_out(found, 20) == []
    assert crowded_out({}, 0) == []


@given(st.lists(st.integers(0, 5), max_size=80), st.integers(1, 60))
def test_what_stays_is_fair(owners: list[int], limit: int) -> None:
    """No owner has more than he would be given, but for those that nothing can be taken from."""
    found: dict[int, tuple[int, tuple[bool, int]]] = {
        who: (owner, (False, who)) for who, owner in enumerate(owners)
    }
    going = crowded_out(found, limit)
    left = [owner for who, owner in enumerate(owners) if who not in going]
    assert len(set(going)) == len(going)
    assert len(left) <= limit
    if left:
        most = max(left.count(owner) for owner in left)
        assert is_fair(most - 1, limit - len(left) + 1)
