"""A seed played by hand over real gRPC: a scheduler asks it to fetch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from pantala.model.task import DownloadRequest
from pantala.pb import dfdaemon_pb2
from pantala.rpc.convert import download_request
from pantala.rpc.dialects import DIALECTS
from pantala.rpc.server import new_server
from pantala.rpc.service import add_service, sends_headers
from pantala.rpc.status import DETAILS_KEY
from pantala.rpc.transport import bind

from .announce import Peer, Swarm, is_to_source

Context = grpc.aio.ServicerContext[Any, Any]


class Seed:
    """A daemon that can be asked to fetch; it tells the scheduler what it is told to tell."""

    def __init__(self, swarm: Swarm, name: str) -> None:
        self.swarm = swarm
        self.name = name
        self.requests: asyncio.Queue[DownloadRequest] = asyncio.Queue()
        self.release = asyncio.Event()
        self.fail_with: tuple[grpc.StatusCode, str, bytes | None] | None = None
        #: It says that it is done, and does nothing.
        self.says_only = False
        #: It says at once that it has heard, as ours do. Stock daemons ask the origin first.
        self.says_hello = True
        self.peer: Peer | None = None

    @sends_headers
    async def DownloadTask(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.DownloadTaskRequest, context: Context
    ) -> AsyncIterator[dfdaemon_pb2.DownloadTaskResponse]:
        """Fetch from the origin, as soon as the test says so."""
        async for peer in self._download(request, context):
            yield dfdaemon_pb2.DownloadTaskResponse(peer_id=peer.id)

    @sends_headers
    async def DownloadCacheTask(  # noqa: N802  the contract's name
        self, request: dfdaemon_pb2.DownloadCacheTaskRequest, context: Context
    ) -> AsyncIterator[dfdaemon_pb2.DownloadCacheTaskResponse]:
        """Fetch from the origin, as soon as the test says so."""
        async for peer in self._download(request, context):
            yield dfdaemon_pb2.DownloadCacheTaskResponse(peer_id=peer.id)

    async def _download(self, request: Any, context: Context) -> AsyncIterator[Peer]:
        codec = DIALECTS[self.swarm.kind].codec
        assert type(request) is codec.download
        self.requests.put_nowait(download_request(codec.kind, codec.layout.of(request)))
        if self.says_hello:
            await context.send_initial_metadata(())
        if self.fail_with is not None:
            code, text, details = self.fail_with
            await context.abort(code, text, ((DETAILS_KEY, details),) if details else ())
        if self.says_only:
            return
        await self.release.wait()
        self.peer = self.swarm.peer(self.name)
        assert is_to_source(await self.peer.asked(need_back_to_source=True))
        await self.peer.source_started()
        yield self.peer
        await self.peer.source_finished()


@asynccontextmanager
async def seed(swarm: Swarm, name: str, **host: Any) -> AsyncIterator[Seed]:
    """A seed that runs and has announced itself."""
    daemon = Seed(swarm, name)
    server = new_server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", daemon)
    port = bind(server, "127.0.0.1:0")
    await server.start()
    await swarm.host(name, port=port, type=1, **host)
    try:
        yield daemon
    finally:
        await server.stop(None)
