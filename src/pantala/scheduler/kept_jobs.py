"""Jobs that outlive their scheduler: written down, carried on, and removed in the end.

    a job is begun      its row, its plan and its order are written; a lease says whose it is
    pairs are over      written behind, many at a time; the lease is renewed
    the scheduler dies  the lease ends; whoever finds a job without one carries it on
    the job is over     its order is wiped; row, plan and outcomes stay for a day

Where that place is away, jobs go on in memory, and end with their scheduler.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from google.protobuf.message import Message

from pantala.core.sched.jobs import (
    JobOrder,
    JobPlan,
    JobRow,
    Outcome,
    outcome_of,
    outdated,
    plan_of,
)
from pantala.core.sched.preheat import Ledger, Pair
from pantala.errors import Busy, DragonflyError, FeatureOff, Forbidden, Unavailable
from pantala.model.announce import HostFacts

from .job import Job
from .orders import Order, Planned, form_of, kept_order
from .preheating import Preheating
from .records.store import RecordStore

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds that a lease lasts, and after which it is taken anew: a scheduler that was killed and is
#: started anew has to wait for the end of its own, too.
_LEASE: Final = 10.0
_RENEW: Final = 3.0

#: Seconds between two turns, and between two looks for jobs that nobody carries out.
_TURN: Final = 1.0
_LOOK: Final = 3.0

#: Outcomes that are written at once.
_BATCH: Final = 2000

#: Seconds for registries to say once more how to get at images, when a job is carried on. No lease
#: is renewed meanwhile.
_FRESH: Final = 4.0

#: What is asked of the rest: whether a job may still lead where it leads, and new requests.
Check = Callable[[Order], Awaitable[object]]
Renew = Callable[[Order], Awaitable[Sequence[Planned]]]


@dataclass(slots=True)
class _Kept:
    """A job that is carried out here."""

    job: Job
    renewed: float
    unsaved: list[Outcome] = field(default_factory=list)


class KeptJobs:
    """All jobs that are written down.

    Args:
        store: Where.
        preheating: Carries them out.
        durable: Whether any are to be.
        check: Raises Forbidden if a job must not be carried on.
        renew: What an order asks for, as its registries say now.
    """

    def __init__(
        self,
        store: RecordStore,
        preheating: Preheating,
        *,
        durable: bool,
        check: Check,
        renew: Renew,
    ) -> None:
        self._store = store
        self._preheating = preheating
        self._durable = durable
        self._check = check
        self._renew = renew
        self._mine: dict[str, _Kept] = {}
        #: Those that are just being written down, and may be there before we hear of it.
        self._coming: set[str] = set()
        self._looked = -math.inf
        self._trouble = ""
        #: The trouble is with writing: that something can be read is no end of it.
        self._unwritten = False

    async def rest(self) -> None:
        """Return when a turn is due."""
        await asyncio.sleep(_TURN)

    async def keep(self, job: Job, request: Message) -> None:
        """Write a job down that is about to begin. If that cannot be done, it is not durable."""
        if not self._durable:
            return
        own = job.order.wanted.request_header
        requests = tuple(
            (
                task.request.url,
                {} if task.request.request_header == own else task.request.request_header,
            )
            for task in job.tasks
        )
        order = JobOrder(form_of(request), request.SerializeToString(), requests)
        tasks = [(task.url, task.task_id) for task in job.tasks]
        self._coming.add(job.id)
        try:
            # Of many pairs it takes a while, and nothing changes them yet.
            plan = await asyncio.to_thread(plan_of, tasks, job.ledger.pairs)
            await self._store.lease(_lease(job.id), _LEASE)
            await self._store.jobs.put(job.row, plan, order)
        except (Unavailable, FeatureOff) as error:
            self._unwritten = True
            self._away(error)
            return
        finally:
            self._coming.discard(job.id)
        self._written()
        self._have(job, time.monotonic())

    async def rows(self) -> list[JobRow]:
        """All that are written down. Raises Unavailable, FeatureOff."""
        return await self._store.jobs.rows() if self._durable else []

    async def shown(self, job_id: str) -> tuple[JobPlan | None, list[Outcome]]:
        """What one that is written down consists of, and what came of it. Raises likewise."""
        return await self._store.jobs.plan(job_id), await self._store.jobs.outcomes(job_id)

    async def turn(self) -> None:
        """Write what is new, and look for jobs that nobody carries out."""
        try:
            for kept in list(self._mine.values()):
                await self._save(kept)
            if self._durable and time.monotonic() >= self._looked + _LOOK:
                self._looked = time.monotonic()
                await self._look()
        except (Unavailable, FeatureOff) as error:
            self._away(error)
        else:
            if not self._unwritten:
                self._written()

    async def close(self) -> None:
        """Write the last, and let others carry on what is not over."""
        with suppress(Unavailable, FeatureOff):
            for kept in list(self._mine.values()):
                await self._save(kept)

    # -- writing

    async def _save(self, kept: _Kept) -> None:
        job = kept.job
        more = True
        while more:
            kept.unsaved += map(outcome_of, job.ledger.take_over(_BATCH - len(kept.unsaved)))
            more = len(kept.unsaved) == _BATCH
            is_last = job.over and not more
            if not await self._hold(kept, anew=is_last):
                return
            if not kept.unsaved and not is_last:
                return
            row = job.row if is_last else replace(job.row, ended_at=None)
            if not await self._store.jobs.save(row, kept.unsaved):
                await self._miss(job)
                return
            kept.unsaved = []
            self._written()
        if not is_last:
            return
        self._mine.pop(job.id, None)
        await self._store.release(_lease(job.id))

    async def _hold(self, kept: _Kept, *, anew: bool) -> bool:
        """Whether the job is still ours. If not, it ends here."""
        now = time.monotonic()
        if now < kept.renewed + _RENEW and not anew:
            return True
        if await self._store.lease(_lease(kept.job.id), _LEASE):
            kept.renewed = now
            return True
        self._mine.pop(kept.job.id, None)
        kept.job.interrupt("another scheduler carries it on: this one could not say in time")
        return False

    async def _miss(self, job: Job) -> None:
        """What is written down of a job of ours is over, or gone."""
        rows = await self._store.jobs.rows()
        self._mine.pop(job.id, None)
        if any(row.id == job.id for row in rows):
            job.interrupt("another scheduler has ended it: this one could not say in time")
            return
        job.durable = False
        logger.warning(
            "what was written down of a job is gone; it ends with this scheduler", job=job.id
        )

    def _have(self, job: Job, renewed: float) -> None:
        """From now on a job is ours, and written down."""
        job.durable = True
        self._mine[job.id] = _Kept(job, renewed)

    def _written(self) -> None:
        if self._trouble:
            logger.info("jobs are written down again")
        self._trouble, self._unwritten = "", False

    def _away(self, error: DragonflyError) -> None:
        if not self._trouble:
            logger.warning(
                "jobs cannot be written down; those under way end with this scheduler",
                why=str(error),
            )
        self._trouble = str(error)

    # -- carrying on

    async def _look(self) -> None:
        rows = await self._store.jobs.rows()
        if gone := outdated(rows, time.time()):
            await self._store.jobs.remove(gone)
        for row in rows:
            if row.ended_at is not None or row.id in self._mine or row.id in self._coming:
                continue
            here = self._preheating.jobs.get(row.id)
            if here is not None and not here.interrupted:
                await self._adopt(here)
                continue
            try:
                self._preheating.check_room(0)
            except Busy:
                return  # others may have room; and a job has time
            if await self._store.lease(_lease(row.id), _LEASE):
                await self._carry_on(row)
                self._looked = -math.inf  # for more of them, when what is under way has its leases
                return

    async def _adopt(self, job: Job) -> None:
        """A job that was begun here is written down, though the answer to that was lost."""
        if await self._store.lease(_lease(job.id), _LEASE):
            self._have(job, time.monotonic())
        else:
            job.interrupt("another scheduler has found it, and carries it on")

    async def _carry_on(self, row: JobRow) -> None:
        """Begin where somebody else has stopped. Raises Unavailable, FeatureOff."""
        # As it is now: who had it may have ended it while we looked.
        now = next((one for one in await self._store.jobs.rows() if one.id == row.id), None)
        if now is None or now.ended_at is not None:
            await self._store.release(_lease(row.id))
            return
        try:
            job = await self._read(now)
        except (LookupError, TypeError, ValueError) as error:
            await self._give_up(now, (), f"what is written down of it makes no sense: {error!r}")
            return
        if job is not None:
            logger.info("job carried on", job=job.id, pending=len(job.pending))
            self._have(job, -math.inf)  # its lease is from before all this
            self._preheating.begin(job)

    async def _read(self, row: JobRow) -> Job | None:
        """The job of a row, as far as it was; None: it is given up.

        Raises:
            Unavailable: It cannot be read now; or FeatureOff.
            ValueError: It makes no sense; or LookupError, or TypeError.
        """
        jobs = self._store.jobs
        plan, order = await jobs.plan(row.id), await jobs.order(row.id)
        if plan is None or order is None:
            raise LookupError("a part of it is gone")
        outcomes = await jobs.outcomes(row.id)
        pairs = await asyncio.to_thread(_pairs, plan, outcomes)  # of many it takes a while
        try:
            asked = kept_order(order.form, order.asked)
            tasks = await self._tasks(asked, plan, order)
        except DragonflyError as error:
            over = {outcome.number for outcome in outcomes}
            pending = [pair for pair in pairs if pair.number not in over]
            await self._give_up(row, pending, str(error))
            return None
        job = Job(asked, tasks, pairs, row)
        for outcome in outcomes:
            job.ledger.restore(job.ledger.pairs[outcome.number], outcome.state, outcome.reason)
        return job

    async def _tasks(self, asked: Order, plan: JobPlan, order: JobOrder) -> list[Planned]:
        """The tasks of a plan, with what registries want now; else with what they wanted then.

        Raises:
            DragonflyError: It must not be carried on.
        """
        fresh: dict[str, Planned] = {}
        try:
            async with asyncio.timeout(_FRESH):
                await self._check(asked)
                fresh = {task.task_id: task for task in await self._renew(asked)}
        except Forbidden:
            raise
        except (DragonflyError, TimeoutError) as error:
            logger.info("registries are not asked anew", why=str(error) or "no answer in time")
        wanted = asked.wanted
        return [
            fresh.get(task_id)
            or Planned(
                replace(wanted, url=url, request_header=headers or wanted.request_header), task_id
            )
            for (url, headers), (_, task_id) in zip(order.requests, plan.tasks, strict=True)
        ]

    async def _give_up(self, row: JobRow, pending: Sequence[Pair], why: str) -> None:
        """End a job that cannot be carried on; each pair that is pending says why."""
        failed = list(map(outcome_of, Ledger(pending).give_up(why)))
        logger.warning("job cannot be carried on", job=row.id, pending=len(failed), why=why)
        ended = replace(row, failed=row.failed + len(failed), ended_at=time.time())
        await self._store.jobs.save(ended, failed)
        await self._store.release(_lease(row.id))


def _lease(job_id: str) -> str:
    return f"job {job_id}"


def _pairs(plan: JobPlan, outcomes: Sequence[Outcome]) -> list[Pair]:
    """The pairs of a plan, with what is known of those that are over but their state."""
    hosts = [HostFacts(host.id, host.hostname, host.ip, 0) for host in plan.hosts]
    pairs = [Pair(number, task, hosts[host]) for number, (task, host) in enumerate(plan.pairs)]
    for outcome in outcomes:
        pair, host = pairs[outcome.number], outcome.host
        pair.host = HostFacts(host.id, host.hostname, host.ip, 0)
        pair.received, pair.content_length = outcome.received, outcome.content_length
    return pairs
