"""Messages to values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind, PieceRecord, TaskRecord, Traffic
from pantala.pb import common_pb2

#: Fields that a request to a daemon, a register message and a DownloadRequest have in common,
#: by name and meaning; *range* has a type of its own.
_SAME: Final = (
    "tag",
    "application",
    "piece_length",
    "content_for_calculating_task_id",
    "remote_ip",
)
_SAME_FLAGS: Final = (
    "disable_back_to_source",
    "need_back_to_source",
    "prefetch",
    "is_prefetch",
)

#: Weight of a host that says nothing of its bandwidth, as Dragonfly's client.
_DEFAULT_WEIGHT: Final = 10e9


class _HasFields(Protocol):
    def HasField(self, name: str, /) -> bool: ...  # noqa: N802  protobuf's name


def optional(message: _HasFields, name: str) -> Any:
    """A field's value, or None when it is unset."""
    return getattr(message, name) if message.HasField(name) else None


def weight_of(network: common_pb2.Network) -> float:
    """What a host can still send, bits a second: above 0, however busy it says it is.

    A tenth of all is left to every host, as Dragonfly's client has it.
    """
    most, used = network.max_tx_bandwidth, network.tx_bandwidth
    return float(max(most - used, most / 10)) if most else _DEFAULT_WEIGHT


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
    """What a caller asks for, from a ``Download…TaskRequest`` with flat fields."""
    wanted = message.range if message.HasField("range") else None
    return DownloadRequest(
        kind=kind,
        url=message.url,
        range=ByteRange(wanted.start, wanted.length) if wanted else None,
        priority=message.priority,
        filtered_query_params=tuple(message.filtered_query_params),
        request_header=dict(message.request_header),
        **{name: optional(message, name) for name in _SAME},
        **{name: getattr(message, name) for name in _SAME_FLAGS},
    )


def delivery(message: Any) -> Delivery:
    """How the caller of :func:`download_request` wants to get it."""
    return Delivery(
        digest=optional(message, "digest"),
        timeout=seconds(message.timeout) if message.HasField("timeout") else None,
        need_piece_content=message.need_piece_content,
        output_path=optional(message, "output_path"),
        overwrite=message.overwrite,
    )


def fill_register(message: Any, request: DownloadRequest) -> None:
    """Write *request* into a register message.

    Secrets in the URL and in headers go along, for a seed may fetch with them; the scheduler tells
    nobody else.
    """
    message.url = request.url
    message.type = int(request.kind)
    message.priority = request.priority
    message.filtered_query_params.extend(request.filtered_query_params)
    message.request_header.update(request.request_header)
    if request.range is not None:
        message.range.start, message.range.length = request.range.start, request.range.length
    for name in _SAME:
        value = getattr(request, name)
        if value is not None:
            setattr(message, name, value)
    for name in _SAME_FLAGS:
        setattr(message, name, getattr(request, name))


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
        **{name: timestamp(at) for name, at in known.items()},
    )
