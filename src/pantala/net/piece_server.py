"""Serves pieces from where they lie.

The event loop reads requests, waits for pieces that are still on their way, and sends short ones
itself; only while the bytes of a long one, or of one on a disk, are sent does a connection have a
thread. A child that takes no more for a moment gives its thread
back, so that ten thousand idle children cost none, nor do a thousand slow ones. No address can
take so many connections or threads that others get none: see :mod:`pantala.core.places`. Any
number of requests may come on a connection, one after the other; Dragonfly's own daemons send one,
close their half, and read on to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from pantala.background import Loops
from pantala.core.places import Places, owner_of
from pantala.errors import (
    CannotListen,
    DragonflyError,
    RemoteProtocolError,
)
from pantala.model.addresses import host_port
from pantala.ports import Extent, MemoryExtent
from pantala.wire.vortex import TO_SERVER, Close, ErrorFrame, FrameDecoder, PieceContent
from pantala.wire.vortex import PieceRequest as Request

from .sending import MOMENT, Cut, Part, Patience, Sending
from .sockets import hang_up, send_late, tune
from .turns import Turns

logger = structlog.get_logger(__name__)

BACKLOG: Final = 1024  # as Dragonfly's daemon

#: Connections at once. Each costs a descriptor and a few kilobytes.
MAX_CONNECTIONS: Final = 8192

#: Threads that send.
SENDERS: Final = 128

#: Seconds in which a connection's first request must be complete, and each once it has begun.
REQUEST_LIMIT: Final = 10.0

#: Seconds for which a connection may idle between requests.
IDLE_LIMIT: Final = 120.0

#: Seconds until the next try when a connection could not be accepted.
ACCEPT_PAUSE: Final = 0.1

#: Bytes of requests read at once.
_REQUESTS: Final = 4096

#: Bytes of a piece in memory that the event loop itself sends, a quarter of a millisecond of its
#: time at most: to hand it to a thread and back takes longer.
_SHORT: Final = 1 << 20

#: Bytes sent at a time where bandwidth is short. Many children share what there is, and each
#: must see some of it now and then, or it takes us for stalled.
PACE: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Upload:
    """A piece about to be sent.

    Attributes:
        content: What is said of it.
        extent: Its bytes. They are checked before the first is sent.
        pace: Waits until so many bytes of it may be sent. None: all of them may be.
    """

    content: PieceContent
    extent: Extent
    pace: Callable[[int], Awaitable[None]] | None = None


class Uploads(Protocol):
    """Where the pieces come from."""

    def upload(self, request: Request) -> AbstractAsyncContextManager[Upload]:
        """Wait for the piece and for bandwidth; the bytes stay in place inside the ``with``.

        Leaving it by an exception means that the child did not get the piece.

        Raises:
            DragonflyError: There is no such piece, or it does not come.

        What is raised inside the ``with`` before the first byte was sent, as by
        :meth:`~pantala.ports.Extent.check`, may leave it as another such error: it is the answer.
        """


class PieceServer:
    """A TCP server for Vortex requests.

    Args:
        uploads: Where the pieces come from.
        senders: Threads that send, as many as *sending* at least.
        stall: Seconds in which a child that is sent to must take something, and more than
            :data:`~.sockets.MIN_RATE` asks for.
        piece: Seconds that it may take for a whole piece.
        idle: Seconds for which a connection may idle between requests.
        request: Seconds in which the first request must be complete, and each once it has begun.
        connections: How many there may be.
        sending: How many threads may send at once.
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
        sending: int = SENDERS,
        loops: Loops | None = None,
    ) -> None:
        self._loops = loops or Loops()
        self._uploads = uploads
        self._senders = senders
        self._stall = stall
        self._piece = piece
        self._idle_limit = idle
        self._request_limit = request
        self._places: Places[socket.socket] = Places(connections)
        self._turns = Turns(sending)
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
            raise CannotListen(
                host_port(ip, port),
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
            child, address = await loop.sock_accept(sock)
        except OSError as error:
            # Out of descriptors, mostly: serve those we have and look again.
            logger.warning("cannot accept a child", why=str(error))
            await asyncio.sleep(ACCEPT_PAUSE)
            return
        owner = owner_of(address[0])
        admitted, leaver = self._places.enter(owner, child)
        if leaver is not None:
            hang_up(leaver)
        if not admitted:
            child.close()
            return
        task = loop.create_task(self._serve(child, owner))
        self._connections[task] = child
        task.add_done_callback(self._connections.pop)

    async def _serve(self, sock: socket.socket, owner: str) -> None:
        try:
            sock.settimeout(0)
            tune(sock)
            send_late(sock)
            limit, decoder = self._request_limit, FrameDecoder(TO_SERVER)
            while (request := await self._read_request(sock, decoder, limit)) is not None:
                self._places.works(sock)
                await self._answer(sock, owner, request)
                await asyncio.sleep(0)  # for others: neither reading nor sending need have waited
                self._places.rests(sock)
                limit = self._idle_limit
        except (RemoteProtocolError, OSError, TimeoutError) as error:
            # Garbage, a vanished child, a slow one: nothing that anybody here must mend.
            logger.debug("connection ended", reason=str(error))
        except Exception:  # a bug with one child must not end the server
            logger.exception("unexpected error while serving a piece")
        finally:
            self._places.leave(sock)
            sock.close()

    async def _read_request(
        self, sock: socket.socket, decoder: FrameDecoder, idle: float
    ) -> Request | None:
        """The next request, which must begin within *idle* seconds; None when the child is done."""
        loop, began = asyncio.get_running_loop(), False
        if (frame := decoder.next_frame()) is None:
            async with asyncio.timeout(idle) as limit:
                while frame is None:
                    data = await loop.sock_recv(sock, _REQUESTS)
                    if not data:
                        return None
                    decoder.receive(data)
                    if (frame := decoder.next_frame()) is None and not began:
                        began = True
                        limit.reschedule(loop.time() + self._request_limit)
        if isinstance(frame, Close):
            return None
        if not isinstance(frame, Request):
            raise RemoteProtocolError(f"not a request: {frame}")
        return frame

    async def _answer(self, sock: socket.socket, owner: str, request: Request) -> None:
        self._busy += 1
        self._idle.clear()
        try:
            async with self._uploads.upload(request) as upload:
                await self._deliver(_Child(sock, owner), upload)
        except DragonflyError as error:
            if isinstance(error, Cut):
                raise ConnectionAbortedError(str(error)) from error
            answer = ErrorFrame(error.vortex, str(error)).encode()
            async with asyncio.timeout(self._stall):
                await asyncio.get_running_loop().sock_sendall(sock, answer)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def _deliver(self, child: _Child, upload: Upload) -> None:
        frame, extent = memoryview(upload.content.encode()), upload.extent
        patience = Patience(len(frame) + extent.length, self._stall, self._piece)
        head, body = Part(MemoryExtent(frame), 0, len(frame)), Part(extent, 0, extent.length)
        check = functools.partial(extent.check, upload.content.digest)
        if upload.pace is None:
            whole = Sending(child.sock, (head, body), patience, check)
            if extent.length <= _SHORT and isinstance(extent, MemoryExtent):
                await self._send_here(whole)
            else:
                await self._send(child, whole)
            return
        await self._send(child, Sending(child.sock, (head,), patience, check))
        for at in range(0, extent.length, PACE):
            part = Part(extent, at, min(at + PACE, extent.length))
            await upload.pace(part.end - at)
            await self._send(child, Sending(child.sock, (part,), patience))

    @staticmethod
    async def _send_here(sending: Sending) -> None:
        """Send what is short, and in memory, on the event loop."""
        sending.go_on(0)
        while not sending.done:
            await sending.until_writable()
            sending.go_on(0)

    async def _send(self, child: _Child, sending: Sending) -> None:
        async with self._turns.turn(child.owner):
            await self._in_thread(sending, MOMENT)
        while not sending.done:
            await sending.until_writable()
            async with self._turns.turn(child.owner):
                await self._in_thread(sending, 0)

    async def _in_thread(self, job: Sending, wait: float) -> None:
        loop = asyncio.get_running_loop()
        sending = loop.run_in_executor(self._senders, job.go_on, wait)
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            # The bytes may go only after the thread has let go of them.
            hang_up(job.sock)
            await asyncio.wait([sending])
            sending.exception()  # that we hung up
            raise


@dataclass(frozen=True, slots=True)
class _Child:
    """A connection, and whom it counts for."""

    sock: socket.socket
    owner: str
