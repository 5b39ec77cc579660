"""The HTTP source against real origins, healthy and otherwise."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from pantala import BUILD_VERSION
from pantala.errors import Blame, ConfigError, InvalidRequest, OriginError, RangeNotSatisfiable
from pantala.ports import SourceRequest
from pantala.sources.http import HttpSettings, HttpSource, RedirectCache
from pantala.sources.http_target import first_target
from pantala.testing.origin import Fault, Origin, Pattern
from pantala.testing.sources import fetch, open_descriptors

pytestmark = pytest.mark.usefixtures("direct")

DATA = bytes(range(256)) * 40
NO_RETRY = HttpSettings(max_retries=0)
SOON = {"Retry-After": "0"}


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Serves DATA at /x."""
    with Origin() as running:
        running.put("/x", DATA)
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Nobody the system trusts."""
    return trustme.CA()


@pytest.fixture
def source() -> Iterator[HttpSource]:
    """With the settings as they come."""
    with contextlib.closing(HttpSource()) as source:
        yield source


def asking(settings: HttpSettings) -> contextlib.closing[HttpSource]:
    """A source with *settings*, closed at the end of the block."""
    return contextlib.closing(HttpSource(settings))


@contextlib.contextmanager
def answering(data: bytes, *, hold: bool = False) -> Iterator[str]:
    """URL of a server that answers one connection with *data*, whatever it is asked.

    It then closes the connection, or with *hold* waits until the client does.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)
                if hold:
                    connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        thread.join()


class TestRequest:
    """What goes out."""

    def test_headers_of_our_own(self, origin: Origin, source: HttpSource) -> None:
        """User agent, no compression, no Range."""
        fetch(source, origin.url("/x"))
        headers = dict(origin.requests[0].headers)
        assert headers.pop("host") == f"127.0.0.1:{origin.port}"
        assert headers == {"user-agent": BUILD_VERSION, "accept-encoding": "identity"}

    @pytest.mark.parametrize(
        ("start", "length", "sent"),
        [(0, 1, "bytes=0-0"), (5, 10, "bytes=5-14"), (7, None, "bytes=7-")],
    )
    def test_range(
        self, origin: Origin, source: HttpSource, start: int, length: int | None, sent: str
    ) -> None:
        """Ours, not the caller's."""
        fetch(source, origin.url("/x"), start=start, length=length, headers={"range": "bytes=1-2"})
        assert origin.requests[0].headers["range"] == sent

    def test_the_callers_range_is_dropped(self, origin: Origin, source: HttpSource) -> None:
        """Also when there is none of ours."""
        got = fetch(source, origin.url("/x"), headers={"RANGE": "bytes=1-2"})
        assert got.data == DATA
        assert "range" not in origin.requests[0].headers

    def test_configured_headers_fill_gaps(self, origin: Origin) -> None:
        """The caller's come first, ours last."""
        extra = {"X-A": "config", "X-B": "config", "user-agent": "config"}
        with asking(HttpSettings(request_header=extra, user_agent="ours")) as source:
            fetch(source, origin.url("/x"), headers={"x-a": "caller"})
        sent = origin.requests[0].headers
        assert (sent["x-a"], sent["x-b"], sent["user-agent"]) == ("caller", "config", "config")

    def test_the_callers_encoding_is_not_decoded(self, origin: Origin, source: HttpSource) -> None:
        """Bytes are what the origin sends, named as it names them."""
        origin.put("/x", DATA, headers={"Content-Encoding": "gzip"})
        got = fetch(source, origin.url("/x"), headers={"accept-encoding": "gzip"})
        assert origin.requests[0].headers["accept-encoding"] == "gzip"
        assert (got.data, got.body.header["Content-Encoding"]) == (DATA, "gzip")

    def test_credentials_in_the_url(self, origin: Origin, source: HttpSource) -> None:
        """Become a header; the request line has none."""
        origin.fault("/x", Fault(require=("Authorization", "Basic dTpw")))
        assert fetch(source, origin.url("/x", host="u:p@127.0.0.1")).data == DATA
        assert origin.requests[0].target == "/x"

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (-1, 5), (0, 0), (5, -1)])
    def test_ranges_that_hold_nothing(
        self, origin: Origin, source: HttpSource, start: int, length: int | None
    ) -> None:
        """Are refused without asking anybody."""
        with pytest.raises(RangeNotSatisfiable):
            fetch(source, origin.url("/x"), start=start, length=length)
        with pytest.raises(InvalidRequest):
            fetch(source, origin.url("/x"), length=5)
        assert origin.count() == 0

    def test_injection(self, origin: Origin, source: HttpSource) -> None:
        """Is refused without asking anybody."""
        with pytest.raises(InvalidRequest):
            fetch(source, origin.url("/x"), headers={"X": "1\r\nY: 2"})
        with pytest.raises(InvalidRequest):
            fetch(source, origin.url("/x\r\nY: 2"))
        assert origin.count() == 0

    def test_hosts_that_cannot_be(self, source: HttpSource) -> None:
        """A label of DNS has at most 63 letters."""
        with pytest.raises(InvalidRequest, match="the host makes no sense"):
            fetch(source, f"http://{'a' * 64}.example/")


