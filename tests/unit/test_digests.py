"""core/digests.py: digests by number; the first word on a piece counts."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.digests import DigestRun, DigestTable, digest_runs
from pantala.model.numbers import bits_of_numbers

COUNT = 200

crcs = st.integers(0, 2**32 - 1)
runs = st.builds(
    lambda first, some: DigestRun(first, some[: COUNT - first]),
    st.integers(0, COUNT - 1),
    st.lists(crcs, max_size=20),
)


@given(st.lists(runs, max_size=8), st.integers(0, 2**COUNT - 1), st.integers(0, COUNT))
def test_a_table(told: list[DigestRun], wanted: int, most: int) -> None:
    """It is a dict whose values do not change."""
    table, expected = DigestTable(COUNT), dict[int, int]()
    for run in told:
        expected = dict(run.each()) | expected
        table.put(run)
        differs = [number for number, crc in run.each() if expected[number] != crc]
        assert table.differs(run) == bits_of_numbers(differs)
    assert table.known == bits_of_numbers(expected)
    assert {n: table.get(n) for n in range(COUNT)} == {n: expected.get(n) for n in range(COUNT)}
    found = table.runs(wanted, most)
    told_of = [each for run in found for each in run.each()]
    assert told_of == [(n, expected[n]) for n in sorted(expected) if wanted >> n & 1][:most]
    assert digest_runs(dict(told_of)) == [DigestRun(r.first, r.crcs) for r in found if r.crcs]


def test_how_much_it_takes() -> None:
    """Four bytes and a bit a piece, besides what an empty one takes; all at once."""
    count = 100_000
    table = DigestTable(count)
    table.put(DigestRun(0, [7] * count))
    size = sum(map(sys.getsizeof, (table, table._crcs, table.known)))
    assert size <= DigestTable.size(count) <= size + 2048
