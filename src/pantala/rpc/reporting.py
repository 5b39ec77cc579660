"""Pieces that a daemon tells its scheduler of in batches, and digests of pieces that it hears.

Their form on the wire, and the daemon's call.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import grpc
import grpc.aio

from pantala.core.digests import DigestRun
from pantala.errors import FeatureOff, InvalidRequest
from pantala.model.announce import PieceSum, Registration
from pantala.model.numbers import bits_of, runs_of
from pantala.pb import common_pb2, exchange_pb2, reporting_pb2, reporting_pb2_grpc
from pantala.ports import Digests

from .connection import Connection
from .convert import duration, seconds
from .patience import while_busy

#: Seconds for one call, and those for which it is made anew while it is refused for load. A stream
#: that is to end waits for two of both at most, and has ten seconds.
_LIMIT: Final = 3.0
_PATIENCE: Final = 1.0


def pieces_request(
    peer: Registration,
    number: int,
    sums: Iterable[PieceSum] = (),
    *,
    read: Iterable[DigestRun] = (),
    version: str = "",
    lacks: int = 0,
) -> reporting_pb2.PiecesRequest:
    """A batch of *peer* on the wire, or, with number 0, a question."""
    message = reporting_pb2.PiecesRequest(
        host_id=peer.host_id,
        task_id=peer.task_id,
        peer_id=peer.peer_id,
        number=number,
        version=version,
        read=digest_messages(read),
        lacks=[exchange_pb2.Run(first=first, count=count) for first, count in runs_of(lacks)],
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


def digest_messages(runs: Iterable[DigestRun]) -> list[reporting_pb2.Digests]:
    """Digests of pieces on the wire."""
    return [reporting_pb2.Digests(first=first, crc32=crcs) for first, crcs in runs]


def digest_runs(messages: Iterable[reporting_pb2.Digests], count: int) -> list[DigestRun]:
    """What is said of the digests of pieces, of which there are *count*.

    Raises:
        InvalidRequest: It makes no sense.
    """
    runs = [DigestRun(said.first, array("I", said.crc32)) for said in messages]
    pieces = bits_of((run.first, len(run.crcs)) for run in runs)
    if pieces.bit_length() > count:
        raise InvalidRequest(f"digest of piece {pieces.bit_length() - 1}: the task has {count}")
    return runs


def lacking(message: reporting_pb2.PiecesRequest) -> int:
    """The pieces whose digests are asked for.

    Raises:
        InvalidRequest: It makes no sense.
    """
    return bits_of((run.first, run.count) for run in message.lacks)


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

    async def tell(
        self,
        peer: Registration,
        number: int,
        sums: Iterable[PieceSum] = (),
        read: Sequence[DigestRun] = (),
        *,
        digests: Digests | None = None,
        asks: bool = False,
    ) -> bool:
        """Tell a batch; False: it is not understood, and nothing has been told.

        Args:
            peer: Whose.
            number: Of the batch; 0: there is none, only a question.
            sums: What has come.
            read: What those pieces are that were read at the origin.
            digests: Hears what is answered.
            asks: It is to be told of the digests that it lacks.

        Raises:
            DragonflyError: It was refused; perhaps it was heard, if that is Unavailable.
        """
        message = pieces_request(
            peer,
            number,
            sums,
            read=read,
            version=digests.version if digests is not None else "",
            lacks=digests.lacks if digests is not None and asks else 0,
        )
        call: Any = None
        answer = reporting_pb2.PiecesResponse()

        async def attempt() -> None:
            nonlocal call, answer
            with self._scheduler.speaking():
                metadata = self._scheduler.metadata
                call = self._stub.Pieces(message, timeout=_LIMIT, metadata=metadata)
                answer = await call

        try:
            await while_busy(attempt, limit=_PATIENCE)
        except FeatureOff:
            if await call.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            self.understood = False
            return False
        self.understood = True
        if digests is not None and answer.digests:
            digests.take(answer.version, digest_runs(answer.digests, peer.piece_count or 0))
        return True
