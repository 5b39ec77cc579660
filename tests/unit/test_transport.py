"""rpc/transport.py: options and binding."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc.aio
import pytest

from pantala.errors import ConfigError
from pantala.rpc.transport import bind, channel_options, server_options


async def test_port_zero_chooses() -> None:
    """The port that was chosen comes back, and is open once the server runs."""
    server = grpc.aio.server(options=server_options())
    port = bind(server, "127.0.0.1:0")
    await server.start()
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        pass
    await server.stop(None)


async def test_a_taken_port_is_refused() -> None:
    """A second server on one port is an error that names the address and the setting."""
    first = grpc.aio.server(options=server_options())
    port = bind(first, "127.0.0.1:0")
    await first.start()
    second = grpc.aio.server(options=server_options())
    with pytest.raises(ConfigError) as caught:
        bind(second, f"127.0.0.1:{port}", setting="upload.port")
    await second.stop(None)
    await first.stop(None)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        "set upload.port to another port, or to 0 for any free one"
    )


@pytest.mark.parametrize("port", [0, 9])
async def test_a_foreign_address_is_refused(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """An address of another machine is an error that says so, and what to set; gRPC is silent."""
    server = grpc.aio.server(options=server_options())
    for keys, named in (
        ({"setting": "upload.server.port"}, "upload.server.ip"),
        ({"ip_setting": "server.listenIP"}, "server.listenIP"),
    ):
        with pytest.raises(ConfigError) as caught:
            bind(server, f"192.0.2.1:{port}", **keys)
        assert str(caught.value) == (
            f"cannot listen on 192.0.2.1:{port}: Cannot assign requested address; "
            f"set {named} to an address of this machine"
        )
    await server.stop(None)
    assert capfd.readouterr().err == ""


async def test_a_socket_without_directory_is_refused(tmp_path: Path) -> None:
    """A unix socket that cannot be made is an error that names it."""
    server = grpc.aio.server(options=server_options())
    with pytest.raises(ConfigError, match=r"none/x\.sock.*download\.server\.socketPath"):
        bind(server, f"unix:{tmp_path}/none/x.sock", setting="download.server.socketPath")
    await server.stop(None)


def test_unix_channels_name_localhost() -> None:
    """Only towards unix sockets the authority is set."""
    authority = ("grpc.default_authority", "localhost")
    assert authority in channel_options("unix:/run/x.sock")
    assert authority not in channel_options("127.0.0.1:1")


async def test_the_environments_proxy_is_for_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel goes straight to its target."""
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = grpc.aio.server(options=server_options())
    target = f"127.0.0.1:{bind(server, '127.0.0.1:0')}"
    await server.start()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        async with grpc.aio.insecure_channel(target, options=list(channel_options(target))) as one:
            async with asyncio.timeout(20):
                await one.channel_ready()
        with pytest.raises(BlockingIOError):
            proxy.accept()
    await server.stop(None)


def test_only_where_pieces_travel_sizes_are_unlimited() -> None:
    """Pieces travel in answers to children; whatever else comes from strangers has a limit."""
    limit = ("grpc.max_receive_message_length", 16 << 20)
    assert limit in server_options()
    assert limit in channel_options("127.0.0.1:1")
    assert ("grpc.max_receive_message_length", -1) in channel_options("127.0.0.1:1", pieces=True)
