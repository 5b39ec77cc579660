"""core/shares.py: nobody gets more than a share, and all no more than there is."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pantala.core.shares import Shares


def test_a_share_each() -> None:
    """One who has all of its own takes nothing from another."""
    shares = Shares(total=10, each=4)
    with ExitStack() as held:
        assert shares.fits("a", 4)
        assert not shares.fits("a", 5)
        held.enter_context(shares.hold("a", 3))
        assert not shares.fits("a", 2)
        assert shares.fits("b", 4)
        held.enter_context(shares.hold("b", 4))
        assert shares.fits("c", 3)
        assert not shares.fits("c", 4)
        assert (shares.used, len(shares)) == (7, 2)
    assert (shares.used, len(shares)) == (0, 0)


def test_what_is_held_ends_with_an_error_too() -> None:
    """Whatever ends the use."""
    shares = Shares(total=10, each=4)
    with pytest.raises(ZeroDivisionError), shares.hold("a", 4):
        _ = 1 / 0
    assert shares.fits("a", 4)
    assert len(shares) == 0
