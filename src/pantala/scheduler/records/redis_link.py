"""The connection to Redis, for all that is kept there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pantala.errors import Unavailable
from pantala.model.addresses import host_port

from .store import PAGE

#: Seconds until a call is given up: a Redis that takes as long is as good as gone.
LIMIT: Final = 5.0
#: Likewise until a connection is there.
_CONNECT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Server:
    """Which Redis, and as whom."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    pool_size: int = 20
    pool_timeout: float = 10.0

    @property
    def address(self) -> str:
        """``host:port`` of the server, for messages."""
        return host_port(self.host, self.port)


class RedisLink:
    """A pool of connections.

    Args:
        server: Which Redis.
        limit: Seconds until a call is given up.

    Attributes:
        redis: To make calls of, which :meth:`ask` then makes.
    """

    def __init__(self, server: Server, limit: float = LIMIT) -> None:
        self._server = server
        self._limit = limit
        # A call that failed may have been carried out, so it is not repeated here.
        pool = BlockingConnectionPool(
            host=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            db=0,
            max_connections=server.pool_size,
            timeout=server.pool_timeout,
            socket_timeout=limit,
            socket_connect_timeout=min(limit, _CONNECT),
            retry=Retry(NoBackoff(), 0),
        )
        self.redis: Any = Redis(connection_pool=pool)

    async def close(self) -> None:
        """End all connections."""
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()

    async def many(self, command: str, keys: Iterable[str]) -> list[Any]:
        """The answers to one command for each key. Raises Unavailable."""
        wanted, found = list(keys), []
        for at in range(0, len(wanted), PAGE):
            async with self.pipeline(transaction=False) as pipeline:
                for key in wanted[at : at + PAGE]:
                    getattr(pipeline, command)(key)
                found += await self.ask(pipeline.execute)
        return found

    @asynccontextmanager
    async def pipeline(self, *, transaction: bool) -> AsyncIterator[Any]:
        """Calls that are made together."""
        async with self.redis.pipeline(transaction=transaction) as pipeline:
            yield pipeline

    async def ask(self, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """What Redis answers to *call*. Raises Unavailable."""
        me = asyncio.current_task()
        assert me is not None  # noqa: S101  a coroutine that runs is a task's
        try:
            async with asyncio.timeout(self._limit):
                answer = await call(*args, **kwargs)
        except (RedisError, OSError, TimeoutError) as error:
            _heed(me)
            # When one connection has broken, Redis has mostly been started anew: none is good.
            await self.redis.connection_pool.disconnect(inuse_connections=False)
            said = str(error) or f"no answer within {self._limit:g} s"
            raise Unavailable(
                f"records of imported tasks: Redis at {self._server.address}: {said}; nothing is "
                "lost, try again when it is back"
            ) from error
        _heed(me)
        return answer


def _heed(me: asyncio.Task[Any]) -> None:
    """End here if *me* was cancelled: the library takes that for a connection that broke."""
    if me.cancelling():
        raise asyncio.CancelledError