class TestAnswer:
    """What comes back."""

    def test_the_whole(self, origin: Origin, source: HttpSource) -> None:
        """With length, version and headers."""
        got = fetch(source, origin.url("/x"))
        body = got.body
        assert got.data == DATA
        assert (body.total, body.start, body.length, body.ranged) == (10240, 0, 10240, False)
        assert body.version.startswith('etag:"')
        assert body.header["Content-Length"] == "10240"

    @pytest.mark.parametrize(
        ("start", "length", "want"),
        [
            (0, 1, DATA[:1]),
            (5, 10, DATA[5:15]),
            (10_000, None, DATA[10_000:]),
            (9, 10**9, DATA[9:]),
        ],
    )
    def test_ranges(
        self, origin: Origin, source: HttpSource, start: int, length: int | None, want: bytes
    ) -> None:
        """Clipped at the end; the headers are as of the whole."""
        got = fetch(source, origin.url("/x"), start=start, length=length)
        body = got.body
        assert (got.data, body.total, body.start, body.length) == (want, 10240, start, len(want))
        assert body.ranged
        assert body.header["Content-Length"] == "10240"
        assert "Content-Range" not in body.header
        assert body.version == fetch(source, origin.url("/x")).body.version

    def test_a_range_that_is_ignored(self, origin: Origin, source: HttpSource) -> None:
        """Shows; the body is the whole."""
        origin.fault("/x", Fault(no_range=True))
        got = fetch(source, origin.url("/x"), start=5, length=5)
        assert (got.data, got.body.ranged, got.body.start) == (DATA, False, 0)
        assert (got.body.total, got.body.length) == (10240, 10240)

    def test_a_wrong_range(self, origin: Origin, source: HttpSource) -> None:
        """Is not taken for the right one."""
        wrong = {"Content-Range": "bytes 6-10/10240"}
        origin.fault("/x", Fault(headers=wrong))
        with pytest.raises(OriginError, match="bytes 6-10 to a request for 5-9"):
            fetch(source, origin.url("/x"), start=5, length=5)

    def test_past_the_end(self, origin: Origin, source: HttpSource) -> None:
        """Says so."""
        with pytest.raises(RangeNotSatisfiable):
            fetch(source, origin.url("/x"), start=10240, length=1)

    @pytest.mark.parametrize("start", [0, 7])
    def test_empty_content(self, origin: Origin, source: HttpSource, start: int) -> None:
        """Has no range, so it is asked for whole."""
        origin.put("/x", b"")
        body = (got := fetch(source, origin.url("/x"), start=start, length=1)).body
        assert (got.data, body.total, body.length, body.start, body.ranged) == (b"", 0, 0, 0, False)
        assert body.version == fetch(source, origin.url("/x")).body.version

    def test_a_416_does_not_mean_empty(self, origin: Origin, source: HttpSource) -> None:
        """Some servers refuse what they cannot do; nothing is lost."""
        origin.fault("/x", Fault(status=416), times=1)
        got = fetch(source, origin.url("/x"), start=0, length=1)
        assert (got.data, got.body.ranged) == (DATA, False)

    @pytest.mark.parametrize("fault", [Fault(chunked=True), Fault(until_close=True)])
    def test_without_a_length(self, origin: Origin, source: HttpSource, fault: Fault) -> None:
        """The body ends when it ends; a range has a length all the same."""
        origin.fault("/x", fault)
        whole = fetch(source, origin.url("/x"))
        assert (whole.data, whole.body.total, whole.body.length) == (DATA, None, None)
        part = fetch(source, origin.url("/x"), start=5, length=7)
        assert (part.data, part.body.total, part.body.length) == (DATA[5:12], 10240, 7)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
    def test_refusals(self, origin: Origin, source: HttpSource, status: int) -> None:
        """Are not repeated; status and headers are carried."""
        origin.fault("/x", Fault(status=status, headers={"X-Why": "because"}))
        with pytest.raises(OriginError, match=f"^{status} ") as caught:
            fetch(source, origin.url("/x"))
        assert (caught.value.status, caught.value.transient) == (status, False)
        assert caught.value.header["X-Why"] == "because"
        assert origin.count() == 1

    def test_lengths_that_are_none(self, origin: Origin, source: HttpSource) -> None:
        """Fail."""
        origin.fault("/x", Fault(headers={"Content-Length": "-5"}))
        with pytest.raises(OriginError, match="Content-Length that is no number"):
            fetch(source, origin.url("/x"))

    def test_what_is_not_http(self) -> None:
        """Fails, in words."""
        with (
            asking(NO_RETRY) as source,
            answering(b"SSH-2.0-OpenSSH_9.6\r\n") as url,
            pytest.raises(OriginError, match="no HTTP"),
        ):
            fetch(source, url)


