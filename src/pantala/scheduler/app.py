"""A running scheduler."""

from __future__ import annotations

import contextlib
import resource
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pantala import BUILD_VERSION
from pantala.background import Loops, Tasks
from pantala.core.bucket import Bucket
from pantala.core.sched.expire import sweep_hosts, sweep_peers, sweep_tasks
from pantala.core.sched.world import World
from pantala.errors import Busy
from pantala.model.addresses import host_port
from pantala.net.endpoints import metrics_endpoint
from pantala.ports import ClusterSource
from pantala.rpc.crowd import Crowd
from pantala.rpc.server import Supervised, asking_at, new_server
from pantala.rpc.service import add_reflection, add_service
from pantala.rpc.transport import bind

from . import descriptions, holdings, jobs, reports, swarm
from .announce_streams import AnnounceStreams
from .config import SchedulerConfig
from .copies import Copies
from .imports import Imports
from .learning import Learning
from .manager import ManagerLink
from .metrics import CONTENT_TYPE, Metrics
from .news import News
from .preheating import Preheating
from .records.sqlite import SqliteRecords
from .records.store import RecordStore
from .replication import Replication
from .seeds import SeedCaller
from .service import SERVICE, Service
from .waiters import Waiters

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


#: Connections at once, of daemons mostly; each takes some tens of kilobytes.
_MAX_CONNECTIONS: Final = 32768

#: Descriptors that are kept at least for what must always work: seeds, listening sockets, logs.
_RESERVE: Final = 64

#: Seconds until what gRPC's health service says is what is true.
_HEALTH_INTERVAL: Final = 1.0


