"""A scheduler and daemons inside this process, for tests that look at both sides of a wire.

They are whole: real sockets, real threads, real gRPC. :mod:`.cluster` starts them as programs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from pantala.daemon.app import Daemon
from pantala.daemon.config import load as load_daemon
from pantala.model.task import Delivery, DownloadRequest, Kind
from pantala.scheduler.app import Scheduler
from pantala.scheduler.config import load as load_scheduler


@asynccontextmanager
async def scheduler(port: int = 0, **settings: object) -> AsyncIterator[Scheduler]:
    """A scheduler on a port of this machine.

    Args:
        port: 0 lets the system choose.
        settings: By dotted key, with ``__`` for a dot: ``scheduler__retryLimit=1``.
    """
    made = Scheduler(
        load_scheduler(
            None,
            {
                "server.port": port,
                "server.listenIP": "127.0.0.1",
                "metrics.enable": False,
                "database.sqlite.path": None,  # records are of a test that names a place for them
                **_dotted(settings),
            },
        )
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop(0.0)


@asynccontextmanager
async def daemon(
    directory: Path, name: str = "a", *, port: int | None = None, **settings: object
) -> AsyncIterator[Daemon]:
    """A daemon whose sockets are in *directory*.

    Args:
        directory: Its path must be short.
        name: Of its sockets, and the beginning of its hostname.
        port: Of its scheduler. None: it has none.
        settings: By dotted key, with ``__`` for a dot.
    """
    config = load_daemon(
        None,
        {
            "host.hostname": f"{name}-{os.getpid()}",  # a machine may run many tests at once
            "host.ip": "127.0.0.1",
            "download.server.socketPath": str(directory / f"{name}.sock"),
            "storage.cacheCapacity": "64MiB",
            "storage.dir": str(directory / f"{name}.data"),
            "upload.server.port": 0,
            "storage.server.tcpPort": 0,
            "metrics.enable": False,
            "health.enable": False,
            **_dotted(settings),
        },
    )
    made = Daemon(config, scheduler=None if port is None else f"127.0.0.1:{port}")
    await made.start()
    try:
        yield made
    finally:
        await made.stop(0.0)


def _dotted(settings: dict[str, object]) -> dict[str, object]:
    return {key.replace("__", "."): value for key, value in settings.items()}


def wish(url: str, **wishes: Any) -> tuple[DownloadRequest, Delivery]:
    """*url* as a caller wants it, who names fields of both values."""
    how = {f.name: wishes.pop(f.name) for f in fields(Delivery) if f.name in wishes}
    return DownloadRequest(**{"kind": Kind.CACHE, "url": url, **wishes}), Delivery(**how)


async def get(daemon: Daemon, url: str, **wishes: object) -> bytes:
    """Download *url* as a caller of the engine, and return the part that was asked for.

    Raises:
        DragonflyError: It cannot be had.
    """
    async with daemon.engine.open(*wish(url, **wishes)) as download:
        async for _ in download:
            pass
        assert download.holding is not None
        return bytes(download.holding.view(download.part))
