"""The talks with peers that download: one stream each, one message after another."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final

import structlog

from pantala.core.sched.choose import (
    AskSeed,
    Parents,
    ToSource,
    Wait,
    check_priority,
    decide,
)
from pantala.core.sched.entities import Caller, Peer
from pantala.core.sched.owners import owned
from pantala.core.sched.states import PeerState
from pantala.core.sched.world import World
from pantala.core.transfer import Note
from pantala.errors import InvalidRequest, NotFound
from pantala.rpc.convert import seconds

from . import convert
from .dialects import Side
from .metrics import Metrics
from .seeds import SeedCaller
from .waiters import Waiters

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Characters kept of what a peer says of its failure.
_MAX_DESCRIPTION: Final = 500

#: Of single pieces.
_PIECES: Final = frozenset(
    {
        Note.PIECE_FINISHED,
        Note.PIECE_FAILED,
        Note.SOURCE_PIECE_FINISHED,
        Note.SOURCE_PIECE_FAILED,
    }
)

#: After these the scheduler ends the stream; a daemon waits for that.
_LAST: Final = frozenset({Note.FINISHED, Note.FAILED, Note.SOURCE_FINISHED, Note.SOURCE_FAILED})


class Sessions:
    """All talks that are going on.

    Args:
        world: What is told changes it, and it decides what is answered.
        waiters: Woken by the world.
        seeds: Called when the world says so.
        metrics: Told of everything.
        chance: For samples of parents.
    """

    def __init__(
        self, world: World, waiters: Waiters, seeds: SeedCaller, metrics: Metrics, chance: Random
    ) -> None:
        self.world = world
        self.waiters = waiters
        self.seeds = seeds
        self.metrics = metrics
        self.chance = chance

    async def announce(
        self, side: Side, caller: Caller, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[Any, None]:
        """One talk: messages of a peer in, answers out, until it is over.

        A stream that ends before the peer says how it went means that it is gone: a daemon
        holds its stream open for as long as it downloads.
        """
        session = Session(self, side, caller)
        self.metrics.session_opened()
        try:
            async for message in requests:
                answer = await session.handle(message)
                if answer is not None:
                    yield answer
                if session.is_over:
                    return
        finally:
            session.close()
            self.metrics.session_closed()


class Session:
    """One talk."""

    def __init__(self, sessions: Sessions, side: Side, caller: Caller) -> None:
        self._all = sessions
        self._world = sessions.world
        self._side = side
        self._caller = caller
        self._peer: Peer | None = None
        self._download: Any = None
        #: What the origin answered, by HTTP, when it last failed this peer.
        self._origin_status: int | None = None
        #: The peer has said how its download went.
        self.is_over = False
        self._handlers: Mapping[Note, Callable[[Peer, Any], Awaitable[Any]]] = {
            Note.STARTED: self._started,
            Note.SOURCE_STARTED: self._source_started,
            Note.RESCHEDULE: self._reschedule,
            Note.FINISHED: self._finished,
            Note.SOURCE_FINISHED: self._finished,
            Note.FAILED: self._failed,
            Note.SOURCE_FAILED: self._source_failed,
            Note.PIECE_FINISHED: self._piece,
            Note.SOURCE_PIECE_FINISHED: self._piece,
            Note.PIECE_FAILED: self._piece_failed,
            Note.SOURCE_PIECE_FAILED: self._source_piece_failed,
        }

    async def handle(self, message: Any) -> Any:
        """Take one message; return the answer, or None.

        Raises:
            DragonflyError: The talk ends with it.
        """
        arm = message.WhichOneof("request")
        if arm is None:
            raise InvalidRequest("the message has no request in it")
        if arm == self._side.talk.register_arm:
            return await self._register(message, getattr(message, arm))
        note = self._side.notes[arm]
        try:
            peer = self._known(message.peer_id)
        except NotFound:
            if note in _PIECES:  # news of a peer that was deleted meanwhile are no reason to part
                return None
            raise
        self.is_over = note in _LAST
        return await self._handlers[note](peer, getattr(message, arm))

    def close(self) -> None:
        """The stream has ended."""
        if self._peer is not None:
            self._world.fail(self._peer, time.monotonic())
            self._world.end_talk(self._peer)

    def _known(self, peer_id: str) -> Peer:
        """The peer of this stream, if *peer_id* names it and it has not been deleted."""
        peer = self._peer
        if peer is None or peer.id != peer_id or self._world.peers.get(peer.key) is not peer:
            raise NotFound(f"peer {peer_id} is not known on this stream; register it first")
        return peer

    async def _register(self, message: Any, download: Any) -> Any:
        registration = convert.registration(self._side, message, download)
        check_priority(registration)
        if self._peer is not None:
            raise InvalidRequest("a stream is one download: its peer has registered already")
        owned(self._world, registration.host_id, self._caller)
        peer = self._world.register(registration, time.monotonic())
        self._peer, self._download = peer, download
        self._world.begin_talk(peer)
        self._all.metrics.peer_event("register_peer", peer)
        if peer.state is PeerState.RECEIVED_EMPTY:
            return self._answer(self._side.talk.empty_arm)
        return await self._schedule(peer)

    async def _schedule(self, peer: Peer) -> Any:
        """Decide on *peer*, as often as it takes."""
        began = time.monotonic()
        while True:
            decision = decide(self._world, peer, time.monotonic(), self._all.chance)
            match decision:
                case Parents(parents):
                    self._all.metrics.scheduled(time.monotonic() - began)
                    return self._offer(parents)
                case ToSource(why):
                    self._all.metrics.scheduled(time.monotonic() - began)
                    logger.info("to the origin", task=peer.task.id, peer=peer.id, why=why)
                    return self._answer("need_back_to_source_response", description=why)
                case AskSeed(seeds):
                    request = convert.seed_request(self._side, self._download)
                    self._all.seeds.ask(self._side, peer.task, seeds, request)
                case Wait(until):
                    timeout = until - time.monotonic()
                    await self._all.waiters.wait(peer.task.key, timeout)
            self._known(peer.id)

    def _offer(self, parents: tuple[Peer, ...]) -> Any:
        return self._answer(
            self._side.talk.normal_arm,
            candidate_parents=[convert.candidate_message(self._side, p) for p in parents],
        )

    def _answer(self, arm: str, **fields: Any) -> Any:
        answer = self._side.answer()
        part = getattr(answer, arm)
        part.SetInParent()
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(part, name).extend(value)
            else:
                setattr(part, name, value)
        return answer

    # What a peer may tell after it has registered

    async def _started(self, peer: Peer, _: Any) -> None:
        self._world.start(peer, time.monotonic())
        self._all.metrics.peer_event("download_peer_started", peer)

    async def _source_started(self, peer: Peer, _: Any) -> None:
        self._world.start_back_to_source(peer, time.monotonic())
        self._all.metrics.peer_event("download_peer_back_to_source_started", peer)

    async def _reschedule(self, peer: Peer, arm: Any) -> Any:
        for parent in arm.candidate_parents:
            self._world.block(peer, parent.id)
        return await self._schedule(peer)

    async def _finished(self, peer: Peer, _: Any) -> None:
        self._world.finish(peer, time.monotonic())
        self._all.metrics.peer_finished(peer)

    async def _failed(self, peer: Peer, arm: Any) -> None:
        self._log_failure(peer, arm.description)
        self._world.fail(peer, time.monotonic())
        self._all.metrics.peer_event("download_peer_finished_failure", peer)

    async def _source_failed(self, peer: Peer, arm: Any) -> None:
        self._log_failure(peer, arm.description)
        said = arm.description[:_MAX_DESCRIPTION]
        self._world.fail(peer, time.monotonic(), origin=said, status=self._origin_status)
        self._all.metrics.peer_event("download_peer_back_to_source_finished_failure", peer)

    async def _piece(self, peer: Peer, arm: Any) -> None:
        piece = arm.piece
        parent_id = piece.parent_id or None
        self._world.piece(peer, seconds(piece.cost), parent_id, time.monotonic())
        self._all.metrics.piece_finished(peer, piece)

    async def _piece_failed(self, peer: Peer, arm: Any) -> None:
        self._world.piece_failed(peer, arm.parent_id, time.monotonic())
        self._all.metrics.piece_failed(peer, from_source=False)

    async def _source_piece_failed(self, peer: Peer, arm: Any) -> None:
        answered = arm.HasField("backend") and arm.backend.HasField("status_code")
        self._origin_status = arm.backend.status_code if answered else None
        self._world.touch(peer, time.monotonic())
        self._all.metrics.piece_failed(peer, from_source=True)

    def _log_failure(self, peer: Peer, description: str) -> None:
        why = description[:_MAX_DESCRIPTION]
        logger.info("download failed", task=peer.task.id, peer=peer.id, why=why)
