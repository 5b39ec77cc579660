"""The names by which the contract calls the same things for each kind of task.

The messages of the announce talk are those of :mod:`pantala.rpc.dialects`; here is what only a
scheduler needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pantala.model.task import Kind
from pantala.pb import common_pb2
from pantala.rpc.dialects import DIALECTS, Dialect


@dataclass(frozen=True, slots=True)
class Side:
    """The scheduler's side of a dialect.

    Attributes:
        kind: Of task.
        talk: What both sides know.
        peer: Message that describes a peer; its fields *task* and *host* the rest.
        task: Message that describes a task.
        stat_peer, delete_peer: The scheduler's methods for a peer.
        download: The method by which a seed is asked to fetch.
    """

    kind: Kind
    talk: Dialect
    peer: type[Any]
    task: type[Any]
    stat_peer: str
    delete_peer: str
    download: str


SIDES: Final = {
    Kind.STANDARD: Side(
        kind=Kind.STANDARD,
        talk=DIALECTS[Kind.STANDARD],
        peer=common_pb2.Peer,
        task=common_pb2.Task,
        stat_peer="StatPeer",
        delete_peer="DeletePeer",
        download="DownloadTask",
    ),
    Kind.CACHE: Side(
        kind=Kind.CACHE,
        talk=DIALECTS[Kind.CACHE],
        peer=common_pb2.CachePeer,
        task=common_pb2.CacheTask,
        stat_peer="StatCachePeer",
        delete_peer="DeleteCachePeer",
        download="DownloadCacheTask",
    ),
}
