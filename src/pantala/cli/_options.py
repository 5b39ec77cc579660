"""Flags that ``dfdaemon`` and ``dfscheduler`` share, and how they say that one is wrong."""

from __future__ import annotations

import argparse
import sys

from pantala.errors import DragonflyError, UsageError

from ._flags import Flags

TYPE_CHECKING = False  # as for dfget: --help needs no typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

#: When a personal daemon quits, unless it is told otherwise.
IDLE: Final = "5m"


class Options(argparse.Namespace):
    """What both of them are told.

    Attributes:
        config: The file of settings; None: the usual one.
        log_level: How much to log.
        check: Only to show the settings.
        strict: Keys that are not known are mistakes.
    """

    config: str | None
    log_level: str | None
    check: bool
    strict: bool


def add_config(add: Flags, default: str, variable: str) -> None:
    """``--config``; *default* is read without it, and *variable* stands in for it."""
    add.value(
        "-c",
        "--config",
        env="CONFIG",
        meta="FILE",
        help=f"YAML file of settings, default {default} if it is there; {variable}",
    )


def add_ports(add: Flags, names: Iterable[str]) -> None:
    """A flag for each of these ports."""
    for name in names:
        add.value(f"--{name}", type=whole, meta="PORT", help="0 lets the system choose")


def add_checks(add: Flags) -> None:
    """``--check`` and ``--strict``."""
    add.switch("--check", "print the settings as JSON, and stop; strictly", env=False)
    add.switch("--strict", "refuse keys that are not known, instead of a warning", env=False)


def whole(text: str) -> int:
    """A whole number. Raises argparse.ArgumentTypeError: it is none."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:50]!r}: want a whole number") from None


def tell_why(program: str, error: DragonflyError) -> int:
    """Say on standard error why *program* cannot run; the exit status that belongs to that."""
    for line in str(error).splitlines():
        sys.stderr.write(f"{program}: {line}\n")
    return 2 if isinstance(error, UsageError) else 1
