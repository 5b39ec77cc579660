"""Dragonfly's manager, and whether somebody who may be a scheduler serves.

Who asks does so once a minute, so each question has a connection of its own: a manager that
moved is found anew, and nobody watches one that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pantala.pb import manager_pb2_grpc

from . import status
from .transport import channel_options

#: Seconds for a manager to answer; a daemon that starts waits so long.
LIMIT: Final = 5.0

#: Seconds for a scheduler to say that it serves.
_HEALTH_LIMIT: Final = 2.0

#: Schedulers of one answer that are asked, and at once.
MOST: Final = 256
_AT_ONCE: Final = 32


class Manager:
    """The manager at *address*, ``host:port``."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def ask(self, method: str, request: Any, *, limit: float = LIMIT) -> Any:
        """Call a unary method of ``manager.v2.Manager``; its answer.

        Raises:
            DragonflyError: What it answered, or that it did not within *limit* seconds.
        """
        async with self.stub() as stub:
            try:
                return await getattr(stub, method)(request, timeout=limit)
            except grpc.aio.AioRpcError as error:
                raise status.from_rpc_error(error, f"manager {self.address}") from error

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """A connection, for as long as the ``with`` lasts."""
        options = channel_options(self.address)
        async with grpc.aio.insecure_channel(self.address, options) as channel:
            yield manager_pb2_grpc.ManagerStub(channel)


async def serving(addresses: Sequence[str]) -> list[bool]:
    """Of each, whether gRPC's health service there says that it serves; asked in parallel."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(address: str) -> bool:
        async with turns:
            return await _serves(address)

    return list(await asyncio.gather(*map(ask, addresses)))


async def _serves(address: str) -> bool:
    async with grpc.aio.insecure_channel(address, channel_options(address)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_LIMIT)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
