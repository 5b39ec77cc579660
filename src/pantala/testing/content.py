"""Content for tests: bytes, files, and patterns of any size that cost no memory."""

from __future__ import annotations

import functools
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: What one read of content yields. Large enough to hide Python behind the kernel's copying.
CHUNK = 256 << 10


class Content(Protocol):
    """Something that an origin can serve."""

    @property
    def size(self) -> int:
        """Bytes in it."""

    @property
    def etag(self) -> str:
        """A strong entity tag, with its quotes."""

    def chunks(self, start: int, length: int) -> Iterator[memoryview]:
        """*length* bytes from *start*. A chunk is valid until the next one is asked for."""


@functools.lru_cache(maxsize=8)
def _base(seed: int) -> bytes:
    return random.Random(seed).randbytes(CHUNK)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Pseudo-random content that is computed when it is read.

    Blocks of :data:`CHUNK` bytes are alike but for the number that each opens with, so that a
    block in the wrong place shows in any comparison.

    Attributes:
        size: Bytes.
        seed: Patterns of different seeds differ everywhere.
    """

    size: int
    seed: int = 0

    @property
    def etag(self) -> str:
        return f'"pattern-{self.seed}-{self.size}"'

    def chunks(self, start: int, length: int) -> Iterator[memoryview]:
        block = bytearray(_base(self.seed))
        view = memoryview(block)
        end = min(start + length, self.size)
        while start < end:
            number, skip = divmod(start, CHUNK)
            block[:8] = number.to_bytes(8, "big")
            n = min(CHUNK - skip, end - start)
            yield view[skip : skip + n]
            start += n

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """*length* bytes from *start*, clipped at the end; None: all that follow."""
        chunks = self.chunks(start, self.size if length is None else length)
        return b"".join(bytes(chunk) for chunk in chunks)

    def digest(self, algorithm: str = "sha256") -> str:
        """Hexadecimal digest of the whole content."""
        digest = hashlib.new(algorithm)
        for chunk in self.chunks(0, self.size):
            digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Blob:
    """Content of bytes that are given."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()[:16]}"'

    def chunks(self, start: int, length: int) -> Iterator[memoryview]:
        view = memoryview(self.data)[start : start + length]
        for offset in range(0, len(view), CHUNK):
            yield view[offset : offset + CHUNK]


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is now; it is opened anew for each read."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def etag(self) -> str:
        stat = self.path.stat()
        return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'

    def chunks(self, start: int, length: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(CHUNK))
        end = start + length
        with self.path.open("rb", buffering=0) as file:
            while start < end:
                n = os.preadv(file.fileno(), [buffer[: min(CHUNK, end - start)]], start)
                if not n:
                    return
                yield buffer[:n]
                start += n
