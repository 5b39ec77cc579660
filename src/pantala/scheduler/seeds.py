"""Asking seeds to fetch a task from its origin, so that others need not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from pantala.background import Tasks
from pantala.core.sched.entities import Host, Task, Trigger
from pantala.core.sched.world import World
from pantala.errors import Blame, DragonflyError, OriginError, Unavailable
from pantala.model.task import DownloadRequest

from .dialects import SchedulerDialect
from .hosts import ask

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

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

    def ask(
        self,
        dialect: SchedulerDialect,
        task: Task,
        seeds: Sequence[Host],
        request: DownloadRequest,
        refused: Callable[[OriginError], object] = lambda _error: None,
    ) -> None:
        """Ask one of *seeds* for *task*, in this order, until one carries it out.

        Args:
            dialect: How.
            task: For which task.
            seeds: Whom.
            request: What they are to do.
            refused: Told if the origin failed one of them.
        """
        work = self._ask(dialect, task, seeds, request, refused)
        self._tasks.start(work, f"seed of {task.id}")

    async def _ask(
        self,
        dialect: SchedulerDialect,
        task: Task,
        seeds: Sequence[Host],
        request: DownloadRequest,
        refused: Callable[[OriginError], object],
    ) -> None:
        limits = self._world.limits
        no_seed_for = limits.seed_pause
        try:
            for seed in seeds:
                task.trigger = Trigger(seed.id, time.monotonic())
                try:
                    await self._download(dialect, seed, request)
                except DragonflyError as error:
                    if isinstance(error, OriginError) and error.blame is not Blame.LOCAL:
                        # Another seed would hear the same from the origin. But what one caller's
                        # credentials spoil is not spoiled for long.
                        logger.info("origin failed a seed", task=task.id, error=str(error))
                        refused(error)
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

    async def _download(
        self, dialect: SchedulerDialect, seed: Host, request: DownloadRequest
    ) -> None:
        """Let *seed* download, and stay until it has finished. Raises DragonflyError."""
        await ask(
            seed.facts,
            dialect.download,
            dialect.shared.codec.encode_download(request),
            timeout=self._timeout,
            # A stock one asks the origin first, and has as long as it may take to register.
            stock_hello=self._world.limits.seed_start,
            what="seed",
        )
