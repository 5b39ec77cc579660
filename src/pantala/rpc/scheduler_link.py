"""The schedulers of a daemon: who is there, and whose a task is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import structlog

from pantala.background import Loops
from pantala.core.absences import RECALL, RETURN, Absences
from pantala.core.beliefs import Beliefs
from pantala.errors import (
    Busy,
    DragonflyError,
    NotFound,
    OriginError,
    SchedulerLost,
    TaskNotFound,
)
from pantala.model.announce import Registration
from pantala.model.growth import Growth
from pantala.model.task import Description, DownloadRequest, ImportedTask, Kind
from pantala.pb import common_pb2
from pantala.ports import KnownTask

from .announce_stream import GrpcAnnounceStream
from .describing import GrpcTurn, question
from .dialects import dialect_of
from .import_calls import imported_task
from .patience import while_busy
from .scheduler import UNARY_LIMIT, Scheduler

logger = structlog.get_logger(__name__)

_STAT_LIMIT: Final = 3.0  # somebody waits for this one; without an answer the origin is asked


class Schedulers:
    """All schedulers of this daemon.

    Args:
        host_id: Ours.
        beliefs: Who of them is there, and what each has been told.
        schedule_timeout: Seconds that a scheduler may think at most.
        loops: Where the watches on connections run. None: on their own.
    """

    def __init__(
        self,
        host_id: str,
        beliefs: Beliefs,
        *,
        schedule_timeout: float,
        loops: Loops | None = None,
    ) -> None:
        self._beliefs = beliefs
        self._absences = Absences()
        #: One is back.
        self._return = asyncio.Event()
        self._loops = loops or Loops()
        self._host_id = host_id
        self._schedule_timeout = schedule_timeout
        self._secret = secrets.token_urlsafe(32)
        self._all: dict[str, Scheduler] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        #: Called when a scheduler went away: it is to be announced to until it is back.
        self.on_trouble: Callable[[], None] = lambda: None
        #: Called when one may be announced to that was away.
        self.on_return: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Scheduler]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    async def set_addresses(self, addresses: Iterable[str]) -> None:
        """Announce to these from now on. New ones are used once they have been announced to."""
        wanted = set(addresses)
        self._beliefs.listed(wanted)
        self._absences.listed(wanted)
        for address in wanted - self._all.keys():
            scheduler = self._all[address] = Scheduler(
                address, self._secret, self._lost, self._there
            )
            self._watches[address] = self._loops.keep(scheduler.watch, "watch a scheduler")
        for address in self._all.keys() - wanted:
            watching = self._watches.pop(address, None)  # None: we were broken off below, once
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            await self._all.pop(address).close()

    def _lost(self, address: str) -> None:
        if self._is_lost(address):
            self.on_trouble()

    def _is_lost(self, address: str) -> bool:
        """Note that a scheduler does not answer; whether it did until now."""
        lost = self._beliefs.lost(address)
        if lost:
            self._absences.lost(address, asyncio.get_running_loop().time())
        return lost

    def _there(self, address: str) -> None:
        if address not in self._beliefs.available:
            self.on_return()

    async def close(self) -> None:
        """Close all channels."""
        await self.set_addresses(())

    @property
    def addresses(self) -> frozenset[str]:
        """All that we announce to, whether they answer or not."""
        return frozenset(self._all)

    def get(self, address: str) -> Scheduler | None:
        """The scheduler at *address*, if it is one of ours."""
        return self._all.get(address)

    def pick(self, task_id: str) -> Scheduler | None:
        """The scheduler of a task, among those that answer."""
        address = self._beliefs.owner(task_id)
        return None if address is None else self._all[address]

    async def greet(self, address: str, host: common_pb2.Host, interval: float) -> bool:
        """Announce this host to one scheduler; whether it may not know what it was told before.

        Raises:
            DragonflyError: It did not take it.
        """
        scheduler, greeting = self._all.get(address), self._beliefs.greeting(address)
        if scheduler is None or greeting is None:  # the list has changed
            return False
        try:
            if greeting.afresh:
                # Whatever it remembers of this host is from before we were started.
                await scheduler.leave(host.id)
            await scheduler.announce(host, interval)
        except Busy:
            raise  # it is there
        except DragonflyError:
            self._is_lost(address)
            raise
        now = asyncio.get_running_loop().time()
        renewed = self._beliefs.announced(greeting, scheduler.epoch, now)
        if address in self._beliefs.available:
            self._absences.back(address, now, blank=renewed)
            self._return.set()
            self._return.clear()  # those who wait have been woken
        return renewed

    async def ready(self, task_id: str) -> bool:
        """See :class:`~pantala.ports.SchedulerLink`."""
        clock, waited = asyncio.get_running_loop().time, False
        now = clock()
        # One that goes again and again keeps nobody for longer.
        end = now + RETURN + RECALL  # those who take over need less
        while now < end and (pause := self._absences.wait(task_id, self._beliefs.available, now)):
            waited = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, end - now)):
                    await self._return.wait()
            now = clock()
        return waited

    async def stat(self, kind: Kind, task_id: str) -> KnownTask | None:
        """See :class:`~pantala.ports.SchedulerLink`."""
        # Instead of an answer there is only the origin, which all would ask at once.
        task = await self.stat_message(kind, task_id, patience=None)
        if task is None or task.id != task_id or not task.has_available_peer:
            return None
        if not task.content_length and task.piece_count:
            return None
        first = next((p.length for p in task.pieces if p.number == 0), None)
        return KnownTask(task.content_length, task.piece_count, first)

    async def description(
        self,
        request: DownloadRequest,
        task_id: str,
        *,
        origin: bool,
        version: str,
        patience: float | None,
        anew: bool = False,
        on_growth: Callable[[Growth], None] | None = None,
    ) -> Description | GrpcTurn | None:
        """See :class:`~pantala.ports.SchedulerLink`."""
        ask = question(
            self._host_id,
            task_id,
            request,
            origin=origin,
            version=version,
            anew=anew,
            follows=on_growth is not None,
        )
        await self.ready(task_id)
        for is_last in (False, True):
            scheduler = self.pick(task_id)
            if scheduler is None or not scheduler.questions.understood:
                break
            attempt = functools.partial(
                scheduler.questions.ask, ask, patience=patience, on_growth=on_growth
            )
            try:
                return await while_busy(attempt, limit=patience)
            except OriginError:
                raise
            except DragonflyError as error:
                logger.warning("cannot ask the swarm", task=task_id, error=str(error))
                self.on_trouble()
                if is_last or not await self.ready(task_id):  # it went meanwhile
                    break
        return None

    async def stat_message(
        self, kind: Kind, task_id: str, *, patience: float | None = UNARY_LIMIT
    ) -> Any:
        """The scheduler's own words on a task; None when there are none.

        Args:
            kind: Of the task.
            task_id: The task.
            patience: Seconds to try again while the scheduler has too much to do.
        """
        scheduler = self.pick(task_id)
        if scheduler is None:
            return None
        method, request = dialect_of(kind).stat
        message = request(host_id=self._host_id, task_id=task_id)
        try:
            return await scheduler.call(method, message, _STAT_LIMIT, patience=patience)
        except NotFound:
            return None
        except DragonflyError as error:
            logger.warning("cannot ask the swarm", task=task_id, error=str(error))
            self.on_trouble()
            return None

    def require(self, task_id: str) -> Scheduler:
        """The scheduler of a task. Raises SchedulerLost: there is none that answers."""
        scheduler = self.pick(task_id)
        if scheduler is None:
            raise SchedulerLost("no scheduler is available")
        return scheduler

    async def imported(self, kind: Kind, task_id: str) -> ImportedTask:
        """See :class:`~pantala.ports.SchedulerLink`."""
        await self.ready(task_id)
        return imported_task(await self.describe(kind, task_id))

    async def describe(self, kind: Kind, task_id: str) -> Any:
        """The scheduler's own words on a task that was imported.

        Raises:
            TaskNotFound: It knows of none.
            DragonflyError: It does not say.
        """
        method, request = dialect_of(kind).stat
        message = request(host_id=self._host_id, task_id=task_id)
        try:
            return await self.require(task_id).call(method, message, _STAT_LIMIT)
        except NotFound:
            raise TaskNotFound(task_id) from None

    async def delete_host(self, limit: float) -> None:
        """Say goodbye to every scheduler that knows us."""

        async def goodbye(scheduler: Scheduler) -> None:
            with contextlib.suppress(DragonflyError):
                await scheduler.leave(self._host_id, limit)

        await asyncio.gather(*(goodbye(self._all[a]) for a in self._beliefs.available))

    def open_stream(
        self, registration: Registration, address: str | None = None
    ) -> GrpcAnnounceStream:
        """A stream that opens with a registration.

        Args:
            registration: For what.
            address: To whom. None: to the scheduler of the task.

        Raises:
            SchedulerLost: No scheduler is available.
        """
        at = self._beliefs.owner(registration.task_id) if address is None else address
        scheduler = None if at is None else self._all.get(at)
        if scheduler is None:
            raise SchedulerLost("no scheduler is available")
        return GrpcAnnounceStream(scheduler, registration, self._schedule_timeout)
