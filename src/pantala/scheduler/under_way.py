"""Imports that are under way: whether anybody carries them on.

The host that imports says how it ends. It may not come to that: it is killed, or its last word is
lost with a scheduler that is away for too long. So an import has failed when its host is gone or
was started anew; and a host of ours is asked now and then whether it still imports, at once if the
import has begun before this scheduler was started, for so may have the host's next life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from pantala.background import Tasks
from pantala.core.sched.entities import TaskKey
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.replicas import Presence
from pantala.core.sched.states import PeerEvent, PeerState, TaskEvent, TaskState
from pantala.core.sched.world import World
from pantala.errors import DragonflyError

from .copies import Copies
from .records.store import RecordStore

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds until a host is asked about an import again; and if it did not answer.
_ASK: Final = 15.0
_RETRY: Final = 2.0

#: Seconds between the two rows that an import ends with, at most, and between those that it begins
#: with at a stock scheduler which shares ours.
_GAP: Final = 15.0


@dataclass(slots=True)
class _Import:
    """One of them.

    Attributes:
        life: Which of its host it was seen in first. None: the host has not been seen.
        ask_at: When its host is to be asked about it, monotonic.
        over: Its host has said that it does not import that.
    """

    life: int | None = None
    ask_at: float = 0.0
    over: bool = False


class ImportsUnderWay:
    """All of them.

    Args:
        world: Knows which hosts are here.
        store: Has the rows.
        copies: Asks hosts.
        presence: Knows which hosts are gone.
        tasks: Where hosts are asked.
        wake: Called when rows are to be looked at.
    """

    def __init__(
        self,
        world: World,
        store: RecordStore,
        copies: Copies,
        presence: Presence,
        *,
        tasks: Tasks,
        wake: Callable[[], None],
    ) -> None:
        self._world = world
        self._store = store
        self._copies = copies
        self._presence = presence
        self._tasks = tasks
        self._wake = wake
        self._known: dict[tuple[TaskKey, str], _Import] = {}
        #: Those that :meth:`look` has come across since :meth:`begin_turn`, or that are newer.
        self._seen: set[tuple[TaskKey, str]] = set()

    def begun(self, row: PeerRow, life: int) -> None:
        """A host begins to import, in this life of its."""
        key = row.task_key, row.id
        self._known[key] = _Import(life, time.monotonic() + _ASK)
        self._seen.add(key)

    def begin_turn(self) -> None:
        """All rows are about to be looked at."""
        self._seen.clear()

    def end_turn(self) -> None:
        """All have been: what was not among them is over."""
        self._known = {key: each for key, each in self._known.items() if key in self._seen}

    async def look(self, task: TaskRow, rows: Sequence[PeerRow]) -> None:
        """End an import that nobody carries on.

        Args:
            task: Is being imported.
            rows: Of its peers. What is known of the presence of their hosts is up to date.
        """
        uploaders = [row for row in rows if row.state is PeerState.UPLOADING]
        self._seen |= {(row.task_key, row.id) for row in uploaders}
        alive = [row for row in uploaders if self._goes_on(row)]
        latest = max(task.updated_at, *(row.updated_at for row in rows), 0.0)
        fresh = time.time() - latest < _GAP
        if alive or (not uploaders and fresh):
            return
        now = time.time()
        if await self._store.put_task(task.moved(TaskEvent.FAIL, now), was=TaskState.UPLOADING):
            for row in uploaders:
                await self._store.put_peer(row.moved(PeerEvent.FAIL, now), anew=False)
            logger.warning(
                "import came to nothing: nobody carries it on",
                task=task.id,
                host=[row.host_id for row in uploaders],
            )

    def _goes_on(self, row: PeerRow) -> bool:
        now = time.monotonic()
        known = self._known.setdefault((row.task_key, row.id), _Import())
        if known.over or self._presence.lost(row.host_id, now):
            return False
        host = self._world.hosts.get(row.host_id)
        if host is None:
            return True
        if known.life is None:
            known.life = host.life
        if known.life != host.life:
            return False
        if host.facts.is_ours and now >= known.ask_at:
            known.ask_at = now + _ASK
            self._tasks.start(self._ask(row, known), f"import of {row.task_id}")
        return True

    async def _ask(self, row: PeerRow, known: _Import) -> None:
        try:
            known.over = not await self._copies.is_importing(row)
        except DragonflyError as error:
            known.ask_at = time.monotonic() + _RETRY
            logger.info("could not ask about an import", host=row.host_id, why=str(error))
        if known.over:
            self._wake()
