"""Options of gRPC servers and channels, and binding a server to an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc.aio

from pantala.errors import CannotListen, ConfigError

from .probing import probe

Options = Sequence[tuple[str, int | str]]

#: Bytes of a message in which no piece travels. The largest is a child's list of the pieces that it
#: wants: a million numbers, 4 MiB. A scheduler parses what it receives into thrice as much memory.
MAX_MESSAGE: Final = 16 << 20

_NO_LIMIT: Final = -1  # of what we send ourselves, or of a piece, whose length its task decides

#: Calls of one method that wait until the server's loop takes them: from the first number on some
#: are refused at random, from the second on all. A waiting call takes some 10 KiB. A cluster that
#: starts registers all its nodes at one moment; by default grpcio refuses some beyond 1,000.
_WAITING: Final = (16384, 24576)


#: Seconds for a client to say that it talks HTTP/2, as every one does at once.
_HANDSHAKE_LIMIT: Final = 10

#: Seconds after which a connection without a call is closed. Daemons announce themselves every
#: five minutes; whoever has been hung up on connects again for his next call.
_IDLE_LIMIT: Final = 1800


def server_options(connections: int | None = None) -> Options:
    """Options for every server.

    Args:
        connections: How many there may be; more are hung up on. None: no limit.

    Dragonfly's own clients ping idle connections every 300 s, which gRPC's default enforcement
    may take for abuse; and without ``so_reuseport=0`` a second process takes over half of a
    busy port's connections without a word.
    """
    return (
        # Pieces travel in answers only.
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_send_message_length", _NO_LIMIT),
        ("grpc.server.max_pending_requests", _WAITING[0]),
        ("grpc.server.max_pending_requests_hard_limit", _WAITING[1]),
        ("grpc.so_reuseport", 0),
        *(() if connections is None else (("grpc.max_allowed_incoming_connections", connections),)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_LIMIT * 1000),
        ("grpc.max_connection_idle_ms", _IDLE_LIMIT * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        # A machine that lost its power says no goodbye: ask now and then.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    )


def channel_options(target: str, *, keepalive: float = 300.0, pieces: bool = False) -> Options:
    """Options for a channel to *target* (``"10.0.0.1:8002"`` or ``"unix:/run/x.sock"``).

    Args:
        target: As gRPC wants it.
        keepalive: Seconds between two pings. A stock server hangs up on whoever pings more
            often than every 300; ours allow 10.
        pieces: Pieces travel in answers, so that these may be longer than :data:`MAX_MESSAGE`.
    """
    options = (
        ("grpc.max_receive_message_length", _NO_LIMIT if pieces else MAX_MESSAGE),
        ("grpc.max_send_message_length", _NO_LIMIT),
        ("grpc.keepalive_time_ms", round(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A proxy in the environment is for origins. The machines of a cluster meet directly.
        ("grpc.enable_http_proxy", 0),
    )
    if target.startswith("unix:"):
        # The default authority is the escaped path, which Dragonfly's daemon takes for a
        # protocol error.
        return (*options, ("grpc.default_authority", "localhost"))
    return options


def bind(
    server: grpc.aio.Server,
    address: str,
    *,
    setting: str = "server.port",
    ip_setting: str | None = None,
) -> int:
    """Make *server* listen on *address*.

    Args:
        server: A server made with :func:`server_options`, not started yet.
        address: ``"host:port"``, ``"[v6]:port"``, or ``"unix:path"``. Port 0 chooses one.
        setting: The configuration key that decides the port or path, for the error message.
        ip_setting: Likewise for the host. None: ``ip`` in the section of *setting*.

    Returns:
        The port in use; 1 for a unix socket.

    Raises:
        CannotListen: The address is taken, or is not one of this machine's.
        ConfigError: The path cannot be listened on.
    """
    if ip_setting is None:
        ip_setting = f"{setting.rpartition('.')[0]}.ip"
    if not address.startswith("unix:"):
        probe(address, setting, ip_setting)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port != 0:
        return port
    if address.startswith("unix:"):
        raise ConfigError(f"cannot listen on {address}: check the directory, or set {setting}")
    why = "gRPC refuses it"
    raise CannotListen(address, why, None, ip_key=ip_setting, port_key=setting)
