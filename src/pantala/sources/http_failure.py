"""What went wrong between us and an HTTP origin, in words. No I/O."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

from urllib3.exceptions import ProxyError

from pantala.errors import Blame, OriginError, SourceUnreachable
from pantala.model.units import byte_count


class TooSlow(TimeoutError):
    """So few bytes came while we waited that nobody would be served by waiting on."""

    def __init__(self, came: int) -> None:
        super().__init__(f"{byte_count(came)} came")
        self.came = came


# What the system says when this machine cannot even ask: it is out of something, or has no way out.
_LOCAL: Final = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EACCES, errno.EPERM),
    }
)


def _in_words(exc: OSError, _: float) -> str:
    why = exc.strerror or str(exc)
    what = "this machine cannot ask it" if _is_local(exc) else "the connection failed"
    return f"{what} ({why})"


def _is_local(exc: BaseException) -> bool:
    """Whether it is this machine's fault, its name server's included."""
    return isinstance(exc, socket.gaierror) or (isinstance(exc, OSError) and exc.errno in _LOCAL)


# The first row of which something went wrong is what went wrong: the class, what it means (with
# the seconds that each wait could take), and whether it may pass.
_MEANINGS: Final[list[tuple[type[BaseException], Callable[[Any, float], str], bool]]] = [
    (
        ssl.SSLCertVerificationError,
        lambda exc, _: (
            f"its TLS certificate is not trusted ({exc.verify_message}); "
            "name the authority that signed it in backend.caCert of the daemon's configuration"
        ),
        False,
    ),
    (ssl.SSLEOFError, lambda *_: "the connection was closed in the middle of TLS", True),
    (ssl.SSLError, lambda exc, _: f"TLS failed ({exc.reason or exc})", False),
    (socket.gaierror, lambda exc, _: f"its name does not resolve ({exc.strerror})", False),
    (ConnectionRefusedError, lambda *_: "connection refused", True),
    (http.client.RemoteDisconnected, lambda *_: "connection closed without an answer", True),
    (TooSlow, lambda exc, timeout: f"too slow: {byte_count(exc.came)} in {timeout:g} s", True),
    (TimeoutError, lambda _, timeout: f"silent for {timeout:g} s", True),
    (OSError, _in_words, True),
    # What a server sent too much of looks like this to the next request on that connection.
    (http.client.HTTPException, lambda exc, _: f"no HTTP ({type(exc).__name__})", True),
    (BaseException, lambda exc, _: f"the request failed ({type(exc).__name__})", False),
]

# How http.client says that a proxy made no tunnel for want of a password.
_NO_TUNNEL: Final = "Tunnel connection failed: 407 "


def failure(exc: Exception, *, host: str, timeout: float) -> OriginError:
    """The error to raise for *exc*, which asking *host* for something ended in.

    Args:
        exc: What urllib3 or the socket raised.
        host: Who was asked, for the message.
        timeout: Seconds that each wait could take.
    """
    causes = list(_causes(exc))
    through = "the proxy to " if any(isinstance(e, ProxyError) for e in causes) else ""
    cause, words, passes = next(
        (cause, words(cause, timeout), passes)
        for kind, words, passes in _MEANINGS
        for cause in causes
        if isinstance(cause, kind)
    )
    if through and _NO_TUNNEL in str(cause):
        return proxy_refusal(host)
    if isinstance(cause, socket.gaierror):  # a name server that is down may come back
        passes = cause.errno == socket.EAI_AGAIN
    # The proxy is this node's choice, like the name server.
    blame = Blame.LOCAL if through or _is_local(cause) else Blame.ORIGIN
    kind = SourceUnreachable if passes else OriginError
    return kind(f"{through}{host}: {words}", transient=passes, blame=blame)


def proxy_refusal(host: str) -> OriginError:
    """The error for a proxy on the way to *host* that does not serve just anybody."""
    return OriginError(
        f"the proxy to {host}: it wants authentication (407); name user and password in its URL, "
        "http://user:password@host:port, in the daemon's environment",
        blame=Blame.LOCAL,
    )


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """*exc*, and the exceptions that it wraps: as its cause, or the urllib3 way, as arguments."""
    seen: list[BaseException] = []
    queue = [exc]
    while queue:
        current = queue.pop(0)
        if current in seen:
            continue
        seen.append(current)
        yield current
        queue.extend(arg for arg in current.args if isinstance(arg, BaseException))
        if current.__cause__ is not None:
            queue.append(current.__cause__)
