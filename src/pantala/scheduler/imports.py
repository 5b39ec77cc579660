"""Imported tasks: what hosts say of them, and the rows that come of it.

The rows are the truth, here and at other schedulers; the world has a copy of those of a task while
somebody downloads it. So it is brought up to date before each decision, and what happens in it is
written down before it is answered.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import structlog

from pantala.background import Tasks
from pantala.core.sched.entities import OVER, Caller, Peer, TaskKey
from pantala.core.sched.imported import fail_holder, forget, place
from pantala.core.sched.owners import owned
from pantala.core.sched.records import ON_THE_WAY, PeerRow, TaskRow, begin_import
from pantala.core.sched.states import PeerEvent, PeerState, TaskEvent, TaskState
from pantala.core.sched.world import World
from pantala.errors import (
    DragonflyError,
    NoProvider,
    NotFound,
    NotYours,
    TaskExists,
    TaskNotFound,
)
from pantala.model.ids import check_task_id
from pantala.model.task import Kind

from . import convert
from .copies import Copies
from .dialects import ImportNames, SchedulerDialect
from .records.store import RecordStore
from .replication import Replication

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Imports:
    """Everything that hosts and peers tell of imported tasks.

    Args:
        world: Has the hosts, and the peers that download.
        store: Has the rows.
        replication: Woken when there may be too few copies.
        copies: Tells hosts to delete what they have.
        tasks: Where rows are written that nobody waits for.
    """

    def __init__(
        self,
        world: World,
        store: RecordStore,
        replication: Replication,
        copies: Copies,
        tasks: Tasks,
    ) -> None:
        self._world = world
        self._store = store
        self._replication = replication
        self._copies = copies
        self._tasks = tasks
        # Times in the world are monotonic; rows have unix time.
        self._clock_offset = time.time() - time.monotonic()

    # What a host says that imports a file

    async def started(self, dialect: SchedulerDialect, request: Any, caller: Caller) -> None:
        """It begins.

        Raises:
            TaskExists: The task is here, or another host imports it now.
        """
        host = owned(self._world, request.host_id, caller)
        wanted, uploader = convert.import_rows(dialect, request, time.time())
        known = await self._store.task(wanted.key)
        rows = [] if known is None else await self._store.peers(wanted.key)
        if await self._store.peer(dialect.kind, uploader.id) is not None:
            raise TaskExists(f"peer {uploader.id} is known here already; choose another id")
        earlier = next((row for row in rows if row.state is PeerState.UPLOADING), None)
        begun = begin_import(known, earlier, wanted, host.id)
        uploader = uploader.moved(PeerEvent.UPLOAD, begun.updated_at)
        self._replication.import_begun(uploader, host.life)
        was = None if known is None else known.state
        if not await self._store.begin(begun, uploader, was=was):
            raise TaskExists(f"task {begun.id}: another host has just begun to import it")
        logger.info("import", task=begun.id, host=host.id, replicas=begun.replicas)

    async def finished(self, dialect: SchedulerDialect, request: Any, caller: Caller) -> Any:
        """It has all of it. Said twice, it is answered twice.

        A host says it also of what it has downloaded, if the last word of that was not heard.

        Returns:
            The task's description.
        """
        task, peer = await self._uploader(dialect, request, caller)
        now = time.time()
        if peer.state is PeerState.UPLOADING and task.state is TaskState.UPLOADING:
            peer = peer.moved(PeerEvent.SUCCEED, now)
            self._replication.there(peer, self._world.host(peer.host_id).life)
            await self._store.put_peer(peer)
        if peer.state is PeerState.SUCCEEDED and task.state is TaskState.UPLOADING:
            done = task.moved(TaskEvent.SUCCEED, now)
            if await self._store.put_task(done, was=TaskState.UPLOADING):
                task = done
                logger.info("imported", task=task.id, host=peer.host_id)
        if task.state is TaskState.SUCCEEDED and peer.state is not PeerState.UPLOADING:
            peer = await self._has_it(peer, now)
        if (peer.state, task.state) != (PeerState.SUCCEEDED, TaskState.SUCCEEDED):
            raise NotFound(
                f"peer {peer.id} ({peer.state.value}) does not import task {task.id} "
                f"({task.state.value}); begin anew"
            )
        self._replication.wake()
        return await self._described(dialect, task)

    async def _has_it(self, peer: PeerRow, now: float) -> PeerRow:
        """All of a task that is here whole is with *peer*, whatever was last heard of it."""
        if peer.state is PeerState.SUCCEEDED:
            return peer
        known = self._world.peers.get((peer.kind, peer.id))
        if known is not None and known.state in OVER:
            self._world.remove_peer(known)  # it comes again by its row
        peer = replace(peer, state=PeerState.SUCCEEDED, updated_at=now)
        await self._store.put_peer(peer)
        return peer

    async def failed(self, dialect: SchedulerDialect, request: Any, caller: Caller) -> None:
        """It gives up; the task has failed, and may be imported anew."""
        task, peer = await self._uploader(dialect, request, caller)
        if peer.state is PeerState.UPLOADING:
            # The task first: if it could not be written, this is said again.
            await self._fail(task, peer, convert.cut(request.description))
            await self._store.put_peer(peer.moved(PeerEvent.FAIL, time.time()), anew=False)

    async def _fail(self, task: TaskRow, peer: PeerRow, why: str) -> None:
        """The import of a task by *peer* has come to nothing."""
        if task.state is TaskState.UPLOADING:
            failed = task.moved(TaskEvent.FAIL, time.time())
            await self._store.put_task(failed, was=TaskState.UPLOADING)
        logger.info("import failed", task=task.id, host=peer.host_id, why=why)

    async def _uploader(
        self, dialect: SchedulerDialect, request: Any, caller: Caller
    ) -> tuple[TaskRow, PeerRow]:
        owned(self._world, request.host_id, caller)
        peer = await self._peer(dialect, request)
        if peer.host_id != request.host_id:
            raise NotYours(f"peer {peer.id} is of host {peer.host_id}")
        return await self._task(peer.task_key), peer

    def host_left(self) -> None:
        """A host is not here any more. Soon its copies may not count."""
        self._replication.wake()

    # Questions, and deleting

    async def stat_task(self, dialect: SchedulerDialect, task_id: str) -> Any:
        """A task's description. Raises TaskNotFound."""
        return await self._described(
            dialect, await self._task((dialect.kind, check_task_id(task_id)))
        )

    async def stat_peer(self, dialect: SchedulerDialect, request: Any) -> Any:
        """A peer's description. Raises NotFound."""
        peer = await self._peer(dialect, request)
        known = self._world.peers.get((peer.kind, peer.id))
        if known is not None and peer.state in ON_THE_WAY:  # the row tells only how it began
            peer = replace(peer, state=known.state)
        host = self._world.hosts.get(peer.host_id)
        described = await self._described(dialect, await self._task(peer.task_key))
        return convert.recorded_peer(dialect, peer, described, None if host is None else host.facts)

    async def delete_peer(
        self, dialect: SchedulerDialect, names: ImportNames, request: Any, caller: Caller
    ) -> None:
        """A host gives its copy up. If it was a replica, another host gets one.

        If it was about to be the first, the import has failed.
        """
        owned(self._world, request.host_id, caller)
        peer = await self._peer(dialect, request)
        if peer.host_id != request.host_id:
            raise NotYours(f"peer {peer.id} is of host {peer.host_id}")
        task = await self._task(peer.task_key)
        if peer.state is PeerState.UPLOADING:
            await self._fail(task, peer, "its host gave it up")
        await self._store.remove_peer(peer)
        known = self._world.peers.get((peer.kind, peer.id))
        if known is not None:
            self._world.remove_peer(known)
        host = self._world.hosts.get(peer.host_id)
        if host is None or not host.facts.is_ours:  # ours says so because it has none any more
            await self._copies.drop(names, task, [peer])
        self._replication.gave_up(peer)

    async def delete_task(
        self, dialect: SchedulerDialect, names: ImportNames, request: Any, caller: Caller
    ) -> dict[str, str]:
        """Everywhere: all hosts that have a copy are told to delete it.

        Returns:
            By host, why its copy may be there still; ``""``: it is not.
        """
        owned(self._world, request.host_id, caller)
        key = (dialect.kind, check_task_id(request.task_id))
        task, rows = await self._store.task(key), await self._store.peers(key)
        await self._store.remove_task(key)
        forget(self._world, key)
        came = {} if task is None else await self._copies.drop(names, task, rows)
        logger.info("deleted", task=key[1], host=request.host_id)
        return came

    # What goes on in the world

    async def prepare(self, key: TaskKey) -> None:
        """Let the world know who has copies of a task that somebody wants.

        Raises:
            TaskNotFound: There is no such task.
            NoProvider: It has not been imported whole.
        """
        asked_at = time.monotonic()
        task = await self._task(key)
        if task.state is not TaskState.SUCCEEDED:
            raise NoProvider(f"task {task.id} is not here whole: its import is {task.state.value}")
        rows = await self._store.peers(key)
        place(self._world, task, rows, asked_at, time.monotonic())

    async def keep(self, peer: Peer, *, anew: bool = False) -> None:
        """Write down where *peer* has got to.

        Args:
            peer: Which.
            anew: It has just come; else it was written down before, or was deleted since.

        Raises:
            TaskNotFound: Its task was deleted, or has ended.
        """
        row = self._row(peer)
        if row.state is PeerState.SUCCEEDED:
            self._replication.there(row, peer.host.life)
        if not await self._store.put_peer(row, anew=anew):
            forget(self._world, peer.task.key)  # whoever asks for it next finds who is written down
            raise TaskNotFound(peer.task.id)

    def keep_later(self, peer: Peer) -> None:
        """Likewise, as soon as may be: nobody is there any more who could be told."""
        self._tasks.start(self._keep_quietly(peer), f"row of {peer.id}")

    def lost(self, peer: Peer) -> None:
        """A holder has failed so many that it cannot have the content any more."""
        fail_holder(self._world, peer, time.monotonic())
        logger.warning("a copy is lost: others get nothing of it", peer=peer.id, host=peer.host.id)
        self.keep_later(peer)

    async def _keep_quietly(self, peer: Peer) -> None:
        try:
            await self.keep(peer)
        except DragonflyError as error:
            logger.info("not written down", peer=peer.id, why=str(error))
        self._replication.wake()

    def _row(self, peer: Peer) -> PeerRow:
        return PeerRow(
            *(peer.task.kind, peer.id, peer.task.id, peer.host.id),
            persistent=peer.registration.request.persistent,
            created_at=peer.created_at + self._clock_offset,
            updated_at=time.time(),
            state=peer.state,
            cost=peer.cost or 0.0,
            concurrent_pieces=peer.concurrent_pieces,
        )

    async def _task(self, key: TaskKey) -> TaskRow:
        task = await self._store.task(key)
        if task is None:
            raise TaskNotFound(key[1])
        return task

    async def _peer(self, dialect: SchedulerDialect, request: Any) -> PeerRow:
        kind: Kind = dialect.kind
        peer = await self._store.peer(kind, request.peer_id)
        if peer is None or peer.task_id != check_task_id(request.task_id):
            raise NotFound(
                f"peer {request.peer_id} is not known here as one of task {request.task_id}"
            )
        return peer

    async def _described(self, dialect: SchedulerDialect, task: TaskRow) -> Any:
        rows = await self._store.peers(task.key)
        return convert.recorded_task(dialect, task, self._replication.counted(rows))
