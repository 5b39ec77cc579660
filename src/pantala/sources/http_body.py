"""The body of an HTTP response, on its way from the socket into the caller's memory."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Mapping
from typing import Final

import urllib3

from pantala.errors import Blame, OriginError

from .http_answer import Answer
from .http_failure import failure

# An abort is noticed this many bytes later at the latest.
_STEP: Final = 4 << 20

# The body of a redirect or refusal is dropped so that its connection can be used again, if it is
# this small and comes in this many waits. Mostly it came with the headers.
_DRAINED: Final = 16 << 10
_DRAIN_WAITS: Final = 2

_CUT: Final = "{}: the origin closed the connection after"


class HttpBody:
    """A :class:`~pantala.ports.SourceBody` over HTTP.

    Args:
        response: Open, with nothing of its body read.
        answer: What its headers say.
        host: For messages.
        timeout: Seconds after which a silent origin has failed.
    """

    def __init__(
        self, response: urllib3.BaseHTTPResponse, answer: Answer, *, host: str, timeout: float
    ) -> None:
        self.total = answer.total
        self.start = answer.start
        self.length = answer.length
        self.ranged = answer.ranged
        self.version = answer.version
        self.header: Mapping[str, str] = answer.header
        self._response = response
        self._raw = _raw(response)
        self._host = host
        self._timeout = timeout
        self._done = 0
        # A failed body must not look as if it had ended.
        self._failed: OriginError | None = None
        # Held to abort and to close: a connection that was given back is someone else's.
        self._lock = threading.Lock()
        # Held while the response is in use: http.client does not expect two threads.
        self._in_use = threading.Lock()
        self._aborted = False
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "failed" if self._failed else "open"
        return f"<HttpBody {self._host} {state} {self._progress()}>"

    def readinto(self, view: memoryview) -> int:
        """Fill *view*; see :meth:`pantala.ports.SourceBody.readinto`."""
        want = len(view)
        if self.length is not None:
            want = min(want, self.length - self._done)
        filled = 0
        while filled < want:
            n = self._receive(view[filled : min(want, filled + _STEP)])
            if n == 0 and self.length is not None:
                raise self._fail(_CUT.format(self._host), transient=True)
            if n == 0:
                break
            filled += n
            self._done += n
        return filled

    def abort(self) -> None:
        """Make a blocked :meth:`readinto` fail; any thread may call this at any time."""
        with self._lock:
            self._aborted = True
            self._shut_down()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        with self._lock:
            self._closed = True
            if self._done != self.length and not self._raw.isclosed():
                self._shut_down()  # wakes a reader, who holds the other lock
            with self._in_use:
                _finish(self._raw)
                # A TLS socket that was shut down would go on in clear text.
                if self._aborted or not self._raw.isclosed():
                    self._response.close()
                self._response.release_conn()

    def _receive(self, part: memoryview) -> int:
        """Some bytes into *part*; 0 at the end of what the origin sends."""
        with self._in_use:
            self._check()
            try:
                n = self._raw.readinto(part)
            except http.client.IncompleteRead as exc:
                self._check()
                self._done += len(exc.partial)
                raise self._fail(_CUT.format(self._host), transient=True) from exc
            except (OSError, http.client.HTTPException, ValueError) as exc:
                self._check()
                cause = failure(exc, host=self._host, timeout=self._timeout)
                # What this call has read before is lost with the exception.
                words = f"{cause.message} after at least"
                raise self._fail(words, transient=cause.transient, blame=cause.blame) from exc
            # Once a socket is shut down, what it returns cannot be trusted.
            self._check()
            return n

    def _check(self) -> None:
        """Fail if this body has failed, or been given up."""
        if self._failed is not None:
            raise self._failed
        if self._closed or self._aborted:
            what = "aborted" if self._aborted else "closed"
            words = f"{self._host}: {what} here after"
            raise self._fail(words, transient=False, blame=Blame.LOCAL)

    def _fail(self, what: str, *, transient: bool, blame: Blame = Blame.ORIGIN) -> OriginError:
        words = f"{what} {self._progress()}"
        self._failed = OriginError(words, transient=transient, blame=blame)
        return self._failed

    def _progress(self) -> str:
        return f"{self._done} of {'?' if self.length is None else self.length} bytes"

    def _shut_down(self) -> None:
        """Wake whoever waits for the socket; closing it would not."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended already
            self._response.shutdown()


def chunked(response: urllib3.BaseHTTPResponse) -> bool:
    """Whether the body will be read as chunked."""
    return bool(_raw(response).chunked)


def settle(response: urllib3.BaseHTTPResponse) -> None:
    """Have done with a response whose body nobody wants."""
    raw = _raw(response)
    if raw.length is not None and raw.length <= _DRAINED:
        with contextlib.suppress(OSError, http.client.HTTPException):  # closed below
            for _ in range(_DRAIN_WAITS):
                raw.read1(_DRAINED)
    _finish(raw)
    if not raw.isclosed():
        response.close()
    response.release_conn()


def _finish(raw: http.client.HTTPResponse) -> None:
    """Let ``http.client`` see that the body has ended, so that the connection is free again."""
    if raw.length == 0 and not raw.isclosed():
        raw.read(0)


def _raw(response: urllib3.BaseHTTPResponse) -> http.client.HTTPResponse:
    # urllib3 has no public name for it, and its own readinto() copies. Requests relies on this
    # attribute too.
    raw: http.client.HTTPResponse = response._original_response  # type: ignore[attr-defined]  # noqa: SLF001  it has no public name
    return raw
