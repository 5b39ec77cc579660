"""Content that another host reads, of which nobody knows yet how long it is: followed as it comes.

Whoever waits for a reader hears of its scheduler what is read, and whom to follow: the reader, or
somebody who follows himself. A step is good if it is what it must be by the reader's word (ADR 29).
When the length is known, what is here is cut into pieces, and the rest comes as it always did.

Nothing fails here. Where nobody can be followed, or where there is no room, the flight waits for
the content's end without. Whoever waits for room comes first: what has come goes for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, TypeVar

import structlog

from pantala.background import Tasks
from pantala.core.policy import policy_of
from pantala.daemon.node import Node
from pantala.errors import (
    DigestMismatch,
    DragonflyError,
    ParentLost,
    StoreFailed,
    TaskDeleted,
    Unavailable,
)
from pantala.model.digest import piece_digest
from pantala.model.growth import Growth, Leader
from pantala.model.pieces import GROWTH_STEP, Piece
from pantala.model.task import Description, TaskRecord, Traffic
from pantala.net.piece_client import Address, PieceFetch, TimeLimits
from pantala.ports import Sink
from pantala.storage.growth import Growth as Grown
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.leases import Lease
from pantala.wire.vortex import PieceRequest, Tag

from .callers import Callers
from .fetching import PIECE_LIMIT
from .growing import publish
from .means import Means
from .room import Room

logger = structlog.get_logger(__name__)

T = TypeVar("T")

#: Seconds between two words of whom we follow; it says one every second.
_GAP: Final = 5.0

#: Seconds for whom we follow to have what the reader has.
_LAG: Final = 10.0

#: How often one fails before the next is asked: whoever is to be followed may only begin to follow
#: himself, and the next are nearer to the reader, who need not serve all.
_TRIES: Final = 3

#: Seconds until one who failed is asked again, and between two looks at what has changed.
_REST: Final = 1.0


class Trail:
    """Follows one content while its length is asked for. Used once.

    Args:
        node: What all rooms share.
        means: What all downloads share.
        callers: Are told how much is here.
        record: Of the task, of which nothing is here and nothing is known.

    Attributes:
        over: Nobody is followed any more.
        liars: Hosts that gave what was wrong.
    """

    def __init__(self, node: Node, means: Means, callers: Callers, record: TaskRecord) -> None:
        self._node = node
        self._means = means
        self._callers = callers
        self._record = record
        self._running = Tasks()
        #: Ends when somebody waits for room.
        self._alone = asyncio.timeout(None)
        #: Whoever waits for it hears of what goes wrong.
        self._fetching = Tasks(lambda _error: None)
        self._started = False
        self._tag = Tag(policy_of(record.kind).request_tag)
        self._version = ""
        #: What steps must be, by the word of who reads.
        self._crcs: list[int] = []
        self._leaders: tuple[Leader, ...] = ()
        self.liars: set[str] = set()
        #: Hosts that have failed, until when they rest.
        self._resting: dict[str, float] = {}
        #: How often each has failed since it last gave something.
        self._failures: Counter[str] = Counter()
        #: What has come is not of what is read now.
        self._stale = False
        self._holding: Holding | None = None
        self._lease: Lease | None = None
        #: Where the next step goes.
        self._sink: Sink | None = None
        self._parents: list[str] = []
        #: Steps that whom we follow has.
        self._there = 0
        self._news = asyncio.Event()
        self.over = False
        #: The task was deleted by its user.
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        download = node.config.download
        self._limits = TimeLimits(
            request=download.piece_timeout, stall=download.piece_stall_timeout, piece=PIECE_LIMIT
        )

    # -- for the flight ------------------------------------------------------------------------

    def hear(self, growth: Growth) -> None:
        """What is read now, and who may be followed."""
        if growth.version != self._version:
            self._version, self._stale = growth.version, self._holding is not None
            self.liars.clear()
        if growth.first == 0:
            self._crcs = list(growth.crcs)
        elif growth.first == len(self._crcs):
            self._crcs += growth.crcs
        if self._growth is not None:  # by one name something else may be read now
            known = zip(self._growth.crcs, self._crcs, strict=False)
            if not self._stale and any(mine != read for mine, read in known):
                self._stale = True
                self.liars.clear()
        self._leaders = growth.leaders
        if not self._started and not self.over:
            self._started = True
            self._running.start(self._run(), f"trail of {self._record.id[:8]}")
        self._news.set()

    async def beside(self, question: Coroutine[Any, Any, T]) -> T:
        """Ask *question*, and follow meanwhile what is heard of it.

        Raises:
            TaskDeleted: The task was deleted by its user.
            DragonflyError: As *question* does; then nothing is left of what came.
        """
        asking = asyncio.ensure_future(question)
        try:
            await asyncio.wait((asking, self._gone), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        except BaseException:  # cancelled, too: nobody will know how long it is
            await self._give_up(asking)
            raise
        await self._give_up(asking)
        raise TaskDeleted(f"task {self._record.id} was deleted while it was downloaded")

    async def _give_up(self, asking: asyncio.Future[Any]) -> None:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await self.drop()

    async def finish(self, said: Description, piece_length: int) -> None:
        """It is known how long it is: keep what has come of it, if it is of that.

        Args:
            said: What the content is.
            piece_length: How it is cut.

        Raises:
            TaskDeleted: The task was deleted.
        """
        await self._stop()
        self._room.give_way.discard(self._give_way)  # it is the flight's
        holding, growth = self._holding, self._growth
        if holding is None or growth is None:
            return
        # Who reads it now may not have spoken yet of all that an earlier reader has vouched for.
        here, crcs = min(growth.length, len(self._crcs) * GROWTH_STEP), growth.crcs
        if here != said.content_length:
            here -= here % piece_length
        mine = said.growth == self._version and not self._stale
        if not mine or not 0 < here <= said.content_length:
            self._drop()
            return
        try:
            holding.finish_growing(said.content_length, piece_length, here=here)
            await publish(self._node, holding, crcs, here=here, parents=self._parents)
        except BaseException as error:  # cancelled, too: nobody goes on with it
            self._drop()
            if not isinstance(error, DragonflyError) or isinstance(error, TaskDeleted):
                raise
            logger.info("not kept", task=holding.id, why=str(error))
        else:
            holding.on_gone = None
            logger.info("followed", task=holding.id, bytes=here, of=said.content_length)

    async def drop(self) -> None:
        """Nothing comes of it: let go of what is here."""
        await self._stop()
        self._drop()

    def release(self) -> None:
        """What is here is another's to keep."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()

    async def _stop(self) -> None:
        self.over = True
        await self._running.cancel()
        await self._fetching.cancel()
        self._close_sink()

    # -- what is here --------------------------------------------------------------------------

    @property
    def _growth(self) -> Grown | None:
        return None if self._holding is None else self._holding.growth

    @property
    def _here(self) -> int:
        """Steps."""
        return 0 if self._growth is None else len(self._growth.steps)

    def _open(self) -> Holding:
        """Where it goes."""
        if self._holding is None:
            stores, record = self._node.stores, replace(self._record, version=self._version)
            if stores.get(record.kind, record.id) is not None:
                raise StoreFailed("something of it has come otherwise")
            self._holding = stores.open(record)
            self._lease = self._holding.lease()
            self._holding.on_gone = self._was_deleted
            self._parents = []
            self._room.give_way.add(self._give_way)
        return self._holding

    @property
    def _room(self) -> Room:
        return self._means.rooms[self._record.kind]

    def _give_way(self) -> None:
        """Somebody waits for room: what has come goes for it."""
        self.over = True
        with contextlib.suppress(RuntimeError):  # it is at its end
            self._alone.reschedule(self._now())

    def _was_deleted(self) -> None:
        self.over = True
        if not self._gone.done():
            self._gone.set_result(None)

    def _drop(self) -> None:
        self._close_sink()
        self._stale = False
        self._room.give_way.discard(self._give_way)
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.on_gone = None
            self._node.stores.remove(holding, Reason.CHANGED)
        self.release()

    def _close_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    # -- following -----------------------------------------------------------------------------

    async def _run(self) -> None:
        """Follow one after the other, until it is over."""
        try:
            async with self._alone:
                while not self.over:
                    if self._stale:
                        self._drop()
                    if len(self._room):
                        self._give_way()
                    leader = self._next_leader()
                    if leader is None:
                        await self._wait()
                    else:
                        await self._try(leader)
        except TimeoutError:
            if not self._alone.expired():
                raise
            logger.info("not followed: others wait for room", task=self._record.id)
        self._drop()

    async def _try(self, leader: Leader) -> None:
        task, host = self._record.id, leader.host_id
        try:
            await self._follow(leader, self._version)
        except (StoreFailed, TaskDeleted) as error:
            logger.info("not followed", task=task, why=str(error))
            self.over = True
        except DragonflyError as error:
            logger.info("not followed", task=task, host=host, why=str(error))
        self._failures[host] += 1
        self._resting[host] = self._now() + _REST

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _wait(self) -> None:
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST):
                await self._news.wait()

    def _next_leader(self) -> Leader | None:
        """Whom to follow now; None: nobody can be, or there is nothing to be had."""
        if self._here >= len(self._crcs):
            return None
        now = self._now()
        for leader in self._leaders:
            if leader.host_id in self.liars:
                continue
            if now >= self._resting.get(leader.host_id, 0.0):
                return leader
            if self._failures[leader.host_id] < _TRIES:
                return None
        return None

    async def _follow(self, leader: Leader, version: str) -> None:
        """Fetch what *leader* has, for as long as he gives it.

        Raises:
            DragonflyError: He does not any more, or there is no place for it.
        """
        fetching: asyncio.Task[Any] | None = None
        useful = self._now()
        words = self._means.parents.grown(
            leader, self._record.kind, self._record.id, version, gap=_GAP
        )
        try:
            async with aclosing(words):
                async for grown in words:
                    self._there = grown.steps
                    self._news.set()
                    if fetching is None:
                        work = self._fetch(leader, Address(grown.ip, grown.port), version)
                        fetching = self._fetching.start(work, f"steps of {leader.host_id}")
                    if self._here >= len(self._crcs) or self._there > self._here:
                        useful = self._now()
                    # Whom the scheduler names no more may be cut off from who reads now.
                    if self._now() - useful > (_LAG if leader in self._leaders else 0.0):
                        raise ParentLost(f"{leader.address}: lags behind the reader")
                    if fetching.done() or not self._reads(version):
                        break
        finally:
            self._there = 0
            await self._fetching.cancel()
        if fetching is not None and not fetching.cancelled():
            fetching.result()

    def _reads(self, version: str) -> bool:
        """What comes is of what is read now."""
        return self._version == version and not self._stale and not self.over

    async def _fetch(self, leader: Leader, address: Address, version: str) -> None:
        """Step after step."""
        while self._reads(version):
            if self._here < min(self._there, len(self._crcs)):
                await self._step(leader, address, version)
            else:
                self._news.clear()
                await self._news.wait()

    async def _step(self, leader: Leader, address: Address, version: str) -> None:
        """The next one.

        Raises:
            DragonflyError: It did not come, or there is no place for it.
        """
        try:
            holding, number = self._open(), self._here
            if self._sink is None:
                self._sink = holding.extend(evict=False)
        except Unavailable as error:  # what can be had later without is not worth waiting for
            raise StoreFailed(str(error)) from error
        if self._callers.is_prefetch:
            await self._means.bandwidth.prefetch.take(GROWTH_STEP)
        await self._means.bandwidth.download.take(GROWTH_STEP)
        piece = Piece(number, number * GROWTH_STEP, GROWTH_STEP)
        request = PieceRequest(self._tag, holding.id, number)
        job = PieceFetch(
            self._means.connections, address, request, piece, self._sink, limits=self._limits
        )
        digest = await self._node.threads.receivers.run(job)
        if not self._reads(version) or number >= len(self._crcs):
            return
        crc = self._crcs[number]
        if digest != piece_digest(crc):
            self.liars.add(leader.host_id)
            what = f"step {number} of {leader.address}, by the reader's word"
            raise DigestMismatch(what, want=piece_digest(crc), got=digest)
        self._close_sink()
        self._failures.pop(leader.host_id, None)
        self._parents.append(leader.host_id)
        holding.given_by(leader.host_id)
        holding.grown(crc, parent_id=leader.host_id, traffic=Traffic.REMOTE_PEER)
        self._node.metrics.piece_traffic(Traffic.REMOTE_PEER, GROWTH_STEP)
        for download in self._callers.active():
            download.grown((number + 1) * GROWTH_STEP)
