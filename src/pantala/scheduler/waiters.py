"""Peers that wait for news of a task."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from pantala.core.sched.entities import Task, TaskKey


class Waiters:
    """Wakes those who wait for a task, in the order in which they came."""

    def __init__(self) -> None:
        # A dict for its order; futures are hashed by identity.
        self._waiting: dict[TaskKey, dict[asyncio.Future[None], None]] = {}

    def wake(self, task: Task) -> None:
        """Something about *task* has changed."""
        self.wake_key(task.key)

    def wake_key(self, key: TaskKey) -> None:
        """Likewise of the task of that kind and id, whether peers registered for it or not."""
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, key: TaskKey, timeout: float) -> None:  # noqa: ASYNC109  the end of a wait is no error here
        """Return when the task changes, or after *timeout* seconds."""
        future = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, {})
        waiting[future] = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await future
        finally:
            waiting.pop(future, None)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]
