"""Asking seeds to fetch a task from its origin, so that others need not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import structlog

from pydragonfly.core.sched.entities import Host, Task, Trigger
from pydragonfly.core.sched.world import World
from pydragonfly.errors import DragonflyError, SourceFailed
from pydragonfly.pb import dfdaemon_pb2_grpc
from pydragonfly.rpc.status import from_rpc_error
from pydragonfly.rpc.transport import channel_options

from .background import Background
from .dialects import Side

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class SeedCaller:
    """Calls one seed for a task, and when that one cannot be reached, the next.

    Args:
        world: Learns of a call's beginning and end.
        background: Where the calls run.
        timeout: Seconds that a seed may take for a whole task.
    """

    def __init__(self, world: World, background: Background, timeout: float) -> None:
        self._world = world
        self._background = background
        self._timeout = timeout

    def ask(self, side: Side, task: Task, seeds: Sequence[Host], request: Any) -> None:
        """Ask one of *seeds* for *task*, in this order, until one carries it out."""
        self._background.spawn(self._ask(side, task, seeds, request), f"seed of {task.id}")

    async def _ask(self, side: Side, task: Task, seeds: Sequence[Host], request: Any) -> None:
        limits = self._world.limits
        no_seed_for = limits.seed_pause
        try:
            for seed in seeds:
                task.trigger = Trigger(seed.id, time.monotonic())
                try:
                    await self._download(side, seed, request)
                except SourceFailed as error:
                    # Another seed would hear the same from the origin.
                    logger.info("origin failed a seed", task=task.id, error=str(error))
                    no_seed_for = limits.seed_bar
                    return
                except DragonflyError as error:
                    logger.warning("seed failed", task=task.id, seed=seed.id, error=str(error))
                else:
                    no_seed_for = 0.0
                    return
        finally:
            self._world.end_trigger(task, no_seed_before=time.monotonic() + no_seed_for)

    async def _download(self, side: Side, seed: Host, request: Any) -> None:
        """Let *seed* download, and stay until it has finished. Raises DragonflyError."""
        method, _ = side.download
        target = seed.facts.address
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            stub: Any = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)
            try:
                async for _ in getattr(stub, method)(request, timeout=self._timeout):
                    pass
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, f"seed {seed.id}") from error
