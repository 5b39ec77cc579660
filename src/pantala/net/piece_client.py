"""Fetches pieces from parents, straight into where they belong.

Blocking code for worker threads. Connections are kept per parent and used again where the
parent allows it; Dragonfly's own daemons close theirs after each piece, which is no fault.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import OrderedDict, deque
from typing import Final, NamedTuple

from pantala.core.pace import SLEPT
from pantala.errors import (
    DigestMismatch,
    NotFound,
    ParentLost,
    RemoteProtocolError,
    VortexCode,
)
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece
from pantala.ports import Sink
from pantala.wire.vortex import (
    Close,
    ErrorFrame,
    Frame,
    FrameDecoder,
    PieceContent,
    PieceRequest,
    to_client,
)

from .sockets import MIN_RATE, hang_up, set_limit, tune

#: Bytes received by one call and then hashed while they are still in the processor's cache.
CHUNK: Final = 1 << 20

CONNECT_TIMEOUT: Final = 2.0  # seconds; as Dragonfly's client

#: Seconds after which a call that waits for bytes returns with those that came. How precisely a
#: stall is measured depends on it, and :attr:`PieceFetch.received` is as old as that at most.
LOOK: Final = 0.25

#: Bytes read at once of an answer: all that comes before the piece's own, mostly, and some of them.
_ANSWER: Final = 512

#: Idle connections kept per parent; as many as a download fetches at once.
MAX_IDLE: Final = 8

#: Idle connections kept in all: a descriptor each, also of those that the parent has closed since.
MAX_IDLE_IN_ALL: Final = 512


class Address(NamedTuple):
    """Where a parent serves pieces."""

    ip: str
    port: int


class TimeLimits(NamedTuple):
    """How long to wait for a parent, seconds.

    Attributes:
        request: From the request until its answer is here, but for the piece's bytes; no longer
            than *stall*.
        stall: Without a single byte.
        piece: For all bytes of the piece, from the first.
    """

    request: float
    stall: float
    piece: float


class Connections:
    """Idle connections to parents, for use by many threads.

    Args:
        per_parent: How many are kept to one parent.
        in_all: How many are kept; beyond, the one of the parent used longest ago is closed.
    """

    def __init__(self, *, per_parent: int = MAX_IDLE, in_all: int = MAX_IDLE_IN_ALL) -> None:
        self._per_parent = per_parent
        self._in_all = in_all
        self._lock = threading.Lock()
        #: The parent used longest ago first, and of each the connection; none is empty.
        self._idle: OrderedDict[Address, deque[socket.socket]] = OrderedDict()
        self._count = 0
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def take(self, address: Address) -> socket.socket | None:
        """An idle connection that the parent has not closed, if there is one."""
        while True:
            with self._lock:
                if address not in self._idle:
                    return None
                sock = self._idle[address].pop()
                self._taken(address)
            if _is_quiet(sock):
                return sock
            sock.close()

    def give_back(self, address: Address, sock: socket.socket) -> None:
        """Keep a connection on which nothing is outstanding."""
        with self._lock:
            spare = sock if self._closed else self._keep(address, sock)
        if spare is not None:
            spare.close()

    def close(self) -> None:
        """Close all idle connections, and those given back later."""
        with self._lock:
            self._closed = True
            idle, self._idle, self._count = self._idle, OrderedDict(), 0
        for socks in idle.values():
            for sock in socks:
                sock.close()

    def _keep(self, address: Address, sock: socket.socket) -> socket.socket | None:
        """Keep *sock*; the one that has to go for it, if any has."""
        idle = self._idle.setdefault(address, deque())
        idle.append(sock)
        self._idle.move_to_end(address)
        self._count += 1
        if len(idle) <= self._per_parent:
            if self._count <= self._in_all:
                return None
            address = next(iter(self._idle))
        spare = self._idle[address].popleft()
        self._taken(address)
        return spare

    def _taken(self, address: Address) -> None:
        self._count -= 1
        if not self._idle[address]:
            del self._idle[address]


class PieceFetch:
    """One piece from one parent.

    Args:
        connections: Where to find and leave a connection.
        address: The parent.
        request: What to ask for.
        piece: What the answer must be; anything else is the parent's fault.
        into: As long as the piece.
        limits: How long to wait.
        not_after: Unix time, by the parent's clock, after which it must not have got the piece;
            None: it may have at any time.
    """

    def __init__(
        self,
        connections: Connections,
        address: Address,
        request: PieceRequest,
        piece: Piece,
        into: Sink,
        *,
        limits: TimeLimits,
        not_after: float | None = None,
    ) -> None:
        self._connections = connections
        self._not_after = not_after
        self._address = address
        self._request = request
        self._piece = piece
        self._into = into
        self._limits = limits
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._aborted = False
        #: Bytes of the piece that are here; None until somebody has begun to fetch it. Any thread
        #: may read it.
        self.received: int | None = None
        #: Seconds that it took, once :meth:`run` has returned.
        self.seconds = 0.0

    def abort(self) -> None:
        """Make :meth:`run` fail soon, from any thread. It has let go of the sink once it did."""
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
            StoreFailed: The bytes cannot be kept here.
        """
        self.received, began = 0, time.monotonic()
        digest = self._run()
        self.seconds = time.monotonic() - began
        return digest

    def _run(self) -> str:
        kept = self._connections.take(self._address)
        if kept is not None:
            with contextlib.suppress(_Stale):
                return self._use(kept, fresh=False)
        return self._use(self._connect(), fresh=True)

    def _connect(self) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, timeout=CONNECT_TIMEOUT)
        except (OSError, ValueError) as error:  # ValueError: a name that is none
            raise ParentLost(f"parent {self._who}: cannot connect: {error}") from error
        sock.settimeout(None)
        tune(sock)
        set_limit(sock, socket.SO_SNDTIMEO, self._limits.stall)
        return sock

    @property
    def _who(self) -> str:
        return f"{self._address.ip}:{self._address.port}"

    def _use(self, sock: socket.socket, *, fresh: bool) -> str:
        with self._lock:
            if self._aborted:
                sock.close()
                raise ParentLost(f"parent {self._who}: given up")
            self._sock = sock
        reusable = False
        try:
            frame, begun = self._ask(sock, fresh=fresh)
            if isinstance(frame, ErrorFrame):
                reusable = not begun
                raise _as_error(frame, self._who)
            content = _expect(frame, self._piece)
            if self._not_after is not None and content.created_at > self._not_after:
                raise NotFound(f"parent {self._who}: has the piece anew since it was offered")
            digest, reusable = self._receive(sock, content, begun)
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

    def _ask(self, sock: socket.socket, *, fresh: bool) -> tuple[Frame, bytes]:
        """Send the request and read what comes before the bytes, and perhaps the first of them."""
        decoder = FrameDecoder(to_client(self._request.tag))
        began = False
        limit = min(self._limits.request, self._limits.stall)
        late = time.monotonic() + limit
        try:
            sock.sendall(self._request.encode())
            while (frame := decoder.next_frame()) is None:
                try:
                    data = _more(sock, late)
                except BlockingIOError:
                    if time.monotonic() < late + SLEPT:
                        raise
                    late = time.monotonic() + limit  # it is we who slept
                    continue
                began = True
                decoder.receive(data)
        except BlockingIOError:
            raise ParentLost(f"parent {self._who}: no answer in time") from None
        except OSError:
            if fresh or began or self._aborted:
                raise
            # An idle connection may have been closed just now; a fresh one will tell.
            raise _Stale from None
        return frame, decoder.release()

    def _receive(
        self, sock: socket.socket, content: PieceContent, begun: bytes
    ) -> tuple[str, bool]:
        """Receive the bytes, of which those that have *begun* are here; each chunk is hashed then.

        A call that waits for a whole chunk returns a part of it, or none, when its time is up. So
        its time is short, and what counts is when bytes came last. Returns the digest, and whether
        nothing came beyond the piece.
        """
        set_limit(sock, socket.SO_RCVTIMEO, min(LOOK, self._limits.stall))
        started = came = looked = time.monotonic()
        deadline = started + self._limits.piece
        at = crc = 0
        while at < self._piece.length:
            with self._into.window(at) as window, window[:CHUNK] as chunk:
                n, begun = _take(sock, chunk, begun), begun[len(chunk) :]
                if n > 0:
                    with chunk[:n] as fresh:
                        crc = crc32(fresh, crc)
            if n > 0:
                self._into.wrote(at, n)
                self.received = at = at + n
            if at < self._piece.length:
                now = time.monotonic()
                slept = now - looked if now - looked > LOOK + SLEPT else 0.0  # we, not the parent
                looked, started, deadline = now, started + slept, deadline + slept
                came = now if n > 0 else came + slept
                self._judge(n, silent=now - came, spent=now - started, late=now > deadline)
        digest = piece_digest(crc)
        # Dragonfly's daemons announce no digest for a piece of which they computed none.
        if content.digest and digest != content.digest:
            what = f"piece {self._piece.number} from {self._who}"
            raise DigestMismatch(what, want=content.digest, got=digest)
        return digest, not begun

    def _judge(self, n: int, *, silent: float, spent: float, late: bool) -> None:
        """Give the parent up when it is gone, stalled or too slow."""
        if n == 0:
            raise ParentLost(f"parent {self._who}: connection closed {self._so_far}")
        if silent >= self._limits.stall:
            raise ParentLost(
                f"parent {self._who}: nothing for {self._limits.stall:g} s {self._so_far}"
            )
        # After a grace of one stall limit the piece is better asked of somebody else.
        if late or (self.received or 0) < MIN_RATE * (spent - self._limits.stall):
            raise ParentLost(f"parent {self._who}: too slow, given up {self._so_far}")

    @property
    def _so_far(self) -> str:
        return f"after {self.received or 0} of {self._piece.length} bytes"


class _Stale(Exception):
    """An idle connection turned out to be closed; nothing was received on it."""


def _more(sock: socket.socket, late: float) -> bytes:
    """The next bytes of an answer. Raises BlockingIOError when it is *late* before they come."""
    left = late - time.monotonic()
    if left <= 0:
        raise BlockingIOError
    set_limit(sock, socket.SO_RCVTIMEO, left)
    data = sock.recv(_ANSWER)
    if not data:
        raise ConnectionResetError("connection closed before an answer")
    return data


def _take(sock: socket.socket, chunk: memoryview, begun: bytes) -> int:
    """Fill *chunk* with what has *begun*, and then is received; with how much. -1: nothing yet."""
    here = min(len(begun), len(chunk))
    chunk[:here] = begun[:here]
    if here == len(chunk):
        return here
    try:
        with chunk[here:] as rest:
            return here + sock.recv_into(rest, 0, socket.MSG_WAITALL)
    except BlockingIOError:
        return here or -1


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
