"""Lines on the terminal that tell how far many downloads are, and one that sums them up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO

from pantala.client.meter import Meter
from pantala.model.units import format_size

from ._progress import SOURCES
from ._text import one_line, shortened

#: Seconds until anything is drawn, and between two times; nobody sees more.
_FIRST: Final = 0.7
_INTERVAL: Final = 0.1

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
        self.size = sum(received.values())

    def tick(self) -> None:
        """Time has passed, which is no news here."""


class Board:
    """Draws how far many downloads are.

    Args:
        stream: The terminal.
        files: How many there are.
        shown: Whether to draw at all. Words are written in any case.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        files: int,
        *,
        shown: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._files = files
        self._shown = shown
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + _FIRST
        self._meter = Meter(self._begun)
        self._height = 0
        #: What each worker does.
        self._lines: dict[int, Line] = {}
        self._ended = self._failed = self._size = self._moved = 0
        self._received = dict.fromkeys(SOURCES, 0)

    @property
    def pause(self) -> float | None:
        """Seconds after which :meth:`tick` wants to be called when nothing else happens."""
        return _INTERVAL if self._shown else None

    def begin(self, worker: int, name: str) -> Line:
        """A worker begins with a file. Called in its thread."""
        self._lines[worker] = line = Line(os.path.basename(name), self._clock())  # noqa: PTH119  as all paths here
        return line

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
        self._next = now + _INTERVAL
        columns, rows = _extent(self._stream)
        long = [line for line in list(self._lines.values()) if now - line.begun >= _LONG]
        shown = [_file(line, columns - 1) for line in long[: max(rows - 2, 0)]]
        shown.append(self._summary(now)[: columns - 1])
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

    def _summary(self, now: float) -> str:
        lines = list(self._lines.values())
        size = self._size + sum(line.size for line in lines)
        self._moved = max(self._moved, size)  # between two files one is counted nowhere
        parts = [f"{self._ended} of {self._files} files", format_size(self._moved)]
        parts.append(f"{format_size(round(self._meter.rate(now, self._moved)))}/s")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return "  ".join(parts)


def _file(line: Line, columns: int) -> str:
    """How far one file is, in so many columns."""
    name = shortened(line.name, max(columns // 2, 8))
    if line.total is None:
        state = "waiting for room" if line.waits else f"{format_size(line.size)} so far"
        return f"  {name}  {state}"[:columns]
    share = line.size / line.total if line.total else 1.0
    size, total = format_size(line.size), format_size(line.total)
    return f"  {name}  {100 * share:3.0f} %  {size} of {total}"[:columns]


def _extent(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24
