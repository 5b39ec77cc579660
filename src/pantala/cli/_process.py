"""What all programs need of their process: standard streams that are there, and take any text.

``dfget`` starts with this, so it imports next to nothing.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import contextmanager
from errno import EBADF

from pantala.errors import Unavailable

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from _typeshed import ReadableBuffer  # of the type checker, in no release of Python

# What a closed one of the descriptors 0, 1, 2 is opened for. Reading finds the end. Writing to
# standard output fails, since whoever asks for output wants it; words on standard error that
# nobody wants to read are no reason to stop.
_MODES: Final = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)


class OutputLost(Unavailable):
    """Standard output did not take all that was printed."""

    def __init__(self, error: OSError) -> None:
        why = "it is closed" if error.errno == EBADF else error.strerror
        super().__init__(f"cannot write standard output: {why}")


@contextmanager
def program(name: str) -> Iterator[None]:
    """Run a program inside: it may print what it likes, wherever its streams lead.

    Output that is lost ends it with one line on standard error, and status 1; and so does Ctrl-C
    before the program has begun to do something, with status 130.

    Args:
        name: The program's, for that line.
    """
    _open_streams()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputLost as error:
        sys.stderr.write(f"{name}: {error}\n")
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: stopped by SIGINT\n")
        raise SystemExit(128 + signal.SIGINT) from None


def _open_streams() -> None:
    """Standard streams, for a process that may have been started without some of them.

    Else the next file or socket would get the number of one that is closed, and with it all
    that is printed.
    """
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # it gets the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )


class _Output(io.FileIO):
    """Standard output whose failures are told apart from all others."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is left in buffers must not fail once more, at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise OutputLost(error) from error
