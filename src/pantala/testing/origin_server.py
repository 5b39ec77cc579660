"""The server under :class:`~pantala.testing.origin.Origin`: one thread a connection."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from .content import Content

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

# Statuses that are never followed by a body.
_BODILESS = frozenset({204, 304})

# Bodies with a rate go out in steps of this many seconds.
TICK = 0.02


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with an answer. The default is nothing; all may be combined.

    Attributes:
        status: Answer so; if it is not 200 or 206, with a short text instead of the content.
        headers: Response headers to add or replace; an empty value leaves one out.
        content: Serve this file instead, with its own length and ETag.
        redirect: Answer with this Location (status 302 unless given).
        require: A header and its value, without which the answer is 401.
        no_range: Ignore the request's Range.
        chunked: Send no length, but ``Transfer-Encoding: chunked``.
        until_close: Send no length; the body ends where the connection does.
        length_lie: Added to the announced Content-Length. The connection stays open after a
            body that is longer than announced, and is closed after a shorter one.
        cut_after: Drop the connection after so many bytes of the body.
        stall_after: Stop after so many bytes of the body, for *stall* seconds.
        stall: None stalls until ``Origin.release``.
        rate: Bytes per second.
        delay: Seconds before the answer starts; ends early on ``Origin.release``.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content | bytes | None = None
    redirect: str | None = None
    require: tuple[str, str] | None = None
    no_range: bool = False
    chunked: bool = False
    until_close: bool = False
    length_lie: int = 0
    cut_after: int | None = None
    stall_after: int | None = None
    stall: float | None = None
    rate: float | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came in.

    Attributes:
        target: As it stood in the request line, query included.
        headers: Names in lower case.
        connection: Number of the connection it came on.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    connection: int

    @property
    def path(self) -> str:
        """The target's path, decoded. A target may be absolute: proxies get such."""
        return unquote(urlsplit(self.target).path)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer.

    Attributes:
        headers: To add to what the server makes up, or to replace it.
        content: None sends the status in words.
        fault: What goes wrong with the body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None
    fault: Fault = field(default_factory=Fault)


class Application(Protocol):
    """What an origin decides with, and counts in."""

    def answer(self, seen: Seen) -> Answer:
        """What to answer to *seen*; called once for each request."""

    def account(self, path: str, sent: int) -> None:
        """*sent* bytes of body are about to go out."""

    def pace(self, size: int) -> None:
        """Wait until *size* bytes of body may go out."""

    def wait(self, seconds: float | None) -> None:
        """Stall for so many seconds; None: until the origin stops."""


class Server(socketserver.ThreadingTCPServer):
    """Listens from the start; :meth:`stop` drops every connection and joins every thread."""

    allow_reuse_address = True
    daemon_threads = False
    # A test may open a thousand connections at once.
    request_queue_size = 1024

    def __init__(
        self, address: tuple[str, int], application: Application, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(address, _Handler)
        self.application = application
        self.connections = itertools.count()
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._stopping = False
        self._thread = threading.Thread(
            target=self.serve_forever, args=(TICK,), name=f"origin-{self.server_address[1]}"
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and drop all connections."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            self._stopping = True
            for connection in self._open:
                with contextlib.suppress(OSError):  # it ended by itself
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its thread."""
        if self._tls:
            request = self._tls.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
        with request, self._held(request) as welcome:
            if welcome and self._handshaken(request):
                super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @contextlib.contextmanager
    def _held(self, connection: socket.socket) -> Iterator[bool]:
        with self._lock:
            self._open.add(connection)
            welcome = not self._stopping
        try:
            yield welcome
        finally:
            with self._lock:
                self._open.discard(connection)

    @staticmethod
    def _handshaken(connection: socket.socket) -> bool:
        if isinstance(connection, ssl.SSLSocket):
            try:
                connection.do_handshake()
            except OSError:  # the client does not trust us, or has gone
                return False
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.connections)

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the application has seen it all."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, headers, self.number)
        answer = self.server.application.answer(seen)
        if answer.content is None:
            self._say(answer)
            return
        content, fault = answer.content, answer.fault
        part = None if fault.no_range else _part(headers.get("range", ""), content.size)
        start, length = part or (0, content.size)
        if part and length <= 0:
            self._say(Answer(416, {"Content-Range": f"bytes */{content.size}"}))
            return
        made = {"ETag": content.etag, "Accept-Ranges": "bytes"} | self._framing(fault, length)
        if part:
            made["Content-Range"] = f"bytes {start}-{start + length - 1}/{content.size}"
        status = answer.status if answer.status != 200 or not part else 206
        self._head(status, made | dict(answer.headers))
        if self.command == "GET":
            self._body(seen.path, content.chunks(start, length), fault)

    def _framing(self, fault: Fault, length: int) -> dict[str, str]:
        if fault.until_close:
            return {"Connection": "close"}
        if fault.chunked:
            return {"Transfer-Encoding": "chunked"}
        return {"Content-Length": str(length + fault.length_lie)}

    def _say(self, answer: Answer) -> None:
        text = b"" if answer.status in _BODILESS else f"{answer.status}\n".encode()
        length = {"Content-Length": str(len(text))} if text else {}
        self._head(answer.status, length | dict(answer.headers))
        if self.command == "GET":
            self.wfile.write(text)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        known = status in HTTPStatus._value2member_map_
        self.send_response(status, None if known else "Made Up")
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def _body(self, path: str, chunks: Iterator[memoryview], fault: Fault) -> None:
        sent = 0
        for data in self._misbehaving(chunks, fault):
            self.server.application.account(path, len(data))
            self.wfile.write(b"%x\r\n" % len(data) if fault.chunked else b"")
            self.wfile.write(data)
            self.wfile.write(b"\r\n" if fault.chunked else b"")
            sent += len(data)
        if fault.cut_after is not None or fault.length_lie > 0 or fault.until_close:
            self.close_connection = True
        if fault.chunked and fault.cut_after is None:
            self.wfile.write(b"0\r\n\r\n")
        if fault.until_close and fault.cut_after is None:
            self._end_tls()

    def _misbehaving(self, chunks: Iterator[memoryview], fault: Fault) -> Iterator[memoryview]:
        """*chunks* as *fault* lets them through, cut where something happens."""
        sent = 0
        step = max(1, int(fault.rate * TICK)) if fault.rate else None
        marks = [at for at in (fault.cut_after, fault.stall_after) if at is not None]
        for chunk in chunks:
            rest = chunk
            while rest:
                if sent == fault.stall_after:
                    self.server.application.wait(fault.stall)
                if sent == fault.cut_after:
                    return
                n = min([len(rest), *(at - sent for at in marks if at > sent)])
                n = min(n, step or n)
                self.server.application.pace(n)
                yield rest[:n]
                rest, sent = rest[n:], sent + n
                if step:
                    self.server.application.wait(TICK)

    def _end_tls(self) -> None:
        """Say that the body ends here on purpose, as TLS wants it."""
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.settimeout(5)
            with contextlib.suppress(OSError):  # the client need not answer
                self.connection.unwrap()


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Start and length of a Range header's one range; no length: not satisfiable."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        return size - length, length
    start = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    return start, last - start + 1
