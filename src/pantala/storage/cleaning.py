"""Empties memory that another task's bytes were in, while new ones are received into it.

A program that reads before all is here is given the memory only when nothing in it is another
task's. So it is overwritten with zeros first, which takes a tenth of a second for a gibibyte: less
than the system takes to make fresh pages. Nobody waits for that but such a program, and whoever
receives a piece, for its place alone: it empties that itself if nobody has.

    chunk: another's ──► zeros, by whoever comes first ──► bytes of the piece

Nobody receives into a chunk that is not empty, and what is empty is not emptied again.
"""

from __future__ import annotations

import threading
from typing import Final

from . import pages

#: Bytes that are emptied at once; somebody who receives waits for so many at most.
_CHUNK: Final = 1 << 20


class Cleaning:
    """See the module.

    Args:
        view: All of the memory; released when it is empty, or given up.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._length = len(view)
        self._lock = threading.Lock()
        self._is_empty = bytearray(-(-len(view) // _CHUNK))
        self._left = len(self._is_empty)
        self._stopped = False

    @property
    def is_over(self) -> bool:
        """There is nothing of another task in it."""
        return self._left == 0

    def clean(self, start: int, end: int) -> None:
        """Empty all from *start* to *end* that is not; more, as far as the last chunk goes."""
        for number in range(start // _CHUNK, -(-end // _CHUNK)):
            with self._lock:
                if not self._is_empty[number]:
                    with self._view[number * _CHUNK : (number + 1) * _CHUNK] as chunk:
                        pages.zero(chunk)
                    self._is_empty[number] = True
                    self._left -= 1

    def run(self) -> None:
        """Empty all of it, or as much as there is until :meth:`stop`. In a thread of its own."""
        at = 0
        while at < self._length and not self._stopped:
            self.clean(at, min(at + _CHUNK, self._length))
            at += _CHUNK
        with self._lock:
            if self.is_over or self._stopped:  # nobody receives there, or it is of no use to them
                self._view.release()

    def stop(self) -> None:
        """The memory is not needed any more."""
        self._stopped = True
