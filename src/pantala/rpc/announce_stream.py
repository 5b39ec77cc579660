"""The announce stream: a daemon's side of the talk with a scheduler about one download."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from pantala.core.transfer import Note, Tell
from pantala.errors import SchedulerLost, SourceFailed, TimedOut
from pantala.model.task import PieceRecord
from pantala.ports import Answer, Candidate, Empty, GoToSource, Parents, Registration

from .convert import fill_register, piece_message, weight_of
from .dialects import Dialect, dialect_of

_MAX_TEXT: Final = 1024  # characters of a description
_END_LIMIT: Final = 10.0  # seconds for the scheduler to end a talk that is over


class Connection(Protocol):
    """What a stream needs of the scheduler that hears it."""

    @property
    def address(self) -> str:
        """Where it is."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Goes with every call."""

    @property
    def stub(self) -> Any:
        """Its methods."""

    def speaking(self) -> AbstractContextManager[None]:
        """Whatever a call may raise, as an error of ours."""


class AnnounceStream:
    """One stream. See :class:`~pantala.ports.Conversation`.

    Args:
        scheduler: Who hears it.
        registration: The first message.
        schedule_timeout: Seconds until the next answer at most.
    """

    def __init__(
        self, scheduler: Connection, registration: Registration, schedule_timeout: float
    ) -> None:
        self._scheduler = scheduler
        self._dialect = dialect_of(registration.request.kind)
        self._schedule_timeout = schedule_timeout
        self._ids = {
            "host_id": registration.host_id,
            "task_id": registration.task_id,
            "peer_id": registration.peer_id,
        }
        self._call: Any = getattr(scheduler.stub, self._dialect.announce)(
            metadata=scheduler.metadata
        )
        # As long as the list of pieces at most: each is told of a bounded number of times.
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._finished = asyncio.Event()
        self._queue.put_nowait(_register(self._dialect, self._ids, registration))

    def tell(
        self,
        what: Tell,
        *,
        piece: PieceRecord | None = None,
        error: Exception | None = None,
    ) -> None:
        """Queue a message."""
        message, arm = self._dialect.message(self._ids, self._dialect.note_arms[what.note])
        _fill(arm, what, piece, error)
        self._queue.put_nowait(message)

    def finish(self) -> None:
        """Nothing more will be told."""
        self._finished.set()

    async def run(self, on_answer: Callable[[Answer], None]) -> None:
        """See :class:`~pantala.ports.Conversation`."""
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
                    on_answer(_answer(self._dialect, message))
                if await self._call.code() is not grpc.StatusCode.OK:
                    await self._call.read()  # raises what the stream ended with
        except TimeoutError:
            who = f"scheduler {self._scheduler.address}"
            raise TimedOut(f"{who}: no answer for {self._schedule_timeout:g} s") from None


def _register(dialect: Dialect, ids: dict[str, str], registration: Registration) -> Any:
    message, arm = dialect.message(ids, dialect.register_arm)
    part: Any = arm
    fill_register(part, registration.request)
    part.concurrent_piece_count = registration.concurrent_piece_count
    part.actual_piece_length = registration.piece_length
    part.actual_content_length = registration.content_length
    part.actual_piece_count = registration.piece_count
    return message


def _fill(arm: Any, what: Tell, piece: PieceRecord | None, error: Exception | None) -> None:
    if piece is not None:
        arm.piece.CopyFrom(piece_message(piece))
    if what.note is Note.PIECE_FAILED:
        arm.piece_number, arm.parent_id, arm.temporary = what.number, what.parent or "", True
    if what.note is Note.RESCHEDULE:
        for parent in what.parents:
            arm.candidate_parents.add(id=parent)
    if what.note is Note.SOURCE_PIECE_FAILED:
        if isinstance(error, SourceFailed):
            arm.backend.message = error.message[:_MAX_TEXT]
            if error.status_code is not None:
                arm.backend.status_code = error.status_code
        else:
            arm.unknown.message = str(error)[:_MAX_TEXT]
    elif error is not None and "description" in arm.DESCRIPTOR.fields_by_name:
        arm.description = str(error)[:_MAX_TEXT]


def _answer(dialect: Dialect, message: Any) -> Answer:
    arm = message.WhichOneof("response")
    if arm == dialect.normal_arm:
        found = (_candidate(p) for p in getattr(message, arm).candidate_parents)
        return Parents(tuple(c for c in found if c is not None))
    if arm == dialect.empty_arm:
        return Empty()
    if arm == "need_back_to_source_response":
        return GoToSource(message.need_back_to_source_response.description)
    raise SchedulerLost(f"unexpected answer of the scheduler: {arm}")


def _candidate(peer: Any) -> Candidate | None:
    host = peer.host
    if not peer.id or not host.ip or not 0 < host.port < 65536:
        return None
    ip = f"[{host.ip}]" if ":" in host.ip else host.ip
    return Candidate(peer.id, host.id, f"{ip}:{host.port}", weight_of(host.network))
