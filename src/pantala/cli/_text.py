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


def flag_names(keys: Mapping[str, str]) -> dict[str, str]:
    """Flags by the settings that they set, from *keys*: settings by the names of parameters.

    >>> flag_names({"log_level": "server.logLevel"})
    {'server.logLevel': '--log-level'}
    """
    return {key: f"--{name.replace('_', '-')}" for name, key in keys.items()}
