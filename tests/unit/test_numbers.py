"""model/numbers.py: it is a set, and a small one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pantala.model.numbers import MAX_NUMBERS, Numbers


@given(st.lists(st.integers(-3, 300)), st.lists(st.integers(-3, 300)))
def test_a_set(numbers: list[int], gone: list[int]) -> None:
    """In ascending order, each once."""
    found, expected = Numbers(numbers), {n for n in numbers if n >= 0}
    for number in gone:
        found.discard(number)
        expected.discard(number)
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert all((n in found) == (n in expected) for n in range(-3, 301))


def test_what_no_piece_has_takes_no_memory() -> None:
    """A child may name any number of 32 bits."""
    found = Numbers([MAX_NUMBERS, 5, 2**32 - 1])
    assert list(found) == [5]
    assert found.size == 6
    assert Numbers([2**32 - 1]).size == 0
    assert Numbers(range(MAX_NUMBERS)).size == MAX_NUMBERS


def test_discarding_while_going_through_it() -> None:
    """Neither skips nor repeats."""
    found, seen = Numbers([1, 2, 3, 5, 8]), []
    for number in found:
        seen.append(number)
        found.discard(number)
        found.discard(3)
    assert seen == [1, 2, 5, 8]
    assert not found
