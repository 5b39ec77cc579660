"""net/piece_client.py against parents that behave, and parents that do not; real sockets."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import pytest

from pantala.errors import (
    Blame,
    DigestMismatch,
    NotFound,
    ParentLost,
    RemoteProtocolError,
    StoreFailed,
    VortexCode,
)
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece
from pantala.net import piece_client
from pantala.net.piece_client import Address, Connections, PieceFetch, TimeLimits
from pantala.ports import MemorySink
from pantala.testing.sinks import NarrowSink
from pantala.wire.vortex import TO_SERVER, Close, ErrorFrame, PieceContent, PieceRequest, Tag
from pantala.wire.vortex import FrameDecoder as Decoder

TASK = "6298e02aa713cc55fe7cd31c9d050691e5c0ee4866e012e0a897613b2d42ca82"
REQUEST = PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, TASK, 7)
DATA = random.Random(7).randbytes(3_000_000)
PIECE = Piece(7, 7 << 22, len(DATA))
CONTENT = PieceContent(
    Tag.CACHE_PIECE_CONTENT, PIECE.number, PIECE.offset, PIECE.length,
    piece_digest(crc32(DATA)), None, 1, 0, 1755669600,
)  # fmt: skip
ANSWER = CONTENT.encode() + DATA

PATIENT = TimeLimits(request=20, stall=20, piece=20)
#: Long enough for whoever does what he should, short enough to wait for.
HASTY = TimeLimits(request=0.3, stall=0.2, piece=20)

Script = Callable[[socket.socket], None]


class Parent:
    """A server whose every connection is played from a script, in a thread of its own."""

    def __init__(self, script: Script, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._script = script
        self._listener = socket.create_server(
            ("::1" if family is socket.AF_INET6 else "127.0.0.1", 0), family=family
        )
        self.address = Address(*self._listener.getsockname()[:2])
        self.connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for sock in self.connections:
            _hang_up(sock)
        for thread in self._threads[1:]:
            thread.join()
        for sock in [self._listener, *self.connections]:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            self._threads.append(threading.Thread(target=self._play, args=(sock,)))
            self._threads[-1].start()

    def _play(self, sock: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
            self._script(sock)  # until the child goes away, if not before
        _hang_up(sock)


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        sock.shutdown(socket.SHUT_RDWR)


def receive(sock: socket.socket) -> PieceRequest:
    """The next request. Raises EOFError when the child is done."""
    decoder = Decoder(TO_SERVER)
    while (frame := decoder.next_frame()) is None:
        data = sock.recv(decoder.missing)
        if not data:
            raise EOFError
        decoder.receive(data)
    assert isinstance(frame, PieceRequest)
    return frame


def wait_for_end(sock: socket.socket) -> None:
    """Until the child hangs up."""
    while sock.recv(1000):
        pass


def saying(*parts: bytes, pause: float = 0.0) -> Script:
    """Answer a request with *parts*, then wait for the child to go."""

    def script(sock: socket.socket) -> None:
        assert receive(sock) == REQUEST
        for part in parts:
            sock.sendall(part)
            time.sleep(pause)  # a parent that is slow
        wait_for_end(sock)

    return script


def serving(*, times: int) -> Script:
    """Answer so many requests, then hang up."""

    def script(sock: socket.socket) -> None:
        for _ in range(times):
            assert receive(sock) == REQUEST
            sock.sendall(ANSWER)

    return script


@pytest.fixture
def connections() -> Iterator[Connections]:
    """None yet."""
    connections = Connections()
    yield connections
    connections.close()
    assert len(connections) == 0


@pytest.fixture
def into() -> memoryview:
    """Where the piece goes."""
    return memoryview(bytearray(PIECE.length))


def fetch_from(
    parent: Parent,
    connections: Connections,
    into: memoryview,
    limits: TimeLimits = PATIENT,
    piece: Piece = PIECE,
) -> PieceFetch:
    """A fetch that has not begun."""
    return PieceFetch(connections, parent.address, REQUEST, piece, MemorySink(into), limits=limits)


def test_a_copy_made_since(connections: Connections, into: memoryview) -> None:
    """What the parent got after it had offered the piece may be of another version."""
    for late, fits in ((CONTENT.created_at, True), (CONTENT.created_at - 0.5, False)):
        with Parent(serving(times=1)) as parent:
            fetch = PieceFetch(
                connections,
                parent.address,
                REQUEST,
                PIECE,
                MemorySink(into),
                limits=PATIENT,
                not_after=late,
            )
            if fits:
                assert fetch.run() == CONTENT.digest
                continue
            with pytest.raises(NotFound, match="anew since it was offered"):
                fetch.run()


def test_a_sink_that_is_not_memory(connections: Connections) -> None:
    """It is filled window by window; where it fails, no parent is to blame."""
    for room in (None, 250_000):
        with Parent(serving(times=1)) as parent:
            sink = NarrowSink(PIECE.length, 100_000, room=room)
            fetch = PieceFetch(connections, parent.address, REQUEST, PIECE, sink, limits=PATIENT)
            if room is None:
                assert fetch.run() == CONTENT.digest
                assert sink.kept == DATA
                continue
            with pytest.raises(StoreFailed, match="no space left") as failure:
                fetch.run()
            assert failure.value.blame is Blame.LOCAL
            assert sink.kept == DATA[:200_000]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_piece(connections: Connections, into: memoryview, family: socket.AddressFamily) -> None:
    """Its bytes, its digest, and a connection for the next one."""
    if family is socket.AF_INET6:
        _skip_without_ipv6()
    with Parent(serving(times=10), family) as parent:
        for _ in range(3):
            into[:] = bytes(len(into))
            assert fetch_from(parent, connections, into).run() == CONTENT.digest
            assert into == DATA
        assert len(parent.connections) == len(connections) == 1


def _skip_without_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")


def test_a_parent_that_closes_after_each_piece(connections: Connections, into: memoryview) -> None:
    """As Dragonfly's daemons do: no fault of theirs, and nobody notices."""
    with Parent(serving(times=1)) as parent:
        for _ in range(3):
            assert fetch_from(parent, connections, into).run() == CONTENT.digest
        assert len(parent.connections) == 3


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_that_breaks_when_it_is_used(
    connections: Connections, into: memoryview, *, reset: bool
) -> None:
    """The parent closed it at the very moment: a fresh one is made, once."""

    def script(sock: socket.socket) -> None:
        receive(sock)
        sock.sendall(ANSWER)
        if len(parent.connections) == 1:
            receive(sock)  # the second request is read, and not answered
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
        else:
            wait_for_end(sock)

    with Parent(script) as parent:
        for _ in range(2):
            assert fetch_from(parent, connections, into).run() == CONTENT.digest
        assert len(parent.connections) == 2


