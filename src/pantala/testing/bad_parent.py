"""A peer that a scheduler believes in, and that serves pieces as a test wants it to.

Its gRPC server and its piece server are real; it registers like a daemon that holds all of a
content. What it sends for a piece is decided by a :data:`Conduct`::

    with BadParent(cluster.scheduler_port, task_id, content, conduct=corrupt) as parent:
        ...                       # children of that scheduler are sent to it
        assert parent.asked       # and this is what they wanted of it
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import grpc

from pantala.core.policy import policy_of
from pantala.errors import VortexCode
from pantala.model import announce
from pantala.model.announce import Registration, Report
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece, piece_length_for, pieces_for
from pantala.model.task import DownloadRequest, Kind, Traffic
from pantala.pb import common_pb2, exchange_pb2, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.daemon_dialects import UPLOAD_SERVICE, daemon_dialect
from pantala.rpc.dialects import dialect_of
from pantala.rpc.parent_link import VERSION_KEY
from pantala.rpc.transport import channel_options
from pantala.wire.vortex import (
    TO_SERVER,
    ErrorFrame,
    FrameDecoder,
    PieceContent,
    PieceRequest,
    content_tag,
)

# Every wait here ends, so that a test that goes wrong fails instead of hanging.
_PATIENCE: Final = 30.0


class Request:
    """A child's request for a piece, to be answered by a :data:`Conduct`.

    Attributes:
        piece: The piece that is wanted.
        head: The frame that an honest parent would send first.
        content: The bytes that it would send next.
        released: Set when the test lets those who stall go on.
    """

    def __init__(
        self, sock: socket.socket, request: PieceRequest, parent: BadParent, piece: Piece
    ) -> None:
        self.piece = piece
        self.content = parent.content[piece.offset : piece.offset + piece.length]
        self.released = parent.released
        self._sock = sock
        self._tag = content_tag(request.tag)
        self.head = self.head_of(piece)

    def head_of(self, piece: Piece) -> bytes:
        """The frame that announces *piece* with the digest of this request's content."""
        return PieceContent(
            tag=self._tag,
            number=piece.number,
            offset=piece.offset,
            length=piece.length,
            digest=piece_digest(crc32(self.content)),
            parent_id=None,
            traffic=Traffic.BACK_TO_SOURCE,
            cost=0,
            created_at=0,
        ).encode()

    def send(self, data: bytes) -> None:
        """Send *data*. Raises OSError when the child has gone."""
        self._sock.sendall(data)

    def drip(self, data: bytes) -> None:
        """Send *data* a byte a second, for as long as the child takes it."""
        for byte in data:
            self.send(bytes((byte,)))
            if self.released.wait(1.0):
                return


#: Answers one request; the connection is closed when it returns.
Conduct = Callable[[Request], None]

#: What is said to a child that exchanges, after the first word; the stream ends when it returns.
Talk = Callable[["BadParent"], Iterator[Any]]


def honest(request: Request) -> None:
    """The piece, as it should be."""
    request.send(request.head + request.content)


def corrupt(request: Request) -> None:
    """One bit of the content is wrong."""
    middle = len(request.content) // 2
    flipped = bytes((request.content[middle] ^ 1,))
    request.send(request.head + request.content[:middle] + flipped + request.content[middle + 1 :])


