"""core/sched/votes.py: which shape counts."""

from __future__ import annotations

from pantala.core.sched.shape import Shape
from pantala.core.sched.votes import Votes

TRUE, FALSE = Shape(100, 10), Shape(7, 10)


def test_nobody() -> None:
    """Has no opinion."""
    votes = Votes()
    assert votes.winner is None
    assert not votes.withdraw("p")


def test_addresses_count_and_then_time() -> None:
    """One vote after the other."""
    votes = Votes()
    winners = []
    for voter, shape, address, host in (
        ("1", FALSE, "x", "a"),
        ("2", TRUE, "y", "b"),  # as many as he: he was first
        ("3", TRUE, "y", "c"),  # hosts are made up easily
        ("4", FALSE, "x", "d"),
        ("5", TRUE, "z", "e"),
        ("6", FALSE, "x", "f"),
    ):
        assert votes.cast(voter, shape, address, host)
        assert not votes.cast(voter, shape, address, host)
        winners.append(votes.winner)
    assert winners == [FALSE, FALSE, FALSE, FALSE, TRUE, TRUE]
    assert votes.withdraw("5")
    assert not votes.withdraw("5")
    assert votes.winner == FALSE
    for voter in "146":
        votes.withdraw(voter)
    assert votes.winner == TRUE
    for voter in "23":
        votes.withdraw(voter)
    assert votes.winner is None


def test_where_all_are_behind_one_address() -> None:
    """Hosts count, and then time."""
    votes = Votes()
    winners = []
    for voter, shape, host in (("1", FALSE, "a"), ("2", TRUE, "b"), ("3", TRUE, "c")):
        votes.cast(voter, shape, "x", host)
        winners.append(votes.winner)
    assert winners == [FALSE, FALSE, TRUE]
    votes.withdraw("3")
    assert votes.winner == FALSE


def test_one_host_counts_once() -> None:
    """However many peers it has."""
    votes = Votes()
    votes.cast("1", TRUE, "x", "a")
    for voter in "234":
        votes.cast(voter, FALSE, "x", "b")
    assert votes.winner == TRUE
