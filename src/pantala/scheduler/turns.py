"""Many things to be done, a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


async def in_turns(
    things: Sequence[_T], at_once: int, work: Callable[[_T], Awaitable[object]]
) -> None:
    """Do *work* with each of *things*, so many at once, in their order.

    Whatever the first of them raises that fails ends all.
    """
    rest = iter(things)

    async def worker() -> None:
        for thing in rest:
            await work(thing)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(things))):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
