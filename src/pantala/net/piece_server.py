"""Serves pieces from where they lie.

The event loop reads requests and waits for pieces that are still on their way; only while bytes
are sent does a connection have a thread. So ten thousand idle children cost no thread, and a
slow one costs one. Any number of requests may come on a connection, one after the other;
Dragonfly's own daemons send one, close their half, and read on to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from pantala.background import Loops
from pantala.errors import (
    CannotListen,
    DragonflyError,
    RemoteProtocolError,
    TimedOut,
)
from pantala.wire.vortex import TO_SERVER, Close, ErrorFrame, FrameDecoder, PieceContent
from pantala.wire.vortex import PieceRequest as Request

from .sockets import MIN_RATE, hang_up, set_limit, tune

logger = structlog.get_logger(__name__)

BACKLOG: Final = 1024  # as Dragonfly's daemon

#: Connections at once. Each costs a descriptor and a few kilobytes.
MAX_CONNECTIONS: Final = 8192

#: Seconds in which a request must be complete once it has begun.
REQUEST_LIMIT: Final = 10.0

#: Seconds for which a connection may idle between requests.
IDLE_LIMIT: Final = 120.0

#: Seconds until the next try when a connection could not be accepted.
ACCEPT_PAUSE: Final = 0.1

#: Bytes sent at a time where bandwidth is short. Many children share what there is, and each
#: must see some of it now and then, or it takes us for stalled.
PACE: Final = 256 << 10

#: Bytes given to the kernel in one call, after which the deadline is looked at.
CHUNK: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A piece about to be sent.

    Attributes:
        content: What is said of it.
        view: Its bytes.
        pace: Waits until so many bytes of it may be sent. None: all of them may be.
    """

    content: PieceContent
    view: memoryview
    pace: Callable[[int], Awaitable[None]] | None = None


class Uploads(Protocol):
    """Where the pieces come from."""

    def upload(self, request: Request) -> AbstractAsyncContextManager[Upload]:
        """Wait for the piece and for bandwidth; the bytes stay in place inside the ``with``.

        Leaving it by an exception means that the child did not get the piece.

        Raises:
            DragonflyError: There is no such piece, or it does not come.
        """


