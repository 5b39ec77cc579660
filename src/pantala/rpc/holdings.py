"""What a host holds, told in batches: their form on the wire, and a daemon's end of the stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import grpc
import grpc.aio

from pantala.errors import SchedulerLost, TimedOut
from pantala.model.announce import Registration
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2, holdings_pb2, holdings_pb2_grpc

from .connection import Connection

#: Tasks in one message at most.
MOST_TOLD: Final = 1024

#: Seconds for the answer to a batch.
_LIMIT: Final = 10.0


def held_message(said: Registration) -> holdings_pb2.Held:
    """What would be said on a stream of its own, as one of many."""
    request = said.request
    message = holdings_pb2.Held(
        task_id=said.task_id,
        peer_id=said.peer_id,
        url=request.url,
        tag=request.tag,
        application=request.application,
        content_length=said.content_length or 0,
        piece_length=said.piece_length or 0,
        piece_count=said.piece_count or 0,
        version=said.version,
        concurrent_piece_count=said.concurrent_piece_count or 0,
    )
    message.type = cast("common_pb2.TaskType.ValueType", said.kind.value)
    if request.range is not None:
        message.range.start = request.range.start
        message.range.length = request.range.length
    return message


def registration_of(host_id: str, kind: Kind, held: holdings_pb2.Held) -> Registration:
    """What *held* stands for."""
    part = ByteRange(held.range.start, held.range.length) if held.HasField("range") else None
    return Registration(
        host_id=host_id,
        task_id=held.task_id,
        peer_id=held.peer_id,
        request=DownloadRequest(
            kind=kind,
            url=held.url,
            tag=held.tag if held.HasField("tag") else None,
            application=held.application if held.HasField("application") else None,
            need_back_to_source=True,
            range=part,
        ),
        content_length=held.content_length,
        piece_length=held.piece_length,
        piece_count=held.piece_count,
        concurrent_piece_count=held.concurrent_piece_count or None,
        version=held.version,
    )


def batch(
    host_id: str, dropped: Iterable[tuple[Kind, str]], held: Iterable[Registration]
) -> holdings_pb2.TellRequest:
    """A batch on the wire."""
    message = holdings_pb2.TellRequest(host_id=host_id, held=map(held_message, held))
    for kind, task_id in dropped:
        gone = message.dropped.add(task_id=task_id)
        gone.type = cast("common_pb2.TaskType.ValueType", kind.value)
    return message


class Holdings:
    """Tells one scheduler.

    Args:
        scheduler: Whom.
        channel: To him.

    Attributes:
        understood: Whether he knows batches. Stock ones do not, which turns out at the first.
    """

    def __init__(self, scheduler: Connection, channel: grpc.aio.Channel) -> None:
        self._scheduler = scheduler
        self._stub: Any = holdings_pb2_grpc.HoldingsStub(channel)
        self.understood = True

    async def tell(
        self,
        take: Callable[[], holdings_pb2.TellRequest | None],
        heard: Callable[[Mapping[int, str]], None],
    ) -> bool:
        """Tell batches, each when the one before was heard, on one stream.

        Args:
            take: The next one; None: there is no more.
            heard: Told of each what was refused of what is held, by its place, and why.

        Returns:
            Whether it was understood. If not, what was taken is still to be told.

        Raises:
            DragonflyError: The last one that was taken may not have been heard.
        """
        message = take()
        if message is None:
            return True
        with self._scheduler.speaking():
            call = self._stub.Tell(metadata=self._scheduler.metadata)
            try:
                while message is not None:
                    heard(await self._one(call, message))
                    message = take()
                await call.done_writing()
                async with asyncio.timeout(_LIMIT):
                    await call.read()  # its end
            except TimeoutError:
                who = f"scheduler {self._scheduler.address}"
                raise TimedOut(f"{who}: no answer to what is held for {_LIMIT:g} s") from None
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                self.understood = False
            finally:
                call.cancel()
        return self.understood

    async def _one(self, call: Any, message: holdings_pb2.TellRequest) -> Mapping[int, str]:
        async with asyncio.timeout(_LIMIT):
            with contextlib.suppress(asyncio.InvalidStateError):  # it has ended: reading tells how
                await call.write(message)
            answer = await call.read()
        if answer is grpc.aio.EOF:
            who = f"scheduler {self._scheduler.address}"
            raise SchedulerLost(f"{who}: it takes no more of what is held")
        return {refusal.index: refusal.description for refusal in answer.refused}
