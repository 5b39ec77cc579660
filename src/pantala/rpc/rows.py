"""Tasks as rows of JSON: what ``dfctl --json`` prints, whichever socket it asked.

Numbers are bytes, times are RFC 3339, and what may be absent and is, is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from pantala.model.urls import public_url

Row = Mapping[str, Any]

#: What a scheduler's word on a task can hold. Request headers are left out: they may hold secrets.
_STAT_FIELDS: Final = (
    *("id", "url", "tag", "application", "digest", "state"),
    *("piece_length", "content_length", "piece_count", "peer_count", "has_available_peer"),
    *("persistent_replica_count", "current_persistent_replica_count", "current_replica_count"),
    *("ttl", "created_at", "updated_at"),
)


def node_row(task: Any, type_name: str) -> Row:
    """A task that a daemon of ours holds.

    A piece is never longer than the content, whatever was asked for: of a single piece
    :func:`stat_row` could not tell more. Without a piece there is no length.
    """
    return {
        "id": task.id,
        "type": type_name,
        "url": public_url(task.url),
        "tag": _optional(task, "tag"),
        "application": _optional(task, "application"),
        "piece_length": min(task.piece_length, task.content_length) or None,
        "content_length": task.content_length,
        "piece_count": task.piece_count,
        "finished_piece_count": task.finished_piece_count,
        "reserved_bytes": task.reserved_bytes,
        "lease_count": task.lease_count,
        "uploaded_count": task.uploaded_count,
        **{name: _optional(task, name) for name in ("created_at", "finished_at")},
        **{name: _optional(task, name) for name in ("failed_at", "updated_at")},
    }


def local_row(task: Any, type_name: str) -> Row:
    """A task that a stock daemon holds, which tells less."""
    return {
        "id": task.task_id,
        "type": type_name,
        "piece_length": _optional(task, "piece_length"),
        "content_length": _optional(task, "content_length"),
        "uploaded_count": task.uploaded_count,
        **{name: _optional(task, name) for name in ("created_at", "finished_at")},
        **{name: _optional(task, name) for name in ("failed_at", "updated_at")},
    }


def stat_row(task: Any) -> Row:
    """What is known of a task, whatever its kind: that much of it as its message has."""
    known = task.DESCRIPTOR.fields_by_name
    row = {name: _optional(task, name) for name in _STAT_FIELDS if name in known}
    if "url" in row:
        row["url"] = public_url(task.url)
    if "piece_length" not in known:
        row["piece_length"] = _piece_length(task)
    elif not task.piece_count:
        row["piece_length"] = None
    return {name: row[name] for name in _STAT_FIELDS if name in row}


def holder_row(holder: Any) -> Row:
    """A host that holds some of a task, and how much; null where it has not said."""
    said = not holder.unanswered
    return {
        "host_id": holder.host_id,
        "hostname": holder.hostname,
        "ip": holder.ip,
        "type": "seed" if holder.is_seed else "normal",
        "state": holder.state,
        "complete": holder.complete if said else None,
        **{
            name: _optional(holder, name)
            for name in ("finished_piece_count", "piece_count", "finished_bytes")
        },
        "unanswered": holder.unanswered or None,
    }


def _optional(task: Any, name: str) -> Any:
    """A field's value; None where it may be absent and is."""
    field = task.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not task.HasField(name):
        return None
    value = getattr(task, name)
    if field.message_type is None:
        return value
    if field.message_type.full_name == "google.protobuf.Duration":
        return value.ToNanoseconds() / 1e9
    return value.ToDatetime(UTC).isoformat(timespec="seconds")


def _piece_length(task: Any) -> int | None:
    """Bytes in every piece but the last; None if *task* lists no piece to tell it from."""
    if not task.pieces:
        return None
    # It may be the last, which is shorter: where it begins tells how long those before it are.
    piece = task.pieces[0]
    return int(piece.offset // piece.number if piece.number else piece.length)
