"""Tells the schedulers who we are, what we hold, and what we hold no longer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from pantala.errors import DragonflyError, NotFound
from pantala.model import announce
from pantala.model.announce import Answer, Registration
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2
from pantala.ports import Conversation
from pantala.rpc.scheduler_link import Scheduler, Schedulers, owner
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.stores import Stores

logger = structlog.get_logger(__name__)

#: Seconds until the next try while some scheduler does not answer; doubled up to the last.
_RETRY: Final = (0.5, 15.0)

#: Parts of one task that are spoken of, the longest first.
_MAX_PARTS: Final = 16

#: Tasks announced or withdrawn at once. A full cache may have thousands to speak of.
_AT_ONCE: Final = 16


class Announcer:
    """See the module.

    Args:
        schedulers: Whom to tell.
        stores: What we hold.
        host_id: Our id.
        host: Who we are, now.
        new_peer_id: A fresh name for an attempt.
        interval: Seconds between two announcements.
        concurrent_piece_count: What a peer of ours fetches at once.
    """

    def __init__(
        self,
        schedulers: Schedulers,
        stores: Stores,
        *,
        host_id: str,
        host: Callable[[], common_pb2.Host],
        new_peer_id: Callable[[], str],
        interval: float,
        concurrent_piece_count: int,
    ) -> None:
        self._schedulers = schedulers
        self._stores = stores
        self._host_id = host_id
        self._host = host
        self._new_peer_id = new_peer_id
        self._interval = interval
        self._concurrent_piece_count = concurrent_piece_count
        #: Schedulers that do not know what is held here.
        self._unaware: set[str] = set()
        #: Those among which the tasks were shared out when last they were spoken of.
        self._known_to: frozenset[str] = frozenset()
        #: Every scheduler has been tried once.
        self.first_round = asyncio.Event()
        self._soon = asyncio.Event()
        self._pause = _RETRY[0]
        self._round = asyncio.Lock()
        #: Tasks to speak of, in the order of what happened; True: held, False: no longer.
        self._news: OrderedDict[tuple[Kind, str], bool] = OrderedDict()
        self._has_news = asyncio.Event()
        #: News that a bug, or this machine's trouble, kept from being told.
        self._untold: dict[tuple[Kind, str], bool] = {}
        schedulers.on_trouble = self._soon.set
        schedulers.on_unknown = self.announce_host

    # -- who we are ----------------------------------------------------------------------------

    async def announce_host(self) -> None:
        """Announce this host to every scheduler, now. Failures are logged."""
        async with self._round:
            host = self._host()
            await asyncio.gather(*(self._announce_to(s, host) for s in self._schedulers))
            self._announce_where_unknown()
            untold, self._untold = self._untold, {}
            for key, held in untold.items():
                if key not in self._news:
                    self._note(*key, held=held)

    async def _announce_to(self, scheduler: Scheduler, host: common_pb2.Host) -> None:
        try:
            is_new = await scheduler.announce(host, self._interval)
        except DragonflyError as error:
            logger.warning("scheduler does not answer", error=str(error))
            return
        await self._tell_left(scheduler)
        if is_new:
            logger.info("announced", scheduler=scheduler.address)
            self._unaware.add(scheduler.address)

    def _announce_where_unknown(self) -> None:
        """Speak of all that is held to schedulers that do not know, or that inherit others'."""
        available = self._schedulers.available
        if not available:
            return
        for holding in self._stores:
            mine = owner(holding.id, available)
            if mine in self._unaware or mine != owner(holding.id, self._known_to):
                self.announce(holding)
        self._unaware, self._known_to = set(), available

    async def announce_round(self) -> None:
        """Announce this host, as is to be repeated for ever; :meth:`rest` says when."""
        try:
            await self.announce_host()
        finally:
            self.first_round.set()

    async def rest(self) -> None:
        """Until the next round: soon while somebody does not answer."""
        if all(s.available for s in self._schedulers):
            self._pause, wait = _RETRY[0], self._interval
        else:
            wait, self._pause = self._pause, min(self._pause * 2, _RETRY[1])
        self._soon.clear()
        try:
            async with asyncio.timeout(wait):
                await self._soon.wait()
            # Whoever went away just now needs a moment to come back.
            await asyncio.sleep(_RETRY[0])
        except TimeoutError:
            pass

    # -- what we hold --------------------------------------------------------------------------

    def announce(self, holding: Holding) -> None:
        """Say what of a task is here, soon."""
        self._note(holding.kind, holding.id, held=True)

    async def announce_now(self, holding: Holding) -> None:
        """Say it, and return when it was heard, or could not be said."""
        await self._tell(holding.kind, holding.id, held=True)

    def withdraw(self, holding: Holding, reason: Reason) -> None:
        """Say that a task is here no longer, soon."""
        logger.info("task left", task=holding.id, kind=holding.kind.name, reason=reason.value)
        self._note(holding.kind, holding.id, held=False)

    def _note(self, kind: Kind, task_id: str, *, held: bool) -> None:
        self._news.pop((kind, task_id), None)
        self._news[kind, task_id] = held
        self._has_news.set()

    async def tell_news(self) -> None:
        """Tell some of what was noted, as soon as there is any.

        Raises:
            Exception: What went wrong with one of them, once all were tried. It is told with the
                next round of announcing.
        """
        await self._has_news.wait()
        batch: list[tuple[tuple[Kind, str], bool]] = []
        while self._news and len(batch) < _AT_ONCE:
            batch.append(self._news.popitem(last=False))
        if not self._news:
            self._has_news.clear()
        telling = (self._tell(*key, held=held) for key, held in batch)
        outcomes = await asyncio.gather(*telling, return_exceptions=True)
        # One task that cannot be told, for whatever reason, must not keep others untold.
        wrong = [(item, o) for item, o in zip(batch, outcomes, strict=True) if o is not None]
        for (key, held), _ in wrong:
            self._untold[key] = held
        if wrong:
            raise wrong[0][1]

    async def _tell(self, kind: Kind, task_id: str, *, held: bool) -> None:
        # What counts is what is true now: it may have come or gone again since.
        holding = self._stores.get(kind, task_id)
        scheduler = self._schedulers.pick(task_id)
        if not held and holding is None:
            for other in self._schedulers:
                if not other.available:
                    other.note_left(kind, task_id)
        try:
            if held and self._schedulers and holding is not None:
                await self._tell_held(holding)
            elif not held and holding is None:
                await self._schedulers.delete_task(kind, task_id)
        except DragonflyError as error:
            logger.info("could not tell what is held", task=task_id, error=str(error))
            if scheduler is not None:  # it did not take it: all of it again, next time
                scheduler.behind = True
                if not held:
                    scheduler.note_left(kind, task_id)

    async def _tell_left(self, scheduler: Scheduler) -> None:
        """Tell one that listens again what it has missed of what left."""
        while scheduler.left:
            (kind, task_id), _ = scheduler.left.popitem(last=False)
            if self._stores.get(kind, task_id) is not None:
                continue
            try:
                await scheduler.delete_task(self._host_id, kind, task_id)
            except NotFound:
                continue
            except DragonflyError as error:
                logger.info("could not tell what left", task=task_id, error=str(error))
                scheduler.note_left(kind, task_id)
                return

    async def _tell_held(self, holding: Holding) -> None:
        """Register as one who fetched what is here from the origin; that makes us a parent."""
        if holding.complete:
            await self._tell_part(holding, None)
            return
        parts = sorted(holding.parts(), key=lambda part: part.length, reverse=True)
        for part in parts[:_MAX_PARTS]:
            if not holding.gone:
                await self._tell_part(holding, part)

    async def _tell_part(self, holding: Holding, part: ByteRange | None) -> None:
        record = holding.record
        registration = Registration(
            host_id=self._host_id,
            task_id=holding.id,
            peer_id=self._new_peer_id(),
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
            concurrent_piece_count=self._concurrent_piece_count,
        )
        talk = self._schedulers.talk(registration)
        await talk.run(lambda answer: _say_we_have_it(talk, answer))


def _say_we_have_it(talk: Conversation, answer: Answer) -> None:
    if isinstance(answer, announce.NeedBackToSource):
        talk.tell(announce.SourceStarted())
        talk.tell(announce.SourceFinished())
    elif isinstance(answer, announce.EmptyTask):
        talk.tell(announce.Started())
        talk.tell(announce.Finished())
    talk.finish()
