"""core/restarts.py: when something that has ended is started anew."""

from __future__ import annotations

from pantala.core.restarts import BACKOFF, HEALTHY, TOO_MANY, Restarts


def test_later_each_time_and_then_not_any_more() -> None:
    """Whatever ends at once is no use, but what made it so may be over in a moment."""
    restarts = Restarts()
    waits = [restarts.ended(0.1) for _ in range(TOO_MANY)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, None]
    assert BACKOFF == (0.5, 15.0)


def test_who_lived_begins_anew() -> None:
    """An end a day is no reason to give up."""
    restarts = Restarts()
    for _ in range(TOO_MANY * 3):
        assert restarts.ended(HEALTHY) == BACKOFF[0]
    assert restarts.ended(0.1) == 2 * BACKOFF[0]
    assert restarts.ended(HEALTHY) == BACKOFF[0]
