"""A real HTTP/1.1 origin that counts what it sends and misbehaves when told to.

In a test::

    with Origin() as origin:
        origin.put("/model", Pattern(10 << 20))
        origin.fault("/model", Fault(status=503), times=1)
        ...                                          # fetch origin.url("/model")
        assert origin.sent("/model") == 10 << 20

As a program, which prints its port and then serves until it is told to end::

    python -m pantala.testing.origin --dir /srv/models --pattern /1g=1073741824

It answers ``GET /.stats`` with its counters, as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import ssl
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pantala.core.bucket import Bucket

from .content import Blob, Content, File, Pattern
from .origin_server import TICK, Answer, Fault, Seen, Server

__all__ = ["Blob", "Fault", "File", "Origin", "Pattern", "Seen"]

_STATS = "/.stats"


class Origin:
    """An origin on a thread of its own.

    Args:
        directory: Files below it are served, besides what is :meth:`put`.
        port: 0 chooses one.
        tls: Serve HTTPS with this server-side context.
        rate: Bytes a second that all answers have together. None: no limit.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        rate: float | None = None,
    ) -> None:
        self._bucket = None if rate is None else Bucket(rate, rate * TICK)
        self._directory = directory.resolve() if directory else None
        self._tls = tls
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._files: dict[str, tuple[Content, Mapping[str, str]]] = {}
        self._encoded: dict[str, tuple[Content, str, bool]] = {}
        self._faults: dict[str, list[tuple[Fault, int | None]]] = defaultdict(list)
        self._requests: list[Seen] = []
        self._sent: Counter[str] = Counter()
        self._server: Server | None = Server((host, port), self, tls)
        self._address = (host, self._server.server_address[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "on" if self._server else "off"
        return f"<Origin {self.url()} {state} requests={self.count()} sent={self.sent()}>"

    @property
    def port(self) -> int:
        """The port, the same after :meth:`resume`."""
        return self._address[1]

    def url(self, path: str = "/", *, host: str | None = None) -> str:
        """URL of *path*; *host* replaces the address in it (``localhost`` is another host)."""
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host or self._address[0]}:{self.port}{path}"

    def put(
        self, path: str, content: Content | bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Serve *content* at *path* from now on.

        Args:
            path: Decoded, without a query.
            content: Bytes, or anything that meets :class:`~.content.Content`.
            headers: Response headers to add or replace; an empty value leaves one out.
        """
        with self._lock:
            self._files[path] = (_content(content), headers or {})

    def put_encoded(
        self, path: str, content: bytes, encoding: str, *, unasked: bool = False
    ) -> None:
        """Serve *content* in place of what is :meth:`put` at *path* to those who accept *encoding*.

        Args:
            path: Likewise.
            content: What that is when it is encoded.
            encoding: As ``Content-Encoding`` names it.
            unasked: Serve it to everybody.
        """
        with self._lock:
            self._encoded[path] = (Blob(content), encoding, unasked)

    def fault(self, path: str, fault: Fault, *, times: int | None = None) -> None:
        """The next *times* answers at *path* go wrong like this; None: all of them.

        Further faults of a path queue up behind the ones it has.
        """
        with self._lock:
            self._faults[path].append((fault, times))

    def heal(self, path: str) -> None:
        """Forget the faults of *path*."""
        with self._lock:
            self._faults.pop(path, None)

    def release(self) -> None:
        """End all stalls and delays, those to come included, until :meth:`reset`."""
        self._released.set()

    def reset(self) -> None:
        """Counters to zero, and stalls stall again. Content and faults stay."""
        with self._lock:
            self._requests.clear()
            self._sent.clear()
        self._released.clear()

    @property
    def requests(self) -> list[Seen]:
        """Every request since the last :meth:`reset`, oldest first."""
        with self._lock:
            return list(self._requests)

    def count(self, path: str | None = None) -> int:
        """Requests for *path*; None: in all."""
        return sum(path in (None, seen.path) for seen in self.requests)

    def sent(self, path: str | None = None) -> int:
        """Bytes of bodies handed to the kernel for *path*; None: in all."""
        with self._lock:
            return self._sent.total() if path is None else self._sent[path]

    def pause(self) -> None:
        """Refuse connections, and drop those that are open."""
        if self._server is not None:
            self._released.set()
            self._server.stop()
            self._server = None

    def resume(self) -> None:
        """Listen again, on the same port."""
        if self._server is None:
            self._released.clear()
            self._server = Server(self._address, self, self._tls)

    def stop(self) -> None:
        """Pause for good. Its threads have ended when this returns."""
        self.pause()

    def answer(self, seen: Seen) -> Answer:
        """What to answer to *seen*: called by the server, once for each request."""
        with self._lock:
            if seen.path != _STATS:
                self._requests.append(seen)
            fault = self._next_fault(seen.path)
        if fault.delay:
            self.wait(fault.delay)
        if fault.redirect is not None:
            return Answer(fault.status or 302, {"Location": fault.redirect, **fault.headers})
        if fault.require and seen.headers.get(fault.require[0].lower()) != fault.require[1]:
            return Answer(401, {"WWW-Authenticate": "Basic"})
        if fault.status not in {None, 200, 206}:
            return Answer(fault.status, fault.headers)
        found = self._find(seen.path)
        if found is None:
            return Answer(404)
        content, headers = found
        if encoded := self._encoded.get(seen.path):
            other, encoding, unasked = encoded
            if unasked or encoding in seen.headers.get("accept-encoding", ""):
                content, headers = other, {**headers, "Content-Encoding": encoding}
        if fault.content is not None:
            content = _content(fault.content)
        return Answer(fault.status or 200, {**headers, **fault.headers}, content, fault)

    def account(self, path: str, sent: int) -> None:
        """Count *sent* bytes of body: called by the server."""
        if path != _STATS:
            with self._lock:
                self._sent[path] += sent

    def pace(self, size: int) -> None:
        """Wait until *size* bytes may be sent: called by the server."""
        released = False
        while self._bucket is not None and not released:
            with self._lock:
                wait = self._bucket.take(size, time.monotonic())
            if not wait:
                return
            released = self._released.wait(wait)

    def wait(self, seconds: float | None) -> None:
        """Stall: called by the server."""
        self._released.wait(seconds)

    def _next_fault(self, path: str) -> Fault:
        queue = self._faults.get(path)
        if not queue:
            return Fault()
        fault, times = queue[0]
        if times is not None:
            queue[0] = (fault, times - 1)
            if times <= 1:
                queue.pop(0)
        return fault

    def _find(self, path: str) -> tuple[Content, Mapping[str, str]] | None:
        if path == _STATS:
            return Blob(self._stats()), {"Content-Type": "application/json"}
        with self._lock:
            found = self._files.get(path)
        if found is not None or self._directory is None:
            return found
        file = (self._directory / path.lstrip("/")).resolve()
        if not file.is_relative_to(self._directory) or not file.is_file():
            return None
        return File(file), {}

    def _stats(self) -> bytes:
        requests = Counter(seen.path for seen in self.requests)
        with self._lock:
            sent = dict(self._sent)
        sums = {"requests": requests.total(), "sent": sum(sent.values())}
        return json.dumps({**sums, "requests_by_path": requests, "sent_by_path": sent}).encode()


def _content(content: Content | bytes) -> Content:
    return Blob(content) if isinstance(content, bytes) else content


@contextlib.contextmanager
def _until_told() -> Iterator[threading.Event]:
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    yield told
    told.wait()


def main(argv: list[str] | None = None) -> None:
    """Run an origin as a program."""
    parser = argparse.ArgumentParser(prog="python -m pantala.testing.origin")
    parser.add_argument("--dir", type=Path, help="serve the files below this directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 chooses one")
    parser.add_argument(
        "--pattern", action="append", default=[], metavar="PATH=BYTES", help="serve a pattern"
    )
    parser.add_argument("--rate", type=float, help="bytes per second for each pattern's answer")
    options = parser.parse_args(argv)
    with Origin(options.dir, host=options.host, port=options.port) as origin, _until_told():
        for pattern in options.pattern:
            path, _, size = pattern.rpartition("=")
            origin.put(path, Pattern(int(size)))
            if options.rate:
                origin.fault(path, Fault(rate=options.rate))
        sys.stdout.write(f"{origin.port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
