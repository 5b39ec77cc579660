"""Safetensors files for tests: of any size, and broken in any way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .content import Pattern


def packed(header: Mapping[str, Any] | bytes | str, data: bytes = b"") -> bytes:
    """A file with such a header, however wrong that is."""
    if isinstance(header, Mapping):
        header = json.dumps(header)
    raw = header.encode() if isinstance(header, str) else header
    return len(raw).to_bytes(8, "little") + raw + data


def rows(sizes: Mapping[str, int]) -> dict[str, Any]:
    """A header of tensors of float32, one after the other, by the bytes in each."""
    found, at = {}, 0
    for name, size in sizes.items():
        offsets = [at, at + size]
        found[name] = {"dtype": "F32", "shape": [size // 4], "data_offsets": offsets}
        at += size
    return found


@dataclass(frozen=True, slots=True)
class Model:
    """A file of tensors of float32, computed when it is read, as patterns are.

    Attributes:
        sizes: Bytes in each tensor, by name; multiples of four.
        seed: Of the pattern that their bytes are of.
    """

    sizes: tuple[tuple[str, int], ...]
    seed: int = 0

    @property
    def head(self) -> bytes:
        """What comes before the tensors, a multiple of 64 bytes."""
        text = json.dumps(rows(dict(self.sizes)))
        return packed(text + " " * (-(8 + len(text)) % 64))

    @property
    def data(self) -> Pattern:
        """What follows."""
        return Pattern(sum(size for _, size in self.sizes), self.seed)

    @property
    def size(self) -> int:
        """Bytes in it."""
        return len(self.head) + self.data.size

    @property
    def etag(self) -> str:
        """A strong entity tag, with its quotes."""
        return f'"model-{self.seed}-{self.size}"'

    def bytes_of(self, name: str) -> bytes:
        """Those of a tensor."""
        at = 0
        for each, size in self.sizes:
            if each == name:
                return self.data.read(at, size)
            at += size
        raise KeyError(name)

    def chunks(self, start: int, length: int) -> Iterator[memoryview]:
        """*length* bytes from *start*. A chunk is valid until the next one is asked for."""
        head, end = self.head, start + length
        if start < len(head):
            yield memoryview(head)[start:end]
        first, last = max(start - len(head), 0), end - len(head)
        if first < last:
            yield from self.data.chunks(first, last - first)
