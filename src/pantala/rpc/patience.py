"""Trying again what was refused for load."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

from pantala.errors import Busy

#: Seconds within which the first attempt after a refusal falls, and the most that this grows to by
#: doubling. Anywhere within: of many that were refused at one moment, few come back at another.
_FIRST: Final = 0.25
_MOST: Final = 8.0

_dice = Random()  # noqa: S311  to spread attempts; there is nothing to guess

_T = TypeVar("_T")


async def while_busy(
    attempt: Callable[[], Awaitable[_T]],
    *,
    limit: float | None = None,
    needless: Callable[[], bool] = lambda: False,
) -> _T:
    """The result of *attempt*, made anew as long as it is refused for load.

    Args:
        attempt: Raises Busy when it is refused.
        limit: Seconds after which no further attempt is made. None: whoever waits has an end of
            his own.
        needless: Nobody wants the result any more.

    Raises:
        Busy: The last refusal.
    """
    clock = asyncio.get_running_loop().time
    end = float("inf") if limit is None else clock() + limit
    most = _FIRST
    while True:
        try:
            return await attempt()
        except Busy:
            pause = _dice.uniform(0.0, most)
            if needless() or clock() + pause >= end:
                raise
            most = min(2 * most, _MOST)
        await asyncio.sleep(pause)
