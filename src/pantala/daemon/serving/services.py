"""The daemon's gRPC services: DfdaemonDownload on its unix socket, DfdaemonUpload for other nodes,
and Node, our own.

A method of the contract names the kind it is for; what it does is the same for each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

import structlog
from google.protobuf.empty_pb2 import Empty

from pantala import BUILD_VERSION
from pantala.core.bucket import Bucket
from pantala.core.shares import Shares
from pantala.daemon.downloading.download import Arrived, Download, Started
from pantala.daemon.downloading.engine import Engine
from pantala.daemon.host.hostinfo import HostFacts
from pantala.daemon.node import Node, take
from pantala.daemon.sharing.uploads import NodeUploads
from pantala.errors import Busy, DragonflyError, Forbidden, InvalidRequest, TaskNotFound
from pantala.model.digest import piece_metadata_digest
from pantala.model.ids import check_task_id
from pantala.model.numbers import MAX_NUMBERS, Numbers
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind, PieceRecord, Traffic
from pantala.model.urls import public_url
from pantala.pb import common_pb2, dfdaemon_pb2, node_pb2
from pantala.rpc.convert import (
    delivery,
    download_request,
    piece_message,
    plan_messages,
    task_message,
    timestamp,
)
from pantala.rpc.parent_link import CLOCK_KEY, DIGESTS_KEY, VERSION_KEY
from pantala.rpc.scheduler_link import Schedulers
from pantala.rpc.service import address_of, reads, sends_headers
from pantala.storage.holding import Holding
from pantala.storage.home import Reason

from . import output

logger = structlog.get_logger(__name__)

DOWNLOAD_SERVICE: Final = "dfdaemon.v2.DfdaemonDownload"
UPLOAD_SERVICE: Final = "dfdaemon.v2.DfdaemonUpload"
NODE_SERVICE: Final = "pantala.v1.Node"

#: Bytes that the streams may take on which children hear of pieces: all, and those of one address.
#: A stream counts for its request, which gRPC keeps to its end, for the numbers in it, and 16 KiB.
#: So a host may have 4,000 of them, or 250 that ask for 65,536 pieces each.
_STREAMS: Final = 256 << 20
_STREAMS_OF_ONE: Final = 64 << 20
_STREAM: Final = 16 << 10

#: Seconds between two words on how this host feels, as Dragonfly's daemon.
_SYNC_INTERVAL: Final = 1.0


class _Wish(NamedTuple):
    """What a child wants to hear of; how many numbers it named, and the bytes that takes."""

    task_id: str
    numbers: Numbers
    asked: int
    size: int


def _wish(request: Any, size: int) -> _Wish:
    numbers = request.interested_cache_piece_numbers
    asked = len(numbers)
    wanted = Numbers(numbers if asked <= MAX_NUMBERS else ())
    return _Wish(request.task_id, wanted, asked, _STREAM + wanted.size + size)


class Admission:
    """Lets so many requests a second in; some more wait, the rest are refused.

    Args:
        rate: Requests a second.
        waiting: How many may wait.
    """

    def __init__(self, rate: int, waiting: int) -> None:
        self._bucket = Bucket(rate)
        self._room = waiting

    async def __call__(self, name: str) -> None:
        """Let a call in. Raises Busy."""
        if not self._room:
            raise Busy(f"{name}: too many requests; try again later")
        self._room -= 1
        try:
            await take(self._bucket, 1)
        finally:
            self._room += 1


class _TaskService:
    """What both services do with tasks."""

    def __init__(self, node: Node, engine: Engine, schedulers: Schedulers) -> None:
        self._node = node
        self._engine = engine
        self._schedulers = schedulers

    async def _download(
        self, request: DownloadRequest, how: Delivery, response: type[Any], started: str
    ) -> AsyncIterator[Any]:
        """A download as messages of the type *response*, whose first has the arm *started*."""
        async with self._engine.open(request, how) as download:
            ids = {
                "host_id": self._node.host_id,
                "task_id": download.task_id,
                "peer_id": download.peer_id,
            }
            async for event in download:
                if isinstance(event, Started):
                    yield response(**ids, **{started: _started(event, request)})
                elif isinstance(event, Arrived):
                    for piece, traffic in event.pieces:
                        yield response(
                            **ids,
                            download_piece_finished_response=_arrived(download, piece, traffic),
                        )
            await self._after(download)

    async def _after(self, download: Download) -> None:
        """All of it is here."""

    async def _stat(self, kind: Kind, task_id: str) -> Any:
        """What the scheduler knows; without one, what is here."""
        good = False
        try:
            check_task_id(task_id)
            message = await self._schedulers.stat_message(kind, task_id)
            holding = self._node.holdings.get(kind, task_id)
            if message is None or message.id != task_id:
                if holding is None:
                    raise TaskNotFound(task_id)
                message = task_message(holding.record, holding.pieces, complete=holding.complete)
            elif holding is not None and holding.complete:
                # A scheduler counts no host that keeps what it has to itself.
                message.has_available_peer = True
            # Not every scheduler keeps to itself what it should.
            message.url = public_url(message.url)
            message.ClearField("request_header")
            good = True
            return message
        finally:
            self._node.metrics.stat(kind, ok=good)

    async def _delete(self, kind: Kind, task_id: str) -> Empty:
        """Delete here, and tell the scheduler."""
        good = False
        try:
            check_task_id(task_id)
            holding = self._node.holdings.get(kind, task_id)
            if holding is None:
                raise TaskNotFound(task_id)
            self._node.holdings.remove(holding, Reason.DELETED)
            # Whoever asks the scheduler after this is answered that it is gone.
            with contextlib.suppress(DragonflyError):
                await self._schedulers.delete_task(kind, task_id)
            good = True
            return Empty()
        finally:
            self._node.metrics.delete(kind, ok=good)

    # The contract's names, one kind each.

    async def StatCacheTask(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """See the contract."""
        return await self._stat(Kind.CACHE, request.task_id)

    async def DeleteCacheTask(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """See the contract."""
        return await self._delete(Kind.CACHE, request.task_id)


class DownloadService(_TaskService):
    """``dfdaemon.v2.DfdaemonDownload``, for programs on this machine."""

    async def DownloadCacheTask(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802, ARG002  the contract's name and shape
        """See the contract."""
        wanted, how = download_request(Kind.CACHE, request), delivery(request)
        if how.output_path is not None:
            output.check_allowed(self._node.config.download.server)
            output.check_path(how.output_path, overwrite=how.overwrite)
        response = dfdaemon_pb2.DownloadCacheTaskResponse
        async for message in self._download(
            wanted, how, response, "download_cache_task_started_response"
        ):
            yield message

    async def _after(self, download: Download) -> None:
        how, holding = download.delivery, download.holding
        if how.output_path is None or holding is None:
            return
        path = output.check_path(how.output_path, overwrite=how.overwrite)
        loop = asyncio.get_running_loop()
        with holding.view(download.part) as view:
            # Its thread must let go of the bytes before the lease ends.
            writing = loop.run_in_executor(
                None, lambda: output.write(path, view, overwrite=how.overwrite)
            )
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait((writing,))
                raise


class UploadService(_TaskService):
    """``dfdaemon.v2.DfdaemonUpload``, for schedulers and other nodes."""

    def __init__(
        self,
        node: Node,
        engine: Engine,
        schedulers: Schedulers,
        *,
        uploads: NodeUploads,
        facts: HostFacts,
        stopping: asyncio.Event,
    ) -> None:
        super().__init__(node, engine, schedulers)
        self._uploads = uploads
        self._facts = facts
        self._stopping = stopping
        self._streams = Shares(total=_STREAMS, each=_STREAMS_OF_ONE)
        #: Where children get pieces by Vortex; set once the server listens.
        self.piece_port = 0

    async def DownloadCacheTask(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802, ARG002  the contract's name and shape
        """See the contract. Whoever asks from afar has no say over this machine's files."""
        # A scheduler has other seeds to ask, and children wait for the answer.
        wanted, how = (
            download_request(Kind.CACHE, request),
            replace(delivery(request), patient=False),
        )
        if how.output_path is not None:
            raise Forbidden("files are written for callers on this machine only")
        response = dfdaemon_pb2.DownloadCacheTaskResponse
        async for message in self._download(
            wanted, how, response, "download_cache_task_started_response"
        ):
            yield message

    async def _after(self, download: Download) -> None:
        # A scheduler asks for what it believes nobody has; it may have forgotten that we do.
        holding = download.holding
        if download.was_here and holding is not None and not holding.gone:
            await self._node.announcements.announce_now(holding)

    @sends_headers
    @reads(_wish)
    async def SyncCachePieces(self, wish: _Wish, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """See the contract."""
        if wish.asked > MAX_NUMBERS:
            raise InvalidRequest(f"{wish.asked} pieces in one stream, at most {MAX_NUMBERS}")
        child = address_of(context)
        if not self._streams.fits(child, wish.size):
            raise Busy(f"{child} waits for too many pieces here; try again when some have come")
        with self._streams.hold(child, wish.size):
            holding = self._uploads.holding(Kind.CACHE, check_task_id(wish.task_id))
            version = quote(await self._uploads.version(holding), safe="")
            clock = str(self._node.holdings.now())
            hello = (VERSION_KEY, version), (DIGESTS_KEY, holding.digests), (CLOCK_KEY, clock)
            await context.send_initial_metadata(hello)
            offers = _plain(self._uploads.offers(holding, wish.numbers))
            async with contextlib.aclosing(offers):
                async for piece in offers:
                    yield dfdaemon_pb2.SyncCachePiecesResponse(
                        number=piece.number,
                        offset=piece.offset,
                        length=piece.length,
                        ip=self._node.config.host.ip,
                        tcp_port=self.piece_port,
                    )

    async def DownloadCachePiece(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """See the contract."""
        task_id = check_task_id(request.task_id)
        async with self._uploads.piece(Kind.CACHE, task_id, request.piece_number) as (piece, view):
            await self._uploads.pace(piece.length)
            message = piece_message(piece)
            message.ClearField("traffic_type")
            message.ClearField("cost")
            message.ClearField("created_at")
            message.content = bytes(view)
        digest = piece_metadata_digest(piece.number, piece.offset, piece.length, piece.digest)
        return dfdaemon_pb2.DownloadCachePieceResponse(piece=message, digest=digest)

    async def SyncHost(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802, ARG002  the contract's name and shape
        """See the contract."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            yield common_pb2.Host(network=self._facts.network(loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SYNC_INTERVAL):
                    await self._stopping.wait()


class NodeService:
    """``pantala.v1.Node``: what the contract cannot say."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def Info(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """See node.proto."""
        return node_pb2.InfoResponse(
            version=BUILD_VERSION,
            host_id=self._node.host_id,
            handoff_path=str(self._node.config.download.server.handoff_path),
        )

    async def ListTasks(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """See node.proto."""
        figures = self._node.holdings.figures()
        wanted = request.type if request.HasField("type") else None
        return node_pb2.ListTasksResponse(
            tasks=[_listed(h) for h in self._node.holdings if wanted in (None, h.kind)],
            capacity_bytes=figures.capacity,
            used_bytes=figures.used,
        )


def _started(event: Started, request: DownloadRequest) -> Any:
    message = dfdaemon_pb2.DownloadCacheTaskStartedResponse(
        content_length=event.content_length,
        response_header=dict(event.response_header),
        pieces=plan_messages(event.pieces),
        is_finished=event.finished,
    )
    if event.part != ByteRange(0, event.content_length) or request.range is not None:
        message.range.start, message.range.length = event.part.start, event.part.length
    return message


def _arrived(download: Download, piece: PieceRecord, traffic: Traffic) -> Any:
    message = piece_message(piece, traffic=traffic)
    if download.delivery.need_piece_content and download.holding is not None:
        # The one copy on this way: into the message.
        with download.holding.view(ByteRange(piece.offset, piece.length)) as view:
            message.content = bytes(view)
    return dfdaemon_pb2.DownloadPieceFinishedResponse(piece=message)


def _listed(holding: Holding) -> node_pb2.NodeTask:
    record = holding.record
    message = node_pb2.NodeTask(
        id=record.id,
        url=record.url,
        tag=record.tag,
        application=record.application,
        piece_length=record.piece_length or 0,
        content_length=record.content_length or 0,
        piece_count=record.piece_count or 0,
        finished_piece_count=len(holding.pieces),
        reserved_bytes=holding.reserved_bytes,
        lease_count=holding.lease_count,
        uploaded_count=record.uploaded_count,
        created_at=timestamp(record.created_at),
        updated_at=timestamp(record.updated_at),
    )
    message.type = cast("common_pb2.TaskType.ValueType", record.kind.value)
    if record.finished_at is not None:
        message.finished_at.CopyFrom(timestamp(record.finished_at))
    if record.failed_at is not None:
        message.failed_at.CopyFrom(timestamp(record.failed_at))
    return message


def _plain(events: AsyncIterator[Any]) -> Any:
    """An async generator as what it is, for ``aclosing``."""
    return events