class Scheduler:
    """Knows who has what, and tells peers whom to ask. A program may run it inside itself.

    Args:
        config: From :func:`.config.load`.
        path: Listen on this unix socket, and on no port. Who gets at it is the caller's to say,
            by his umask; to remove it, too.
        source: Says what is wanted of its cluster, if no manager does. None: nothing is.
        on_lost: Told why, when it can serve no longer: the process had better end.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        *,
        path: Path | None = None,
        source: ClusterSource | None = None,
        on_lost: Callable[[str], object] = lambda _why: None,
    ) -> None:
        self._config = config
        self._path = path
        self._mode: int | None = None
        self._tasks = Tasks()
        self._waiters = Waiters()
        self._news = News()
        self._world = World(
            config.limits(),
            self._waiters.wake,
            on_orphan=self._news.orphaned,
            on_partner=self._news.partnered,
        )
        self._metrics = Metrics()
        self._loops = Loops(self._metrics.loop_failed)
        rate = config.server.request_rate_limit
        self._bucket = Bucket(rate, max(1.0, rate))
        self._health = health.aio.HealthServicer()
        self._connections = _connections()
        self._exit = contextlib.AsyncExitStack()
        self._server = Supervised(
            "the scheduler's gRPC server", self._begin, on_lost, target=self._target
        )
        self._records = _records(config)
        timeout = config.seed_peer.task_download_timeout
        self._copies = Copies(self._world, self._records, self._tasks, timeout)
        self._replication = Replication(
            self._world,
            self._records,
            self._copies,
            tasks=self._tasks,
            metrics=self._metrics,
            chance=Random(),  # noqa: S311  to spread load; there is nothing to guess
            interval=config.scheduler.gc.replica_interval,
        )
        self._imports = Imports(
            self._world, self._records, self._replication, self._copies, self._tasks
        )
        self._seeds = SeedCaller(self._world, self._tasks, timeout)
        preheating = Preheating(
            self._world,
            self._tasks,
            self._metrics,
            limit=config.job.limit,
            own_ip=config.server.advertise_ip,
        )
        self._jobs = jobs.Jobs(self._world, preheating, self._records, config.job)
        self._service = Service(
            self._world, self._make_streams(), self._imports, self._jobs, secrets.token_hex(8)
        )
        self._descriptions = descriptions.DescriptionService(
            self._world, self._waiters, self._seeds
        )
        manager = config.manager.addr if path is None else None
        self._manager = None if manager is None else ManagerLink(manager, config, Random())  # noqa: S311  varies pauses
        source = self._manager or source
        self._learning = None if source is None else self._make_learning(source)
        self._port = 0
        self._metrics_port: int | None = None

    @property
    def port(self) -> int:
        """Where it listens, once started; 0 when that is no port."""
        return self._port

    @property
    def metrics_port(self) -> int | None:
        """Where it answers ``GET /metrics``, once started; None if it does not."""
        return self._metrics_port

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ConfigError: The port is taken; or what is wanted of the cluster makes no sense.
            DragonflyError: What is wanted of the cluster cannot be had.
        """
        async with self._exit:
            if self._manager is not None:
                self._exit.push_async_callback(self._manager.close)
            if self._learning is not None:
                await self._learning.start()
            self._exit.push_async_callback(self._records.close)
            self._exit.push_async_callback(self._jobs.kept.close)  # once all have ended
            self._exit.push_async_callback(self._tasks.cancel)
            self._exit.push_async_callback(self._loops.close)
            self._exit.push_async_callback(self._server.stop, None)
            await self._server.start()
            await self._serve_metrics()
            self._sweep_from_now_on()
            self._loops.keep(self._news.turn, "tell of partners")
            if self._learning is not None:
                self._learning.keep_reading(self._loops)
                self._keep_alive(self._learning)
            if self._path is None:
                crowd = Crowd(self._port, self._connections)
                self._loops.keep(crowd.turn, "keep room for callers", rest=crowd.rest)
            self._exit = self._exit.pop_all()
        where = (
            {"socket": str(self._path)}
            if self._path is not None
            else {"port": self._port, "ip": self._config.server.listen_ip}
        )
        logger.info(
            "listening",
            **where,
            advertise_ip=self._config.server.advertise_ip,
            metrics_port=self._metrics_port,
            version=BUILD_VERSION,
        )
        if self._config.without_effect:
            logger.warning("settings without effect", keys=list(self._config.without_effect))
        if self._config.unknown:
            logger.warning("unknown settings", keys=list(self._config.unknown))

    async def stop(self, grace: float = 5.0) -> None:
        """Take no new calls; end those that are open after *grace* seconds at the latest."""
        await self._server.stop(grace)
        await self._exit.aclose()
        logger.info("stopped")

    def _bind(self, server: grpc.aio.Server) -> None:
        if self._path is not None:
            bind(server, f"unix:{self._path}")
            return
        ip = self._config.server.listen_ip
        # Built anew, it is where it was.
        address = host_port(ip, self._port or self._config.server.port)
        self._port = bind(server, address, ip_setting="server.listenIP")

    def _target(self) -> str:
        if self._path is not None:
            return f"unix:{self._path}"
        return asking_at(self._config.server.listen_ip, self._port)

    def _make_streams(self) -> AnnounceStreams:
        return AnnounceStreams(
            self._world,
            self._waiters,
            self._news,
            seeds=self._seeds,
            tasks=self._tasks,
            metrics=self._metrics,
            chance=Random(),  # noqa: S311  for samples; there is nothing to guess
            imports=self._imports,
        )

    def _keep_alive(self, learning: Learning) -> None:
        """Have a manager know this scheduler, and learn what it wants whenever it has been away."""
        if self._manager is not None:
            manager = self._manager
            manager.port = self._config.server.advertise_port or self._port
            manager.on_registered = learning.refresh
            self._loops.keep(manager.keep_alive, "tell the manager", rest=manager.rest)

    def _make_learning(self, source: ClusterSource) -> Learning:
        return Learning(
            source,
            self._world,
            self._config.dyn_config.refresh_interval,
            on_job_rate=self._jobs.limit_rate,
        )

    async def _begin(self) -> grpc.aio.Server:
        server = new_server(self._connections)
        methods = self._service.methods()
        add_service(server, SERVICE, methods, admit=self._admit, observe=self._metrics.observe)
        swarming = swarm.Swarm(self._world, self._imports, self._descriptions.known)
        add_service(server, swarm.SERVICE, swarming, admit=self._admit)
        add_service(server, descriptions.SERVICE, self._descriptions, admit=self._admit)
        add_service(server, jobs.SERVICE, self._jobs, admit=self._admit)
        holding = holdings.HoldingService(self._world, self._metrics)
        add_service(server, holdings.SERVICE, holding, admit=self._admit)
        # As messages of a stream that was admitted, these are not counted: they are fewer.
        add_service(server, reports.SERVICE, reports.ReportService(self._world, self._metrics))
        await self._tell_health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        modules = (swarm, descriptions, jobs, holdings, reports)
        ours = tuple(module.SERVICE for module in modules)
        add_reflection(server, (SERVICE, *ours))
        self._bind(server)
        await server.start()
        if self._path is not None:
            if self._mode is None:
                self._mode = self._path.stat().st_mode & 0o777
            self._path.chmod(self._mode)  # built anew, it is as it was
        return server

    async def _tell_health(self) -> None:
        """Serving, but for background work that keeps failing."""
        states = health_pb2.HealthCheckResponse
        ill = self._loops.failing() or self._server.trouble
        state = states.NOT_SERVING if ill else states.SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def _serve_metrics(self) -> None:
        if self._config.metrics.enable:
            ip, _, port = self._config.metrics.addr.rpartition(":")
            endpoint = metrics_endpoint(self._metrics.render, CONTENT_TYPE, key="metrics.addr:")
            self._exit.push_async_callback(endpoint.close)
            ip = ip.removeprefix("[").removesuffix("]")
            self._metrics_port = await endpoint.start(ip or "0.0.0.0", int(port))

    async def _admit(self, method: str) -> None:
        """Refuse calls beyond the rate limit."""
        if self._bucket.take(1, time.monotonic()) > 0:
            raise Busy(
                f"{method}: more than {self._config.server.request_rate_limit:g} requests "
                "a second; try again later, or raise server.requestRateLimit"
            )

    def _sweep_from_now_on(self) -> None:
        world, gc = self._world, self._config.scheduler.gc

        def hosts() -> None:
            for host in sweep_hosts(world, time.monotonic()):
                logger.warning("host is silent; forgotten", host=host.id)
                self._imports.host_left()

        for interval, work, name in (
            (gc.peer_gc_interval, lambda: sweep_peers(world, time.monotonic()), "sweep of peers"),
            (gc.host_gc_interval, hosts, "sweep of hosts"),
            (gc.task_gc_interval, lambda: sweep_tasks(world, time.monotonic()), "sweep of tasks"),
        ):
            self._loops.every(interval, work, name)
        replication = self._replication
        self._loops.keep(replication.turn, "replicas", rest=replication.rest)
        kept = self._jobs.kept
        self._loops.keep(kept.turn, "jobs that are written down", rest=kept.rest)
        self._loops.every(_HEALTH_INTERVAL, self._tell_health, "tell health")


def _records(config: SchedulerConfig) -> RecordStore:
    """The place that has what outlives the scheduler, not opened yet."""
    redis = config.database.redis
    if not redis.addrs:
        return SqliteRecords(config.database.sqlite.path)
    from .records.redis import RedisRecords  # noqa: PLC0415  slow, and few need it
    from .records.redis_link import Server  # noqa: PLC0415  it imports redis, which is slow

    host, _, port = redis.addrs[0].rpartition(":")
    server = Server(
        host.removeprefix("[").removesuffix("]"),
        int(port),
        username=redis.username or None,
        password=redis.password.get_secret_value() or None,
        pool_size=redis.pool_size,
        pool_timeout=redis.pool_timeout,
    )
    return RedisRecords(server, config.manager.scheduler_cluster_id)


def _connections() -> int:
    """How many connections there may be: some descriptors are for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = soft if soft >= 0 else _MAX_CONNECTIONS  # below 0: there is none
    return max(1, min(_MAX_CONNECTIONS, limit - max(_RESERVE, limit // 8)))
