"""rpc/service.py: handlers made from the contract's descriptors, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
import grpc.aio
import pytest

from pantala.core.places import owner_of
from pantala.errors import Busy, TaskNotFound
from pantala.pb import (
    common_pb2,
    dfdaemon_pb2,
    dfdaemon_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from pantala.rpc.server import new_server
from pantala.rpc.service import Admit, Observe, add_service, address_of
from pantala.rpc.transport import bind, channel_options
from pantala.testing import raw_http2

TASK = "a" * 64
Context = grpc.aio.ServicerContext[Any, Any]


class Upload:
    """A few methods of DfdaemonUpload; one of each arity that the contract has."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def StatCacheTask(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.StatCacheTaskRequest, context: Context
    ) -> common_pb2.CacheTask:
        """Known is one id; a bug is another."""
        del context
        if request.task_id == "bug":
            raise KeyError("s3-secret")
        if request.task_id != TASK:
            raise TaskNotFound(request.task_id)
        return common_pb2.CacheTask(id=TASK)

    async def SyncCachePieces(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.SyncCachePiecesRequest, context: Context
    ) -> AsyncIterator[dfdaemon_pb2.SyncCachePiecesResponse]:
        """The pieces asked for; then, without any, silence until the caller goes."""
        del context
        try:
            for number in request.interested_cache_piece_numbers:
                yield dfdaemon_pb2.SyncCachePiecesResponse(number=number)
            if not request.interested_cache_piece_numbers:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


class Echo:
    """The announce stream, answering each message once."""

    async def AnnounceCachePeer(  # noqa: N802  the contract's name
        self, requests: AsyncIterator[scheduler_pb2.AnnounceCachePeerRequest], context: Context
    ) -> AsyncIterator[scheduler_pb2.AnnounceCachePeerResponse]:
        """One empty answer for each request."""
        del context
        async for _ in requests:
            yield scheduler_pb2.AnnounceCachePeerResponse()


class Served:
    """A server with both implementations, and a channel to it."""

    def __init__(self, *, admit: Admit | None = None, observe: Observe | None = None) -> None:
        self.upload = Upload()
        self.server = new_server()
        add_service(
            self.server,
            "dfdaemon.v2.DfdaemonUpload",
            self.upload,
            admit=admit,
            observe=observe,
        )
        add_service(self.server, "scheduler.v2.Scheduler", Echo())
        self.target = f"127.0.0.1:{bind(self.server, '127.0.0.1:0')}"

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(self.target, channel_options(self.target))
        self.stub = dfdaemon_pb2_grpc.DfdaemonUploadStub(self.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(None)


async def test_unary_answers() -> None:
    """A request comes in and a response goes out, typed by the contract."""
    async with Served() as served:
        answer = await served.stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id=TASK))
    assert answer.id == TASK


async def test_our_errors_become_statuses() -> None:
    """The error's code and sentence reach the caller."""
    async with Served() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id="x"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "task x not found"


async def test_a_bug_tells_the_caller_nothing() -> None:
    """An unexpected error is INTERNAL with a number; its text stays here."""
    async with Served() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id="bug"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())
    assert "internal error" in str(caught.value.details())


async def test_what_is_not_implemented_says_so() -> None:
    """A method that the object lacks is answered UNIMPLEMENTED."""
    async with Served() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.DeleteCacheTask(dfdaemon_pb2.DeleteCacheTaskRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_delivers_all_messages() -> None:
    """Messages come in order, and the stream ends well."""
    async with Served() as served:
        request = dfdaemon_pb2.SyncCachePiecesRequest(interested_cache_piece_numbers=[3, 1, 2])
        numbers = [piece.number async for piece in served.stub.SyncCachePieces(request)]
    assert numbers == [3, 1, 2]


async def test_headers_come_before_the_first_message() -> None:
    """A stream that has nothing to say yet has sent its initial metadata."""
    async with Served() as served:
        call = served.stub.SyncCachePieces(dfdaemon_pb2.SyncCachePiecesRequest())
        async with asyncio.timeout(10):
            await call.initial_metadata()
        call.cancel()


async def test_a_cancelled_stream_is_cleaned_up() -> None:
    """When the caller goes, the method's ``finally`` runs."""
    async with Served() as served:
        call = served.stub.SyncCachePieces(dfdaemon_pb2.SyncCachePiecesRequest())
        await call.initial_metadata()
        call.cancel()
        async with asyncio.timeout(10):
            await served.upload.closed.wait()


async def test_both_ways() -> None:
    """A conversation goes message by message."""
    async with Served() as served:
        call = scheduler_pb2_grpc.SchedulerStub(served.channel).AnnounceCachePeer()
        for _ in range(3):
            await call.write(scheduler_pb2.AnnounceCachePeerRequest())
            assert isinstance(await call.read(), scheduler_pb2.AnnounceCachePeerResponse)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_admission_refuses() -> None:
    """What ``admit`` raises is the answer, and the method is not called."""

    async def full(name: str) -> None:
        raise Busy(f"no room for {name}")

    async with Served(admit=full) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id=TASK))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "no room for StatCacheTask"


async def test_every_end_is_observed() -> None:
    """The observer hears of good ends and bad ones, once each."""
    seen: list[tuple[str, type[BaseException] | None]] = []

    def observe(name: str, error: BaseException | None) -> None:
        seen.append((name, type(error) if error else None))

    async with Served(observe=observe) as served:
        await served.stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id=TASK))
        with pytest.raises(grpc.aio.AioRpcError):
            await served.stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id="x"))
    assert seen == [("StatCacheTask", None), ("StatCacheTask", TaskNotFound)]


@pytest.mark.parametrize(
    ("method", "service"),
    [
        ("StatCacheTask", "dfdaemon.v2.DfdaemonUpload"),
        ("SyncCachePieces", "dfdaemon.v2.DfdaemonUpload"),
        ("AnnounceCachePeer", "scheduler.v2.Scheduler"),
    ],
)
async def test_garbage_is_the_callers_fault(
    capfd: pytest.CaptureFixture[str], method: str, service: str
) -> None:
    """It is refused in a line, and leaves no traceback."""
    garbage = bytes(range(255, 155, -1)) * 10

    def send(target: str) -> bytes:
        with raw_http2.Connection(target) as connection:
            path = f"/{service}/{method}".encode()
            connection.send(raw_http2.HELLO + raw_http2.call(path, message=garbage))
            return connection.answer()

    async with Served() as served:
        answer = await asyncio.to_thread(send, served.target)
    assert b"grpc-status\x013" in answer
    assert b"1000 bytes are no" in answer
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("listens", "calls", "address"),
    [
        ("127.0.0.1:0", "127.0.0.1", "127.0.0.1"),
        ("[::1]:0", "[::1]", "::1"),
        ("[::]:0", "127.0.0.1", "127.0.0.1"),
    ],
)
async def test_from_where_a_call_comes(listens: str, calls: str, address: str) -> None:
    """An address as schedulers tell of it, and as it is one: without port and brackets."""
    found: list[str] = []

    class Upload:
        async def StatCacheTask(self, _: Any, context: Context) -> common_pb2.CacheTask:  # noqa: N802  the contract's name
            found.append(address_of(context))
            return common_pb2.CacheTask()

    server = new_server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", Upload())
    target = f"{calls}:{bind(server, listens)}"
    await server.start()
    try:
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            stub: Any = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)
            await stub.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id=TASK), timeout=20)
    finally:
        await server.stop(None)
    assert found == [address]
    assert owner_of(found[0])
