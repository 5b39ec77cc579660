"""The two HTTP servers, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request
from collections.abc import AsyncIterator

import pytest

from pantala.daemon.metrics import CONTENT_TYPE, Metrics
from pantala.errors import ConfigError
from pantala.net.endpoints import (
    MAX_CONNECTIONS,
    Endpoint,
    Page,
    health_endpoint,
    metrics_endpoint,
)


async def ask(port: int, request: bytes) -> bytes:
    """All that the server answers until it closes; nothing if it resets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def status(port: int, line: str) -> int:
    """The status of the answer to a request line."""
    answer = await ask(port, f"{line}\r\nHost: h\r\n\r\n".encode())
    return int(answer.split(b" ")[1])


@pytest.fixture
async def hello() -> AsyncIterator[int]:
    """Port of a server with one page."""
    endpoint = Endpoint("x.server", "/hello", lambda: Page(b"hi"))
    yield await endpoint.start("127.0.0.1", 0)
    await endpoint.close()


async def test_metrics() -> None:
    """A plain HTTP client reads them."""
    metrics = Metrics()
    metrics.cache_hit()
    endpoint = metrics_endpoint(metrics.render, CONTENT_TYPE)
    port = await endpoint.start("127.0.0.1", 0)

    def fetch() -> tuple[str, bytes]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read()

    content_type, body = await asyncio.to_thread(fetch)
    await endpoint.close()
    assert content_type == CONTENT_TYPE
    assert b"dragonfly_client_cache_hits_total 1.0" in body


async def test_health() -> None:
    """503 that says what is wrong, then 200 with nothing in it."""
    troubles = ["announce this host: failed", "the daemon is stopping"]
    endpoint = health_endpoint(lambda: troubles)
    port = await endpoint.start("127.0.0.1", 0)
    answer = await ask(port, b"GET /healthy HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert answer.endswith(b"\r\n\r\nannounce this host: failed\nthe daemon is stopping\n")
    troubles.clear()
    answer = await ask(port, b"GET /healthy HTTP/1.1\r\n\r\n")
    await endpoint.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /hello HTTP/1.1", 200),
        ("GET /hello HTTP/1.0", 200),
        ("GET /hello?x=1 HTTP/1.1", 200),
        ("GET / HTTP/1.1", 404),
        ("POST / HTTP/1.1", 404),
        ("DELETE /hello HTTP/1.1", 405),
        ("GET /hello HTTP/2", 400),
        ("GET /hello", 400),
        ("nonsense", 400),
        ("", 400),
    ],
)
async def test_status(hello: int, line: str, expected: int) -> None:
    """One page, two methods, one protocol."""
    assert await status(hello, line) == expected


async def test_head(hello: int) -> None:
    """What a GET brings, less the body."""
    whole = await ask(hello, b"GET /hello HTTP/1.1\r\n\r\n")
    assert await ask(hello, b"HEAD /hello HTTP/1.1\r\n\r\n") + b"hi" == whole
    assert await status(hello, "HEAD / HTTP/1.1") == 404


async def test_head_in_small_parts(hello: int) -> None:
    """How the request is cut does not matter."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hello)
    for byte in b"GET /hello HTTP/1.1\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.read()).endswith(b"\r\n\r\nhi")
    writer.close()


async def test_head_too_long(hello: int) -> None:
    """An endless head is not collected; the server lives on."""
    assert await ask(hello, b"GET /hello HTTP/1.1\r\nX: " + b"x" * 40000) == b""
    assert await status(hello, "GET /hello HTTP/1.1") == 200


async def test_silent_clients_have_an_end(hello: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing is sent away."""
    monkeypatch.setattr("pantala.net.endpoints._TIMEOUT", 0.05)
    assert await ask(hello, b"GET /hel") == b""


async def test_idle_connections_are_in_nobodys_way(hello: int) -> None:
    """However many there are: whoever has something to ask takes the place of the oldest."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            for _ in range(MAX_CONNECTIONS // 2):
                flood = stack.enter_context(socket.socket())
                flood.settimeout(0)
                await asyncio.get_running_loop().sock_connect(flood, ("127.0.0.1", hello))
            assert await status(hello, "GET /hello HTTP/1.1") == 200


async def test_what_is_answered_keeps_its_place() -> None:
    """A limit there is, all the same."""
    endpoint = Endpoint("x.server", "/hello", lambda: Page(b"x" * (64 << 20)), connections=1)
    port = await endpoint.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /hello HTTP/1.1\r\n\r\n")
    assert await reader.read(1)
    assert await ask(port, b"GET /hello HTTP/1.1\r\n\r\n") == b""
    assert len(await reader.read()) > 64 << 20
    writer.close()
    await endpoint.close()


async def test_close_ends_open_connections() -> None:
    """Closing waits for nobody."""
    endpoint = Endpoint("x.server", "/", Page)
    port = await endpoint.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET")
    async with asyncio.timeout(5):
        await endpoint.close()
        with contextlib.suppress(ConnectionError):  # a reset is an end as well
            assert await reader.read() == b""
    writer.close()
    await endpoint.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    ("ip", "shown", "why", "advice"),
    [
        (
            *("127.0.0.1", "127.0.0.1", "Address already in use"),
            "set metrics.server.port to another port, or to 0 for any free one",
        ),
        (
            *("2001:db8::1", "[2001:db8::1]", "Cannot assign requested address"),
            "set metrics.server.ip to an address of this machine",
        ),
    ],
)
async def test_port_taken(ip: str, shown: str, why: str, advice: str) -> None:
    """The message names the address, the reason and the key, once each."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            await metrics_endpoint(Metrics().render, CONTENT_TYPE).start(ip, port)
    assert str(caught.value) == f"cannot listen on {shown}:{port}: {why}; {advice}"
