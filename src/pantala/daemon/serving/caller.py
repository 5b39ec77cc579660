"""Who has connected to the hand-off socket, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

from pantala.storage.leases import NOBODY

_PROC: Final = Path("/proc")
_PEERCRED: Final = struct.Struct("3i")  # pid, uid, gid


class Caller(NamedTuple):
    """Whose program has connected.

    Attributes:
        user: Its user; NOBODY where the system does not say.
        may_write: Its rights let it open for writing what it was given for reading.
    """

    user: int
    may_write: bool


def caller_of(sock: socket.socket) -> Caller:
    """Who is at the other end of *sock*."""
    if not hasattr(socket, "SO_PEERCRED"):
        return Caller(NOBODY, may_write=True)
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    pid, user, _ = _PEERCRED.unpack(raw)
    return Caller(user, may_write=user in (0, os.geteuid()) and not _is_beside_us(pid))


def _is_beside_us(pid: int) -> bool:
    """Whether a process of root, or of our user, is in no container but ours.

    Then it could change our memory by other means, so that nothing is to be kept from it.
    """
    try:
        return (_PROC / f"{pid}/ns/pid").readlink() == (_PROC / "self/ns/pid").readlink()
    except OSError:  # it is gone, or we do not see it
        return False
