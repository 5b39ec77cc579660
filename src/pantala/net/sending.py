"""Bytes on their way to one child: in a thread while it takes them, on the event loop else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from pantala.errors import TimedOut
from pantala.ports import Extent

from .sockets import MIN_RATE, set_limit

#: Bytes given to the kernel in one call, after which the deadline is looked at.
CHUNK: Final = 4 << 20

#: Seconds that a thread waits for a child to take more. A piece of 4 MiB goes to a fast one in
#: less; beyond, waiting on the event loop costs next to nothing.
MOMENT: Final = 0.25


class Cut(TimedOut):
    """A child did not take a piece that was already on its way to it."""


class Patience:
    """With a child that takes a piece: it must not keep the thread that sends from others.

    What counts is the time spent sending; waiting for bandwidth is no fault of the child.

    Args:
        size: Bytes that it is to take.
        stall: Seconds over which it must be faster than :data:`~.sockets.MIN_RATE`.
        piece: Seconds for the whole piece.
    """

    def __init__(self, size: int, stall: float, piece: float) -> None:
        self._missing = size
        self.stall = stall
        self._left = piece
        self._seconds = 0.0
        self._bytes = 0

    def took(self, size: int, seconds: float) -> None:
        """The child took *size* bytes in *seconds*. Raises when that is too slow."""
        self._missing -= size
        self._left -= seconds
        self._seconds += seconds
        self._bytes += size
        slow = self._left < 0
        if self._seconds >= self.stall:
            if not self._bytes and self._missing:
                raise Cut("child takes nothing")
            slow = slow or self._bytes < MIN_RATE * self._seconds
            self._seconds, self._bytes = 0.0, 0
        if slow and self._missing:
            raise Cut("child is too slow")


class Part(NamedTuple):
    """Bytes *start* up to, not including, *end* of an extent."""

    extent: Extent
    start: int
    end: int


class Sending:
    """Bytes on their way to a child, in threads while it takes them and on the event loop else.

    Args:
        sock: The child's.
        parts: The bytes, one part after the other. None of them is held between two calls.
        patience: With this child.
        check: Called in the thread before the first byte is sent; what it raises is raised by
            :meth:`go_on`, and nothing has been sent then.
    """

    def __init__(
        self,
        sock: socket.socket,
        parts: tuple[Part, ...],
        patience: Patience,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.sock = sock
        self._parts = parts
        self._patience = patience
        self._check = check
        self._part = 0
        self._at = parts[0].start

    @property
    def done(self) -> bool:
        """Everything has been handed to the kernel."""
        return self._part == len(self._parts)

    def go_on(self, wait: float) -> None:
        """Send until the child has taken no more for *wait* seconds; if above 0, in a thread.

        Raises:
            Cut: The child is gone, or too slow.
        """
        check, self._check = self._check, None
        if check is not None:
            check()
        try:
            if wait:
                self.sock.settimeout(None)
                set_limit(self.sock, socket.SO_SNDTIMEO, wait)
            while self._send_part(self._parts[self._part]):
                self._part += 1
                if self.done:
                    break
                self._at = self._parts[self._part].start
        except OSError as error:
            raise Cut(f"child gone: {error}") from error
        finally:
            if wait:
                with contextlib.suppress(OSError):
                    self.sock.settimeout(0)

    def _send_part(self, part: Part) -> bool:
        """Send until the socket takes no more; whether it took all."""
        now = time.monotonic()
        while self._at < part.end:
            before, wanted = now, min(CHUNK, part.end - self._at)
            try:
                sent = part.extent.send(self.sock, self._at, wanted)
            except BlockingIOError:
                sent = 0
            self._at, now = self._at + sent, time.monotonic()
            self._patience.took(sent, now - before)
            if sent < wanted:
                return False
        return True

    async def until_writable(self) -> None:
        """Wait until the child takes more, or may do so; that counts as time spent sending.

        The kernel calls a socket writable when a third of its buffer is free, which may be long
        after a slow child took something; so it is tried now and then.
        """
        loop = asyncio.get_running_loop()
        writable, before, number = asyncio.Event(), loop.time(), self.sock.fileno()
        loop.add_writer(number, writable.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience.stall / 4):
                    await writable.wait()
        finally:
            loop.remove_writer(number)
        self._patience.took(0, loop.time() - before)
