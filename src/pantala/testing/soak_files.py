"""The files that a soak's nodes are asked for, and what they must be."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import Final

from .content import Pattern
from .origin import Fault, Origin

#: Files that are asked for, and the largest, bytes. They are more than the stores hold.
_FILES: Final = 48
_LARGEST: Final = 3 << 20

#: Two files of which a store has room for one, bytes.
_LARGE: Final = 15 << 20

#: A file that all nodes want at the same moment, bytes, and bytes a second of it: slow enough for
#: them to meet.
_COLD: Final = 5 << 20
_COLD_RATE: Final = 10 << 20


class Files:
    """See the module.

    Args:
        origin: Where they are put.
        seed: Of what is in them.

    Attributes:
        paths: Of those that are asked for again and again.
        large: Of two of which a store has room for one.
    """

    def __init__(self, origin: Origin, seed: int) -> None:
        self._origin = origin
        self._content: dict[str, Pattern] = {}
        self._numbers = itertools.count()
        self.paths = [f"/soak/{number}" for number in range(_FILES)]
        self.large = [f"/large/{number}" for number in range(2)]
        random = Random(seed)
        for path in self.paths:
            self._put(path, random.randrange(1, _LARGEST), random.randrange(1 << 30))
        for number, path in enumerate(self.large):
            self._put(path, _LARGE, number)

    def _put(self, path: str, size: int, seed: int) -> None:
        self._content[path] = Pattern(size, seed=seed)
        self._origin.put(path, self._content[path])

    def cold(self) -> str:
        """The path of one that nobody has, and that comes slowly."""
        number = next(self._numbers)
        path = f"/cold/{number}"
        self._put(path, _COLD, number)
        self._origin.fault(path, Fault(rate=_COLD_RATE))
        return path

    def is_right(self, path: str, got: Path) -> bool:
        """Whether what lies at *got* is the file, to the byte."""
        return got.read_bytes() == self._content[path].read()
