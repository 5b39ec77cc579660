"""Under which address others reach this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Final

import psutil

#: Never dialled: connecting a UDP socket sends nothing, but chooses the local address that
#: would be used. These belong to documentation (RFC 5737, RFC 3849), so no route is special.
_ELSEWHERE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_FALLBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def local_ip(*, ipv6: bool = False) -> str:
    """The address under which other machines most likely reach this one.

    Where there is no route, the first address that is not loopback; else loopback.
    """
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return next(_addresses(family), _FALLBACK[family])


def _addresses(family: socket.AddressFamily) -> Iterator[str]:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == family:
                ip = ipaddress.ip_address(address.address.partition("%")[0])
                if not ip.is_loopback and not ip.is_link_local:
                    yield str(ip)
