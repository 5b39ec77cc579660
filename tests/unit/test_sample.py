"""core/sample.py: members in random order."""

from __future__ import annotations

from collections import Counter
from itertools import islice, permutations
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.sample import SampleSet


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_it_is_a_set(steps: list[tuple[bool, int]]) -> None:
    """Whatever is added and discarded, the members are those of a set."""
    sample: SampleSet[int] = SampleSet()
    model: set[int] = set()
    for add, member in steps:
        (sample.add if add else sample.discard)(member)
        (model.add if add else model.discard)(member)
        assert set(sample) == model
        assert len(sample) == len(model)
        assert all((n in sample) == (n in model) for n in range(10))
        assert sorted(sample.shuffled(Random(0))) == sorted(model)
        assert not model or sample.choice(Random(0)) in model


def test_all_orders_are_as_likely() -> None:
    """Six orders of three members, each about a sixth of the time."""
    sample: SampleSet[str] = SampleSet()
    for member in "abc":
        sample.add(member)
    rng = Random(7)
    seen = Counter(tuple(sample.shuffled(rng)) for _ in range(6000))
    assert set(seen) == set(permutations("abc"))
    assert all(850 < count < 1150 for count in seen.values())


def test_a_part_is_as_random() -> None:
    """The first of the order is any member, each as often."""
    sample: SampleSet[int] = SampleSet()
    for member in range(10):
        sample.add(member)
    rng = Random(3)
    seen = Counter(next(iter(islice(sample.shuffled(rng), 1))) for _ in range(10_000))
    assert all(850 < seen[n] < 1150 for n in range(10))