class PieceServer:
    """A TCP server for Vortex requests.

    Args:
        uploads: Where the pieces come from.
        senders: Threads that send.
        stall: Seconds in which a child that is sent to must take something, and more than
            :data:`~.sockets.MIN_RATE` asks for.
        piece: Seconds that it may take for a whole piece.
        idle: Seconds for which a connection may idle between requests.
        request: Seconds in which a request must be complete once it has begun.
        connections: How many there may be; more are hung up on.
        loops: Where it accepts. None: on its own.
    """

    def __init__(
        self,
        uploads: Uploads,
        senders: Executor,
        *,
        stall: float,
        piece: float,
        idle: float = IDLE_LIMIT,
        request: float = REQUEST_LIMIT,
        connections: int = MAX_CONNECTIONS,
        loops: Loops | None = None,
    ) -> None:
        self._loops = loops or Loops()
        self._uploads = uploads
        self._senders = senders
        self._stall = stall
        self._piece = piece
        self._idle_limit = idle
        self._request_limit = request
        self._max_connections = connections
        self._sock: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self, ip: str, port: int) -> int:
        """Listen.

        Returns:
            The port in use.

        Raises:
            CannotListen: The port is taken, or the address is not one of this machine.
        """
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((ip, port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            host = f"[{ip}]" if family is socket.AF_INET6 else ip
            raise CannotListen(
                f"{host}:{port}",
                error.strerror or str(error),
                error.errno,
                ip_key="storage.server.ip",
                port_key="storage.server.tcpPort",
            ) from error
        sock.settimeout(0)
        self._sock = sock
        self._accepting = self._loops.keep(lambda: self._accept(sock), "accept children")
        bound: int = sock.getsockname()[1]
        return bound

    @property
    def busy(self) -> int:
        """Pieces being waited for or sent."""
        return self._busy

    async def stop(self, grace: float) -> None:
        """Accept no more; let pieces under way end within *grace* seconds; then hang up."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
        if self._sock is not None:
            self._sock.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        tasks = list(self._connections)
        for task, sock in list(self._connections.items()):
            hang_up(sock)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, sock: socket.socket) -> None:
        """Accept one child."""
        loop = asyncio.get_running_loop()
        try:
            child, _ = await loop.sock_accept(sock)
        except OSError as error:
            # Out of descriptors, mostly: serve those we have and look again.
            logger.warning("cannot accept a child", why=str(error))
            await asyncio.sleep(ACCEPT_PAUSE)
            return
        if len(self._connections) >= self._max_connections:
            child.close()
            return
        task = loop.create_task(self._serve(child))
        self._connections[task] = child
        task.add_done_callback(self._connections.pop)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(0)
            tune(sock)
            while (request := await self._read_request(sock)) is not None:
                await self._answer(sock, request)
        except (RemoteProtocolError, OSError, TimeoutError) as error:
            # Garbage, a vanished child, a slow one: nothing that anybody here must mend.
            logger.debug("connection ended", reason=str(error))
        except Exception:  # a bug with one child must not end the server
            logger.exception("unexpected error while serving a piece")
        finally:
            sock.close()

    async def _read_request(self, sock: socket.socket) -> Request | None:
        """The next request; None when the child is done."""
        loop = asyncio.get_running_loop()
        decoder = FrameDecoder(TO_SERVER)
        frame, began = None, False
        async with asyncio.timeout(self._idle_limit) as limit:
            while frame is None:
                data = await loop.sock_recv(sock, decoder.missing)
                if not data:
                    return None
                if not began:
                    began = True
                    limit.reschedule(loop.time() + self._request_limit)
                decoder.receive(data)
                frame = decoder.next_frame()
        if isinstance(frame, Close):
            return None
        if not isinstance(frame, Request):
            raise RemoteProtocolError(f"not a request: {frame}")
        return frame

    async def _answer(self, sock: socket.socket, request: Request) -> None:
        self._busy += 1
        self._idle.clear()
        try:
            async with self._uploads.upload(request) as upload:
                await self._deliver(sock, upload)
        except DragonflyError as error:
            if isinstance(error, _Cut):
                raise ConnectionAbortedError(str(error)) from error
            answer = ErrorFrame(error.vortex, str(error)).encode()
            async with asyncio.timeout(self._stall):
                await asyncio.get_running_loop().sock_sendall(sock, answer)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def _deliver(self, sock: socket.socket, upload: Upload) -> None:
        head = memoryview(upload.content.encode())
        patience = _Patience(len(head) + len(upload.view), self._stall, self._piece)
        if upload.pace is None:
            await self._in_thread(sock, patience, head, upload.view)
            return
        await self._in_thread(sock, patience, head)
        for at in range(0, len(upload.view), PACE):
            with upload.view[at : at + PACE] as part:
                await upload.pace(len(part))
                await self._in_thread(sock, patience, part)

    async def _in_thread(
        self, sock: socket.socket, patience: _Patience, *parts: memoryview
    ) -> None:
        loop = asyncio.get_running_loop()
        sending = loop.run_in_executor(self._senders, self._send, sock, patience, parts)
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            # The bytes may go only after the thread has let go of them.
            hang_up(sock)
            await asyncio.wait([sending])
            sending.exception()  # that we hung up
            raise

    def _send(
        self, sock: socket.socket, patience: _Patience, parts: tuple[memoryview, ...]
    ) -> None:
        """Send bytes, in a thread.

        With ``send`` and not ``sendfile``: after that returns, memory that is used again would
        still change what the child receives.
        """
        sock.settimeout(None)
        try:
            set_limit(sock, socket.SO_SNDTIMEO, self._stall)
            for part in parts:
                _send_all(sock, part, patience)
        except OSError as error:
            raise _Cut(f"child gone: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                sock.settimeout(0)


class _Cut(TimedOut):
    """A child did not take a piece that was already on its way to it."""


class _Patience:
    """With a child that takes a piece: it must not keep the thread that sends from others.

    What counts is the time spent sending; waiting for bandwidth is no fault of the child.

    Args:
        size: Bytes that it is to take.
        stall: Seconds over which it must be faster than :data:`~.sockets.MIN_RATE`.
        piece: Seconds for the whole piece.
    """

    def __init__(self, size: int, stall: float, piece: float) -> None:
        self._missing = size
        self._stall = stall
        self._left = piece
        self._seconds = 0.0
        self._bytes = 0

    def took(self, size: int, seconds: float) -> None:
        """The child took *size* bytes in *seconds*. Raises when that is too slow."""
        self._missing -= size
        self._left -= seconds
        self._seconds += seconds
        self._bytes += size
        slow = self._left < 0
        if self._seconds >= self._stall:
            slow = slow or self._bytes < MIN_RATE * self._seconds
            self._seconds, self._bytes = 0.0, 0
        if slow and self._missing:
            raise _Cut("child is too slow")


def _send_all(sock: socket.socket, view: memoryview, patience: _Patience) -> None:
    """Each call ends after the socket's limit, with what the child took till then."""
    at, now = 0, time.monotonic()
    while at < len(view):
        before = now
        try:
            sent = sock.send(view[at : at + CHUNK])
        except BlockingIOError:
            raise _Cut("child takes nothing") from None
        at, now = at + sent, time.monotonic()
        patience.took(sent, now - before)
