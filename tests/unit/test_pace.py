"""core/pace.py: what is late, and who is quiet."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from pantala.core.pace import TICK, Fetching, Look, Pace, is_slow, is_stuck

LENGTH = 1000


def looks(
    pace: Pace,
    seconds: float,
    received: Callable[[float], int | None],
    *,
    since: float = 0.0,
    waiting: tuple[str, ...] = (),
    tell: Callable[[float], None] = lambda _: None,
) -> Look:
    """Look at one fetch from "p" for so long; what the last look found."""
    now, found = since, Look({}, {}, frozenset())
    while now <= since + seconds:
        tell(now)
        done = received(now - since)
        fetches = {} if done is None else {(7, False): Fetching("p", done, LENGTH)}
        found = pace.look(now, fetches, waiting)
        now += TICK
    return found


def test_nothing_comes() -> None:
    """For a second and a half it may be chance."""
    assert looks(Pace(), 1.25, lambda _: 10).left == {}
    assert looks(Pace(), 1.5, lambda _: 10).left == {7: math.inf}


def test_a_slow_link_is_no_stall() -> None:
    """A byte a look is progress, and shows how long it would take."""
    found = looks(Pace(), 3, lambda t: round(t / TICK))
    assert found.left[7] == pytest.approx((LENGTH - 12) * TICK)
    assert not found.quiet


def test_it_moves_again() -> None:
    """What is here soon is not reported."""
    pace = Pace()
    assert looks(pace, 2, lambda _: 10).left
    assert not looks(pace, 2, lambda t: 10 + round(400 * t), since=2 + TICK).left


def test_what_has_not_begun_is_not_late() -> None:
    """It waits for bandwidth, or for a thread: no fault of the parent."""
    pace, now = Pace(), 0.0
    while now < 20:
        look = pace.look(now, {(7, False): Fetching("p", None, LENGTH)}, ())
        assert not look.left
        assert not look.quiet
        now += TICK


def test_a_parent_that_owes_a_piece() -> None:
    """Silent altogether; its host alive; its host dumb."""
    assert not looks(Pace(), 1.75, lambda _: 0).quiet
    assert looks(Pace(), 2.25, lambda _: 0).quiet == {"p"}
    for seconds, quiet in ((4.5, set()), (5.5, {"p"})):
        pace = Pace()
        tell = lambda now, pace=pace: pace.host_heard("p", now)  # noqa: E731  of this pace
        assert looks(pace, seconds, lambda _: 0, tell=tell).quiet == quiet
    pace = Pace()
    pace.is_mute("p")
    assert looks(pace, 2.25, lambda _: 0).quiet == {"p"}


def test_a_parent_that_may_offer_more() -> None:
    """Its host alive: for ever. Silent altogether: three seconds. Its host dumb: who knows."""
    pace = Pace()
    alive = looks(
        pace, 60, lambda _: None, waiting=("p",), tell=lambda now: pace.host_heard("p", now)
    )
    assert not alive.quiet
    assert not looks(Pace(), 2.75, lambda _: None, waiting=("p",)).quiet
    assert looks(Pace(), 3.25, lambda _: None, waiting=("p",)).quiet == {"p"}
    pace = Pace()
    pace.is_mute("p")
    assert not looks(pace, 60, lambda _: None, waiting=("p",)).quiet


def test_an_offer_is_a_sign_of_life() -> None:
    """As is a parent's being asked again."""
    pace = Pace()
    found = looks(pace, 20, lambda _: None, waiting=("p",), tell=lambda now: pace.heard("p", now))
    assert not found.quiet


def test_silence_counts_while_something_is_expected() -> None:
    """A parent that had nothing to say for long is not quiet when it is wanted again."""
    pace = Pace()
    looks(pace, 1, lambda _: None, waiting=("p",))
    looks(pace, 30, lambda _: None, since=2)
    assert not looks(pace, 1, lambda _: None, since=33, waiting=("p",)).quiet
    assert pace.silent(34.0) == ["p"]  # but it is worth hearing whether it lives


def test_it_was_we_who_slept() -> None:
    """Nobody is blamed for a pause of this process."""
    pace = Pace()
    assert not looks(pace, 1.25, lambda _: 5, waiting=("p",)).quiet
    found = looks(pace, 1, lambda _: 5, since=60, waiting=("p",))
    assert not found.left
    assert not found.quiet


def test_speed_is_that_of_the_last_piece() -> None:
    """In bytes a second, so that a short last piece counts as it should."""
    pace = Pace()
    pace.took("p", 100, 2.0)
    pace.took("p", 300, 1.0)
    assert looks(pace, 0, lambda _: None).rates == {"p": 300.0}


def test_when_another_is_worth_it() -> None:
    """Always when nothing comes; else in comparison, and more so while places are short."""
    assert is_stuck(math.inf, None)
    assert is_slow(math.inf, None)
    assert not is_stuck(1000, None)
    assert not is_slow(1000, None)
    assert (is_slow(3.5, 1), is_slow(2.5, 1)) == (True, False)
    assert (is_stuck(10.5, 1), is_stuck(9.5, 1)) == (True, False)
