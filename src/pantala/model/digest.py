"""Computing digests: ``crc32:1475635037``, ``sha256:e3b0…``, ``sha512:cf83…``.

CRC-32 is the IEEE one (zlib's), not CRC-32C, and is written in decimal.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final, Protocol

from isal import isal_zlib

from pantala.errors import InvalidRequest

from .notation import ALGORITHMS, Digest

_PIECE: Final = struct.Struct("!IQQ")


class Hasher(Protocol):
    """A digest in the making."""

    def update(self, data: bytes | memoryview) -> None:
        """Take the bytes that come next."""

    def digest(self) -> Digest:
        """The digest of all bytes so far."""


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """CRC-32 of *data*, going on from *value*."""
    crc: int = isal_zlib.crc32(data, value)
    return crc


def piece_digest(crc: int) -> str:
    """The digest of a piece, as peers compare it."""
    return f"crc32:{crc}"


def piece_crc(digest: str) -> int | None:
    """The number in the digest of a piece; None if it is of another algorithm, or none at all.

    >>> piece_crc("crc32:7"), piece_crc("")
    (7, None)
    """
    algorithm, _, number = digest.partition(":")
    return int(number) if algorithm == "crc32" and number.isdecimal() else None


def piece_metadata_digest(number: int, offset: int, length: int, digest: str) -> str:
    """The digest of what is said of a piece, which a gRPC piece response carries.

    CRC-32 of number (4 bytes), offset and length (8 each), big-endian, then *digest*'s text.
    """
    crc = crc32(_PIECE.pack(number, offset, length))
    return piece_digest(crc32(digest.encode(), crc))


def pieces_digest(length: int, digests: Iterable[str]) -> str:
    """One digest for content cut into pieces of *length*: SHA-256 of their digests in order."""
    text = " ".join((str(length), *digests))
    return hashlib.sha256(text.encode()).hexdigest()


def hasher(algorithm: str) -> Hasher:
    """A fresh hasher.

    Args:
        algorithm: As in a :class:`Digest`.

    Raises:
        InvalidRequest: There is no such algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise InvalidRequest(
            f"digest algorithm {algorithm[:50]!r}: want one of {', '.join(ALGORITHMS)}"
        )
    return _Crc() if algorithm == "crc32" else _Sha(algorithm)


class _Crc:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview) -> None:
        self._value = crc32(data, self._value)

    def digest(self) -> Digest:
        return Digest("crc32", str(self._value))


class _Sha:
    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)

    def digest(self) -> Digest:
        return Digest(self._algorithm, self._hash.hexdigest())
