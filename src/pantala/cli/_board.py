"""Lines on the terminal that tell how far many downloads are, and one that sums them up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TextIO

from pantala.client.meter import Meter
from pantala.model.units import format_size

from ._progress import (
    BAR_COLUMNS,
    FIRST,
    INTERVAL,
    SOURCES,
    bar,
    eta_text,
    extent,
    fitting,
    has_colour,
)
from ._text import one_line, shortened, width

#: Seconds after which a file has a line of its own: those that come at once would flicker.
_LONG: Final = 0.7


class Line:
    """How far one file is; told by the thread that fetches it, and read by the one that draws.

    Args:
        name: Of the file.
        begun: When, in monotonic seconds.

    Attributes:
        say: Tells the user something.
        total: Bytes that it has; None: nobody knows yet.
        size: Bytes that are here.
    """

    #: Nothing is drawn by those who fetch.
    pause: float | None = None

    def __init__(self, name: str, begun: float) -> None:
        self.name = name
        self.begun = begun
        self.say: Callable[[str], None] = lambda _: None
        self.total: int | None = None
        self.size = 0
        self.waits = False
        self._whole = self._coming = 0

    def waiting(self, size: int) -> None:
        """There is no room yet."""
        del size
        self.waits = True

    def growing(self, size: int) -> None:
        """So much is here, of nobody knows how much."""
        self.size, self.waits = size, False

    def started(self, total: int) -> None:
        """It has so many bytes."""
        self.total, self.waits = total, False

    def moved(self, received: Mapping[str, int]) -> None:
        """So many are here."""
        whole = sum(received.values())
        if whole < self._whole:  # it begins anew
            self._coming = 0
        self._whole = whole
        self.size = max(self._whole, self._coming)

    def coming(self, size: int) -> None:
        """So many more are here, of pieces that are not whole."""
        # From then on pieces may become whole, which are counted there and not here.
        self._coming = self._whole + size
        self.size = max(self._whole, self._coming)

    def tick(self) -> None:
        """Time has passed, which is no news here."""


class Board:
    """Draws how far many downloads are.

    Args:
        stream: The terminal.
        files: How many there are.
        shown: Whether to draw at all. Words are written in any case.
        clock: Monotonic seconds.
        colour: Whether the terminal has colours; None: look.
    """

    def __init__(
        self,
        stream: TextIO,
        files: int,
        *,
        shown: bool,
        clock: Callable[[], float] = time.monotonic,
        colour: bool | None = None,
    ) -> None:
        self._colour = shown and (has_colour(stream) if colour is None else colour)
        self._stream = stream
        self._files = files
        self._shown = shown
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + FIRST
        self._meter = Meter(self._begun)
        self._height = 0
        #: What each worker does.
        self._lines: dict[int, Line] = {}
        self._ended = self._failed = self._size = self._moved = 0
        self._received = dict.fromkeys(SOURCES, 0)

    @property
    def pause(self) -> float | None:
        """Seconds after which :meth:`tick` wants to be called when nothing else happens."""
        return INTERVAL if self._shown else None

    def begin(self, worker: int, name: str) -> Line:
        """A worker begins with a file. Called in its thread."""
        self._lines[worker] = line = Line(os.path.basename(name), self._clock())  # noqa: PTH119  a name is all that is wanted of it
        return line

    def end(self, worker: int) -> None:
        """A worker is through with its file. Called in its thread."""
        self._lines.pop(worker, None)

    def ended(self, result: Mapping[str, Any] | None) -> None:
        """A file has ended with this *result*; None: it failed."""
        self._ended += 1
        if result is None:
            self._failed += 1
            return
        self._size += result["length"]
        for source in self._received:
            self._received[source] += result[f"bytes_from_{source}"]

    def tick(self) -> None:
        """Draw, if it is time to."""
        now = self._clock()
        if not self._shown or now < self._next:
            return
        self._next = now + INTERVAL
        columns, rows = extent(self._stream)
        long = [line for line in list(self._lines.values()) if now - line.begun >= _LONG]
        colour = self._colour
        shown = [_file(line, columns - 1, colour=colour) for line in long[: max(rows - 2, 0)]]
        shown.append(self._summary(now, columns - 1))
        text = "\x1b[K\n".join(shown)
        self._stream.write(f"{self._home()}{text}\x1b[K\x1b[J")
        self._stream.flush()
        self._height = len(shown)

    def clear(self) -> None:
        """Take the lines away, so that something else can be written."""
        if self._height:
            self._stream.write(f"{self._home()}\x1b[J")
            self._stream.flush()
            self._height = 0

    def say(self, text: str) -> None:
        """Write *text* on a line of its own, if there is any."""
        if text:
            self.clear()
            self._stream.write(f"dfget: {one_line(text)}\n")
            self._stream.flush()

    def done(self) -> None:
        """Sum up: how many, how much, how fast, from where."""
        self.clear()
        if not self._shown:
            return
        seconds = self._clock() - self._begun
        rate = format_size(round(self._size / max(seconds, 0.001)))
        parts = [
            f"{100 * size / self._size:.0f} % from {SOURCES[source]}"
            for source, size in self._received.items()
            if size
        ]
        here = self._ended - self._failed
        count = f"{here} files" if here == self._files else f"{here} of {self._files} files"
        line = ", ".join(
            [count, f"{format_size(self._size)} in {seconds:.1f} s ({rate}/s)", *parts]
        )
        self._stream.write(f"done: {line}\n")
        self._stream.flush()

    def _home(self) -> str:
        """Back to the first of the lines that are drawn."""
        return f"\x1b[{self._height - 1}A\r" if self._height > 1 else "\r"

    def _summary(self, now: float, columns: int) -> str:
        """How far all of them are."""
        lines = list(self._lines.values())
        size = self._size + sum(line.size for line in lines)
        self._moved = max(self._moved, size)  # between two files one is counted nowhere
        rate = self._meter.rate(now, self._moved)
        files = f"{self._ended} of {self._files} files"
        failed = f"{self._failed} failed" if self._failed else ""
        speed, eta = f"{format_size(round(rate))}/s", self._eta(rate, lines)
        head = bar(self._ended / self._files, colour=self._colour, columns=columns)
        room = columns - BAR_COLUMNS
        return head + fitting(room, files, failed, format_size(self._moved), speed, eta_text(eta))

    def _eta(self, rate: float, lines: Sequence[Line]) -> float | None:
        """Seconds until all are here, if those of which nothing is known are like the others."""
        begun = [line.total for line in lines if line.total is not None]
        known = self._ended - self._failed + len(begun)
        if rate <= 0 or not known:
            return None
        mean = (self._size + sum(begun)) / known
        left = mean * (self._files - self._ended - len(begun)) + sum(begun)
        left -= sum(line.size for line in lines if line.total is not None)
        return max(left, 0) / rate


def _file(line: Line, columns: int, *, colour: bool) -> str:
    """How far one file is, in so many columns."""
    name = shortened(line.name, max(min(columns - BAR_COLUMNS - 4, 40), 8))
    name += " " * (min(columns - BAR_COLUMNS - 4, 40) - width(name))
    size = format_size(line.size)
    if line.total is None:
        return f"  {name}  {'waiting for room' if line.waits else f'{size} so far'}"[:columns]
    share = min(line.size / line.total, 1.0) if line.total else 1.0
    rest = columns - 4 - width(name)
    text = fitting(rest - BAR_COLUMNS, f"{size} of {format_size(line.total)}")
    return f"  {name}  {bar(share, colour=colour, columns=rest)}{text}"
