"""Messages to values, and back."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pantala.errors import InvalidRequest
from pantala.model.pieces import ByteRange
from pantala.model.task import (
    Delivery,
    DownloadRequest,
    ImportRequest,
    Kind,
    PieceRecord,
    TaskRecord,
    Traffic,
)
from pantala.pb import common_pb2

_TRAFFIC: Final = {int(traffic): traffic for traffic in Traffic}

#: Fields of a DownloadRequest that messages have by the same name and meaning...
_SAME: Final = (
    "url",
    "task_id",
    "persistent",
    "tag",
    "application",
    "priority",
    "piece_length",
    "disable_back_to_source",
    "need_back_to_source",
    "prefetch",
    "is_prefetch",
    "content_for_calculating_task_id",
    "remote_ip",
    "enable_task_id_based_blob_digest",
)
#: ...those of several values...
_LISTS: Final = ("filtered_query_params", "certificate_chain")
#: ...and messages by which special origins let somebody in.
_ACCESS: Final = ("object_storage", "hdfs", "hugging_face", "model_scope")


class _HasFields(Protocol):
    def HasField(self, name: str, /) -> bool: ...  # noqa: N802  protobuf's name


def optional(message: _HasFields, name: str) -> Any:
    """A field's value, or None when it is unset."""
    return getattr(message, name) if message.HasField(name) else None


def put(message: Any, name: str | None, value: Any) -> None:
    """Set a field that there is, to a value that there is."""
    if value is not None and name is not None and name in _fields(message):
        setattr(message, name, value)


def get(message: Any, name: str | None) -> Any:
    """A field's value; None where it is not there, or not set."""
    if name is None:
        return None
    can_be_unset = _fields(message).get(name)
    if can_be_unset is None or (can_be_unset and not message.HasField(name)):
        return None
    return getattr(message, name)


def _fields(message: Any) -> Mapping[str, bool]:
    """The fields that a message has; True for those that can be unset."""
    return _fields_of(message.DESCRIPTOR)


@functools.lru_cache(maxsize=256)  # of the classes of messages
def _fields_of(descriptor: Any) -> Mapping[str, bool]:
    return {field.name: field.has_presence for field in descriptor.fields}


def kind_of(number: int) -> Kind:
    """The kind of that number. Raises InvalidRequest if there is none."""
    try:
        return Kind(number)
    except ValueError:
        known = ", ".join(common_pb2.TaskType.keys())
        raise InvalidRequest(f"no kind of task is number {number}: want one of {known}") from None


def duration(seconds: float) -> Duration:
    """*seconds* as a message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: Duration) -> float:
    """A duration in seconds."""
    return message.ToNanoseconds() / 1e9


def timestamp(at: float) -> Timestamp:
    """Unix time as a message."""
    message = Timestamp()
    message.FromNanoseconds(round(at * 1e9))
    return message


def download_request(kind: Kind, message: Any) -> DownloadRequest:
    """What is wanted, as far as a message of that kind has fields for it."""
    fields = _fields(message)
    same = {name: get(message, name) for name in _SAME if name in fields}
    lists = {name: tuple(getattr(message, name)) for name in _LISTS if name in fields}
    access = {
        name: {field.name: value for field, value in getattr(message, name).ListFields()}
        for name in _ACCESS
        if name in fields and message.HasField(name)
    }
    return DownloadRequest(
        kind=kind,
        range=read_range(message),
        request_header=dict(message.request_header) if "request_header" in fields else {},
        access=access,
        **({"url": ""} | same | lists | {"task_id": same.get("task_id") or None}),
    )


def fill_download(message: Any, request: DownloadRequest) -> None:
    """Write *request* into a message, as far as that has fields for it.

    Secrets in the URL and in headers go along, for a seed may fetch with them; the scheduler tells
    nobody else.
    """
    fields = _fields(message)
    for name in _SAME:
        put(message, name, getattr(request, name))
    for name in _LISTS:
        if name in fields:
            getattr(message, name).extend(getattr(request, name))
    put(message, "type", int(request.kind))
    if "request_header" in fields:
        message.request_header.update(request.request_header)
    write_range(message, request.range)
    for name, values in request.access.items():
        if name in fields:
            told = getattr(message, name)
            told.SetInParent()
            for field, value in values.items():
                setattr(told, field, value)


def read_range(message: Any) -> ByteRange | None:
    """The range in a message; None where it has none."""
    wanted = get(message, "range")
    return None if wanted is None else ByteRange(wanted.start, wanted.length)


def write_range(message: Any, part: ByteRange | None) -> None:
    """Set the range in a message that can have one."""
    if part is not None and "range" in _fields(message):
        message.range.start, message.range.length = part.start, part.length


def delivery(message: Any) -> Delivery:
    """How the caller of :func:`download_request` wants to get it."""
    return Delivery(
        digest=optional(message, "digest"),
        timeout=seconds(message.timeout) if message.HasField("timeout") else None,
        need_piece_content=message.need_piece_content,
        output_path=optional(message, "output_path"),
        overwrite=message.overwrite,
        # Of those that keep content in files alone.
        force_hard_link=getattr(message, "force_hard_link", False),
    )


def import_request(kind: Kind, message: Any, *, ttl: float) -> ImportRequest:
    """What a caller wants to import.

    Args:
        kind: Of the task that it becomes.
        message: What the caller says.
        ttl: Seconds that it lives if the caller does not say.
    """
    return ImportRequest(
        kind=kind,
        path=message.path,
        replicas=message.persistent_replica_count,
        ttl=seconds(message.ttl) if message.HasField("ttl") else ttl,
        content_for_calculating_task_id=optional(message, "content_for_calculating_task_id"),
        tag=optional(message, "tag"),
        application=optional(message, "application"),
        piece_length=optional(message, "piece_length"),
        timeout=seconds(message.timeout) if message.HasField("timeout") else None,
    )


def piece_message(piece: PieceRecord, *, traffic: Traffic | None = None) -> common_pb2.Piece:
    """A piece without its content. *traffic* stands in for the piece's own."""
    return common_pb2.Piece(
        number=piece.number,
        parent_id=piece.parent_id,
        offset=piece.offset,
        length=piece.length,
        digest=piece.digest,
        traffic_type=cast(
            "common_pb2.TrafficType.ValueType", int(piece.traffic if traffic is None else traffic)
        ),
        cost=duration(piece.cost),
        created_at=timestamp(piece.created_at),
    )


