"""What a task is, asked of its scheduler before its origin: a daemon's end of that stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from pantala.errors import (
    Blame,
    DragonflyError,
    FeatureOff,
    OriginError,
    SchedulerLost,
    TimedOut,
)
from pantala.model.addresses import host_port
from pantala.model.growth import Growth, Leader
from pantala.model.task import Description, DownloadRequest
from pantala.pb import common_pb2, describing_pb2, describing_pb2_grpc

from .connection import Connection
from .convert import fill_download

#: Seconds until the first word, which a scheduler says at once; instead there is only the origin.
_HELLO: Final = 3.0

#: Seconds between two words: it says one every second.
_GAP: Final = 10.0

#: Seconds until one who reads says so again.
_BEAT: Final = 2.0

#: Seconds at least between two words on what has been read.
_REST: Final = 0.25

#: Steps of which one of them tells at most.
_MOST_STEPS: Final = 4096

#: Seconds for the scheduler to end the stream of one who has told what he knows. It waits until he
#: has registered.
_END: Final = 30.0

#: Characters of headers that go along; the few that have more are not told.
_MAX_HEADER: Final = 8192
_MAX_TEXT: Final = 500


def description_message(said: Description, *, alone: bool = False) -> describing_pb2.Description:
    """A description on the wire. *alone*: who says so will not register as a peer."""
    return describing_pb2.Description(
        content_length=said.content_length,
        piece_length=said.piece_length,
        version=said.version,
        response_header=_shared(said.response_header),
        read=said.read,
        alone=alone,
        growth=said.growth,
    )


def description(message: describing_pb2.Description) -> Description:
    """What a message says."""
    return Description(
        content_length=message.content_length,
        piece_length=message.piece_length,
        version=message.version,
        response_header=dict(message.response_header),
        read=message.read,
        growth=message.growth,
    )


def _growth(message: describing_pb2.Growth) -> Growth:
    leaders = (Leader(at.host_id, host_port(at.ip, at.port)) for at in message.leaders)
    return Growth(message.version, message.first, tuple(message.crcs), tuple(leaders))


def _shared(header: Mapping[str, str]) -> dict[str, str]:
    return dict(header) if sum(len(k) + len(v) for k, v in header.items()) <= _MAX_HEADER else {}


class GrpcTurn:
    """It is ours to ask the origin. See :class:`~pantala.ports.Turn`.

    Args:
        call: The stream.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        # What is said while one reads stands in for what was said before: one of each at most.
        self._last: describing_pb2.DescribeRequest | None = None
        self._received: int | None = None
        #: Of what is read: its version, and the CRC-32 of each step; so many have been told.
        self._version = ""
        self._crcs: Sequence[int] = ()
        self._told = 0
        self._news = asyncio.Event()
        self._has_last = asyncio.Event()
        self._over = self._said = False
        self._runner: asyncio.Task[Any] | None = None

    def learnt(self, said: Description, *, alone: bool) -> None:
        """The origin says so."""
        learnt = description_message(said, alone=alone)
        self._say(describing_pb2.DescribeRequest(learnt=learnt))

    def reading(self, received: int, version: str = "", crcs: Sequence[int] = ()) -> None:
        """It names no length, and is read; so many bytes are here, and these whole steps."""
        first = self._received is None
        self._received, self._version, self._crcs = received, version, crcs
        if first or len(crcs) > self._told:
            self._news.set()

    def failed(self, error: DragonflyError | None) -> None:
        """It has not answered; None: in time."""
        mine = error is not None and error.blame is Blame.LOCAL
        failed = describing_pb2.Failure(
            description=str(error or "no answer in time")[:_MAX_TEXT], by_origin=not mine
        )
        if isinstance(error, OriginError) and error.status is not None:
            failed.status_code = error.status
        self._say(describing_pb2.DescribeRequest(failed=failed))

    def end(self) -> None:
        """Nothing comes of it: it is another's turn."""
        last = self._last
        if last is not None and last.HasField("failed"):
            return  # that ends it
        if last is not None and not self._said and not last.learnt.read:
            last.learnt.alone = True  # that, too, and helps the others all the same
            return
        self._over = True
        if self._runner is not None:
            self._runner.cancel()

    def _say(self, message: describing_pb2.DescribeRequest) -> None:
        if self._last is None:
            self._last = message
            self._news.set()
            self._has_last.set()

    async def run(self) -> None:
        """Say what there is to say, until the scheduler ends the stream or :meth:`end` does."""
        self._runner = asyncio.current_task()
        try:
            if not self._over:
                await self._run()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            pass  # the scheduler has gone, and whoever waited there has noticed, too
        finally:
            self._call.cancel()

    async def _run(self) -> None:
        while self._last is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._received is None else _BEAT):
                    await self._news.wait()
            self._news.clear()
            if self._received is not None and self._last is None:
                reading = self._reading(self._received)
                await self._call.write(describing_pb2.DescribeRequest(reading=reading))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REST):
                        await self._has_last.wait()
        self._said = True
        await self._call.write(self._last)
        async with asyncio.timeout(_END):
            await self._call.read()  # its end

    def _reading(self, received: int) -> describing_pb2.Reading:
        first = self._told
        crcs = self._crcs[first : first + _MOST_STEPS]
        self._told += len(crcs)
        return describing_pb2.Reading(
            received=received, version=self._version, first=first, crcs=crcs
        )


