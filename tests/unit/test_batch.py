"""core/batch.py: many pieces in one word."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.batch import FEW, Batch
from pantala.model.announce import PieceFinished, PieceSum, SourcePieceFinished
from pantala.model.task import PieceRecord, Traffic


def came(number: int, parent: str | None = "p", length: int = 4) -> PieceFinished:
    """A piece has come from *parent*."""
    return PieceFinished(
        PieceRecord(number, 0, length, "crc32:1", parent, Traffic.REMOTE_PEER, number / 8, 1.0)
    )


def test_sums_of_each_parent() -> None:
    """All pieces and bytes, and what the last one took."""
    batch = Batch(10)
    batch.add(came(1), keep=False)
    batch.add(came(2, "q", 3), keep=False)
    batch.add(SourcePieceFinished(came(3, None).piece), keep=False)
    batch.add(came(4, "p", 2), keep=False)
    assert set(batch.sums()) == {
        PieceSum("p", 2, 6, 0.5),
        PieceSum("q", 1, 3, 0.25),
        PieceSum(None, 1, 4, 0.375),
    }
    assert batch.count == 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100)), max_size=50))
def test_nothing_is_lost(pieces: list[tuple[str, int]]) -> None:
    """Sums are exact, and there is one entry for a parent."""
    batch = Batch(100)
    for number, (parent, length) in enumerate(pieces):
        batch.add(came(number, parent, length), keep=False)
    sums = batch.sums()
    assert sum(told.count for told in sums) == len(pieces)
    assert sum(told.length for told in sums) == sum(length for _, length in pieces)
    assert len(sums) == len({parent for parent, _ in pieces})


def test_each_is_kept_while_they_are_few_or_may_be_wanted() -> None:
    """Many that will go as sums are not."""
    batch, kept = Batch(10), Batch(10)
    for number in range(FEW + 1):
        assert batch.reports is not None
        batch.add(came(number), keep=False)
        kept.add(came(number), keep=True)
    assert batch.reports is None
    assert kept.reports == [came(number) for number in range(FEW + 1)]
    kept.add(came(9), keep=False)  # it has turned out that they will
    assert kept.reports is None


def test_what_ends_a_batch() -> None:
    """It is full, or has a number."""
    batch = Batch(2)
    batch.add(came(1), keep=False)
    assert batch.is_open
    full, sent = Batch(1), Batch(1)
    full.add(came(1), keep=False)
    assert not full.is_open
    sent.number = 1
    assert not sent.is_open


def test_what_was_read_at_the_origin() -> None:
    """Its digests are kept; those of others' pieces, or of another algorithm, are not."""
    batch = Batch(10)
    batch.add(came(1), keep=False)
    assert batch.is_few
    assert not batch.read()
    for number, digest in ((5, "crc32:50"), (4, "crc32:40"), (7, ""), (8, "md5:8"), (9, "crc32:0")):
        piece = replace(came(number, None).piece, digest=digest)
        batch.add(SourcePieceFinished(piece), keep=False)
    assert [(r.first, list(r.crcs)) for r in batch.read()] == [(4, [40, 50]), (9, [0])]


def test_one_that_was_read_is_no_few() -> None:
    """Told by itself its digest would be of no version."""
    batch = Batch(10)
    batch.add(SourcePieceFinished(came(1, None).piece), keep=True)
    assert not batch.is_few
