"""core/fsm.py: machines written as tables."""

from __future__ import annotations

from enum import StrEnum

import pytest

from pantala.core.fsm import Machine, Table
from pantala.errors import InvalidTransition


class Light(StrEnum):
    """States of a lamp."""

    OFF = "off"
    ON = "on"


class Hand(StrEnum):
    """What happens to it."""

    PUSH = "push"
    BREAK = "break"


TABLE: Table[Light, Hand] = {
    Light.OFF: {Hand.PUSH: Light.ON},
    Light.ON: {Hand.PUSH: Light.OFF},
}


def test_it_moves_as_the_table_says() -> None:
    """The new state is taken, and returned."""
    lamp = Machine("lamp", TABLE, Light.OFF)
    assert lamp.fire(Hand.PUSH) is Light.ON
    assert lamp.state is Light.ON
    assert repr(lamp) == "<lamp: on>"


def test_an_illegal_event_tells_the_story_and_changes_nothing() -> None:
    """Who, what, from where, and how it came there."""
    lamp = Machine("lamp 7", TABLE, Light.OFF)
    lamp.fire(Hand.PUSH)
    with pytest.raises(InvalidTransition) as caught:
        lamp.fire(Hand.BREAK)
    assert str(caught.value) == "lamp 7: no 'break' from 'on'; story: off -push-> on"
    assert (caught.value.state, caught.value.event) == ("on", "break")
    assert lamp.state is Light.ON
    assert lamp.story == ("off", "-push->", "on")


def test_the_story_is_short() -> None:
    """A machine that moves for ever keeps only its latest moves."""
    lamp = Machine("lamp", TABLE, Light.OFF)
    for _ in range(1000):
        lamp.fire(Hand.PUSH)
    assert len(lamp.story) < 20
    assert lamp.story[-1] == "off"
