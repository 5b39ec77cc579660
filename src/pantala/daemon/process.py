"""A daemon as a process: what tells it to stop, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pantala.errors import Unavailable
from pantala.net.sockets import raise_limit
from pantala.paths import scheduler_path_for

from .app import Daemon
from .config import DaemonConfig
from .host.sockets import SocketPath, private

logger = structlog.get_logger(__name__)


async def serve(config: DaemonConfig, *, personal_idle: float | None = None) -> None:
    """Run a daemon until it is told to stop.

    Args:
        config: Its settings.
        personal_idle: With a scheduler of its own, on no port, and for so many idle seconds
            only.

    Raises:
        ConfigError: It cannot start with these settings.
        Unavailable: It can serve no longer.
    """
    stop = asyncio.Event()
    lost: list[str] = []

    def on_lost(why: str) -> None:
        lost.append(why)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        address = None
        if personal_idle is not None:
            address = await _own_scheduler(stack, config, on_lost)
        alone = personal_idle is not None
        daemon = Daemon(config, scheduler=address, alone=alone, on_lost=on_lost)
        await daemon.start()
        stack.push_async_callback(daemon.stop)
        if personal_idle is None:
            await stop.wait()
        else:
            await _until_idle(daemon, stop, personal_idle)
    if lost:
        raise Unavailable(lost[0])


async def _own_scheduler(
    stack: contextlib.AsyncExitStack, config: DaemonConfig, on_lost: Callable[[str], object]
) -> str:
    """Start a scheduler for this process alone, on a socket of this user's; its address.

    Every local user gets at a port of the loopback interface, whoever opened it.
    """
    from pantala.scheduler.app import Scheduler  # noqa: PLC0415  only a personal daemon has one
    from pantala.scheduler.config import load  # noqa: PLC0415  only a personal daemon has one

    path = Path(scheduler_path_for(str(config.download.server.socket_path)))
    right = SocketPath(path, setting="download.server.socketPath")
    stack.callback(right.release)
    scheduler = Scheduler(load(None, {"database.sqlite.path": None}), path=path, on_lost=on_lost)
    with private():
        await scheduler.start()
    stack.push_async_callback(scheduler.stop, 0.0)
    return f"unix:{path}"


async def _until_idle(daemon: Daemon, stop: asyncio.Event, seconds: float) -> None:
    """Return when told to stop, or when nobody was served for *seconds*."""
    loop = asyncio.get_running_loop()
    last = loop.time()
    step = min(1.0, seconds / 4)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(step):
                await stop.wait()
        if daemon.busy:
            last = loop.time()
        elif loop.time() - last >= seconds:
            logger.info("idle", seconds=seconds)
            return


def run(config: DaemonConfig, *, personal_idle: float | None = None) -> int:
    """Run a daemon in this process until it is told to stop; the exit code."""
    raise_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(config, personal_idle=personal_idle))
    return 0


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415  not available everywhere
    except ImportError:
        return None
    return uvloop.new_event_loop
