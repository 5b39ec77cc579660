"""Reading from sources as a test would, and what they leave open."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pantala.ports import Source, SourceBody, SourceRequest


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body that was read to its end and closed, and what it contained."""

    body: SourceBody
    data: bytes


def fetch(
    source: Source,
    url: str,
    *,
    start: int | None = None,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    answer: float | None = None,
) -> Fetched:
    """Open *url* and read it to its end.

    Args:
        source: Whom to ask.
        url: What to ask for.
        start: First byte; None: no range.
        length: Bytes; None: to the end.
        headers: To send.
        timeout: Seconds for each wait.
        answer: Seconds until the headers are here; None: *timeout*.
    """
    request = SourceRequest(url, headers or {}, start, length)
    body = source.open(request, timeout=timeout, answer=answer)
    return Fetched(body, read_all(body))


def read_all(body: SourceBody, *, step: int = 1 << 20) -> bytes:
    """What is left of *body*, *step* bytes at a time; closes it."""
    data = bytearray()
    buffer = memoryview(bytearray(step))
    try:
        while n := body.readinto(buffer):
            data += buffer[:n]
    finally:
        body.close()
    return bytes(data)


def open_descriptors() -> set[tuple[int, str]]:
    """Those of this process: the number of each, and what it is of.

    A number that was closed may be given again, so the other part tells which socket it is, or
    which file. Of two answers only what the second has alone says something: what the first has
    alone may have been left by earlier tests, and closed since.
    """
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one by which they are listed
            found.add((int(link.name), str(link.readlink())))
    return found