def test_words_out_of_turn(connections: Connections, into: memoryview) -> None:
    """A kept connection on which something came unasked is not used again."""

    def script(sock: socket.socket) -> None:
        receive(sock)
        sock.sendall(ANSWER + Close().encode())
        wait_for_end(sock)

    with Parent(script) as parent:
        for _ in range(2):
            assert fetch_from(parent, connections, into).run() == CONTENT.digest
        assert len(parent.connections) == 2


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (VortexCode.NOT_FOUND, NotFound),
        (VortexCode.INTERNAL, ParentLost),
        (VortexCode.UNKNOWN, ParentLost),
    ],
)
def test_an_error_of_the_parent(
    connections: Connections, into: memoryview, code: VortexCode, expected: type[Exception]
) -> None:
    """It is quoted, and the connection stays good."""

    def script(sock: socket.socket) -> None:
        receive(sock)
        sock.sendall(ErrorFrame(code, "no such luck").encode())
        serving(times=1)(sock)

    with Parent(script) as parent:
        with pytest.raises(expected, match=r"^parent 127\.0\.0\.1:\d+: no such luck$"):
            fetch_from(parent, connections, into).run()
        assert fetch_from(parent, connections, into).run() == CONTENT.digest
        assert len(parent.connections) == 1


def test_a_parent_without_a_digest(connections: Connections, into: memoryview) -> None:
    """Dragonfly's may announce none; the digest is then ours alone."""
    silent = _but(digest="").encode() + DATA
    with Parent(saying(silent)) as parent:
        assert fetch_from(parent, connections, into).run() == CONTENT.digest


