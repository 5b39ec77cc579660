"""core/bucket.py: tokens come with time, and with nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.core.bucket import Bucket


def test_it_starts_full() -> None:
    """A whole burst at once, then nothing."""
    bucket = Bucket(10, burst=30)

    assert bucket.take(30, 5.0) == 0
    assert bucket.take(1, 5.0) == 0.1


def test_without_a_burst_it_saves_one_second() -> None:
    """However long it was left alone."""
    bucket = Bucket(10)

    assert bucket.take(10, 0) == 0
    assert bucket.take(10, 1000) == 0
    assert bucket.take(1, 1000) == 0.1


def test_a_refusal_takes_nothing() -> None:
    """Whoever is told to wait has not paid."""
    bucket = Bucket(10)
    bucket.take(8, 0)

    assert bucket.take(5, 0) == 0.3
    assert bucket.take(2, 0) == 0


def test_after_the_wait_it_is_granted() -> None:
    """The answer is neither too short nor too long."""
    bucket = Bucket(4)
    bucket.take(4, 0)

    assert bucket.take(2, 0) == 0.5
    assert bucket.take(2, 0.25) == 0.25
    assert bucket.take(2, 0.5) == 0


def test_more_than_it_can_save_goes_into_debt() -> None:
    """Granted when it is full, and paid for by those who come after."""
    bucket = Bucket(10, burst=10)

    assert bucket.take(25, 0) == 0
    assert bucket.take(5, 0) == 2.0
    assert bucket.take(5, 2.0) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Nor does it take anything away."""
    bucket = Bucket(10)
    bucket.take(10, 100)

    assert bucket.take(1, 50) == 0.1
    assert bucket.take(1, 100.5) == 0


@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8)), max_size=30),
)
def test_never_more_than_rate_and_burst(
    rate: int, burst: int, story: list[tuple[int, int]]
) -> None:
    """Up to any grant: a burst and what the rate has brought, but for the last one's debt."""
    bucket, now, granted = Bucket(rate, burst), 0.0, 0
    for amount, eighths in story:
        now += eighths / 8
        wait = bucket.take(amount, now)
        if wait:
            assert bucket.take(amount, now) == pytest.approx(wait)
            now += wait + 1e-6
            assert bucket.take(amount, now) == 0
        assert granted + min(amount, burst) <= burst + rate * now + 1e-3
        granted += amount
