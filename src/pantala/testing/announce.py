"""Peers and hosts played by hand over real gRPC, against a scheduler on a real port."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from pantala import BUILD_VERSION
from pantala.model import announce
from pantala.model.announce import Answer, Registration, Report
from pantala.model.task import DownloadRequest, Kind, PieceRecord, Traffic
from pantala.pb import common_pb2, scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.dialects import DIALECTS
from pantala.rpc.scheduler import SECRET_KEY
from pantala.rpc.transport import channel_options
from pantala.scheduler.app import Scheduler
from pantala.scheduler.config import load
from pantala.scheduler.dialects import SCHEDULER_DIALECTS

from .stage import MIB, task_id

#: Seconds that any one answer may take before a test fails.
LIMIT: Final = 20.0

Context = grpc.aio.ServicerContext[Any, Any]

_numbers = itertools.count()


class Peer:
    """One announce stream, spoken by hand."""

    def __init__(self, stub: Any, host: str, task: str, kind: Kind = Kind.CACHE) -> None:
        self.id = f"{host}-{next(_numbers)}"
        self.task = task
        dialect = DIALECTS[kind]
        self.codec = dialect.codec
        self.ids: dict[str, Any] = {"host_id": host, "task_id": task_id(task), "peer_id": self.id}
        self.call = getattr(stub, dialect.announce)()

    async def tell(self, **arm: Any) -> None:
        """Send a message with that arm, as a stock peer might."""
        await self.call.write(self.codec.request(**self.ids, **arm))

    async def say(self, report: Report) -> None:
        """Send a report, as a daemon of ours does."""
        said = Registration(**self.ids, request=DownloadRequest(self.codec.kind, ""))
        await self.call.write(self.codec.encode(said, report))

    async def register(self, length: int = 10 * MIB, **fields: Any) -> None:
        """The first message, of a task of *length* bytes."""
        message = self.codec.request(**self.ids)
        arm = getattr(message, self.codec.register_arm)
        arm.SetInParent()
        part = self.codec.layout.of(arm)
        described: dict[str, Any] = {
            "url": "http://origin/f",
            "actual_piece_length": 4 * MIB,
            "actual_content_length": length,
        }
        part.MergeFrom(type(part)(**(described | fields)))
        await self.call.write(message)

    async def answer(self) -> Any:
        """The next answer; its end, if the stream ended, is raised."""
        async with asyncio.timeout(LIMIT):
            message = await self.call.read()
            if message is grpc.aio.EOF:
                raise AssertionError(f"ended with {await self.call.code()}")
        return message

    async def asked(self, **fields: Any) -> Any:
        """Register; the answer that comes of it."""
        await self.register(**fields)
        return await self.answer()

    def understood(self, answer: Any) -> Answer:
        """An answer as the value that it stands for."""
        return self.codec.decode_answer(answer)

    def named(self, answer: Any) -> list[str]:
        """The parents that an answer names, which must be one that does: their ids."""
        said = self.understood(answer)
        assert isinstance(said, announce.CandidateParents), answer
        return [candidate.peer_id for candidate in said.candidates]

    async def parents(self) -> set[str]:
        """The next answer, which must be parents: their ids."""
        return set(self.named(await self.answer()))

    async def to_source(self) -> None:
        """The next answer, which must be the origin."""
        assert is_to_source(await self.answer())

    async def started(self) -> None:
        """It fetches from parents."""
        await self.say(announce.Started())

    async def source_started(self) -> None:
        """It fetches from the origin."""
        await self.say(announce.SourceStarted())

    async def reschedule(self, *parents: str) -> None:
        """It wants other parents than these."""
        await self.say(announce.Reschedule(parents))

    async def piece(self, number: int, parent: str | None = None) -> None:
        """It has a piece, from *parent* or from the origin."""
        traffic = Traffic.REMOTE_PEER if parent else Traffic.BACK_TO_SOURCE
        piece = PieceRecord(number, 0, 4 * MIB, "crc32:1", parent, traffic, 0.001, 1.0)
        finished = announce.PieceFinished if parent else announce.SourcePieceFinished
        await self.say(finished(piece))

    async def piece_failed(self, parent: str, *, temporary: bool = True) -> None:
        """A parent did not give it a piece."""
        await self.say(announce.PieceFailed(0, parent, temporary))

    async def finished(self) -> None:
        """It has everything, from parents; the scheduler ends the stream."""
        await self.say(announce.Finished())
        await self.ends(grpc.StatusCode.OK)

    async def source_finished(self) -> None:
        """It has everything, some of it from the origin; the scheduler ends the stream."""
        await self.say(announce.SourceFinished())
        await self.ends(grpc.StatusCode.OK)

    async def source_failed(self, why: str = "403 Forbidden") -> None:
        """The origin failed it; the scheduler ends the stream."""
        await self.say(announce.SourceFailed(why))
        await self.ends(grpc.StatusCode.OK)

    async def failed(self) -> None:
        """It gives up; the scheduler ends the stream."""
        await self.say(announce.Failed())
        await self.ends(grpc.StatusCode.OK)

    async def ends(self, code: grpc.StatusCode) -> str:
        """The stream ends like this; its details."""
        async with asyncio.timeout(LIMIT):
            assert await self.call.code() is code, await self.call.details()
        return str(await self.call.details())


class _Knowing:
    """A stub whose every call sends a secret along."""

    def __init__(self, stub: Any, secret: str) -> None:
        self._stub = stub
        self._metadata = ((SECRET_KEY, secret),)

    def __getattr__(self, method: str) -> Any:
        return functools.partial(getattr(self._stub, method), metadata=self._metadata)


class Swarm:
    """A scheduler and a channel to it.

    Args:
        scheduler: Whom to call.
        channel: By which.
        secret: Sent with every call, as a daemon of ours does.

    Attributes:
        kind: Of the tasks that are spoken of.
    """

    kind = Kind.CACHE

    def __init__(
        self, scheduler: Scheduler, channel: grpc.aio.Channel, secret: str | None = None
    ) -> None:
        self.scheduler = scheduler
        self.channel = channel
        stub = scheduler_pb2_grpc.SchedulerStub(channel)
        self.stub: Any = stub if secret is None else _Knowing(stub, secret)

    @asynccontextmanager
    async def caller(
        self, secret: str | None = None, *, address: str = "127.0.0.1"
    ) -> AsyncIterator[Swarm]:
        """The same scheduler, as somebody else calls it: from *address*, one of 127.0.0.0/8."""
        async with _from(address, self.scheduler.port) as port:
            target = f"127.0.0.1:{port}"
            async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
                yield Swarm(self.scheduler, channel, secret)

    async def host(self, name: str, *, port: int = 4000, **fields: Any) -> Any:
        """Announce a host; the call, for its metadata."""
        host = common_pb2.Host(
            id=name,
            hostname=name,
            ip=fields.pop("ip", "127.0.0.1"),
            port=port,
            download_port=port,
            build=common_pb2.Build(git_version=fields.pop("version", BUILD_VERSION)),
            network=common_pb2.Network(
                idc=fields.pop("idc", ""),
                location=fields.pop("location", ""),
                max_tx_bandwidth=10**10,
            ),
            memory=common_pb2.Memory(total=1),
            **{k: v for k, v in fields.items() if k != "interval"},
        )
        interval = fields.get("interval", Duration(seconds=300))
        request = scheduler_pb2.AnnounceHostRequest(host=host, interval=interval)
        call = self.stub.AnnounceHost(request)
        await call
        return call

    async def hosts(self, *names: str) -> None:
        """Announce normal hosts."""
        for name in names:
            await self.host(name)

    def peer(self, host: str, task: str = "t") -> Peer:
        """A peer that has not said anything yet."""
        return Peer(self.stub, host, task, self.kind)

    async def holder(self, host: str, task: str = "t", **fields: Any) -> Peer:
        """A peer that announces what its host holds already."""
        peer = self.peer(host, task)
        assert is_to_source(await peer.asked(need_back_to_source=True, **fields))
        await peer.source_started()
        await peer.source_finished()
        return peer

    async def source(self, host: str, task: str = "t") -> Peer:
        """A peer that is at the origin."""
        peer = self.peer(host, task)
        assert is_to_source(await peer.asked())
        await peer.source_started()
        await self.until_state(peer, "BackToSource")
        return peer

    async def child(self, host: str, task: str = "t") -> Peer:
        """A peer that fetches from parents."""
        peer = self.peer(host, task)
        await peer.register()
        await peer.parents()
        await peer.started()
        await self.until_state(peer, "Running")
        return peer

    async def stat(self, task: str = "t") -> Any:
        """What the scheduler says of a task."""
        method, request = DIALECTS[self.kind].stat
        return await getattr(self.stub, method)(request(host_id="x", task_id=task_id(task)))

    async def stat_peer(self, peer_id: str, task: str = "t") -> Any:
        """What the scheduler says of a peer."""
        request = scheduler_pb2.StatPeerRequest(peer_id=peer_id, task_id=task_id(task))
        return await self._call_of_peer(SCHEDULER_DIALECTS[self.kind].stat_peer, request)

    async def delete_peer(self, peer_id: str, task: str = "t") -> Any:
        """Have the scheduler forget a peer."""
        request = scheduler_pb2.StatPeerRequest(peer_id=peer_id, task_id=task_id(task))
        return await self._call_of_peer(SCHEDULER_DIALECTS[self.kind].delete_peer, request)

    async def _call_of_peer(self, method: str, like: Any) -> Any:
        request = getattr(scheduler_pb2, f"{method}Request")
        return await getattr(self.stub, method)(request.FromString(like.SerializeToString()))

    async def delete_task(self, host: str, task: str = "t") -> None:
        """A host holds a task no longer."""
        method, request = DIALECTS[self.kind].delete
        await getattr(self.stub, method)(request(host_id=host, task_id=task_id(task)))

    async def until_state(self, peer: Peer, state: str) -> None:
        """Ask until the scheduler has taken in what *peer* said last."""

        async def arrived() -> bool:
            return bool((await self.stat_peer(peer.id, peer.task)).state == state)

        await until(arrived)

    async def gone(self, peer: Peer) -> bool:
        """Whether the scheduler has forgotten a peer."""
        return await refusal(self.stat_peer(peer.id, peer.task)) is grpc.StatusCode.NOT_FOUND


@asynccontextmanager
async def _from(address: str, port: int) -> AsyncIterator[int]:
    """A port whose connections go on to *port* of this machine, and come there from *address*."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    serving: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(
        lambda *streams: serving.append(loop.create_task(serve(*streams))), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, with an end."""
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110  what is waited for is in the scheduler
            await asyncio.sleep(0.01)


async def refusal(call: Awaitable[Any]) -> grpc.StatusCode | None:
    """How a call was refused; None if it was not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


def is_to_source(answer: Any) -> bool:
    """Whether a peer was told to go to the origin."""
    return bool(answer.WhichOneof("response") == "need_back_to_source_response")


@asynccontextmanager
async def swarm(**settings: Any) -> AsyncIterator[Swarm]:
    """A scheduler with *settings*, ``__`` for dots."""
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    # Records are of a test that names a place for them.
    ours = {"server.port": 0, "server.listenIP": "127.0.0.1", "database.sqlite.path": None}
    config = load(None, {**ours, **dotted})
    scheduler = Scheduler(config)
    await scheduler.start()
    target = f"127.0.0.1:{scheduler.port}"
    try:
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            yield Swarm(scheduler, channel)
    finally:
        await scheduler.stop(grace=0)
