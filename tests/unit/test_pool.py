"""core/sched/pool.py: members in groups."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.sched.pool import Pool

STEPS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "i", "k", None])))


@given(STEPS)
def test_each_member_is_in_one_group(steps: list[tuple[int, str | None]]) -> None:
    """Whatever is added, moved and discarded: as in a dict of their groups."""
    pool: Pool[int] = Pool()
    model: dict[int, str] = {}
    for member, group in steps:
        if group is None:
            pool.discard(member)
            model.pop(member, None)
        else:
            pool.add(member, group)
            model[member] = group
        assert set(pool) == set(pool.anywhere(Random(0), 99)) == set(model)
        assert len(pool) == len(model)
        assert set(pool.near("", Random(0), 99)) == set(model)
        assert not pool.has_others("")
        for name in ("i", "k"):
            inside = {each for each, its in model.items() if its == name}
            assert set(pool.near(name, Random(0), 99)) == inside
            assert pool.has_others(name) == (inside != set(model))
        assert all(pool.group_of(each) == model[each] for each in pool)
        assert set(pool._groups) == set(model.values()) - {""}  # nothing is kept of one that ended


def test_a_draw_is_random_and_has_an_end() -> None:
    """Each member as often as any other, and no more than were asked for."""
    pool: Pool[int] = Pool()
    for member in range(10):
        pool.add(member, "i")
    rng = Random(3)
    for draw in (pool.near, lambda _group, *how: pool.anywhere(*how)):
        drawn = [tuple(draw("i", rng, 2)) for _ in range(5000)]
        assert {len(set(pair)) for pair in drawn} == {2}
        seen = Counter(member for pair in drawn for member in pair)
        assert all(850 < seen[member] < 1150 for member in range(10))