def cut(request: Request) -> None:
    """The connection ends in the middle."""
    request.send(request.head + request.content[: len(request.content) // 2])


def stall(request: Request) -> None:
    """Half of it; the rest, which is wrong, when the test releases it."""
    half = len(request.content) // 2
    request.send(request.head + request.content[:half])
    request.released.wait(_PATIENCE)
    request.send(bytes(len(request.content) - half))


def trickle(request: Request) -> None:
    """A byte of content a second."""
    request.send(request.head)
    request.drip(request.content)


def trickle_head(request: Request) -> None:
    """A byte of the frame a second."""
    request.drip(request.head)


def say_nothing(request: Request) -> None:
    """The request is read, and that is all."""
    request.released.wait(_PATIENCE)


def babble(request: Request) -> None:
    """What is sent is no frame of Vortex at all."""
    request.send(b"\xfe\xedHTTP/1.1 200 OK\r\n\r\n" * 100)


def half_a_frame(request: Request) -> None:
    """The connection ends inside the frame."""
    request.send(request.head[:20])


def another_piece(request: Request) -> None:
    """A proper answer to a question that was not asked."""
    piece = request.piece
    moved = Piece(piece.number + 1, piece.offset + piece.length, piece.length)
    request.send(request.head_of(moved) + request.content)


def longer_piece(request: Request) -> None:
    """More bytes than the piece has room for."""
    piece = request.piece
    longer = Piece(piece.number, piece.offset, piece.length + 1)
    request.send(request.head_of(longer) + request.content + b"!")


def deny(request: Request) -> None:
    """What was offered is not there."""
    request.send(ErrorFrame(VortexCode.NOT_FOUND, "no such piece").encode())


class BadParent:
    """See the module. A context manager: inside, the scheduler offers it to children.

    Args:
        scheduler_port: Of a scheduler on this machine.
        task_id: The task that it claims to hold.
        content: All of its bytes.
        conduct: How it answers requests for pieces.
        url: As the task was registered.
        offers: How many of the pieces that a child asks about it says it has; after them its
            stream stays open and silent. None: all of them, and the stream ends.
        name: Of its host.
        ip: Where its pieces are said to be, and are; its host announces 127.0.0.1.
        kind: Of the task.
        talk: How it exchanges. None: it does not, and answers UNIMPLEMENTED.

    Attributes:
        asked: The numbers of the pieces that children asked for, in order.
        released: Set it to let those who stall go on.
    """

    def __init__(
        self,
        scheduler_port: int,
        task_id: str,
        content: bytes,
        *,
        conduct: Conduct = honest,
        url: str = "http://origin/f",
        offers: int | None = None,
        name: str = "bad",
        version: str | None = None,
        ip: str = "127.0.0.1",
        kind: Kind = Kind.CACHE,
        talk: Talk | None = None,
    ) -> None:
        self.kind = kind
        self.task_id = task_id
        self.content = content
        self.conduct = conduct
        self.offers = offers
        self.asked: list[int] = []
        self.released = threading.Event()
        self.piece_length = piece_length_for(len(content), least=policy_of(kind).least_piece)
        self._url = url
        self._name = name
        self._ip = ip
        self._hello = () if version is None else ((VERSION_KEY, quote(version, safe="")),)
        self._listener = socket.create_server((ip, 0))
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(32, "bad-parent"))
        self._dialect = daemon_dialect(self.kind)
        sync = grpc.unary_stream_rpc_method_handler(
            self._offer,
            request_deserializer=self._dialect.message("Sync{}PiecesRequest").FromString,
            response_serializer=self._dialect.message("Sync{}PiecesResponse").SerializeToString,
        )
        handlers = {self._dialect.name("Sync{}Pieces"): sync}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(UPLOAD_SERVICE, handlers),)
        )
        if talk is not None:
            self._exchange(talk)
        self._grpc_port = self._server.add_insecure_port("127.0.0.1:0")
        target = f"127.0.0.1:{scheduler_port}"
        self._channel = grpc.insecure_channel(target, channel_options(target))
        self._scheduler = scheduler_pb2_grpc.SchedulerStub(self._channel)

    @property
    def port(self) -> int:
        """Where pieces are to be had."""
        bound: int = self._listener.getsockname()[1]
        return bound

    def __enter__(self) -> Self:
        self._server.start()
        self._start(self._accept)
        self._announce()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.released.set()
        self._channel.close()
        self._server.stop(0).wait(_PATIENCE)
        # Closing would wake neither the accept nor those who receive.
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):  # the child hung up first
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)
        self._listener.close()

    # -- the scheduler -------------------------------------------------------------------------

    def _announce(self) -> None:
        host = common_pb2.Host(
            id=self._name,
            hostname=self._name,
            ip="127.0.0.1",
            port=self._grpc_port,
            download_port=self._grpc_port,
            build=common_pb2.Build(git_version="pantala/bad"),
            network=common_pb2.Network(max_tx_bandwidth=10**12),
        )
        self._scheduler.AnnounceHost(
            scheduler_pb2.AnnounceHostRequest(host=host), timeout=_PATIENCE
        )
        peer = Registration(
            host_id=self._name,
            task_id=self.task_id,
            peer_id=f"{self._name}-peer",
            request=DownloadRequest(self.kind, self._url, need_back_to_source=True),
            content_length=len(self.content),
            piece_length=self.piece_length,
            piece_count=len(self.pieces()),
        )
        dialect = dialect_of(self.kind)
        says: queue.SimpleQueue[Registration | Report] = queue.SimpleQueue()
        says.put(peer)
        call = getattr(self._scheduler, dialect.announce)
        for answer in call(self._messages(peer, says), timeout=_PATIENCE):
            said = dialect.codec.decode_answer(answer)
            assert isinstance(said, announce.NeedBackToSource), answer
            says.put(announce.SourceStarted())
            says.put(announce.SourceFinished())

    def _messages(
        self, peer: Registration, says: queue.SimpleQueue[Registration | Report]
    ) -> Iterator[Any]:
        codec = dialect_of(self.kind).codec
        while True:
            try:
                said = says.get(timeout=_PATIENCE)
            except queue.Empty:
                return
            yield codec.encode(peer, said)

    # -- children ------------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="bad-parent")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # shut down
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
        try:
            with sock, contextlib.suppress(OSError):  # a child may leave whenever it wants
                self._answer(sock)
        finally:
            with self._lock:
                self._open.discard(sock)

    def _answer(self, sock: socket.socket) -> None:
        decoder = FrameDecoder(TO_SERVER)
        while (request := decoder.next_frame()) is None:
            data = sock.recv(decoder.missing)
            if not data:
                return
            decoder.receive(data)
        assert isinstance(request, PieceRequest)
        assert request.tag == policy_of(self.kind).request_tag
        self.asked.append(request.number)
        self.conduct(Request(sock, request, self, self.pieces()[request.number]))

    def pieces(self) -> list[Piece]:
        """How the content is cut."""
        return pieces_for(None, content_length=len(self.content), piece_length=self.piece_length)

    def _exchange(self, talk: Talk) -> None:
        def follow(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            context.send_initial_metadata(self._hello)
            next(requests)
            yield exchange_pb2.FollowResponse(
                content_length=len(self.content),
                piece_length=self.piece_length,
                ip=self._ip,
                tcp_port=self.port,
            )
            yield from talk(self)

        handler = grpc.stream_stream_rpc_method_handler(
            follow,
            request_deserializer=exchange_pb2.FollowRequest.FromString,
            response_serializer=exchange_pb2.FollowResponse.SerializeToString,
        )
        service = exchange_pb2.DESCRIPTOR.services_by_name["Exchange"].full_name
        handlers = grpc.method_handlers_generic_handler(service, {"Follow": handler})
        self._server.add_generic_rpc_handlers((handlers,))

    def _offer(self, request: Any, context: Any) -> Iterator[Any]:
        context.send_initial_metadata(self._hello)
        pieces, offer = self.pieces(), self._dialect.message("Sync{}PiecesResponse")
        for number in sorted(getattr(request, self._dialect.numbers))[: self.offers]:
            piece = pieces[number]
            yield offer(
                number=number,
                offset=piece.offset,
                length=piece.length,
                ip=self._ip,
                tcp_port=self.port,
            )
        if self.offers is not None:
            self.released.wait(_PATIENCE)
