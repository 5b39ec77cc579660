"""net/piece_server.py: children that behave, and children that do not; real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pantala.errors import ConfigError, InvalidRequest, NotFound, PieceNotFound, VortexCode
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece
from pantala.net.piece_client import Address, Connections, PieceFetch, TimeLimits
from pantala.net.piece_server import PieceServer, Upload
from pantala.ports import Extent, MemoryExtent, MemorySink
from pantala.storage.files import FileExtent
from pantala.wire.vortex import (
    Close,
    ErrorFrame,
    Frame,
    FrameDecoder,
    PieceContent,
    PieceRequest,
    Tag,
    content_tag,
    to_client,
)

TASK = "6298e02aa713cc55fe7cd31c9d050691e5c0ee4866e012e0a897613b2d42ca82"
SMALL = b"test content"
LARGE = random.Random(1).randbytes(20 << 20)
LIMITS = TimeLimits(request=20, stall=20, piece=20)


class Shelf:
    """Pieces 0 (small), 1 (large) and 2 (comes when told); others are not here.

    Args:
        directory: Where they lie in files; None: in memory.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.pieces = {0: SMALL, 1: LARGE, 2: SMALL}
        self._directory = directory
        self.arrived = asyncio.Event()
        #: How each upload that was begun has ended.
        self.ended: list[tuple[int, str]] = []
        #: As in an upload; called before each part is sent.
        self.pace: Callable[[int], Awaitable[None]] | None = None

    @asynccontextmanager
    async def upload(self, request: PieceRequest) -> AsyncIterator[Upload]:
        """As :class:`pantala.net.piece_server.Uploads`."""
        if request.tag is not Tag.DOWNLOAD_CACHE_PIECE:
            raise InvalidRequest(f"{request.tag.name} is not served here")
        if request.number == 999:
            raise KeyError("a bug, and a secret")
        if request.task_id != TASK:
            raise NotFound("piece x-7 not found")
        if request.number not in self.pieces:
            raise PieceNotFound(request.task_id, request.number)
        if request.number == 2:
            await self.arrived.wait()
        content = content_of(request.number, self.pieces[request.number])
        how = "lost"
        try:
            with self._extent(request.number) as extent:
                yield Upload(content, extent, self.pace)
            how = "sent"
        finally:
            self.ended.append((request.number, how))

    @contextmanager
    def _extent(self, number: int) -> Iterator[Extent]:
        data = bytearray(self.pieces[number])
        if self._directory is not None:
            with self.path(number).open("rb") as file:
                yield FileExtent(file.fileno(), 0, len(data), name=f"piece {number}")
            return
        try:
            with contextlib.closing(MemoryExtent(memoryview(data))) as extent:
                yield extent
        finally:
            data.clear()  # an error as long as a thread holds any part of it

    def path(self, number: int) -> Path:
        """Where a piece lies."""
        assert self._directory is not None
        path = self._directory / str(number)
        if not path.exists():
            path.write_bytes(self.pieces[number])
        return path


def content_of(number: int, data: bytes) -> PieceContent:
    """What is said of a piece."""
    return PieceContent(
        tag=content_tag(Tag.DOWNLOAD_CACHE_PIECE),
        number=number,
        offset=0,
        length=len(data),
        digest=piece_digest(crc32(data)),
        parent_id=None,
        traffic=1,
        cost=0,
        created_at=1755669600,
    )


class Served:
    """A server with a shelf, and children."""

    def __init__(self, shelf: Shelf, server: PieceServer, ip: str, port: int) -> None:
        self.shelf = shelf
        self.server = server
        self.ip = ip
        self.port = port
        self.children: list[Child] = []

    async def connect(self) -> Child:
        """A child of any sort, which is gone in the end."""
        self.children.append(Child(*await asyncio.open_connection(self.ip, self.port)))
        return self.children[-1]

    async def fetch(self, number: int, connections: Connections) -> bytes:
        """A child of ours."""
        data = self.shelf.pieces.get(number, SMALL)
        into = memoryview(bytearray(len(data)))
        request = PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, number)
        fetch = PieceFetch(
            connections, Address(self.ip, self.port), request, Piece(number, 0, len(data)),
            MemorySink(into), limits=LIMITS,
        )  # fmt: skip
        await asyncio.get_running_loop().run_in_executor(None, fetch.run)
        return bytes(into)


