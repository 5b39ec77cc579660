"""sources/http_connection.py: waits that are cut from outside, and those that end by themselves.

The servers here are sockets that say what the test has them say. Where a wait is to be cut, its
own limits are an hour.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pantala.errors import OriginError
from pantala.ports import Abort, SourceBody, SourceRequest
from pantala.sources import http_connection
from pantala.sources.http import HttpSettings, HttpSource
from pantala.testing.cluster import until
from pantala.testing.origin import Fault, Origin
from pantala.testing.sources import fetch, read_all

pytestmark = pytest.mark.usefixtures("direct")

HOUR = 3600.0
DATA = bytes(range(256)) * 40
#: Of what a test waits for.
SOON = 20.0

Speak = Callable[[socket.socket], None]


@pytest.fixture
def source() -> Iterator[HttpSource]:
    """Tries once more, as by default."""
    with contextlib.closing(HttpSource()) as source:
        yield source


class Server:
    """Speaks on each connection as it is told, after whatever it is asked first."""

    def __init__(self, speak: Speak) -> None:
        self.asked = 0
        self._speak = speak
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut down
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client hung up
            connection.recv(65536)
            self.asked += 1
            self._speak(connection)

    def close(self) -> None:
        """Take no more connections, and wait until their clients have closed them."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()


@contextlib.contextmanager
def serving(speak: Speak) -> Iterator[Server]:
    """A server for the block."""
    with contextlib.closing(Server(speak)) as server:
        yield server


def silent(connection: socket.socket) -> None:
    """Say nothing until the client has closed."""
    while connection.recv(65536):
        pass


def trickling(first: bytes, count: int = 1_000_000) -> Speak:
    """Say *first* at once, and then so many bytes one by one."""

    def speak(connection: socket.socket) -> None:
        connection.sendall(first)
        for _ in range(count):
            connection.sendall(b"x")
            time.sleep(0.02)  # the trickle: fifty bytes a second

    return speak


class Asking:
    """A request in a thread of its own, with limits of an hour."""

    def __init__(self, source: HttpSource, url: str, pool: ThreadPoolExecutor) -> None:
        self._abort = Abort()
        request = SourceRequest(url)
        self._running: Future[SourceBody] = pool.submit(
            source.open, request, timeout=HOUR, answer=HOUR, abort=self._abort
        )

    def cut(self) -> None:
        """Give it up; it says so, soon."""
        self._abort.ask()
        error = self._running.exception(timeout=SOON)
        assert isinstance(error, OriginError)
        assert ("given up here" in error.message, error.transient) == (True, False)


class TestCutting:
    """Whatever an opening waits for."""

    @pytest.fixture
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        """Of the threads that wait."""
        with ThreadPoolExecutor() as pool:
            yield pool

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_an_answer_or_a_handshake(
        self, source: HttpSource, pool: ThreadPoolExecutor, scheme: str
    ) -> None:
        """From one who listens and says nothing; it is not asked again."""
        with serving(silent) as server:
            asking = Asking(source, f"{scheme}://127.0.0.1:{server.port}/", pool)
            until(lambda: server.asked, "asked")
            asking.cut()
        assert server.asked == 1

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("proxy", ["http", "https"])
    def test_a_proxy(
        self,
        source: HttpSource,
        pool: ThreadPoolExecutor,
        monkeypatch: pytest.MonkeyPatch,
        scheme: str,
        proxy: str,
    ) -> None:
        """One that says nothing: to a request, about a tunnel, in its handshake."""
        with serving(silent) as server:
            monkeypatch.setenv(f"{scheme}_proxy", f"{proxy}://127.0.0.1:{server.port}")
            asking = Asking(source, f"{scheme}://nowhere.invalid/", pool)
            until(lambda: server.asked, "asked")
            asking.cut()

    def test_a_connection(self, source: HttpSource, pool: ThreadPoolExecutor) -> None:
        """That nobody takes: the listener's queue is full."""
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as full,
            contextlib.ExitStack() as waiting,
        ):
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.settimeout(0)
                client.connect_ex(full.getsockname())
            before = connecting()
            asking = Asking(source, f"http://127.0.0.1:{full.getsockname()[1]}/", pool)
            until(lambda: connecting() > before, "connecting")
            asking.cut()

    def test_a_kept_connection(
        self, source: HttpSource, pool: ThreadPoolExecutor, origin: Origin
    ) -> None:
        """It was another opening's first."""
        origin.put("/x", DATA)
        fetch(source, origin.url("/x"))
        origin.fault("/x", Fault(delay=HOUR))
        asking = Asking(source, origin.url("/x"), pool)
        until(lambda: origin.count() == 2, "asked")
        asking.cut()
        assert {seen.connection for seen in origin.requests} == {0}
        origin.release()

    def test_where_a_redirect_leads(
        self, source: HttpSource, pool: ThreadPoolExecutor, origin: Origin
    ) -> None:
        """The connection to that one is cut."""
        with serving(silent) as server:
            origin.put("/x", DATA)
            origin.fault("/x", Fault(redirect=f"http://127.0.0.1:{server.port}/"))
            asking = Asking(source, origin.url("/x"), pool)
            until(lambda: server.asked, "asked")
            asking.cut()

    def test_the_pause_before_another_try(self, pool: ThreadPoolExecutor, origin: Origin) -> None:
        """Nobody is asked after it."""
        origin.put("/x", DATA)
        origin.fault("/x", Fault(status=503, headers={"Retry-After": "10"}))
        with contextlib.closing(HttpSource(HttpSettings(max_retries=1000))) as source:
            asking = Asking(source, origin.url("/x"), pool)
            until(origin.count, "asked")
            asking.cut()
        assert origin.count() == 1

    def test_before_it_begins(self, source: HttpSource, origin: Origin) -> None:
        """Nobody is asked at all."""
        abort = Abort()
        abort.ask()
        with pytest.raises(OriginError, match="given up here"):
            source.open(SourceRequest(origin.url("/x")), timeout=HOUR, abort=abort)
        assert not origin.count()

    def test_when_it_is_over(self, source: HttpSource, origin: Origin) -> None:
        """The body is not the opening's any more; and no descriptor is left open."""
        origin.put("/x", DATA)
        before = descriptors()
        abort = Abort()
        body = source.open(SourceRequest(origin.url("/x")), timeout=SOON, abort=abort)
        abort.ask()
        assert read_all(body) == DATA
        assert descriptors() == before + 2  # the connection that is kept, at both its ends


