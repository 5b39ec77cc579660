"""The announce stream of one flight: how it begins, what is told, and what ends it.

It may end at any time: the scheduler dies, is started anew, or has too much to do. The flight must
neither fail nor wait because of that. So whatever ends it, its listener is told that nobody will
answer any more, and goes on with what it has:

- The scheduler has no time: the stream is opened anew after a pause, as long as somebody waits.
- It does not know this host, for it was started anew: the host is announced, and a stream opened
  anew, once.
- It sends nobody to the origin any more: nor do we go there on our own.
- It is gone before its first word: it is waited for, for some seconds, and a stream opened anew.
- It is gone: the flight goes on alone. When a scheduler is there again, or another has taken over,
  it is told that the content is on its way here, for else it would send others to the origin. Only
  when nobody is left whom the lost one had named, is it asked for others, on a stream of its own.
- It is gone when all was said: perhaps the last word was not heard, so what is here is announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import replace
from typing import Final, Protocol

import structlog

from pantala.background import Tasks
from pantala.core.policy import policy_of
from pantala.daemon.config import DaemonConfig
from pantala.daemon.node import Node, new_peer_id
from pantala.errors import (
    Blame,
    Busy,
    DragonflyError,
    HostUnknown,
    OriginError,
    SchedulerLost,
    SourceChanged,
    Unavailable,
)
from pantala.model import announce
from pantala.model.announce import Answer, Registration, Report
from pantala.model.pieces import piece_count
from pantala.model.task import DownloadRequest
from pantala.ports import AnnounceStream, Digests
from pantala.rpc.patience import while_busy
from pantala.storage.holding import Holding

from .callers import Callers

logger = structlog.get_logger(__name__)

#: Seconds between two looks whether a scheduler is there again.
_LOOK_AGAIN: Final = 1.0

#: What is told with the last thing that went wrong.
_EXPLAINED: Final = (announce.Reschedule, announce.Failed, announce.SourceStarted)


def introduction(
    config: DaemonConfig,
    callers: Callers,
    holding: Holding,
    request: DownloadRequest,
    peer_id: str,
    *,
    insists: bool = False,
    version: str = "",
) -> Registration | None:
    """How to introduce ourselves; None for content so small that it is not worth it.

    Args:
        config: Who we are, and how much we fetch at once.
        callers: On behalf of whoever may do most of them; the others' limits are kept here.
        holding: The content, whose length is known.
        request: What counts where no caller is left who may have the origin asked.
        peer_id: Under which name.
        insists: On the origin, as far as anybody may ask it.
        version: Nothing but this will do; ``""``: whatever others have.
    """
    sponsor = callers.sponsor()
    request = sponsor or request
    if insists and sponsor is not None:
        request = replace(request, need_back_to_source=True)
    # Of several parts the largest: to promise what nobody here wants would be a lie.
    part = max((d.part for d in callers.active()), key=lambda part: part.length)
    if 0 < part.length <= config.download.bypass_sizes[holding.kind] and sponsor:
        return None
    headers = {k: v for k, v in request.request_header.items() if k.lower() != "range"}
    partial = part.length < holding.total
    length = holding.record.piece_length or 1
    return Registration(
        host_id=config.host_id,
        task_id=holding.id,
        peer_id=peer_id,
        request=replace(request, range=part if partial else None, request_header=headers),
        content_length=holding.total,
        piece_length=length,
        piece_count=piece_count(holding.total, length),
        concurrent_piece_count=config.download.concurrent_piece_count,
        version=version,
    )


def source_piece_failed(error: DragonflyError) -> announce.SourcePieceFailed:
    """What the scheduler is told of *error*."""
    if isinstance(error, OriginError):
        return announce.SourcePieceFailed(error.message, by_origin=True, status_code=error.status)
    return announce.SourcePieceFailed(str(error))


def _say_it_comes(stream: AnnounceStream, answer: Answer) -> None:
    if isinstance(answer, announce.NeedBackToSource):
        stream.tell(announce.SourceStarted())


class Listener(Protocol):
    """The flight, as its announce stream sees it."""

    @property
    def over(self) -> bool:
        """It needs no answers any more."""

    @property
    def digests(self) -> Digests:
        """What it knows of its pieces."""

    def on_answer(self, answer: Answer) -> None:
        """The scheduler has said something."""

    def on_source_closed(self) -> None:
        """The origin has failed so many others that the scheduler sends nobody there."""

    def on_silence(self, *, again: bool) -> None:
        """Nobody will answer any more; with *again* for now."""


class Announcing:
    """See the module.

    Args:
        node: What all rooms share.
        holding: What is announced.
        listener: Who hears what is answered.
        tasks: Those of the flight; what goes on beside it ends with it.
    """

    def __init__(self, node: Node, holding: Holding, listener: Listener, tasks: Tasks) -> None:
        self._node = node
        self._holding = holding
        self._listener = listener
        self._tasks = tasks
        self._stream: AnnounceStream | None = None
        self._answered = False
        #: Has a scheduler that is there again know that the content is on its way here.
        self._reappearing: asyncio.Task[None] | None = None
        #: The last thing that went wrong, here or there: it explains what is told next.
        self.trouble: DragonflyError | None = None
        #: The scheduler was told that all we registered for is here.
        self.told_finished = False

    def tell(self, what: Report) -> None:
        """Tell the scheduler, if there is one; with what went wrong, where that explains it."""
        if self._stream is not None:
            if isinstance(what, _EXPLAINED) and self.trouble is not None:
                what = replace(what, description=str(self.trouble))
            self._stream.tell(what)
            self.told_finished = isinstance(what, announce.Finished | announce.SourceFinished)

    def tell_failed(self, error: BaseException, *, at_source: bool) -> None:
        """The flight has failed with *error*, perhaps while it was at the origin."""
        if self._stream is not None:
            # After a few failures of an origin nobody is sent there: this node's own trouble, and
            # credentials that it refused, must not count as such.
            blamed = isinstance(error, OriginError) and error.blame is Blame.ORIGIN
            blamed = blamed and not isinstance(error, SourceChanged)
            why = str(error) if isinstance(error, DragonflyError) else ""
            failed = announce.SourceFailed if at_source and blamed else announce.Failed
            self._stream.tell(failed(why))

    async def ask(self) -> None:
        """Ask the scheduler for digests that are lacking, if it can be asked."""
        if self._stream is not None and self._answered:
            await self._stream.ask()

    def finish(self) -> None:
        """Nothing more will be told."""
        if self._stream is not None:
            self._stream.finish()

    async def run(self, registration: Registration) -> None:
        """Tell and hear until the scheduler ends it, or some time after the flight is through.

        May be called again when it has returned.
        """
        schedulers, listener = self._node.schedulers, self._listener
        self._answered, again = False, False
        if self._reappearing is not None:
            self._reappearing.cancel()
        try:
            try:
                await self._run_patiently(registration)
            except HostUnknown:
                # It has been started anew since we announced ourselves.
                await self._node.announcements.introduce(self._holding.id)
                if listener.over:
                    raise
                await self._run_patiently(registration)
        except OriginError as error:
            self.trouble = error
            listener.on_source_closed()
        except DragonflyError as error:
            if listener.over:
                self._repeat()
            else:
                if schedulers:  # a daemon that has none at all has lost none
                    logger.info("scheduler lost", task=self._holding.id, why=str(error))
                    again = isinstance(error, Unavailable)
                    if again and policy_of(self._holding.kind).from_source:
                        self._reappearing = self._tasks.start(
                            self._reappear(registration), "tell that it comes"
                        )
                self.trouble = error
        finally:
            self._stream = None
            listener.on_silence(again=again)

    def _repeat(self) -> None:
        """What was said last may not have been heard."""
        if self.told_finished and not self._holding.gone:
            self._node.announcements.announce(self._holding)

    async def _reappear(self, registration: Registration) -> None:
        """Have a scheduler that is there again know that the content is on its way to this node.

        It would send others to the origin. We go on without its advice; when we are through, what
        is here is announced.
        """
        request = replace(registration.request, need_back_to_source=True)
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            words = replace(registration, peer_id=new_peer_id(self._node.config), request=request)
            with contextlib.suppress(DragonflyError):  # it is away still, or again
                stream = self._node.announcements.open_stream(words)
                await stream.run(functools.partial(_say_it_comes, stream))

    async def _run_patiently(self, registration: Registration) -> None:
        """Do so as soon as the scheduler has time for it: the origin has no more of that.

        If it goes before its first word, it is perhaps back in a moment.
        """
        ready = functools.partial(self._node.schedulers.ready, registration.task_id)
        run = functools.partial(
            while_busy,
            functools.partial(self._run_once, registration),
            needless=lambda: self._listener.over,
        )
        await ready()
        try:
            await run()
        except Unavailable:
            if self._answered or self._listener.over or not await ready():
                raise
            await run()

    async def _run_once(self, registration: Registration) -> None:
        stream = self._stream = self._node.announcements.open_stream(registration)
        if self._listener.over:
            stream.finish()
        try:
            await stream.run(self._on_answer, self._listener.digests)
        except Busy as error:
            if not self._answered:
                raise
            raise SchedulerLost(str(error)) from error  # this peer is known there by now

    def _on_answer(self, answer: Answer) -> None:
        self._answered = True
        self._listener.on_answer(answer)
