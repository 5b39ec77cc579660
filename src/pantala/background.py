"""Work that goes on beside what is asked for: with an owner, and loops that nothing ends.

A loop is written as its one turn. What repeats it is here alone (:class:`Loops`), so that no turn
that goes wrong can be the last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds until a loop whose turn went wrong is tried again; doubled up to the last. What made it
#: fail may last (no descriptors are left), and each turn that fails writes a traceback.
BACKOFF: Final = (0.5, 15.0)

#: Turns in a row that must have gone wrong before a loop counts as one that keeps failing: the
#: fourth is tried 3.5 s after the first.
_TOO_MANY: Final = 4


class Tasks:
    """Background tasks with an owner: they are awaited in the end.

    Args:
        on_error: Told of an exception that one of them raised. None: it is logged.
    """

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_error = on_error

    def start(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[Any]:
        """Run *work* until it ends or :meth:`cancel` does it. What never ends is for Loops."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if self._on_error is not None:
                self._on_error(error)
            else:
                logger.error("background task failed", task=task.get_name(), exc_info=error)

    async def cancel(self) -> None:
        """Cancel all and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Trouble:
    """With one loop, since its last turn that went well."""

    failures: int
    since: float
    last: str


class Loops:
    """Work that is repeated for as long as the program lives.

    Args:
        on_failure: Told the name of a loop whenever a turn of it went wrong; for metrics.
    """

    def __init__(self, on_failure: Callable[[str], object] = lambda _name: None) -> None:
        self._on_failure = on_failure
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._troubles: dict[asyncio.Task[None], _Trouble] = {}

    def keep(
        self,
        turn: Callable[[], object],
        name: str,
        *,
        rest: Callable[[], Awaitable[object]] | None = None,
    ) -> asyncio.Task[None]:
        """Repeat *turn* until the task is cancelled, or :meth:`close`.

        Whatever a turn raises is logged and counted, and it is tried again, later each time
        (:data:`BACKOFF`). Nor does a cancellation end it that somebody else meant for something
        that the turn waits for.

        Args:
            turn: A function, or one that returns what is to be awaited.
            name: One of a few: for logs and as a label of the metric.
            rest: Awaited after each turn that went well.
        """
        task = asyncio.get_running_loop().create_task(self._run(turn, name, rest), name=name)
        self._tasks[task] = name
        task.add_done_callback(self._forget)
        return task

    def every(self, seconds: float, work: Callable[[], object], name: str) -> None:
        """Do *work* now, and again so many *seconds* after it went well."""
        self.keep(work, name, rest=lambda: asyncio.sleep(seconds))

    @property
    def names(self) -> list[str]:
        """Of the loops that run."""
        return sorted(self._tasks.values())

    def failing(self) -> list[str]:
        """A line for each loop that keeps failing."""
        now = time.monotonic()
        return sorted(
            f"{self._tasks[task]}: failed {trouble.failures} times in a row over "
            f"{now - trouble.since:.0f} s, the last time with {trouble.last}"
            for task, trouble in self._troubles.items()
            if trouble.failures >= _TOO_MANY
        )

    async def close(self) -> None:
        """End all, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._troubles.pop(task, None)

    async def _run(
        self,
        turn: Callable[[], object],
        name: str,
        rest: Callable[[], Awaitable[object]] | None,
    ) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101  a coroutine that runs is a task's
        while True:
            try:
                result = turn()
                if isinstance(result, Awaitable):
                    await result
                self._troubles.pop(me, None)
                if rest is not None:
                    await rest()
            except asyncio.CancelledError as error:
                if me.cancelling():
                    raise
                await asyncio.sleep(self._failed(me, name, error))
            except Exception as error:  # noqa: BLE001  whatever it is, the next turn may go well
                await asyncio.sleep(self._failed(me, name, error))

    def _failed(self, me: asyncio.Task[None], name: str, error: BaseException) -> float:
        """A turn went wrong; seconds until the next."""
        known = self._troubles.setdefault(me, _Trouble(0, time.monotonic(), ""))
        known.failures += 1
        known.last = type(error).__name__
        pause: float = min(BACKOFF[0] * 2 ** min(known.failures - 1, 16), BACKOFF[1])
        logger.error(
            "background loop failed; it is tried again",
            loop=name,
            failures=known.failures,
            seconds=pause,
            exc_info=error,
        )
        self._on_failure(name)
        return pause
