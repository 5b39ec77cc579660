"""What hosts are asked about their copies of imported tasks, and the rows that come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, cast

import structlog

from pantala.background import Tasks
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import PeerEvent, PeerState
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, NotFound
from pantala.model.announce import HostFacts
from pantala.model.task import Kind
from pantala.pb import common_pb2, node_pb2, node_pb2_grpc
from pantala.rpc.convert import timestamp

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

#: Hosts that are asked at once whether they still import.
_QUESTIONS_AT_ONCE: Final = 16


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
        self._questions = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

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
            await self._store.put_peer(row.moved(PeerEvent.FAIL, time.time()), anew=False)
            raise
        if not row.persistent:
            kept = replace(row, persistent=True, updated_at=time.time())
            await self._store.put_peer(kept, anew=False)

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
        known = await self._store.task(task.key)
        if known is None or known.created_at != task.created_at:
            raise NotFound(f"task {task.id} was deleted while host {host.id} fetched it")
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

    async def is_importing(self, row: PeerRow) -> bool:
        """Whether a host of ours still imports. Raises DragonflyError."""
        host = self._world.host(row.host_id).facts
        request = node_pb2.IsImportingRequest(
            type=_type(row.kind), task_id=row.task_id, peer_id=row.id
        )
        async with self._questions:
            answer = await self._ask_ours(host, "IsImporting", request)
        return bool(answer.is_importing)

    async def drop(
        self, names: ImportNames, task: TaskRow, rows: Iterable[PeerRow]
    ) -> dict[str, str]:
        """Tell the hosts of *rows* to delete what they have of *task*, and wait for a moment.

        By the time a host hears of it, another file may have been imported by the same id; a stock
        daemon deletes that.

        Returns:
            By host, why its copy may be there still; ``""``: it is not.
        """
        came: dict[str, str] = {}
        hosts = {row.host_id for row in rows}
        for host_id in hosts:
            here = host_id in self._world.hosts
            came[host_id] = "not told yet" if here else "it is away"
        calls = [
            self._tasks.start(self._drop(names, host_id, task, came), f"drop {task.id}")
            for host_id in hosts
            if host_id in self._world.hosts
        ]
        if calls:
            await asyncio.wait(calls, timeout=_DROP_PATIENCE)
        return dict(came)

    async def _drop(
        self, names: ImportNames, host_id: str, task: TaskRow, came: dict[str, str]
    ) -> None:
        async with self._drops:
            host = self._world.hosts.get(host_id)
            if host is None:
                return
            try:
                await self._delete(names, host.facts, task)
            except NotFound:
                came[host_id] = ""  # it has gone from there by itself
            except DragonflyError as error:
                came[host_id] = str(error)
                logger.warning("a copy was not deleted", task=task.id, host=host_id, why=str(error))
            else:
                came[host_id] = ""

    async def _delete(self, names: ImportNames, host: HostFacts, task: TaskRow) -> None:
        if host.is_ours:
            request = node_pb2.DeleteCopyRequest(
                type=_type(task.kind), task_id=task.id, created_at=timestamp(task.created_at)
            )
            await self._ask_ours(host, "Delete", request)
        else:
            method, stock = names.drop
            await self._ask(host, method, stock(task_id=task.id), _QUICK)

    async def _ask_ours(self, host: HostFacts, method: str, request: Any) -> Any:
        """What a daemon of ours answers that the contract has no words for."""
        stub = node_pb2_grpc.CopiesStub
        return await ask(host, method, request, timeout=_QUICK, stock_hello=_QUICK, service=stub)

    async def _ask(self, host: HostFacts, method: str, request: Any, limit: float) -> Any:
        hello = self._world.limits.seed_start
        return await ask(host, method, request, timeout=limit, stock_hello=hello)


def _type(kind: Kind) -> common_pb2.TaskType.ValueType:
    return cast("common_pb2.TaskType.ValueType", kind.value)
