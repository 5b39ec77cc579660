"""Origins, whatever they are asked by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What to ask an origin for.

    Attributes:
        headers: Sent as they are, ``Range`` apart, which *start* and *length* decide.
        start: First byte wanted. None asks for the whole content, without a Range.
        length: Bytes wanted from *start*. None: to the end.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    start: int | None = None
    length: int | None = None


class Abort:
    """How one thread gives up what another waits for, whatever that is just then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._wake: Callable[[], object] | None = None

    @property
    def asked(self) -> bool:
        """The work is to end."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Have the work end soon. Any thread may call this at any time."""
        with self._lock:
            self._asked.set()
            if self._wake is not None:
                self._wake()

    def by(self, wake: Callable[[], object] | None) -> None:
        """From here on *wake*, which must not block, wakes the work; None: nothing need do so.

        It is called at once when the work is to end already. Once this has returned, the one
        before is not called any more.
        """
        with self._lock:
            self._wake = wake
            if wake is not None and self._asked.is_set():
                wake()

    def wait(self, seconds: float) -> bool:
        """Let *seconds* pass; True, and sooner, when the work is to end."""
        return self._asked.wait(seconds)


class SourceBody(Protocol):
    """An origin's open answer. Its methods block; they run in a worker thread.

    Attributes:
        total: Bytes of the whole content; None when the origin does not say.
        start: Where in the content the body starts.
        length: Bytes in the body; None when the origin does not say (it ends when it ends).
        ranged: The origin honoured the range that was asked for.
        version: Strong identity of the content (ETag, else Last-Modified); ``""`` if unknown.
        header: Response headers as of an answer to a request without a range.
    """

    total: int | None
    start: int
    length: int | None
    ranged: bool
    version: str
    header: Mapping[str, str]

    def readinto(self, view: memoryview) -> int:
        """Fill *view* from the body; fewer bytes only at the body's end.

        Raises:
            OriginError: The connection broke, stalled, or ended before *length* bytes.
        """

    def abort(self) -> None:
        """Make a blocked :meth:`readinto` fail, from any thread. Harmless when closed."""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""


class Source(Protocol):
    """An origin client for one or more URL schemes."""

    def open(
        self,
        request: SourceRequest,
        *,
        timeout: float,
        answer: float | None = None,
        abort: Abort | None = None,
    ) -> SourceBody:
        """Ask; return once the answer's headers are here. Blocks.

        Args:
            request: What to ask for.
            timeout: Seconds for connecting, and for each wait for bytes of the body.
            answer: Seconds until the headers are here, further tries included. None: *timeout*.
            abort: Ends this early, with OriginError. For the body there is its own ``abort``.

        Raises:
            OriginError: Refused, unreachable, or not the range that was asked for.
            RangeNotSatisfiable: The range starts past the end.
        """


# -- schedulers --------------------------------------------------------------------------------
