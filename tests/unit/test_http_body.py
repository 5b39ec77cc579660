"""Bodies arrive whole, or fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.errors import OriginError
from pantala.ports import SourceBody, SourceRequest
from pantala.sources.http import HttpSettings, HttpSource
from pantala.sources.http_body import HttpBody
from pantala.testing.origin import Fault, Origin
from pantala.testing.sources import fetch, read_all

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True, scope="module")
def _direct() -> Iterator[None]:
    """No proxy of the machine's stands between."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Origin]:
    """One origin for all."""
    with Origin() as origin:
        yield origin


@pytest.fixture
def origin(running: Origin) -> Origin:
    """Serves DATA at /x, without faults."""
    running.put("/x", DATA)
    running.heal("/x")
    running.reset()
    return running


@pytest.fixture(scope="module")
def source() -> Iterator[HttpSource]:
    """Does not try twice."""
    with contextlib.closing(HttpSource(HttpSettings(max_retries=0))) as source:
        yield source


def opened(source: HttpSource, origin: Origin, *, timeout: float = 30) -> SourceBody:
    """An open body."""
    return source.open(SourceRequest(origin.url("/x")), timeout=timeout)


def read(body: SourceBody, size: int) -> bytes:
    """One call of readinto."""
    buffer = bytearray(size)
    return bytes(buffer[: body.readinto(memoryview(buffer))])


