"""Pieces that a daemon tells its scheduler of in batches: their form on the wire, and its call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import grpc
import grpc.aio

from pantala.errors import FeatureOff, InvalidRequest
from pantala.model.announce import PieceSum, Registration
from pantala.pb import common_pb2, reporting_pb2, reporting_pb2_grpc

from .connection import Connection
from .convert import duration, seconds
from .patience import while_busy

#: Seconds for one call, and those for which it is made anew while it is refused for load. A stream
#: that is to end waits for two of both at most, and has ten seconds.
_LIMIT: Final = 3.0
_PATIENCE: Final = 1.0


def pieces_request(
    peer: Registration, number: int, sums: Iterable[PieceSum]
) -> reporting_pb2.PiecesRequest:
    """A batch of *peer* on the wire."""
    message = reporting_pb2.PiecesRequest(
        host_id=peer.host_id, task_id=peer.task_id, peer_id=peer.peer_id, number=number
    )
    message.type = cast("common_pb2.TaskType.ValueType", peer.kind.value)
    for told in sums:
        message.pieces.add(
            parent_id=told.parent_id or "",
            count=told.count,
            bytes=told.length,
            cost=duration(told.cost),
        )
    return message


def piece_sums(
    message: reporting_pb2.PiecesRequest, piece_count: int, piece_length: int
) -> tuple[PieceSum, ...]:
    """What a batch says.

    Args:
        message: As it came.
        piece_count: Pieces of the task; 0 if that is not known.
        piece_length: Bytes of each at most; 0 if that is not known.

    Raises:
        InvalidRequest: It cannot be true.
    """
    sums = tuple(
        PieceSum(told.parent_id or None, told.count, told.bytes, seconds(told.cost))
        for told in message.pieces
    )
    if not message.number:
        raise InvalidRequest("number 0: batches are counted from 1")
    if len({told.parent_id for told in sums}) < len(sums):
        raise InvalidRequest("a batch has one entry for each parent")
    for told in sums:
        who = f"of {told.parent_id or 'the origin'}"[:100]
        if not told.count:
            raise InvalidRequest(f"0 pieces {who}: want at least one")
        if told.cost < 0:
            raise InvalidRequest(f"{told.cost:g} s for a piece {who}: want 0 or more")
        if piece_length and told.length > told.count * piece_length:
            raise InvalidRequest(
                f"{told.length} bytes in {told.count} pieces {who}: they have {piece_length} each"
            )
    count = sum(told.count for told in sums)
    if piece_count and count > piece_count:
        raise InvalidRequest(f"{count} pieces: the task has {piece_count}")
    return sums


class Reports:
    """Tells one scheduler.

    Args:
        scheduler: Whom.
        channel: To him.

    Attributes:
        understood: Whether he knows batches. Stock ones do not, which turns out at the first; None
            until then.
    """

    def __init__(self, scheduler: Connection, channel: grpc.aio.Channel) -> None:
        self._scheduler = scheduler
        self._stub: Any = reporting_pb2_grpc.ReportsStub(channel)
        self.understood: bool | None = None

    async def tell(self, peer: Registration, number: int, sums: Iterable[PieceSum]) -> bool:
        """Tell a batch; False: it is not understood, and nothing has been told.

        Raises:
            DragonflyError: It was refused; perhaps it was heard, if that is Unavailable.
        """
        message = pieces_request(peer, number, sums)
        call: Any = None

        async def attempt() -> None:
            nonlocal call
            with self._scheduler.speaking():
                metadata = self._scheduler.metadata
                call = self._stub.Pieces(message, timeout=_LIMIT, metadata=metadata)
                await call

        try:
            await while_busy(attempt, limit=_PATIENCE)
        except FeatureOff:
            if await call.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            self.understood = False
            return False
        self.understood = True
        return True
