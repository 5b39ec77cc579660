"""A running daemon: builds everything, in the order in which it depends on each other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2

from pantala.background import Loops, Tasks
from pantala.core.beliefs import Beliefs
from pantala.errors import ConfigError
from pantala.model.addresses import host_port
from pantala.model.task import Kind
from pantala.net.endpoints import health_endpoint, metrics_endpoint
from pantala.net.piece_server import SENDERS, PieceServer
from pantala.rpc.crowd import Crowd
from pantala.rpc.daemon_dialects import DOWNLOAD_SERVICE, UPLOAD_SERVICE
from pantala.rpc.scheduler_link import Schedulers
from pantala.rpc.server import Supervised, asking_at, new_server
from pantala.rpc.service import add_health_and_reflection, add_service
from pantala.rpc.transport import bind

from .config import DaemonConfig
from .downloading.engine import Engine
from .downloading.fetching import PIECE_LIMIT
from .gate import Gate
from .host.descriptors import descriptors, doors
from .host.hostinfo import HostMeter
from .host.sockets import HostName, SocketPath, private
from .host.storage import NodeStorage, figures
from .host.threads import Threads
from .importing.importer import Importer
from .metrics import CONTENT_TYPE, Metrics
from .node import Node, new_peer_id
from .serving.copies_service import COPIES_SERVICE, CopiesService
from .serving.exchange_service import EXCHANGE_SERVICE, ExchangeService
from .serving.handoff_server import HandoffServer
from .serving.handoff_tasks import HandoffTasks
from .serving.services import (
    NODE_SERVICE,
    Admission,
    DownloadService,
    NodeService,
    UploadService,
)
from .serving.whole import Whole
from .sharing.uploads import NodeUploads
from .telling.announcer import Announcer
from .telling.dynconfig import Dynconfig

logger = structlog.get_logger(__name__)

#: What other machines may ask.
PEER_SERVICES: Final = (UPLOAD_SERVICE, COPIES_SERVICE, EXCHANGE_SERVICE)

#: Seconds for downloads and uploads under way to end when the daemon is told to.
GRACE: Final = 10.0

#: Seconds until what gRPC's health service says is what is true.
_HEALTH_INTERVAL: Final = 1.0

#: Seconds that the daemon waits at start for schedulers to take its announcement.
_HELLO_LIMIT: Final = 2.0

#: Seconds between two looks at what was handed off; who is short of room looks at once.
_RECALL: Final = 1.0


class Daemon:
    """Everything one node does.

    Args:
        config: Checked and resolved.
        scheduler: Address of a scheduler to use instead of those of *config*, as gRPC wants it.
        alone: Serve programs on this machine only, over the sockets that *config* names, and
            listen on no port. *config* must say that nothing is shared.
        on_lost: Told why, when it can serve no longer: the process had better end.
    """

    def __init__(
        self,
        config: DaemonConfig,
        *,
        scheduler: str | None = None,
        alone: bool = False,
        on_lost: Callable[[str], object] = lambda _why: None,
    ) -> None:
        self.config = config
        self._alone = alone
        self.metrics = Metrics()
        self.stopping = asyncio.Event()
        self._health = health.HealthServicer()
        self._on_lost = on_lost
        self._servers: list[Supervised] = []
        self._exit = contextlib.AsyncExitStack()
        self.loops = Loops(self.metrics.loop_failed)
        self._threads = Threads()
        self._facts: HostMeter | None = None
        shares = descriptors()
        self._doors = doors(shares.connections)
        self._storage = NodeStorage(config, shares, self._threads.disposer)
        self.stores = self._storage.stores
        self.beliefs = Beliefs(config.scheduler.announce_interval)
        self.schedulers = Schedulers(
            config.host_id,
            self.beliefs,
            schedule_timeout=config.scheduler.schedule_timeout,
            loops=self.loops,
        )
        self._tasks = Tasks()
        self.announcer = Announcer(
            self.schedulers,
            self.beliefs,
            self.stores,
            tasks=self._tasks,
            host_id=config.host_id,
            host=self._host,
            new_peer_id=functools.partial(new_peer_id, config),
            interval=config.scheduler.announce_interval,
            concurrent_piece_count=config.download.concurrent_piece_count,
        )
        self.node = Node(
            config=config,
            threads=self._threads,
            tasks=self._tasks,
            stores=self.stores,
            schedulers=self.schedulers,
            announcements=self.announcer,
            metrics=self.metrics,
            gate=Gate(self.metrics),
        )
        self.engine = Engine(self.node)
        self._importer = Importer(self.node)
        self.uploads = NodeUploads(self.node, self.engine.means.rng)
        self.pieces = PieceServer(
            self.uploads,
            self._threads.senders,
            stall=config.download.piece_stall_timeout,
            piece=PIECE_LIMIT,
            connections=self._doors.pieces,
            sending=SENDERS,
            loops=self.loops,
        )
        local = config.download.server
        self._admit_local = Admission(local.request_rate_limit, local.request_buffer_size)
        self.handoff = HandoffServer(
            config,
            self.engine,
            self._threads,
            self._admit_local,
            HandoffTasks(
                self.node,
                DownloadService(self.node, self.engine, self._importer),
                self.engine,
            ),
            gate=self.node.gate,
            whole=Whole(self.node, self.engine),
            connections=self._doors.handoff,
            loops=self.loops,
        )
        addresses = (scheduler,) if scheduler else ()
        self._changed = asyncio.Event()
        self._dynconfig = Dynconfig(
            config,
            addrs=addresses,
            on_change=lambda _addresses: self._changed.set(),
            on_lists=self.node.gate.follow,
        )
        for name, kind in (("cache", Kind.CACHE), ("disk", Kind.STANDARD)):
            store, room = self.stores[kind], self.engine.means.rooms[kind]
            self.metrics.observe_store(name, functools.partial(figures, store, room))
        self.metrics.observe_schedulers(lambda: len(self._dynconfig.current()))
        #: Where it listens, by name, once started.
        self.ports: dict[str, int] = {}

    def _host(self) -> Any:
        if self._facts is None:
            raise ConfigError("the daemon has not been started")
        return self._facts.host(time.monotonic())

    def _troubles(self) -> list[str]:
        """Why this daemon is not healthy, a line each."""
        stopping = ["the daemon is stopping"] if self.stopping.is_set() else []
        servers = [server.trouble for server in self._servers if server.trouble is not None]
        disk = [self._storage.trouble] if self._storage.trouble is not None else []
        return stopping + servers + disk + self.loops.failing()

    @property
    def busy(self) -> bool:
        """Somebody is being served, or something is on its way here."""
        parts = self.engine, self._importer, self.pieces, self.handoff
        return any(part.busy for part in parts)

    # -- start ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigError: A port or socket is taken; everything is as before.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._threads.shutdown)
            stack.callback(self._storage.close)
            self._storage.open()
            server = self.config.download.server
            paths = [
                SocketPath(server.socket_path, setting="download.server.socketPath"),
            ]
            stack.callback(paths[0].release)
            paths.append(SocketPath(server.handoff_path, setting="download.server.handoffPath"))
            stack.callback(paths[1].release)
            stack.callback(HostName(self.config.host_id).release)
            if not self._alone:
                await self._serve_peers(stack)
                await self._serve_monitors(stack)
            self._facts = self._facts or HostMeter(self.config, 0)
            await self._meet_schedulers(stack)
            await self._serve_programs(stack, *paths)
            self._exit = stack.pop_all()
        logger.info("ready", host=self.config.host_id, socket=str(server.socket_path), **self.ports)

    async def _serve_peers(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        storage = config.storage.server
        stack.push_async_callback(self.pieces.stop, 0.0)
        self.ports["storage"] = await self.pieces.start(storage.ip, storage.tcp_port)
        ip = config.upload.server.ip
        supervised = self._supervised(
            "the gRPC server for other nodes",
            self._begin_upload,
            lambda: asking_at(ip, self.ports["upload"]),
        )
        stack.push_async_callback(supervised.stop, 0)
        await supervised.start()
        crowd = Crowd(self.ports["upload"], self._doors.peers)
        self.loops.keep(crowd.turn, "keep room for callers", rest=crowd.rest)

    async def _begin_upload(self) -> grpc.aio.Server:
        config = self.config
        server = new_server(self._doors.peers)
        upload = config.upload.server
        # Built anew, it is where it was.
        at = host_port(upload.ip, self.ports.get("upload", upload.port))
        self.ports["upload"] = bind(server, at, setting="upload.server.port")
        self._facts = self._facts or HostMeter(config, self.ports["upload"])
        service = UploadService(
            self.node,
            self.engine,
            uploads=self.uploads,
            facts=self._facts,
            stopping=self.stopping,
            piece_port=self.ports["storage"],
        )
        admit = Admission(upload.request_rate_limit, upload.request_buffer_size)
        add_service(server, UPLOAD_SERVICE, SimpleNamespace(**service.methods()), admit=admit)
        copies = CopiesService(self.node, self._importer)
        add_service(server, COPIES_SERVICE, copies, admit=admit)
        exchange = ExchangeService(
            self.node, self.uploads, service.streams, piece_port=self.ports["storage"]
        )
        add_service(server, EXCHANGE_SERVICE, exchange, admit=admit)
        add_health_and_reflection(server, self._health, PEER_SERVICES)
        await server.start()
        return server

    async def _serve_monitors(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        if config.metrics.enable:
            endpoint = metrics_endpoint(
                self.metrics.render, CONTENT_TYPE, connections=self._doors.page
            )
            at = config.metrics.server
            self.ports["metrics"] = await endpoint.start(at.ip, at.port)
            stack.push_async_callback(endpoint.close)
        if config.health.enable:
            endpoint = health_endpoint(self._troubles, connections=self._doors.page)
            at_health = config.health.server
            self.ports["health"] = await endpoint.start(at_health.ip, at_health.port)
            stack.push_async_callback(endpoint.close)

    async def _meet_schedulers(self, stack: contextlib.AsyncExitStack) -> None:
        stack.push_async_callback(self.engine.means.close)
        stack.push_async_callback(self.schedulers.close)
        stack.push_async_callback(self._tasks.cancel)
        stack.push_async_callback(self.loops.close)
        for store in self.stores.all():
            store.on_removed = self._removed
        await self._dynconfig.start()
        self._changed.clear()
        await self.schedulers.set_addresses(self._dynconfig.current())
        for holding in self.stores:  # what an earlier process has left on the disk
            self.announcer.announce(holding)
        self._begin_loops()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HELLO_LIMIT):
                await self.announcer.first_round.wait()

    async def _serve_programs(
        self, stack: contextlib.AsyncExitStack, path: SocketPath, handoff: SocketPath
    ) -> None:
        settings = self.config.download.server
        # The hand-off socket comes first: whoever finds the other one expects it.
        self.handoff.start(handoff.listen(settings.socket_mode))
        stack.push_async_callback(self.handoff.stop)
        begin = functools.partial(self._begin_download, path)
        supervised = self._supervised(
            "the gRPC server for programs", begin, lambda: f"unix:{path.path}"
        )
        stack.push_async_callback(supervised.stop, 0)
        await supervised.start()

    async def _begin_download(self, path: SocketPath) -> grpc.aio.Server:
        settings = self.config.download.server
        server = new_server(self._doors.programs)
        service = DownloadService(self.node, self.engine, self._importer)
        methods = service.methods()
        add_service(server, DOWNLOAD_SERVICE, SimpleNamespace(**methods), admit=self._admit_local)
        own = NodeService(self.node, self.engine)
        add_service(server, NODE_SERVICE, own, admit=self._admit_local)
        add_health_and_reflection(server, self._health, (DOWNLOAD_SERVICE, NODE_SERVICE))
        with private():
            bind(server, f"unix:{path.path}", setting="download.server.socketPath")
            await server.start()
        # gRPC does not say which user calls: where that matters, only our own gets in.
        path.path.chmod(0o600 if settings.allow_users else settings.socket_mode)
        return server

    def _supervised(
        self,
        name: str,
        begin: Callable[[], Awaitable[grpc.aio.Server]],
        target: Callable[[], str],
    ) -> Supervised:
        server = Supervised(name, begin, self._on_lost, target=target)
        self._servers.append(server)
        return server

    # -- meanwhile -----------------------------------------------------------------------------

    def _removed(self, holding: Any, reason: Any) -> None:
        self.metrics.evicted(reason.value)
        self.announcer.withdraw(holding, reason)

    def _begin_loops(self) -> None:
        keep, announcer = self.loops.keep, self.announcer
        keep(announcer.announce_round, "announce this host", rest=announcer.rest)
        keep(announcer.tell_news, "announce what is held")
        copies = announcer.copies
        keep(copies.turn, "tell of copies of imported tasks", rest=copies.rest)
        self._dynconfig.keep_reading(self.loops)
        keep(self._follow_dynconfig, "follow the list of schedulers")
        storage = self._storage
        self.loops.every(storage.interval, storage.collect, "evict by time to live")
        self.loops.every(_RECALL, self.stores.recall, "look what was handed off is back")
        for room in self.engine.means.rooms:
            keep(room.watch, f"serve those who wait for room {room.place}")
        self.loops.every(_HEALTH_INTERVAL, self._tell_health, "tell health")

    def _tell_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        state = states.NOT_SERVING if self._troubles() else states.SERVING
        for name in (*PEER_SERVICES, "", DOWNLOAD_SERVICE, NODE_SERVICE):
            self._health.set(name, state)

    async def _follow_dynconfig(self) -> None:
        await self._changed.wait()
        await self.schedulers.set_addresses(self._dynconfig.current())
        # Nothing waits between these two, so no change is missed.
        if self.schedulers.addresses == frozenset(self._dynconfig.current()):
            self._changed.clear()
        self.schedulers.on_trouble()

    # -- stop ----------------------------------------------------------------------------------

    async def stop(self, grace: float = GRACE) -> None:
        """Take nothing new, let what is under way end, say goodbye, and free everything."""
        logger.info("stopping", busy=self.engine.busy)
        self.stopping.set()
        await self.engine.drain(grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self.schedulers.delete_host(2.0)
        await self.pieces.stop(grace)
        await self._exit.aclose()
        logger.info("stopped")
