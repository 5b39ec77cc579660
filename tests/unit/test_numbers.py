"""model/numbers.py: it is a set, and a small one."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.errors import InvalidRequest
from pantala.model.numbers import MAX_NUMBERS, Numbers, bits_of, bits_of_numbers, runs_of


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


@pytest.mark.parametrize("seed", range(20))
def test_runs_and_bits(seed: int) -> None:
    """Each is the other's inverse, and the pieces are those that are set."""
    rng = random.Random(seed)
    numbers = {rng.randrange(400) for _ in range(rng.randrange(300))}
    pieces = bits_of_numbers(numbers)
    runs = list(runs_of(pieces))
    assert bits_of(runs) == pieces
    assert {n for first, count in runs for n in range(first, first + count)} == numbers
    assert all(one[0] + one[1] < other[0] for one, other in itertools.pairwise(runs))


@pytest.mark.parametrize(
    "run", [(0, 0), (0, MAX_NUMBERS + 1), (MAX_NUMBERS, 1), (1 << 31, 1), (5, 1 << 31)]
)
def test_runs_beyond_all_numbers(run: tuple[int, int]) -> None:
    """A stranger's: refused before anything is reserved for them."""
    with pytest.raises(InvalidRequest, match="at most"):
        bits_of([(0, 1), run])


@pytest.mark.parametrize("again", [(0, 1), (3, 1), (4, 9), (1, 2)])
def test_runs_out_of_order(again: tuple[int, int]) -> None:
    """Refused at the first: a message may have as many as there are pieces, and no more."""
    with pytest.raises(InvalidRequest, match="out of order"):
        bits_of([(3, 2), again])


def test_the_most_runs_there_can_be() -> None:
    """Every other piece."""
    pieces = int("10" * (MAX_NUMBERS // 2), 2)
    runs = list(runs_of(pieces))
    assert runs == [(number, 1) for number in range(1, MAX_NUMBERS, 2)]
    assert bits_of(runs) == pieces
