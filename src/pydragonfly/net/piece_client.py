"""Fetches pieces from parents, straight into where they belong.

Blocking code for worker threads. Connections are kept per parent and used again where the
parent allows it; Dragonfly's own daemons close theirs after each piece, which is no fault.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from typing import Final, NamedTuple

from pydragonfly.errors import (
    DigestMismatch,
    NotFound,
    ParentLost,
    RemoteProtocolError,
    VortexCode,
)
from pydragonfly.model.digest import crc32, piece_digest
from pydragonfly.model.pieces import Piece
from pydragonfly.wire.vortex import (
    Close,
    ErrorFrame,
    Frame,
    FrameDecoder,
    PieceContent,
    PieceRequest,
    to_client,
)

from .sockets import hang_up, set_limit, tune

#: Bytes received by one call and then hashed while they are still in the processor's cache.
CHUNK: Final = 1 << 20

#: A parent that brings less than this, bytes a second, is worse than none: after a grace of one
#: stall limit the piece is asked of somebody else.
MIN_RATE: Final = 64 * 1024

CONNECT_TIMEOUT: Final = 2.0  # seconds; as Dragonfly's client

#: Idle connections kept per parent; as many as a download fetches at once.
MAX_IDLE: Final = 8


class Address(NamedTuple):
    """Where a parent serves pieces."""

    ip: str
    port: int


class Limits(NamedTuple):
    """How long to wait for a parent, seconds.

    Attributes:
        request: From the request until its answer begins.
        stall: Without a single byte.
        piece: For the whole piece.
    """

    request: float
    stall: float
    piece: float


class Connections:
    """Idle connections to parents, for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Address, deque[socket.socket]] = {}
        self._closed = False

    def take(self, address: Address) -> socket.socket | None:
        """An idle connection that the parent has not closed, if there is one."""
        while True:
            with self._lock:
                idle = self._idle.get(address)
                if not idle:
                    return None
                sock = idle.pop()
            if _is_quiet(sock):
                return sock
            sock.close()

    def give_back(self, address: Address, sock: socket.socket) -> None:
        """Keep a connection on which nothing is outstanding."""
        with self._lock:
            idle = self._idle.setdefault(address, deque())
            if not self._closed and len(idle) < MAX_IDLE:
                idle.append(sock)
                return
        sock.close()

    def forget(self, address: Address) -> None:
        """Close the idle connections to a parent."""
        with self._lock:
            idle = self._idle.pop(address, ())
        for sock in idle:
            sock.close()

    def close(self) -> None:
        """Close all idle connections, and those given back later."""
        with self._lock:
            self._closed = True
            addresses = list(self._idle)
        for address in addresses:
            self.forget(address)


