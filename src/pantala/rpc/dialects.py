"""What daemons and schedulers tell each other, as tables: other names for each kind of task.

A row says how a kind is spoken of, not that it is served: see :mod:`pantala.core.policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pantala.errors import FeatureOff
from pantala.model import announce
from pantala.model.announce import Report
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2, scheduler_pb2

from .codec import FLAT, IMPORTED, NESTED, Codec

#: A method, and the message that it takes.
Method = tuple[str, type[Any]]


@dataclass(frozen=True, slots=True)
class ImportDialect:
    """How a host that imports a file says so.

    Attributes:
        started, finished, failed: The scheduler's methods.
        give_up: The scheduler's method by which a host has its copy forgotten.
    """

    started: Method
    finished: Method
    failed: Method
    give_up: Method


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind is spoken of.

    Attributes:
        announce: The scheduler's method that announces a download, a stream.
        codec: The messages of that stream.
        stat, delete: The scheduler's methods for a task.
        imports: None: tasks of this kind are not imported.
    """

    announce: str
    codec: Codec
    stat: Method
    delete: Method
    imports: ImportDialect | None = None


def report_arms(peer: str, *, from_source: bool = True) -> Mapping[type[Report], str]:
    """The arms of a kind that calls a peer *peer*, and may have an origin."""
    arms: dict[type[Report], str] = {
        announce.Started: f"download_{peer}_started_request",
        announce.Reschedule: f"reschedule_{peer}_request",
        announce.Finished: f"download_{peer}_finished_request",
        announce.Failed: f"download_{peer}_failed_request",
        announce.PieceFinished: "download_piece_finished_request",
        announce.PieceFailed: "download_piece_failed_request",
    }
    if from_source:
        arms |= {
            announce.SourceStarted: f"download_{peer}_back_to_source_started_request",
            announce.SourceFinished: f"download_{peer}_back_to_source_finished_request",
            announce.SourceFailed: f"download_{peer}_back_to_source_failed_request",
            announce.SourcePieceFinished: "download_piece_back_to_source_finished_request",
            announce.SourcePieceFailed: "download_piece_back_to_source_failed_request",
        }
    return arms


DIALECTS: Final[dict[Kind, Dialect]] = {
    Kind.STANDARD: Dialect(
        announce="AnnouncePeer",
        codec=Codec(
            kind=Kind.STANDARD,
            layout=NESTED,
            request=scheduler_pb2.AnnouncePeerRequest,
            register_arm="register_peer_request",
            report_arms=report_arms("peer"),
            answer=scheduler_pb2.AnnouncePeerResponse,
            answer_arms={
                announce.CandidateParents: "normal_task_response",
                announce.NeedBackToSource: "need_back_to_source_response",
                announce.EmptyTask: "empty_task_response",
                announce.MetadataOnly: "metadata_only_response",
            },
            candidates="candidate_parents",
            download=dfdaemon_pb2.DownloadTaskRequest,
        ),
        stat=("StatTask", scheduler_pb2.StatTaskRequest),
        delete=("DeleteTask", scheduler_pb2.DeleteTaskRequest),
    ),
    Kind.PERSISTENT_CACHE: Dialect(
        announce="AnnouncePersistentCachePeer",
        codec=Codec(
            kind=Kind.PERSISTENT_CACHE,
            layout=IMPORTED,
            request=scheduler_pb2.AnnouncePersistentCachePeerRequest,
            register_arm="register_persistent_cache_peer_request",
            report_arms=report_arms("persistent_cache_peer", from_source=False),
            answer=scheduler_pb2.AnnouncePersistentCachePeerResponse,
            answer_arms={
                announce.CandidateParents: "normal_persistent_cache_task_response",
                announce.EmptyTask: "empty_persistent_cache_task_response",
            },
            candidates="candidate_cache_parents",
            download=dfdaemon_pb2.DownloadPersistentCacheTaskRequest,
        ),
        stat=("StatPersistentCacheTask", scheduler_pb2.StatPersistentCacheTaskRequest),
        delete=("DeletePersistentCacheTask", scheduler_pb2.DeletePersistentCacheTaskRequest),
        imports=ImportDialect(
            started=(
                "UploadPersistentCacheTaskStarted",
                scheduler_pb2.UploadPersistentCacheTaskStartedRequest,
            ),
            finished=(
                "UploadPersistentCacheTaskFinished",
                scheduler_pb2.UploadPersistentCacheTaskFinishedRequest,
            ),
            failed=(
                "UploadPersistentCacheTaskFailed",
                scheduler_pb2.UploadPersistentCacheTaskFailedRequest,
            ),
            give_up=(
                "DeletePersistentCachePeer",
                scheduler_pb2.DeletePersistentCachePeerRequest,
            ),
        ),
    ),
    Kind.CACHE: Dialect(
        announce="AnnounceCachePeer",
        codec=Codec(
            kind=Kind.CACHE,
            layout=FLAT,
            request=scheduler_pb2.AnnounceCachePeerRequest,
            register_arm="register_cache_peer_request",
            report_arms=report_arms("cache_peer"),
            answer=scheduler_pb2.AnnounceCachePeerResponse,
            answer_arms={
                announce.CandidateParents: "normal_cache_task_response",
                announce.NeedBackToSource: "need_back_to_source_response",
                announce.EmptyTask: "empty_cache_task_response",
            },
            candidates="candidate_parents",
            download=dfdaemon_pb2.DownloadCacheTaskRequest,
        ),
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
