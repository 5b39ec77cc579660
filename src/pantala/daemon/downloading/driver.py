"""The shell of core.transfer: carries out its commands for one flight, and reports back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from pantala.background import Tasks
from pantala.core import transfer as t
from pantala.core.pace import TICK
from pantala.core.policy import policy_of
from pantala.daemon.node import Node
from pantala.errors import (
    Blame,
    Busy,
    DragonflyError,
    HostUnknown,
    NoProvider,
    SchedulerLost,
    SourceChanged,
    SourceFailed,
    TaskDeleted,
    Unavailable,
)
from pantala.model import announce
from pantala.model.announce import Answer, Registration, Report
from pantala.model.task import PieceRecord
from pantala.ports import Conversation
from pantala.rpc.patience import while_busy
from pantala.storage.holding import Holding

from .callers import Callers
from .fetching import Fetcher
from .origin import Origin
from .origins import Origins

logger = structlog.get_logger(__name__)


#: Seconds between two looks whether a scheduler is there again.
_LOOK_AGAIN: Final = 1.0


#: What is told with the last thing that went wrong.
_EXPLAINED: Final = (announce.Reschedule, announce.Failed, announce.SourceStarted)


def source_piece_failed(error: DragonflyError) -> announce.SourcePieceFailed:
    """What the scheduler is told of *error*."""
    if isinstance(error, SourceFailed):
        return announce.SourcePieceFailed(
            error.message, by_origin=True, status_code=error.status_code
        )
    return announce.SourcePieceFailed(str(error))


def _left_alone() -> SourceChanged:
    return SourceChanged("those who hold the rest hold another version of the content")


def _say_it_comes(talk: Conversation, answer: Answer) -> None:
    if isinstance(answer, announce.NeedBackToSource):
        talk.tell(announce.SourceStarted())


class Driver:
    """Brings the pieces that callers want of one content whose length is known.

    Args:
        node: What all parts share.
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
        holding: Holding,
        callers: Callers,
        origins: Origins,
        registration: Registration | None,
        *,
        certain: bool = False,
        avoid: frozenset[str] = frozenset(),
    ) -> None:
        self.holding = holding
        self._node = node
        self._callers = callers
        self._origins = origins
        self._registration = registration
        self._transfer = t.Transfer(
            node.rng,
            max_in_flight=node.config.download.concurrent_piece_count,
            max_schedules=node.config.scheduler.max_schedule_count,
        )
        self._transfer.piece_length = holding.record.piece_length or 1
        self._fetcher = Fetcher(node, self, holding.id, certain=certain, avoid=avoid)
        #: What the last look has found.
        self._saw_something = False
        self._quiet: frozenset[str] = frozenset()
        self._events: deque[t.Event] = deque()
        self._handling = False
        self._tasks = Tasks(self._break)
        self._follows: dict[str, asyncio.Task[None]] = {}
        #: Ends the watch on a parent's weight, for each that is watched.
        self._unwatch: dict[str, Callable[[], None]] = {}
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._talk: Conversation | None = None
        self._trouble: DragonflyError | None = None
        self._answered = False
        #: The scheduler was told that all we registered for is here.
        self.told_finished = False

    @property
    def over(self) -> bool:
        """It takes no more wishes."""
        return self._end.done()

    @property
    def at_source(self) -> bool:
        """The scheduler has sent us to the origin."""
        return self._transfer.talk is t.Talk.SOURCE

    @property
    def stage(self) -> str:
        """Where it stands, for people."""
        return self._transfer.talk.name.lower()

    async def run(self) -> None:
        """Bring everything that is wanted, or fail those who want what cannot be had.

        Raises:
            SourceChanged: The origin's content is not the one that is held.
            TaskDeleted: The task was deleted meanwhile.
        """
        self.holding.on_gone = self._gone
        self.want()
        if self._registration is None:
            self.on(t.SchedulerLost())
        else:
            # Not among our tasks: its last words may be under way when all else is over.
            talk = self._converse(self._registration)
            self._node.tasks.start(talk, "talk with the scheduler")
        self._tasks.start(self._watch(), "watch over the pace")
        try:
            await asyncio.shield(self._end)
        except BaseException as error:  # cancelled, too: the scheduler must not wait for us
            self._say_failed(error)
            raise
        finally:
            if not self._end.done():
                self._end.cancel()
            if self._talk is not None:
                self._talk.finish()
            for end in self._unwatch.values():
                end()
            await self._tasks.cancel()
            self.holding.on_gone = None
            self.holding.coming = frozenset()

    def want(self) -> None:
        """Look again at what the callers want."""
        wanted = self._callers.wanted()
        self.holding.coming = frozenset(wanted.pieces)
        if wanted.pieces:
            last = self.holding.piece(max(wanted.pieces))
            self._origins.until = last.offset + last.length
        self.on(wanted)
        self._watch_weights()

    def _gone(self) -> None:
        self._break(TaskDeleted(f"task {self.holding.id} was deleted while it was downloaded"))

    def _break(self, error: BaseException) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    def _say_failed(self, error: BaseException) -> None:
        if self._talk is not None and not self._transfer.over:
            # After a few failures of an origin nobody is sent there: this node's own trouble, and
            # credentials that it refused, must not count as such.
            at_source = self._transfer.talk is t.Talk.SOURCE
            blamed = isinstance(error, SourceFailed) and error.blame is Blame.ORIGIN
            blamed = blamed and not isinstance(error, SourceChanged)
            why = str(error) if isinstance(error, DragonflyError) else ""
            failed = announce.SourceFailed if at_source and blamed else announce.Failed
            self._talk.tell(failed(why))

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
                for command in self._transfer.handle(self._events.popleft()):
                    self._carry_out(command)
        finally:
            self._handling = False

    def _carry_out(self, command: t.Command) -> None:
        match command:
            case t.Fetch(number, parent):
                self._tasks.start(self._fetcher.fetch(command), f"piece {number} of {parent}")
            case t.Follow(parent):
                self._unfollow(parent)
                self._fetcher.pace.heard(parent, asyncio.get_running_loop().time())
                numbers = frozenset(self._transfer.wanted)
                work = self._fetcher.follow(parent, numbers)
                self._follows[parent] = self._tasks.start(work, f"offers of {parent}")
            case t.Drop(parent):
                self._unfollow(parent)
                if parent in self._unwatch:
                    self._unwatch.pop(parent)()
            case t.Refuse() if self._fetcher.others:
                self._break(_left_alone())
            case t.Refuse(pieces):
                # Children that wait for them here must look elsewhere.
                self.holding.coming -= pieces
                self._callers.refuse(pieces, self._refusal())
            case t.Finish():
                self._end.set_result(None)
            case _:
                self._tell(command)

    def _unfollow(self, parent: str) -> None:
        task = self._follows.pop(parent, None)
        if task is not None:
            task.cancel()

    def _refusal(self) -> DragonflyError:
        if isinstance(self._trouble, SourceFailed):
            return self._trouble
        why = f" ({self._trouble})" if self._trouble else ""
        if not policy_of(self.holding.kind).from_source:
            return NoProvider(f"no host that is here has all of the content{why}")
        return NoProvider(f"no peer offers the content, and the origin must not be asked{why}")

    def _tell(self, what: Report) -> None:
        if self._talk is not None:
            if isinstance(what, _EXPLAINED) and self._trouble is not None:
                what = replace(what, description=str(self._trouble))
            self._talk.tell(what)
            self.told_finished = isinstance(what, announce.Finished | announce.SourceFinished)

    # -- news of the fetcher -------------------------------------------------------------------

    @property
    def is_prefetch(self) -> bool:
        """Nobody waits for it but for prefetching."""
        return self._callers.is_prefetch

    def on_piece(self, piece: PieceRecord) -> None:
        """A piece was published."""
        for download in self._callers.active():
            download.arrived((piece,))

    def origin(self) -> Origin:
        """The origin to ask now."""
        return self._origins.current()

    def on_outvoted(self) -> None:
        """More hosts hold another version of the content than the one that is fetched."""
        self._break(SourceChanged("most peers hold another version of the content"))

    def on_source_failed(self, origin: Origin, error: DragonflyError) -> None:
        """The origin failed for good, at least for those on whose behalf it was asked."""
        self._trouble = error
        self._tell(source_piece_failed(error))
        if isinstance(error, SourceChanged):
            self._break(error)
            return
        self._origins.failed(origin, error)
        if self._callers.active():
            self.want()
        else:
            self._break(error)

    # -- the talk with the scheduler -----------------------------------------------------------

    async def _converse(self, registration: Registration) -> None:
        """Talk until the scheduler ends it, or until some time after we are through."""
        schedulers = self._node.schedulers
        try:
            try:
                await self._talk_patiently(registration)
            except HostUnknown:
                # It has been started anew since we announced ourselves.
                await self._node.announcements.introduce(self.holding.id)
                if self.over:
                    raise
                await self._talk_patiently(registration)
        except SourceFailed as error:
            # The origin has failed so many others that the scheduler sends nobody there.
            self._trouble = error
            self._callers.close_source()
            if not self.over:
                self.want()
        except DragonflyError as error:
            if self.over:
                self._repeat()
            else:
                if schedulers:  # a daemon that has none at all has lost none
                    logger.info("scheduler lost", task=self.holding.id, why=str(error))
                    if isinstance(error, Unavailable) and policy_of(self.holding.kind).from_source:
                        self._tasks.start(self._reappear(registration), "talk after the talk")
                self._trouble = error
        finally:
            self._talk = None
            self.on(t.SchedulerLost())  # whatever ended the talk, the download must go on

    def _repeat(self) -> None:
        """What was said last may not have been heard."""
        if self.told_finished and not self.holding.gone:
            self._node.announcements.announce(self.holding)

    async def _reappear(self, registration: Registration) -> None:
        """Have a scheduler that is there again know that the content is on its way to this node.

        It would send others to the origin. We go on without its advice; when we are through, what
        is here is announced.
        """
        request = replace(registration.request, need_back_to_source=True)
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            words = replace(registration, peer_id=self._node.new_peer_id(), request=request)
            with contextlib.suppress(DragonflyError):  # it is away still, or again
                talk = self._node.announcements.talk(words)
                await talk.run(functools.partial(_say_it_comes, talk))

    async def _talk_patiently(self, registration: Registration) -> None:
        """Talk as soon as the scheduler has time for it: the origin has no more of that."""
        talk = self._node.announcements.talk
        await while_busy(lambda: self._talk_once(talk(registration)), needless=lambda: self.over)

    async def _talk_once(self, talk: Conversation) -> None:
        self._talk = talk
        if self.over:
            talk.finish()
        try:
            await talk.run(self._on_answer)
        except Busy as error:
            if not self._answered:
                raise
            raise SchedulerLost(str(error)) from error  # this peer is known there by now

    def _on_answer(self, answer: Answer) -> None:
        self._answered = True
        match answer:
            case announce.CandidateParents(candidates):
                for candidate in candidates:
                    self._fetcher.candidates[candidate.peer_id] = candidate
                self.on(t.Scheduled({c.peer_id: c.host.weight for c in candidates}))
                self._watch_weights()
            case announce.NeedBackToSource():
                self.on(t.ToldBackToSource())
                key, now = (self.holding.kind, self.holding.id), self._node.stores.now()
                for parent in self._node.suspects.accused(key, now):
                    self._tell(announce.PieceFailed(0, parent))
            case announce.EmptyTask():
                self.on(t.ToldEmpty())

    def _watch_weights(self) -> None:
        """Hear what parents can give, where there is a choice to make that is not made yet."""
        candidates = self._fetcher.candidates
        if self.over or len(candidates) < 2 or not self._transfer.has_backlog:
            return
        for name in candidates:
            self._listen_to(name)

    def _listen_to(self, name: str) -> None:
        """Hear from a parent's host what it can give, and that it lives."""
        if name not in self._unwatch:
            tell = functools.partial(self._weighed, name)
            self._unwatch[name] = self._node.weights.watch(self._fetcher.candidates[name], tell)

    def _weighed(self, name: str, weight: float | None) -> None:
        if weight is None:
            self._fetcher.pace.is_mute(name)
            return
        self._fetcher.pace.host_heard(name, asyncio.get_running_loop().time())
        self.on(t.Weighed(name, weight))

    async def _watch(self) -> None:
        """Look now and then whether pieces come, and whether parents live."""
        loop, pace = asyncio.get_running_loop(), self._fetcher.pace
        while True:
            await asyncio.sleep(TICK)
            waiting = self._transfer.waits_for()
            look = pace.look(loop.time(), self._fetcher.fetches(), waiting)
            for name in pace.silent(loop.time()):
                self._listen_to(name)
            if look.quiet and look.quiet != self._quiet:
                logger.info("parents say nothing", task=self.holding.id, parents=sorted(look.quiet))
            self._quiet = look.quiet
            something = bool(look.left or look.quiet)
            if something or self._saw_something:
                self._saw_something = something
                self.on(look)
