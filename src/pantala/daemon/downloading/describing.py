"""What a content is, by the words of its origin and of the swarm."""

from __future__ import annotations

from pantala.core.policy import policy_of
from pantala.daemon.config import Backend
from pantala.model.pieces import piece_length_for
from pantala.model.task import READING, DownloadRequest, Kind, TaskRecord
from pantala.ports import KnownTask

from .origin import Origin


def revalidates(kind: Kind, backend: Backend) -> bool:
    """Contents of this kind are compared with their origins before they are given away."""
    return policy_of(kind).revalidates and backend.enable_revalidation


def is_still(record: TaskRecord, origin: Origin) -> bool:
    """Whether the content that is here is the one that its origin has now.

    Where either names no version, the length decides; where that is not told, nothing does, and
    what cannot be compared is not the same.
    """
    if origin.total is not None and origin.total != record.content_length:
        return False
    named = record.version != "" and not record.version.startswith(READING)
    if named and origin.reading is None:
        return record.version == origin.version
    return origin.total is not None


def told_piece_length(told: KnownTask, request: DownloadRequest) -> int:
    """How the swarm cuts the content.

    The first of several pieces shows it. Of a single one any length will do that makes it one.
    """
    if told.piece_count > 1 and told.first_piece:
        return told.first_piece
    length = piece_length_for(told.content_length, request.piece_length)
    return max(length, told.content_length) if told.piece_count == 1 else length
