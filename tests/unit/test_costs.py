"""core/sched/costs.py: when the last piece stands out."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from pantala.core.sched.costs import WINDOW, Costs


def _of(*costs: float) -> Costs:
    made = Costs()
    for cost in costs:
        made.add(cost)
    return made


@pytest.mark.parametrize(
    ("costs", "stands_out"),
    [
        ((), False),
        ((100.0,), False),
        ((1.0, 20.0), False),
        ((1.0, 20.1), True),
        ((1.0, 3.0, 40.0), False),
        ((1.0, 3.0, 40.1), True),
        ((50.0, 1.0), False),
    ],
)
def test_twenty_times_the_mean(costs: tuple[float, ...], stands_out: bool) -> None:  # noqa: FBT001  a column of the table
    """As long as the window is not full."""
    assert _of(*costs).last_stands_out() is stands_out


def test_three_sigmas_of_a_full_window() -> None:
    """A full window is judged by its spread, which is much stricter."""
    rng = Random(1)
    before = [rng.uniform(1, 2) for _ in range(WINDOW - 1)]
    limit = statistics.fmean(before) + 3 * statistics.pstdev(before)
    assert not _of(*before, limit - 1e-6).last_stands_out()
    assert _of(*before, limit + 1e-6).last_stands_out()


def test_the_window_moves() -> None:
    """Only the last ones count, and however many came, the sums stay true."""
    rng = Random(2)
    costs = _of(*(1e6 for _ in range(WINDOW)))
    recent = [rng.uniform(1, 2) for _ in range(WINDOW - 1)]
    for cost in recent:
        costs.add(cost)
    assert len(costs) == WINDOW
    limit = statistics.fmean(recent) + 3 * statistics.pstdev(recent)
    costs.add(limit + 1e-3)
    assert len(costs) == WINDOW
    assert costs.last_stands_out()
    costs.add(1.5)
    assert not costs.last_stands_out()


def test_equal_costs_never_stand_out() -> None:
    """No spread at all: rounding must not make one up."""
    costs = _of(*(0.1 for _ in range(WINDOW + 10)))
    assert not costs.last_stands_out()
