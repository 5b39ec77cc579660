"""The announce stream: a daemon's end of it, for one download."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from pantala.errors import SchedulerLost, TimedOut
from pantala.model.announce import Answer, MetadataOnly, Registration, Report

from .dialects import dialect_of

_END_LIMIT: Final = 10.0  # seconds for the scheduler to end a stream that is over


class Connection(Protocol):
    """What a stream needs of the scheduler that hears it."""

    @property
    def address(self) -> str:
        """``host:port``, for messages."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call, as the secret by which a host is known again."""

    @property
    def stub(self) -> Any:
        """The scheduler's service, whose methods are called."""

    def speaking(self) -> AbstractContextManager[None]:
        """Whatever a call may raise, as an error of ours."""


class GrpcAnnounceStream:
    """One stream. See :class:`~pantala.ports.AnnounceStream`.

    Args:
        scheduler: Who hears it.
        registration: The first message.
        schedule_timeout: Seconds until the next answer at most.
    """

    def __init__(
        self, scheduler: Connection, registration: Registration, schedule_timeout: float
    ) -> None:
        self._scheduler = scheduler
        self._schedule_timeout = schedule_timeout
        self._registration = registration
        dialect = dialect_of(registration.kind)
        self._codec = dialect.codec
        self._call: Any = getattr(scheduler.stub, dialect.announce)(metadata=scheduler.metadata)
        # As long as the list of pieces at most: each is told of a bounded number of times.
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._finished = asyncio.Event()
        self._queue.put_nowait(self._codec.encode(self._registration, self._registration))

    def tell(self, what: Report) -> None:
        """Queue a message, which is sent in its turn by :meth:`run`. Never waits."""
        self._queue.put_nowait(self._codec.encode(self._registration, what))

    def finish(self) -> None:
        """Nothing more will be told."""
        self._finished.set()

    async def run(self, on_answer: Callable[[Answer], None]) -> None:
        """See :class:`~pantala.ports.AnnounceStream`."""
        loop = asyncio.get_running_loop()
        sender = loop.create_task(self._send())
        reader = loop.create_task(self._read(on_answer))
        finished = loop.create_task(self._finished.wait())
        try:
            await asyncio.wait((reader, finished), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((reader,), timeout=_END_LIMIT)
            if reader.done():
                reader.result()
        finally:
            self._call.cancel()
            for task in (sender, reader, finished):
                task.cancel()
            await asyncio.gather(sender, reader, finished, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                await self._call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # whoever reads the answers learns why

    async def _read(self, on_answer: Callable[[Answer], None]) -> None:
        try:
            with self._scheduler.speaking():
                while True:
                    async with asyncio.timeout(self._schedule_timeout):
                        message = await self._call.read()
                    if message is grpc.aio.EOF:
                        break
                    on_answer(self._answer(message))
                if await self._call.code() is not grpc.StatusCode.OK:
                    await self._call.read()  # raises what the stream ended with
        except TimeoutError:
            who = f"scheduler {self._scheduler.address}"
            raise TimedOut(f"{who}: no answer for {self._schedule_timeout:g} s") from None

    def _answer(self, message: Any) -> Answer:
        answer = self._codec.decode_answer(message)
        if isinstance(answer, MetadataOnly) != self._registration.metadata_only:
            raise SchedulerLost(
                f"unexpected answer of the scheduler: {message.WhichOneof('response')}"
            )
        return answer
