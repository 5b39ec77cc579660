"""What a daemon says to a scheduler of copies of imported tasks, but for announce streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from pantala.errors import FeatureOff, NoProvider, OutputExists, SchedulerLost, TaskExists
from pantala.model.task import ImportedTask, ImportRequest, Kind

from .convert import duration, optional, seconds
from .dialects import ImportDialect, dialect_of

#: The state of a task whose import has ended well, by the contract's name.
_SUCCEEDED = "Succeeded"


@dataclass(frozen=True, slots=True)
class CopyName:
    """A host's copy of a task, as schedulers know it."""

    kind: Kind
    host_id: str
    task_id: str
    peer_id: str


class Caller(Protocol):
    """What is needed of a scheduler here."""

    @property
    def address(self) -> str:
        """``host:port``, for messages."""

    async def call(self, method: str, message: Any) -> Any:
        """A unary call. Raises DragonflyError."""


async def started(
    scheduler: Caller, copy: CopyName, wanted: ImportRequest, *, length: int, piece_length: int
) -> None:
    """A file of *length* bytes is about to be imported.

    Raises:
        TaskExists: The task is there, or somebody else imports it now.
        DragonflyError: The scheduler does not take it.
    """
    try:
        await _say(
            scheduler,
            copy,
            "started",
            persistent_replica_count=wanted.replicas,
            tag=wanted.tag,
            application=wanted.application,
            piece_length=piece_length,
            content_length=length,
            piece_count=-(-length // piece_length),
            ttl=duration(wanted.ttl),
        )
    except OutputExists as error:  # what the status stands for elsewhere
        raise TaskExists(str(error)) from error


async def finished(scheduler: Caller, copy: CopyName) -> Any:
    """All of it is here; the scheduler's description of the task. It may be said again.

    Raises:
        NotFound: The scheduler knows of no such copy, or not as one that could have come to be.
        DragonflyError: It does not answer.
    """
    return await _say(scheduler, copy, "finished")


async def failed(scheduler: Caller, copy: CopyName, why: str) -> None:
    """The import came to nothing. Raises DragonflyError."""
    await _say(scheduler, copy, "failed", description=why)


async def give_up(scheduler: Caller, copy: CopyName) -> None:
    """The copy is here no longer. Raises DragonflyError, NotFound where it was not known."""
    await _say(scheduler, copy, "give_up")


async def _say(scheduler: Caller, copy: CopyName, what: str, **fields: Any) -> Any:
    method, request = getattr(_dialect(copy.kind), what)
    ids = {"host_id": copy.host_id, "task_id": copy.task_id, "peer_id": copy.peer_id}
    return await scheduler.call(method, request(**ids, **fields))


def _dialect(kind: Kind) -> ImportDialect:
    dialect = dialect_of(kind).imports
    if dialect is None:
        raise FeatureOff(f"{kind.name} tasks are not imported")
    return dialect


def imported_task(message: Any) -> ImportedTask:
    """What a scheduler's description of an imported task says.

    Raises:
        NoProvider: Its import has not ended well.
        SchedulerLost: It makes no sense.
    """
    if message.state != _SUCCEEDED:
        raise NoProvider(
            f"task {message.id} is not there whole: its import is {message.state or 'unknown'}"
        )
    return described(message)


def described(message: Any) -> ImportedTask:
    """The same, however its import goes.

    Raises:
        SchedulerLost: It makes no sense.
    """
    length, piece_length = message.content_length, message.piece_length
    if not piece_length or message.piece_count != -(-length // piece_length):
        raise SchedulerLost(
            f"task {message.id}: the scheduler says {length} bytes in {message.piece_count} pieces "
            f"of {piece_length}, which makes no sense"
        )
    ttl = optional(message, "ttl")
    return ImportedTask(
        content_length=length,
        piece_length=piece_length,
        created_at=message.created_at.ToNanoseconds() / 1e9,
        ttl=None if ttl is None else seconds(ttl),
        version=version_of(message.created_at),
    )


def version_of(created_at: Timestamp) -> str:
    """Of the content whose import began then, by its scheduler's word."""
    return f"imported:{created_at.seconds}.{created_at.nanos:09}"