class Child:
    """A connection that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Whatever it is."""
        self.writer.write(data)

    def ask(self, number: int, *, task: str = TASK, tag: Tag = Tag.DOWNLOAD_CACHE_PIECE) -> None:
        """For a piece."""
        self.send(PieceRequest(tag, task, number).encode())

    async def answer(self, tag: Tag = Tag.DOWNLOAD_CACHE_PIECE) -> Frame:
        """The next frame."""
        decoder = FrameDecoder(to_client(tag))
        while (frame := decoder.next_frame()) is None:
            decoder.receive(await self.reader.readexactly(decoder.missing))
        return frame

    async def piece(self) -> bytes:
        """The next answer, which must be a piece."""
        frame = await self.answer()
        assert isinstance(frame, PieceContent)
        return await self.reader.readexactly(frame.length)

    async def rest(self) -> bytes:
        """Everything until the server hangs up."""
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read()
        return b""

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Hang up the hard way."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def serving(
    *, ip: str = "127.0.0.1", senders: int = 4, files: Path | None = None, **limits: float
) -> AsyncIterator[Served]:
    """A server; every thread and connection has ended afterwards."""
    shelf = Shelf(files)
    with ThreadPoolExecutor(senders, "test-send") as executor:
        options = {"stall": 20.0, "piece": 20.0} | limits
        server = PieceServer(shelf, executor, **options)  # type: ignore[arg-type]  # connections=2.0 is as good as 2
        served = Served(shelf, server, ip, await server.start(ip, 0))
        try:
            yield served
        finally:
            await server.stop(0.0)
            for child in served.children:
                await child.close()
        assert server.busy == 0
        assert not server._connections


