"""Whether one can listen somewhere: the system says why not, while gRPC says that it cannot.

It needs no gRPC, which a parent of several processes must not have.
"""

from __future__ import annotations

import socket

from pantala.errors import CannotListen


def probe(address: str, setting: str, ip_setting: str) -> None:
    """Bind and let go.

    Args:
        address: ``"host:port"`` or ``"[v6]:port"``.
        setting: The configuration key that decides the port, for the error message.
        ip_setting: Likewise for the host.

    Raises:
        CannotListen: The address is taken, or is not one of this machine's.
    """
    host, _, port = address.rpartition(":")
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind, protocol) as one:
                # As gRPC does: connections that have just ended do not stand in the way.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(where)
    except OSError as error:
        why = error.strerror or str(error)
        raise CannotListen(
            address, why, error.errno, ip_key=ip_setting, port_key=setting
        ) from error
