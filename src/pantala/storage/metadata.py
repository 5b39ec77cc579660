"""Records of tasks and pieces, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from pantala.errors import InvalidRequest, TaskNotFound
from pantala.model.task import Kind, PieceRecord, TaskRecord


class MetadataStore(Protocol):
    """What a node remembers of its tasks and pieces. Kinds never see each other's records.

    Every transition returns the new record, sets ``updated_at``, and raises
    :class:`~pantala.errors.TaskNotFound` for a task without a record. *now* is unix time.
    Implementations must pass ``pantala.testing.metadata_contract``.
    """

    def download_started(self, record: TaskRecord) -> TaskRecord:
        """Create the record, or refresh a known one: lengths, headers; the failure is cleared."""

    def download_finished(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """Every piece is here."""

    def download_failed(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """A download ended without all it wanted. Pieces that are here stay good."""

    def prefetch_started(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """Somebody fetches the rest. Raises InvalidRequest when somebody does already."""

    def prefetch_failed(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """Nobody fetches the rest any more."""

    def upload_started(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """A peer began to receive a piece."""

    def upload_finished(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """A peer has received a piece."""

    def upload_failed(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """A peer did not receive a piece."""

    def touch(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        """The task was used here."""

    def get(self, kind: Kind, task_id: str) -> TaskRecord | None:
        """The record, or None."""

    def exists(self, kind: Kind, task_id: str) -> bool:
        """Whether there is a record."""

    def list(self, kind: Kind | None = None) -> list[TaskRecord]:
        """All records, of one kind or of all."""

    def delete(self, kind: Kind, task_id: str) -> None:
        """Forget the task and its pieces. Nothing happens when it is unknown."""

    def piece_finished(self, kind: Kind, task_id: str, piece: PieceRecord) -> None:
        """Remember a verified piece."""

    def pieces(self, kind: Kind, task_id: str) -> Mapping[int, PieceRecord]:
        """The verified pieces by number; empty for an unknown task."""


class MemoryMetadata:
    """Records that end with the process."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[Kind, str], TaskRecord] = {}
        #: A map of pieces for each task that has a record, and for no other.
        self._pieces: dict[tuple[Kind, str], dict[int, PieceRecord]] = {}

    def _change(self, kind: Kind, task_id: str, now: float, **changes: object) -> TaskRecord:
        old = self._tasks.get((kind, task_id))
        if old is None:
            raise TaskNotFound(task_id)
        new = replace(old, updated_at=now, **changes)  # type: ignore[arg-type]  # names are checked by replace
        self._tasks[kind, task_id] = new
        return new

    def download_started(self, record: TaskRecord) -> TaskRecord:
        key = record.kind, record.id
        old = self._tasks.get(key)
        if old is None:
            self._pieces[key] = {}
        else:
            record = replace(
                old,
                updated_at=record.updated_at,
                piece_length=record.piece_length,
                content_length=record.content_length,
                response_header=record.response_header or old.response_header,
                version=record.version or old.version,
                failed_at=None,
            )
        self._tasks[key] = record
        return record

    def download_finished(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        return self._change(kind, task_id, now, finished_at=now, failed_at=None)

    def download_failed(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        return self._change(kind, task_id, now, failed_at=now)

    def prefetch_started(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        record = self._tasks.get((kind, task_id))
        if record is not None and record.prefetched_at is not None:
            raise InvalidRequest(f"task {task_id} is being prefetched already")
        return self._change(kind, task_id, now, prefetched_at=now)

    def prefetch_failed(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        return self._change(kind, task_id, now, prefetched_at=None)

    def upload_started(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        count = self._upload_count(kind, task_id)
        return self._change(kind, task_id, now, uploading_count=count + 1)

    def upload_finished(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        count = self._upload_count(kind, task_id)
        done = self._tasks[kind, task_id].uploaded_count
        return self._change(kind, task_id, now, uploading_count=count - 1, uploaded_count=done + 1)

    def upload_failed(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        count = self._upload_count(kind, task_id)
        return self._change(kind, task_id, now, uploading_count=count - 1)

    def _upload_count(self, kind: Kind, task_id: str) -> int:
        record = self._tasks.get((kind, task_id))
        if record is None:
            raise TaskNotFound(task_id)
        return record.uploading_count

    def touch(self, kind: Kind, task_id: str, now: float) -> TaskRecord:
        return self._change(kind, task_id, now)

    def get(self, kind: Kind, task_id: str) -> TaskRecord | None:
        return self._tasks.get((kind, task_id))

    def exists(self, kind: Kind, task_id: str) -> bool:
        return (kind, task_id) in self._tasks

    def list(self, kind: Kind | None = None) -> list[TaskRecord]:
        return [r for r in self._tasks.values() if kind is None or r.kind is kind]

    def delete(self, kind: Kind, task_id: str) -> None:
        self._tasks.pop((kind, task_id), None)
        self._pieces.pop((kind, task_id), None)

    def piece_finished(self, kind: Kind, task_id: str, piece: PieceRecord) -> None:
        pieces = self._pieces.get((kind, task_id))
        if pieces is None:
            raise TaskNotFound(task_id)
        pieces[piece.number] = piece

    def pieces(self, kind: Kind, task_id: str) -> Mapping[int, PieceRecord]:
        return MappingProxyType(self._pieces.get((kind, task_id), {}))
