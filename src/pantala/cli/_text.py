"""Errors and flags, fit for a terminal and other people's eyes."""

from __future__ import annotations

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping


def one_line(text: str) -> str:
    """*text* on one line, without control characters.

    Part of it may come from an origin, which shall not steer the terminal.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def width(text: str) -> int:
    """Columns that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415  few texts need it

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def shortened(text: str, columns: int) -> str:
    """*text*, or its beginning and end with … between, in so many columns at most.

    >>> shortened("model-00001-of-00009.safetensors", 16)
    'model-0…etensors'
    """
    if width(text) <= columns:
        return text
    first, last = text[: (columns - 1) // 2], text[len(text) - columns // 2 :]
    while first and width(first) + 1 + width(last) > columns:  # characters that take two
        first, last = first[:-1], last[1:]
    return f"{first}…{last}"[: max(columns, 1)]


def flag_names(keys: Mapping[str, str]) -> dict[str, str]:
    """Flags by the settings that they set, from *keys*: settings by the names of parameters.

    >>> flag_names({"log_level": "server.logLevel"})
    {'server.logLevel': '--log-level'}
    """
    return {key: f"--{name.replace('_', '-')}" for name, key in keys.items()}
