"""Options of gRPC servers and channels, and binding a server to an address."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import grpc.aio

from pydragonfly.errors import ConfigError

Options = Sequence[tuple[str, int | str]]

# A piece of 4 MiB or more may travel in one message.
_UNLIMITED: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def server_options() -> Options:
    """Options for every server.

    Dragonfly's own clients ping idle connections every 300 s, which gRPC's default enforcement
    may take for abuse; and without ``so_reuseport=0`` a second process takes over half of a
    busy port's connections without a word.
    """
    return (
        *_UNLIMITED,
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        # A machine that lost its power says no goodbye: ask now and then.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    )


def channel_options(target: str, *, keepalive: float = 300.0) -> Options:
    """Options for a channel to *target* (``"10.0.0.1:8002"`` or ``"unix:/run/x.sock"``).

    Args:
        target: As gRPC wants it.
        keepalive: Seconds between two pings. A stock server hangs up on whoever pings more
            often than every 300; ours allow 10.
    """
    options = (
        *_UNLIMITED,
        ("grpc.keepalive_time_ms", round(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
    )
    if target.startswith("unix:"):
        # The default authority is the escaped path, which Dragonfly's daemon takes for a
        # protocol error.
        return (*options, ("grpc.default_authority", "localhost"))
    return options


def bind(server: grpc.aio.Server, address: str, *, setting: str = "server.port") -> int:
    """Make *server* listen on *address*.

    Args:
        server: A server made with :func:`server_options`, not started yet.
        address: ``"host:port"``, ``"[v6]:port"``, or ``"unix:path"``. Port 0 chooses one.
        setting: The configuration key that decides the address, for the error message.

    Returns:
        The port in use; 1 for a unix socket.

    Raises:
        ConfigError: The address is taken, or is not one of this machine's.
    """
    _probe(address, setting)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(_refusal(address, setting, "gRPC refuses it")) from error
    if port == 0:
        raise ConfigError(_refusal(address, setting, "gRPC refuses it"))
    return port


def _probe(address: str, setting: str) -> None:
    """Bind and let go: the system says why it refuses, while gRPC only fills the log."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or int(port) == 0:
        return
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC does: connections that have just ended do not stand in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            _refusal(address, setting, getattr(error, "strerror", None) or str(error))
        ) from error


def _refusal(address: str, setting: str, why: str) -> str:
    if address.startswith("unix:"):
        return f"cannot listen on {address}: check the directory, or set {setting}"
    return (
        f"cannot listen on {address}: {why}; "
        f"set {setting} to another port, or to 0 for any free one"
    )
