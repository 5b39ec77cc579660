"""The header of a safetensors file: which tensors it has and where; no I/O.

A file begins with the length of its header, eight bytes, little-endian. The header is JSON: by the
name of a tensor its dtype, its shape, and where it lies in the bytes that follow the header.
Whoever wrote the file is not trusted: nothing is believed that the file does not bear out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from pantala.errors import Corrupt

#: Bytes that say how long the header is.
PREFIX: Final = 8

#: Bytes in a header at most: the format's limit.
MAX_HEADER: Final = 100_000_000

#: Bits in an element, by the format's names of dtypes.
BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "I8", "U8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 16),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}

#: No number in a header may reach this, nor what is computed from them.
_TOO_LARGE: Final = 1 << 64

_METADATA: Final = "__metadata__"


class TensorInfo(NamedTuple):
    """A tensor, without its data.

    Attributes:
        name: Within its file.
        dtype: As the format names it, such as ``"BF16"``.
        shape: In rows; of a scalar, nothing.
        first: Where in the file it begins.
        end: Where in the file it ends: after its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes in it."""
        return self.end - self.first


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        tensors: By name, in the order in which they lie in the file.
        metadata: Texts that whoever wrote the file has put there.
        end: Where in the file the header ends.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    end: int


def header_end(prefix: bytes | memoryview, size: int, file: str) -> int:
    """Where the header ends, by the first bytes of a file.

    Args:
        prefix: These, as many as are to hand.
        size: Bytes in the file.
        file: What it is called in messages.

    Raises:
        Corrupt: No header can end there.
    """
    if size < PREFIX:
        raise Corrupt(f"{file} is no safetensors file: it has {size} bytes, and no header")
    length = int.from_bytes(prefix[:PREFIX], "little")
    if length > MAX_HEADER:
        raise Corrupt(
            f"{file} is no safetensors file: it claims a header of {length} bytes, "
            f"which may have {MAX_HEADER}"
        )
    if PREFIX + length > size:
        raise Corrupt(f"{file} has {size} bytes, and claims a header of {length}: it was cut off")
    return PREFIX + length


def parse_header(raw: bytes | memoryview, size: int, file: str) -> Header:
    """The header of a file.

    Args:
        raw: All bytes of the file up to where :func:`header_end` says.
        size: Bytes in the file.
        file: What it is called in messages.

    Raises:
        Corrupt: It is not as the format has it: no JSON object, a dtype that nobody knows, a tensor
            twice, or of another size than its shape takes; or the tensors do not follow each other
            from the end of the header to the end of the file.
    """
    try:
        told = _object(bytes(raw[PREFIX:]))
        metadata = _metadata(told.pop(_METADATA, None))
        rows = [_row(name, row) for name, row in told.items()]
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise Corrupt(f"the header of {file} is broken: {why}") from None
    end = len(raw)
    tensors = {}
    at = 0
    for first, last, name, dtype, shape in sorted(rows):
        if first != at:
            what = "a hole" if first > at else "an overlap"
            raise Corrupt(f"the header of {file} has {what} before tensor {shown(name)}")
        tensors[name] = TensorInfo(name, dtype, shape, end + first, end + last)
        at = last
    if end + at != size:
        raise Corrupt(f"{file} has {size} bytes, and tensors up to {end + at}")
    return Header(tensors, metadata, end)


def shown(name: str) -> str:
    """A tensor's name as messages show it."""
    return f"{name!r:.100}"


def _object(raw: bytes) -> dict[str, Any]:
    """The JSON object. Raises ValueError: it is none, or has a name twice."""
    if not raw.startswith(b"{"):
        raise ValueError("it is no JSON object")
    text = raw.decode()
    told = json.loads(
        text, object_pairs_hook=_unique, parse_int=_whole_number, parse_constant=_no_constant
    )
    return dict(told)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} stands there twice")
        found[name] = value
    return found


def _whole_number(text: str) -> int | float:
    # A negative one fits nowhere, nor does one of so many digits.
    return int(text) if len(text) <= 20 and not text.startswith("-") else float("nan")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _metadata(told: object) -> dict[str, str]:
    if told is None:
        return {}
    if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
        raise ValueError(f"{_METADATA} is no object of texts")
    for name, text in told.items():
        _must_be_text(name)
        _must_be_text(text)
    return told


def _must_be_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"half a character in {shown(text)}") from None


def _row(name: str, told: object) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Where a tensor begins and ends after the header, and what it is. Raises ValueError."""
    _must_be_text(name)
    match told:
        case {
            "dtype": str(dtype),
            "shape": [*shape],
            "data_offsets": [first, last],
        } if all(map(_is_size, (first, last, *shape))):
            pass
        case _:
            raise ValueError(f"tensor {shown(name)} has no dtype, shape and data_offsets")
    if dtype not in BITS:
        raise ValueError(f"tensor {shown(name)} is of dtype {dtype!r:.40}, which is not known here")
    if last < first:
        raise ValueError(f"tensor {shown(name)} ends before it begins")
    bits = _bits(dtype, shape)
    if bits != 8 * (last - first):
        raise ValueError(
            f"tensor {shown(name)} has {last - first} bytes, and a shape and dtype of "
            + ("more than there can be" if bits is None else f"{bits / 8:g}")
        )
    return first, last, name, dtype, tuple(shape)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE


def _bits(dtype: str, shape: list[int]) -> int | None:
    """Bits in a tensor; None: more than there can be.

    It is looked at after each factor, since a header may have millions of them.
    """
    count = 1
    for length in (*shape, BITS[dtype]):
        count *= length
        if count >= _TOO_LARGE:
            return None
    return count
