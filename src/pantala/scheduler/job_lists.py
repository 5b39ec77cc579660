"""Which jobs there are, and how far each is, as messages of ``pantala.v1.Jobs``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pantala.core.sched.jobs import JobPlan, JobRow, Outcome, PlannedHost
from pantala.core.sched.preheat import Pair
from pantala.errors import FeatureOff, InvalidRequest, NotFound, Unavailable
from pantala.model.announce import HostFacts
from pantala.pb import common_pb2, jobs_pb2
from pantala.rpc.convert import timestamp

from .job import Job
from .kept_jobs import KeptJobs
from .preheating import Preheating

#: Pairs in one message: some 200 bytes each.
PAIRS: Final = 2000


class JobLists:
    """Answers who asks.

    Args:
        preheating: Has the jobs of this scheduler.
        kept: Has those that are written down.
    """

    def __init__(self, preheating: Preheating, kept: KeptJobs) -> None:
        self._preheating = preheating
        self._kept = kept

    async def all_jobs(self) -> jobs_pb2.ListJobsResponse:
        """Of this scheduler, and of others that write down where it looks; the latest first."""
        rows, trouble = await self._rows()
        found = sorted(rows.values(), key=lambda row: row.created_at, reverse=True)
        return jobs_pb2.ListJobsResponse(jobs=map(self._info, found), trouble=trouble)

    async def one(self, job_id: str) -> AsyncGenerator[jobs_pb2.ShowJobResponse, None]:
        """A job, its plan, and all its pairs.

        Raises:
            InvalidRequest: No id, or enough of none.
            NotFound: There is no such job.
            Unavailable: It may be written down, which cannot be read now.
        """
        row = await self._find(job_id)
        yield jobs_pb2.ShowJobResponse(job=self._info(row))
        job = self._here(row.id)
        if job is not None:
            yield jobs_pb2.ShowJobResponse(plan=plan_message(job))
            pairs: Iterator[jobs_pb2.PreheatPair] = map(pair_message, job.ledger.pairs)
        else:
            plan, outcomes = await self._kept.shown(row.id)
            if plan is None:
                raise NotFound(f"job {row.id} was removed just now")
            yield jobs_pb2.ShowJobResponse(plan=_plan_message(row.id, plan.tasks, len(plan.pairs)))
            pairs = _kept_pairs(plan, outcomes)
        # Made as they are sent: of all of them, the scheduler would do nothing else for seconds.
        while some := list(islice(pairs, PAIRS)):
            yield jobs_pb2.ShowJobResponse(news=jobs_pb2.PreheatNews(pairs=some))

    def _here(self, job_id: str) -> Job | None:
        """The job, if this scheduler knows best how far it is."""
        job = self._preheating.jobs.get(job_id)
        return None if job is None or job.interrupted else job

    async def _rows(self) -> tuple[dict[str, JobRow], str]:
        """All jobs by their ids, and why there may be more."""
        rows, trouble = dict[str, JobRow](), ""
        try:
            rows = {row.id: row for row in await self._kept.rows()}
        except (Unavailable, FeatureOff) as error:
            trouble = str(error)
        rows |= {job_id: job.row for job_id in self._preheating.jobs if (job := self._here(job_id))}
        return rows, trouble

    async def _find(self, job_id: str) -> JobRow:
        if not job_id:
            raise InvalidRequest("id: want that of a job, or enough of its beginning")
        rows, trouble = await self._rows()
        if job_id in rows:
            return rows[job_id]
        found = [row for row in rows.values() if row.id.startswith(job_id)]
        shown = job_id[:50]
        if len(found) > 1:
            raise InvalidRequest(f"{len(found)} jobs begin with {shown!r}: give more of the id")
        if not found and trouble:
            raise Unavailable(f"job {shown!r} is not one of this scheduler, and {trouble}")
        if not found:
            raise NotFound(f"no job {shown!r} is known here")
        return found[0]

    def _info(self, row: JobRow) -> jobs_pb2.JobInfo:
        job = self._preheating.jobs.get(row.id)
        return jobs_pb2.JobInfo(
            id=row.id,
            type=common_pb2.TaskType.ValueType(row.kind),
            scope=row.scope,
            created_at=timestamp(row.created_at),
            ends_at=timestamp(row.ends_at),
            ended_at=None if row.ended_at is None else timestamp(row.ended_at),
            pairs=row.pairs,
            done=row.done,
            failed=row.failed,
            received=row.received,
            durable=job is None or job.durable,
        )


def plan_message(job: Job) -> jobs_pb2.PreheatPlan:
    """What a job of this scheduler consists of."""
    tasks = [(task.url, task.task_id) for task in job.tasks]
    return _plan_message(job.id, tasks, len(job.ledger.pairs), durable=job.durable)


def pair_message(pair: Pair) -> jobs_pb2.PreheatPair:
    """How far a pair is."""
    return jobs_pb2.PreheatPair(
        number=pair.number,
        task=pair.task,
        target=_target(pair.host),
        state=jobs_pb2.PairState.ValueType(pair.state),
        received=pair.received,
        content_length=pair.content_length,
        reason=pair.reason,
    )


def _plan_message(
    job_id: str, tasks: Iterable[tuple[str, str]], pairs: int, *, durable: bool = True
) -> jobs_pb2.PreheatPlan:
    return jobs_pb2.PreheatPlan(
        job_id=job_id,
        tasks=[jobs_pb2.PlannedTask(url=url, task_id=task_id) for url, task_id in tasks],
        pairs=pairs,
        durable=durable,
    )


def _kept_pairs(plan: JobPlan, outcomes: Sequence[Outcome]) -> Iterator[jobs_pb2.PreheatPair]:
    """All pairs of a job that is written down; of those that are not over no more is known."""
    over = {outcome.number: outcome for outcome in outcomes}
    for number, (task, host) in enumerate(plan.pairs):
        outcome = over.get(number)
        if outcome is None:
            yield jobs_pb2.PreheatPair(number=number, task=task, target=_target(plan.hosts[host]))
            continue
        yield jobs_pb2.PreheatPair(
            number=number,
            task=task,
            target=_target(outcome.host),
            state=jobs_pb2.PairState.ValueType(outcome.state),
            received=outcome.received,
            content_length=outcome.content_length,
            reason=outcome.reason,
        )


def _target(host: HostFacts | PlannedHost) -> jobs_pb2.PreheatTarget:
    return jobs_pb2.PreheatTarget(host_id=host.id, hostname=host.hostname, ip=host.ip)
