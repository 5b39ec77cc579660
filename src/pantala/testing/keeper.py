"""A daemon that imports files and keeps replicas, played from a script over real gRPC.

It has no bytes; it says what a daemon says that has them, and answers as one. What it has stays
with it when it is stopped, and is there when it starts again, as on a disk::

    async with Keeper("a", ports) as a, Keeper("b", ports) as b:
        await a.imports("t", replicas=2)      # the scheduler now asks b
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty

from pantala import BUILD_VERSION
from pantala.background import Loops
from pantala.pb import common_pb2, dfdaemon_pb2, node_pb2, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.scheduler import SECRET_KEY
from pantala.rpc.server import new_server
from pantala.rpc.service import add_service
from pantala.rpc.transport import bind, channel_options

from .announce import until
from .stage import MIB, task_id

#: Seconds that any one call may take before a test fails.
_LIMIT: Final = 30.0

_Context = grpc.aio.ServicerContext[Any, Any]
_numbers = itertools.count()


class Keeper:
    """A context manager; it is stopped as if it had been killed.

    Args:
        name: Its host id.
        schedulers: Ports on this machine. It announces itself to all, and registers for a task at
            the first, unless it is told otherwise.
        interval: Seconds between announcements.
        host: More of what it announces, such as ``disable_shared=True``.

    Attributes:
        held: Tasks that it has, by id: whether it keeps them.
        importing: Peers by which it imports, for all that a scheduler may ask.
        asked: What it was asked, in order: the method, and the task's id.
        release: Unset, downloads, and what is asked of a copy, wait for it to be set.
        refuse_with: It refuses downloads with this.
        registers_at: The place of the scheduler that it tells when it is asked for a replica.
    """

    def __init__(
        self,
        name: str,
        schedulers: Sequence[int],
        *,
        interval: float = 0.5,
        disk_free: int = 1 << 40,
        idc: str = "",
        **host: Any,
    ) -> None:
        self.name = name
        self._schedulers = list(schedulers)
        self._interval = interval
        self._described = {
            "disk": common_pb2.Disk(free=disk_free),
            "build": common_pb2.Build(git_version=BUILD_VERSION),
            **host,
        }
        self._idc = idc
        self.held: dict[str, bool] = {}
        self.importing: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.release = asyncio.Event()
        self.release.set()
        self.refuse_with: grpc.StatusCode | None = None
        self.registers_at = 0
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._loops = Loops()
        self._channels: list[grpc.aio.Channel] = []
        self._secret = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Serve, and announce itself."""
        self._secret = secrets.token_hex(8)
        self._loops = Loops()
        self._server = new_server()
        add_service(self._server, "dfdaemon.v2.DfdaemonUpload", self)
        add_service(self._server, "pantala.v1.Copies", self)
        self._port = bind(self._server, "127.0.0.1:0")
        await self._server.start()
        for port in self._schedulers:
            target = f"127.0.0.1:{port}"
            self._channels.append(grpc.aio.insecure_channel(target, channel_options(target)))
        await self.announce()
        self._loops.every(self._interval, self._announce_if_possible, "announce")

    async def kill(self) -> None:
        """Be gone, without a word."""
        await self._loops.close()
        self.importing.clear()
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
        for channel in self._channels:
            await channel.close()
        self._channels = []

    def stub(self, scheduler: int = 0) -> Any:
        """Calls one of its schedulers, by its place, as this daemon."""
        return _Stub(scheduler_pb2_grpc.SchedulerStub(self._channels[scheduler]), self._secret)

    async def announce(self) -> None:
        """Tell all schedulers that it is there. Raises grpc.aio.AioRpcError."""
        host = common_pb2.Host(
            id=self.name,
            hostname=self.name,
            ip="127.0.0.1",
            port=self._port,
            download_port=self._port,
            network=common_pb2.Network(idc=self._idc, max_tx_bandwidth=10**10),
            **self._described,
        )
        interval = Duration()
        interval.FromNanoseconds(round(self._interval * 1e9))
        request = scheduler_pb2.AnnounceHostRequest(host=host, interval=interval)
        calls = [self.stub(number).AnnounceHost(request) for number in range(len(self._channels))]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def _announce_if_possible(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.announce()

    async def leave(self) -> None:
        """Say goodbye, and be gone."""
        await self._loops.close()
        for number in range(len(self._channels)):
            await self.stub(number).DeleteHost(scheduler_pb2.DeleteHostRequest(host_id=self.name))
        await self.kill()

    # Importing

    async def begins(
        self, task: str, *, replicas: int = 2, length: int = 10 * MIB, ttl: int = 3600, **more: Any
    ) -> str:
        """Begin to import; the id of the peer. Raises grpc.aio.AioRpcError."""
        at = more.pop("scheduler", 0)
        fields: dict[str, Any] = {
            "persistent_replica_count": replicas,
            "piece_length": 4 * MIB,
            "content_length": length,
            "piece_count": -(-length // (4 * MIB)),
            "ttl": Duration(seconds=ttl),
        }
        ids = self.ids(task, more.pop("peer", f"{self.name}-{next(_numbers)}"))
        request = scheduler_pb2.UploadPersistentCacheTaskStartedRequest(**ids, **(fields | more))
        self.importing.add(str(ids["peer_id"]))
        await self.stub(at).UploadPersistentCacheTaskStarted(request)
        return str(ids["peer_id"])

    async def ends(self, task: str, peer: str, *, scheduler: int = 0) -> Any:
        """The import went well; what the scheduler says of the task."""
        request = scheduler_pb2.UploadPersistentCacheTaskFinishedRequest(**self.ids(task, peer))
        described = await self.stub(scheduler).UploadPersistentCacheTaskFinished(request)
        self.held[task_id(task)] = True
        self.importing.discard(peer)
        return described

    async def fails(self, task: str, peer: str) -> None:
        """The import did not go well."""
        self.importing.discard(peer)
        request = scheduler_pb2.UploadPersistentCacheTaskFailedRequest(
            **self.ids(task, peer), description="disk full"
        )
        await self.stub().UploadPersistentCacheTaskFailed(request)

    async def imports(self, task: str, **terms: Any) -> Any:
        """Import; what the scheduler says of the task."""
        at = terms.get("scheduler", 0)
        return await self.ends(task, await self.begins(task, **terms), scheduler=at)

    async def imports_after_all(self, task: str) -> Any:
        """Say the end of an import again that was not answered, as a daemon does; else begin anew.

        Returns:
            What the scheduler says of the task.
        """
        for peer in list(self.importing):
            with contextlib.suppress(grpc.aio.AioRpcError):  # it does not know of the beginning
                return await self.ends(task, peer)
            self.importing.discard(peer)
        return await self.imports(task)

    async def stat(self, task: str, *, scheduler: int = 0) -> Any:
        """What the scheduler says of a task. Raises grpc.aio.AioRpcError."""
        request = scheduler_pb2.StatPersistentCacheTaskRequest(
            host_id=self.name, task_id=task_id(task)
        )
        return await self.stub(scheduler).StatPersistentCacheTask(request)

    async def delete(self, task: str) -> None:
        """Delete a task everywhere."""
        request = scheduler_pb2.DeletePersistentCacheTaskRequest(
            host_id=self.name, task_id=task_id(task)
        )
        await self.stub().DeletePersistentCacheTask(request)

    def ids(self, task: str, peer: str) -> dict[str, Any]:
        """Of a message to the scheduler."""
        return {"host_id": self.name, "task_id": task_id(task), "peer_id": peer}

    # Downloading

    async def fetches(self, task: str, *, persistent: bool = False, scheduler: int = 0) -> str:
        """Download a task as any peer does; the id of the peer. Raises grpc.aio.AioRpcError."""
        return await self._fetch(task_id(task), persistent=persistent, scheduler=scheduler)

    async def registers(
        self, task: str, *, persistent: bool = False, scheduler: int = 0
    ) -> tuple[AnnounceStream, Any]:
        """Register for a task; the stream and the answer."""
        stream = AnnounceStream(self, task_id(task), scheduler)
        return stream, await stream.register(persistent=persistent)

    async def _fetch(self, wanted: str, *, persistent: bool, scheduler: int = 0) -> str:
        stream = AnnounceStream(self, wanted, scheduler)
        await stream.register(persistent=persistent)
        await stream.say("download_persistent_cache_peer_started_request")
        await self.release.wait()
        self.held[wanted] = self.held.get(wanted, False) or persistent
        await stream.say("download_persistent_cache_peer_finished_request")
        await stream.ended()
        return stream.peer

    # What it is asked

    async def DownloadPersistentCacheTask(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.DownloadPersistentCacheTaskRequest, context: _Context
    ) -> AsyncIterator[dfdaemon_pb2.DownloadPersistentCacheTaskResponse]:
        """Get a replica; what is there already is not fetched, and the scheduler hears nothing."""
        self.asked.append(("download", request.task_id))
        if self.refuse_with is not None:
            await context.abort(self.refuse_with, "not now")
        if request.task_id in self.held:
            peer = f"{self.name}-{next(_numbers)}"
            self.held[request.task_id] |= request.persistent
        else:
            peer = await self._fetch(
                request.task_id, persistent=request.persistent, scheduler=self.registers_at
            )
        yield dfdaemon_pb2.DownloadPersistentCacheTaskResponse(
            host_id=self.name, task_id=request.task_id, peer_id=peer
        )

    async def UpdatePersistentCacheTask(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.UpdatePersistentCacheTaskRequest, context: _Context
    ) -> Empty:
        """Note whether a copy is kept for good from now on."""
        self.asked.append(("update", request.task_id))
        if request.task_id not in self.held:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such task")
        await self.release.wait()
        self.held[request.task_id] = request.persistent
        return Empty()

    async def DeletePersistentCacheTask(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.DeletePersistentCacheTaskRequest, _: _Context
    ) -> Empty:
        """Delete its copy of a task."""
        self.asked.append(("delete", request.task_id))
        self.held.pop(request.task_id, None)
        return Empty()

    async def Delete(  # noqa: N802  the service's name
        self, request: node_pb2.DeleteCopyRequest, _: _Context
    ) -> Empty:
        """Likewise; it has the one that is meant."""
        self.asked.append(("delete", request.task_id))
        self.held.pop(request.task_id, None)
        return Empty()

    async def IsImporting(  # noqa: N802  the service's name
        self, request: node_pb2.IsImportingRequest, _: _Context
    ) -> node_pb2.IsImportingResponse:
        """Whether it imports."""
        return node_pb2.IsImportingResponse(is_importing=request.peer_id in self.importing)


class AnnounceStream:
    """One announce stream about a copy of an imported task."""

    def __init__(self, keeper: Keeper, wanted: str, scheduler: int) -> None:
        self.peer = f"{keeper.name}-{next(_numbers)}"
        self._ids: dict[str, Any] = {
            "host_id": keeper.name,
            "task_id": wanted,
            "peer_id": self.peer,
        }
        self._call = keeper.stub(scheduler).AnnouncePersistentCachePeer()

    async def say(self, arm: str, **fields: Any) -> None:
        """Send a message with nothing but *fields* in that arm."""
        message = scheduler_pb2.AnnouncePersistentCachePeerRequest(**self._ids)
        part = getattr(message, arm)
        part.SetInParent()
        part.MergeFrom(type(part)(**fields))
        await self._call.write(message)

    async def register(self, *, persistent: bool) -> Any:
        """The first message, and its answer."""
        await self.say(
            "register_persistent_cache_peer_request",
            persistent=persistent,
            piece_length=4 * MIB,
            piece_count=3,
        )
        return await self.answer()

    async def answer(self) -> Any:
        """The next answer. Raises grpc.aio.AioRpcError: the stream has ended badly."""
        async with asyncio.timeout(_LIMIT):
            message = await self._call.read()
        if message is grpc.aio.EOF:
            raise AssertionError(f"ended with {await self._call.code()}")
        return message

    async def ended(self) -> None:
        """The scheduler has ended the stream, well. Raises grpc.aio.AioRpcError."""
        async with asyncio.timeout(_LIMIT):
            assert await self._call.read() is grpc.aio.EOF
            assert await self._call.code() is grpc.StatusCode.OK, await self._call.details()

    def cancel(self) -> None:
        """Break the stream off, as a daemon that dies does."""
        self._call.cancel()


class _Stub:
    """Every call has the daemon's secret, and an end."""

    def __init__(self, stub: Any, secret: str) -> None:
        self._stub = stub
        self._metadata = ((SECRET_KEY, secret),)

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._stub, method)

        def known(*request: Any) -> Any:
            return call(*request, metadata=self._metadata, timeout=_LIMIT)

        return known


def parents_of(answer: Any) -> set[str]:
    """The ids of the peers that an answer names."""
    listed = answer.normal_persistent_cache_task_response.candidate_cache_parents
    return {parent.id for parent in listed}


async def until_kept(
    asker: Keeper, task: str, number: int, *, scheduler: int = 0, may_be_away: bool = False
) -> None:
    """So many hosts keep a task, says a scheduler, in the end.

    Args:
        asker: Who asks.
        task: Its name.
        number: Of hosts.
        scheduler: Which of the asker's.
        may_be_away: Meanwhile it, or what has its records, may not answer.
    """

    async def kept() -> bool:
        try:
            said = await asker.stat(task, scheduler=scheduler)
        except grpc.aio.AioRpcError:
            if may_be_away:
                return False
            raise
        return bool(said.current_persistent_replica_count == number)

    await until(kept)
