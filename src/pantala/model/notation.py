"""Ids, digests and ranges as they are written: in requests, headers and on command lines.

A module of its own because ``dfget`` needs it and may import little: patterns are compiled when
they are used.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pantala.errors import InvalidRequest

_MAX_CRC: Final = 2**32 - 1
_ENCODED: Final = {
    "crc32": r"[0-9]{1,10}",
    "sha256": r"[0-9a-f]{64}",
    "sha512": r"[0-9a-f]{128}",
}
ALGORITHMS: Final = tuple(_ENCODED)

_TASK_ID: Final = r"[0-9a-f]{64}"

_BOUNDS: Final = r"([0-9]*)-([0-9]*)"
_WANT_BOUNDS: Final = "want A-B, A- or -N, in bytes"

# 20 digits hold any 64-bit number; more would only serve to make us multiply.
_MAX_DIGITS: Final = 20


def check_task_id(text: str) -> str:
    """*text*, if it is a task id. Ids become names and keys: check them where they enter.

    Raises:
        InvalidRequest: Not exactly 64 lower-case hexadecimal digits.
    """
    if re.fullmatch(_TASK_ID, text) is None:
        raise InvalidRequest(f"task id {text[:100]!r}: want 64 lower-case hexadecimal digits")
    return text


class Digest(NamedTuple):
    """What content must hash to.

    Attributes:
        algorithm: ``crc32``, ``sha256`` or ``sha512``.
        encoded: Decimal without leading zeros for CRC-32, else lower-case hexadecimal.
    """

    algorithm: str
    encoded: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def parse_digest(text: str) -> Digest:
    """Read ``algorithm:encoded``.

    Stock daemons take a CRC-32 of exactly ten digits only; here it may be shorter, as they
    write it themselves, or padded with zeros.

    Raises:
        InvalidRequest: Another algorithm, or not the digits that it wants.
    """
    algorithm, _, encoded = text.partition(":")
    pattern = _ENCODED.get(algorithm)
    if pattern is not None and re.fullmatch(pattern, encoded):
        if algorithm != "crc32":
            return Digest(algorithm, encoded)
        if int(encoded) <= _MAX_CRC:
            return Digest(algorithm, str(int(encoded)))
    raise InvalidRequest(
        f"digest {text[:150]!r}: want crc32:<decimal, up to {_MAX_CRC}>, "
        "sha256:<64 lower-case hex digits> or sha512:<128 lower-case hex digits>"
    )


def parse_bounds(text: str) -> tuple[int | None, int | None]:
    """What stands before and behind the dash of one range: ``a-b``, ``a-`` or ``-n``.

    Returns:
        The first byte and the last, which is included; or the first and None, for all from there
        on; or None and how many are wanted of the end.

    Raises:
        ValueError: It is not of that form, or empty; the message says what is wrong with it.

    >>> parse_bounds("0-9"), parse_bounds("-10")
    ((0, 9), (None, 10))
    """
    found = re.fullmatch(_BOUNDS, text)
    if found is None or text == "-":
        raise ValueError(_WANT_BOUNDS)
    if max(map(len, found.groups())) > _MAX_DIGITS:
        raise ValueError(f"want at most {_MAX_DIGITS} digits")
    first, last = (int(digits) if digits else None for digits in found.groups())
    if first is None and last == 0:
        raise ValueError(_WANT_BOUNDS)
    if first is not None and last is not None and last < first:
        raise ValueError("ends before it begins")
    return first, last
