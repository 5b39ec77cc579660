"""Messages to the scheduler's values, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pantala.core.sched.entities import Peer, Task
from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.replicas import Count
from pantala.errors import InvalidRequest
from pantala.model.announce import Candidate, HostFacts, Registration
from pantala.model.ids import check_task_id, check_url
from pantala.model.notation import parse_digest
from pantala.model.pieces import (
    GROWTH_STEP,
    LEAST_PIECE_LENGTH,
    MAX_PIECE_LENGTH,
    MIN_PIECE_LENGTH,
)
from pantala.model.task import PRIORITIES, DownloadRequest
from pantala.model.units import byte_count
from pantala.pb import common_pb2, describing_pb2, scheduler_pb2
from pantala.rpc.codec import read_host, write_candidate, write_host
from pantala.rpc.convert import duration, optional, seconds, timestamp

from .dialects import SchedulerDialect

#: Bytes of an id; stock ids have about a hundred.
_MAX_ID: Final = 1024
#: Bytes of an announcement, which is kept; stock ones have about one thousand.
_MAX_ANNOUNCED: Final = 8 * 1024
#: Bytes of a registration, which with its headers is kept as long as its stream is open.
_MAX_REGISTERED: Final = 64 * 1024
#: Bytes of its texts, which are kept as long as the peer is. Servers take 8 KiB for a URL.
_MAX_KEPT: Final = 16 * 1024
#: Characters of a version, which is kept as long as the task is.
_MAX_VERSION: Final = 4096
#: Pieces are numbered in 32 bits on the wire.
_MAX_PIECES: Final = 2**32 - 1
#: Replicas that may be wanted of an imported task.
_MAX_REPLICAS: Final = 1000
#: Seconds that an imported task may live, at least and at most, as in Dragonfly: 5 minutes, 7 days.
_TTL: Final = (300, 7 * 86400)
#: Characters kept of what a host says of its failure.
_MAX_DESCRIPTION: Final = 500
#: Parts of an announcement that are sent when they have changed.
_MAY_BE_LEFT_OUT: Final = ("cpu", "memory", "network", "disk", "build")


def check_id(text: str, name: str) -> str:
    """*text*, if it may be the id of a host or a peer.

    Raises:
        InvalidRequest: It is empty or too long; the message calls it *name*.
    """
    if not text or len(text.encode()) > _MAX_ID:
        raise InvalidRequest(f"{name} {text[:100]!r}: want 1 to {_MAX_ID} bytes")
    return text


def host_facts(
    message: scheduler_pb2.AnnounceHostRequest, before: HostFacts | None = None
) -> HostFacts:
    """What a host announces.

    Args:
        message: The announcement.
        before: What the same host said last; what it leaves out now still holds.

    Raises:
        InvalidRequest: Something that is needed is missing or makes no sense.
    """
    host = message.host
    check_id(host.id, "host id")
    _check_size(message, "an announcement", _MAX_ANNOUNCED)
    interval = max(0.0, seconds(message.interval))
    if before is not None:
        known = common_pb2.Host.FromString(before.announced)
        for name in _MAY_BE_LEFT_OUT:
            if known.HasField(name) and not host.HasField(name):
                getattr(host, name).CopyFrom(getattr(known, name))
        if not message.HasField("interval"):
            interval = before.interval
    # Nobody needs to call a host that shares nothing; it may listen on no port at all.
    lowest = 0 if host.disable_shared else 1
    if not host.ip or not lowest <= host.port < 65536:
        raise InvalidRequest(f"host {host.id}: ip {host.ip!r}, port {host.port}: cannot be called")
    return replace(
        read_host(host),
        disable_shared=host.disable_shared,
        disk_free=host.disk.free,
        version=host.build.git_version,
        interval=interval,
        announced=host.SerializeToString(),
    )


def check_registration(message: Any, said: Registration, *, imported: bool = False) -> None:
    """Judge a peer's first words.

    Args:
        message: As they came.
        said: What they mean.
        imported: The task was imported: it comes from no URL.

    Raises:
        InvalidRequest: Something that is needed is missing or makes no sense.
    """
    _check_size(message, "a registration", _MAX_REGISTERED)
    request = said.request
    if not request.url and not imported:
        raise InvalidRequest("url: must not be empty")
    if request.priority not in PRIORITIES:
        raise InvalidRequest(f"priority {request.priority}: want LEVEL0 to LEVEL6")
    if said.digest:
        parse_digest(said.digest)
    check_piece_length("piece_length", request.piece_length)
    check_piece_length("actual_piece_length", said.piece_length, LEAST_PIECE_LENGTH)
    if (said.content_length or 0) > _MAX_PIECES * (said.piece_length or MIN_PIECE_LENGTH):
        raise InvalidRequest(
            f"a file of {said.content_length} bytes: more pieces than can be named"
        )
    check_id(said.host_id, "host id")
    check_task_id(said.task_id)
    check_id(said.peer_id, "peer id")
    if request.url:
        check_url(request.url)
    if request.range is not None and not request.range.length:
        raise InvalidRequest("range: its length must not be 0")
    if said.size > _MAX_KEPT:
        raise InvalidRequest(
            f"url, tag, application, ids and filtered parameters of {byte_count(said.size)}: want "
            f"at most {_MAX_KEPT}"
        )


def check_question(question: describing_pb2.Ask, request: DownloadRequest) -> None:
    """Judge what a host wants to know of cold content.

    Raises:
        InvalidRequest: Something that is needed is missing or makes no sense.
    """
    _check_size(question, "a question", _MAX_REGISTERED)
    check_id(question.host_id, "host id")
    check_task_id(question.task_id)
    check_url(request.url)
    if request.priority not in PRIORITIES:
        raise InvalidRequest(f"priority {request.priority}: want LEVEL0 to LEVEL6")


def check_version(version: str) -> None:
    """Judge what a host says that an origin calls its content.

    Raises:
        InvalidRequest: It is too long.
    """
    if len(version) > _MAX_VERSION:
        raise InvalidRequest(f"version: {len(version)} characters; want at most {_MAX_VERSION}")


def check_description(said: describing_pb2.Description) -> None:
    """Judge what a host says that its origin says.

    Raises:
        InvalidRequest: It makes no sense.
    """
    _check_size(said, "a description", _MAX_KEPT)
    check_piece_length("piece_length", said.piece_length, LEAST_PIECE_LENGTH)
    if said.content_length > _MAX_PIECES * (said.piece_length or MIN_PIECE_LENGTH):
        raise InvalidRequest(
            f"a file of {said.content_length} bytes: more pieces than can be named"
        )


def check_reading(said: describing_pb2.Reading) -> None:
    """Judge what a host says of what it reads.

    Raises:
        InvalidRequest: It makes no sense.
    """
    check_version(said.version)
    if (said.first + len(said.crcs)) * GROWTH_STEP > said.received:
        raise InvalidRequest(
            f"{byte_count(said.received)} are not {said.first + len(said.crcs)} steps of 4 MiB"
        )


def import_rows(dialect: SchedulerDialect, request: Any, now: float) -> tuple[TaskRow, PeerRow]:
    """The rows of a task that a host is about to import, and of its peer.

    Args:
        dialect: The kind's.
        request: What the host says.
        now: Unix time.

    Raises:
        InvalidRequest: Something that is needed is missing or makes no sense.
    """
    _check_size(request, "an import", _MAX_REGISTERED)
    length, piece_length = request.content_length, request.piece_length
    check_piece_length("piece_length", piece_length or -1)
    if not 1 <= request.persistent_replica_count <= _MAX_REPLICAS:
        raise InvalidRequest(
            f"persistent_replica_count {request.persistent_replica_count}: want 1 to "
            f"{_MAX_REPLICAS}"
        )
    if request.piece_count != -(-length // piece_length):
        raise InvalidRequest(
            f"piece_count {request.piece_count}: {length} bytes in pieces of {piece_length} are "
            f"{-(-length // piece_length)}"
        )
    ttl, (shortest, longest) = seconds(request.ttl), _TTL
    if not shortest <= ttl <= longest:
        raise InvalidRequest(f"ttl {ttl:g} s: want {shortest} to {longest}")
    task = TaskRow(
        kind=dialect.kind,
        id=check_task_id(request.task_id),
        replicas=request.persistent_replica_count,
        content_length=length,
        piece_length=piece_length,
        ttl=ttl,
        created_at=now,
        updated_at=now,
        tag=optional(request, "tag") or None,
        application=optional(request, "application") or None,
    )
    peer = PeerRow(
        kind=dialect.kind,
        id=check_id(request.peer_id, "peer id"),
        task_id=task.id,
        host_id=check_id(request.host_id, "host id"),
        persistent=True,
        created_at=now,
        updated_at=now,
    )
    return task, peer


def recorded_task(dialect: SchedulerDialect, row: TaskRow, counted: Count) -> Any:
    """An imported task, and how many copies of it there are."""
    return dialect.task(
        id=row.id,
        persistent_replica_count=row.replicas,
        current_persistent_replica_count=counted.kept,
        current_replica_count=counted.held,
        tag=row.tag,
        application=row.application,
        piece_length=row.piece_length,
        content_length=row.content_length,
        piece_count=row.piece_count,
        state=row.state.value,
        ttl=duration(row.ttl),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )


def recorded_peer(
    dialect: SchedulerDialect, row: PeerRow, task: Any, host: HostFacts | None
) -> Any:
    """A peer of an imported task.

    Args:
        dialect: The kind's.
        row: The peer.
        task: Its task's description.
        host: Its host; None: it is not here.
    """
    facts = HostFacts(row.host_id, "", "", 0) if host is None else host
    message = dialect.peer()
    write_candidate(
        message,
        Candidate(
            peer_id=row.id,
            host=facts,
            state=row.state.value,
            concurrent_piece_count=row.concurrent_pieces,
        ),
    )
    message.persistent = row.persistent
    message.cost.CopyFrom(duration(row.cost))
    message.task.CopyFrom(task)
    message.created_at.CopyFrom(timestamp(row.created_at))
    message.updated_at.CopyFrom(timestamp(row.updated_at))
    return message


def cut(description: str) -> str:
    """As much of what somebody says as is kept."""
    return description[:_MAX_DESCRIPTION]


def peer_message(dialect: SchedulerDialect, peer: Peer, clock_offset: float) -> Any:
    """A peer, its task and its host.

    Args:
        dialect: The kind's.
        peer: Whom.
        clock_offset: Unix time minus the world's.
    """
    message = dialect.peer()
    write_candidate(message, candidate(peer))
    message.created_at.CopyFrom(timestamp(peer.created_at + clock_offset))
    message.updated_at.CopyFrom(timestamp(peer.updated_at + clock_offset))
    message.need_back_to_source = peer.registration.request.need_back_to_source
    message.task.CopyFrom(task_message(dialect, peer.task, clock_offset))
    if peer.cost is not None:
        message.cost.CopyFrom(duration(peer.cost))
    return message


def candidate(peer: Peer) -> Candidate:
    """A parent as its children are told of it."""
    host = peer.host
    if not host.told:
        host.told = write_host(host.facts)
    return Candidate(
        peer.id,
        host.facts,
        peer.state,  # it is its own value
        peer.registration.request.priority,
        peer.range,
        peer.concurrent_pieces,
        host.told,
    )


def task_message(dialect: SchedulerDialect, task: Task, clock_offset: float) -> Any:
    """A task. Its digest and headers belong to those who gave them, and are not told."""
    wanted, (content_length, piece_length) = task.registration.request, task.shape
    message = dialect.task(
        id=task.id,
        type=int(task.kind),
        url=wanted.url,
        tag=wanted.tag,
        application=wanted.application,
        filtered_query_params=wanted.filtered_query_params,
        content_length=content_length,
        piece_count=task.piece_count,
        size_scope=_size_scope(task),
        state=task.state.value,
        peer_count=len(task.peers),
        has_available_peer=bool(task.holders),
        created_at=timestamp(task.created_at + clock_offset),
        updated_at=timestamp(task.updated_at + clock_offset),
    )
    if content_length and piece_length:
        # The message has no field for the length of a piece; the first one shows it.
        message.pieces.add(number=0, offset=0, length=min(piece_length, content_length))
    return message


def _check_size(message: Any, what: str, limit: int) -> None:
    size = message.ByteSize()
    if size > limit:
        raise InvalidRequest(f"{what} of {byte_count(size)}: want at most {limit}")


def check_piece_length(name: str, length: int | None, least: int = MIN_PIECE_LENGTH) -> None:
    """Raise InvalidRequest unless a piece may be that long, or *length* is None or 0."""
    if length and not least <= length <= MAX_PIECE_LENGTH:
        raise InvalidRequest(f"{name} {length}: want {least} to {MAX_PIECE_LENGTH} bytes")


def _size_scope(task: Task) -> common_pb2.SizeScope.ValueType:
    """As Dragonfly's scheduler classifies tasks."""
    length = task.shape.content_length
    if length == 0:
        return common_pb2.EMPTY
    if length <= 128:
        return common_pb2.TINY
    return common_pb2.SMALL if task.piece_count == 1 else common_pb2.NORMAL
