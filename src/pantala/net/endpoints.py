"""Small HTTP servers: metrics for monitors, health for orchestrators.

They answer one GET or HEAD a connection and close it. Nothing here is worth more than that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from pantala.core.places import Places, owner_of
from pantala.errors import CannotListen
from pantala.model.addresses import host_port

#: Bytes of a request's head. Monitors send a few hundred; a browser's cookies fit.
_MAX_HEAD: Final = 16 << 10
#: Seconds for a whole exchange.
_TIMEOUT: Final = 10.0
#: Connections at once. More than the loop accepts at a time (100), so that whoever comes with a
#: request is heard before a flood of others can take his place.
MAX_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a GET."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class Endpoint:
    """An HTTP server with one page.

    Args:
        key: What says in the configuration where it listens, for messages: a section with ``ip``
            and ``port``, or one setting, which has a colon after it.
        path: Of the page, such as ``/metrics``. Others answer 404.
        page: Makes the page; must not block.
        connections: How many there may be, shared out among the addresses that call.
    """

    def __init__(
        self,
        key: str,
        path: str,
        page: Callable[[], Page],
        *,
        connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._key = key
        self._path = path
        self._page = page
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._places: Places[asyncio.StreamWriter] = Places(connections)

    async def start(self, ip: str, port: int) -> int:
        """Listen; return the port, which the system chooses if *port* is 0.

        Raises:
            CannotListen: The address is taken, or not one of this machine.
        """
        try:
            self._server = await asyncio.start_server(self._serve, ip, port, limit=_MAX_HEAD)
        except (OSError, ValueError) as exc:  # a ValueError: the host can be no name at all
            number = exc.errno if isinstance(exc, OSError) else -1
            # The words of asyncio, if it has a number for them, would name the address again.
            why = os.strerror(number) if number and number > 0 else str(exc)
            section, colon, _ = self._key.partition(":")
            raise CannotListen(
                host_port(ip, port),
                why,
                number,
                ip_key=section if colon else f"{section}.ip",
                port_key=section if colon else f"{section}.port",
                any_port=":0" if colon else "0",
            ) from exc
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")  # None: it has gone already
        admitted, leaver = self._places.enter(owner_of(peer[0] if peer else ""), writer)
        if leaver is not None:
            leaver.transport.abort()
        if not admitted:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                self._places.works(writer)
                writer.write(self._answer(head))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # gone, too slow, or no HTTP: nobody is left to tell
        finally:
            self._open.discard(writer)
            self._places.leave(writer)
            writer.transport.abort()  # harmless when it is closed already

    def _answer(self, head: bytes) -> bytes:
        method, target, version = (*head.partition(b"\r\n")[0].split(b" "), b"", b"", b"")[:3]
        page = self._chosen(method, target, version)
        return _head(page) + (b"" if method == b"HEAD" else page.body)

    def _chosen(self, method: bytes, target: bytes, version: bytes) -> Page:
        if not version.startswith(b"HTTP/1."):
            return Page(status=HTTPStatus.BAD_REQUEST)
        if target.partition(b"?")[0] != self._path.encode():
            return Page(status=HTTPStatus.NOT_FOUND)
        if method not in (b"GET", b"HEAD"):
            return Page(status=HTTPStatus.METHOD_NOT_ALLOWED)
        return self._page()


def _head(page: Page) -> bytes:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode()


def metrics_endpoint(
    render: Callable[[], bytes],
    content_type: str,
    *,
    key: str = "metrics.server",
    connections: int = MAX_CONNECTIONS,
) -> Endpoint:
    """``GET /metrics``: what *render* gives."""

    def page() -> Page:
        return Page(render(), content_type)

    return Endpoint(key, "/metrics", page, connections=connections)


def health_endpoint(
    troubles: Callable[[], list[str]], *, connections: int = MAX_CONNECTIONS
) -> Endpoint:
    """``GET /healthy``: 200 without a body, or 503 with the lines that *troubles* gives."""

    def page() -> Page:
        lines = troubles()
        if not lines:
            return Page()
        body = "".join(f"{line}\n" for line in lines).encode()
        return Page(body, status=HTTPStatus.SERVICE_UNAVAILABLE)

    return Endpoint("health.server", "/healthy", page, connections=connections)
