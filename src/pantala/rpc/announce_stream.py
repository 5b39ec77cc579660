"""The announce stream: a daemon's end of it, for one download.

Words are sent in the order in which they were told. Pieces that follow each other are one word, a
:class:`~pantala.core.batch.Batch`, which goes by a call of its own once a second, or as soon as
something else is to be said; that waits until the batch was heard. A scheduler that does not know
batches gets each piece by itself.

The answer to a batch has digests of pieces that this host has, and has not heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import quote

import grpc
import grpc.aio
import structlog

from pantala.core.batch import Batch
from pantala.errors import DragonflyError, SchedulerLost, TimedOut, Unavailable
from pantala.model.announce import (
    Answer,
    MetadataOnly,
    PieceFinished,
    Registration,
    Report,
    SourcePieceFinished,
)
from pantala.ports import Digests

from .connection import Connection
from .dialects import dialect_of
from .parent_link import VERSION_KEY
from .reporting import Reports

logger = structlog.get_logger(__name__)

_END_LIMIT: Final = 10.0  # seconds for the scheduler to end a stream that is over

#: Seconds between two batches, and between two attempts at one.
_PAUSE: Final = 1.0

#: Attempts at a batch while something else is to be said.
_TRIES: Final = 2

#: Seconds for the answer to a question: pieces wait for it, or their callers.
_ASK: Final = 1.0

#: Seconds between two questions. A batch that need not be a call is one only to ask something.
_ASK_PAUSE: Final = 5.0

#: Pieces in a batch where nobody knows how many there are.
_MOST: Final = 2**32 - 1


#: Characters of a version that are told; of what has a longer name nobody need know beforehand.
_MOST_VERSION: Final = 1024


def _version(registration: Registration) -> tuple[tuple[str, str], ...]:
    """Which version a peer has, or wants, for schedulers that understand it."""
    version = quote(registration.version, safe="")
    return ((VERSION_KEY, version),) if 0 < len(version) <= _MOST_VERSION else ()


class Hearer(Connection, Protocol):
    """What a stream needs of the scheduler that hears it."""

    @property
    def stub(self) -> Any:
        """The scheduler's service, whose methods are called."""

    @property
    def reports(self) -> Reports:
        """Takes batches of pieces, if it knows them."""


class GrpcAnnounceStream:
    """One stream. See :class:`~pantala.ports.AnnounceStream`.

    Args:
        scheduler: Who hears it.
        registration: The first message.
        schedule_timeout: Seconds until the next answer at most.
    """

    def __init__(
        self, scheduler: Hearer, registration: Registration, schedule_timeout: float
    ) -> None:
        self._scheduler = scheduler
        self._schedule_timeout = schedule_timeout
        self._registration = registration
        dialect = dialect_of(registration.kind)
        self._codec = dialect.codec
        metadata = (*scheduler.metadata, *_version(registration))
        self._call: Any = getattr(scheduler.stub, dialect.announce)(metadata=metadata)
        # What is to be said, messages and batches. As long as the list of pieces at most: each is
        # told of a bounded number of times.
        self._words: deque[Any] = deque()
        self._more = asyncio.Event()
        self._finished = asyncio.Event()
        self._answered = False
        self._batches = 0
        #: When the next batch may be sent, by the loop's clock.
        self._due = 0.0
        self._digests: Digests | None = None
        self._asked_at = 0.0
        self._say(self._registration)

    def tell(self, what: Report) -> None:
        """Queue a message, which is sent in its turn by :meth:`run`. Never waits."""
        understood = self._scheduler.reports.understood
        if isinstance(what, PieceFinished | SourcePieceFinished) and understood is not False:
            # Before it has answered it may not know this peer, to which a batch would belong.
            self._batch().add(what, keep=not (understood and self._answered))
        else:
            self._say(what)

    def _say(self, what: Registration | Report) -> None:
        self._words.append(self._codec.encode(self._registration, what))
        self._more.set()

    def _batch(self) -> Batch:
        """The last word, if pieces may be added to it; else a new one."""
        last = self._words[-1] if self._words else None
        if not isinstance(last, Batch) or not last.is_open:
            last = Batch(self._registration.piece_count or _MOST)
            self._words.append(last)
            self._more.set()
        return last

    def finish(self) -> None:
        """Nothing more will be told."""
        self._finished.set()
        self._more.set()

    async def ask(self) -> None:
        """See :class:`~pantala.ports.AnnounceStream`."""
        reports, digests = self._scheduler.reports, self._digests
        if digests is None or reports.understood is False:
            return
        self._asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_ASK):
                await reports.tell(self._registration, 0, digests=digests, asks=True)
        except (DragonflyError, TimeoutError) as error:
            task, peer = self._registration.task_id, self._registration.peer_id
            logger.info("digests not told", task=task, peer=peer, why=str(error))

    async def run(
        self, on_answer: Callable[[Answer], None], digests: Digests | None = None
    ) -> None:
        """See :class:`~pantala.ports.AnnounceStream`."""
        loop = asyncio.get_running_loop()
        self._digests = digests
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
        # If the stream has ended, whoever reads the answers learns why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                while not self._words:
                    self._more.clear()
                    await self._more.wait()
                if isinstance(self._words[0], Batch):
                    await self._until_due()
                    await self._send_batch(self._words.popleft())
                else:
                    await self._call.write(self._words.popleft())

    @property
    def _presses(self) -> bool:
        """Something waits for the batches before it."""
        return self._finished.is_set() or not all(isinstance(w, Batch) for w in self._words)

    async def _until_due(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._due):
                while not self._presses:
                    self._more.clear()
                    await self._more.wait()
        self._due = asyncio.get_running_loop().time() + _PAUSE

    async def _send_batch(self, batch: Batch) -> None:
        """Tell it one way or another. If perhaps it was not heard, it is the next word again."""
        reports = self._scheduler.reports
        asks = self._asks()
        by_itself = not self._answered or reports.understood is False
        by_itself = by_itself or (batch.is_few and not asks)
        if batch.reports is not None and by_itself:
            await self._send_each(batch)
            return
        if not batch.number:
            self._batches += 1
            batch.number = self._batches
        batch.tries += 1
        why = "it takes no batches any more"
        try:
            told = await reports.tell(
                self._registration,
                batch.number,
                batch.sums(),
                batch.read(),
                digests=self._digests,
                asks=asks,
            )
            if told:
                return
            if batch.reports is not None:
                await self._send_each(batch)
                return
        except DragonflyError as error:
            if isinstance(error, Unavailable) and (batch.tries < _TRIES or not self._presses):
                self._words.appendleft(batch)
                return
            why = str(error)
        task, peer = self._registration.task_id, self._registration.peer_id
        logger.warning("pieces not told", task=task, peer=peer, pieces=batch.count, why=why)

    def _asks(self) -> bool:
        """It is time to ask for digests. At the end that is done by itself."""
        now = asyncio.get_running_loop().time()
        if self._digests is None or self._presses or now - self._asked_at < _ASK_PAUSE:
            return False
        asks = bool(self._digests.lacks)
        self._asked_at = now if asks else self._asked_at
        return asks

    async def _send_each(self, batch: Batch) -> None:
        for report in batch.reports or ():
            await self._call.write(self._codec.encode(self._registration, report))

    async def _read(self, on_answer: Callable[[Answer], None]) -> None:
        try:
            with self._scheduler.speaking():
                while True:
                    async with asyncio.timeout(self._schedule_timeout):
                        message = await self._call.read()
                    if message is grpc.aio.EOF:
                        break
                    self._answered = True
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