def _but(**changes: object) -> PieceContent:
    fields = {name: getattr(CONTENT, name) for name in CONTENT.__slots__}
    return PieceContent(**(fields | changes))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(_but(number=6), "was offered Piece.number=6", id="number"),
        pytest.param(_but(offset=0), "was offered Piece.number=7, offset=0", id="offset"),
        pytest.param(_but(length=PIECE.length + 1), "was offered", id="longer"),
        pytest.param(_but(length=PIECE.length - 1), "was offered", id="shorter"),
        pytest.param(_but(tag=Tag.PIECE_CONTENT), "tag 1, which has no place here", id="tag"),
    ],
)
def test_another_piece_than_was_asked_for(
    connections: Connections, into: memoryview, content: PieceContent, expected: str
) -> None:
    """Its bytes must not land where they do not belong."""
    with (
        Parent(saying(content.encode() + DATA)) as parent,
        pytest.raises(RemoteProtocolError, match=expected),
    ):
        fetch_from(parent, connections, into).run()
    assert not any(into)
    assert len(connections) == 0


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(b"\0\7\xff\xff\xff\xff\xff\xff\xff\xff", id="metadata without end"),
        pytest.param(b"\0\xff\0\0\0\0", id="error without a code"),
        pytest.param(REQUEST.encode(), id="request instead of answer"),
    ],
)
def test_garbage(connections: Connections, into: memoryview, junk: bytes) -> None:
    """It is the parent's fault, and known at once."""
    with Parent(saying(junk)) as parent, pytest.raises(RemoteProtocolError):
        fetch_from(parent, connections, into).run()
    assert len(connections) == 0


def test_a_parent_that_says_goodbye(connections: Connections, into: memoryview) -> None:
    """Instead of answering."""
    with (
        Parent(saying(Close().encode())) as parent,
        pytest.raises(ParentLost, match="closed the connection instead of answering"),
    ):
        fetch_from(parent, connections, into).run()


@pytest.mark.parametrize("at", [0, 1_500_000, PIECE.length - 1])
def test_one_wrong_byte(connections: Connections, into: memoryview, at: int) -> None:
    """Wherever it is."""
    wrong = bytearray(ANSWER)
    wrong[len(ANSWER) - PIECE.length + at] ^= 1
    with (
        Parent(saying(bytes(wrong))) as parent,
        pytest.raises(DigestMismatch, match=r"piece 7 from 127\.0\.0\.1") as caught,
    ):
        fetch_from(parent, connections, into).run()
    assert caught.value.want == CONTENT.digest
    assert len(connections) == 0


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0, "connection closed before an answer"),
        (3, "connection closed before an answer"),
        (len(ANSWER) - PIECE.length, "connection closed after 0 of 3000000 bytes"),
        (len(ANSWER) - 1, "connection closed after 2999999 of 3000000 bytes"),
    ],
)
def test_a_parent_that_goes_away(
    connections: Connections, into: memoryview, after: int, expected: str
) -> None:
    """Before its answer, within it, within the piece."""

    def script(sock: socket.socket) -> None:
        receive(sock)
        sock.sendall(ANSWER[:after])

    with Parent(script) as parent, pytest.raises(ParentLost, match=expected):
        fetch_from(parent, connections, into).run()
    assert len(connections) == 0


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0, "no answer in time"),
        (3, "no answer in time"),
        (len(ANSWER) - PIECE.length, "nothing for 0.2 s after 0 of 3000000 bytes"),
        (len(ANSWER) - 10, "nothing for 0.2 s after 2999990 of 3000000 bytes"),
    ],
)
def test_a_parent_that_stalls(
    connections: Connections, into: memoryview, after: int, expected: str
) -> None:
    """Whatever it had sent before; what it sends later goes nowhere."""
    with Parent(saying(ANSWER[:after])) as parent, pytest.raises(ParentLost, match=expected):
        fetch_from(parent, connections, into, HASTY).run()
    assert len(connections) == 0


