"""core/deadlines.py: what is to be looked at, each at its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.deadlines import Deadlines

Steps = st.lists(
    st.tuples(st.sampled_from(["look", "forget", "due"]), st.integers(0, 5), st.integers(0, 20))
)


@given(Steps)
def test_it_is_as_a_table_of_times(steps: list[tuple[str, int, int]]) -> None:
    """The earliest time of each counts, until it is over or forgotten."""
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, int] = {}
    for what, thing, at in steps:
        if what == "look":
            deadlines.look_at(thing, at)
            model[thing] = min(at, model.get(thing, at))
        elif what == "forget":
            deadlines.forget(thing)
            model.pop(thing, None)
        else:
            due = sorted(each for each in model if model[each] < at)
            found = deadlines.due(at)
            assert sorted(found) == due
            times = [model.pop(each) for each in found]
            assert times == sorted(times)
        assert len(deadlines) == len(model)
        assert all((each in deadlines) == (each in model) for each in range(6))


def test_what_is_put_off_and_forgotten_is_let_go() -> None:
    """However often somebody has another time, or none: there is no more of it than twice."""
    deadlines: Deadlines[object] = Deadlines()
    for at in range(10_000, 0, -1):
        deadlines.look_at("busy", at)
        thing = object()
        deadlines.look_at(thing, at)
        deadlines.forget(thing)
    assert len(deadlines) == 1
    assert len(deadlines._heap) <= 2 + 64
    assert deadlines.due(1) == []
    assert deadlines.due(2) == ["busy"]


def test_a_later_time_changes_nothing() -> None:
    """Whoever gives signs of life need not be told of here: he is looked at, and given another."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.look_at("a", 5)
    deadlines.look_at("a", 9)
    assert deadlines.due(5) == []
    assert deadlines.due(6) == ["a"]
    assert deadlines.due(100) == []
