"""One line on the terminal that tells how far a download is, and one that sums it up."""

from __future__ import annotations

import os
import time

from ._text import one_line

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, TextIO

# Nobody needs to see the progress of what is over at once.
_FIRST: Final = 0.7
_INTERVAL: Final = 0.1
_BAR: Final = 10

#: Where bytes can come from, and how people call it.
SOURCES: Final = {"peers": "peers", "origin": "the origin", "cache": "this machine"}


class Progress:
    """Draws the progress of one download, at most ten times a second.

    Args:
        stream: The terminal.
        shown: Whether to draw at all. Warnings are written in any case.
        program: Whose warnings they are.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        shown: bool,
        program: str = "dfget",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program = program
        self._stream = stream
        self._shown = shown
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + _FIRST
        self._drawn = False
        self._total: int | None = None
        self._growing = 0
        self._wanted = 0
        self._received: Mapping[str, int] = {}

    @property
    def pause(self) -> float | None:
        """Seconds after which :meth:`tick` wants to be called when nothing else happens."""
        return 0.5 if self._shown else None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._begun

    def waiting(self, size: int) -> None:
        """The daemon has no room for *size* bytes yet."""
        self._wanted = size
        self.tick()

    def growing(self, size: int) -> None:
        """*size* bytes are here, of a file whose length nobody knows yet."""
        self._growing, self._wanted = size, 0
        self.tick()

    def started(self, total: int) -> None:
        """The part has *total* bytes."""
        self._total = total
        self.tick()

    def moved(self, received: Mapping[str, int]) -> None:
        """So many bytes have come, by the keys of :data:`SOURCES`."""
        self._received = received
        self.tick()

    def tick(self) -> None:
        """Draw, if it is time to."""
        now = self._clock()
        if not self._shown or now < self._next:
            return
        self._next = now + _INTERVAL
        self._drawn = True
        line = self._line()[: _columns(self._stream) - 1]
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away, so that something else can be written."""
        if self._drawn:
            self._drawn = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def say(self, text: str) -> None:
        """Write *text* on a line of its own."""
        self.clear()
        self._stream.write(f"{self._program}: {one_line(text)}\n")
        self._stream.flush()

    def done(self) -> None:
        """Sum up: how much, how fast, from where."""
        self.clear()
        if not self._shown:
            return
        from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

        total = self._total or 0
        seconds = self.seconds
        parts = [
            f"{100 * size / total:.0f} % from {SOURCES[source]}"
            for source, size in self._received.items()
            if size
        ]
        rate = f"{format_size(total / max(seconds, 0.001))}/s"
        line = ", ".join([f"{format_size(total)} in {seconds:.1f} s ({rate})", *parts])
        self._stream.write(f"done: {line}\n")
        self._stream.flush()

    def _line(self) -> str:
        from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

        if self._total is None:
            if self._wanted:
                room = format_size(self._wanted)
                return f"waiting for room for {room} at the daemon, {self.seconds:.0f} s"
            here = f"{format_size(self._growing)} so far" if self._growing else "waiting"
            return f"{here}, {self.seconds:.0f} s"
        size = sum(self._received.values())
        share = size / self._total if self._total else 1.0
        bar = ("=" * int(_BAR * share)).ljust(_BAR)
        rate = format_size(size / max(self.seconds, 0.001))
        parts = [f"{source} {100 * n / size:.0f} %" for source, n in self._received.items() if n]
        return (
            f"[{bar}] {100 * share:3.0f} %  {format_size(size)} of {format_size(self._total)}"
            f"  {rate}/s  {', '.join(parts)}"
        ).rstrip()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
