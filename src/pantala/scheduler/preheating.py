"""Carrying out jobs: hosts are asked to download, and what they tell is written into a ledger.

A job is its plan, and one background task of the scheduler's. What of it outlives that is the
business of :mod:`.kept_jobs`. What is decided, which hosts and what counts as done, is in
:mod:`pantala.core.sched.preheat`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from pantala.background import Tasks
from pantala.core.sched.preheat import Pair, Scope, select
from pantala.core.sched.rules import RULES
from pantala.core.sched.world import World
from pantala.errors import (
    Blame,
    Busy,
    DragonflyError,
    InvalidRequest,
    NoProvider,
    NoRoom,
    OriginError,
    RemoteProtocolError,
    Unavailable,
)
from pantala.model.announce import HostFacts
from pantala.model.task import Kind
from pantala.rpc.convert import duration, put
from pantala.rpc.daemon_dialects import STORED_AS_KEY, daemon_dialect

from .dialects import SCHEDULER_DIALECTS
from .hosts import ask
from .job import Job
from .metrics import Metrics
from .orders import Order, Planned
from .turns import in_turns

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Pairs of one job: a megabyte or two of memory for each ten thousand.
MAX_PAIRS: Final = 200_000

#: Hosts that are asked at once, over all jobs.
_AT_ONCE: Final = 2000

#: Seconds until the first word of a daemon of ours. Nobody waits for it as children wait for a
#: seed, and a machine that gets all its files at once is slow to answer.
_HELLO: Final = 30.0

#: Seconds that a host may take beyond the job's own time: the job itself ends it, in better words.
_GRACE: Final = 5.0

#: Seconds between two looks whether a host is back.
_LOOK: Final = 0.5

#: Jobs that are over of which is remembered what came of them.
_REMEMBERED: Final = 32

#: Lines in the log for pairs that are given up all at once.
_LINES: Final = 20


class Preheating:
    """All jobs.

    Args:
        world: Knows the hosts.
        tasks: Where jobs run.
        metrics: Told what comes of them.
        limit: How many at once.
        own_ip: What hosts are told that asks them, for their logs; None: nothing.
    """

    def __init__(
        self, world: World, tasks: Tasks, metrics: Metrics, *, limit: int, own_ip: str | None
    ) -> None:
        self._world = world
        self._tasks = tasks
        self._metrics = metrics
        self._limit = limit
        self._own_ip = own_ip
        #: Those under way, and the last that are over, by their ids.
        self.jobs: dict[str, Job] = {}
        self._running = 0
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def check_room(self, others: int) -> None:
        """Raise Busy if one more job is too many, beside those and *others* that are not begun."""
        here = self._running + others
        if here >= self._limit:
            raise Busy(f"{here} jobs are under way; try again later, or raise job.limit")

    def prepare(self, order: Order, tasks: Sequence[Planned]) -> Job:
        """A job that is not begun.

        Raises:
            NoProvider: There is no host of its scope.
            InvalidRequest: None is at its addresses; or it is too large.
        """
        return Job(order, tasks, self._pairs(order, tasks))

    def begin(self, job: Job) -> None:
        """Begin a job; it goes on by itself."""
        self._running += 1
        self._metrics.jobs(self._running)
        job.before = job.ledger.summary
        self.jobs[job.id] = job
        logger.info(
            "job",
            job=job.id,
            kind=job.order.wanted.kind.name,
            scope=job.order.selection.scope.value,
            tasks=len(job.tasks),
            pairs=len(job.ledger.pairs),
            over=job.before.done + job.before.failed,
        )
        work = self._tasks.start(self._run(job), f"job {job.id}")
        work.add_done_callback(partial(self._end, job))  # also if it is given up before it begins
        job.run(work)

    def _pairs(self, order: Order, tasks: Sequence[Planned]) -> list[Pair]:
        ours_only = RULES[order.wanted.kind].ours_only
        if order.selection.scope is Scope.SINGLE_SEED:
            if order.selection.ips or order.selection.count or order.selection.percentage:
                raise InvalidRequest(
                    f"ips, count, percentage: {Scope.SINGLE_SEED} has one host for each URL"
                )
            return [self._on_a_seed(n, task, ours_only=ours_only) for n, task in enumerate(tasks)]
        hosts = select(self._world.roster, order.selection, ours_only=ours_only)
        if len(hosts) * len(tasks) > MAX_PAIRS:
            raise InvalidRequest(
                f"{len(tasks)} files on {len(hosts)} hosts: want at most {MAX_PAIRS} pairs in a job"
            )
        return [
            Pair(number * len(hosts) + at, number, host)
            for number in range(len(tasks))
            for at, host in enumerate(hosts)
        ]

    def _on_a_seed(self, number: int, task: Planned, *, ours_only: bool) -> Pair:
        found = self._world.seeds.order_of(task.task_id, time.monotonic(), ours_only=ours_only)
        if not found:
            raise NoProvider(f"no seed{' of ours' if ours_only else ''} is known here")
        first, *others = (seed.facts for seed in found)
        return Pair(number, number, first, others)

    # -- carrying out

    async def _run(self, job: Job) -> None:
        by_task: list[list[Pair]] = [[] for _ in job.tasks]
        for pair in job.ledger.pairs:
            if not pair.is_over:
                by_task[pair.task].append(pair)
        try:
            async with asyncio.timeout(job.left):
                await in_turns(by_task, job.order.tasks_at_once, partial(self._task, job))
        except TimeoutError:
            self._give_up(job, f"not done when the job's {job.order.timeout:g} s were over")

    def _end(self, job: Job, work: asyncio.Task[None]) -> None:
        """Nothing more comes of a job."""
        reason = "the scheduler has ended the job because of a bug; its log has the details"
        if work.cancelled():
            reason = "the job was given up: its caller left, or the scheduler ends"
            if job.durable:
                job.interrupted = job.interrupted or "the scheduler ends"
        if not job.interrupted:
            self._give_up(job, reason)
        job.end()
        self._running -= 1
        self._metrics.jobs(self._running)
        said, before = job.ledger.summary, job.before
        self._metrics.preheated(
            job.order.wanted.kind,
            done=said.done - before.done,
            failed=said.failed - before.failed,
        )
        how = {"interrupted": job.interrupted} if job.interrupted else {}
        logger.info(
            "job ended", job=job.id, done=said.done, failed=said.failed, bytes=said.received, **how
        )
        self._forget_some()

    def _forget_some(self) -> None:
        """Keep the last that are over, for those who ask: not all are written down."""
        over = [job for job in self.jobs.values() if job.over]
        pairs = 0
        for number, job in enumerate(reversed(over)):
            pairs += len(job.ledger.pairs)
            if number >= _REMEMBERED or pairs > MAX_PAIRS:
                del self.jobs[job.id]

    async def _task(self, job: Job, pairs: Sequence[Pair]) -> None:
        await in_turns(pairs, job.order.peers_at_once, partial(self._pair, job))

    async def _pair(self, job: Job, pair: Pair) -> None:
        """One URL on one host, or on the first of several that can be reached."""
        hosts = await self._hosts_of(job, pair)
        for host in hosts:
            async with self._turns:
                try:
                    await self._download(job, pair, host)
                except DragonflyError as error:
                    if type(error) is Unavailable:  # not Busy, nor TimedOut
                        job.lost[host.id] = time.monotonic(), str(error)
                    if host is hosts[-1] or not _may_differ(error):
                        job.ledger.fail(pair, str(error))
                        self._log_failure(job, pair)
                else:
                    job.ledger.finish(pair)
            job.changed.set()
            if pair.is_over:
                return

    async def _hosts_of(self, job: Job, pair: Pair) -> Sequence[HostFacts]:
        """Whom to ask, one after the other; who may just be coming back, once he has."""
        hosts, host_id = self._world.hosts, pair.host.id
        while time.monotonic() < job.patient_until and host_id and host_id not in hosts:  # noqa: ASYNC110  a host that comes back sets no event
            await asyncio.sleep(_LOOK)
        if job.carried_on and job.order.selection.scope is Scope.SINGLE_SEED:
            with suppress(NoProvider):  # the seeds of now, the one that was chosen before first
                task, ours_only = job.tasks[pair.task], RULES[job.order.wanted.kind].ours_only
                found = self._on_a_seed(pair.task, task, ours_only=ours_only)
                seeds = (found.host, *found.others)
                return sorted(seeds, key=lambda seed: seed.id != pair.host.id)
        return pair.host, *pair.others

    async def _download(self, job: Job, pair: Pair, chosen: HostFacts) -> None:
        """Let a host download, and stay until it has finished. Raises DragonflyError."""
        task = job.tasks[pair.task]
        job.ledger.ask(pair, chosen)
        job.changed.set()
        host = self._present(job, chosen, task.request.kind)
        kind = daemon_dialect(task.request.kind)
        dialect = SCHEDULER_DIALECTS[task.request.kind]
        message = dialect.shared.codec.encode_download(task.request)
        part = dialect.shared.codec.layout.of(message)
        part.timeout.CopyFrom(duration(job.left))
        put(part, "output_path", job.order.output_path)
        put(part, "remote_ip", self._own_ip)
        words = 0

        def heard(answer: Any) -> None:
            nonlocal words
            words += 1
            if answer.HasField(kind.started):
                job.ledger.begin(pair, getattr(answer, kind.started).content_length)
            elif answer.HasField("download_piece_finished_response"):
                job.ledger.receive(pair, answer.download_piece_finished_response.piece.length)
            job.changed.set()

        await ask(
            host,
            dialect.download,
            message,
            timeout=job.left + _GRACE,
            stock_hello=self._world.limits.seed_start,
            hello=_HELLO,
            heard=heard,
            ended=_check_place,
        )
        if not words:
            raise RemoteProtocolError(f"host {host.id} says that it is done, and nothing of what")

    def _present(self, job: Job, chosen: HostFacts, kind: Kind) -> HostFacts:
        """The host as it is now.

        Raises:
            NoProvider: It is not here, or must not be asked.
            Unavailable: It could not be reached, and has not been heard of since.
        """
        if not chosen.id:
            raise NoProvider(f"no host of that scope is known at {chosen.ip}")
        known = self._world.hosts.get(chosen.id)
        if known is None:
            raise NoProvider(f"host {chosen.id} is not here any more")
        if RULES[kind].ours_only and not known.facts.is_ours:
            raise NoProvider(f"host {chosen.id} is not pantala: a {kind.name} request would end it")
        at, why = job.lost.get(chosen.id, (-math.inf, ""))
        if known.heard_at <= at:
            raise Unavailable(why)
        return known.facts

    def _give_up(self, job: Job, reason: str) -> None:
        """All that is not over has failed. Of many the log has some: they are told of at once."""
        left = job.ledger.give_up(reason)
        for pair in left[:_LINES]:
            self._log_failure(job, pair)
        if len(left) > _LINES:
            logger.info("not preheated either", job=job.id, pairs=len(left) - _LINES, why=reason)

    def _log_failure(self, job: Job, pair: Pair) -> None:
        url = job.tasks[pair.task].url
        host = pair.host.id or pair.host.ip
        logger.info("not preheated", job=job.id, url=url, host=host, why=pair.reason)


def _check_place(trailing: Mapping[str, str | bytes]) -> None:
    """Whether the content is where it was wanted."""
    stored_as = trailing.get(STORED_AS_KEY)
    if stored_as is not None:
        raise NoProvider(
            f"no room in memory: it is there as a {stored_as!s}, on disk (storage.cacheOverflow)"
        )


def _may_differ(error: DragonflyError) -> bool:
    """Whether another seed may do what one has failed to do."""
    if isinstance(error, OriginError):
        return error.blame is Blame.LOCAL
    return isinstance(error, Unavailable | NoRoom)