class TestRetries:
    """Failures that may pass."""

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_once_by_default(self, origin: Origin, source: HttpSource, status: int) -> None:
        """Then it is the caller's turn."""
        origin.fault("/x", Fault(status=status, headers=SOON), times=3)
        with pytest.raises(OriginError) as caught:
            fetch(source, origin.url("/x"))
        assert (caught.value.transient, caught.value.status) == (True, status)
        assert origin.count() == 2
        assert fetch(source, origin.url("/x")).data == DATA
        assert origin.count() == 4

    def test_as_often_as_configured(self, origin: Origin) -> None:
        """Without a Retry-After after a pause of our own; for ranges too."""
        origin.fault("/x", Fault(status=503, headers={"retry-after": "0"}), times=3)
        origin.fault("/x", Fault(status=503), times=1)
        with asking(HttpSettings(max_retries=4)) as source:
            assert fetch(source, origin.url("/x"), start=1, length=2).data == DATA[1:3]
        assert origin.count() == 5

    def test_a_long_retry_after(self, origin: Origin, source: HttpSource) -> None:
        """Is left to the caller."""
        origin.fault("/x", Fault(status=503, headers={"Retry-After": "11"}), times=1)
        with pytest.raises(OriginError) as caught:
            fetch(source, origin.url("/x"))
        assert caught.value.transient
        assert origin.count() == 1

    def test_a_connection_that_breaks_before_the_answer(self, source: HttpSource) -> None:
        """Is transient; here the second try finds nobody."""
        with (
            asking(NO_RETRY) as once,
            answering(b"") as url,
            pytest.raises(OriginError, match="closed without an answer") as caught,
        ):
            fetch(once, url)
        assert caught.value.transient
        with pytest.raises(OriginError, match="connection refused") as caught:
            fetch(source, url)
        assert caught.value.transient

    def test_a_kept_connection_that_was_dropped(self, origin: Origin, source: HttpSource) -> None:
        """Is replaced without anybody noticing."""
        fetch(source, origin.url("/x"))
        origin.pause()
        origin.resume()
        assert fetch(source, origin.url("/x")).data == DATA


