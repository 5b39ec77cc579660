"""The conversations with schedulers as tables: same shape, other names for each kind of task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from pantala.core.transfer import Note
from pantala.errors import FeatureOff
from pantala.model.task import Kind
from pantala.pb import scheduler_pb2


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind is spoken of.

    Attributes:
        announce: The scheduler's method for the talk about a download.
        request: Its message to the scheduler; the arms of its oneof are below.
        register_arm: The arm that opens the talk.
        note_arms: The arm of each other thing that the scheduler is told.
        normal_arm, empty_arm: Arms of the scheduler's answer.
        stat, delete: The scheduler's methods for a task.
    """

    announce: str
    request: type[Any]
    register_arm: str
    note_arms: dict[Note, str]
    normal_arm: str
    empty_arm: str
    stat: tuple[str, type[Any]]
    delete: tuple[str, type[Any]]

    def message(self, ids: dict[str, str], arm: str) -> tuple[Any, Message]:
        """A message to the scheduler with *arm* set, and that arm, to be filled in."""
        message = self.request(**ids)
        part = getattr(message, arm)
        part.SetInParent()
        return message, part


DIALECTS: Final = {
    Kind.CACHE: Dialect(
        announce="AnnounceCachePeer",
        request=scheduler_pb2.AnnounceCachePeerRequest,
        register_arm="register_cache_peer_request",
        note_arms={
            Note.STARTED: "download_cache_peer_started_request",
            Note.RESCHEDULE: "reschedule_cache_peer_request",
            Note.FINISHED: "download_cache_peer_finished_request",
            Note.FAILED: "download_cache_peer_failed_request",
            Note.PIECE_FINISHED: "download_piece_finished_request",
            Note.PIECE_FAILED: "download_piece_failed_request",
            Note.SOURCE_STARTED: "download_cache_peer_back_to_source_started_request",
            Note.SOURCE_PIECE_FINISHED: "download_piece_back_to_source_finished_request",
            Note.SOURCE_PIECE_FAILED: "download_piece_back_to_source_failed_request",
            Note.SOURCE_FINISHED: "download_cache_peer_back_to_source_finished_request",
            Note.SOURCE_FAILED: "download_cache_peer_back_to_source_failed_request",
        },
        normal_arm="normal_cache_task_response",
        empty_arm="empty_cache_task_response",
        stat=("StatCacheTask", scheduler_pb2.StatCacheTaskRequest),
        delete=("DeleteCacheTask", scheduler_pb2.DeleteCacheTaskRequest),
    ),
}


def dialect_of(kind: Kind) -> Dialect:
    """The row of *kind*. Raises FeatureOff for a kind that nobody speaks of yet."""
    try:
        return DIALECTS[kind]
    except KeyError:
        raise FeatureOff(f"{kind.name} tasks are not served") from None
