"""The names by which the contract calls the same things for each kind of task.

The arms of the announce talk are those that a daemon speaks, :mod:`pantala.rpc.dialects`;
here is what only a scheduler needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pantala.core.transfer import Note
from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2, scheduler_pb2
from pantala.rpc.dialects import DIALECTS, Dialect


@dataclass(frozen=True, slots=True)
class Side:
    """The scheduler's side of a dialect.

    Attributes:
        kind: Of task.
        talk: What both sides know.
        answer: Message of the announce talk to a peer.
        peer: Message that describes a peer; its fields *task* and *host* the rest.
        task: Message that describes a task.
        stat_peer, delete_peer: The scheduler's methods for a peer.
        download: The method by which a seed is asked to fetch, and its request.
        not_for_seeds: Fields of a registration that a seed's request lacks, or must not get.
    """

    kind: Kind
    talk: Dialect
    answer: type[Any]
    peer: type[Any]
    task: type[Any]
    stat_peer: str
    delete_peer: str
    download: tuple[str, type[Any]]
    not_for_seeds: tuple[str, ...]

    @property
    def notes(self) -> Mapping[str, Note]:
        """What each arm of a peer's message tells, but for the first and for what is not told."""
        return {arm: note for note, arm in self.talk.note_arms.items()}


SIDES: Final = {
    Kind.CACHE: Side(
        kind=Kind.CACHE,
        talk=DIALECTS[Kind.CACHE],
        answer=scheduler_pb2.AnnounceCachePeerResponse,
        peer=common_pb2.CachePeer,
        task=common_pb2.CacheTask,
        stat_peer="StatCachePeer",
        delete_peer="DeleteCachePeer",
        download=("DownloadCacheTask", dfdaemon_pb2.DownloadCacheTaskRequest),
        not_for_seeds=(
            # A seed fetches for all, not on the terms of the one that came first.
            "digest",
            "disable_back_to_source",
            "need_piece_content",
            "output_path",
            "timeout",
            # The rest have other numbers, or none, in a request to a daemon.
            "concurrent_piece_count",
            "actual_piece_length",
            "actual_content_length",
            "actual_piece_count",
        ),
    ),
}
