"""Work that nobody waits for, with an owner who ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Background:
    """Runs coroutines until they are done, or until :meth:`close`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run *work*. What it raises is logged: it is a bug."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def spawn_periodic(self, interval: float, work: Callable[[], object], name: str) -> None:
        """Call *work* every *interval* seconds; what it raises does not end that."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(interval)
                try:
                    work()
                except Exception:  # the next one may go well; this one is logged
                    logger.exception("background work failed; trying again later", work=name)

        self.spawn(repeat(), name)

    async def close(self) -> None:
        """Cancel all that runs, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work failed", work=task.get_name(), exc_info=error)
