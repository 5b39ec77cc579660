"""rpc/server.py: servers that rubbish does not end, and that come back if something does."""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from pantala.errors import CannotListen, Unavailable
from pantala.rpc import server as module
from pantala.rpc.server import Supervised, _Steadfast, asking_at, new_server
from pantala.rpc.transport import bind, channel_options, server_options
from pantala.scheduler import process
from pantala.scheduler.app import Scheduler
from pantala.scheduler.config import load
from pantala.testing import inside
from pantala.testing import raw_http2 as raw

HELLO = "/a.B/Hello"


async def _hello(_request: bytes, _context: Any) -> bytes:
    return b"hello"


async def _wait(_request: bytes, _context: Any) -> bytes:
    await asyncio.sleep(1.0)
    return b"waited"


def _add(server: grpc.aio.Server) -> None:
    server.add_registered_method_handlers(
        "a.B",
        {
            "Hello": grpc.unary_unary_rpc_method_handler(_hello),
            "Wait": grpc.unary_unary_rpc_method_handler(_wait),
        },
    )
    server.add_registered_method_handlers(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(_hello)}
    )


async def _ask(target: str, method: str = HELLO, message: bytes = b"") -> Any:
    """The answer of a call over a connection of its own, or its status."""
    options = (*channel_options(target), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(target, options) as channel:
        try:
            call: Any = channel.unary_unary(method)
            return await call(message, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code()


def _send(target: str, data: bytes) -> bytes:
    with raw.Connection(target) as connection:
        connection.send(raw.HELLO + data)
        return connection.answer()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what it looks at tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix:"])
async def test_a_path_of_any_bytes_is_answered(where: str, tmp_path: Path) -> None:
    """A path that is no UTF-8 is unimplemented like any that nobody knows; calls go on."""
    server = new_server()
    _add(server)
    unix = f"unix:{tmp_path}/s"
    port = bind(server, unix if where == "unix:" else where)
    target = unix if where == "unix:" else f"127.0.0.1:{port}"
    await server.start()
    waiting = asyncio.ensure_future(_ask(target, "/a.B/Wait"))
    for path in (b"/\xff\xfe", b"/a.B/\xc3\x28", b"\xff", b"/a.B/None", b"/"):
        answer = await asyncio.to_thread(_send, target, raw.call(path))
        assert b"grpc-status\x0212" in answer or path == b"\xff"
    assert await _ask(target) == b"hello"
    assert await _ask(target, "/a.B/None") is grpc.StatusCode.UNIMPLEMENTED
    assert await waiting == b"waited"
    await server.stop(None)


async def test_rubbish_ends_nothing() -> None:
    """Bad compression, giant fields, frames out of order and resets leave the server alive."""
    server = new_server()
    _add(server)
    target = f"127.0.0.1:{bind(server, '127.0.0.1:0')}"
    await server.start()
    giant = raw.request_head(b"/a.B/Hello", (b"x-big", b"y" * 15_000))
    head = raw.frame(raw.HEADERS, raw.END_HEADERS, 1, b"\xff" * 40)
    resets = b"".join(
        raw.call(b"/a.B/Wait", n) + raw.frame(raw.RST_STREAM, 0, n, b"\0\0\0\x08")
        for n in range(1, 401, 2)
    )
    rubbish = (
        head,
        raw.frame(raw.HEADERS, raw.END_HEADERS, 1, giant),
        raw.frame(raw.DATA, raw.END_STREAM, 7, b"x" * 100),
        raw.frame(raw.HEADERS, raw.END_HEADERS, 2, raw.request_head(b"/a.B/Hello")),
        raw.frame(99, 255, 1, b"\xff" * 1000),
        resets + raw.frame(raw.GOAWAY, 0, 0, bytes(8)),
        b"\xff" * 4096,
    )
    for data in rubbish:
        with raw.Connection(target) as connection:
            connection.send(raw.HELLO + data)
        assert await _ask(target) == b"hello"
    await server.stop(None)


async def test_a_message_has_a_limit() -> None:
    """What no piece can be in is not taken into memory."""
    server = new_server()
    _add(server)
    target = f"127.0.0.1:{bind(server, '127.0.0.1:0')}"
    await server.start()
    assert await _ask(target, message=bytes(15 << 20)) == b"hello"
    assert await _ask(target, message=bytes(17 << 20)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.stop(None)


async def test_a_server_that_ends_is_built_anew(own_port: int) -> None:
    """Grpcio's own, which such a path ends, is there again on the same port."""
    target = f"127.0.0.1:{own_port}"
    made = 0

    async def begin() -> grpc.aio.Server:
        nonlocal made
        server = grpc.aio.server(options=server_options())
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "a.B", {"Hello": grpc.unary_unary_rpc_method_handler(_hello)}
                ),
            )
        )
        bind(server, target)
        await server.start()
        made += 1
        return server

    lost: list[str] = []
    supervised = Supervised("it", begin, lost.append, target=lambda: target)
    await supervised.start()
    assert await _ask(target) == b"hello"
    await asyncio.to_thread(_send, target, raw.call(b"/\xff"))
    await _until(lambda: made == 2 and supervised.trouble is None)
    assert await _ask(target) == b"hello"
    assert lost == []
    await supervised.stop(None)
    assert supervised.trouble is None


