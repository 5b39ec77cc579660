"""cli/_progress.py: what it draws, and when."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios

from pantala.cli._progress import Progress


class _Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _progress(*, shown: bool = True) -> tuple[Progress, io.StringIO, _Clock]:
    stream, clock = io.StringIO(), _Clock()
    return Progress(stream, shown=shown, clock=clock), stream, clock


def _taken(stream: io.StringIO) -> str:
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    return text


def test_short_downloads_draw_nothing() -> None:
    """Only the summary tells of them."""
    progress, stream, clock = _progress()
    progress.started(3 << 20)
    clock.now += 0.5
    progress.moved({"peers": 2 << 20, "origin": 1 << 20, "cache": 0})
    assert stream.getvalue() == ""
    progress.done()
    assert stream.getvalue() == (
        "done: 3.0 MiB in 0.5 s (6.0 MiB/s), 67 % from peers, 33 % from the origin\n"
    )


def test_a_line_over_itself() -> None:
    """How far, how fast, from where; at most ten times a second."""
    progress, stream, clock = _progress()
    progress.started(4 << 20)
    clock.now += 2
    progress.moved({"peers": 1 << 20, "origin": 0, "cache": 1 << 20})
    assert _taken(stream) == (
        "\r[=====     ]  50 %  2.0 MiB of 4.0 MiB  1.0 MiB/s  peers 50 %, cache 50 %\x1b[K"
    )
    clock.now += 0.05
    progress.tick()
    assert stream.getvalue() == ""
    clock.now += 0.06
    progress.tick()
    assert stream.getvalue() != ""
    _taken(stream)
    progress.done()
    assert stream.getvalue().startswith("\r\x1b[Kdone: 4.0 MiB in 2.1 s")


def test_unknown_lengths_have_no_percent() -> None:
    """Bytes and seconds are all there is to tell."""
    progress, stream, clock = _progress()
    clock.now += 1
    progress.tick()
    assert _taken(stream) == "\rwaiting, 1 s\x1b[K"
    clock.now += 1
    progress.growing(5 << 20)
    assert _taken(stream) == "\r5.0 MiB so far, 2 s\x1b[K"


def test_waiting_for_room() -> None:
    """It says so, and stops saying so when there is some."""
    progress, stream, clock = _progress()
    clock.now += 1
    progress.waiting(30 << 20)
    assert _taken(stream) == "\rwaiting for room for 30.0 MiB at the daemon, 1 s\x1b[K"
    clock.now += 1
    progress.growing(5 << 20)
    assert _taken(stream) == "\r5.0 MiB so far, 2 s\x1b[K"


def test_words_take_the_lines_place() -> None:
    """And cannot steer the terminal."""
    progress, stream, clock = _progress()
    clock.now += 1
    progress.tick()
    _taken(stream)
    progress.say("warning: a\x1b[2Jb\nc")
    assert stream.getvalue() == "\r\x1b[Kdfget: warning: a [2Jb c\n"


def test_silence() -> None:
    """Not shown means: nothing but words."""
    progress, stream, clock = _progress(shown=False)
    assert progress.pause is None
    clock.now += 10
    progress.started(0)
    progress.growing(1)
    progress.clear()
    progress.done()
    assert stream.getvalue() == ""
    progress.say("hello")
    assert stream.getvalue() == "dfget: hello\n"


def test_empty_files() -> None:
    """Nothing of nothing is all of it."""
    progress, stream, clock = _progress()
    progress.started(0)
    clock.now += 1
    progress.tick()
    assert "100 %" in _taken(stream)
    progress.done()
    assert stream.getvalue().endswith("done: 0 B in 1.0 s (0 B/s)\n")


def test_the_terminals_width_counts() -> None:
    """A narrow one gets a shorter line, or it would wrap."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    clock = _Clock()
    with os.fdopen(theirs, "w") as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
        progress = Progress(terminal, shown=True, clock=clock)
        progress.started(1 << 20)
        clock.now += 1
        progress.tick()
        assert os.read(ours, 1000).decode() == "\r[          ]   0 %  0 B of 1.\x1b[K"
    os.close(ours)
