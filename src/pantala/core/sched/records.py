"""What of an imported task must outlive a scheduler: the task and its peers as rows.

An import is three words of the host that has the content: it begins, and ends well or badly. Here
is what each does to the rows; who keeps them, and waits for that, is the shell's business.

Times are unix seconds: rows are read by other schedulers, and after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pantala.core.fsm import Machine
from pantala.errors import InvalidTransition, TaskExists
from pantala.model.task import Kind

from .entities import DEFAULT_CONCURRENT_PIECES, TaskKey
from .states import (
    IMPORTED_PEER,
    IMPORTED_TASK,
    PeerEvent,
    PeerState,
    TaskEvent,
    TaskState,
)

#: A peer in one of these is about to have a copy.
ON_THE_WAY: Final = frozenset(
    {
        PeerState.PENDING,
        PeerState.RECEIVED_EMPTY,
        PeerState.RECEIVED_NORMAL,
        PeerState.RUNNING,
        PeerState.UPLOADING,
    }
)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """An imported task.

    Attributes:
        replicas: So many hosts shall keep a copy until the task ends.
        content_length, piece_length: Bytes.
        ttl: Seconds from *created_at* to its end.
    """

    kind: Kind
    id: str
    replicas: int
    content_length: int
    piece_length: int
    ttl: float
    created_at: float
    updated_at: float
    state: TaskState = TaskState.PENDING
    tag: str | None = None
    application: str | None = None

    @property
    def key(self) -> TaskKey:
        """What it is known by."""
        return self.kind, self.id

    @property
    def piece_count(self) -> int:
        """Pieces in the whole content."""
        return -(-self.content_length // self.piece_length) if self.piece_length else 0

    @property
    def expires_at(self) -> float:
        """When it ends, and all its copies with it."""
        return self.created_at + self.ttl

    def moved(self, event: TaskEvent, now: float) -> TaskRow:
        """The row after *event*. Raises InvalidTransition."""
        machine = Machine(f"task {self.id}", IMPORTED_TASK, self.state)
        return replace(self, state=machine.fire(event), updated_at=now)


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A host's copy of an imported task, or its attempt to get one.

    Attributes:
        persistent: The copy is a replica: its host keeps it until the task ends. Others may go
            whenever their hosts want the room.
        cost: Seconds that it took to get it; 0 while it is on the way.
    """

    kind: Kind
    id: str
    task_id: str
    host_id: str
    persistent: bool
    created_at: float
    updated_at: float
    state: PeerState = PeerState.PENDING
    cost: float = 0.0
    concurrent_pieces: int = DEFAULT_CONCURRENT_PIECES

    @property
    def task_key(self) -> TaskKey:
        """What its task is known by."""
        return self.kind, self.task_id

    def moved(self, event: PeerEvent, now: float) -> PeerRow:
        """The row after *event*. Raises InvalidTransition."""
        machine = Machine(f"peer {self.id}", IMPORTED_PEER, self.state)
        return replace(self, state=machine.fire(event), updated_at=now)


def begin_import(
    known: TaskRow | None, uploader: PeerRow | None, wanted: TaskRow, host_id: str
) -> TaskRow:
    """The row of a task that *host_id* begins to import.

    A host imports a file once at a time. If it begins again, then it was started anew, or
    nobody could tell us that its last import ended.

    Args:
        known: The task as it is, if it is.
        uploader: Who imports it now, if somebody does.
        wanted: As it shall be.
        host_id: Whose import begins.

    Raises:
        TaskExists: It is here, or another host imports it now.
    """
    begun = wanted.moved(TaskEvent.UPLOAD, wanted.updated_at)
    if known is None:
        return begun
    if known.state is TaskState.UPLOADING and (uploader is None or uploader.host_id == host_id):
        return begun
    try:
        known.moved(TaskEvent.UPLOAD, wanted.updated_at)
    except InvalidTransition:
        raise TaskExists(_exists(known, uploader)) from None
    return begun


def _exists(known: TaskRow, uploader: PeerRow | None) -> str:
    if known.state is TaskState.UPLOADING and uploader is not None:
        return f"task {known.id}: host {uploader.host_id} imports it now; wait for it to end"
    return (
        f"task {known.id} is here already ({known.state.value}); export it, or delete it and "
        "import it anew"
    )