class TestWords:
    """Failures name the host, and no secret."""

    def test_refused(self, origin: Origin, source: HttpSource) -> None:
        """Nobody listens."""
        origin.pause()
        url = origin.url("/x?token=secret", host="user:secret@127.0.0.1")
        with pytest.raises(OriginError) as caught:
            fetch(source, url)
        assert caught.value.message == f"127.0.0.1:{origin.port}: connection refused"
        assert (caught.value.transient, caught.value.status) == (True, None)

    def test_no_such_name(self, source: HttpSource) -> None:
        """The top-level domain is reserved never to exist (RFC 2606)."""
        with pytest.raises(OriginError, match=r"^nowhere\.invalid: its name does not resolve"):
            fetch(source, "http://nowhere.invalid/")

    def test_whose_fault(self, origin: Origin, source: HttpSource) -> None:
        """The origin's, the caller's, or this machine's: a name server, descriptors, a proxy."""
        origin.fault("/f", Fault(status=403))
        origin.fault("/s", Fault(status=503))
        for url, blame in (
            (origin.url("/f"), Blame.CALLER),
            (origin.url("/s"), Blame.ORIGIN),
            ("http://nowhere.invalid/", Blame.LOCAL),
        ):
            with pytest.raises(OriginError) as caught:
                fetch(source, url)
            assert caught.value.blame is blame, url

    def test_no_descriptors(self, origin: Origin) -> None:
        """Seen with a limit that leaves none: it is no failure of the origin."""
        program = (
            "import resource, sys\n"
            "from pantala.errors import OriginError\n"
            "from pantala.sources.http import HttpSettings, HttpSource\n"
            "from pantala.testing.sources import fetch\n"
            "source = HttpSource(HttpSettings(max_retries=0))\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
            "try:\n"
            "    fetch(source, sys.argv[1])\n"
            "except OriginError as error:\n"
            "    print(error.blame, error.message)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, origin.url("/x")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        words = "this machine cannot ask it (Too many open files)"
        assert done.stdout == f"local 127.0.0.1:{origin.port}: {words}\n", done.stderr

    def test_no_answer(self, origin: Origin) -> None:
        """The wait for headers has an end."""
        origin.fault("/x", Fault(delay=3600))
        with asking(NO_RETRY) as source, pytest.raises(OriginError, match=r"silent for 0\.2 s"):
            fetch(source, origin.url("/x"), timeout=0.2)

    def test_no_connection(self) -> None:
        """The wait for a connection has one: here the listener's queue is full."""
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as full,
            contextlib.ExitStack() as waiting,
            asking(NO_RETRY) as source,
        ):
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.settimeout(0)
                client.connect_ex(full.getsockname())
            port = full.getsockname()[1]
            with pytest.raises(OriginError, match=r"silent for 0\.2 s") as caught:
                fetch(source, f"http://127.0.0.1:{port}/", timeout=0.2, answer=60)
        assert caught.value.transient

    def test_logs(self, source: HttpSource, caplog: pytest.LogCaptureFixture) -> None:
        """The libraries below us print URLs, even at WARNING; they may not."""
        caplog.set_level(logging.DEBUG)
        bad = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno colon\r\nX: y\r\n\r\n"
        with answering(bad + b"ok") as url, contextlib.suppress(OriginError):
            fetch(source, f"{url}?token=secret")
        assert "secret" not in caplog.text


