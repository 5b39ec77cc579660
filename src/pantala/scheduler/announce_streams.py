"""The announce streams of peers that download: one each, one message after another.

A peer is answered when it registers, and when it asks for other parents. A peer of ours is told two
things without asking: that it has new partners, and whom to ask, or that it is to go to the origin,
when by no doing of its own it has lost its last parent. It may have noticed that itself, and ask,
at the same time: then its question counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final

import structlog

from pantala.background import Tasks
from pantala.core.sched.choose import (
    AskSeed,
    Parents,
    ToSource,
    Wait,
    check_priority,
    decide,
)
from pantala.core.sched.entities import OVER, Caller, Peer
from pantala.core.sched.owners import owned
from pantala.core.sched.seeds import for_seed
from pantala.core.sched.states import PeerState
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, InvalidRequest, NotFound
from pantala.model import announce
from pantala.model.announce import Answer, Registration, Report
from pantala.model.task import DownloadRequest

from . import convert
from .dialects import SchedulerDialect
from .imports import Imports
from .metrics import Metrics
from .news import News
from .seeds import SeedCaller
from .waiters import Waiters
from .wakeable import Wakeable

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Characters kept of what a peer says of its failure.
_MAX_DESCRIPTION: Final = 500


class AnnounceStreams:
    """All announce streams that are open.

    Args:
        world: What is told changes it, and it decides what is answered.
        waiters: Woken by the world.
        news: Told by the world.
        seeds: Called when the world says so.
        tasks: Where parents are looked for that nobody has asked for.
        metrics: Told of everything.
        chance: For samples of parents.
        imports: Has what is known of tasks that were imported. None: there are none.
    """

    def __init__(
        self,
        world: World,
        waiters: Waiters,
        news: News,
        *,
        seeds: SeedCaller,
        tasks: Tasks,
        metrics: Metrics,
        chance: Random,
        imports: Imports | None = None,
    ) -> None:
        self.world = world
        self.waiters = waiters
        self.news = news
        self.seeds = seeds
        self.tasks = tasks
        self.metrics = metrics
        self.chance = chance
        self.imports = imports

    async def announce(
        self,
        dialect: SchedulerDialect,
        caller: Caller,
        requests: AsyncIterator[Any],
        *,
        version: str = "",
    ) -> AsyncGenerator[Any, None]:
        """One stream: messages of a peer in, answers out, until it is over.

        A stream that ends before the peer says how it went means that it is gone: a daemon
        holds its stream open for as long as it downloads.
        """
        messages = Wakeable(requests)
        stream = AnnounceStream(self, dialect, caller, messages.wake, version)
        self.metrics.stream_opened()
        try:
            async for message in messages:
                if message is None:
                    for news in stream.take_news():
                        yield news
                    continue
                answer = await stream.handle(message)
                if answer is not None:
                    yield answer
                if stream.is_over:
                    return
        finally:
            messages.close()
            stream.close()
            self.metrics.stream_closed()


class AnnounceStream:
    """One announce stream: what a peer says is told to the world, what is decided goes back.

    Args:
        streams: It is one of these.
        dialect: What is spoken on it.
        caller: At its other end.
        wake: Has :meth:`take_news` called as soon as may be.
        version: That of the peer, as it stands beside the stream.
    """

    def __init__(
        self,
        streams: AnnounceStreams,
        dialect: SchedulerDialect,
        caller: Caller,
        wake: Callable[[], None],
        version: str = "",
    ) -> None:
        self._all = streams
        self._world = streams.world
        self._dialect = dialect
        self._codec = dialect.shared.codec
        self._caller = caller
        self._version = version
        self.wake = wake
        #: None: tasks of this kind are not imported.
        self._imports = None if dialect.imports is None else streams.imports
        self._peer: Peer | None = None
        #: What it wants, with all that it asks the origin with: a seed may fetch with that.
        self._request: DownloadRequest  # of those that have registered, and so of `_known`
        #: What the origin answered, by HTTP, when it last failed this peer.
        self._origin_status: int | None = None
        #: Looks for parents that the peer has not asked for, and what came of that.
        self._search: asyncio.Task[Any] | None = None
        self._found: Answer | DragonflyError | None = None
        #: What the peer has said is being dealt with.
        self._is_busy = False
        #: The peer has said how its download went.
        self.is_over = False

    async def handle(self, message: Any) -> Any:
        """Take one message; return the answer, or None.

        Raises:
            DragonflyError: The stream ends with it.
        """
        said = self._codec.decode(message)
        answer: Answer | None
        self._is_busy = True
        try:
            if isinstance(said, Registration):
                convert.check_registration(message, said, imported=self._imports is not None)
                answer = await self._register(said)
            else:
                answer = await self._hear(message.peer_id, said)
        finally:
            self._is_busy = False
        return None if answer is None else self._codec.encode_answer(answer)

    def take_news(self) -> Iterator[Any]:
        """What the peer is to be told without having asked: none, one, or two messages.

        Raises:
            DragonflyError: It has lost its parents, and can have no others. The stream ends with
                it, as if the peer had asked.
        """
        found, self._found = self._found, None
        if isinstance(found, DragonflyError):
            raise found
        if found is not None:
            yield self._codec.encode_answer(found)
        partners = self._world.partners.take_news(self._peer) if self._peer is not None else ()
        if partners:
            yield self._codec.encode_answer(_candidates(partners))

    def orphaned(self) -> None:
        """The peer has lost its last parent. It may have partners, who are no way to the source."""
        peer, idle = self._peer, self._search is None or self._search.done()
        if peer is not None and idle and not self._is_busy:
            self._search = self._all.tasks.start(self._find_parents(peer), "parents of an orphan")

    def close(self) -> None:
        """The stream has ended; a peer that was not through by then has failed."""
        self._stop_search()
        if self._peer is not None:
            self._all.news.closed(self._peer)
            ended = self._peer.state not in OVER
            self._world.fail(self._peer, time.monotonic())
            self._world.stream_closed(self._peer)
            if ended and self._imports is not None:
                self._imports.keep_later(self._peer)

    def _known(self, peer_id: str) -> Peer:
        """The peer of this stream, if *peer_id* names it and it has not been deleted."""
        peer = self._peer
        if peer is None or peer.id != peer_id or self._world.peers.get(peer.key) is not peer:
            raise NotFound(f"peer {peer_id} is not known on this stream; register it first")
        return peer

    async def _register(self, said: Registration) -> Answer:
        said = replace(said, request=self._world.priorities.judge(said.request))
        check_priority(said.request, said.task_id)
        if self._peer is not None:
            raise InvalidRequest("a stream is one download: its peer has registered already")
        convert.check_version(self._version)
        said = replace(said, version=self._version)
        owned(self._world, said.host_id, self._caller)
        if self._imports is not None:
            await self._imports.prepare((said.kind, said.task_id))
        peer = self._world.register(said, time.monotonic())
        self._peer, self._request = peer, said.request
        self._world.stream_opened(peer)
        self._all.news.opened(peer, self)
        self._all.metrics.peer_event("register_peer", peer)
        if said.metadata_only:
            return announce.MetadataOnly()
        if self._imports is not None:
            await self._imports.keep(peer, anew=True)
        if peer.state is PeerState.RECEIVED_EMPTY:
            return announce.EmptyTask()
        return await self._schedule(peer)

    async def _schedule(self, peer: Peer) -> Answer:
        """Decide on *peer*, as often as it takes."""
        began = time.monotonic()
        while True:
            decision = decide(self._world, peer, time.monotonic(), self._all.chance)
            match decision:
                case Parents(parents, partners):
                    self._all.metrics.scheduled(time.monotonic() - began)
                    return _candidates((*parents, *partners))
                case ToSource(why):
                    self._all.metrics.scheduled(time.monotonic() - began)
                    logger.info("to the origin", task=peer.task.id, peer=peer.id, why=why)
                    return announce.NeedBackToSource(why)
                case AskSeed(seeds):
                    wanted = for_seed(self._request)
                    self._all.seeds.ask(self._dialect, peer.task, seeds, wanted)
                case Wait(until):
                    timeout = until - time.monotonic()
                    await self._all.waiters.wait(peer.task.key, timeout)
            self._known(peer.id)

    async def _find_parents(self, peer: Peer) -> None:
        """Decide for *peer* as if it had asked."""
        try:
            if self._imports is not None:
                await self._imports.prepare(peer.task.key)
            self._found = await self._schedule(peer)
        except DragonflyError as error:
            if self._world.peers.get(peer.key) is not peer:  # deleted: it hears so when it speaks
                return
            self._found = error
        self.wake()

    def _stop_search(self) -> None:
        """The peer knows itself what it needs."""
        self._found = None
        if self._search is not None:
            self._search.cancel()

    async def _hear(self, peer_id: str, said: Report) -> Answer | None:
        """Take what a peer tells after it has registered."""
        try:
            peer = self._known(peer_id)
        except NotFound:
            if isinstance(
                said, announce.PieceReport
            ):  # of one that was deleted meanwhile: no reason to part
                return None
            raise
        if isinstance(said, announce.PieceReport):
            self._hear_of_piece(peer, said, time.monotonic())
            return None
        self.is_over = isinstance(said, announce.LastReport)
        if not isinstance(said, announce.Started):
            self._stop_search()
        if isinstance(said, announce.Reschedule):
            for parent in said.parents:
                self._world.block(peer, parent)
            if self._imports is not None:
                await self._imports.prepare(peer.task.key)
            return await self._schedule(peer)
        self._hear_of_download(peer, said, time.monotonic())
        if self._imports is not None and self.is_over:
            await self._imports.keep(peer)
        return None

    def _hear_of_piece(self, peer: Peer, said: announce.PieceReport, now: float) -> None:
        metrics = self._all.metrics
        match said:
            case announce.PieceFinished(piece) | announce.SourcePieceFinished(piece):
                self._world.piece(peer, piece.cost, piece.parent_id or None, now)
                metrics.piece_finished(peer, piece)
            case announce.PieceFailed(parent_id=parent_id):
                self._world.piece_failed(peer, parent_id, now)
                parent = peer.task.peers.get(parent_id)
                if self._imports is not None and parent is not None and parent.distrusted:
                    self._imports.lost(parent)
                metrics.piece_failed(peer, from_source=False)
            case announce.SourcePieceFailed(status_code=status):  # pragma: no branch  the last one
                self._origin_status = status
                self._world.touch(peer, now)
                metrics.piece_failed(peer, from_source=True)

    def _hear_of_download(self, peer: Peer, said: announce.DownloadReport, now: float) -> None:
        metrics = self._all.metrics
        match said:
            case announce.Started():
                self._world.start(peer, now)
                metrics.peer_event("download_peer_started", peer)
            case announce.SourceStarted():
                self._world.start_back_to_source(peer, now)
                metrics.peer_event("download_peer_back_to_source_started", peer)
            case announce.Finished() | announce.SourceFinished():
                self._world.finish(peer, now)
                metrics.peer_finished(peer)
            case announce.Failed(description):
                _log_failure(peer, description)
                self._world.fail(peer, now)
                metrics.peer_event("download_peer_finished_failure", peer)
            case announce.SourceFailed(description):  # pragma: no branch  there is no other
                _log_failure(peer, description)
                origin = description[:_MAX_DESCRIPTION]
                self._world.fail(peer, now, origin=origin, status=self._origin_status)
                metrics.peer_event("download_peer_back_to_source_finished_failure", peer)


def _candidates(peers: Iterable[Peer]) -> announce.CandidateParents:
    return announce.CandidateParents(tuple(convert.candidate(peer) for peer in peers))


def _log_failure(peer: Peer, description: str) -> None:
    why = description[:_MAX_DESCRIPTION]
    logger.info("download failed", task=peer.task.id, peer=peer.id, why=why)