@pytest.fixture(params=["memory", "files"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """A server of pieces in memory, and one of pieces in files."""
    async with serving(files=tmp_path if request.param == "files" else None) as served:
        yield served


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with long limits."""
    async with serving() as served:
        yield served


@pytest.fixture
def connections() -> Iterator[Connections]:
    """Those of a child of ours."""
    connections = Connections()
    yield connections
    connections.close()


# -- children that behave ------------------------------------------------------------------------


async def test_our_own_children(either: Served, connections: Connections) -> None:
    """Piece after piece on one connection."""
    served = either
    for number in (1, 0, 1):
        assert await served.fetch(number, connections) == served.shelf.pieces[number]
    assert len(connections) == len(served.server._connections) == 1
    await _until(lambda: served.shelf.ended == [(1, "sent"), (0, "sent"), (1, "sent")])


async def test_who_asks_for_much_at_once(served: Served) -> None:
    """Others have a turn after each answer, though none need be waited for."""
    child, turns = await served.connect(), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.ensure_future(turn())
    for _ in range(300):
        child.ask(0)
    assert [await child.piece() for _ in range(300)] == [SMALL] * 300
    other.cancel()
    assert turns >= 300


async def test_bytes_on_the_wire(served: Served) -> None:
    """What Dragonfly's daemons would send, but for the first byte, which means nothing."""
    child = await served.connect()
    child.send(bytes.fromhex("120600000044") + TASK.encode() + bytes.fromhex("00000000"))
    expected = bytes.fromhex(
        "0007000000410000003d000000000000000000000000000000000000000c00000010637263"
        "33323a31343735363335303337000000000100000000000000000000000068a56460"
    )
    assert await child.reader.readexactly(len(expected) + 12) == expected + b"test content"
    child.ask(7, task="0" * 64)
    expected = bytes.fromhex("00ff0000001402706965636520782d37206e6f7420666f756e64")
    assert await child.reader.readexactly(len(expected)) == expected


async def test_a_child_that_closes_its_half(either: Served) -> None:
    """As Dragonfly's daemons do after their request: it still gets its piece, and then the end."""
    child = await either.connect()
    child.ask(1)
    child.writer.write_eof()
    assert await child.piece() == LARGE
    assert await child.rest() == b""


async def test_a_child_that_says_goodbye(served: Served) -> None:
    """And is hung up on."""
    child = await served.connect()
    child.send(Close().encode())
    assert await child.rest() == b""


async def test_requests_in_advance(served: Served) -> None:
    """Are answered one after the other."""
    child = await served.connect()
    for number in (0, 1, 0):
        child.ask(number)
    assert [await child.piece() for _ in range(3)] == [SMALL, LARGE, SMALL]


async def test_how_a_request_is_cut_does_not_matter(served: Served) -> None:
    """Byte by byte."""
    child = await served.connect()
    for byte in PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, 0).encode():
        child.send(bytes([byte]))
        await child.writer.drain()
        await asyncio.sleep(0)
    assert await child.piece() == SMALL


@pytest.mark.parametrize(
    ("number", "task", "tag", "expected"),
    [
        (5, TASK, 6, ErrorFrame(VortexCode.NOT_FOUND, f"piece 5 of task {TASK} not found")),
        (0, "0" * 64, 6, ErrorFrame(VortexCode.NOT_FOUND, "piece x-7 not found")),
        (
            0,
            TASK,
            0,
            ErrorFrame(VortexCode.INVALID_ARGUMENT, "DOWNLOAD_PIECE is not served here"),
        ),
    ],
)
async def test_what_is_not_here(
    served: Served, number: int, task: str, tag: int, expected: ErrorFrame
) -> None:
    """The child is told, and may ask for something else."""
    child = await served.connect()
    child.ask(number, task=task, tag=Tag(tag))
    assert await child.answer(Tag(tag)) == expected
    child.ask(0)
    assert await child.piece() == SMALL


@pytest.mark.parametrize("paced", [False, True])
async def test_a_piece_that_is_damaged_on_disk(tmp_path: Path, *, paced: bool) -> None:
    """Not a byte of it is sent: the child is told, and may ask for something else."""
    async with serving(files=tmp_path) as served:
        served.shelf.pace = at_once if paced else None
        with served.shelf.path(1).open("r+b") as file:
            file.seek(15 << 20)
            file.write(bytes([LARGE[15 << 20] ^ 1]))
        child = await served.connect()
        child.ask(1)
        answer = await child.answer()
        assert isinstance(answer, ErrorFrame)
        assert answer.code is VortexCode.NOT_FOUND
        assert answer.text.startswith("piece 1 is damaged on this node: expected crc32:")
        child.ask(0)
        assert await child.piece() == SMALL
        await _until(lambda: served.shelf.ended == [(1, "lost"), (0, "sent")])


async def test_a_bug_tells_the_child_nothing(served: Served) -> None:
    """It is hung up on; others are served."""
    child, other = await served.connect(), await served.connect()
    child.ask(999)
    assert await child.rest() == b""
    other.ask(0)
    assert await other.piece() == SMALL


async def test_a_piece_that_is_on_its_way(served: Served) -> None:
    """Whoever waits for it costs no thread."""
    children = [await served.connect() for _ in range(20)]
    for child in children:
        child.ask(2)
    other = await served.connect()
    other.ask(0)
    assert await other.piece() == SMALL
    await _until(lambda: served.server.busy == 20)
    served.shelf.arrived.set()
    assert [await child.piece() for child in children] == [SMALL] * 20


async def test_a_thousand_idle_children(served: Served) -> None:
    """Cost no thread, and nobody else his piece."""
    before = threading.active_count()
    children = [await served.connect() for _ in range(1000)]
    children[0].ask(0)
    assert await children[0].piece() == SMALL
    assert len(served.server._connections) == 1000
    assert threading.active_count() <= before + 1


async def test_ipv6() -> None:
    """Where there is any."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with serving(ip="::1") as served:
        child = await served.connect()
        child.ask(0)
        assert await child.piece() == SMALL


# -- children that do not ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\0\6\xff\xff\xff\xff", id="a request of 4 GiB"),
        pytest.param(b"\0\6\0\0\0\x44" + b"Z" * 68, id="no task id"),
        pytest.param(content_of(0, SMALL).encode(), id="an answer"),
        pytest.param(b"\0\x80\0\0\0\0", id="an unknown tag"),
    ],
)
async def test_garbage(served: Served, junk: bytes) -> None:
    """It is hung up on without a word."""
    child, other = await served.connect(), await served.connect()
    child.send(junk)
    assert await child.rest() == b""
    other.ask(0)
    assert await other.piece() == SMALL


@settings(max_examples=30, deadline=None)
@given(junk=st.binary(max_size=200))
def test_any_garbage(junk: bytes) -> None:
    """Whatever it is, the next child is served."""

    async def play() -> None:
        async with serving() as served:
            child, other = await served.connect(), await served.connect()
            child.send(junk)
            child.writer.write_eof()
            await child.rest()
            other.ask(0)
            assert await other.piece() == SMALL

    asyncio.run(play())


async def test_half_a_request() -> None:
    """The rest must come in time, however steadily it trickles."""
    async with serving(request=0.2) as served:
        child = await served.connect()
        ended = asyncio.ensure_future(child.rest())
        for byte in PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, 0).encode():
            child.send(bytes([byte]))
            await asyncio.wait((ended,), timeout=0.05)
            if ended.done():
                break
        assert await ended == b""
        assert not served.shelf.ended


async def test_an_idle_connection_ends() -> None:
    """Before the first request, and after one."""
    async with serving(request=1.0, idle=0.2) as served:
        silent, done = await served.connect(), await served.connect()
        done.ask(0)
        assert await done.piece() == SMALL
        assert await silent.rest() == await done.rest() == b""


async def test_too_many_connections() -> None:
    """A newcomer takes the place of whoever has idled longest; of none that waits for a piece."""
    async with serving(connections=2) as served:
        first, second, third = [await served.connect() for _ in range(3)]
        assert await first.rest() == b""
        for child in (second, third):
            child.ask(2)
        await _until(lambda: served.server.busy == 2)
        assert await (await served.connect()).rest() == b""
        served.shelf.arrived.set()
        for child in (second, third):
            assert await child.piece() == SMALL
        fourth = await served.connect()
        fourth.ask(0)
        assert await fourth.piece() == SMALL


async def test_a_connection_that_never_asks_has_an_end() -> None:
    """Long before one that has asked; that may idle."""
    async with serving(request=0.3) as served:
        asked, silent = await served.connect(), await served.connect()
        asked.ask(0)
        assert await asked.piece() == SMALL
        assert await silent.rest() == b""
        asked.ask(0)
        assert await asked.piece() == SMALL


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  what is looked at has no event
            await asyncio.sleep(0.005)


async def test_no_descriptors_left(served: Served) -> None:
    """Whoever comes meanwhile waits, and is served when others have gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used: list[int] = []
    with socket.socket() as late:
        late.settimeout(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    used.append(os.dup(0))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(late, (served.ip, served.port))
            await loop.sock_sendall(late, PieceRequest(Tag(6), TASK, 0).encode())
            await asyncio.sleep(0.05)
            assert not served.server._connections
        finally:
            for fd in used:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with asyncio.timeout(20):
            assert await loop.sock_recv(late, 1) == b"\0"


@pytest.mark.parametrize("in_files", [False, True])
async def test_a_child_that_takes_nothing(tmp_path: Path, *, in_files: bool) -> None:
    """It is given up; the one thread has long gone to the next."""
    async with serving(senders=1, stall=1, files=tmp_path if in_files else None) as served:
        slow, other = await served.connect(), await served.connect()
        slow.ask(1)
        other.ask(0)
        assert await other.piece() == SMALL
        await _until(lambda: served.shelf.ended == [(0, "sent"), (1, "lost")])


async def test_slow_children_keep_no_thread() -> None:
    """Ten of them and one thread: another is served long before any of them is given up."""
    async with serving(senders=1, stall=60) as served:
        slow = [await served.connect() for _ in range(10)]
        for child in slow:
            child.ask(1)
        await _until(lambda: served.server.busy == 10)
        for _ in range(3):
            other = await served.connect()
            other.ask(0)
            assert await other.piece() == SMALL
        await _until(lambda: served.shelf.ended == [(0, "sent")] * 3)
        for child in slow:  # and what they were sent is whole
            assert await child.piece() == LARGE


async def test_a_child_that_takes_a_little_now_and_then() -> None:
    """It never stalls; a whole piece has its limit."""
    async with serving(senders=1, piece=0.3) as served:
        slow, other = await served.connect(), await served.connect()
        slow.ask(1)
        other.ask(0)
        got = asyncio.ensure_future(other.piece())
        async with asyncio.timeout(20):
            while (1, "lost") not in served.shelf.ended:
                await slow.reader.read(100_000)
                await asyncio.sleep(0.02)
        assert await got == SMALL
        assert sorted(served.shelf.ended) == [(0, "sent"), (1, "lost")]
        slow.reset()


async def at_once(_size: int) -> None:
    """There is bandwidth."""


@pytest.mark.parametrize("pace", [None, at_once])
async def test_a_child_that_crawls(pace: Callable[[int], Awaitable[None]] | None) -> None:
    """It takes something in time, but so little that others would wait for ever."""
    loop = asyncio.get_running_loop()
    async with serving(senders=1, stall=1.5, piece=3600) as served:
        served.shelf.pace = pace
        with capture_logs() as logs, socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            slow.settimeout(0)
            await loop.sock_connect(slow, (served.ip, served.port))
            await loop.sock_sendall(slow, PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, 1).encode())
            await _until(lambda: served.server.busy == 1)
            other = await served.connect()
            other.ask(0)
            got = asyncio.ensure_future(other.piece())
            while not (got.done() and logs):
                await loop.sock_recv(slow, 6000)
                await asyncio.sleep(0.1)
            assert got.result() == SMALL
        assert [log["reason"] for log in logs] == ["child is too slow"]
        assert sorted(served.shelf.ended) == [(0, "sent"), (1, "lost")]


@pytest.mark.parametrize("number", [1, 2])
async def test_a_child_that_goes_away(served: Served, number: int) -> None:
    """While it is sent to, and while it waits: the bytes are let go."""
    child = await served.connect()
    child.ask(number)
    await _until(lambda: served.server.busy == 1)
    child.reset()
    served.shelf.arrived.set()
    await _until(lambda: len(served.shelf.ended) == 1)
    await _until(lambda: served.server.busy == 0)
    if number == 1:
        await _until(lambda: served.shelf.ended == [(1, "lost")])


# -- start and stop ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ip", "shown", "why", "advice"),
    [
        (
            *("127.0.0.1", "127.0.0.1", "Address already in use"),
            "set storage.server.tcpPort to another port, or to 0 for any free one",
        ),
        (
            *("2001:db8::1", "[2001:db8::1]", "Cannot assign requested address"),
            "set storage.server.ip to an address of this machine",
        ),
    ],
)
async def test_a_port_that_is_not_to_be_had(
    served: Served, ip: str, shown: str, why: str, advice: str
) -> None:
    """The message says which, why, and what to set."""
    with ThreadPoolExecutor(1) as executor:
        server = PieceServer(Shelf(), executor, stall=1, piece=1)
        with pytest.raises(ConfigError) as caught:
            await server.start(ip, served.port)
        await server.stop(0.0)
    assert str(caught.value) == f"cannot listen on {shown}:{served.port}: {why}; {advice}"


