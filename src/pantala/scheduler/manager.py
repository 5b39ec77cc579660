"""Dragonfly's manager, which is told of this scheduler, and says what is wanted of its cluster.

Nothing needs it. While it is away, what it said last holds, also what it said to an earlier life of
this scheduler; and it is called again, later each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc.aio
import structlog
from google.protobuf.json_format import MessageToDict

from pantala.errors import ConfigError, DragonflyError, FeatureOff, NotFound, Unavailable
from pantala.model.cluster import ClusterWishes
from pantala.net.addresses import local_ip
from pantala.pb import manager_pb2
from pantala.rpc.manager import LIMIT, Manager
from pantala.storage.answers import LastAnswer

from .config import SchedulerConfig
from .wishes import read_wishes

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Beside the SQLite file, for each worker its own: what the manager said last.
_FILE: Final = "scheduler-manager{}.json"

#: Seconds until a manager that is away is called again, the first time and at most; each is varied
#: by a half, so that not all schedulers call at once when it is back.
_BACKOFF: Final = (1.0, 60.0)

#: What this scheduler does for a manager. Not "preheat": a manager hands such jobs over by a queue
#: in Redis that nobody reads here, and another scheduler of the cluster may.
_FEATURES: Final = ("schedule",)


class ManagerLink:
    """The manager at *address*. As a source of wishes see :class:`~pantala.ports.ClusterSource`.

    Args:
        address: ``host:port``.
        config: Of this scheduler.
        chance: Varies pauses.

    Attributes:
        port: Where daemons reach this scheduler; 0: that is not known yet, and it tells nobody.
        on_registered: Called when the manager knows this scheduler, again each time it was away.
    """

    def __init__(self, address: str, config: SchedulerConfig, chance: Random) -> None:
        self.name = f"manager {address}"
        self.port = config.server.advertise_port or config.server.port
        self.on_registered: Callable[[], Awaitable[object]] = _nobody
        self._manager = Manager(address)
        self._config = config
        self._chance = chance
        self._ip = config.server.advertise_ip or local_ip()
        self._interval = config.manager.keep_alive.interval
        self._last = self._memory(address)
        #: The stream by which it hears that this scheduler lives, and its connection.
        self._call: Any = None
        self._exit = contextlib.AsyncExitStack()
        #: It has not answered a question: the stream may lead nowhere, and nobody would notice.
        self._doubtful = False
        self._reading = asyncio.Lock()
        #: Calls in a row that came to nothing.
        self._failures = 0
        self._wishes: ClusterWishes | None = None
        #: What went wrong with each question, so that it is told of once.
        self._problems: dict[str, str] = {}
        self._unknown: tuple[str, ...] = ()

    def _memory(self, address: str) -> LastAnswer | None:
        sqlite = self._config.database.sqlite.path
        if sqlite is None:
            return None
        whose: dict[str, str | int] = {
            "manager": address,
            "scheduler_cluster_id": self._cluster,
            "hostname": self._config.server.host,
        }
        worker = self._config.worker
        return LastAnswer(Path(sqlite).with_name(_FILE.format(f"-{worker}" * bool(worker))), whose)

    @property
    def _cluster(self) -> int:
        return self._config.manager.scheduler_cluster_id

    # -- what is wanted ------------------------------------------------------------------------

    async def read(self) -> ClusterWishes:
        """What is wanted now; while the manager does not answer, what it wanted last."""
        async with self._reading:  # it may be read anew because the manager is back
            return await self._read()

    async def _read(self) -> ClusterWishes:
        try:
            tree = await self._ask()
            wishes, unknown = read_wishes(tree, self.name)
        except DragonflyError as error:
            self._doubtful |= isinstance(error, Unavailable)
            self._tell("what is wanted of the cluster", str(error))
            if self._wishes is None:
                self._wishes = await asyncio.to_thread(self._remembered)
            return self._wishes
        self._tell("what is wanted of the cluster", "")
        if unknown and unknown != self._unknown:
            logger.info("keys of the manager that nobody knows", keys=unknown)
        self._unknown = unknown
        self._wishes = wishes
        if self._last is not None:
            await asyncio.to_thread(self._last.save, tree)
        return wishes

    async def _ask(self) -> Mapping[str, Any]:
        """The tree of :mod:`.wishes`. Raises DragonflyError."""
        if self._wishes is None and self.port:  # it must know us to answer
            await self._register()
        me = self._me()
        row = await self._manager.ask("GetScheduler", manager_pb2.GetSchedulerRequest(**me))
        cluster, seeds = row.scheduler_cluster, row.seed_peers
        texts = {
            "scheduler_cluster_config": cluster.config,
            "scheduler_cluster_client_config": cluster.client_config,
            "seed_peer_cluster_config": seeds[0].seed_peer_cluster.config if seeds else b"",
        }
        trees = {key: self._parsed(key, text) for key, text in texts.items() if text.strip()}
        return {**trees, "applications": await self._applications()}

    async def _applications(self) -> list[Any]:
        """All that have a priority; none, where the manager has none or is too old to know any."""
        request = manager_pb2.ListApplicationsRequest(
            source_type=manager_pb2.SCHEDULER_SOURCE,
            hostname=self._config.server.host,
            ip=self._ip,
        )
        try:
            answer = await self._manager.ask("ListApplications", request)
        except (NotFound, FeatureOff):
            return []
        return [MessageToDict(each) for each in answer.applications]

    def _parsed(self, key: str, text: bytes) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.name}: {key}: {error}") from None

    def _remembered(self) -> ClusterWishes:
        """What was wanted of an earlier life of this scheduler; it may block."""
        tree = None if self._last is None else self._last.load()
        if tree is None:
            return ClusterWishes()
        try:
            return read_wishes(tree, self.name)[0]
        except ConfigError as error:
            logger.warning("last answer not used", of=self.name, why=f"damaged: {error}")
            return ClusterWishes()

    # -- that this scheduler is there ----------------------------------------------------------

    def _me(self) -> dict[str, Any]:
        return {
            "source_type": manager_pb2.SCHEDULER_SOURCE,
            "hostname": self._config.server.host,
            "ip": self._ip,
            "scheduler_cluster_id": self._cluster,
        }

    async def _register(self) -> None:
        """Tell where this scheduler is. Raises DragonflyError."""
        host = self._config.host
        told = {"manager_keep_alive_interval": round(self._interval * 1e9)}
        request = manager_pb2.UpdateSchedulerRequest(
            **self._me(),
            port=self.port,
            idc=host.idc,
            location=host.location,
            features=_FEATURES,
            config=json.dumps(told).encode(),
        )
        await self._manager.ask("UpdateScheduler", request)

    async def keep_alive(self) -> None:
        """Say once that this scheduler lives, after telling where it is if need be."""
        try:
            await self._say()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            await self._lost(_words(error))
        except (DragonflyError, TimeoutError) as error:
            await self._lost(str(error) or f"nothing is taken within {LIMIT:g} s")
        else:
            self._failures = 0
            self._tell("keep alive", "")

    async def _say(self) -> None:
        if self._doubtful:
            await self.close()
        if self._call is None:
            await self._begin()
        elif self._call.done():
            await self._call  # it says why
            raise Unavailable(f"{self.name} has ended the stream")
        word = manager_pb2.KeepAliveRequest(
            source_type=manager_pb2.SCHEDULER_SOURCE,
            hostname=self._config.server.host,
            ip=self._ip,
            cluster_id=self._cluster,
        )
        async with asyncio.timeout(LIMIT):
            await self._call.write(word)

    async def _begin(self) -> None:
        await self._register()
        self._doubtful = False
        stub = await self._exit.enter_async_context(self._manager.stub())
        self._call = stub.KeepAlive()
        logger.info("registered", manager=self._manager.address, port=self.port)
        await self.on_registered()

    async def _lost(self, why: str) -> None:
        self._failures += 1
        self._tell("keep alive", why)
        await self.close()

    async def rest(self) -> None:
        """Wait until it is time for the next word."""
        if not self._failures:
            await asyncio.sleep(self._interval)
            return
        pause = min(_BACKOFF[0] * 2 ** min(self._failures - 1, 16), _BACKOFF[1])
        await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))

    async def close(self) -> None:
        """End the stream: the manager takes this scheduler for inactive."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        await self._exit.aclose()

    def _tell(self, what: str, problem: str) -> None:
        before = self._problems.get(what, "")
        if problem and not before:
            logger.warning(
                "no good answer of the manager",
                manager=self._manager.address,
                what=what,
                why=problem,
            )
        elif before and not problem:
            logger.info("the manager answers well again", manager=self._manager.address, what=what)
        self._problems[what] = problem


async def _nobody() -> None:
    """Nobody wants to know."""


def _words(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "the stream has ended"