class TestRedirects:
    """Redirects are followed by us."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_are_followed(self, origin: Origin, source: HttpSource, status: int) -> None:
        """With range and headers, over the same connection."""
        origin.fault("/r", Fault(redirect="/x", status=status))
        got = fetch(source, origin.url("/r"), start=5, length=5, headers={"Cookie": "c"})
        assert got.data == DATA[5:10]
        first, second = origin.requests
        assert (first.headers["range"], first.headers["cookie"]) == ("bytes=5-9", "c")
        assert (second.headers["range"], second.headers["cookie"]) == ("bytes=5-9", "c")
        assert (second.method, second.connection) == ("GET", first.connection)

    @pytest.mark.parametrize("status", [300, 304, 305])
    def test_other_3xx_are_refusals(self, origin: Origin, source: HttpSource, status: int) -> None:
        """So is a redirect to nowhere."""
        origin.fault("/r", Fault(redirect="/x", status=status), times=1)
        origin.fault("/r", Fault(status=302), times=1)
        for want in (status, 302):
            with pytest.raises(OriginError) as caught:
                fetch(source, origin.url("/r"))
            assert caught.value.status == want
        assert origin.count("/x") == 0

    def test_credentials_stay_with_the_origin(self, origin: Origin, source: HttpSource) -> None:
        """Another port is another origin."""
        secrets = {
            "Authorization": "Bearer t",
            "cookie": "c",
            "X-Amz-Security-Token": "s",
            "X-Api-Key": "k",
        }
        with Origin() as other:
            other.put("/x", DATA)
            origin.fault("/r", Fault(redirect=other.url("/x")))
            got = fetch(source, origin.url("/r"), headers={**secrets, "User-Agent": "me"})
            sent = other.requests[0].headers
        assert got.data == DATA
        assert origin.requests[0].headers["authorization"] == "Bearer t"
        assert sent.keys() & {name.lower() for name in secrets} == set()
        assert sent["user-agent"] == "me"

    def test_loops_end(self, origin: Origin) -> None:
        """After as many hops as configured."""
        origin.fault("/r", Fault(redirect="/r"))
        with (
            asking(HttpSettings(max_redirects=3)) as source,
            pytest.raises(OriginError, match="/r: more than 3 redirects"),
        ):
            fetch(source, origin.url("/r"))
        assert origin.count() == 4

    def test_their_large_bodies_are_not_waited_for(
        self, origin: Origin, source: HttpSource
    ) -> None:
        """Here it would never come."""
        head = (
            f"HTTP/1.1 302 Found\r\nLocation: {origin.url('/x')}\r\nContent-Length: 99999\r\n\r\n"
        )
        with answering(head.encode(), hold=True) as url:
            assert fetch(source, url, timeout=1000).data == DATA


class TestRememberedRedirects:
    """Where a 307 led is remembered."""

    def test_only_307(self, origin: Origin, source: HttpSource) -> None:
        """Two requests, one question; 302s are asked each time."""
        origin.fault("/t", Fault(redirect="/x", status=307))
        origin.fault("/f", Fault(redirect="/x", status=302))
        for _ in range(2):
            assert fetch(source, origin.url("/t")).data == DATA
            assert fetch(source, origin.url("/f")).data == DATA
        assert (origin.count("/t"), origin.count("/f"), origin.count("/x")) == (1, 2, 4)

    def test_switched_off(self, origin: Origin) -> None:
        """Asked each time."""
        origin.fault("/t", Fault(redirect="/x", status=307))
        with asking(HttpSettings(redirect_ttl=0)) as source:
            for _ in range(2):
                fetch(source, origin.url("/t"))
        assert origin.count("/t") == 2

    def test_a_target_that_has_expired(self, origin: Origin, source: HttpSource) -> None:
        """Is asked for anew, at once."""
        origin.fault("/t", Fault(redirect="/old", status=307), times=1)
        origin.fault("/t", Fault(redirect="/x", status=307))
        origin.put("/old", DATA)
        fetch(source, origin.url("/t"))
        origin.fault("/old", Fault(status=403))
        assert fetch(source, origin.url("/t")).data == DATA
        assert (origin.count("/t"), origin.count("/old")) == (2, 2)

    def test_is_for_whoever_asked(self, origin: Origin, source: HttpSource) -> None:
        """A target that was signed for one is not given to another."""
        origin.fault("/t", Fault(redirect="/x", status=307))
        fetch(source, origin.url("/t"), headers={"Authorization": "Bearer a"})
        fetch(source, origin.url("/t"), headers={"Authorization": "Bearer b"})
        assert origin.count("/t") == 2

    def test_ttl_and_size(self) -> None:
        """What is old or one too many is forgotten; what is used stays."""
        now = [0.0]
        cache = RedirectCache(10, clock=lambda: now[0])
        hops = [first_target(f"http://h/{i}", {}, defaults={}) for i in range(1001)]
        for hop in hops[:1000]:
            cache.put(hop, hops[1000])
        assert cache.get(hops[0]) is hops[1000]
        cache.put(hops[1000], hops[0])
        assert [cache.get(hop) for hop in hops[:2]] == [hops[1000], None]
        now[0] = 9.9
        assert cache.get(hops[2]) is hops[1000]
        cache.forget([hops[2]])
        assert cache.get(hops[2]) is None
        now[0] = 10.0
        assert cache.get(hops[3]) is None


class TestTls:
    """Certificates are verified unless told otherwise."""

    @pytest.fixture
    def secure(self, authority: trustme.CA) -> Iterator[Origin]:
        """Has a certificate for its address, and for no name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with Origin(tls=context) as running:
            running.put("/x", DATA)
            yield running

    @pytest.fixture
    def trusting(self, authority: trustme.CA, tmp_path: Path) -> Iterator[HttpSource]:
        """Trusts the authority."""
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(path))
        with asking(HttpSettings(ca_cert=path, max_retries=0)) as source:
            yield source

    def test_trusted(self, secure: Origin, trusting: HttpSource) -> None:
        """And the connection is kept."""
        for _ in range(2):
            assert fetch(trusting, secure.url("/x"), start=5, length=5).data == DATA[5:10]
        assert {seen.connection for seen in secure.requests} == {0}

    def test_untrusted(self, secure: Origin, source: HttpSource) -> None:
        """Fails for good, and names the key that would help."""
        with pytest.raises(OriginError, match=r"not trusted \(.*\); .* backend\.caCert") as caught:
            fetch(source, secure.url("/x"))
        assert not caught.value.transient
        assert secure.count() == 0

    def test_another_name(self, secure: Origin, trusting: HttpSource) -> None:
        """Is not covered by the certificate."""
        with pytest.raises(OriginError, match="not trusted"):
            fetch(trusting, secure.url("/x", host="localhost"))

    def test_verification_can_be_switched_off(self, secure: Origin) -> None:
        """By name."""
        with asking(HttpSettings(insecure_skip_verify=True)) as source:
            assert fetch(source, secure.url("/x", host="localhost")).data == DATA

    def test_an_authority_that_cannot_be_read(self, tmp_path: Path) -> None:
        """Is a mistake in the configuration."""
        (tmp_path / "junk").write_text("junk")
        for name in ("junk", "missing"):
            with pytest.raises(ConfigError, match=r"backend\.caCert"):
                HttpSource(HttpSettings(ca_cert=tmp_path / name))

    def test_plain_http_on_a_tls_port(self, secure: Origin, source: HttpSource) -> None:
        """And TLS on a plain one."""
        with pytest.raises(OriginError):
            fetch(source, secure.url("/x").replace("https", "http"))
        with Origin() as plain, pytest.raises(OriginError, match="TLS failed") as caught:
            fetch(source, plain.url("/x").replace("http", "https"))
        assert not caught.value.transient

    def test_a_body_without_length_that_is_cut(self, secure: Origin, trusting: HttpSource) -> None:
        """Does not look like its end, which TLS declares."""
        secure.fault("/x", Fault(until_close=True), times=1)
        assert fetch(trusting, secure.url("/x")).data == DATA
        secure.fault("/x", Fault(until_close=True, cut_after=1000))
        with pytest.raises(
            OriginError, match=r"middle of TLS after at least 0 of \? bytes"
        ) as caught:
            fetch(trusting, secure.url("/x"))
        assert caught.value.transient

    def test_abort_wakes_a_reader(self, secure: Origin, trusting: HttpSource) -> None:
        """Under TLS too, without a byte that was not decrypted being taken for one."""
        secure.fault("/x", Fault(stall_after=1000))
        body = trusting.open(SourceRequest(secure.url("/x")), timeout=60)
        buffer = bytearray(2000)
        with ThreadPoolExecutor() as pool:
            assert body.readinto(memoryview(buffer)[:1000]) == 1000
            reading = pool.submit(body.readinto, memoryview(buffer)[1000:])
            body.abort()
            error = reading.exception(timeout=20)
        assert isinstance(error, OriginError)
        assert "aborted here" in error.message
        body.close()