class Questions:
    """Asks one scheduler what tasks are.

    Args:
        scheduler: Whom.
        channel: To him.
        on_lost: Called with his address when he says nothing.

    Attributes:
        understood: He knows such questions. Stock ones do not, which turns out at the first.
    """

    def __init__(
        self,
        scheduler: Connection,
        channel: grpc.aio.Channel,
        on_lost: Callable[[str], object],
    ) -> None:
        self._scheduler = scheduler
        self._stub: Any = describing_pb2_grpc.DescriptionsStub(channel)
        self._on_lost = on_lost
        self.understood = True

    async def ask(
        self,
        ask: describing_pb2.Ask,
        *,
        patience: float | None,
        on_growth: Callable[[Growth], None] | None = None,
    ) -> Description | GrpcTurn | None:
        """Ask what a task is, and wait for the answer.

        Args:
            ask: The question.
            patience: Seconds to wait for another's turn to end; not for somebody who reads, which
                ends when it ends. None: as long as it takes.
            on_growth: Called with what he reads, as it comes.

        Returns:
            None when that time is over, when nobody may be sent to the origin, or when such
            questions are not understood.

        Raises:
            DragonflyError: The scheduler refused, or is not there; OriginError: the origin has
                failed several others.
        """
        call = self._stub.Describe(metadata=self._scheduler.metadata)
        answer = None
        try:
            with self._scheduler.speaking():
                # If that fails, reading tells how it has ended.
                with contextlib.suppress(asyncio.InvalidStateError):
                    await call.write(describing_pb2.DescribeRequest(ask=ask))
                answer = await _answer(self._scheduler.address, call, patience, on_growth)
        except FeatureOff:
            self.understood = await call.code() is not grpc.StatusCode.UNIMPLEMENTED
        except TimedOut:
            self._on_lost(self._scheduler.address)
            raise
        finally:
            if not isinstance(answer, GrpcTurn):
                call.cancel()
        return answer


async def _answer(
    address: str,
    call: Any,
    patience: float | None,
    on_growth: Callable[[Growth], None] | None,
) -> Description | GrpcTurn | None:
    clock, limit = asyncio.get_running_loop().time, _HELLO
    end = float("inf")  # from the first word on
    while (left := min(limit, end - clock())) > 0:
        try:
            async with asyncio.timeout(left):
                message = await call.read()
        except TimeoutError:
            if left < limit:
                break
            raise TimedOut(f"scheduler {address}: silent for {limit:g} s") from None
        if message is grpc.aio.EOF:
            await call.read()  # raises what the stream ended with, if that was an error
            raise SchedulerLost(f"scheduler {address}: no answer")
        arm = message.WhichOneof("response")
        if arm == "described":
            return description(message.described)
        if arm == "turn":
            return GrpcTurn(call)
        if limit == _HELLO and patience is not None:
            end = clock() + patience
        if arm == "patience" and message.patience.reading:
            end = float("inf")
        if on_growth is not None and arm == "patience" and message.patience.HasField("growth"):
            on_growth(_growth(message.patience.growth))
        limit = _GAP
    return None


def question(
    host_id: str,
    task_id: str,
    request: DownloadRequest,
    *,
    origin: bool,
    version: str,
    anew: bool,
    follows: bool,
) -> describing_pb2.Ask:
    """The question what a task is, see :class:`~pantala.ports.SchedulerLink`."""
    download = common_pb2.Download()
    fill_download(download, request)
    return describing_pb2.Ask(
        host_id=host_id,
        task_id=task_id,
        download=download,
        origin=origin,
        version=version,
        follows=follows,
        anew=anew,
    )
