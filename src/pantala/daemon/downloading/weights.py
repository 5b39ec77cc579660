"""What the hosts of parents can still give, as they tell it themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import structlog

from pantala.background import Tasks
from pantala.errors import DragonflyError
from pantala.model.announce import Candidate
from pantala.ports import ParentLink

logger = structlog.get_logger(__name__)

#: Called with what a host can give; None: it will tell nothing.
Listener = Callable[[float | None], None]


class Weights:
    """One stream a host, for as long as a download uses it as a parent.

    Args:
        parents: How to ask.
        tasks: Owns the streams.
    """

    def __init__(self, parents: ParentLink, tasks: Tasks) -> None:
        self._parents = parents
        self._tasks = tasks
        #: By host id. None of the sets is empty.
        self._listeners: dict[str, set[Listener]] = {}
        self._streams: dict[str, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    def watch(self, parent: Candidate, listener: Listener) -> Callable[[], None]:
        """Tell *listener* what *parent*'s host can give, again and again.

        Returns:
            Ends it; to be called once. A host that tells nothing any more is asked again for the
            next listener.
        """
        host = parent.host.id
        self._listeners.setdefault(host, set()).add(listener)
        if host not in self._streams or self._streams[host].done():
            work = self._follow(parent)
            self._streams[host] = self._tasks.start(work, f"weight of {host}")

        def end() -> None:
            listeners = self._listeners[host]
            listeners.remove(listener)
            if not listeners:
                del self._listeners[host]
                self._streams.pop(host).cancel()

        return end

    async def _follow(self, parent: Candidate) -> None:
        try:
            async with aclosing(_plain(self._parents.weights(parent))) as weights:
                async for weight in weights:
                    for listener in list(self._listeners.get(parent.host.id, ())):
                        listener(weight)
        except DragonflyError as error:
            logger.debug("parent tells no weight", host=parent.host.id, why=str(error))
            for listener in list(self._listeners.get(parent.host.id, ())):
                listener(None)


def _plain(weights: AsyncIterator[float]) -> Any:
    """An async generator as what it is, for ``aclosing``."""
    return weights