class TestProxies:
    """Proxies come from the environment."""

    def test_plain(
        self, origin: Origin, source: HttpSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The proxy gets the whole URL, and its own credentials; the origin's stay intact."""
        monkeypatch.setenv("http_proxy", f"u%3A:p@127.0.0.1:{origin.port}")
        got = fetch(source, "http://nowhere.invalid/x?q", headers={"Authorization": "Bearer t"})
        seen = origin.requests[0]
        assert (got.data, seen.target) == (DATA, "http://nowhere.invalid/x?q")
        assert seen.headers["proxy-authorization"] == "Basic dTo6cA=="
        assert seen.headers["authorization"] == "Bearer t"

    def test_exceptions(
        self, origin: Origin, source: HttpSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """NO_PROXY is honoured."""
        monkeypatch.setenv("all_proxy", "http://nowhere.invalid:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert fetch(source, origin.url("/x")).data == DATA

    @pytest.mark.parametrize(
        ("no_proxy", "direct"),
        [
            ("10.0.0.0/8, 127.0.0.0/8", True),
            ("127.0.0.9/8", True),
            ("10.0.0.0/8,::/0", False),
            ("/,127.0.0.1/99,127.0.0.0/8/8", False),
        ],
    )
    def test_networks(
        self,
        origin: Origin,
        source: HttpSource,
        monkeypatch: pytest.MonkeyPatch,
        no_proxy: str,
        direct: bool,  # noqa: FBT001  a parameter of the test
    ) -> None:
        """An address in one of them is asked directly."""
        monkeypatch.setenv("http_proxy", origin.url())
        monkeypatch.setenv("no_proxy", no_proxy)
        fetch(source, origin.url("/x"))
        assert (origin.requests[0].target == "/x") is direct

    def test_names_are_in_no_network(
        self, origin: Origin, source: HttpSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever their addresses: it is the proxy that looks them up."""
        monkeypatch.setenv("http_proxy", origin.url())
        monkeypatch.setenv("no_proxy", "0.0.0.0/0,::/0")
        fetch(source, "http://nowhere.invalid/x")
        assert origin.requests[0].target == "http://nowhere.invalid/x"

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_a_proxy_that_wants_a_password(
        self, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The proxy is blamed, not the origin; and it is not asked again."""
        refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        with answering(refusal) as proxy, asking(HttpSettings(max_retries=3)) as source:
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
            with pytest.raises(OriginError) as caught:
                fetch(source, f"{scheme}://h/x")
        assert str(caught.value).startswith("the proxy to h: it wants authentication (407); ")
        assert caught.value.status is None

    def test_an_origin_that_takes_itself_for_a_proxy(
        self, origin: Origin, source: HttpSource
    ) -> None:
        """Without a proxy it is the origin's answer."""
        origin.fault("/x", Fault(status=407))
        with pytest.raises(OriginError) as caught:
            fetch(source, origin.url("/x"))
        assert caught.value.status == 407

    def test_a_proxy_that_refuses(
        self, origin: Origin, source: HttpSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is named as what failed."""
        monkeypatch.setenv("https_proxy", origin.url())
        with pytest.raises(OriginError, match=r"the proxy to h: the connection failed .*501"):
            fetch(source, "https://h/x")

    def test_an_unknown_kind_of_proxy(
        self, source: HttpSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is a mistake in the configuration; its password is not repeated."""
        monkeypatch.setenv("http_proxy", "socks5://u:secret@h:1")
        with pytest.raises(ConfigError, match="the proxy named by the environment") as caught:
            fetch(source, "http://h/x")
        assert "secret" not in str(caught.value)


class TestThreads:
    """Any number may use one source."""

    def test_pieces_at_once(self, origin: Origin, source: HttpSource) -> None:
        """Each gets its own bytes, and connections are shared."""
        pattern = Pattern(8 << 20)
        origin.put("/p", pattern)
        step = 128 << 10

        def piece(start: int) -> bytes:
            return fetch(source, origin.url("/p"), start=start, length=step).data

        with ThreadPoolExecutor(8) as pool:
            pieces = list(pool.map(piece, range(0, pattern.size, step)))
        assert b"".join(pieces) == pattern.read()
        assert len({seen.connection for seen in origin.requests}) <= 8

    def test_nothing_leaks(self, origin: Origin) -> None:
        """Descriptors of failed, refused, aborted and finished requests are closed."""
        before = open_descriptors()
        origin.fault("/cut", Fault(content=DATA, cut_after=9))
        origin.put("/cut", DATA)
        with asking(NO_RETRY) as source:
            for path in ("/x", "/cut", "/missing", "/x"):
                with contextlib.suppress(OriginError):
                    fetch(source, origin.url(path))
            body = source.open(SourceRequest(origin.url("/x")), timeout=10)
            body.abort()
            body.close()
        origin.stop()
        assert open_descriptors() - before == set()
