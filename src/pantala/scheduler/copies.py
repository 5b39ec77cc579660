"""What hosts are asked about their copies of imported tasks, and the rows that come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import structlog

from pantala.background import Tasks
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import PeerEvent, PeerState
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, NotFound
from pantala.model.announce import HostFacts

from .dialects import ImportNames, SchedulerDialect
from .hosts import ask
from .records.store import RecordStore

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds for a host to do what moves no bytes.
_QUICK: Final = 10.0

#: Seconds that whoever deletes a task waits for the hosts that have it; they are told in any case.
_DROP_PATIENCE: Final = 5.0
#: Of them at once.
_DROPS_AT_ONCE: Final = 32


class Copies:
    """Copies on hosts that are here.

    Args:
        world: Knows the hosts.
        store: Has the rows.
        tasks: Where hosts are called.
        timeout: Seconds that a host may take to fetch a task.
    """

    def __init__(self, world: World, store: RecordStore, tasks: Tasks, timeout: float) -> None:
        self._world = world
        self._store = store
        self._tasks = tasks
        self._timeout = timeout
        self._drops = asyncio.Semaphore(_DROPS_AT_ONCE)

    async def keep(self, names: ImportNames, row: PeerRow) -> None:
        """Let a host keep the copy that it has.

        Raises:
            DragonflyError: It does not.
        """
        method, request = names.keep
        facts = self._world.host(row.host_id).facts
        try:
            await self._ask(facts, method, request(task_id=row.task_id, persistent=True), _QUICK)
        except NotFound:
            await self._store.put_peer(row.moved(PeerEvent.FAIL, time.time()))
            raise
        if not row.persistent:
            await self._store.put_peer(replace(row, persistent=True, updated_at=time.time()))

    async def fetch(self, dialect: SchedulerDialect, task: TaskRow, host: HostFacts) -> None:
        """Let a host fetch a replica. While it does, it registers as any peer.

        Raises:
            DragonflyError: It does not.
        """
        request = dialect.shared.codec.download(
            task_id=task.id, persistent=True, tag=task.tag, application=task.application
        )
        answer = await self._ask(host, dialect.download, request, self._timeout)
        rows = [row for row in await self._store.peers(task.key) if row.host_id == host.id]
        if any(row.persistent and row.state is PeerState.SUCCEEDED for row in rows):
            return
        if answer is None or not answer.peer_id:
            raise NotFound(f"host {host.id} says that it is done, and has no copy")
        # It had all of it, so that there was nothing to tell us.
        now = time.time()
        await self._store.put_peer(
            PeerRow(
                *(task.kind, answer.peer_id, task.id, host.id),
                persistent=True,
                created_at=now,
                updated_at=now,
                state=PeerState.SUCCEEDED,
            )
        )

    async def drop(self, names: ImportNames, rows: Iterable[PeerRow]) -> dict[str, str]:
        """Tell the hosts of *rows* to delete what they have, and wait for a moment.

        Returns:
            By host, why its copy may be there still; ``""``: it is not.
        """
        came: dict[str, str] = {}
        hosts = {row.host_id: row.task_id for row in rows}
        for host_id in hosts:
            here = host_id in self._world.hosts
            came[host_id] = "not told yet" if here else "it is away"
        calls = [
            self._tasks.start(self._drop(names, host_id, task_id, came), f"drop {task_id}")
            for host_id, task_id in hosts.items()
            if host_id in self._world.hosts
        ]
        if calls:
            await asyncio.wait(calls, timeout=_DROP_PATIENCE)
        return dict(came)

    async def _drop(
        self, names: ImportNames, host_id: str, task_id: str, came: dict[str, str]
    ) -> None:
        method, request = names.drop
        async with self._drops:
            host = self._world.hosts.get(host_id)
            if host is None:
                return
            try:
                await self._ask(host.facts, method, request(task_id=task_id), _QUICK)
            except NotFound:
                came[host_id] = ""  # it has gone from there by itself
            except DragonflyError as error:
                came[host_id] = str(error)
                logger.warning("a copy was not deleted", task=task_id, host=host_id, why=str(error))
            else:
                came[host_id] = ""

    async def _ask(self, host: HostFacts, method: str, request: Any, limit: float) -> Any:
        hello = self._world.limits.seed_start
        return await ask(host, method, request, timeout=limit, stock_hello=hello)
