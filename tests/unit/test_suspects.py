"""daemon/downloading/suspects.py: who is suspect, for how long, and how much of it is kept."""

from __future__ import annotations

from pantala.daemon.downloading.suspects import MEMORY, Suspects
from pantala.model.task import Kind

KEY = Kind.CACHE, "t"


def test_a_suspicion() -> None:
    """It is of one task, passes, and is told once."""
    suspects = Suspects()
    suspects.suspect(KEY, {"h"}, {"p", "q"}, 100.0)
    assert suspects.is_suspect(KEY, "h", 100.0 + MEMORY)
    assert not suspects.is_suspect(KEY, "other", 100.0)
    assert not suspects.is_suspect((Kind.CACHE, "u"), "h", 100.0)
    assert suspects.accused(KEY, 100.0) == ["p", "q"]
    assert suspects.accused(KEY, 100.0) == []
    assert not suspects.is_suspect(KEY, "h", 101.0 + MEMORY)
    assert suspects.accused(KEY, 100.0) == []


def test_who_was_right_after_all() -> None:
    """The origin has the same: nobody is suspect, and those bytes need not be read again."""
    suspects = Suspects()
    assert not suspects.is_confirmed(KEY, "", 0.0)
    suspects.suspect(KEY, {"h"}, {"p"}, 0.0)
    assert not suspects.is_confirmed(KEY, "", 0.0)
    suspects.confirm(KEY, "d", 1.0)
    assert suspects.is_confirmed(KEY, "d", 1.0)
    assert not suspects.is_confirmed(KEY, "e", 1.0)
    assert not suspects.is_suspect(KEY, "h", 1.0)
    assert not suspects.is_confirmed(KEY, "d", 2.0 + MEMORY)


def test_how_much_is_kept() -> None:
    """The oldest tasks go, and of many hosts some are remembered."""
    suspects = Suspects()
    hosts = {f"h{number:03}" for number in range(100)}
    for number in range(1025):
        suspects.suspect((Kind.CACHE, str(number)), hosts, hosts, 0.0)
    assert not suspects.is_suspect((Kind.CACHE, "0"), "h000", 0.0)
    assert suspects.is_suspect((Kind.CACHE, "1"), "h000", 0.0)
    assert not suspects.is_suspect((Kind.CACHE, "1"), "h099", 0.0)
    assert len(suspects.accused((Kind.CACHE, "1"), 0.0)) == 64
