"""Tells the schedulers who we are, what we hold, and what we hold no longer.

What must be said is decided by :mod:`pantala.core.beliefs`; this carries it out, with two loops.
One announces this host, to all schedulers in a round: at the interval that the settings say, and
soon again while one does not answer. Tasks are shared out anew among those that answered when a
round is over, and when somebody takes long to answer. The other tells what is to be told of tasks,
some to each scheduler at once, as soon as there is anything. What a scheduler does not take is
tried again after the next announcement that it takes, and not sooner: it is away, or has too much
to do.

What is said of tasks, and how: :mod:`.teller`. A download tells on its own stream what it brings;
that stream is opened through here, so that nothing else is said of its task meanwhile.

Tasks that were imported are spoken of otherwise: :mod:`.copies`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from pantala.background import Tasks
from pantala.core.absences import TAKE_OVER
from pantala.core.beliefs import Beliefs
from pantala.core.policy import policy_of
from pantala.errors import DragonflyError
from pantala.model.announce import Registration
from pantala.model.task import Kind
from pantala.pb import common_pb2
from pantala.ports import AnnounceStream
from pantala.rpc.scheduler_link import Schedulers
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.stores import Stores

from .copies import Copies
from .teller import Teller, Words

logger = structlog.get_logger(__name__)

#: Seconds until the next try while some scheduler does not answer; doubled up to the last.
_RETRY: Final = (0.5, 15.0)

#: Seconds for the schedulers to answer before their tasks are shared out among those that did: with
#: the first pause, after which whoever was lost is called, what :mod:`pantala.core.absences` has.
_TAKE_OVER: Final = TAKE_OVER - _RETRY[0]


#: Tasks that are shared out before others have their turn: some ten milliseconds.
_SHARED: Final = 512


class Announcer:
    """Carries out what :class:`~pantala.core.beliefs.Beliefs` decides.

    Args:
        schedulers: Whom to tell.
        beliefs: What they have been told.
        stores: What we hold.
        tasks: Where what is being told is under way.
        host_id: Our id.
        host: Who we are, now.
        new_peer_id: A fresh name for an attempt.
        interval: Seconds between two announcements.
        concurrent_piece_count: What a peer of ours fetches at once.
    """

    def __init__(
        self,
        schedulers: Schedulers,
        beliefs: Beliefs,
        stores: Stores,
        *,
        tasks: Tasks,
        host_id: str,
        host: Callable[[], common_pb2.Host],
        new_peer_id: Callable[[], str],
        interval: float,
        concurrent_piece_count: int,
    ) -> None:
        self._schedulers = schedulers
        self._beliefs = beliefs
        self._host = host
        self._interval = interval
        #: Every scheduler has been tried once.
        self.first_round = asyncio.Event()
        self._soon = asyncio.Event()
        self._back = asyncio.Event()
        self._pause = _RETRY[0]
        self._round = asyncio.Lock()
        self._has_news = asyncio.Event()
        self._teller = Teller(
            schedulers,
            beliefs,
            stores,
            Words(host_id, new_peer_id, concurrent_piece_count),
            tasks=tasks,
            wake=self._has_news.set,
        )
        #: What is said of imported tasks.
        self.copies = Copies(schedulers, stores, host_id)
        schedulers.on_trouble = self._soon.set
        schedulers.on_return = self._came_back

    # -- who we are ----------------------------------------------------------------------------

    async def announce_host(self) -> None:
        """Announce this host to every scheduler, now. Failures are logged."""
        async with self._round:
            host = self._host()
            addresses = self._schedulers.addresses
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(self._announce_to(a, host)) for a in addresses]
                # One that is gone may take ten seconds to show it, and the others take over now.
                late = calls and (await asyncio.wait(calls, timeout=_TAKE_OVER))[1]
                if late:
                    self._share_out()
            self._share_out()

    async def introduce(self, task_id: str) -> None:
        """Announce this host again, now: the scheduler of a task does not know it."""
        address = self._beliefs.owner(task_id)
        if address is not None:
            self._beliefs.forgot(address)
            async with self._round:
                if self._beliefs.is_stranger_to(address):  # nobody else was quicker
                    await self._announce_to(address, self._host())
                    self._share_out()

    async def _announce_to(self, address: str, host: common_pb2.Host) -> None:
        try:
            is_new = await self._schedulers.greet(address, host, self._interval)
        except DragonflyError as error:
            logger.warning("scheduler does not answer", error=str(error))
            return
        if is_new:
            logger.info("announced", scheduler=address)

    def _share_out(self) -> None:
        self._beliefs.settle()
        self._has_news.set()
        self.copies.again()

    async def announce_round(self) -> None:
        """Announce this host, as is to be repeated for ever; :meth:`rest` says when."""
        try:
            await self.announce_host()
        finally:
            self.first_round.set()

    async def rest(self) -> None:
        """Until the next round: soon while somebody does not answer, at once when he is back."""
        if self._beliefs.available == self._schedulers.addresses:
            self._pause, wait = _RETRY[0], self._interval
            self._back.clear()
        else:
            wait, self._pause = self._pause, min(self._pause * 2, _RETRY[1])
        with contextlib.suppress(TimeoutError):
            if not self._back.is_set():  # since somebody was tried in vain
                self._soon.clear()
                async with asyncio.timeout(wait):
                    await self._soon.wait()
                # Whoever went away just now needs a moment to come back.
                async with asyncio.timeout(_RETRY[0]):
                    await self._back.wait()
        self._back.clear()

    def _came_back(self) -> None:
        self._back.set()
        self._soon.set()

    # -- what we hold --------------------------------------------------------------------------

    def announce(self, holding: Holding) -> None:
        """Say what of a task is here, soon."""
        if policy_of(holding.kind).imported:
            self.copies.here(holding)
            return
        self._beliefs.holds((holding.kind, holding.id))
        self._has_news.set()

    def damaged(self, holding: Holding) -> None:
        """Say that less of a task is here than was told, soon."""
        if policy_of(holding.kind).imported:
            self.copies.gone(holding)
            return
        self._beliefs.drops((holding.kind, holding.id))
        self.announce(holding)

    async def announce_now(self, holding: Holding) -> None:
        """Say it, and return when it was heard, or could not be said."""
        self.announce(holding)
        await self.settle(holding.kind, holding.id)

    async def settle(self, kind: Kind, task_id: str) -> None:
        """Return when what is to be told of a task was heard, or could not be said."""
        key = kind, task_id
        if policy_of(kind).imported:
            await self.copies.settle(key)
            return
        await self._teller.settle(key)

    def heard(self, holding: Holding) -> None:
        """What of a task is here was said on the stream that :meth:`open_stream` opened last."""
        if policy_of(holding.kind).imported:
            return
        self._beliefs.knows((holding.kind, holding.id))
        self._has_news.set()

    def withdraw(self, holding: Holding, reason: Reason) -> None:
        """Say that a task is here no longer, soon."""
        logger.info("task left", task=holding.id, kind=holding.kind.name, reason=reason.value)
        if policy_of(holding.kind).imported:
            self.copies.gone(holding)
            return
        self._beliefs.drops((holding.kind, holding.id))
        self._has_news.set()

    def open_stream(self, registration: Registration) -> AnnounceStream:
        """Open the stream of a download to the scheduler of its task.

        It ends with :meth:`heard`, if all was told on it, else with :meth:`announce`.

        Raises:
            SchedulerLost: No scheduler is available.
        """
        stream = self._schedulers.open_stream(registration)
        if policy_of(registration.kind).imported:
            return stream
        address = self._beliefs.owner(registration.task_id)
        assert address is not None  # noqa: S101  there is a stream
        self._beliefs.spoke(address, (registration.request.kind, registration.task_id))
        return stream

    async def tell_news(self) -> None:
        """Begin to tell what is to be told, as soon as there is anything.

        Raises:
            Exception: What went wrong with one that was begun before. It is told again after the
                next announcement, and keeps no other untold.
        """
        await self._has_news.wait()
        self._has_news.clear()
        if self._beliefs.share(_SHARED):
            self._has_news.set()
        self._teller.begin()
        self._teller.complain()
        await asyncio.sleep(0)  # there may be more to share out
