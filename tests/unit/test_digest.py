"""Digests: as they are written, and computed."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.errors import InvalidRequest
from pantala.model.digest import crc32, hasher, piece_digest, piece_metadata_digest
from pantala.model.notation import Digest, parse_digest


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"a", 3904355907), (b"123456789", 0xCBF43926), (b"test content", 1475635037)],
)
def test_crc32_is_the_ieee_one(data: bytes, expected: int) -> None:
    """Known answers; CRC-32C has others."""
    assert crc32(data) == expected


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_crc32_goes_on_where_it_stopped(data: bytes, cut: int) -> None:
    """In as many steps as one likes, from any buffer."""
    head, tail = memoryview(data)[:cut], memoryview(data)[cut:]

    assert crc32(tail, crc32(head)) == zlib.crc32(data)


def test_digest_of_a_piece() -> None:
    """Decimal, without padding."""
    assert piece_digest(crc32(b"test content")) == "crc32:1475635037"
    assert piece_digest(7) == "crc32:7"


def test_digest_of_what_is_said_of_a_piece() -> None:
    """A known answer of Dragonfly's client."""
    assert piece_metadata_digest(1, 0, 1024, "crc32:1929153120") == "crc32:3299754941"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crc32:1475635037", Digest("crc32", "1475635037")),
        ("crc32:4294967295", Digest("crc32", "4294967295")),
        ("crc32:7", Digest("crc32", "7")),
        ("crc32:0000000007", Digest("crc32", "7")),
        ("crc32:0", Digest("crc32", "0")),
        (f"sha256:{'0f' * 32}", Digest("sha256", "0f" * 32)),
        (f"sha512:{'0f' * 64}", Digest("sha512", "0f" * 64)),
    ],
)
def test_digests_are_read(text: str, expected: Digest) -> None:
    """A CRC's leading zeros do not matter."""
    assert parse_digest(text) == expected
    assert parse_digest(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "crc32",
        "crc32:",
        "crc32:4294967296",
        "crc32:00000000001",
        "crc32:cbf43926",
        "crc32:-1",
        "crc32:١",
        "crc32: 1",
        f"sha256:{'0F' * 32}",
        f"sha256:{'0f' * 31}",
        f"sha256:{'0f' * 32}\n",
        f"sha512:{'0f' * 32}",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        f"SHA256:{'0f' * 32}",
        f"{'0f' * 32}",
    ],
)
def test_digests_that_cannot_be_read(text: str) -> None:
    """The refusal names what would do."""
    with pytest.raises(InvalidRequest, match="sha256:<64 lower-case hex digits>"):
        parse_digest(text)


@pytest.mark.parametrize("algorithm", ["crc32", "sha256", "sha512"])
def test_a_hasher_takes_bytes_in_any_portions(algorithm: str) -> None:
    """And agrees with the standard library."""
    data = bytes(range(256)) * 50
    expected = (
        str(zlib.crc32(data)) if algorithm == "crc32" else hashlib.new(algorithm, data).hexdigest()
    )
    ours = hasher(algorithm)
    ours.update(data[:1000])
    ours.update(memoryview(data)[1000:])

    assert ours.digest() == Digest(algorithm, expected)
    assert parse_digest(f"{algorithm}:{expected}") == ours.digest()


def test_a_fresh_hasher_knows_the_empty_file() -> None:
    """Nothing has a digest too."""
    assert str(hasher("crc32").digest()) == "crc32:0"
    assert hasher("sha256").digest().encoded.startswith("e3b0c442")


def test_there_are_three_algorithms() -> None:
    """The refusal names them."""
    with pytest.raises(InvalidRequest, match="crc32, sha256, sha512"):
        hasher("md5")
