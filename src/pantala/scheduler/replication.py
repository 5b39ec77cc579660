"""Seeing to it that as many hosts keep an imported task as shall.

Whenever there may be too few copies, :meth:`Replication.turn` looks at all rows, and starts what
:mod:`pantala.core.sched.replicas` plans for each task that lacks some: hosts are asked to keep what
they have, or to fetch. What comes of it shows in the rows; the next turn goes by them, and by
nothing else, so whatever was lost on the way is found and done again. Of several schedulers that
share their rows, one does it for a task at a time: who has its lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from random import Random
from typing import Any, Final

import structlog

from pantala.background import Tasks
from pantala.core.sched.entities import OVER, TaskKey
from pantala.core.sched.imported import forget
from pantala.core.sched.records import ON_THE_WAY, PeerRow, TaskRow
from pantala.core.sched.replicas import Attempts, Count, Plan, Presence, count, obstacle, plan
from pantala.core.sched.rules import RULES
from pantala.core.sched.states import PeerState, TaskState
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, FeatureOff, NotFound, Unavailable
from pantala.model.announce import HostFacts

from .copies import Copies
from .dialects import SCHEDULER_DIALECTS, ImportNames, SchedulerDialect
from .metrics import Metrics
from .records.store import RecordStore
from .under_way import ImportsUnderWay

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Tasks that are worked at at once: when a host is lost, all that it held is fetched again, and
#: those that fetch are to do something else, too.
_AT_ONCE: Final = 16

#: Seconds that a lease lasts, and after which it is taken anew.
_LEASE: Final = 60.0
_RENEW: Final = 20.0

#: Seconds that rows of attempts that failed are kept, for those who ask how it went.
_REMEMBER_FAILED: Final = 600.0

#: Seconds for which a row of somebody on the way is believed at least. Who has his stream renews it
#: at each turn; if that scheduler is gone, nobody does.
_NEWS: Final = 5.0

#: The kinds of task that are kept.
_IMPORTED: Final = {
    dialect.kind: (dialect, dialect.imports)
    for dialect in SCHEDULER_DIALECTS.values()
    if dialect.imports is not None
}


class Replication:
    """Keeps the numbers of copies up.

    Args:
        world: Knows which hosts are here.
        store: Has the rows.
        copies: Asks hosts.
        tasks: Where they are asked.
        metrics: Told how it went.
        chance: Which of several hosts.
        interval: Seconds after which a turn is due, if nobody wants one before.
    """

    def __init__(
        self,
        world: World,
        store: RecordStore,
        copies: Copies,
        *,
        tasks: Tasks,
        metrics: Metrics,
        chance: Random,
        interval: float,
    ) -> None:
        self._world = world
        self._store = store
        self._copies = copies
        self._tasks = tasks
        self._metrics = metrics
        self._chance = chance
        self._interval = interval
        self._presence = Presence(world.limits.replica_grace)
        self._attempts = Attempts()
        self._wanted = asyncio.Event()
        #: Tasks that are worked at here.
        self._busy: set[TaskKey] = set()
        #: Those of which has been told that there are too few hosts for them.
        self._short: set[TaskKey] = set()
        #: Which life of its host a replica was last known to be there in.
        self._seen_in: dict[tuple[TaskKey, str], int] = {}
        #: Those that are being asked for.
        self._asking: set[tuple[TaskKey, str]] = set()
        self._trouble = ""
        self._under_way = ImportsUnderWay(
            world, store, copies, self._presence, tasks=tasks, wake=self.wake
        )

    def wake(self) -> None:
        """There may be too few copies of something."""
        self._wanted.set()

    async def rest(self) -> None:
        """Return when a turn is due."""
        loss = self._presence.next_loss(time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._interval, loss or self._interval)):
                await self._wanted.wait()

    async def turn(self) -> None:
        """Look at all tasks, and start what is to be done. No error if their rows are away."""
        self._wanted.clear()
        self._under_way.begin_turn()
        try:
            for dialect, names in _IMPORTED.values():
                await self._look_at_all(dialect, names)
        except (Unavailable, FeatureOff) as error:
            if not self._trouble:
                logger.warning("records of imported tasks cannot be had", why=str(error))
            self._trouble = str(error)
        else:
            self._under_way.end_turn()
            if self._trouble:
                logger.info("records of imported tasks are there again")
            self._trouble = ""

    def counted(self, rows: Sequence[PeerRow]) -> Count:
        """The copies of a task, by the rows of its peers."""
        hosts = self._world.hosts
        holders = {row.host_id for row in rows}
        here = {name: hosts[name].heard_at for name in holders if name in hosts}
        now = time.monotonic()
        self._presence.look(holders, here, now)
        return count(rows, self._presence, now, fresh=self._fresh())

    def import_begun(self, row: PeerRow, life: int) -> None:
        """A host has begun to import, in this life of its."""
        self._under_way.begun(row, life)

    def there(self, row: PeerRow, life: int) -> None:
        """In this life of its host, a copy was there."""
        self._seen_in[row.task_key, row.id] = life

    def gave_up(self, row: PeerRow) -> None:
        """A host does not want its copy any more, and is not the first to be asked for another."""
        self._attempts.failed(row.task_key, row.host_id, time.monotonic())
        self.wake()

    async def _look_at_all(self, dialect: SchedulerDialect, names: ImportNames) -> None:
        began, there = time.monotonic(), set(self._seen_in)
        known: set[TaskKey] = set()
        holders: set[str] = set()
        missing = 0
        async with aclosing(self._store.walk(dialect.kind)) as pages:
            async for page in pages:
                for task, found in page:
                    known.add(task.key)
                    holders |= {row.host_id for row in found}
                    rows = await self._tidy(found)
                    if task.state is TaskState.UPLOADING:
                        self.counted(rows)  # which looks who is here
                        await self._under_way.look(task, rows)
                    elif task.state is TaskState.SUCCEEDED:
                        self._ask_for(names, rows)
                        missing += self._look_at(dialect, names, task, rows)
        self._presence.keep_only(holders)
        self._attempts.keep_only(known)
        self._short &= known
        self._seen_in = {
            key: life
            for key, life in self._seen_in.items()
            if key[0] in known or key not in there  # there since the rows were read
        }
        self._metrics.replicas_missing(missing)
        for placed in list(self._world.imported.values()):
            is_old = placed.kind is dialect.kind and placed.updated_at < began
            if is_old and placed.key not in known:
                forget(self._world, placed.key)

    def _ask_for(self, names: ImportNames, rows: Sequence[PeerRow]) -> None:
        """Ask hosts that were started anew whether the replicas are there that count as theirs.

        A host may have been killed before it could say that a copy is gone, or before it had
        written down that it is to keep one; and its disk may be another. It is told once more to
        keep what it has; what it does not have, others fetch.
        """
        for row in rows:
            host, key = self._world.hosts.get(row.host_id), (row.task_key, row.id)
            if host is None or row.state is not PeerState.SUCCEEDED or not row.persistent:
                continue
            if self._seen_in.get(key) == host.life or key in self._asking:
                continue
            if len(self._asking) >= _AT_ONCE:
                self.wake()
                return
            self._asking.add(key)
            self._tasks.start(self._ask(names, row), f"replica of {row.task_id}")

    async def _ask(self, names: ImportNames, row: PeerRow) -> None:
        try:
            await self._keep(names, row)
        except DragonflyError as error:
            logger.warning("a replica was not found", host=row.host_id, why=str(error))
            if isinstance(error, NotFound):
                self.wake()
        finally:
            self._asking.discard((row.task_key, row.id))

    async def _keep(self, names: ImportNames, row: PeerRow) -> None:
        """See :meth:`.Copies.keep`."""
        life = self._world.host(row.host_id).life
        await self._copies.keep(names, row)
        self.there(row, life)

    def _look_at(
        self, dialect: SchedulerDialect, names: ImportNames, task: TaskRow, rows: Sequence[PeerRow]
    ) -> int:
        """How many replicas a task lacks; what can be done for it is started."""
        missing = self.counted(rows).missing(task)
        if not missing:
            self._short.discard(task.key)
        elif task.key not in self._busy and len(self._busy) < _AT_ONCE:
            self._begin(dialect, names, task, rows)
        return missing

    async def _tidy(self, rows: Sequence[PeerRow]) -> list[PeerRow]:
        """Bring rows up to what is known here; return those that are left."""
        left = []
        old = time.time() - _REMEMBER_FAILED
        for row in rows:
            peer = self._world.peers.get((row.kind, row.id))
            if row.state is PeerState.FAILED and row.updated_at < old:
                await self._store.remove_peer(row)
            elif (
                peer is not None
                and peer.state is PeerState.SUCCEEDED
                and row.state not in (PeerState.SUCCEEDED, PeerState.FAILED)
            ):
                # It finished here while its row could not be written.
                done = replace(row, state=PeerState.SUCCEEDED, cost=peer.cost or 0.0)
                await self._store.put_peer(done, anew=False)
                left.append(done)
            elif peer is not None and peer.state not in OVER and self._is_stale(row):
                row = replace(row, updated_at=time.time())  # noqa: PLW2901  it is on the way still
                await self._store.put_peer(row, anew=False)
                left.append(row)
            else:
                left.append(row)
        return left

    def _plan(self, dialect: SchedulerDialect, task: TaskRow, rows: Sequence[PeerRow]) -> Plan:
        now, rules = time.monotonic(), RULES[dialect.kind]

        def unfit(host: HostFacts) -> str | None:
            if self._attempts.rests(task.key, host.id, now):
                return "failed a moment ago"
            return obstacle(task, host, rules)

        counted = self.counted(rows)
        hosts = [host.facts for host in self._world.hosts.values()]
        return plan(
            task, rows, counted, hosts, unfit=unfit, chance=self._chance, fresh=self._fresh()
        )

    def _is_stale(self, row: PeerRow) -> bool:
        return row.state in ON_THE_WAY and row.updated_at < time.time() - max(self._interval, 1.0)

    def _fresh(self) -> float:
        """Since when somebody on the way must have given news; see :meth:`_tidy`."""
        return time.time() - max(3 * self._interval, _NEWS)

    def _tell(self, task: TaskRow, planned: Plan) -> None:
        """Say once that there are not enough hosts for a task, and why."""
        if not planned.short:
            self._short.discard(task.key)
        elif task.key not in self._short:
            self._short.add(task.key)
            found = planned.unfit.most_common()
            reasons = [f"{number} {why}" if number else why for why, number in found]
            logger.warning(
                "too few hosts for all replicas",
                task=task.id,
                wanted=task.replicas,
                missing=planned.short,
                hosts=reasons or ["there are no others"],
            )

    def _begin(
        self, dialect: SchedulerDialect, names: ImportNames, task: TaskRow, rows: Sequence[PeerRow]
    ) -> None:
        """Start what can be done for a task that lacks copies."""
        planned = self._plan(dialect, task, rows)
        self._tell(task, planned)
        if planned.keep or planned.fetch:
            self._busy.add(task.key)
            self._tasks.start(self._restore(dialect, names, task.key), f"replicas of {task.id}")

    async def _restore(self, dialect: SchedulerDialect, names: ImportNames, key: TaskKey) -> None:
        """Carry out plans for a task until nothing more can be done."""
        lease = f"replicas:{key[1]}"
        try:
            if await self._store.lease(lease, _LEASE):
                try:
                    while await self._carry_out(dialect, names, key, lease):
                        pass
                finally:
                    await self._store.release(lease)
        except (Unavailable, FeatureOff) as error:
            logger.info("replicas are left as they are", task=key[1], why=str(error))
        finally:
            if len(self._busy) >= _AT_ONCE:
                self.wake()  # others wait for their turn
            self._busy.discard(key)

    async def _carry_out(
        self, dialect: SchedulerDialect, names: ImportNames, key: TaskKey, lease: str
    ) -> bool:
        """One plan, whatever comes of it. Returns whether there was anything to do."""
        task = await self._store.task(key)
        if task is None:
            return False
        rows = await self._store.peers(key)
        planned = self._plan(dialect, task, rows)
        calls = [
            *((row.host_id, self._keep(names, row)) for row in planned.keep),
            *((host.id, self._copies.fetch(dialect, task, host)) for host in planned.fetch),
        ]
        work = {self._tasks.start(self._attempt(key, *call), "replica") for call in calls}
        pending: set[asyncio.Task[None]] = work
        while pending:
            _, pending = await asyncio.wait(pending, timeout=_RENEW)
            await self._store.lease(lease, _LEASE)
        return bool(work)

    async def _attempt(self, key: TaskKey, host_id: str, call: Coroutine[Any, Any, None]) -> None:
        """Await *call*, by which a host gets a replica, and remember how it went."""
        began = time.monotonic()
        try:
            await call
        except DragonflyError as error:
            self._attempts.failed(key, host_id, time.monotonic())
            self._metrics.replicated(failed=True)
            logger.warning("no replica", task=key[1], host=host_id, why=str(error))
        else:
            self._attempts.succeeded(key, host_id)
            self._metrics.replicated(failed=False)
            seconds = round(time.monotonic() - began, 3)
            logger.info("replica", task=key[1], host=host_id, seconds=seconds)
