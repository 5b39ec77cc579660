"""Consistent hashing: which scheduler knows of a task, and which seed fetches it.

Both rings are Dragonfly's own, to the bit, so that its daemons and schedulers and ours agree.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from pantala.errors import ConfigError, Unavailable

_MASK: Final = 2**64 - 1

# The IPv4 and IPv6 variants of Rust's SocketAddr as its Hash writes them, on a little-endian
# machine: index, address, port, and for IPv6 flow information and scope.
_V4: Final = struct.Struct("<Q4sH")
_V6: Final = struct.Struct("<Q16sHII")

_ADDRESS: Final = re.compile(r"(?:\[(.+)\]|([0-9.]+)):([0-9]{1,5})")

_SEED_POINTS: Final = 20


class _Ring:
    """Members at points of a circle. A task belongs to the point at its place, or next after it.

    Args:
        points: Each with its member.
        place: Where a task id stands on the circle.
    """

    def __init__(self, points: Iterable[tuple[int, str]], place: Callable[[str], int]) -> None:
        placed = sorted(points)
        self._points = [point for point, _ in placed]
        self._members = [member for _, member in placed]
        self._place = place

    def order(self, task_id: str) -> list[str]:
        """All members, each once: the one to ask first, then whom to ask when it is gone."""
        first = bisect_left(self._points, self._place(task_id))
        return list(dict.fromkeys(self._members[first:] + self._members[:first]))

    def pick(self, task_id: str) -> str:
        """The member that *task_id* belongs to.

        Raises:
            Unavailable: The ring has no members.
        """
        if not self._members:
            raise Unavailable("the hash ring has no members")
        return self.order(task_id)[0]


class HashRing(_Ring):
    """Schedulers, one point each: SipHash-2-4 with key 0 of the address.

    A task is placed by the first five characters of its id.

    Args:
        addresses: ``"10.0.0.1:8002"`` or ``"[::1]:8002"``. The order does not matter.

    Raises:
        ConfigError: An address is not an IP address with a port.
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        super().__init__(
            ((siphash24(_socket_address(address)), address) for address in set(addresses)),
            # 0xff ends a string in Rust's Hash.
            lambda task_id: siphash24(task_id[:5].encode() + b"\xff"),
        )


class SeedRing(_Ring):
    """Seeds, 20 points each: CRC-32 of a counter in decimal, followed by the address.

    A task is placed by the CRC-32 of its whole id, and never belongs to the point right there.

    Args:
        members: ``"10.0.0.1:4000"``, or any other text. The order does not matter.
    """

    def __init__(self, members: Iterable[str]) -> None:
        super().__init__(
            (
                (zlib.crc32(f"{number}{member}".encode()), member)
                for member in set(members)
                for number in range(_SEED_POINTS)
            ),
            lambda task_id: zlib.crc32(task_id.encode()) + 1,
        )


def _socket_address(text: str) -> bytes:
    """What Rust feeds to the hash for the socket address *text*."""
    found = _ADDRESS.fullmatch(text)
    if found is not None:
        with suppress(ValueError, struct.error):
            v6, v4, port = found.groups()
            if v4:
                return _V4.pack(0, IPv4Address(v4).packed, int(port))
            ip = IPv6Address(v6)
            return _V6.pack(1, ip.packed, int(port), 0, int(ip.scope_id or 0))
    raise ConfigError(f"address {text!r}: want an IP address and port, 10.0.0.1:8002 or [::1]:8002")


def siphash24(data: bytes) -> int:
    """SipHash-2-4 of *data* with an all-zero key, 64 bits.

    After Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
    """
    state = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    tail = (len(data) & 0xFF).to_bytes(1, "little").rjust(8 - len(data) % 8, b"\0")
    for (word,) in struct.iter_unpack("<Q", data + tail):
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _round(*_round(v0, v1, v2, v3 ^ word))
        state = v0 ^ word, v1, v2, v3
    v0, v1, v2, v3 = state
    v2 ^= 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK
