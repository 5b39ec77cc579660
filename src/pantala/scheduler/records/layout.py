"""Keys and fields of imported tasks in Redis, as Dragonfly's scheduler has them.

    P = scheduler:scheduler-clusters:{cluster}:

    P persistent-cache-tasks:{task}                                     hash   a task
    … :persistent-cache-peers-for-persistent-cache-task                 set    its peers
    … :persistent-peers-for-persistent-cache-task                       set    those with replicas
    P persistent-cache-peers-for-persistent-cache-task:{peer}           hash   a peer
    P persistent-cache-hosts:{host}:persistent-cache-peers-for-…        set    a host's peers

A hash that lacks a field, or has one that makes no sense, is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.states import PeerState, TaskState
from pantala.model.task import Kind

Fields = Mapping[bytes, bytes]

#: The word in all keys of a kind.
_NAMES: Final = {Kind.PERSISTENT_CACHE: "persistent-cache"}

_SECOND: Final = 1_000_000_000
_WORD: Final = 64


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one kind in one cluster.

    Args:
        cluster: ``manager.schedulerClusterID``.
        kind: Of task.
    """

    cluster: int
    kind: Kind

    @property
    def _prefix(self) -> str:
        return f"scheduler:scheduler-clusters:{self.cluster}:"

    @property
    def _name(self) -> str:
        return _NAMES[self.kind]

    @property
    def _peers(self) -> str:
        return f"{self._name}-peers-for-{self._name}-task"

    @property
    def tasks(self) -> str:
        """What all keys of tasks open with, those of their sets, too."""
        return f"{self._prefix}{self._name}-tasks:"

    def task(self, task_id: str) -> str:
        """The key of a task's hash."""
        return self.tasks + task_id

    def peers(self, task_id: str) -> str:
        """Set of a task's peers."""
        return f"{self.task(task_id)}:{self._peers}"

    def replicas(self, task_id: str) -> str:
        """Set of those that are persistent."""
        return f"{self.task(task_id)}:persistent-peers-for-{self._name}-task"

    def peer(self, peer_id: str) -> str:
        """The key of a peer's hash."""
        return f"{self._prefix}{self._peers}:{peer_id}"

    def host_peers(self, host_id: str) -> str:
        """Set of a host's peers."""
        return (
            f"{self._prefix}{self._name}-hosts:{host_id}:{self._name}-peers-for-{self._name}-task"
        )

    def lease(self, name: str) -> str:
        """Of ours: who does *name* now."""
        return f"{self._prefix}{self._name}-pantala-lease:{name}"


def task_fields(row: TaskRow) -> dict[str, str | bytes]:
    """A task as a hash."""
    return {
        "id": row.id,
        "persistent_replica_count": str(row.replicas),
        "tag": row.tag or "",
        "application": row.application or "",
        "piece_length": str(row.piece_length),
        "content_length": str(row.content_length),
        "total_piece_count": str(row.piece_count),
        "state": row.state.value,
        "ttl": str(round(row.ttl * _SECOND)),
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at),
    }


def task_row(kind: Kind, fields: Fields) -> TaskRow | None:
    """A hash as a task; None: it is none."""
    try:
        return TaskRow(
            kind,
            _text(fields, "id"),
            replicas=_int(fields, "persistent_replica_count"),
            content_length=_int(fields, "content_length"),
            piece_length=_int(fields, "piece_length"),
            ttl=_int(fields, "ttl") / _SECOND,
            created_at=_unix(fields, "created_at"),
            updated_at=_unix(fields, "updated_at"),
            state=TaskState(_text(fields, "state")),
            tag=_text(fields, "tag") or None,
            application=_text(fields, "application") or None,
        )
    except (KeyError, ValueError):
        return None


def peer_fields(row: PeerRow, piece_count: int) -> dict[str, str | bytes]:
    """A peer as a hash. What is known of its pieces is whether it has all."""
    whole = row.state is PeerState.SUCCEEDED
    return {
        "id": row.id,
        "persistent": str(int(row.persistent)),
        "finished_pieces": bitset(piece_count, full=whole),
        "state": row.state.value,
        "block_parents": "[]",
        "task_id": row.task_id,
        "host_id": row.host_id,
        "cost": str(round(row.cost * _SECOND)),
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at),
        "concurrent_piece_count": str(row.concurrent_pieces),
    }


def peer_row(kind: Kind, fields: Fields) -> PeerRow | None:
    """A hash as a peer; None: it is none."""
    try:
        return PeerRow(
            kind,
            _text(fields, "id"),
            task_id=_text(fields, "task_id"),
            host_id=_text(fields, "host_id"),
            persistent=_text(fields, "persistent") in ("1", "true"),
            created_at=_unix(fields, "created_at"),
            updated_at=_unix(fields, "updated_at"),
            state=PeerState(_text(fields, "state")),
            cost=_int(fields, "cost") / _SECOND,
            concurrent_pieces=_int(fields, "concurrent_piece_count"),
        )
    except (KeyError, ValueError):
        return None


def bitset(length: int, *, full: bool) -> bytes:
    """So many bits, all set or none: their number, then words of 64, all of them big-endian."""
    words = -(-length // _WORD)
    bits = (1 << length) - 1 if full else 0
    mask = (1 << _WORD) - 1
    body = b"".join(((bits >> (_WORD * n)) & mask).to_bytes(8, "big") for n in range(words))
    return length.to_bytes(8, "big") + body


def _time(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unix(fields: Fields, name: str) -> float:
    return datetime.fromisoformat(_text(fields, name)).timestamp()


def _text(fields: Fields, name: str) -> str:
    return fields[name.encode()].decode()


def _int(fields: Fields, name: str) -> int:
    return int(_text(fields, name))
