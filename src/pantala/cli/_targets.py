"""Which URL of many goes to which file: what ``dfget`` was given as lists and directories."""
# ruff: noqa: PTH103, PTH110, PTH112, PTH118  pathlib drops the / at an end, which says that it is a directory

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

from pantala.errors import Unavailable
from pantala.model.names import file_name
from pantala.model.urls import public_url

#: URLs at once: their targets are held in memory.
_MOST: Final = 1_000_000

#: Bytes of a line: more than origins take.
_LONGEST: Final = 65536


class Target(NamedTuple):
    """A URL, and the file that its content goes to."""

    url: str
    output: str


def read_urls(name: str, check: Callable[[str], str]) -> list[str]:
    """The URLs of a file, one a line; blank lines and those that begin with # are none.

    Args:
        name: Of the file; ``-``: standard input.
        check: Raises argparse.ArgumentTypeError if a text is no URL.

    Raises:
        ValueError: It cannot be read, or has what is no URL, or none at all, or too many.
    """
    shown = "standard input" if name == "-" else name
    try:
        urls = listed(name, check)
    except OSError as error:
        raise ValueError(f"cannot read {shown}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{shown}, {error}") from None
    if not urls:
        raise ValueError(f"{shown} has no URL")
    return urls


def listed(name: str, check: Callable[[str], str]) -> list[str]:
    """The same, for those who say what is wrong in their own words; there may be no URL.

    Raises:
        OSError: It cannot be read.
        ValueError: Which line makes no sense, and why.
    """
    urls: list[str] = []
    with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
        for number, line in enumerate(_lines(file), start=1):
            text = line.decode(errors="surrogateescape").removeprefix("\ufeff").strip()
            if not text or text.startswith("#"):
                continue
            try:
                urls.append(check(text))
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"line {number}: {error}") from None
            if len(line) > _LONGEST or len(urls) > _MOST:
                why = f"a line has at most {_LONGEST} bytes, and a list {_MOST} URLs"
                raise ValueError(f"line {number}: {why}")
    return urls


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_LONGEST + 1):
        yield line


def targets_of(urls: Sequence[str], directory: str) -> list[Target]:
    """A file in *directory* for each URL, by the name that its path ends with.

    Raises:
        ValueError: One has no name that will do, or two have the same.
    """
    found: dict[str, str] = {}
    for url in urls:
        try:
            name = file_name(url)
        except ValueError as error:
            raise ValueError(f"{public_url(url)}: {error}: fetch it alone, with -O FILE") from None
        if name in found:
            both = f"{public_url(found[name])} and {public_url(url)}"
            raise ValueError(f"{both} would both be {os.path.join(directory, name)}")
        found[name] = url
    return [Target(url, os.path.join(directory, name)) for name, url in found.items()]


def check_directory(path: str) -> None:
    """Raises ValueError: *path* is no directory, and does not end like one that is to be made."""
    if os.path.isdir(path):
        return
    if os.path.exists(path.rstrip("/")):
        raise ValueError(f"several files go to a directory, and {path} is none")
    if not path.endswith("/"):
        raise ValueError(f"there is no directory {path}: end it with / to have it made")


def make_directory(path: str) -> None:
    """Have the directory *path*. Raises Unavailable."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot make {path}: {error.strerror}") from error