@pytest.mark.parametrize(("begun", "expected"), [(3, "no answer"), (len(ANSWER) - 1000, "nothing")])
def test_a_stall_is_as_long_as_it_says(
    connections: Connections, into: memoryview, begun: int, expected: str
) -> None:
    """A part that a call had received before its time was up is no progress after that."""
    limits = TimeLimits(request=60, stall=2, piece=60)
    before = time.monotonic()
    with Parent(saying(ANSWER[:begun])) as parent, pytest.raises(ParentLost, match=expected):
        fetch_from(parent, connections, into, limits).run()
    assert time.monotonic() - before < 2 * limits.stall


@pytest.mark.parametrize("begun", [0, 3, len(ANSWER) - PIECE.length, len(ANSWER) - 1000])
def test_a_child_that_was_stopped(
    connections: Connections, into: memoryview, monkeypatch: pytest.MonkeyPatch, begun: int
) -> None:
    """It takes nobody for silent in that time; what comes after it is right."""
    clock = _Clock()
    monkeypatch.setattr(piece_client, "time", clock)

    def script(sock: socket.socket) -> None:
        assert receive(sock) == REQUEST
        sock.sendall(ANSWER[:begun])
        time.sleep(0.1)  # the child waits for more
        clock.ahead += 100
        time.sleep(1.0)  # longer than it would wait, or look
        sock.sendall(ANSWER[begun:])
        wait_for_end(sock)

    limits = TimeLimits(request=0.8, stall=3, piece=20)
    with Parent(script) as parent:
        assert fetch_from(parent, connections, into, limits).run() == CONTENT.digest
        assert into == DATA
        connections.close()