async def test_what_cannot_be_built_anew_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some attempts the owner hears why, and health knew all along."""
    monkeypatch.setattr(module, "_PAUSE", 0.001)
    made: list[grpc.aio.Server] = []

    async def begin() -> grpc.aio.Server:
        if made:
            raise CannotListen("here", "it is taken", None, ip_key="a.ip", port_key="a.port")
        made.append(new_server())
        bind(made[0], "127.0.0.1:0")
        await made[0].start()
        return made[0]

    lost: list[str] = []
    supervised = Supervised("it", begin, lost.append, target=lambda: "unused")
    await supervised.start()
    await made[0].stop(None)
    await _until(lambda: bool(lost))
    assert "cannot listen on here: it is taken" in lost[0]
    assert supervised.trouble is not None
    await supervised.stop(None)


class _Hanging(_Steadfast):
    """Takes calls until it is told to hang: then those that come wait for ever."""

    hangs = False

    def _make_request_call_future(self, method: bytes | None) -> Any:
        taken = super()._make_request_call_future(method)
        return asyncio.ensure_future(self._pass_on(taken))

    async def _pass_on(self, taken: Any) -> Any:
        call = await taken
        while _Hanging.hangs:  # noqa: ASYNC110  tests set it from anywhere
            await asyncio.sleep(0.01)
        return call


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs is found out in a second."""
    monkeypatch.setattr(module, "_CHECK", 0.02)
    monkeypatch.setattr(module, "_WAITS", (5, 0.05))
    monkeypatch.setattr(module, "_Steadfast", _Hanging)
    monkeypatch.setattr(_Hanging, "hangs", False)


@pytest.mark.usefixtures("quick_checks")
async def test_a_server_that_hangs_is_built_anew(own_port: int) -> None:
    """The loop lives, calls are taken, none is answered: health says so, and it is replaced."""
    target = f"127.0.0.1:{own_port}"
    made: list[grpc.aio.Server] = []

    async def begin() -> grpc.aio.Server:
        _Hanging.hangs = False
        server = new_server()
        _add(server)
        bind(server, target)
        await server.start()
        made.append(server)
        return server

    lost: list[str] = []
    supervised = Supervised("it", begin, lost.append, target=lambda: target)
    with capture_logs() as lines:
        await supervised.start()
        assert await _ask(target) == b"hello"
        _Hanging.hangs = True
        await _until(lambda: supervised.trouble == "it did not answer 2 times in a row")
        await _until(lambda: len(made) == 2 and supervised.trouble is None)
        assert await _ask(target) == b"hello"
    said = [(line["event"], line.get("times")) for line in lines]
    assert said[:5] == [
        *(("server does not answer", times) for times in (1, 2, 3)),
        ("server ended; building it anew", None),
        ("server is there again", None),
    ]
    assert lost == []
    await supervised.stop(None)


@pytest.mark.usefixtures("quick_checks")
async def test_one_that_answers_late_is_left_alone(own_port: int) -> None:
    """It was held up, or the loop was, or it hangs up because it is full: it is no other one."""
    target = f"127.0.0.1:{own_port}"
    made: list[grpc.aio.Server] = []

    async def begin() -> grpc.aio.Server:
        server = new_server(1)
        _add(server)
        bind(server, target)
        await server.start()
        made.append(server)
        return server

    supervised = Supervised("it", begin, lambda _why: None, target=lambda: target)
    with capture_logs() as lines:
        await supervised.start()
        _Hanging.hangs = True
        await _until(lambda: supervised.trouble == "it did not answer 1 times in a row")
        _Hanging.hangs = False
        await _until(lambda: supervised.trouble is None)
        assert {"server answers again"} <= {line["event"] for line in lines}
        lines.clear()
        for _ in range(4):
            time.sleep(0.4)  # noqa: ASYNC251  somebody else holds the loop up
            await asyncio.sleep(0)
        with socket.create_connection(("127.0.0.1", own_port)):
            await asyncio.sleep(1.0)
        assert not lines
    assert len(made) == 1
    await supervised.stop(None)


def test_where_a_server_is_asked() -> None:
    """Where it listens on any address, this machine asks itself."""
    assert asking_at("0.0.0.0", 1) == asking_at("127.0.0.1", 1) == "127.0.0.1:1"
    assert asking_at("::", 1) == "[::1]:1"
    assert asking_at("fe80::1", 2) == "[fe80::1]:2"


def _is_another(supervised: Supervised, first: grpc.aio.Server) -> bool:
    return supervised._server not in (None, first)


async def test_a_daemons_servers_come_back(tmp_path: Path) -> None:
    """Each at its place; what is wrong with one is in the daemon's health."""
    async with inside.daemon(tmp_path, "a") as daemon:
        targets = (f"127.0.0.1:{daemon.ports['upload']}", f"unix:{tmp_path}/a.sock")
        mode = (tmp_path / "a.sock").stat().st_mode
        for supervised, target in zip(daemon._servers, targets, strict=True):
            first = supervised._server
            assert first is not None
            await first.stop(None)
            await _until(functools.partial(_is_another, supervised, first))
            supervised.trouble = "it has ended"
            assert "it has ended" in daemon._troubles()
            supervised.trouble = None
            assert isinstance(await _ask(target, "/grpc.health.v1.Health/Check"), bytes)
        assert (tmp_path / "a.sock").stat().st_mode == mode


async def test_a_scheduler_that_cannot_serve_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, so that its supervisor starts it again."""

    class Lost(Scheduler):
        async def start(self) -> None:
            await super().start()
            self._server._on_lost("its server has ended")

    monkeypatch.setattr(process, "Scheduler", Lost)
    keys = {"server.port": 0, "server.listenIP": "127.0.0.1", "metrics.enable": False}
    with pytest.raises(Unavailable, match="its server has ended"):
        async with asyncio.timeout(30):
            await process._run(load(None, keys), None, None)