def piece_record(message: common_pb2.Piece, traffic: Traffic) -> PieceRecord:
    """What a peer says of a piece; *traffic* stands in where it does not say how that came."""
    said = _TRAFFIC.get(message.traffic_type) if message.HasField("traffic_type") else None
    created = message.created_at if message.HasField("created_at") else None
    return PieceRecord(
        number=message.number,
        offset=message.offset,
        length=message.length,
        digest=message.digest,
        parent_id=message.parent_id if message.HasField("parent_id") else None,
        traffic=traffic if said is None else said,
        cost=seconds(message.cost) if message.HasField("cost") else 0.0,
        created_at=0.0 if created is None else created.ToNanoseconds() / 1e9,
    )


def plan_messages(pieces: Iterable[Any]) -> list[common_pb2.Piece]:
    """Pieces that are only planned: number, offset, length."""
    return [common_pb2.Piece(number=p.number, offset=p.offset, length=p.length) for p in pieces]


def with_fields(message: type[Any], **values: Any) -> Any:
    """A message with those of *values* for which it has a field, and which are not None.

    What is said of the same thing differs from kind to kind of task.
    """
    fields = message.DESCRIPTOR.fields_by_name
    return message(**{k: v for k, v in values.items() if k in fields and v is not None})


def task_message(
    message: type[Any], record: TaskRecord, pieces: Mapping[int, PieceRecord], *, complete: bool
) -> Any:
    """A task as this node alone knows it, as the *message* of its kind."""
    return with_fields(
        message,
        id=record.id,
        type=int(record.kind),
        url=record.url,
        tag=record.tag,
        application=record.application,
        piece_length=record.piece_length,
        content_length=record.content_length or 0,
        piece_count=record.piece_count or 0,
        pieces=[piece_message(p) for _, p in sorted(pieces.items())],
        state="Succeeded" if complete else "Running",
        ttl=None if record.ttl is None else duration(record.ttl),
        peer_count=1,
        has_available_peer=complete,
        created_at=timestamp(record.created_at),
        updated_at=timestamp(record.updated_at),
    )


def local_task_message(message: type[Any], record: TaskRecord) -> Any:
    """What this node keeps of a task, as the *message* of its kind."""
    times = ("created_at", "updated_at", "prefetched_at", "failed_at", "finished_at")
    known = {name: at for name in times if (at := getattr(record, name)) is not None}
    return with_fields(
        message,
        task_id=record.id,
        piece_length=record.piece_length,
        content_length=record.content_length,
        response_header=dict(record.response_header),
        uploading_count=record.uploading_count,
        uploaded_count=record.uploaded_count,
        persistent=record.persistent,
        ttl=None if record.ttl is None else duration(record.ttl),
        **{name: timestamp(at) for name, at in known.items()},
    )
