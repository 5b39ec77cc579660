"""What both gRPC services of a daemon do with tasks: each method once, named for each kind."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any, ClassVar

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from pantala.core.policy import policy_of
from pantala.daemon.downloading.download import Arrived, Download, Overflowed, Started
from pantala.daemon.downloading.engine import Engine
from pantala.daemon.host.threads import Threads
from pantala.daemon.node import Node
from pantala.errors import TaskNotFound
from pantala.model.ids import check_task_id
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind, PieceRecord, Traffic
from pantala.model.urls import public_url
from pantala.pb import common_pb2, dfdaemon_pb2
from pantala.rpc.convert import (
    delivery,
    download_request,
    get,
    local_task_message,
    piece_message,
    plan_messages,
    put,
    task_message,
    with_fields,
)
from pantala.rpc.daemon_dialects import DAEMON_DIALECTS, STORED_AS_KEY, DaemonDialect
from pantala.storage.holding import Holding
from pantala.storage.home import Reason

from .entries import list_task_entries

Context = grpc.aio.ServicerContext[Any, Any]
#: A method of the contract; *context* is what gRPC knows of the call.
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]
Make = Callable[[DaemonDialect], Unary | Stream]


class TaskMethods(ABC):
    """The methods of one service that are there for each kind of task.

    Attributes:
        service: Which, as in the contract.

    Args:
        node: What all rooms share.
        engine: For downloads.
        dialects: The kinds.
    """

    service: ClassVar[str]

    def __init__(
        self,
        node: Node,
        engine: Engine,
        dialects: Mapping[Any, DaemonDialect] = DAEMON_DIALECTS,
    ) -> None:
        self._node = node
        self._engine = engine
        self._dialects = dialects

    def methods(self) -> dict[str, Any]:
        """Those of them that the contract has for this service, by name."""
        methods: dict[str, Any] = {
            dialect.name(pattern): make(dialect)
            for dialect in self._dialects.values()
            for pattern, make in self._table().items()
            if dialect.method(pattern, self.service)
        }
        return {**methods, "ListTaskEntries": self._list_task_entries}

    def _table(self) -> dict[str, Make]:
        """What makes the methods of each name."""
        return {
            "Download{}Task": self._download_task,
            "Stat{}Task": self._stat_task,
            "StatLocal{}Task": self._stat_local_task,
            "ListLocal{}Tasks": self._list_local_tasks,
            "Delete{}Task": self._delete_task,
            "DeleteLocal{}Task": self._delete_local_task,
        }

    # -- for each service to say -------------------------------------------------------------------

    @abstractmethod
    def _allow(self, content: DownloadRequest, how: Delivery) -> Delivery:
        """How a caller of this service gets what it wants. Raises Forbidden."""

    @abstractmethod
    async def _after(self, download: Download) -> None:
        """All of it is here."""

    # -- the methods ---------------------------------------------------------------------------

    def _download_task(self, dialect: DaemonDialect) -> Stream:
        response = dialect.message("Download{}TaskResponse")
        started = dialect.message("Download{}TaskStartedResponse")

        async def download_task(request: Any, context: Context) -> AsyncGenerator[Any, None]:
            message = dialect.wanted(request)
            content = download_request(dialect.kind, message)
            how = self._allow(content, delivery(message))
            async with self._engine.open(content, how) as download:
                async for event in download:
                    ids = {
                        "host_id": self._node.config.host_id,
                        "task_id": download.task_id,
                        "peer_id": download.peer_id,
                    }
                    if isinstance(event, Started):
                        first = _started(started, event, content)
                        yield response(**ids, **{dialect.started: first})
                    elif isinstance(event, Arrived):
                        for piece, traffic in event.pieces:
                            arrived = await _arrived(self._node.threads, download, piece, traffic)
                            yield response(**ids, download_piece_finished_response=arrived)
                    elif isinstance(event, Overflowed):
                        stored_as = DAEMON_DIALECTS[event.kind].name("{}Task")
                        context.set_trailing_metadata(((STORED_AS_KEY, stored_as.lower()),))
                await self._after(download)

        return download_task

    def _stat_task(self, dialect: DaemonDialect) -> Unary:
        """What the scheduler knows; without one, what is here."""
        kind, description = dialect.kind, dialect.message("{}Task")

        async def stat_task(request: Any, _: Context) -> Any:
            with self._counted(self._node.metrics.stat, dialect):
                task_id = check_task_id(request.task_id)
                message = await self._describe(kind, task_id)
                holding = self._node.stores.get(kind, task_id)
                if message is None or message.id != task_id:
                    if holding is None:
                        raise TaskNotFound(task_id)
                    message = task_message(
                        description, holding.record, holding.pieces, complete=holding.complete
                    )
                elif holding is not None and holding.complete:
                    # A scheduler counts no host that keeps what it has to itself.
                    put(message, "has_available_peer", holding.complete)
                # Not every scheduler keeps to itself what it should.
                put(message, "url", public_url(get(message, "url") or ""))
                if get(message, "request_header"):
                    message.ClearField("request_header")
                return message

        return stat_task

    def _stat_local_task(self, dialect: DaemonDialect) -> Unary:
        description = dialect.message("StatLocal{}TaskResponse")

        async def stat_local_task(request: Any, _: Context) -> Any:
            return local_task_message(description, self._held(dialect, request.task_id).record)

        return stat_local_task

    def _list_local_tasks(self, dialect: DaemonDialect) -> Unary:
        description = dialect.message("StatLocal{}TaskResponse")
        answer = dialect.message("ListLocal{}TasksResponse")

        async def list_local_tasks(_: Any, __: Context) -> Any:
            held = (h for h in self._node.stores if h.kind is dialect.kind)
            return answer(tasks=[local_task_message(description, h.record) for h in held])

        return list_local_tasks

    def _delete_task(self, dialect: DaemonDialect) -> Unary:
        """Delete here, and tell the scheduler before the answer."""

        async def delete_task(request: Any, _: Context) -> Empty:
            with self._counted(self._node.metrics.delete, dialect):
                holding = self._held(dialect, request.task_id)
                self._node.stores.remove(holding, Reason.DELETED)
                # Whoever asks the scheduler after this is answered that it is gone.
                await self._node.announcements.settle(dialect.kind, holding.id)
                return Empty()

        return delete_task

    def _delete_local_task(self, dialect: DaemonDialect) -> Unary:
        """Delete here. The scheduler hears of it as of any task that is here no longer: soon."""

        async def delete_local_task(request: Any, _: Context) -> Empty:
            with self._counted(self._node.metrics.delete, dialect):
                holding = self._held(dialect, request.task_id)
                self._node.stores.remove(holding, Reason.DELETED)
                return Empty()

        return delete_local_task

    async def _list_task_entries(self, request: Any, _: Context) -> Any:
        return await list_task_entries(self._engine, request)

    # -- parts of them -------------------------------------------------------------------------

    async def _describe(self, kind: Kind, task_id: str) -> Any:
        """The scheduler's words on a task; None: there are none, and what is here counts.

        Raises:
            TaskNotFound: It was imported, and is no more, although a copy may still be here.
            Unavailable: It was imported, and nobody who knows could be asked.
        """
        schedulers = self._node.schedulers
        if policy_of(kind).imported:
            return await schedulers.describe(kind, task_id)
        return await schedulers.stat_message(kind, task_id)

    def _held(self, dialect: DaemonDialect, task_id: str) -> Holding:
        """What is held of a task. Raises InvalidRequest, TaskNotFound."""
        holding = self._node.stores.get(dialect.kind, check_task_id(task_id))
        if holding is None:
            raise TaskNotFound(task_id)
        return holding

    @contextlib.contextmanager
    def _counted(self, count: Callable[..., None], dialect: DaemonDialect) -> Iterator[None]:
        """Count a call, and whether it went well."""
        good = False
        try:
            yield
            good = True
        finally:
            count(dialect.kind, ok=good)


def _started(message: type[Any], event: Started, request: DownloadRequest) -> Any:
    """The first message of a download; some kinds' say no more than the length."""
    whole = event.part == ByteRange(0, event.content_length) and request.range is None
    return with_fields(
        message,
        content_length=event.content_length,
        range=None if whole else common_pb2.Range(start=event.part.start, length=event.part.length),
        response_header=dict(event.response_header),
        pieces=plan_messages(event.pieces),
        is_finished=event.finished,
    )


async def _arrived(
    threads: Threads, download: Download, piece: PieceRecord, traffic: Traffic
) -> Any:
    message = piece_message(piece, traffic=traffic)
    if download.delivery.need_piece_content and download.holding is not None:
        # The one copy on this way: into the message.
        part = ByteRange(piece.offset, piece.length)
        extent = download.holding.extent(part)
        with contextlib.closing(extent), await threads.read(extent, 0, piece.length) as view:
            message.content = bytes(view)
    return dfdaemon_pb2.DownloadPieceFinishedResponse(piece=message)
