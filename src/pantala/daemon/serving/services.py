"""The daemon's gRPC services: DfdaemonDownload on its unix socket, DfdaemonUpload for other nodes,
and Node, our own. What two services do with tasks is in :mod:`.task_methods`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, cast

from google.protobuf.empty_pb2 import Empty

from pantala import BUILD_VERSION
from pantala.core.shares import Shares
from pantala.daemon.downloading.download import Download
from pantala.daemon.downloading.engine import Engine
from pantala.daemon.host.hostinfo import HostMeter
from pantala.daemon.importing.importer import Importer
from pantala.daemon.node import Node
from pantala.daemon.sharing.uploads import NodeUploads
from pantala.daemon.throttle import Throttle
from pantala.errors import (
    Busy,
    Forbidden,
    HostUnknown,
    InvalidRequest,
    NotFound,
    SchedulerLost,
    TaskNotFound,
)
from pantala.model.digest import piece_metadata_digest
from pantala.model.ids import check_task_id
from pantala.model.numbers import MAX_NUMBERS, Numbers
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind, Traffic
from pantala.pb import common_pb2, node_pb2
from pantala.rpc.convert import (
    delivery,
    download_request,
    import_request,
    kind_of,
    piece_message,
    timestamp,
)
from pantala.rpc.daemon_dialects import DOWNLOAD_SERVICE, UPLOAD_SERVICE, DaemonDialect
from pantala.rpc.service import address_of, reads, sends_headers
from pantala.storage.holding import Holding
from pantala.storage.home import Reason

from . import output
from .task_methods import Context, Make, Stream, TaskMethods, Unary

NODE_SERVICE: Final = "pantala.v1.Node"

#: Bytes that the streams may take on which children hear of pieces: all, and those of one address.
#: A stream counts for its request, which gRPC keeps to its end, for the numbers in it, and 16 KiB.
#: So a host may have 4,000 of them, or 250 that ask for 65,536 pieces each.
_STREAMS: Final = 256 << 20
_STREAMS_OF_ONE: Final = 64 << 20
_STREAM: Final = 16 << 10

#: Seconds for a scheduler to hear that this host leaves.
_GOODBYE_LIMIT: Final = 10.0

#: Seconds between two words on how this host feels, as Dragonfly's daemon.
_SYNC_INTERVAL: Final = 1.0


class _Wish(NamedTuple):
    """What a child wants to hear of; how many numbers it named, and the bytes that takes."""

    task_id: str
    numbers: Numbers
    asked: int
    size: int


class Admission:
    """Lets so many requests a second in; some more wait, the rest are refused.

    Args:
        rate: Requests a second.
        waiting: How many may wait.
    """

    def __init__(self, rate: int, waiting: int) -> None:
        self._throttle = Throttle(rate)
        self._room = waiting

    async def __call__(self, name: str) -> None:
        """Let a call in. Raises Busy."""
        if not self._room:
            raise Busy(f"{name}: too many requests; try again later")
        self._room -= 1
        try:
            await self._throttle.take(1)
        finally:
            self._room += 1


class DownloadService(TaskMethods):
    """``dfdaemon.v2.DfdaemonDownload``, for programs on this machine."""

    service = DOWNLOAD_SERVICE

    def __init__(self, node: Node, engine: Engine, importer: Importer) -> None:
        super().__init__(node, engine)
        self._importer = importer

    def _table(self) -> dict[str, Make]:
        return {**super()._table(), "Upload{}Task": self._upload_task}

    def methods(self) -> dict[str, Any]:
        """See the base class."""
        return {**super().methods(), "DeleteHost": self._delete_host}

    async def _delete_host(self, _: Any, __: Context) -> Empty:
        """Have every scheduler forget this host, until it is announced again."""
        await self._node.schedulers.delete_host(_GOODBYE_LIMIT)
        return Empty()

    def _upload_task(self, dialect: DaemonDialect) -> Unary:
        """Import a file of this machine."""

        async def upload_task(request: Any, _: Context) -> Any:
            config = self._node.config
            server, ttl = config.download.server, config.gc.policy.persistent_cache_task_ttl
            if not server.allow_import_path:
                raise Forbidden("this daemon imports no files: see download.server.allowImportPath")
            public = server.allow_import_path == "auto" and output.lends_rights(server)
            wanted = import_request(dialect.kind, request, ttl=ttl)
            self._node.gate.check_upload(wanted)
            return await self._importer.run(wanted, public=public)

        return upload_task

    def _allow(self, content: DownloadRequest, how: Delivery) -> Delivery:
        self._node.gate.check_download(content)
        if how.output_path is not None:
            output.check_allowed(self._node.config.download.server)
            output.check_path(how.output_path, overwrite=how.overwrite)
        return how

    async def _after(self, download: Download) -> None:
        how, holding = download.delivery, download.holding
        if how.output_path is None or holding is None:
            return
        path = output.check_path(how.output_path, overwrite=how.overwrite)
        whole = download.part == ByteRange(0, holding.total)
        in_file = self._node.stores[holding.kind].medium.decays
        file = holding.hand_off() if whole and in_file else None
        write = partial(
            output.write, path, file=file, overwrite=how.overwrite, hard_link=how.force_hard_link
        )
        with contextlib.closing(holding.extent(download.part)) as extent:
            # Its thread must let go of the bytes before the lease ends.
            writing = asyncio.get_running_loop().run_in_executor(None, write, extent)
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait((writing,))
                raise
            finally:
                if file is not None:
                    os.close(file)


class UploadService(TaskMethods):
    """``dfdaemon.v2.DfdaemonUpload``, for schedulers and other nodes."""

    service = UPLOAD_SERVICE

    def __init__(
        self,
        node: Node,
        engine: Engine,
        *,
        uploads: NodeUploads,
        facts: HostMeter,
        stopping: asyncio.Event,
        piece_port: int,
    ) -> None:
        super().__init__(node, engine)
        self._uploads = uploads
        self._facts = facts
        self._stopping = stopping
        #: How much the streams take on which children hear of pieces.
        self.streams = Shares(total=_STREAMS, each=_STREAMS_OF_ONE)
        self._piece_port = piece_port

    def _table(self) -> dict[str, Make]:
        return {
            **super()._table(),
            "Update{}Task": self._update_task,
            "Sync{}Pieces": self._sync_pieces,
            "Download{}Piece": self._download_piece,
        }

    def methods(self) -> dict[str, Any]:
        """See the base class."""
        return {**super().methods(), "SyncHost": self._sync_host}

    def _allow(self, content: DownloadRequest, how: Delivery) -> Delivery:  # noqa: ARG002  no list is for those who ask from afar
        """Whoever asks from afar has no say over this machine's files."""
        if how.output_path is not None:
            raise Forbidden("files are written for callers on this machine only")
        # A scheduler has other seeds to ask, and children wait for the answer.
        return replace(how, patient=False)

    async def _after(self, download: Download) -> None:
        # A scheduler asks for what it believes nobody has; it may have forgotten that we do. Of a
        # replica it knows from our answer, and has not yet.
        holding = download.holding
        told = download.request.persistent
        if download.was_here and holding is not None and not holding.gone and not told:
            await self._node.announcements.announce_now(holding)

    def _update_task(self, dialect: DaemonDialect) -> Unary:
        """The copy that is here becomes a replica, or is none any longer."""

        async def update_task(request: Any, _: Context) -> Empty:
            self._held(dialect, request.task_id).keep(persistent=request.persistent)
            return Empty()

        return update_task

    def _sync_pieces(self, dialect: DaemonDialect) -> Stream:
        response = dialect.message("Sync{}PiecesResponse")

        def read(request: Any, size: int) -> _Wish:
            numbers = getattr(request, dialect.numbers)
            asked = len(numbers)
            wanted = Numbers(numbers if asked <= MAX_NUMBERS else ())
            return _Wish(request.task_id, wanted, asked, _STREAM + wanted.size + size)

        @sends_headers
        @reads(read)
        async def sync_pieces(wish: _Wish, context: Context) -> AsyncGenerator[Any, None]:
            if wish.asked > MAX_NUMBERS:
                raise InvalidRequest(f"{wish.asked} pieces in one stream, at most {MAX_NUMBERS}")
            child = address_of(context)
            if not self.streams.fits(child, wish.size):
                raise Busy(f"{child} waits for too many pieces here; try again when some have come")
            with self.streams.hold(child, wish.size):
                holding = self._uploads.holding(dialect.kind, check_task_id(wish.task_id))
                await context.send_initial_metadata(await self._uploads.hello(holding))
                offers = self._uploads.offers(holding, wish.numbers)
                async with contextlib.aclosing(offers):
                    async for piece in offers:
                        yield response(
                            number=piece.number,
                            offset=piece.offset,
                            length=piece.length,
                            ip=self._node.config.host.ip,
                            tcp_port=self._piece_port,
                        )

        return sync_pieces

    def _download_piece(self, dialect: DaemonDialect) -> Unary:
        response = dialect.message("Download{}PieceResponse")

        async def download_piece(request: Any, _: Context) -> Any:
            task_id, number = check_task_id(request.task_id), request.piece_number
            piece, content = await self._uploads.copied(dialect.kind, task_id, number)
            message = piece_message(piece)
            message.ClearField("traffic_type")
            message.ClearField("cost")
            message.ClearField("created_at")
            message.content = content
            digest = piece_metadata_digest(number, piece.offset, piece.length, piece.digest)
            return response(piece=message, digest=digest)

        return download_piece

    async def _sync_host(self, _: Any, __: Context) -> AsyncGenerator[Any, None]:
        """What this host can still give, now and then."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            yield common_pb2.Host(network=self._facts.network(loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SYNC_INTERVAL):
                    await self._stopping.wait()


class NodeService:
    """``pantala.v1.Node``: what the contract cannot say."""

    def __init__(self, node: Node, engine: Engine) -> None:
        self._node = node
        self._engine = engine

    async def Info(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """Which program this is; see ``node.proto``."""
        return node_pb2.InfoResponse(
            version=BUILD_VERSION,
            host_id=self._node.config.host_id,
            handoff_path=str(self._node.config.download.server.handoff_path),
        )

    async def ListTasks(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """What is held here; see ``node.proto``."""
        wanted = request.type if request.HasField("type") else None
        all_stores = self._node.stores.all()
        stores = all_stores if wanted is None else [self._node.stores[kind_of(wanted)]]
        figures = [store.figures() for store in stores]
        return node_pb2.ListTasksResponse(
            tasks=[listed(h) for h in self._node.stores if wanted in (None, h.kind)],
            capacity_bytes=sum(each.capacity for each in figures),
            used_bytes=sum(each.used for each in figures),
        )

    async def DeleteTask(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """Delete a task here, or everywhere; see ``node.proto``."""
        kind, task_id = kind_of(request.type), check_task_id(request.task_id)
        answer = node_pb2.DeleteTaskResponse()
        if request.swarm:
            # First the others: while it is here, the scheduler knows of the task.
            with contextlib.suppress(NotFound):
                answer = await self._delete_elsewhere(kind, task_id)
        holding = self._node.stores.get(kind, task_id)
        if holding is not None:
            self._node.stores.remove(holding, Reason.DELETED)
            await self._node.announcements.settle(kind, task_id)
            if self._node.config.host_id not in answer.host_ids:
                answer.host_ids.append(self._node.config.host_id)
        if not answer.host_ids and not answer.failed:
            raise TaskNotFound(task_id)
        return answer

    async def RefreshTask(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """Have here what the origin has now; see ``node.proto``."""
        message = request.download
        how = delivery(message)
        if how.output_path is not None or how.need_piece_content:
            raise InvalidRequest(
                "a refresh hands nothing out: it has neither output_path nor need_piece_content"
            )
        wanted = download_request(kind_of(message.type), message)
        self._node.gate.check_download(wanted)
        async with self._engine.open(wanted, replace(how, refresh=True, again=True)) as download:
            async for _ in download:
                pass
            holding, came = download.holding, download.came
            return node_pb2.RefreshTaskResponse(
                task_id=download.task_id,
                content_length=0 if holding is None else holding.total,
                bytes_from_origin=came[Traffic.BACK_TO_SOURCE],
                bytes_from_peers=came[Traffic.REMOTE_PEER],
                bytes_from_cache=came[Traffic.LOCAL_PEER],
            )

    async def ListHolders(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002  the contract's name and shape
        """Which hosts hold how much of a task; see ``node.proto``."""
        kind_of(request.type)  # or it is refused here
        scheduler = self._node.schedulers.pick(check_task_id(request.task_id))
        if scheduler is None:
            raise SchedulerLost("no scheduler is available that knows who holds the task")
        return await scheduler.list_holders(request)

    async def _delete_elsewhere(self, kind: Kind, task_id: str) -> Any:
        scheduler = self._node.schedulers.pick(task_id)
        if scheduler is None:
            raise SchedulerLost("no scheduler is available that knows who else holds the task")
        try:
            return await scheduler.delete_from_swarm(self._node.config.host_id, kind, task_id)
        except HostUnknown:  # it has been started anew since we announced ourselves
            await self._node.announcements.introduce(task_id)
            return await scheduler.delete_from_swarm(self._node.config.host_id, kind, task_id)


def listed(holding: Holding) -> node_pb2.NodeTask:
    """What ``ListTasks`` says of a task."""
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