async def test_stopping_lets_pieces_end() -> None:
    """But accepts nobody."""
    async with serving() as served:
        child, idle = await served.connect(), await served.connect()
        child.ask(2)
        await _until(lambda: served.server.busy == 1)
        stopping = asyncio.ensure_future(served.server.stop(20.0))
        await _until(lambda: served.server._sock is None or served.server._sock.fileno() == -1)
        with pytest.raises(ConnectionRefusedError):
            await served.connect()
        served.shelf.arrived.set()
        assert await child.piece() == SMALL
        await stopping
        assert await idle.rest() == b""


async def test_stopping_does_not_wait_for_ever() -> None:
    """A child that is slow is cut off; its thread has let go of the bytes."""
    async with serving(senders=1) as served:
        child = await served.connect()
        child.ask(1)
        await _until(lambda: served.server.busy == 1)
        await served.server.stop(0.01)
        await _until(lambda: served.shelf.ended == [(1, "lost")])


# -- the other event loop ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_child_that_closes_its_half,
        test_a_piece_that_is_on_its_way,
        test_a_bug_tells_the_child_nothing,
        test_requests_in_advance,
    ],
)
def test_the_same_on_uvloop(scenario: Callable[[Served], Awaitable[None]]) -> None:
    """Daemons use it where there is one."""

    async def play() -> None:
        async with serving() as served:
            await scenario(served)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


@pytest.mark.parametrize(
    "scenario",
    [
        test_half_a_request,
        test_an_idle_connection_ends,
        test_stopping_lets_pieces_end,
        test_stopping_does_not_wait_for_ever,
    ],
)
def test_its_limits_on_uvloop(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    """Likewise."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
