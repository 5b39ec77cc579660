"""The shell of core.transfer: carries out its commands for one flight, and reports back."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from pantala.background import Tasks
from pantala.core import transfer as t
from pantala.core.pace import TICK, Pace
from pantala.core.policy import policy_of
from pantala.daemon.node import Node, new_peer_id
from pantala.errors import (
    DragonflyError,
    NoProvider,
    OriginError,
    SourceChanged,
    TaskDeleted,
)
from pantala.model import announce
from pantala.model.announce import Answer, Registration
from pantala.model.pieces import LEAST_PIECE_LENGTH, MIN_PIECE_LENGTH
from pantala.model.task import PieceRecord
from pantala.storage.holding import Holding

from .announcing import Announcing, source_piece_failed
from .callers import Callers
from .digests import PieceDigests
from .fetching import Fetcher
from .following import Following
from .hearing import Hearing
from .means import Means
from .origin import Origin
from .origins import Origins

logger = structlog.get_logger(__name__)


def _left_alone() -> SourceChanged:
    return SourceChanged("those who hold the rest hold another version of the content")


class Driver:
    """Brings the pieces that callers want of one task whose length is known.

    Args:
        node: What all rooms share.
        means: What all downloads share.
        holding: Where the pieces go.
        callers: Who wants them.
        origins: The origin, as the callers may ask it.
        registration: How to introduce ourselves to the scheduler; None: do without one.
        certain: The origin has said which version the content has.
        avoid: Versions that are known to lead nowhere.
    """

    def __init__(
        self,
        node: Node,
        means: Means,
        holding: Holding,
        callers: Callers,
        origins: Origins,
        *,
        registration: Registration | None,
        certain: bool = False,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self.holding = holding
        self._node = node
        self._means = means
        self._callers = callers
        self._origins = origins
        self._registration = registration
        length = holding.record.piece_length or MIN_PIECE_LENGTH
        # Of shorter pieces so many more: who takes long to answer needs as many bytes under way.
        shorter = MIN_PIECE_LENGTH // max(length, LEAST_PIECE_LENGTH)
        most = node.config.download.concurrent_piece_count * max(1, shorter)
        retries = node.config.scheduler.max_schedule_count
        self._transfer = t.Transfer(means.rng, max_in_flight=most, max_schedules=retries)
        self._transfer.piece_length = length
        self._pace = Pace()
        self._following = Following(
            node,
            means,
            self,
            holding,
            self._pace,
            certain=certain,
            avoid=avoid,
        )
        self._hearing = Hearing(self._told)
        #: What the last look has found.
        self._saw_something = False
        self._quiet: frozenset[str] = frozenset()
        self._events: deque[t.Event] = deque()
        self._handling = False
        self._tasks = Tasks(self._break)
        self._follows: dict[str, asyncio.Task[None]] = {}
        #: Parents that do not exchange, and say nothing but what they have.
        self._plain: set[str] = set()
        #: Ends the watch on a parent's weight, for each that is watched.
        self._unwatch: dict[str, Callable[[], None]] = {}
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._announcing = Announcing(node, holding, self, self._tasks)
        self.digests = PieceDigests(holding, self, self._tasks, self._announcing.ask)
        self._fetcher = Fetcher(node, means, self, self._following, self.digests)

    @property
    def over(self) -> bool:
        """It takes no more wishes."""
        return self._end.done()

    @property
    def told_finished(self) -> bool:
        """The scheduler was told that all we registered for is here."""
        return self._announcing.told_finished

    @property
    def at_source(self) -> bool:
        """The scheduler has sent us to the origin."""
        return self._transfer.phase is t.Phase.SOURCE

    @property
    def stage(self) -> str:
        """Where it stands, for people."""
        return self._transfer.phase.name.lower()

    async def run(self) -> None:
        """Bring everything that is wanted, or fail those who want what cannot be had.

        Raises:
            SourceChanged: The origin's content is not the one that is held.
            TaskDeleted: The task was deleted meanwhile.
        """
        self.holding.on_gone = self._gone
        if self._node.config.host.idc:  # else nobody is far
            self.holding.on_told = self._hearing.told
        self.want()
        if self._registration is None:
            self.on(t.SchedulerLost())
        else:
            self._join(self._registration)
        self._tasks.start(self._watch(), "watch over the pace")
        try:
            await asyncio.shield(self._end)
            await self.digests.settle()
        except BaseException as error:  # cancelled, too: the scheduler must not wait for us
            if not self._transfer.over:
                self._announcing.tell_failed(error, at_source=self.at_source)
            raise
        finally:
            if not self._end.done():
                self._end.cancel()
            self._announcing.finish()
            for end in self._unwatch.values():
                end()
            await self._tasks.cancel()
            self.holding.on_gone = self.holding.on_told = None
            self.holding.state.at_source = False
            self.holding.coming = frozenset()

    def _join(self, registration: Registration) -> None:
        self._following.name = registration.peer_id
        # Not among our tasks: its last words may be under way when all else is over.
        self._node.tasks.start(self._announcing.run(registration), "announce stream")

    def want(self) -> None:
        """Look again at what the callers want."""
        wanted = self._callers.wanted(but=self.digests.held)
        self.holding.coming = frozenset(wanted.pieces)
        if wanted.pieces:
            last = self.holding.piece(max(wanted.pieces))
            self._origins.until = last.offset + last.length
        self.on(wanted)
        self._watch_weights()

    def _gone(self) -> None:
        self._break(TaskDeleted(f"task {self.holding.id} was deleted while it was downloaded"))

    def _told(self, child: str, lacks: int, has: int) -> None:
        """One that follows this host lacks something, or has or fetches it."""
        if not self._end.done():
            self.on(t.Told(child, lacks, has))

    def _break(self, error: BaseException) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    # -- events and commands -------------------------------------------------------------------

    def on(self, event: t.Event) -> None:
        """Something happened: have it decided, and carry out what is to be done."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        self._transfer.source_in_order = self._origins.in_order
        try:
            while self._events and not self._end.done():
                event = self._events.popleft()
                if isinstance(event, t.Lost):
                    self._following.tell_lacking(event.number)
                for command in self._transfer.handle(event, self._now()):
                    self._carry_out(command)
            self.holding.state.at_source = self.at_source
            if self._transfer.has_far:
                self._following.tell_spared(self._transfer.spared, self._transfer.lacking)
            self._following.tell_room()
        finally:
            self._handling = False

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _carry_out(self, command: t.Command) -> None:
        match command:
            case t.Fetch(number, parent):
                self._following.tell_begun(number, parent)
                self._tasks.start(self._fetcher.fetch(command), f"piece {number} of {parent}")
            case t.Follow(parent):
                self._unfollow(parent)
                self._pace.heard(parent, asyncio.get_running_loop().time())
                numbers = frozenset(self._transfer.wanted)
                work = self._following.follow(parent, numbers)
                self._follows[parent] = self._tasks.start(work, f"offers of {parent}")
            case t.Drop(parent):
                self._unfollow(parent)
                if parent in self._unwatch:
                    self._unwatch.pop(parent)()
            case t.Seek(number, parent):
                task = self.holding.id
                logger.info("piece does not come", task=task, piece=number, parent=parent)
                self._following.tell_lacking(number, but=parent)
            case t.Rejoin():
                assert self._registration is not None  # noqa: S101  there was a scheduler to lose
                # Whoever was lost may take a while to notice that the peer of that name is gone.
                name = new_peer_id(self._node.config)
                self._join(replace(self._registration, peer_id=name))
            case t.FailPieces() if self._following.others:
                self._break(_left_alone())
            case t.FailPieces(pieces):
                # Children that wait for them here must look elsewhere.
                self.holding.coming -= pieces
                self._callers.refuse(pieces, self._refusal())
            case t.Finish():
                self._end.set_result(None)
            case _:
                self._announcing.tell(command)

    def _unfollow(self, parent: str) -> None:
        task = self._follows.pop(parent, None)
        if task is not None:
            task.cancel()

    def _refusal(self) -> DragonflyError:
        trouble = self._announcing.trouble
        if isinstance(trouble, OriginError):
            return trouble
        why = f" ({trouble})" if trouble else ""
        if not policy_of(self.holding.kind).from_source:
            return NoProvider(f"no host that is here has all of the content{why}")
        return NoProvider(f"no peer offers the content, and the origin must not be asked{why}")

    @property
    def room(self) -> int:
        """So many more pieces would be fetched of parents at once."""
        return self._transfer.room

    @property
    def leisure(self) -> float:
        """Seconds in which a piece comes at best: parents need not hear of each sooner."""
        return self._transfer.leisure

    @property
    def spared(self) -> int:
        """Pieces that need not come from afar, as bits."""
        return self._transfer.spared

    # -- news of the fetcher -------------------------------------------------------------------

    @property
    def is_prefetch(self) -> bool:
        """Nobody waits for it but for prefetching."""
        return self._callers.is_prefetch

    def on_piece(self, piece: PieceRecord) -> None:
        """A piece was published: callers who want it get it as soon as may be."""
        self.digests.on_piece(piece)

    def hand_on(self, pieces: Sequence[PieceRecord]) -> None:
        """Callers who want these pieces get them."""
        for download in self._callers.active():
            download.arrived(pieces)

    def is_through_by(self, numbers: frozenset[int]) -> bool:
        """Some caller needs nothing but these."""
        return any(download.missing <= numbers for download in self._callers.active())

    # -- news of the digests -------------------------------------------------------------------

    @property
    def wanted(self) -> frozenset[int]:
        """Pieces that are to come."""
        return frozenset(self._transfer.wanted)

    def may_be(self, version: str) -> bool:
        """Whether that is, or may become, the version of what is here."""
        return self._following.may_be(version)

    def on_wrong(self, piece: PieceRecord, why: SourceChanged) -> None:
        """A piece that is here is not what others have read at the origin: all is begun anew."""
        name, holding = piece.parent_id, self.holding
        if name:
            self._announcing.tell(announce.PieceFailed(piece.number, name))
            candidate = self._following.candidates.get(name)
            if candidate is not None:
                key, now = (holding.kind, holding.id), self._node.stores.now()
                self._means.suspects.suspect(key, {candidate.host.id}, set(), now)
        self._break(why)

    def origin(self) -> Origin:
        """The origin to ask now."""
        return self._origins.current()

    def on_outvoted(self) -> None:
        """More hosts hold another version of the content than the one that is fetched."""
        self._break(SourceChanged("most peers hold another version of the content"))

    def on_source_failed(self, origin: Origin, error: DragonflyError) -> None:
        """The origin failed for good, at least for those on whose behalf it was asked."""
        self._announcing.trouble = error
        self._announcing.tell(source_piece_failed(error))
        if isinstance(error, SourceChanged):
            self._break(error)
            return
        self._origins.failed(origin, error)
        if self._callers.active():
            self.want()
        else:
            self._break(error)

    # -- news of the scheduler -----------------------------------------------------------------

    def on_source_closed(self) -> None:
        """The origin has failed so many others that the scheduler sends nobody there."""
        self._callers.close_source()
        if not self.over:
            self.want()

    def on_silence(self, *, again: bool) -> None:
        """Nobody will answer any more, or for now; the download must go on."""
        self.on(t.SchedulerLost(again))

    def on_answer(self, answer: Answer) -> None:
        """The scheduler has said what to do."""
        match answer:
            case announce.CandidateParents(candidates):
                for candidate in candidates:
                    self._following.candidates[candidate.peer_id] = candidate
                weights = {c.peer_id: c.host.weight for c in candidates}
                self.on(t.Scheduled(weights, self._following.far(candidates)))
                self._hearing.know(candidates)
                self._watch_weights()
                self.digests.ask_first(at_origin=False)
            case announce.NeedBackToSource():
                self.digests.ask_first(at_origin=True)
                self.on(t.ToldBackToSource())
                key, now = (self.holding.kind, self.holding.id), self._node.stores.now()
                for parent in self._means.suspects.accused(key, now):
                    self._announcing.tell(announce.PieceFailed(0, parent))
            case announce.EmptyTask():
                self.on(t.ToldEmpty())

    def _watch_weights(self) -> None:
        """Hear what parents can give, where there is a choice to make that is not made yet."""
        candidates = self._following.candidates
        if self.over or len(candidates) < 2 or not self._transfer.has_backlog:
            return
        for name in self._plain & candidates.keys():
            self._listen_to(name)

    def on_plain(self, name: str) -> None:
        """A parent does not exchange: its host is heard of by another way."""
        self._plain.add(name)
        self._watch_weights()

    def _listen_to(self, name: str) -> None:
        """Hear from a parent's host what it can give, and that it lives."""
        if name not in self._unwatch:
            tell = functools.partial(self._weighed, name)
            self._unwatch[name] = self._means.weights.watch(self._following.candidates[name], tell)

    def _weighed(self, name: str, weight: float | None) -> None:
        if weight is None:
            self._pace.is_mute(name)
            return
        self._pace.host_heard(name, asyncio.get_running_loop().time())
        self.on(t.WeightChanged(name, weight))

    async def _watch(self) -> None:
        """Look now and then whether pieces come, and whether parents live."""
        loop, pace = asyncio.get_running_loop(), self._pace
        while True:
            await asyncio.sleep(TICK)
            waiting = self._transfer.waits_for()
            look = pace.look(loop.time(), self._fetcher.fetches(), waiting)
            for name in self._plain.intersection(pace.silent(loop.time())):
                self._listen_to(name)
            if look.quiet and look.quiet != self._quiet:
                logger.info("parents say nothing", task=self.holding.id, parents=sorted(look.quiet))
            self._quiet = look.quiet
            something = bool(look.left or look.quiet) or not self._fetcher.fetches()
            if something or self._saw_something:
                self._saw_something = something
                self.on(look)
