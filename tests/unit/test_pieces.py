"""Pieces and ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.errors import InvalidRequest, RangeNotSatisfiable, RemoteProtocolError
from pantala.model.pieces import (
    MAX_PIECE_LENGTH,
    MIN_PIECE_LENGTH,
    ByteRange,
    Piece,
    parse_content_range,
    parse_range,
    parse_unsatisfied,
    piece_at,
    piece_count,
    piece_length_for,
    pieces_for,
    resolve_range,
)

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("content_length", "expected"),
    [
        (0, 4 * MIB),
        (1, 4 * MIB),
        (2_097_152_499, 4 * MIB),
        (2_097_152_500, 8 * MIB),
        (4_194_304_499, 8 * MIB),
        (4_194_304_500, 16 * MIB),
        (8_388_608_499, 16 * MIB),
        (8_388_608_500, 32 * MIB),
        (16_777_216_499, 32 * MIB),
        (16_777_216_500, 64 * MIB),
        (2**62, 64 * MIB),
    ],
)
def test_piece_length_has_dragonflys_thresholds(content_length: int, expected: int) -> None:
    """Peers that disagree here cannot share a piece."""
    assert piece_length_for(content_length) == expected


@pytest.mark.parametrize("requested", [MIN_PIECE_LENGTH, 5 * MIB + 1, MAX_PIECE_LENGTH])
def test_a_requested_piece_length_is_taken_as_it_is(requested: int) -> None:
    """Whatever the content's length would give."""
    assert piece_length_for(10**12, requested) == requested


@pytest.mark.parametrize("requested", [-1, 0, MIN_PIECE_LENGTH - 1, MAX_PIECE_LENGTH + 1])
def test_a_requested_piece_length_has_limits(requested: int) -> None:
    """Below are too many pieces, above is too much to lose."""
    with pytest.raises(InvalidRequest, match="4 MiB to 64 MiB"):
        piece_length_for(1, requested)


@pytest.mark.parametrize(
    ("content_length", "piece_length", "count", "last"),
    [
        (101, 10, 11, Piece(10, 100, 1)),
        (100, 10, 10, Piece(9, 90, 10)),
        (1000, 5000, 1, Piece(0, 0, 1000)),
    ],
)
def test_only_the_last_piece_is_short(
    content_length: int, piece_length: int, count: int, last: Piece
) -> None:
    """And only as short as it must be."""
    pieces = pieces_for(None, content_length=content_length, piece_length=piece_length)

    assert len(pieces) == piece_count(content_length, piece_length) == count
    assert pieces[-1] == last


def test_an_empty_file_has_no_pieces() -> None:
    """Neither is there a range in it."""
    assert pieces_for(None, content_length=0, piece_length=4) == []
    with pytest.raises(RangeNotSatisfiable):
        pieces_for(ByteRange(0, 1), content_length=0, piece_length=4)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (ByteRange(1500, 2000), [1, 2, 3]),
        (ByteRange(0, 1), [0]),
        (ByteRange(999, 1), [0]),
        (ByteRange(999, 2), [0, 1]),
        (ByteRange(4999, 10**9), [4]),
    ],
)
def test_a_range_is_covered_by_whole_pieces(wanted: ByteRange, numbers: list[int]) -> None:
    """Five pieces of 1000 bytes."""
    pieces = pieces_for(wanted, content_length=5000, piece_length=1000)

    assert [piece.number for piece in pieces] == numbers
    assert {piece.length for piece in pieces} == {1000}


@given(st.integers(1, 500), st.integers(1, 60), st.integers(0, 600), st.integers(1, 600))
def test_pieces_cover_the_range_and_nothing_twice(
    content_length: int, piece_length: int, start: int, length: int
) -> None:
    """Side by side, from the piece of the first byte to that of the last."""
    wanted = ByteRange(start, length)
    if start >= content_length:
        with pytest.raises(RangeNotSatisfiable):
            pieces_for(wanted, content_length=content_length, piece_length=piece_length)
        return
    pieces = pieces_for(wanted, content_length=content_length, piece_length=piece_length)
    end = min(wanted.end, content_length)
    covered = [n for piece in pieces for n in range(piece.offset, piece.offset + piece.length)]

    assert covered == list(range(covered[0], covered[0] + len(covered)))
    assert covered[0] <= start < pieces[0].offset + pieces[0].length
    assert pieces[-1].offset < end <= covered[-1] + 1 <= content_length


