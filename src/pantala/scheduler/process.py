"""The process of a scheduler: its event loop, and the signals that end it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from pantala.errors import Unavailable
from pantala.net.sockets import raise_limit
from pantala.ports import ClusterSource

from .app import Scheduler
from .config import SchedulerConfig
from .workers import Place


def run(
    config: SchedulerConfig, source: ClusterSource | None = None, place: Place | None = None
) -> None:
    """Run a scheduler until SIGTERM or SIGINT; a second signal ends it the hard way.

    Args:
        config: From :func:`.config.load`.
        source: Says what is wanted of its cluster. None: nothing is.
        place: That of a worker. Its parent, and whoever speaks to all processes of a service, may
            both ask it to stop: only its parent ends it the hard way.

    Raises:
        ConfigError: The port is taken; or what is wanted of the cluster makes no sense.
        Unavailable: It can serve no longer.
    """
    raise_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(config, source, place))


async def _run(config: SchedulerConfig, source: ClusterSource | None, place: Place | None) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    told = asyncio.Event()
    lost: list[str] = []

    def on_lost(why: str) -> None:
        lost.append(why)
        told.set()

    for number in signals:
        loop.add_signal_handler(number, told.set)
    scheduler = Scheduler(config, source=source, on_lost=on_lost)
    await scheduler.start()
    if place is not None:
        place.ready(scheduler.port, scheduler.metrics_port)
    try:
        await told.wait()
    finally:
        for number in signals if place is None else ():
            loop.remove_signal_handler(number)
        await scheduler.stop()
    if lost:
        raise Unavailable(lost[0])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster event loop, where there is one."""
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