class TestReading:
    """readinto fills the view."""

    @pytest.mark.parametrize("fault", [Fault(), Fault(chunked=True), Fault(until_close=True)])
    @pytest.mark.parametrize("step", [1000, 10240, 20000])
    def test_views_are_filled(
        self, origin: Origin, source: HttpSource, fault: Fault, step: int
    ) -> None:
        """Fewer bytes come at the end only, however slowly the body does."""
        origin.fault("/x", fault)
        with contextlib.closing(opened(source, origin)) as body:
            parts = [read(body, step) for _ in range(-(-len(DATA) // step) + 1)]
        assert b"".join(parts) == DATA
        assert all(len(part) == step for part in parts[: len(DATA) // step])
        assert parts[-1] == b""

    def test_a_trickle(self, origin: Origin, source: HttpSource) -> None:
        """One call waits for all of it."""
        origin.fault("/x", Fault(rate=200_000))
        with contextlib.closing(opened(source, origin)) as body:
            assert read(body, 10240) == DATA

    @given(steps=st.lists(st.integers(0, 4000), max_size=12), chunked=st.booleans())
    def test_any_steps(
        self, running: Origin, source: HttpSource, steps: list[int], *, chunked: bool
    ) -> None:
        """Give the same bytes in the same order."""
        running.put("/x", DATA)
        running.heal("/x")
        running.fault("/x", Fault(chunked=chunked))
        body = opened(source, running)
        data = b"".join([read(body, step) for step in steps])
        assert data + read_all(body) == DATA

    def test_a_body_longer_than_announced(self, origin: Origin, source: HttpSource) -> None:
        """Ends where it was announced to; what follows harms nobody."""
        origin.fault("/x", Fault(length_lie=-10), times=1)
        got = fetch(source, origin.url("/x"))
        assert (got.body.total, got.data) == (10230, DATA[:-10])
        assert fetch(source, origin.url("/x")).data == DATA


class TestFailing:
    """What is not whole is an error, and remains one."""

    @pytest.mark.parametrize("fault", [Fault(cut_after=1000), Fault(length_lie=10)])
    def test_an_early_end(self, origin: Origin, source: HttpSource, fault: Fault) -> None:
        """Says how far it came, once and for all."""
        origin.fault("/x", fault)
        body = opened(source, origin)
        came, of = fault.cut_after or len(DATA), len(DATA) + fault.length_lie
        words = f"the origin closed the connection after {came} of {of} bytes"
        for _ in range(2):
            with pytest.raises(OriginError, match=words) as caught:
                read(body, 20000)
        assert caught.value.transient
        assert repr(body) == f"<HttpBody 127.0.0.1:{origin.port} failed {came} of {of} bytes>"
        body.close()

    @pytest.mark.parametrize("cut", [0, 1000])
    def test_an_early_end_of_chunks(self, origin: Origin, source: HttpSource, cut: int) -> None:
        """Does not look like the end, neither now nor later."""
        origin.fault("/x", Fault(chunked=True, cut_after=cut))
        body = opened(source, origin)
        for _ in range(2):
            with pytest.raises(OriginError, match=rf"closed .* after {cut} of \? bytes"):
                read(body, 20000)
        body.close()

    def test_a_stall(self, origin: Origin, source: HttpSource) -> None:
        """Ends after the timeout, counted from the last byte."""
        origin.fault("/x", Fault(stall_after=1000))
        with contextlib.closing(opened(source, origin, timeout=0.2)) as body:
            with pytest.raises(
                OriginError, match=r"silent for 0\.2 s after at least 0 of"
            ) as caught:
                read(body, 10240)
            assert caught.value.transient

    def test_reading_when_closed(self, origin: Origin, source: HttpSource) -> None:
        """Is not the end either."""
        body = opened(source, origin)
        body.close()
        with pytest.raises(OriginError, match="closed here after 0 of 10240 bytes"):
            read(body, 10)


class TestAborting:
    """abort() ends a wait, from any thread."""

    @pytest.mark.parametrize("fault", [Fault(), Fault(chunked=True), Fault(until_close=True)])
    def test_wakes_a_reader(self, origin: Origin, source: HttpSource, fault: Fault) -> None:
        """Long before the origin's timeout."""
        stalling = Fault(stall_after=1000, chunked=fault.chunked, until_close=fault.until_close)
        origin.fault("/x", stalling)
        body = opened(source, origin, timeout=60)
        assert read(body, 1000) == DATA[:1000]
        with ThreadPoolExecutor() as pool:
            reading = pool.submit(read, body, 1000)
            body.abort()
            error = reading.exception(timeout=20)
        assert isinstance(error, OriginError)
        assert ("aborted here" in error.message, error.transient) == (True, False)
        body.close()

    def test_before_reading(self, origin: Origin, source: HttpSource) -> None:
        """Bytes that are here already do not count."""
        body = opened(source, origin)
        body.abort()
        with pytest.raises(OriginError, match="aborted here"):
            read(body, 10)
        body.close()

    def test_after_closing(self, origin: Origin, source: HttpSource) -> None:
        """Is harmless: also to whoever has the connection now."""
        first = opened(source, origin)
        assert read(first, 20000) == DATA
        first.close()
        second = opened(source, origin)
        first.abort()
        first.close()
        assert read_all(second) == DATA
        assert {seen.connection for seen in origin.requests} == {origin.requests[0].connection}

    def test_close_does_not_wait_for_a_reader(self, origin: Origin, source: HttpSource) -> None:
        """It wakes the reader."""
        origin.fault("/x", Fault(stall_after=0))
        body = opened(source, origin, timeout=60)
        with ThreadPoolExecutor() as pool:
            reading = pool.submit(read, body, 10)
            body.close()
            assert isinstance(reading.exception(timeout=20), OriginError)


class TestConnections:
    """What becomes of the connection."""

    @pytest.mark.parametrize("size", [0, 10240])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_is_kept_after_the_end(
        self, origin: Origin, source: HttpSource, size: int, *, chunked: bool
    ) -> None:
        """Of an empty body too."""
        origin.put("/x", DATA[:size])
        origin.fault("/x", Fault(chunked=chunked))
        for _ in range(3):
            assert fetch(source, origin.url("/x")).data == DATA[:size]
        assert len({seen.connection for seen in origin.requests}) == 1

    def test_is_closed_otherwise(self, origin: Origin, source: HttpSource) -> None:
        """With the body half read."""
        body = opened(source, origin)
        read(body, 10)
        body.close()
        assert fetch(source, origin.url("/x")).data == DATA
        first, second = (seen.connection for seen in origin.requests)
        assert first != second

    def test_is_closed_after_an_abort(self, origin: Origin, source: HttpSource) -> None:
        """Even of a body that was read to its end: a TLS socket would go on in clear text."""
        body = opened(source, origin)
        assert isinstance(body, HttpBody)
        assert read(body, 20000) == DATA
        connection = body._response.connection
        assert connection is not None
        body.abort()
        body.close()
        assert connection.is_closed

    def test_small_refusals_keep_it(self, origin: Origin, source: HttpSource) -> None:
        """Their text is read and dropped."""
        origin.fault("/x", Fault(status=404), times=2)
        for _ in range(2):
            with pytest.raises(OriginError, match="404"):
                fetch(source, origin.url("/x"))
        assert fetch(source, origin.url("/x")).data == DATA
        assert len({seen.connection for seen in origin.requests}) == 1