class _Clock:
    """One that can be put forward, as it seems to have been to a process that was stopped."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self.ahead


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0, "no answer in time"), (len(ANSWER) - PIECE.length, "too slow, given up after")],
)
def test_a_parent_that_trickles(
    connections: Connections, into: memoryview, start: int, expected: str
) -> None:
    """It never stalls, and never comes to an end."""
    trickle = [ANSWER[at : at + 1] for at in range(start, start + 10_000)]
    with (
        Parent(saying(ANSWER[:start], *trickle, pause=0.02)) as parent,
        pytest.raises(ParentLost, match=expected),
    ):
        fetch_from(parent, connections, into, HASTY).run()
    assert bytes(into[10_000:]) == bytes(len(into) - 10_000)


def test_a_parent_that_is_fast_enough_but_not_for_ever(
    connections: Connections, into: memoryview
) -> None:
    """Above the least rate, and beyond the limit of a piece."""
    steps = [ANSWER[at : at + 20_000] for at in range(0, len(ANSWER), 20_000)]
    limits = TimeLimits(request=20, stall=0.2, piece=0.5)
    with (
        Parent(saying(*steps, pause=0.05)) as parent,
        pytest.raises(ParentLost, match="too slow, given up after"),
    ):
        fetch_from(parent, connections, into, limits).run()


def test_nobody_there(connections: Connections, into: memoryview) -> None:
    """The address is named."""
    with Parent(serving(times=1)) as parent:
        pass
    with pytest.raises(ParentLost, match=f"{parent.address.port}: cannot connect: .*refused"):
        fetch_from(parent, connections, into).run()


@pytest.mark.parametrize("begun", [0, len(ANSWER) - 5000])
def test_giving_up(connections: Connections, into: memoryview, begun: int) -> None:
    """From another thread; afterwards nothing is written any more."""
    waiting, go_on = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        receive(sock)
        sock.sendall(ANSWER[:begun])
        waiting.set()
        go_on.wait(20)
        sock.sendall(ANSWER[begun:])

    with Parent(script) as parent, ThreadPoolExecutor(1) as executor:
        fetch = fetch_from(parent, connections, into)
        running: Future[str] = executor.submit(fetch.run)
        assert waiting.wait(20)
        fetch.abort()
        with pytest.raises(ParentLost):
            running.result(20)
        after = bytes(into)
        go_on.set()
    assert bytes(into) == after
    assert after[-5000:] == bytes(5000)
    assert len(connections) == 0


def test_giving_up_before_it_begins(connections: Connections, into: memoryview) -> None:
    """It does not begin."""
    with Parent(serving(times=1)) as parent:
        fetch = fetch_from(parent, connections, into)
        fetch.abort()
        with pytest.raises(ParentLost, match="given up"):
            fetch.run()
    assert not any(into)


class TestConnections:
    """Idle connections, as many as may be kept."""

    @pytest.fixture
    def pair(self) -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
        """Makes connections; both ends."""
        made: list[socket.socket] = []

        def make() -> tuple[socket.socket, socket.socket]:
            ends = socket.socketpair()
            made.extend(ends)
            return ends

        yield make
        for sock in made:
            sock.close()

    def test_the_newest_is_taken_first(
        self, pair: Callable[[], tuple[socket.socket, socket.socket]]
    ) -> None:
        """It is the likeliest to be open still."""
        connections, address = Connections(), Address("a", 1)
        first, second = pair(), pair()
        connections.give_back(address, first[0])
        connections.give_back(address, second[0])

        assert connections.take(Address("b", 1)) is None
        assert connections.take(address) is second[0]
        assert connections.take(address) is first[0]
        assert connections.take(address) is None

    def test_what_the_parent_closed_is_passed_over(
        self, pair: Callable[[], tuple[socket.socket, socket.socket]]
    ) -> None:
        """Closed, or with something in it that nobody asked for."""
        connections, address = Connections(), Address("a", 1)
        good, closed, talking = pair(), pair(), pair()
        for ends in (good, closed, talking):
            connections.give_back(address, ends[0])
        closed[1].close()
        talking[1].send(b"?")

        assert connections.take(address) is good[0]
        assert [closed[0].fileno(), talking[0].fileno()] == [-1, -1]
        assert len(connections) == 0

    def test_a_parent_has_so_many(
        self, pair: Callable[[], tuple[socket.socket, socket.socket]]
    ) -> None:
        """The oldest goes."""
        connections, address = Connections(per_parent=2), Address("a", 1)
        socks = [pair()[0] for _ in range(4)]
        for sock in socks:
            connections.give_back(address, sock)

        assert [sock.fileno() >= 0 for sock in socks] == [False, False, True, True]
        assert len(connections) == 2

    def test_all_have_so_many(
        self, pair: Callable[[], tuple[socket.socket, socket.socket]]
    ) -> None:
        """The one of the parent that was used longest ago goes."""
        connections = Connections(in_all=3)
        socks = {name: pair()[0] for name in "abc"}
        for name, sock in socks.items():
            connections.give_back(Address(name, 1), sock)
        found = connections.take(Address("a", 1))
        assert found is socks["a"]
        connections.give_back(Address("a", 1), found)
        connections.give_back(Address("d", 1), pair()[0])

        assert len(connections) == 3
        assert socks["b"].fileno() == -1
        assert connections.take(Address("b", 1)) is None
        assert connections.take(Address("c", 1)) is socks["c"]

    def test_closing(self, pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
        """Those that are kept, and those that come back later."""
        connections, address = Connections(), Address("a", 1)
        early, late = pair()[0], pair()[0]
        connections.give_back(address, early)
        connections.close()
        connections.give_back(address, late)

        assert (early.fileno(), late.fileno(), len(connections)) == (-1, -1, 0)
