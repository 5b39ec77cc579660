"""The test origin does what it says: with a plain client, and no code of ours in between."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from pantala.testing.content import CHUNK, Blob, File, Pattern
from pantala.testing.origin import Fault, Origin

DATA = bytes(range(256)) * 40


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Serves DATA at /x."""
    with Origin() as running:
        running.put("/x", DATA)
        yield running


class Client:
    """One connection."""

    def __init__(self, origin: Origin) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=10)

    def get(
        self, path: str = "/x", method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The response and its body."""
        self.connection.request(method, path, headers=headers)
        response = self.connection.getresponse()
        return response, response.read()


@pytest.fixture
def client(origin: Origin) -> Iterator[Client]:
    """Connected to the origin when it first asks."""
    client = Client(origin)
    yield client
    client.connection.close()


class TestHealthy:
    """Without faults it is an ordinary server."""

    def test_serves_the_whole(self, client: Client) -> None:
        """With length and a strong tag."""
        response, body = client.get()
        assert (response.status, body) == (200, DATA)
        assert response.headers["Content-Length"] == str(len(DATA))
        assert response.headers["ETag"].startswith('"')

    @pytest.mark.parametrize(
        ("asked", "start", "end"),
        [("0-0", 0, 1), ("5-9", 5, 10), ("10000-", 10000, 10240), ("-7", 10233, 10240)],
    )
    def test_serves_ranges(self, client: Client, asked: str, start: int, end: int) -> None:
        """From, from-to, and suffix."""
        response, body = client.get(Range=f"bytes={asked}")
        assert (response.status, body) == (206, DATA[start:end])
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/10240"

    def test_clips_a_range(self, client: Client) -> None:
        """At the content's end."""
        response, body = client.get(Range="bytes=10239-99999")
        assert (response.headers["Content-Range"], body) == ("bytes 10239-10239/10240", DATA[-1:])

    @pytest.mark.parametrize("asked", ["10240-", "99999-99999"])
    def test_refuses_a_range_past_the_end(self, client: Client, asked: str) -> None:
        """416 with the length."""
        response, _ = client.get(Range=f"bytes={asked}")
        assert (response.status, response.headers["Content-Range"]) == (416, "bytes */10240")

    def test_several_ranges_get_the_whole(self, client: Client) -> None:
        """RFC 9110 lets a server ignore a Range."""
        assert client.get(Range="bytes=0-1,3-4")[0].status == 200

    def test_empty_content(self, origin: Origin, client: Client) -> None:
        """Is served whole; it has no ranges."""
        origin.put("/x", b"")
        response, body = client.get()
        assert (response.status, body) == (200, b"")
        response, _ = client.get(Range="bytes=0-0")
        assert (response.status, response.headers["Content-Range"]) == (416, "bytes */0")

    def test_head_has_no_body(self, client: Client) -> None:
        """But the length."""
        response, body = client.get(method="HEAD")
        assert (body, response.headers["Content-Length"]) == (b"", "10240")

    def test_unknown_paths_are_404(self, client: Client) -> None:
        """Also without a directory."""
        assert client.get("/y")[0].status == 404

    def test_serves_files_below_its_directory_only(self, tmp_path: Path) -> None:
        """Whatever the path looks like."""
        (tmp_path / "secret").write_text("no")
        served = tmp_path / "served"
        served.mkdir()
        (served / "a b").write_text("yes")
        with Origin(served) as origin:
            client = Client(origin)
            assert client.get("/a%20b")[1] == b"yes"
            assert client.get("/../secret")[0].status == 404
            client.connection.close()

    def test_counts(self, origin: Origin, client: Client) -> None:
        """Requests with their headers, and bytes of bodies, until it is reset."""
        client.get(Range="bytes=0-9", Accept="text/plain")
        client.get("/y?token=1")
        assert (origin.count(), origin.count("/x"), origin.count("/y")) == (2, 1, 1)
        assert (origin.sent(), origin.sent("/x")) == (10, 10)
        assert origin.requests[0].headers["accept"] == "text/plain"
        assert (origin.requests[1].target, origin.requests[1].path) == ("/y?token=1", "/y")
        assert origin.requests[0].connection == origin.requests[1].connection
        assert repr(origin) == f"<Origin {origin.url()} on requests=2 sent=10>"
        origin.reset()
        assert (origin.count(), origin.sent()) == (0, 0)

    def test_headers_can_be_set_and_left_out(self, origin: Origin, client: Client) -> None:
        """Per content."""
        origin.put("/x", DATA, headers={"ETag": "", "X-Mine": "1"})
        response, _ = client.get()
        assert (response.headers["ETag"], response.headers["X-Mine"]) == (None, "1")

    def test_speaks_https(self) -> None:
        """With the certificate it is given; a client without trust does no harm."""
        authority = trustme.CA()
        server, trusting = (
            ssl.SSLContext(p) for p in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
        )
        authority.issue_cert("127.0.0.1").configure_cert(server)
        with Origin(tls=server) as origin:
            origin.put("/x", DATA)
            with pytest.raises(ssl.SSLCertVerificationError):
                http.client.HTTPSConnection("127.0.0.1", origin.port, context=trusting).connect()
            authority.configure_trust(trusting)
            connection = http.client.HTTPSConnection("127.0.0.1", origin.port, context=trusting)
            connection.request("GET", "/x")
            assert connection.getresponse().read() == DATA
            connection.close()
            assert origin.url("/x").startswith("https://")


class TestFaults:
    """Each fault is what its name says."""

    def test_faults_queue_up_and_wear_off(self, origin: Origin, client: Client) -> None:
        """In the order they were set."""
        origin.fault("/x", Fault(status=503), times=2)
        origin.fault("/x", Fault(status=404), times=1)
        assert [client.get()[0].status for _ in range(4)] == [503, 503, 404, 200]

    @pytest.mark.parametrize("status", [204, 304])
    def test_some_statuses_have_no_body(self, origin: Origin, client: Client, status: int) -> None:
        """And leave the connection in order."""
        origin.fault("/x", Fault(status=status), times=1)
        assert client.get()[0].status == status
        assert client.get()[1] == DATA

    def test_a_sticky_fault_stays_until_healed(self, origin: Origin, client: Client) -> None:
        """And concerns its path only."""
        origin.fault("/x", Fault(status=500, headers={"Retry-After": "9"}))
        assert [client.get()[0].status for _ in range(3)] == [500] * 3
        assert client.get()[0].headers["Retry-After"] == "9"
        origin.heal("/x")
        assert client.get()[0].status == 200

    def test_cut(self, origin: Origin, client: Client) -> None:
        """Exactly so many bytes, then the end."""
        origin.fault("/x", Fault(cut_after=1000))
        with pytest.raises(http.client.IncompleteRead) as caught:
            client.get()
        assert caught.value.partial == DATA[:1000]
        assert origin.sent("/x") == 1000

    @pytest.mark.parametrize("lie", [-10, 10])
    def test_lies_about_its_length(self, origin: Origin, lie: int) -> None:
        """The whole body goes out in any case."""
        origin.fault("/x", Fault(length_lie=lie))
        with socket.create_connection(("127.0.0.1", origin.port), timeout=10) as raw:
            raw.sendall(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
            head, _, body = b"".join(iter(lambda: raw.recv(65536), b"")).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(DATA) + lie}".encode() in head.split(b"\r\n")
        assert body == DATA

    def test_without_ranges(self, origin: Origin, client: Client) -> None:
        """A Range is ignored."""
        origin.fault("/x", Fault(no_range=True))
        response, body = client.get(Range="bytes=5-9")
        assert (response.status, body) == (200, DATA)

    def test_chunked(self, origin: Origin, client: Client) -> None:
        """No length, and the connection lives on."""
        origin.fault("/x", Fault(chunked=True))
        response, body = client.get()
        assert (response.headers["Content-Length"], body) == (None, DATA)
        assert client.get()[1] == DATA
        assert {seen.connection for seen in origin.requests} == {0}

    def test_until_close(self, origin: Origin, client: Client) -> None:
        """No length, and the connection ends."""
        origin.fault("/x", Fault(until_close=True))
        response, body = client.get()
        assert (response.headers["Content-Length"], response.will_close, body) == (None, True, DATA)

    def test_stalls_until_released(self, origin: Origin, client: Client) -> None:
        """What came before is there at once."""
        origin.fault("/x", Fault(stall_after=100))
        client.connection.request("GET", "/x")
        response = client.connection.getresponse()
        assert response.read(100) == DATA[:100]
        assert origin.sent("/x") == 100
        origin.release()
        assert response.read() == DATA[100:]

    def test_rate_and_delay_end_when_released(self, origin: Origin, client: Client) -> None:
        """A body that would take an hour, of an answer that would take one too."""
        origin.fault("/x", Fault(delay=3600, rate=3))
        origin.release()
        assert client.get()[1] == DATA

    def test_rate_cuts_the_body_small(self, origin: Origin, client: Client) -> None:
        """50 000 bytes/s are 1000 every 20 ms, and nothing is lost."""
        origin.fault("/x", Fault(rate=50_000, chunked=True))
        client.connection.request("GET", "/x")
        response = client.connection.getresponse()
        assert len(response.read1()) == 1000
        assert response.read() == DATA[1000:]

    def test_redirects(self, origin: Origin, client: Client) -> None:
        """302, or what is asked for."""
        origin.fault("/x", Fault(redirect="/y"), times=1)
        origin.fault("/x", Fault(redirect="/z", status=307), times=1)
        first, second = client.get()[0], client.get()[0]
        assert (first.status, first.headers["Location"]) == (302, "/y")
        assert (second.status, second.headers["Location"]) == (307, "/z")

    def test_requires_a_header(self, origin: Origin, client: Client) -> None:
        """401 without it, or with another value."""
        origin.fault("/x", Fault(require=("Authorization", "Bearer t")))
        assert client.get()[0].status == 401
        assert client.get(Authorization="Bearer u")[0].status == 401
        assert client.get(Authorization="Bearer t")[1] == DATA

    def test_changes_its_content(self, origin: Origin, client: Client) -> None:
        """Between two requests, tag and length included."""
        origin.fault("/x", Fault(content=b"new"), times=1)
        changed, body = client.get()
        assert body == b"new"
        assert changed.headers["ETag"] != client.get()[0].headers["ETag"]

    def test_pause_refuses_and_drops(self, origin: Origin, client: Client) -> None:
        """Idle connections too; resuming brings it back on the same port."""
        client.get()
        origin.pause()
        assert " off " in repr(origin)
        with pytest.raises(ConnectionRefusedError):
            Client(origin).get()
        origin.resume()
        with pytest.raises(http.client.RemoteDisconnected):
            client.get()
        assert client.get()[1] == DATA

    def test_stopping_ends_all_threads(self) -> None:
        """Stalled answers included."""
        before = set(threading.enumerate())
        other = Origin()
        other.put("/x", DATA)
        other.fault("/x", Fault(stall_after=0))
        stalled = Client(other)
        stalled.connection.request("GET", "/x")
        stalled.connection.getresponse()
        other.stop()
        assert set(threading.enumerate()) <= before
        stalled.connection.close()


class TestProgram:
    """``python -m pantala.testing.origin``."""

    def test_serves_until_told_to_end(self, tmp_path: Path) -> None:
        """Prints its port, serves a directory and patterns, and answers with its counters."""
        (tmp_path / "f").write_bytes(DATA)
        command = [sys.executable, "-m", "pantala.testing.origin", "--dir", str(tmp_path)]
        command += ["--pattern", "/p=1000000", "--rate", "1e9"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            port = int(program.stdout.readline())
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            bodies = []
            for path in ("/f", "/p", "/.stats"):
                connection.request("GET", path)
                bodies.append(connection.getresponse().read())
            connection.close()
            program.send_signal(signal.SIGTERM)
        assert bodies[:2] == [DATA, Pattern(1_000_000).read()]
        assert json.loads(bodies[2]) == {
            "requests": 2,
            "sent": 1_010_240,
            "requests_by_path": {"/f": 1, "/p": 1},
            "sent_by_path": {"/f": 10240, "/p": 1_000_000},
        }
        assert program.returncode == 0


class TestContents:
    """Patterns, blobs and files read the same from anywhere."""

    @given(
        start=st.integers(0, 3 * CHUNK + 100),
        length=st.integers(0, 3 * CHUNK + 100),
        seed=st.integers(0, 1),
    )
    def test_a_part_of_a_pattern_is_part_of_the_whole(
        self, start: int, length: int, seed: int
    ) -> None:
        """Wherever it is cut."""
        pattern = Pattern(3 * CHUNK + 17, seed)
        assert pattern.read(start, length) == pattern.read()[start : start + length]

    def test_blocks_and_seeds_differ(self) -> None:
        """A misplaced block would show."""
        one, two = Pattern(3 * CHUNK), Pattern(3 * CHUNK, seed=1)
        blocks = {p.read(i * CHUNK, CHUNK) for p in (one, two) for i in range(3)}
        assert len(blocks) == 6
        assert (len(one.read()), one.etag != two.etag) == (3 * CHUNK, True)
        assert one.digest() != two.digest()

    def test_files_and_blobs(self, tmp_path: Path) -> None:
        """A file's tag changes with the file; one that shrinks just ends."""
        path = tmp_path / "f"
        path.write_bytes(DATA)
        file, blob = File(path), Blob(DATA)
        for content in (file, blob):
            assert content.size == len(DATA)
            assert b"".join(map(bytes, content.chunks(3, 9))) == DATA[3:12]
        assert b"".join(map(bytes, file.chunks(10_000, 9999))) == DATA[10_000:]
        before = file.etag
        path.write_bytes(b"other")
        assert file.etag != before
