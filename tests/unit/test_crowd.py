"""rpc/crowd.py: a gRPC server, and an address that opens connection after connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pantala.background import Loops
from pantala.rpc import transport
from pantala.rpc.crowd import Crowd
from pantala.rpc.transport import channel_options, server_options

LIMIT = 40

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Of a server that takes LIMIT connections and answers the health service."""
    monkeypatch.setattr(transport, "_HANDSHAKE_LIMIT", 600)  # nothing ends by itself
    server = grpc.aio.server(options=server_options(LIMIT))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("0.0.0.0:0")
    await server.start()
    yield port
    await server.stop(0)


@pytest.fixture
async def watched(port: int) -> AsyncIterator[int]:
    """The same, with somebody who keeps room for callers."""
    loops, crowd = Loops(), Crowd(port, LIMIT)
    loops.keep(crowd.turn, "keep room for callers", rest=crowd.rest)
    yield port
    await loops.close()


async def connect(stack: AsyncExitStack, port: int, count: int, ip: str) -> list[socket.socket]:
    """Open connections that say nothing."""
    found = []
    for _ in range(count):
        sock = stack.enter_context(socket.socket())
        sock.settimeout(0)
        sock.bind((ip, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        found.append(sock)
    return found


async def answers(stub: health_pb2_grpc.HealthStub) -> bool:
    """Whether a call is answered."""
    try:
        request = health_pb2.HealthCheckRequest()
        await stub.Check(request, timeout=10)
    except grpc.aio.AioRpcError:
        return False
    return True


def stub(stack: AsyncExitStack, port: int) -> health_pb2_grpc.HealthStub:
    """A channel of its own."""
    options = (*channel_options(""), ("grpc.use_local_subchannel_pool", 1))
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
    stack.push_async_callback(channel.close)
    return health_pb2_grpc.HealthStub(channel)


async def until_ended(sock: socket.socket) -> None:
    """Wait until the server hangs up; it may say something before."""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(sock, 4096):
                pass


async def test_one_address_is_in_nobodys_way(watched: int) -> None:
    """Nor in its own: who speaks stays, and of those who do not the oldest go."""
    async with AsyncExitStack() as stack:
        early = stub(stack, watched)
        assert await answers(early)
        for _ in range(4):
            await connect(stack, watched, LIMIT, "127.0.0.2")
            async with asyncio.timeout(60):
                while not await answers(stub(stack, watched)):  # noqa: ASYNC110  one that has just come
                    await asyncio.sleep(0.05)
            assert await answers(early)


async def test_a_connection_that_says_nothing_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that fill the server are hung up on, and then there is room."""
    assert transport._HANDSHAKE_LIMIT <= 10
    monkeypatch.setattr(transport, "_HANDSHAKE_LIMIT", 1)
    server = grpc.aio.server(options=server_options(4))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, 0)
        idle = await connect(stack, port, 4, "127.0.0.2")
        await until_ended((await connect(stack, port, 1, "127.0.0.2"))[0])  # one too many
        for sock in idle:
            await until_ended(sock)
        async with asyncio.timeout(60):
            while not await answers(stub(stack, port)):  # noqa: ASYNC110  a server has no event for it
                await asyncio.sleep(0.05)


async def test_a_connection_without_calls_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that speaks HTTP/2; its client connects again for the next call."""
    monkeypatch.setattr(transport, "_IDLE_LIMIT", 1)
    server = grpc.aio.server(options=server_options(4))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, 0)
        (sock,) = await connect(stack, port, 1, "127.0.0.1")
        settings = b"\0\0\0\4\0\0\0\0\0"
        await asyncio.get_running_loop().sock_sendall(
            sock, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings
        )
        caller = stub(stack, port)
        assert await answers(caller)
        await until_ended(sock)
        assert await answers(caller)
