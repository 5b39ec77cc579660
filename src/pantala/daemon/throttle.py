"""A rate that nobody exceeds: whoever comes too soon waits."""

from __future__ import annotations

import asyncio

from pantala.core.bucket import Bucket


class Throttle:
    """Grants so much a second, by the loop's clock.

    Args:
        rate: How much a second. Above 0.
        burst: How much is saved up at most; None: what a second brings.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._bucket = Bucket(rate, burst)

    def grants(self, n: float) -> bool:
        """Take *n* if that need not wait; whether it was taken."""
        return self._bucket.take(n, asyncio.get_running_loop().time()) == 0

    async def take(self, n: float) -> None:
        """Take *n*, as soon as it is granted."""
        loop = asyncio.get_running_loop()
        while wait := self._bucket.take(n, loop.time()):  # noqa: ASYNC110  tokens come with time
            await asyncio.sleep(wait)
