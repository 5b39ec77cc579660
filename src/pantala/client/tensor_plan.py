"""Which bytes of a safetensors file are asked for, and which tensors are here; no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from .coverage import Coverage
from .tensor_header import Header, TensorInfo

#: Tensors with no more bytes between them are asked for together, as with ranges.
_GAP: Final = 64 << 10

#: Bytes that are asked for together at most, unless a tensor has more: parts of a file come when
#: all of the part is here, and its tensors lie in one buffer.
_TOGETHER: Final = 64 << 20

#: Parts begin at a multiple of it, as buffers do, so that tensors in the buffer are aligned as they
#: are in the file. Pieces do, too: none is touched that would not have been.
_ALIGNED: Final = 64


class Part:
    """A part of a file with some of its tensors.

    Args:
        tensors: In the order in which they lie there; none is empty.

    Attributes:
        tensors: These.
        first, end: The bytes that are asked for.
    """

    def __init__(self, tensors: Sequence[TensorInfo]) -> None:
        self.tensors = tensors
        self.first = tensors[0].first // _ALIGNED * _ALIGNED
        self.end = tensors[-1].end


def parts_of(tensors: Iterable[TensorInfo]) -> list[Part]:
    """What is asked for to have some tensors of a file.

    Args:
        tensors: In the order in which they lie there; none is empty.
    """
    groups: list[list[TensorInfo]] = []
    for tensor in tensors:
        group = groups[-1] if groups else None
        if (
            group is not None
            and tensor.first - group[-1].end <= _GAP
            and tensor.end - group[0].first <= _TOGETHER
        ):
            group.append(tensor)
        else:
            groups.append([tensor])
    return [Part(group) for group in groups]


def touch_all_pieces(parts: Iterable[Part], header: Header, size: int, piece_length: int) -> bool:
    """Whether no piece of a file could stay away: then all of the file costs nothing more.

    Args:
        parts: That are asked for.
        header: Of the file; it is here.
        size: Bytes in the file.
        piece_length: Bytes in every piece but the last; 0: nobody has said.
    """
    if not piece_length:
        return False
    reached = -(-header.end // piece_length)
    for part in parts:
        if part.first // piece_length > reached:
            return False
        reached = max(reached, -(-part.end // piece_length))
    return reached * piece_length >= size


class Due:
    """Tensors that are to come.

    Args:
        tensors: In the order in which they lie in the file; none is empty.
    """

    def __init__(self, tensors: Iterable[TensorInfo]) -> None:
        self._tensors = list(tensors)
        self._firsts = [tensor.first for tensor in self._tensors]
        self._ends = [tensor.end for tensor in self._tensors]
        self._left = set(range(len(self._tensors)))

    def __bool__(self) -> bool:
        return bool(self._left)

    def landed(self, parts: Iterable[tuple[int, int]], coverage: Coverage) -> list[TensorInfo]:
        """Those that are here with some more *parts*, and have not been named before."""
        found = []
        for first, end in parts:
            low = bisect_right(self._ends, first)
            for at in range(low, bisect_left(self._firsts, end)):
                tensor = self._tensors[at]
                if at in self._left and coverage.has(tensor.first, tensor.end):
                    self._left.discard(at)
                    found.append(tensor)
        return found