class PieceFetch:
    """One piece from one parent.

    Args:
        connections: Where to find and leave a connection.
        address: The parent.
        request: What to ask for.
        piece: What the answer must be; anything else is the parent's fault.
        into: Exactly the piece's bytes.
        limits: How long to wait.
    """

    def __init__(
        self,
        connections: Connections,
        address: Address,
        request: PieceRequest,
        piece: Piece,
        into: memoryview,
        *,
        limits: Limits,
    ) -> None:
        self._connections = connections
        self._address = address
        self._request = request
        self._piece = piece
        self._into = into
        self._limits = limits
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        """Make :meth:`run` fail soon, from any thread. It has let go of the view once it did."""
        with self._lock:
            self._aborted = True
            if self._sock is not None:
                hang_up(self._sock)

    def run(self) -> str:
        """Fetch it.

        Returns:
            Its digest, as announced and as computed on arrival.

        Raises:
            ParentLost: Not reachable, too slow, or gone in the middle.
            NotFound: The parent does not have it.
            DigestMismatch: The bytes are not those that were announced.
            RemoteProtocolError: The answer is not what the protocol asks for.
        """
        deadline = time.monotonic() + self._limits.piece
        kept = self._connections.take(self._address)
        if kept is not None:
            with contextlib.suppress(_Stale):
                return self._use(kept, deadline, fresh=False)
        return self._use(self._connect(), deadline, fresh=True)

    def _connect(self) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, timeout=CONNECT_TIMEOUT)
        except OSError as error:
            raise ParentLost(f"parent {self._who}: cannot connect: {error}") from error
        sock.settimeout(None)
        tune(sock)
        set_limit(sock, socket.SO_SNDTIMEO, self._limits.stall)
        return sock

    @property
    def _who(self) -> str:
        return f"{self._address.ip}:{self._address.port}"

    def _use(self, sock: socket.socket, deadline: float, *, fresh: bool) -> str:
        with self._lock:
            if self._aborted:
                sock.close()
                raise ParentLost(f"parent {self._who}: given up")
            self._sock = sock
        reusable = False
        try:
            frame = self._ask(sock, fresh=fresh)
            if isinstance(frame, ErrorFrame):
                reusable = True
                raise _as_error(frame, self._who)
            digest = self._receive(sock, _expect(frame, self._piece), deadline)
            reusable = True
        except OSError as error:
            raise ParentLost(f"parent {self._who}: {error}") from error
        else:
            return digest
        finally:
            with self._lock:
                self._sock = None
                reusable = reusable and not self._aborted
            if reusable:
                self._connections.give_back(self._address, sock)
            else:
                sock.close()

    def _ask(self, sock: socket.socket, *, fresh: bool) -> Frame:
        """Send the request and read what comes before the bytes."""
        set_limit(sock, socket.SO_RCVTIMEO, min(self._limits.request, self._limits.stall))
        decoder = FrameDecoder(to_client(self._request.tag))
        began = False
        try:
            sock.sendall(self._request.encode())
            while (frame := decoder.next_frame()) is None:
                data = sock.recv(decoder.missing, socket.MSG_WAITALL)
                if not data:
                    raise ConnectionResetError("connection closed before an answer")
                began = True
                decoder.receive(data)
        except BlockingIOError:
            raise ParentLost(f"parent {self._who}: no answer in time") from None
        except OSError:
            if fresh or began or self._aborted:
                raise
            # An idle connection may have been closed just now; a fresh one will tell.
            raise _Stale from None
        return frame

    def _receive(self, sock: socket.socket, content: PieceContent, deadline: float) -> str:
        """Receive the bytes; each chunk is hashed when it is here."""
        set_limit(sock, socket.SO_RCVTIMEO, self._limits.stall)
        started = time.monotonic()
        at = crc = 0
        while at < self._piece.length:
            with self._into[at : at + CHUNK] as chunk:
                try:
                    n = sock.recv_into(chunk, 0, socket.MSG_WAITALL)
                except BlockingIOError:
                    n = -1
                if n > 0:
                    with chunk[:n] as fresh:
                        crc = crc32(fresh, crc)
                    at += n
            self._judge(n, at, started, deadline)
        digest = piece_digest(crc)
        # Dragonfly's daemons announce no digest for a piece of which they computed none.
        if content.digest and digest != content.digest:
            what = f"piece {self._piece.number} from {self._who}"
            raise DigestMismatch(what, want=content.digest, got=digest)
        return digest

    def _judge(self, n: int, at: int, started: float, deadline: float) -> None:
        """Give the parent up when it is gone, stalled or too slow."""
        if at == self._piece.length:
            return
        of = f"after {at} of {self._piece.length} bytes"
        if n == 0:
            raise ParentLost(f"parent {self._who}: connection closed {of}")
        if n < 0:
            raise ParentLost(f"parent {self._who}: nothing for {self._limits.stall:g} s {of}")
        now = time.monotonic()
        slow = at < MIN_RATE * (now - started - self._limits.stall)
        if slow or now > deadline:
            raise ParentLost(f"parent {self._who}: too slow, given up {of}")


class _Stale(Exception):
    """An idle connection turned out to be closed; nothing was received on it."""


def _is_quiet(sock: socket.socket) -> bool:
    """Whether an idle connection is open, with nothing unexpected in it."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _as_error(frame: ErrorFrame, who: str) -> Exception:
    text = f"parent {who}: {frame.text}"
    return NotFound(text) if frame.code is VortexCode.NOT_FOUND else ParentLost(text)


def _expect(frame: Frame, piece: Piece) -> PieceContent:
    """The content's description, if it describes *piece*.

    A parent that holds another version of the content may have cut it differently; its bytes
    must not land at its offsets.
    """
    if isinstance(frame, Close):
        raise ParentLost("the parent closed the connection instead of answering")
    if not isinstance(frame, PieceContent):
        raise RemoteProtocolError(f"no answer to a request: {frame}")
    said = Piece(frame.number, frame.offset, frame.length)
    if said != piece:
        raise RemoteProtocolError(f"asked for {piece}, was offered {said}")
    return frame