class TestAnswers:
    """An answer has its own time; then each wait for the body has."""

    def test_may_take_longer_than_bytes(
        self, source: HttpSource, origin: Origin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some origins must think first; that does not make their bodies slow."""
        monkeypatch.setattr(http_connection, "LEAST_RATE", 1 << 20)
        origin.put("/x", DATA)
        origin.fault("/x", Fault(delay=1.0))
        assert fetch(source, origin.url("/x"), timeout=0.2, answer=SOON).data == DATA
        assert origin.count() == 1

    def test_the_body_may_not(self, source: HttpSource, origin: Origin) -> None:
        """However long the headers might have taken."""
        origin.put("/x", DATA)
        origin.fault("/x", Fault(stall_after=100))
        with pytest.raises(OriginError, match=r"silent for 0\.2 s") as caught:
            fetch(source, origin.url("/x"), timeout=0.2, answer=HOUR)
        assert caught.value.transient

    def test_all_tries_share_the_time(self, origin: Origin) -> None:
        """Whoever was silent for all of it is not asked again, here or by those who asked us."""
        origin.put("/x", DATA)
        origin.fault("/x", Fault(delay=HOUR))
        with (
            contextlib.closing(HttpSource(HttpSettings(max_retries=1000))) as source,
            pytest.raises(OriginError, match=r"silent for 0\.5 s") as caught,
        ):
            fetch(source, origin.url("/x"), timeout=HOUR, answer=0.5)
        assert not caught.value.transient
        assert origin.count() == 1
        origin.release()

    @pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nX: "])
    def test_headers_that_trickle(self, source: HttpSource, first: bytes) -> None:
        """Are as late as those that do not come."""
        with serving(trickling(first)) as server, pytest.raises(OriginError):
            fetch(source, f"http://127.0.0.1:{server.port}/", timeout=HOUR, answer=0.5)


class TestTrickling:
    """A body that all but stands still is given up."""

    HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"

    def test_ends(self, source: HttpSource) -> None:
        """Though no single wait is too long."""
        with (
            serving(trickling(self.HEADERS)) as server,
            pytest.raises(OriginError, match=r"too slow: \d+ bytes in 0\.5 s") as caught,
        ):
            fetch(source, f"http://127.0.0.1:{server.port}/", timeout=0.5)
        assert caught.value.transient

    def test_a_slow_one_is_not_a_trickle(
        self, source: HttpSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Above the least rate it may take many times the stall limit."""
        monkeypatch.setattr(http_connection, "LEAST_RATE", 10)
        headers = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
        with serving(trickling(headers, 60)) as server:
            got = fetch(source, f"http://127.0.0.1:{server.port}/", timeout=0.5)
        assert got.data == b"x" * 60

    def test_only_waiting_counts(self, source: HttpSource, origin: Origin) -> None:
        """A reader who takes his time is not the origin's fault."""
        origin.put("/x", DATA)
        body = source.open(SourceRequest(origin.url("/x")), timeout=0.3)
        into = memoryview(bytearray(4))
        for _ in range(8):
            assert body.readinto(into) == 4
            time.sleep(0.3)  # the reader, for as long as an origin may be silent
        assert read_all(body) == DATA[32:]


def connecting() -> int:
    """Connections of this process that the other side has not taken yet."""
    return sum(c.status == psutil.CONN_SYN_SENT for c in psutil.Process().net_connections())


def descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
