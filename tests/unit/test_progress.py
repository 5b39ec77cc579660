"""cli/_progress.py: what it draws, and when."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from pantala.cli._board import Board
from pantala.cli._progress import Progress, bar, eta_text, fitting, has_colour


class _Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _Stream(io.StringIO):
    """As wide as a terminal is that is wide, see below."""

    def fileno(self) -> int:
        """That of no terminal."""
        return -1


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {-1: (100, 24)}
    real = os.get_terminal_size
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: sizes.get(fd) or real(fd))


def _progress(*, shown: bool = True) -> tuple[Progress, io.StringIO, _Clock]:
    stream, clock = _Stream(), _Clock()
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
        "\r[=====     ]  50 %  2.0 MiB of 4.0 MiB  1.0 MiB/s  ETA 0:02  "
        "peers 50 %, cache 50 %\x1b[K"
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
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 34, 0, 0))
        progress = Progress(terminal, shown=True, clock=clock)
        progress.started(1 << 20)
        clock.now += 1
        progress.tick()
        assert os.read(ours, 1000).decode() == "\r[          ]   0 %  0 B/s\x1b[K"
    os.close(ours)


def test_bytes_of_pieces_that_are_not_whole() -> None:
    """Count as soon as they are here, and not twice when their piece is whole."""
    progress, stream, clock = _progress()
    progress.started(8 << 20)
    clock.now += 1
    progress.coming(1 << 20)
    assert "  12 %  1.0 MiB of 8.0 MiB  1.0 MiB/s  ETA 0:07\x1b" in _taken(stream)
    clock.now += 1
    progress.moved({"peers": 1 << 20, "origin": 0, "cache": 0})
    assert "1.0 MiB of 8.0 MiB  512.0 KiB/s  ETA 0:14  peers 100 %" in _taken(stream)
    clock.now += 1
    progress.coming(2 << 20)
    assert "3.0 MiB of 8.0 MiB" in _taken(stream)
    clock.now += 1
    progress.moved({"peers": 0, "origin": 0, "cache": 0})
    assert "0 B of 8.0 MiB" in _taken(stream)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A slow start is forgotten, and a link that is down is seen."""
    progress, stream, clock = _progress()
    progress.started(1 << 30)
    for second in range(20):
        clock.now += 1
        progress.moved({"origin": max(second - 10, 0) << 20})
    assert "  1.0 MiB/s  ETA 16:55  origin" in _taken(stream)
    for _ in range(7):
        clock.now += 1
        progress.tick()
    assert stream.getvalue().splitlines()[-1].count("0 B/s  origin") == 1


def test_how_long_it_takes() -> None:
    """In minutes, in hours; and not for ever."""
    told = [eta_text(seconds) for seconds in (None, 0, 59.6, 3661, 5e5)]
    assert told == ["", "ETA 0:00", "ETA 1:00", "ETA 1:01:01", ""]


def test_what_does_not_fit_is_left_out() -> None:
    """Whole words, the last first; and not what is empty."""
    assert fitting(9, "abc", "", "de") == "  abc  de"
    assert fitting(8, "abc", "de") == "  abc"
    assert bar(0.5, colour=False, columns=5) == "[===="


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a terminal that has some, and nobody minds."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w") as terminal:
        assert has_colour(terminal)
        assert not has_colour(io.StringIO())
        for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "")):
            with monkeypatch.context() as other:
                other.setenv(name, value)
                assert not has_colour(terminal)
    assert bar(0.25, colour=True, columns=80) == "[\x1b[32m==\x1b[0m        ]  25 %"
    assert bar(0.0, colour=True, columns=80) == "[          ]   0 %"


def _result(size: int, source: str = "origin") -> dict[str, int]:
    came = {f"bytes_from_{each}": 0 for each in ("peers", "origin", "cache")}
    return {"length": size, **came, f"bytes_from_{source}": size}


def test_many_files() -> None:
    """A line for each that takes a while, and one for all; in their place, and gone in the end."""
    stream, clock = _Stream(), _Clock()
    board = Board(stream, 4, shown=True, clock=clock)
    first, second = board.begin(0, "out/model-1.bin"), board.begin(1, "out/model-2.bin")
    first.started(4 << 20)
    first.moved({"peers": 1 << 20})
    board.tick()
    assert _taken(stream) == ""
    clock.now += 1
    board.tick()
    lines = _taken(stream).split("\x1b[K\n")
    assert [line.rstrip() for line in lines[:2]] == [
        f"\r  model-1.bin{' ' * 31}[==        ]  25 %  1.0 MiB of 4.0 MiB",
        f"  model-2.bin{' ' * 31}0 B so far",
    ]
    assert lines[2] == "[          ]   0 %  0 of 4 files  1.0 MiB  1.0 MiB/s  ETA 0:15\x1b[K\x1b[J"
    second.started(4 << 20)
    second.coming(2 << 20)
    board.end(0)
    board.ended(_result(4 << 20))
    board.ended(None)
    board.begin(0, "out/model-3.bin")
    clock.now += 0.2
    board.tick()
    drawn = _taken(stream)
    assert drawn.startswith("\x1b[2A\r  model-2.bin")
    assert "model-3" not in drawn
    assert "\n[=====     ]  50 %  2 of 4 files  1 failed  6.0 MiB" in drawn
    board.say("x\x1by")
    assert _taken(stream) == "\x1b[1A\r\x1b[Jdfget: x y\n"
    board.ended(_result(4 << 20, "cache"))
    board.ended(_result(0, "cache"))
    clock.now += 0.8
    board.done()
    assert _taken(stream) == (
        "done: 3 of 4 files, 8.0 MiB in 2.0 s (4.0 MiB/s), "
        "50 % from the origin, 50 % from this machine\n"
    )


def test_a_board_that_is_not_shown() -> None:
    """Has nothing but words."""
    stream = _Stream()
    board = Board(stream, 2, shown=False)
    assert board.pause is None
    board.ended(_result(1))
    board.tick()
    board.say("")
    board.done()
    assert stream.getvalue() == ""
