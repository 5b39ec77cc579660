"""What a scheduler learns while it runs: what is wanted of its cluster, and who goes by it.

It is read once before anything is served, and again in the background. No question of a peer waits
for that; and while it cannot be had, what was read last holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from pantala.background import Loops
from pantala.core.sched.priorities import Priorities
from pantala.core.sched.world import World
from pantala.errors import DragonflyError
from pantala.model.cluster import ClusterWishes
from pantala.ports import ClusterSource

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Of the loop that reads it.
_LOOP: Final = "read what is wanted of the cluster"


class Learning:
    """Reads a source, and has all who go by it know.

    Args:
        source: Where it is from.
        world: Its limits are those of its settings, but for what is wanted. It is told what is
            wanted of applications, too.
        interval: Seconds between two readings.
        on_job_rate: Called with the jobs that may begin in a second, None for any number, whenever
            that may have changed.
    """

    def __init__(
        self,
        source: ClusterSource,
        world: World,
        interval: float,
        *,
        on_job_rate: Callable[[int | None], object],
    ) -> None:
        self._source = source
        self._world = world
        self._interval = interval
        self._on_job_rate = on_job_rate
        self._limits = world.limits
        #: What holds now.
        self._wishes = ClusterWishes()
        #: What was wrong when it was last read, so that it is logged once.
        self._problem = ""

    async def start(self) -> None:
        """Read for the first time.

        Raises:
            DragonflyError: It cannot be had, or makes no sense.
        """
        self._take(await self._source.read())

    def keep_reading(self, loops: Loops) -> None:
        """From now on, read again and again."""

        async def turn() -> None:
            # It was read at the start: the waiting comes first.
            await asyncio.sleep(self._interval)
            await self.refresh()

        loops.keep(turn, _LOOP)

    async def refresh(self) -> None:
        """Read again. While it cannot be had, what was read last holds."""
        try:
            wishes = await self._source.read()
        except DragonflyError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                logger.warning("what is wanted of the cluster cannot be read", why=self._problem)
            return
        if self._problem:
            self._problem = ""
            logger.info("what is wanted of the cluster can be read again")
        self._take(wishes)

    def _take(self, wishes: ClusterWishes) -> None:
        if wishes == self._wishes:
            return
        before, self._wishes = self._wishes, wishes
        limits = self._limits.under(wishes)
        self._world.adopt(limits)
        self._on_job_rate(wishes.job_rate_limit)
        if wishes.applications != before.applications:
            self._judge_by(wishes)
        logger.info(
            "what is wanted of the cluster",
            applications=len(wishes.applications),
            candidate_parent_limit=limits.candidates,
            filter_parent_limit=limits.sample,
            load_limit=limits.uploads,
            seed_load_limit=limits.seed_uploads,
            job_rate_limit=wishes.job_rate_limit,
        )

    def _judge_by(self, wishes: ClusterWishes) -> None:
        priorities = Priorities(wishes.applications)
        if priorities.skipped:
            logger.warning("URL patterns are skipped", patterns=list(priorities.skipped))
        self._world.priorities = priorities
