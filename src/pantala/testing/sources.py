"""Reading from sources as a test would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
