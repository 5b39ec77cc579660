"""Sockets for bulk bytes: blocking, with time limits kept by the kernel.

A timeout set through Python puts the socket into non-blocking mode, where ``MSG_WAITALL`` has no
effect and every few kilobytes cost a wake-up. ``SO_RCVTIMEO`` and ``SO_SNDTIMEO`` leave it
blocking. Their limit starts anew with each call, so callers keep a deadline of their own.
"""

from __future__ import annotations

import contextlib
import math
import resource
import socket
import struct
from typing import Final

_TIMEVAL = struct.Struct("@ll")

#: Bytes a second. A parent that brings less is worse than none, and a child that takes less keeps
#: a thread from others.
MIN_RATE: Final = 64 * 1024

#: Bytes that the kernel takes at most of what it cannot send yet.
_NOT_SENT: Final = 256 << 10

#: As Dragonfly's client sets them: a dead peer shows after 5 + 3 × 3 seconds.
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3))


def set_limit(sock: socket.socket, option: int, seconds: float) -> None:
    """Limit each blocking call on *sock*.

    Args:
        sock: In blocking mode.
        option: ``socket.SO_RCVTIMEO`` or ``socket.SO_SNDTIMEO``.
        seconds: Above 0; less than a millisecond counts as one, because 0 would mean no limit.
    """
    fraction, whole = math.modf(max(seconds, 0.001))
    sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(whole), int(fraction * 1e6)))


def tune(sock: socket.socket) -> None:
    """What both ends of a data connection want: no delay, and notice of a dead peer."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def send_late(sock: socket.socket) -> None:
    """Let the kernel take little more than it can send at once.

    It would take megabytes for a slow link. What sends would then be through with a piece long
    before the child has it, and begin the next too early.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # not everywhere
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT)


def hang_up(sock: socket.socket) -> None:
    """Wake whoever is blocked on *sock*, in whatever thread; ``close`` would not."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def raise_limit() -> None:
    """Take as many descriptors as this process may without asking anybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
