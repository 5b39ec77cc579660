"""Sizes and durations as people write them, and as they like to read them."""

from __future__ import annotations

import re
from typing import Final

# What Dragonfly's files use: 50GB is decimal, 64MiB is binary, a lone letter is decimal.
_SIZES: Final = {"": 1, "b": 1} | {
    name: base**power
    for power, letter in enumerate("kmgtp", start=1)
    for name, base in (
        (letter, 1000),
        (f"{letter}b", 1000),
        (f"{letter}i", 1024),
        (f"{letter}ib", 1024),
    )
}
_SIZE: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([a-zA-Z]{0,3})")
_MAX_SIZE: Final = 2**63 - 1

# Names as the humantime and Go libraries have them; case matters, since M would be a month.
_SECONDS: Final[dict[str, float]] = {
    name: seconds
    for names, seconds in (
        ("ns nsec", 1e-9),
        ("us µs μs usec", 1e-6),
        ("ms msec", 1e-3),
        ("s sec secs second seconds", 1.0),
        ("m min mins minute minutes", 60.0),
        ("h hr hrs hour hours", 3600.0),
        ("d day days", 86400.0),
        ("w week weeks", 604800.0),
    )
    for name in names.split()
}
_DURATION_PART: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-zµμ]{1,7})\s*")


def byte_count(number: int) -> str:
    """A number of bytes in words.

    >>> byte_count(1), byte_count(2)
    ('1 byte', '2 bytes')
    """
    return f"{number} byte{'' if number == 1 else 's'}"


def parse_size(value: str | int) -> int:
    """Bytes, from ``"4MiB"``, ``"50GB"``, ``"2G"`` (decimal), or a number of bytes.

    Upper and lower case are the same. A fraction of a byte is dropped.

    Raises:
        ValueError: Not a size, or one that needs more than 63 bits.

    >>> parse_size("64MiB"), parse_size("1.5kb")
    (67108864, 1500)
    """
    found = _SIZE.fullmatch(str(value).strip())
    unit = _SIZES.get(found[2].lower()) if found else None
    if found is None or unit is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a size: want bytes, such as 4MiB, 50GB or 1048576")
    whole, _, fraction = found[1].partition(".")
    size: int = int(whole + fraction) * unit // 10 ** len(fraction)
    if size > _MAX_SIZE:
        raise ValueError(f"{value!r} is too large for a size in bytes")
    return size


def parse_duration(value: str | float) -> float:
    """Seconds, from ``"30s"``, ``"1h 30m"``, ``"1m30s"``, ``"500ms"`` or ``"30days"``.

    A number without a unit is refused, unless it is 0: it might mean anything.

    Raises:
        ValueError: Not a duration.

    >>> parse_duration("1h30m"), parse_duration("500ms")
    (5400.0, 0.5)
    """
    text = str(value).strip()
    if text in {"0", "0.0"}:
        return 0.0
    total, at = 0.0, 0
    while (part := _DURATION_PART.match(text, at)) is not None and part[2] in _SECONDS:
        total += float(part[1]) * _SECONDS[part[2]]
        at = part.end()
    if at == 0 or at < len(text):
        raise ValueError(f"{value!r} is not a duration: want a unit, such as 30s, 500ms or 1h 30m")
    return total


def format_size(size: float) -> str:
    """*size* bytes for people, in binary units.

    >>> format_size(5 * 1024**3 // 2), format_size(12)
    ('2.5 GiB', '12 B')
    """
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        # 1023.95 would print as 1024.0
        if size < 1023.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"
