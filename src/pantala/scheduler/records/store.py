"""What is wanted of a place that keeps the rows of imported tasks, and jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final, Protocol

from pantala.core.sched.entities import TaskKey
from pantala.core.sched.jobs import JobOrder, JobPlan, JobRow, Outcome
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import TaskState
from pantala.model.task import Kind

#: A task, and the rows of its peers.
TaskAndPeers = tuple[TaskRow, list[PeerRow]]

#: Tasks in a page.
PAGE: Final = 200


class JobStore(Protocol):
    """Keeps jobs until they are removed. What is said of :class:`RecordStore` holds here, too.

    A lease of the store says who carries a job out; the calls here do not ask whose it is.
    """

    async def put(self, row: JobRow, plan: JobPlan, order: JobOrder) -> None:
        """Keep a new job."""

    async def rows(self) -> list[JobRow]:
        """All jobs, in no order."""

    async def plan(self, job_id: str) -> JobPlan | None:
        """What is to be done, if the job is there."""

    async def order(self, job_id: str) -> JobOrder | None:
        """What was asked for, if the job is there and not over."""

    async def outcomes(self, job_id: str) -> list[Outcome]:
        """What came of those of its pairs that are over, in the order of their numbers."""

    async def save(self, row: JobRow, outcomes: Sequence[Outcome]) -> bool:
        """Keep how far a job is, and what has come of more of its pairs.

        If *row* says that it is over, its order is wiped, for good.

        Returns:
            Whether the job is there and was not over, or was so at that very time. If not, nothing
            is changed.
        """

    async def remove(self, job_ids: Iterable[str]) -> None:
        """Forget jobs, those that are there."""


class RecordStore(Protocol):
    """Keeps rows until their task ends: then task and peers are gone, as if they had been removed.

    What a call has said is kept, is kept, whatever happens to this process. Each call either does
    all that it says or nothing. Any of them may raise

        Unavailable   the place does not answer now, or cannot be written; nothing is lost
        FeatureOff    it cannot be used at all; the message says which setting to change
    """

    @property
    def jobs(self) -> JobStore:
        """Jobs, in the same place."""

    async def open(self) -> None:
        """Look what is there. May be called again; need not be called before the others."""

    async def close(self) -> None:
        """Let go of the file, or of the server. What was put has been written by then."""

    async def task(self, key: TaskKey) -> TaskRow | None:
        """The task of that kind and id, if it is there."""

    def walk(self, kind: Kind) -> AsyncGenerator[list[TaskAndPeers], None]:
        """All tasks of a kind, each with its peers, in no order; a page at a time."""

    async def peer(self, kind: Kind, peer_id: str) -> PeerRow | None:
        """The peer of that kind and id, if it is there."""

    async def peers(self, key: TaskKey) -> list[PeerRow]:
        """All peers of a task, in no order."""

    async def put_task(self, row: TaskRow, *, was: TaskState | None) -> bool:
        """Keep *row* in place of what was there.

        Args:
            row: The task, as it is from now on.
            was: Its state before; None: there was no such task.

        Returns:
            Whether it is kept. If not, somebody else has moved the task meanwhile.
        """

    async def begin(self, row: TaskRow, first: PeerRow, *, was: TaskState | None) -> bool:
        """Keep *row* in place of what was there, with one peer: whose task it was before, is none.

        All at once, for a task that is being imported by nobody could not be told from one whose
        importer has yet to be written down.

        Args:
            row: The task, as it is from now on.
            first: Who imports it.
            was: As for :meth:`put_task`.

        Returns:
            As :meth:`put_task`.
        """

    async def put_peer(self, row: PeerRow, *, anew: bool = True) -> bool:
        """Keep *row* in place of the peer of that id.

        Args:
            row: The peer, as it is from now on.
            anew: Also if there is no such peer yet. Whoever has seen it a while ago must not bring
                it back: its task may have been deleted since, and another be there by that id.

        Returns:
            Whether it is kept. If not, its task is not there any more, or it is not itself.
        """

    async def remove_peer(self, row: PeerRow) -> None:
        """Forget a peer, if it is there."""

    async def remove_task(self, key: TaskKey) -> None:
        """Forget a task and all its peers, if it is there."""

    async def lease(self, name: str, seconds: float) -> bool:
        """Whether this scheduler alone may do *name* for so long. Asked again, it is longer.

        That of a scheduler that has died ends at the same time, or before, if that can be seen.
        """

    async def release(self, name: str) -> None:
        """Let others do *name*, if it was this scheduler who did."""
