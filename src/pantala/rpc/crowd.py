"""Keeps a gRPC server's port open for all when one address opens connection after connection.

gRPC accepts by itself: it knows a limit for all connections, but none for one address. So the
connections are found among the descriptors of this process, and where there are too many those
that do least are shut down, of the address that has most; gRPC takes that for a client that went.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pantala.core.places import crowded_out, owner_of

#: Seconds between two looks while each has his share, and while one takes more. What is always
#: free (a fifth) must last from one look to the next.
CALM: Final = 0.25
CROWDED: Final = 0.05

#: A look at thousands takes milliseconds of a thread; so often that long it waits afterwards, lest
#: a large cluster that does no harm cost more than a twentieth of a processor.
_REST: Final = 20

#: Of the limit: with fewer connections no owner can have more than his share of what is free.
_CROWD: Final = 0.75

_DESCRIPTORS: Final = Path("/proc/self/fd")

#: Of struct tcp_info: tcpi_last_data_recv (milliseconds), and tcpi_bytes_received; linux/tcp.h.
_SILENCE: Final = struct.Struct("=52xI72xQ")


@dataclass(frozen=True, slots=True)
class _Guest:
    """A connection, by its descriptor and both its ends: descriptors are used again."""

    descriptor: int
    here: tuple[object, ...]
    there: tuple[object, ...]


class Crowd:
    """The connections to one port.

    Args:
        port: Where gRPC listens, on TCP.
        limit: How many there may be, see :func:`~.transport.server_options`.
    """

    def __init__(self, port: int, limit: int) -> None:
        self._port = port
        self._limit = limit
        self._pause = CALM

    async def turn(self) -> None:
        """Look once, and shut down what is too much."""
        self._pause = CALM
        if self._may_be_crowded():
            before = time.monotonic()
            if await asyncio.to_thread(self.thin):
                self._pause = CROWDED
            else:
                self._pause = max(CALM, _REST * (time.monotonic() - before))

    async def rest(self) -> None:
        """Wait until it is time to look again."""
        await asyncio.sleep(self._pause)

    def thin(self) -> bool:
        """Shut down what is too much; whether there was any."""
        found = {}
        for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208  thousands, as fast as can be
            with contextlib.suppress(OSError):  # closed since, or not connected
                guest, idle = self._guest(int(name))
                if guest is not None:
                    found[guest] = (owner_of(str(guest.there[0])), idle)
        going = crowded_out(found, self._limit)
        for guest in going:
            with contextlib.suppress(OSError):
                self._shut(guest)
        return bool(going)

    def _may_be_crowded(self) -> bool:
        """Whether the machine has enough TCP sockets for a crowd here; that is cheap to ask."""
        count = 0
        for name in ("sockstat", "sockstat6"):
            with contextlib.suppress(OSError):  # no Linux, or no IPv6
                for line in Path("/proc/self/net", name).read_text(encoding="ascii").splitlines():
                    if line.startswith("TCP"):
                        count += int(line.split()[2])  # TCP: inuse 27 orphan 0 …
        return count >= _CROWD * self._limit

    def _guest(self, descriptor: int) -> tuple[_Guest | None, tuple[bool, int]]:
        """Who is connected there, and whether he has said something, and how long ago."""
        nobody = None, (False, 0)
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return nobody
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return nobody
            if sock.type != socket.SOCK_STREAM or sock.getsockname()[1] != self._port:
                return nobody
            guest = _Guest(descriptor, sock.getsockname(), sock.getpeername())
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SILENCE.size)
            silence, received = _SILENCE.unpack(info)
            return guest, (received == 0, silence)

    @staticmethod
    def _shut(guest: _Guest) -> None:
        with socket.socket(fileno=os.dup(guest.descriptor)) as sock:
            if (sock.getsockname(), sock.getpeername()) == (guest.here, guest.there):
                sock.shutdown(socket.SHUT_RDWR)
