"""A gRPC server that nothing a stranger sends can end, and that is built anew if it ends after all.

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
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its stubs leave it out

from pantala.background import Tasks

from .transport import server_options

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Attempts to build a server anew, one after the other, before that is given up.
REBUILDS: Final = 5

#: Seconds after the first attempt; doubled each time. 15.5 s in all: what holds its port by chance
#: has time to let go.
_PAUSE: Final = 0.5

#: Seconds that a server must have lived for its end not to count with those before.
_LIVED: Final = 60.0

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
        server._server = _Steadfast(loop, None, (), None, options, None)  # type: ignore[attr-defined]  # noqa: SLF001  see above
    return server


class Supervised:
    """A server at one address for as long as the program lives.

    Args:
        name: For messages.
        begin: Makes a server with its services, at the address that it had before, and starts it.
        on_lost: Told why, once: the server has ended and cannot be built anew.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Awaitable[grpc.aio.Server]],
        on_lost: Callable[[str], object],
    ) -> None:
        self._name = name
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
            # A task of its own: cancelling what waits would cancel what grpcio waits for.
            ended = loop.create_task(self._server.wait_for_termination())
            await asyncio.wait((ended,))
            error = None if ended.cancelled() else ended.exception()
            self._server = None
            self.trouble = f"{self._name} has ended: {error or 'no reason given'}"
            logger.error("server ended; building it anew", server=self._name, exc_info=error)
            ends = 1 if loop.time() - began > _LIVED else ends + 1
            if ends <= REBUILDS:
                await self._build_anew()
            if self._server is None:
                self._on_lost(f"{self.trouble}; it cannot be built anew")

    async def _build_anew(self) -> None:
        for attempt in range(REBUILDS):
            try:
                self._server = await self._begin()
            except Exception as error:
                self.trouble = f"{self._name} has ended, and does not start: {error}"
                logger.exception("server does not start", server=self._name)
                await asyncio.sleep(_PAUSE * 2**attempt)
            else:
                self.trouble = None
                logger.info("server is there again", server=self._name)
                return
