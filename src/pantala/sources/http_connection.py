"""Connections to HTTP origins that can be cut at any time, and on which a trickle is not enough.

urllib3 makes and keeps them. What it leaves out is here: another thread can end an
:class:`Opening`, whatever it waits for (but for a name server), and every byte is received under
the limits of the opening that it answers.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import time
from contextvars import ContextVar, Token
from typing import Any, Final, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import allowed_gai_family

from pantala.ports import Abort

from .http_failure import TooSlow

#: Bytes a second that a body must bring over each stretch of waiting as long as an origin may be
#: silent. Far less than a parent must bring: there are other parents, but one origin, and all
#: fetches share the line to it. Of 500 kB/s, the 128 that one host gets at most have four times
#: as much each.
LEAST_RATE: Final = 1024


class Opening:
    """One request until its answer's headers are here. Enter it in the thread that asks.

    Args:
        stall: Seconds for connecting, and for each wait for bytes of the body.
        answer: Seconds for all of it.
        abort: Ends it early.
    """

    def __init__(self, *, stall: float, answer: float, abort: Abort) -> None:
        self.stall = stall
        self.answer = answer
        self.abort = abort
        self._deadline = time.monotonic() + answer
        self._cord: socket.socket | None = None
        self._token: Token[Opening] | None = None

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(None)
        if self._token is not None:
            _CURRENT.reset(self._token)

    @property
    def left(self) -> float:
        """Seconds until it is too late; 0 when it is."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def limits(self) -> urllib3.Timeout:
        """For each wait of the next request."""
        left = max(self.left, 0.001)  # none at all is for urllib3 to refuse, in other words
        return urllib3.Timeout(connect=min(self.stall, left), read=left)

    @property
    def patience(self) -> float:
        """How many seconds it was that a wait which has just ended could take."""
        return self.stall if self.left else self.answer

    def watch(self, sock: Any) -> None:
        """From here on *sock*, or what TLS makes of it, is what it waits for."""
        # A descriptor of our own stays good when TLS takes the socket over.
        self._hold(socket.socket(fileno=os.dup(sock.fileno())))

    def _hold(self, cord: socket.socket | None) -> None:
        old, self._cord = self._cord, cord
        self.abort.by(None if cord is None else lambda: _hang_up(cord))
        if old is not None:
            old.close()


_CURRENT: ContextVar[Opening] = ContextVar("opening")


class _Incoming(io.RawIOBase):
    """What comes on a connection: the headers in time, the body not too slowly.

    Only time spent waiting counts: the reader may be held up by other things.
    """

    def __init__(self, sock: Any, opening: Opening) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._opening = opening
        self._in_body = False
        self._waited = 0.0
        self._came = 0

    def body_begins(self) -> None:
        """The headers are here: from now on the pace of the body counts."""
        self._in_body = True
        self._waited, self._came = 0.0, 0
        self._sock.settimeout(self._opening.stall)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._in_body:
            self._judge()
        else:
            self._hurry()
        began = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began
        self._came += count or 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _hurry(self) -> None:
        """Headers that trickle must be here in time as well."""
        left = self._opening.left
        if not left:
            raise TimeoutError
        self._sock.settimeout(min(self._sock.gettimeout(), left))

    def _judge(self) -> None:
        stall = self._opening.stall
        if self._waited >= stall:
            if self._came < LEAST_RATE * stall:
                raise TooSlow(self._came)
            self._waited, self._came = 0.0, 0


class _Response(http.client.HTTPResponse):
    """An answer that is received as the opening wants it."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._incoming = _Incoming(sock, _CURRENT.get())
        self.fp.close()
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        super().begin()
        self._incoming.body_begins()


class _Connection(HTTPConnection):
    """One that its opening knows of from the first moment."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        """Connect, as the method does that this one replaces."""
        try:
            self._dns_host.encode("idna")
        except UnicodeError as exc:
            raise urllib3.exceptions.LocationParseError(self.host) from exc
        host, failed = self._dns_host.strip("[]"), OSError("it has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, self.port, allowed_gai_family(), socket.SOCK_STREAM
        ):
            if _CURRENT.get().abort.asked:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                _CURRENT.get().watch(sock)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.timeout)
                sock.connect(address)
            except OSError as exc:
                sock.close()
                failed = exc
            else:
                return sock
        # As it is, a reset would be taken for a server's that has answered already.
        raise urllib3.exceptions.NewConnectionError(self, "no connection") from failed

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send one; on a connection that was kept, this is the opening's first sight of it."""
        if self.sock is not None:
            _CURRENT.get().watch(self.sock)
        super().request(*args, **kwargs)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def adopt(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """Have *manager* make such connections; then it may be used within openings only."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        sock.shutdown(socket.SHUT_RDWR)
