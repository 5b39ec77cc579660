"""What names content on a command line: a URL, and the flags that are part of its identity."""

from __future__ import annotations

import argparse

from pantala.model.headers import NOT_THE_CALLERS
from pantala.model.urls import fault_of_given

from . import _flags as flags

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def add(parser: argparse.ArgumentParser, environ: Mapping[str, str], prefix: str) -> None:
    """Add the flags; *prefix* is that of their variables."""
    add = flags.Flags(parser, environ, prefix)
    add_labels(add)
    add_piece_length(add)
    parser.add_argument(
        "--filtered-query-param",
        dest="filtered_query_params",
        type=flags.text,
        action="append",
        metavar="NAME",
        help="query parameter that is no part of the identity, repeatable; by default those "
        "that sign URLs of the common object stores",
    )
    add_content_id(add, "URL, tag and the like")
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        action="append",
        metavar="K: V",
        help="for the origin, repeatable",
    )


def add_labels(add: flags.Flags) -> None:
    """What sets content apart from other content of the same name."""
    for flag, name in (("--tag", "TAG"), ("--application", "APPLICATION")):
        add.value(
            flag, env=name, type=flags.text, meta="TEXT", help="part of the content's identity"
        )


def add_piece_length(add: flags.Flags) -> None:
    """What is part of the identity if it is given."""
    add.value(
        "--piece-length",
        env="PIECE_LENGTH",
        type=flags.piece_length,
        meta="SIZE",
        help="4MiB to 64MiB",
    )


def add_content_id(add: flags.Flags, instead: str) -> None:
    """What stands for the identity; *instead* of which, in words."""
    add.value(
        "--content-for-calculating-task-id",
        env="CONTENT_FOR_CALCULATING_TASK_ID",
        type=flags.text,
        meta="TEXT",
        help=f"identity of the content, in place of {instead}",
    )


def url(text: str) -> str:
    """A URL that can be fetched. Raises argparse.ArgumentTypeError: it is none."""
    if fault := fault_of_given(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def byte_range(text: str) -> str:
    """A range of bytes. Raises argparse.ArgumentTypeError: it is none."""
    from pantala.model.notation import parse_bounds  # noqa: PLC0415  few give it, all would pay

    try:
        parse_bounds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:150]!r}: {error}") from error
    return text


def headers_of(entries: Sequence[str]) -> dict[str, str]:
    """Headers by name.

    Raises:
        ValueError: One makes no sense. The message names it, and never shows a value.
    """
    headers: dict[str, str] = {}
    for position, entry in enumerate(entries, start=1):
        name, colon, value = entry.partition(":")
        if not colon:
            word = entry.split(" ", 1)[0] if " " in entry else ""
            shown = f" ({word} …)" if word else ""
            raise ValueError(f"header {position}{shown} has no colon: want 'Name: value'")
        name, value = name.strip(), value.strip()
        if not name.isprintable() or not name or " " in name:
            raise ValueError(f"header {position} has no proper name before its colon")
        if any(mark in value for mark in "\r\n\0"):
            raise ValueError(f"header {name} has a line break in its value")
        if not flags.is_utf8(value):
            raise ValueError(f"header {name} has a value that is not UTF-8")
        if name.lower() in NOT_THE_CALLERS - {"range"}:
            raise ValueError(f"header {name} is not sent on to origins: leave it out")
        if name.lower() == "range":
            _check_range_header(name, value)
        headers[name] = value
    return headers


def _check_range_header(name: str, value: str) -> None:
    """Refuse what ``--range`` would: of several ranges there would come only one."""
    unit, equals, wanted = value.rpartition("=")
    try:
        byte_range(wanted if unit.strip().lower() == "bytes" or not equals else value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(
            f"header {name}: {value[:150]!r}: want one range: bytes=A-B, bytes=A- or bytes=-N"
        ) from error
