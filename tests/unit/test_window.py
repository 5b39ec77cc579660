"""core/window: how many transfers at once fill a link."""

from __future__ import annotations

import random

import pytest

from pantala.core.window import Window

LENGTH = 4 << 20


def run(window: Window, *, link: float, each: float, pieces: int) -> tuple[int, float]:
    """Transfer over a link of so many pieces a second, of which one transfer takes *each* at most.

    Returns:
        The limit in the end, and the seconds that all took.
    """
    now, begun = 0.0, 0
    left: dict[int, float] = {}
    while begun < pieces or left:
        while begun < pieces and window.has_place(now):
            window.began(begun, now, LENGTH)
            left[begun] = 1.0
            begun += 1
        rate = min(each, link / len(left))
        step = min(left.values()) / rate
        now += step
        for key in list(left):
            left[key] -= step * rate
            if left[key] < 1e-9:
                del left[key]
                window.ended(key, now, arrived=True)
    return window.limit, now


def test_a_link_that_one_fills() -> None:
    """Two at once: one that arrives, and one that is asked for meanwhile."""
    limit, seconds = run(Window(16), link=6.0, each=6.0, pieces=60)
    assert limit == 2
    assert seconds == pytest.approx(10.0)


@pytest.mark.parametrize("connections", [4, 10])
def test_connections_that_have_a_limit_each(connections: int) -> None:
    """As many as fill the link, and hardly more; it does not take long to find out."""
    limit, seconds = run(Window(32), link=connections, each=1.0, pieces=20 * connections)
    assert connections <= limit <= 1.25 * connections + 1
    assert seconds < 20 * 1.3


def test_never_more_than_allowed() -> None:
    """Even where more would fill it."""
    assert run(Window(3), link=100.0, each=1.0, pieces=40)[0] == 3
    assert Window(1).limit == 1


def test_the_first_alone() -> None:
    """Nothing is known of the link yet."""
    window = Window(8, 4)
    assert window.has_place(0.0)
    window.began("a", 0.0, LENGTH)
    assert not window.has_place(4.0)
    window.ended("a", 1.0, arrived=True)
    assert window.limit == 4
    assert Window(8, 4, first=4).limit == 4


def test_what_fails_shows_nothing() -> None:
    """Nor does what took no time, or has no length."""
    window = Window(8)
    for key, length, seconds, arrived in (
        ("failed", LENGTH, 1.0, False),
        ("empty", 0, 1.0, True),
        ("at once", LENGTH, 0.0, True),
    ):
        window.began(key, 5.0, length)
        window.ended(key, 5.0 + seconds, arrived=arrived)
    assert window.limit == 1
    assert not len(window)


def test_a_slow_one_keeps_no_place() -> None:
    """Up to as many again as there are places; then even slow ones count."""
    window = Window(8)
    window.began("quick", 0.0, LENGTH)
    window.ended("quick", 1.0, arrived=True)
    for key in ("slow", "slower"):
        assert window.has_place(1.0)
        window.began(key, 1.0, LENGTH)
    assert not window.has_place(6.0)
    assert window.has_place(8.0)
    for key in ("other", "another"):
        window.began(key, 8.0, LENGTH)
    assert not window.has_place(16.0)


def test_those_that_may_never_end_keep_no_place() -> None:
    """However many: a peer that has stopped must not keep anything from others."""
    window = Window(8)
    window.began("first", 0.0, LENGTH)
    assert window.has_place(6.0)
    window.began("quick", 6.0, LENGTH)
    window.ended("quick", 7.0, arrived=True)
    for key in range(20):
        window.began(key, 7.0, LENGTH)
    assert not window.has_place(7.0 + 30)  # each may have been as slow as that
    assert window.has_place(7.0 + 40)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens(seed: int) -> None:
    """The limit stays within its bounds, and what ends leaves nothing behind."""
    rng, window, under_way, now = random.Random(seed), Window(8, 2), [], 0.0
    for key in range(300):
        now += rng.expovariate(3.0)
        if window.has_place(now):
            window.began(key, now, rng.choice([1, LENGTH]))
            under_way.append(key)
        elif under_way:
            ended = under_way.pop(rng.randrange(len(under_way)))
            window.ended(ended, now, arrived=rng.random() < 0.9)
        assert 1 <= window.limit <= 8
        assert len(window) == len(under_way) <= 16
