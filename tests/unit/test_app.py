"""daemon/app.py and scheduler/app.py: what whole programs say of themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pantala import background
from pantala.testing import inside

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

#: What goes on in a daemon, and in a scheduler, for as long as they live.
DAEMON = [
    "accept children",
    "accept programs",
    "announce this host",
    "announce what is held",
    "evict by time to live",
    "follow the list of schedulers",
    "keep room for callers",
    "look what was handed off is back",
    "read the list of schedulers",
    "serve those who wait for room in memory",
    "serve those who wait for room on disk",
    "tell health",
    "tell of copies of imported tasks",
    "watch a scheduler",
]
SCHEDULER = [
    "jobs that are written down",
    "keep room for callers",
    "replicas",
    "sweep of hosts",
    "sweep of peers",
    "sweep of tasks",
    "tell health",
    "tell of partners",
]


def http_health(port: int) -> tuple[int, str]:
    """Status and body of ``GET /healthy``."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthy", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


async def until_grpc_says(target: str, wanted: int) -> None:
    """Wait for what a server's health service says."""
    async with asyncio.timeout(60), grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while (await stub.Check(health_pb2.HealthCheckRequest())).status != wanted:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.05)


async def test_health_tells_of_loops_that_keep_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP with the reason, over gRPC, and in the metrics; and it gets well again."""
    monkeypatch.setattr(background, "BACKOFF", (0.01, 0.05))
    settings: dict[str, Any] = {"health.enable": True, "health.server.port": 0}
    async with (
        inside.scheduler() as scheduler,
        inside.daemon(tmp_path, port=scheduler.port, **settings) as daemon,
    ):
        assert daemon.loops.names == DAEMON
        assert scheduler._loops.names == SCHEDULER
        places = [
            f"127.0.0.1:{daemon.ports['upload']}",
            f"unix:{daemon.config.download.server.socket_path}",
            f"127.0.0.1:{scheduler.port}",
        ]
        for place in places:
            await until_grpc_says(place, SERVING)
        assert await asyncio.to_thread(http_health, daemon.ports["health"]) == (200, "")

        sick = True

        async def rest() -> None:
            await asyncio.sleep(0.01)

        def whenever_well() -> None:
            if sick:
                raise OSError(24, "Too many open files")

        for loops in (daemon.loops, scheduler._loops):
            loops.keep(whenever_well, "sick", rest=rest)
        for place in places:
            await until_grpc_says(place, NOT_SERVING)
        status, why = await asyncio.to_thread(http_health, daemon.ports["health"])
        assert status == 503
        assert why.startswith("sick: failed ")
        counted = b'dragonfly_client_background_failure_total{loop="sick"}'
        assert counted in daemon.metrics.render()

        sick = False
        for place in places:
            await until_grpc_says(place, SERVING)
        assert await asyncio.to_thread(http_health, daemon.ports["health"]) == (200, "")
