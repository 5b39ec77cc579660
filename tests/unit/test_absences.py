"""core/absences.py: whom it is worth waiting for, and how long."""

from __future__ import annotations

from pantala.core.absences import HAND_OVER, RECALL, RETURN, TAKE_OVER, Absences
from pantala.core.ring import HashRing

ONE, TWO = "10.0.0.1:8002", "10.0.0.2:8002"
#: A task of each.
OF = {HashRing({ONE, TWO}).pick(f"{n:x}" * 64): f"{n:x}" * 64 for n in range(16)}


def met(*addresses: str) -> Absences:
    """Schedulers that have answered."""
    absences = Absences()
    for address in addresses:
        absences.back(address, 0.0, blank=True)
    return absences


def test_one_that_was_never_there() -> None:
    """Nobody waits for it, nor at its first word."""
    absences = Absences()
    absences.lost(ONE, 10.0)
    assert absences.wait(OF[ONE], set(), 10.0) == 0
    absences.back(ONE, 20.0, blank=True)
    assert absences.wait(OF[ONE], {ONE}, 20.0) == 0


def test_one_that_goes() -> None:
    """It is waited for from when it went, and not by those who come when that is over."""
    absences = met(ONE)
    absences.lost(ONE, 10.0)
    assert absences.wait(OF[ONE], set(), 10.0) == RETURN
    assert absences.wait(OF[ONE], set(), 11.0) == RETURN - 1
    absences.lost(ONE, 12.0)  # who is away cannot go
    assert absences.wait(OF[ONE], set(), 12.0) == RETURN - 2
    assert absences.wait(OF[ONE], set(), 10.0 + RETURN) == 0
    assert absences.wait(OF[ONE], set(), 1000.0) == 0


def test_one_that_comes_back() -> None:
    """If it knows nothing, it is given time to hear what is held; once."""
    absences = met(ONE)
    absences.lost(ONE, 10.0)
    absences.back(ONE, 12.0, blank=True)
    assert absences.wait(OF[ONE], {ONE}, 12.0) == RECALL
    absences.back(ONE, 13.0, blank=False)
    assert absences.wait(OF[ONE], {ONE}, 13.0) == RECALL - 1
    assert absences.wait(OF[ONE], {ONE}, 12.0 + RECALL) == 0
    absences.lost(ONE, 20.0)
    absences.back(ONE, 21.0, blank=False)
    assert absences.wait(OF[ONE], {ONE}, 21.0) == 0


def test_one_of_two() -> None:
    """Its tasks wait for it, the others do not; then they are the other's, which hears of them."""
    absences = met(ONE, TWO)
    absences.lost(ONE, 10.0)
    assert absences.wait(OF[ONE], {TWO}, 10.0) == TAKE_OVER
    assert absences.wait(OF[TWO], {TWO}, 10.0) == 0
    assert absences.wait(OF[ONE], {TWO}, 10.0 + TAKE_OVER) == HAND_OVER
    assert absences.wait(OF[TWO], {TWO}, 10.0 + TAKE_OVER) == 0
    assert absences.wait(OF[ONE], {TWO}, 10.0 + TAKE_OVER + HAND_OVER) == 0


def test_one_of_two_that_comes_back() -> None:
    """Its tasks are its own again, and it is given time to hear of them."""
    absences = met(ONE, TWO)
    absences.lost(ONE, 10.0)
    absences.back(ONE, 14.0, blank=True)
    assert absences.wait(OF[ONE], {ONE, TWO}, 14.0) == RECALL
    assert absences.wait(OF[TWO], {ONE, TWO}, 14.0) == 0


def test_both_go() -> None:
    """Nobody takes over: the first is waited for as if it were alone."""
    absences = met(ONE, TWO)
    absences.lost(ONE, 10.0)
    absences.lost(TWO, 10.5)
    assert absences.wait(OF[ONE], set(), 10.5) == RETURN - 0.5
    assert absences.wait(OF[TWO], set(), 10.5) == RETURN


def test_one_that_is_ours_no_longer() -> None:
    """It is as if it had never been."""
    absences = met(ONE, TWO)
    absences.lost(ONE, 10.0)
    absences.listed({TWO})
    assert absences.wait(OF[ONE], {TWO}, 10.0) == 0
    absences.listed({ONE, TWO})
    absences.back(ONE, 11.0, blank=True)
    assert absences.wait(OF[ONE], {ONE, TWO}, 11.0) == 0
