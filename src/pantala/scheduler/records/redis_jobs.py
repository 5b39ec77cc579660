"""Jobs in Redis, in keys of ours that Dragonfly's scheduler has not.

    P = scheduler:scheduler-clusters:{cluster}:pantala-jobs

    P                 set     ids of all jobs
    P:{job}           hash    how far it is
    P:{job}:plan      string
    P:{job}:order     string  with all that is secret, until the job is over
    P:{job}:pairs     hash    what came of each pair that is over

All keys of a job end a while after it by themselves, should nobody remove them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pantala.core.sched.jobs import KEPT, JobOrder, JobPlan, JobRow, Outcome
from pantala.model.task import Kind

from .job_layout import order_from, order_text, outcome_from, outcome_text, plan_from, plan_text
from .redis_link import RedisLink

#: Seconds after its time for which a job may still be carried on, and be wiped.
_LATE: Final = 3600.0

#: Outcomes in one call: a script's arguments lie on a stack.
_BATCH: Final = 1000

# job, its pairs, its order -> when it was over or nothing, how many strings describe it, which are
#    there in the last call, field, value, ..., number, outcome, ...
# What is over stays so, whoever comes late; it may be said again.
_SAVE: Final = """
local ended = redis.call('HGET', KEYS[1], 'ended_at')
if not ended or (ended ~= '' and ended ~= ARGV[1]) then return 0 end
local last = 2 + ARGV[2]
if #ARGV > last then
  redis.call('HSET', KEYS[2], unpack(ARGV, last + 1))
  redis.call('EXPIRE', KEYS[2], redis.call('TTL', KEYS[1]))
end
if last > 2 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3, last))
  if ARGV[1] ~= '' then redis.call('DEL', KEYS[3]) end
end
return 1
"""


class RedisJobs:
    """A :class:`.store.JobStore`.

    Args:
        link: To which Redis.
        cluster: Schedulers with the same number share what they know.
        clock: Unix time.
    """

    def __init__(self, link: RedisLink, cluster: int, clock: Callable[[], float]) -> None:
        self._link = link
        self._clock = clock
        self._all = f"scheduler:scheduler-clusters:{cluster}:pantala-jobs"
        self._save = link.redis.register_script(_SAVE)

    async def put(self, row: JobRow, plan: JobPlan, order: JobOrder) -> None:
        """See :class:`.store.JobStore`."""
        key = self._key(row.id)
        left = max(0.0, row.ends_at - self._clock()) + _LATE
        async with self._link.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, mapping=_fields(row))
            pipeline.expire(key, round(left + KEPT))
            text = await asyncio.to_thread(plan_text, plan)  # megabytes, perhaps, as below
            pipeline.set(f"{key}:plan", text, ex=round(left + KEPT))
            pipeline.set(f"{key}:order", order_text(order), ex=round(left))
            pipeline.sadd(self._all, row.id)
            await self._link.ask(pipeline.execute)

    async def rows(self) -> list[JobRow]:
        """See :class:`.store.JobStore`."""
        known = await self._link.ask(self._link.redis.smembers, self._all)
        ids = sorted(job_id.decode() for job_id in known)
        found = await self._link.many("hgetall", map(self._key, ids))
        rows = {job_id: _row(job_id, fields) for job_id, fields in zip(ids, found, strict=True)}
        if gone := [job_id for job_id, row in rows.items() if row is None]:
            await self._link.ask(self._link.redis.srem, self._all, *gone)
        return [row for row in rows.values() if row is not None]

    async def plan(self, job_id: str) -> JobPlan | None:
        """See :class:`.store.JobStore`."""
        text = await self._link.ask(self._link.redis.get, f"{self._key(job_id)}:plan")
        return None if text is None else await asyncio.to_thread(plan_from, text)

    async def order(self, job_id: str) -> JobOrder | None:
        """See :class:`.store.JobStore`."""
        text = await self._link.ask(self._link.redis.get, f"{self._key(job_id)}:order")
        return None if text is None else order_from(text)

    async def outcomes(self, job_id: str) -> list[Outcome]:
        """See :class:`.store.JobStore`."""
        pairs = await self._link.ask(self._link.redis.hgetall, f"{self._key(job_id)}:pairs")
        return await asyncio.to_thread(_outcomes, pairs)

    async def save(self, row: JobRow, outcomes: Sequence[Outcome]) -> bool:
        """See :class:`.store.JobStore`. Many outcomes take several calls; the last ends it."""
        key, fields, there = self._key(row.id), _fields(row), True
        told = [part for pair in fields.items() for part in pair]
        for at in range(0, max(len(outcomes), 1), _BATCH):
            some = outcomes[at : at + _BATCH]
            now = told if at + _BATCH >= len(outcomes) else []
            pairs = [part for each in some for part in (str(each.number), outcome_text(each))]
            there = bool(
                await self._link.ask(
                    self._save,
                    keys=[key, f"{key}:pairs", f"{key}:order"],
                    args=[fields["ended_at"], len(now), *now, *pairs],
                )
            )
        return there

    async def remove(self, job_ids: Iterable[str]) -> None:
        """See :class:`.store.JobStore`."""
        async with self._link.pipeline(transaction=True) as pipeline:
            for job_id in job_ids:
                key = self._key(job_id)
                pipeline.delete(key, f"{key}:plan", f"{key}:order", f"{key}:pairs")
                pipeline.srem(self._all, job_id)
            await self._link.ask(pipeline.execute)

    def _key(self, job_id: str) -> str:
        return f"{self._all}:{job_id}"


def _outcomes(pairs: Mapping[bytes, bytes]) -> list[Outcome]:
    found = (outcome_from(int(number), text) for number, text in pairs.items())
    return sorted(found, key=lambda outcome: outcome.number)


def _fields(row: JobRow) -> dict[str, str]:
    return {
        "kind": str(int(row.kind)),
        "scope": row.scope,
        "created_at": repr(row.created_at),
        "ends_at": repr(row.ends_at),
        "pairs": str(row.pairs),
        "done": str(row.done),
        "failed": str(row.failed),
        "received": str(row.received),
        "ended_at": "" if row.ended_at is None else repr(row.ended_at),
    }


def _row(job_id: str, fields: Mapping[bytes, bytes]) -> JobRow | None:
    """A hash as a job; None: it is none."""
    try:
        text = {name.decode(): value.decode() for name, value in fields.items()}
        return JobRow(
            job_id,
            Kind(int(text["kind"])),
            text["scope"],
            created_at=float(text["created_at"]),
            ends_at=float(text["ends_at"]),
            pairs=int(text["pairs"]),
            done=int(text["done"]),
            failed=int(text["failed"]),
            received=int(text["received"]),
            ended_at=float(text["ended_at"]) if text["ended_at"] else None,
        )
    except (KeyError, ValueError):
        return None
