"""Tells schedulers which tasks are held here, and which no longer.

What is to be said is decided by :mod:`pantala.core.beliefs`. A scheduler of ours is told in
batches, on one stream for as long as there is anything to tell; each batch is taken when the one
before was heard, so what has become the most important meanwhile goes first. The contract has no
better word for what is held than an announce stream, on which the host registers as a peer that has
got it from the origin: a stock scheduler gets such a stream for each task, or one for each part
when only parts are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from pantala.background import Tasks
from pantala.core.beliefs import Beliefs, TaskAnnouncement, TaskKey
from pantala.errors import DragonflyError, HostUnknown, NotFound, SchedulerLost
from pantala.model import announce
from pantala.model.announce import Answer, Registration
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest
from pantala.pb import holdings_pb2
from pantala.ports import AnnounceStream
from pantala.rpc.holdings import batch
from pantala.rpc.patience import while_busy
from pantala.rpc.scheduler import UNARY_LIMIT, Scheduler
from pantala.rpc.scheduler_link import Schedulers
from pantala.storage.holding import Holding
from pantala.storage.stores import Stores

logger = structlog.get_logger(__name__)

#: Parts of one task that are spoken of, the longest first.
MAX_PARTS: Final = 16

#: Tasks that one scheduler is told of at once, each on a stream of its own.
_AT_ONCE: Final = 16

#: Tasks in a batch. A scheduler takes some ten milliseconds for so many; with all their parts they
#: are as many as :data:`pantala.rpc.holdings.MOST_TOLD` allows.
_BATCH: Final = 64


#: Seconds until the next batch when one has come to nothing at a scheduler that is there, the first
#: time and at most.
_PAUSE: Final = (0.5, 15.0)


#: Characters that are logged of why something was refused.
_MOST_SAID: Final = 300


@dataclass(frozen=True, slots=True)
class Words:
    """How this host speaks of what it holds.

    Args:
        host_id: Our id.
        new_peer_id: A fresh name for an attempt.
        concurrent_piece_count: What a peer of ours fetches at once.
    """

    host_id: str
    new_peer_id: Callable[[], str]
    concurrent_piece_count: int

    def of(self, holding: Holding) -> Iterator[Registration]:
        """What is here of a task: all of it, or its parts."""
        if holding.complete:
            yield self._of_part(holding, None)
            return
        parts = sorted(holding.parts(), key=lambda part: part.length, reverse=True)
        for part in parts[:MAX_PARTS]:
            if not holding.gone:
                yield self._of_part(holding, part)

    def _of_part(self, holding: Holding, part: ByteRange | None) -> Registration:
        record = holding.record
        return Registration(
            host_id=self.host_id,
            task_id=holding.id,
            peer_id=self.new_peer_id(),
            request=DownloadRequest(
                kind=holding.kind,
                url=record.url,
                tag=record.tag,
                application=record.application,
                need_back_to_source=True,
                range=part,
            ),
            content_length=record.content_length or 0,
            piece_length=record.piece_length or 0,
            piece_count=record.piece_count or 0,
            concurrent_piece_count=self.concurrent_piece_count,
            version=record.version,
        )


@dataclass(slots=True)
class _Batch:
    """What is being told at once, and whose each word is."""

    tells: list[TaskAnnouncement]
    words: list[Registration] = field(default_factory=list)
    of: list[TaskAnnouncement] = field(default_factory=list)
    #: Done when it was heard, or could not be told.
    over: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def message(self, host_id: str) -> holdings_pb2.TellRequest:
        """As it goes over the wire."""
        dropped = [tell.key for tell in self.tells if tell.version is None]
        return batch(host_id, dropped, self.words)


class Teller:
    """See the module.

    Args:
        schedulers: Whom to tell.
        beliefs: What they have been told.
        stores: What we hold.
        words: How it is said.
        tasks: Where what is being told is under way.
        wake: Called when :meth:`begin` may find more to do.
    """

    def __init__(
        self,
        schedulers: Schedulers,
        beliefs: Beliefs,
        stores: Stores,
        words: Words,
        *,
        tasks: Tasks,
        wake: Callable[[], None],
    ) -> None:
        self._schedulers = schedulers
        self._beliefs = beliefs
        self._stores = stores
        self._words = words
        self._tasks = tasks
        self._wake = wake
        self._telling: dict[TaskAnnouncement, asyncio.Future[None]] = {}
        #: Schedulers that are being told in batches.
        self._streams: set[str] = set()
        #: Seconds to wait when the next stream comes to nothing, where the last one has.
        self._pauses: dict[str, float] = {}
        #: What a bug, or this machine's trouble, has just kept from being told.
        self._wrong: list[Exception] = []

    def begin(self) -> None:
        """Begin to tell what is to be told. What cannot be told now is so after the next round."""
        for address in self._beliefs.available:
            scheduler = self._schedulers.get(address)
            if scheduler is None or not scheduler.holdings.understood:
                self._begin_each(self._beliefs.take(address, _AT_ONCE))
            elif address not in self._streams and self._beliefs.has_news(address, _BATCH):
                self._streams.add(address)
                self._tasks.start(self._stream(scheduler), "tell a scheduler")

    async def settle(self, key: TaskKey) -> None:
        """Return when what is to be told of a task was heard, or could not be said."""
        waits: list[asyncio.Future[None]] = []
        for address in self._beliefs.available:
            scheduler = self._schedulers.get(address)
            if scheduler is None or not scheduler.holdings.understood:
                self._begin_each(self._beliefs.take(address, _AT_ONCE, key))
            else:
                waits.append(self._tasks.start(self._batches(scheduler, key), "tell a scheduler"))
        waits += [future for tell, future in self._telling.items() if tell.key == key]
        if waits:
            await asyncio.wait(waits)

    def complain(self) -> None:
        """Raise what went wrong with something that was begun before, if anything did."""
        wrong, self._wrong = self._wrong, []
        if wrong:
            raise wrong[0]

    # -- in batches ----------------------------------------------------------------------------

    async def _stream(self, scheduler: Scheduler) -> None:
        address = scheduler.address
        try:
            if await self._batches(scheduler):
                self._pauses.pop(address, None)
            elif address in self._beliefs.available:  # else it is told nothing until it is back
                pause = self._pauses.get(address, _PAUSE[0])
                self._pauses[address] = min(2 * pause, _PAUSE[1])
                await asyncio.sleep(pause)
                if self._beliefs.is_stranger_to(address):  # it is told who we are, and then all
                    self._schedulers.on_trouble()
        finally:
            self._streams.discard(address)
            self._wake()

    async def _batches(self, scheduler: Scheduler, only: TaskKey | None = None) -> bool:
        """Tell one scheduler all that there is, or all of one task; whether that went well."""
        under_way: list[_Batch] = []

        def take() -> holdings_pb2.TellRequest | None:
            if under_way:  # it was refused for load
                return under_way[0].message(self._words.host_id)
            tells = self._beliefs.take(scheduler.address, _BATCH, only)
            if not tells:
                return None
            under_way.append(_Batch(tells))
            self._fill(under_way[0])
            return under_way[0].message(self._words.host_id)

        def heard(refused: Mapping[int, str]) -> None:
            self._heard(under_way.pop(), refused)

        try:
            tell = functools.partial(scheduler.holdings.tell, take, heard)
            # All hosts tell at one moment when a scheduler was started anew.
            if not await while_busy(tell, limit=UNARY_LIMIT):
                told = under_way.pop()
                self._end(told)
                self._begin_each(told.tells)
        except Exception as error:  # noqa: BLE001  the loop that began it raises what is a bug
            self._failed(scheduler.address, error)
            return False
        finally:
            for told in under_way:
                self._end(told, self._beliefs.untold)
        return True

    def _fill(self, made: _Batch) -> None:
        """Find words for all that is to be told in a batch."""
        for tell in tuple(made.tells):
            self._telling[tell] = made.over
            holding = self._stores.get(*tell.key) if tell.version is not None else None
            try:  # no words of one that is held: it has just left, and that is told next
                words = [] if holding is None else list(self._words.of(holding))
            except Exception as error:  # noqa: BLE001  it keeps no other untold; the loop raises it
                self._wrong.append(error)
                made.tells.remove(tell)
                self._telling.pop(tell)
                self._beliefs.untold(tell)
                continue
            made.words += words
            made.of += [tell] * len(words)

    def _heard(self, told: _Batch, refused: Mapping[int, str]) -> None:
        lacking = {told.of[index] for index in refused if index < len(told.of)}
        if lacking:
            index = min(refused)
            task, why = told.words[index].task_id, refused[index][:_MOST_SAID]
            logger.warning("not taken as held", count=len(lacking), task=task, why=why)
        for tell in told.tells:
            (self._beliefs.untold if tell in lacking else self._beliefs.told)(tell)
        self._end(told)

    def _end(self, told: _Batch, outcome: Callable[[TaskAnnouncement], None] | None = None) -> None:
        for tell in told.tells:
            self._telling.pop(tell, None)
            if outcome is not None:
                outcome(tell)
        if not told.over.done():
            told.over.set_result(None)
        self._wake()  # there may have been no room for more

    def _failed(self, address: str, error: Exception) -> None:
        if not isinstance(error, DragonflyError):
            self._wrong.append(error)
            return
        if isinstance(error, HostUnknown):
            self._beliefs.forgot(address)
        logger.info("could not tell what is held", scheduler=address, error=str(error))

    # -- each by itself ------------------------------------------------------------------------

    def _begin_each(self, tells: Sequence[TaskAnnouncement]) -> None:
        for tell in tells:
            self._telling[tell] = self._tasks.start(self._carry_out(tell), "tell a scheduler")

    async def _carry_out(self, tell: TaskAnnouncement) -> None:
        outcome = self._beliefs.untold
        try:
            await self._tell(tell)
            outcome = self._beliefs.told
        except Exception as error:  # noqa: BLE001  the loop that began it raises it
            self._failed(tell.address, error)
        finally:
            outcome(tell)
            self._telling.pop(tell, None)
            self._wake()

    async def _tell(self, tell: TaskAnnouncement) -> None:
        kind, task_id = tell.key
        holding = self._stores.get(kind, task_id)
        if tell.version is not None:
            if holding is not None:  # else it has just left, and that is told next
                for words in self._words.of(holding):
                    stream = self._schedulers.open_stream(words, tell.address)
                    await stream.run(functools.partial(_say_we_have_it, stream))
        elif (scheduler := self._schedulers.get(tell.address)) is None:
            raise SchedulerLost(f"scheduler {tell.address} is not ours any longer")
        else:
            with contextlib.suppress(NotFound):
                await scheduler.delete_task(self._words.host_id, kind, task_id)


def _say_we_have_it(stream: AnnounceStream, answer: Answer) -> None:
    if isinstance(answer, announce.NeedBackToSource):
        stream.tell(announce.SourceStarted())
        stream.tell(announce.SourceFinished())
    elif isinstance(answer, announce.EmptyTask):
        stream.tell(announce.Started())
        stream.tell(announce.Finished())
    stream.finish()
