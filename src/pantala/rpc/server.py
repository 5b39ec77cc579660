"""A gRPC server that nothing a stranger sends can end, and that is built anew if it ends or hangs.

grpcio's own loop takes each call's path for UTF-8 and dies of one that is not; the port closes,
the process lives on. Here the paths of our own methods are registered with its core, which compares
bytes; what matches none is answered UNIMPLEMENTED without a look at its name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore]  # some of its stubs leave it out

from pantala.background import Tasks
from pantala.model.addresses import host_port

from .transport import channel_options, server_options

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Attempts to build a server anew, one after the other, before that is given up.
REBUILDS: Final = 5

#: Seconds after the first attempt; doubled each time. 15.5 s in all: what holds its port by chance
#: has time to let go.
_PAUSE: Final = 0.5

#: Seconds that a server must have lived for its end not to count with those before.
_LIVED: Final = 60.0

#: Seconds between two checks whether a server answers, by a call to its own address.
_CHECK: Final = 10.0

#: How long a check waits: so many times so many seconds. They are waited for one after the other,
#: so a loop that is held up by something else, which is no fault of the server's, waits longer.
_WAITS: Final = (10, 0.5)

#: Checks in a row without an answer until a server counts as one that hangs.
_MISSES: Final = 3

#: Seconds for one that hangs to end, before it is left to itself.
_END_LIMIT: Final = 5.0

_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"

#: What grpcio must have inside for paths to be registered. What lacks it is watched all the same.
_WANTED: Final = ("_make_request_call_future", "_request_call", "add_registered_method_handlers")


class _Steadfast(cygrpc.AioServer):  # type: ignore[misc]  # grpcio's types say Any
    """The core's server, whose loop never sees a path that nobody registered."""

    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.get_running_loop().create_task(self._refuse_unknown())

    async def _refuse_unknown(self) -> None:
        """Answer whatever matches no method, until the server ends, which raises here."""
        refusals = Tasks()
        while True:
            refusals.start(_refuse(await self._request_call()), "refuse an unknown method")


async def _refuse(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())  # noqa: SLF001  grpcio has no other way
    with contextlib.suppress(Exception):  # it raises when all went well, and when the caller left
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())


def new_server(connections: int | None = None) -> grpc.aio.Server:
    """A server with :func:`~.transport.server_options`, in a running loop.

    Only what is added with ``add_registered_method_handlers`` is served.

    Args:
        connections: How many there may be; None: no limit.
    """
    options = server_options(connections)
    server = grpc.aio.server(options=options)
    if all(hasattr(cygrpc.AioServer, name) for name in _WANTED):
        loop = asyncio.get_running_loop()
        server._server = _Steadfast(loop, None, (), None, options, None)  # type: ignore[attr-defined]  # noqa: SLF001  there is no other way in
    return server


class Supervised:
    """A server at one address for as long as the program lives.

    Args:
        name: For messages.
        begin: Makes a server with its services, at the address that it had before, and starts it.
        on_lost: Told why, once: the server has ended and cannot be built anew.
        target: Where it is called once it has begun, as :func:`asking_at` says.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Awaitable[grpc.aio.Server]],
        on_lost: Callable[[str], object],
        *,
        target: Callable[[], str],
    ) -> None:
        self._name = name
        self._target = target
        self._begin = begin
        self._on_lost = on_lost
        self._server: grpc.aio.Server | None = None
        self._tasks = Tasks()
        #: Why it does not serve now, in a line; None while it does.
        self.trouble: str | None = None

    async def start(self) -> None:
        """Serve. Raises ConfigError: the address cannot be had."""
        self._server = await self._begin()
        self._tasks.start(self._keep(), f"watch {self._name}")

    async def stop(self, grace: float | None) -> None:
        """End the server; calls under way within *grace* seconds. None: at once."""
        await self._tasks.cancel()
        if self._server is not None:
            await self._server.stop(grace)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        ends = 0
        while self._server is not None:
            began = loop.time()
            error = await self._end_of(self._server)
            self._server = None
            self.trouble = f"{self._name} has ended: {error or 'no reason given'}"
            logger.error("server ended; building it anew", server=self._name, exc_info=error)
            ends = 1 if loop.time() - began > _LIVED else ends + 1
            if ends <= REBUILDS:
                await self._build_anew()
            if self._server is None:
                self._on_lost(f"{self.trouble}; it cannot be built anew")

    async def _end_of(self, server: grpc.aio.Server) -> BaseException | None:
        """Wait until it ends, or hangs and is ended; why, if anybody knows."""
        # Tasks of their own: cancelling what waits would cancel what grpcio waits for.
        ended = asyncio.get_running_loop().create_task(server.wait_for_termination())
        hung = self._tasks.start(self._until_it_hangs(), f"check {self._name}")
        await asyncio.wait((ended, hung), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and (hung.cancelled() or hung.exception()):
            await asyncio.wait((ended,))  # that checks fail is no reason to end what serves
        if ended.done():
            hung.cancel()
            return None if ended.cancelled() else ended.exception()
        # Its port is free as soon as it has been told; that it obeys is another matter.
        await asyncio.wait((self._tasks.start(server.stop(0), "end it"),), timeout=_END_LIMIT)
        return TimeoutError(f"it did not answer {_MISSES} times in a row")

    async def _until_it_hangs(self) -> None:
        misses = 0
        while misses < _MISSES:
            await asyncio.sleep(_CHECK)
            if await self._answers():
                if misses:
                    logger.info("server answers again", server=self._name)
                misses, self.trouble = 0, None
            else:
                misses += 1
                self.trouble = f"{self._name} did not answer {misses} times in a row"
                logger.warning("server does not answer", server=self._name, times=misses)

    async def _answers(self) -> bool:
        """Whether a call to its own address ends somehow. One that is hung up on does, too."""
        call = self._tasks.start(_check(self._target()), "check")
        count, seconds = _WAITS
        for _ in range(count):
            await asyncio.wait((call,), timeout=seconds)
            if call.done():
                return True
        call.cancel()
        return False

    async def _build_anew(self) -> None:
        for attempt in range(REBUILDS):
            try:
                self._server = await self._begin()
            except Exception as error:  # whatever it is, the next attempt may go well
                self.trouble = f"{self._name} has ended, and does not start: {error}"
                logger.exception("server does not start", server=self._name)
                await asyncio.sleep(_PAUSE * 2**attempt)
            else:
                self.trouble = None
                logger.info("server is there again", server=self._name)
                return


def asking_at(ip: str, port: int) -> str:
    """Where a server that listens on *ip* answers this machine, as gRPC wants it."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(ip, ip)
    return host_port(reached, port)


async def _check(target: str) -> None:
    """Ask for its health; whatever it says, it lives."""
    # A connection of its own: one that is there already would not show that new ones are taken.
    options = (*channel_options(target), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(target, options) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            call: Any = channel.unary_unary(_HEALTH_CHECK)
            await call(b"")