@pytest.mark.parametrize("number", [-1, 3])
def test_there_is_no_piece_beyond_the_ends(number: int) -> None:
    """Three pieces, 0 to 2."""
    with pytest.raises(InvalidRequest, match="of 3"):
        piece_at(number, content_length=9, piece_length=4)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (ByteRange(0, 0), "range of 0 bytes from 0: not within a file of 10 bytes"),
        (ByteRange(-1, 5), "range of 5 bytes from -1: not within a file of 10 bytes"),
        (ByteRange(10, 1), "the range begins at the end of a file of 10 bytes: byte 10 is not"),
        (ByteRange(17, 9), "the range begins past the end of a file of 10 bytes: byte 17 is"),
    ],
)
def test_a_range_must_lie_inside(wanted: ByteRange, words: str) -> None:
    """It holds at least one byte of the content's ten; a range that is refused has its reason."""
    with pytest.raises(RangeNotSatisfiable, match=words):
        resolve_range(wanted, 10)
    with pytest.raises(RangeNotSatisfiable, match="begins at the end of a file of 1 byte: "):
        parse_range("bytes=1-", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-99", ByteRange(0, 100)),
        ("bytes=10-19", ByteRange(10, 10)),
        ("bytes=90-1000", ByteRange(90, 10)),
        ("bytes=99-", ByteRange(99, 1)),
        ("bytes=-1", ByteRange(99, 1)),
        ("bytes=-1000", ByteRange(0, 100)),
        ("bytes=0-99999999999999999999", ByteRange(0, 100)),
        ("Bytes=0-1, 5-6", ByteRange(0, 2)),
        (" bytes=3-4 ", ByteRange(3, 2)),
        ("3-4", ByteRange(3, 2)),
        ("-7", ByteRange(93, 7)),
    ],
)
def test_range_as_http_writes_it(text: str, expected: ByteRange) -> None:
    """Both ends count, of a file of 100 bytes."""
    assert parse_range(text, 100) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=5-4",
        "bytes=100-",
        "bytes=100-200",
        "bytes=-0",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=٣-٤",
        "items=0-1",
        "=0-1",
        "x=bytes=0-1",
        "bytes=--1",
        "bytes=,0-1",
        f"bytes={'9' * 5000}-",
    ],
)
def test_a_range_that_makes_no_sense(text: str) -> None:
    """Is refused, never guessed at."""
    with pytest.raises(RangeNotSatisfiable):
        parse_range(text, 100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bytes=5-2", "range 'bytes=5-2': ends before it begins"),
        (f"0-{'9' * 21}", f"range '0-{'9' * 21}': want at most 20 digits"),
        (f"{'9' * 5000}-", "want at most 20 digits"),
    ],
)
def test_what_is_wrong_with_a_range(text: str, words: str) -> None:
    """In the words of whoever asked for it."""
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(text, 100)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_satisfies_no_range(text: str) -> None:
    """There is no first byte."""
    with pytest.raises(RangeNotSatisfiable):
        parse_range(text, 0)


@given(st.text(max_size=30), st.integers(0, 1000))
def test_garbage_is_not_satisfiable(text: str, content_length: int) -> None:
    """Or a range that lies inside; nothing else."""
    try:
        found = parse_range(text, content_length)
    except RangeNotSatisfiable:
        return
    assert 0 <= found.start < found.end <= content_length


def test_content_range() -> None:
    """The total may be unknown."""
    assert parse_content_range("bytes 0-0/1") == (0, 0, 1)
    assert parse_content_range("Bytes 10-19/100") == (10, 19, 100)
    assert parse_content_range("bytes 10-19/*") == (10, 19, None)


@pytest.mark.parametrize(
    "text",
    ["", "bytes */5", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-1", "items 0-1/5", "bytes 0-²/9"],
)
def test_a_content_range_that_makes_no_sense(text: str) -> None:
    """Is the origin's fault."""
    with pytest.raises(RemoteProtocolError, match="Content-Range"):
        parse_content_range(text)


def test_what_a_refused_range_says() -> None:
    """The total, if anything."""
    assert parse_unsatisfied("bytes */100") == 100
    assert parse_unsatisfied("bytes 0-1/100") is None
    assert parse_unsatisfied("") is None
