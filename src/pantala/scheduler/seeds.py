"""Asking seeds to fetch a task from its origin, so that others need not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from pantala.background import Tasks
from pantala.core.sched.entities import Host, Task, Trigger
from pantala.core.sched.world import World
from pantala.errors import Blame, DragonflyError, SourceFailed, Unavailable
from pantala.model.task import DownloadRequest
from pantala.pb import dfdaemon_pb2_grpc
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

from .dialects import Side

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds until the first word of a seed of ours, which it says at once; children wait meanwhile.
#: A stock one asks the origin first, and has as long as it may take to register.
_HELLO_LIMIT: Final = 3.0

#: Seconds between two pings: children wait for a seed as long as it lives.
_KEEPALIVE: Final = 10.0

#: Seconds for which a seed that could not be reached is not asked, unless it announces itself.
_REST: Final = 60.0


class SeedCaller:
    """Calls one seed for a task, and when that one cannot be reached, the next.

    Args:
        world: Learns of a call's beginning and end.
        tasks: Where the calls run.
        timeout: Seconds that a seed may take for a whole task.
    """

    def __init__(self, world: World, tasks: Tasks, timeout: float) -> None:
        self._world = world
        self._tasks = tasks
        self._timeout = timeout

    def ask(self, side: Side, task: Task, seeds: Sequence[Host], request: DownloadRequest) -> None:
        """Ask one of *seeds* for *task*, in this order, until one carries it out."""
        self._tasks.start(self._ask(side, task, seeds, request), f"seed of {task.id}")

    async def _ask(
        self, side: Side, task: Task, seeds: Sequence[Host], request: DownloadRequest
    ) -> None:
        limits = self._world.limits
        no_seed_for = limits.seed_pause
        try:
            for seed in seeds:
                task.trigger = Trigger(seed.id, time.monotonic())
                try:
                    await self._download(side, seed, request)
                except DragonflyError as error:
                    if isinstance(error, SourceFailed) and error.blame is not Blame.LOCAL:
                        # Another seed would hear the same from the origin. But what one caller's
                        # credentials spoil is not spoiled for long.
                        logger.info("origin failed a seed", task=task.id, error=str(error))
                        if error.blame is Blame.ORIGIN:
                            no_seed_for = limits.seed_bar
                        return
                    if type(error) is Unavailable:  # not Busy, and not a task that was deleted
                        self._world.seeds.leave_out(seed, time.monotonic() + _REST)
                    logger.warning("seed failed", task=task.id, seed=seed.id, error=str(error))
                else:
                    if self._world.is_held_by(seed, task):
                        no_seed_for = 0.0
                    return
        finally:
            self._world.end_trigger(task, no_seed_before=time.monotonic() + no_seed_for)

    async def _download(self, side: Side, seed: Host, request: DownloadRequest) -> None:
        """Let *seed* download, and stay until it has finished. Raises DragonflyError."""
        message = side.talk.codec.encode_download(request)
        target = seed.facts.address
        hello = _HELLO_LIMIT if seed.facts.is_ours else self._world.limits.seed_start
        # Ours let themselves be pinged as often as that, and stock daemons count no pings.
        options = channel_options(target, keepalive=_KEEPALIVE)
        async with grpc.aio.insecure_channel(target, options) as channel:
            stub: Any = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)
            try:
                call = getattr(stub, side.download)(message, timeout=self._timeout)
                async with asyncio.timeout(hello):
                    await call.initial_metadata()
                async for _ in call:
                    pass
            except TimeoutError:
                raise Unavailable(f"seed {seed.id}: silent for {hello:g} s") from None
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, f"seed {seed.id}") from error
