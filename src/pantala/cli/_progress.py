"""One line on the terminal that tells how far a download is, and one that sums it up."""

from __future__ import annotations

import os
import time

from ._text import one_line

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, TextIO

    from pantala.client.meter import Meter

#: Nobody needs to see the progress of what is over at once.
FIRST: Final = 0.7
INTERVAL: Final = 0.1
_BAR: Final = 10

#: Seconds after which how long it takes is nobody's guess.
_DAYS: Final = 4 * 86400.0

_GREEN: Final = "\x1b[32m"
_PLAIN: Final = "\x1b[0m"

#: Where bytes can come from, and how people call it.
SOURCES: Final = {"peers": "peers", "origin": "the origin", "cache": "this machine"}


class Progress:
    """Draws the progress of one download, at most ten times a second.

    Args:
        stream: The terminal.
        shown: Whether to draw at all. Warnings are written in any case.
        program: Whose warnings they are.
        clock: Monotonic seconds.
        colour: Whether the terminal has colours; None: look.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        shown: bool,
        program: str = "dfget",
        clock: Callable[[], float] = time.monotonic,
        colour: bool | None = None,
    ) -> None:
        self._program = program
        self._stream = stream
        self._shown = shown
        self._clock = clock
        self._colour = shown and (has_colour(stream) if colour is None else colour)
        self._begun = clock()
        self._next = self._begun + FIRST
        self._drawn = False
        self._total: int | None = None
        self._growing = 0
        self._wanted = 0
        self._whole = self._coming = 0
        self._received: Mapping[str, int] = {}
        self._meter: Meter | None = None

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
        if sum(received.values()) < self._whole:  # it begins anew
            self._coming = 0
        self._whole = sum(received.values())
        self.tick()

    def coming(self, size: int) -> None:
        """So many more are here, of pieces that are not whole."""
        # From then on pieces may become whole, which are counted there and not here.
        self._coming = size + self._whole
        self.tick()

    def tick(self) -> None:
        """Draw, if it is time to."""
        now = self._clock()
        if not self._shown or now < self._next:
            return
        self._next = now + INTERVAL
        self._drawn = True
        line = self._line(now, extent(self._stream)[0] - 1)
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

    def _line(self, now: float, columns: int) -> str:
        from pantala.model.units import format_size  # noqa: PLC0415  it compiles patterns

        if self._total is None:
            if self._wanted:
                room = format_size(self._wanted)
                line = f"waiting for room for {room} at the daemon, {self.seconds:.0f} s"
            else:
                here = f"{format_size(self._growing)} so far" if self._growing else "waiting"
                line = f"{here}, {self.seconds:.0f} s"
            return line[:columns]
        size = min(max(self._whole, self._coming), self._total)
        rate, eta = self._speed(now, size)
        parts = [
            f"{source} {100 * n / self._whole:.0f} %" for source, n in self._received.items() if n
        ]
        share = size / self._total if self._total else 1.0
        return bar(share, colour=self._colour, columns=columns) + fitting(
            columns - BAR_COLUMNS,
            f"{format_size(size)} of {format_size(self._total)}",
            f"{format_size(round(rate))}/s",
            eta_text(eta),
            ", ".join(parts),
        )

    def _speed(self, now: float, size: int) -> tuple[float, float | None]:
        """Bytes a second, of the last seconds; and how many it will take, if that can be known."""
        if self._meter is None:
            from pantala.client.meter import Meter  # noqa: PLC0415  what is over at once has no use for it

            self._meter = Meter(self._begun)
        return self._meter.rate(now, size), self._meter.eta(now, size, self._total or 0)


#: Columns of what :func:`bar` makes.
BAR_COLUMNS: Final = _BAR + 8


def bar(share: float, *, colour: bool, columns: int) -> str:
    """A bar that is filled as far as *share* says, and that as a number."""
    full = "=" * int(_BAR * share)
    rest = " " * (_BAR - len(full))
    plain = f"[{full}{rest}] {100 * share:3.0f} %"[:columns]
    return plain.replace(full, f"{_GREEN}{full}{_PLAIN}", 1) if colour and full else plain


def fitting(columns: int, *parts: str) -> str:
    """Those of *parts* that fit, two spaces before each; the first ones rather than others."""
    text = ""
    for part in parts:
        if part and len(text) + 2 + len(part) <= columns:
            text += f"  {part}"
    return text


def eta_text(seconds: float | None) -> str:
    """``"ETA 1:05"``; nothing where nobody knows, or it takes days."""
    if seconds is None or seconds >= _DAYS:
        return ""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"ETA {hours}:{minutes:02}:{rest:02}" if hours else f"ETA {minutes}:{rest:02}"


def has_colour(stream: TextIO) -> bool:
    """The terminal has colours, and nobody minds them (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb")
    return stream.isatty() and not plain


def extent(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24
