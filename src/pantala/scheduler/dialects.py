"""The names by which the contract calls the same things for each kind of task.

The messages of the announce stream are those of :mod:`pantala.rpc.dialects`; here is what only a
scheduler needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2
from pantala.rpc.dialects import DIALECTS, Dialect


@dataclass(frozen=True, slots=True)
class ImportNames:
    """What a scheduler asks of daemons for a kind whose tasks are imported.

    Attributes:
        keep: A daemon's method, and its request, by which its copy becomes a replica.
        drop: Likewise, by which it deletes its copy.
    """

    keep: tuple[str, type[Any]]
    drop: tuple[str, type[Any]]


@dataclass(frozen=True, slots=True)
class SchedulerDialect:
    """How a scheduler speaks of one kind.

    Attributes:
        kind: Of task.
        shared: What daemons use as well.
        peer: Message that describes a peer; its fields *task* and *host* the rest.
        task: Message that describes a task.
        stat_peer, delete_peer: The scheduler's methods for a peer.
        download: The method by which a seed is asked to fetch, or a host to keep a replica.
        imports: None: tasks of this kind are not imported.
    """

    kind: Kind
    shared: Dialect
    peer: type[Any]
    task: type[Any]
    stat_peer: str
    delete_peer: str
    download: str
    imports: ImportNames | None = None


SCHEDULER_DIALECTS: Final = {
    Kind.STANDARD: SchedulerDialect(
        kind=Kind.STANDARD,
        shared=DIALECTS[Kind.STANDARD],
        peer=common_pb2.Peer,
        task=common_pb2.Task,
        stat_peer="StatPeer",
        delete_peer="DeletePeer",
        download="DownloadTask",
    ),
    Kind.CACHE: SchedulerDialect(
        kind=Kind.CACHE,
        shared=DIALECTS[Kind.CACHE],
        peer=common_pb2.CachePeer,
        task=common_pb2.CacheTask,
        stat_peer="StatCachePeer",
        delete_peer="DeleteCachePeer",
        download="DownloadCacheTask",
    ),
    Kind.PERSISTENT_CACHE: SchedulerDialect(
        kind=Kind.PERSISTENT_CACHE,
        shared=DIALECTS[Kind.PERSISTENT_CACHE],
        peer=common_pb2.PersistentCachePeer,
        task=common_pb2.PersistentCacheTask,
        stat_peer="StatPersistentCachePeer",
        delete_peer="DeletePersistentCachePeer",
        download="DownloadPersistentCacheTask",
        imports=ImportNames(
            keep=("UpdatePersistentCacheTask", dfdaemon_pb2.UpdatePersistentCacheTaskRequest),
            drop=("DeletePersistentCacheTask", dfdaemon_pb2.DeletePersistentCacheTaskRequest),
        ),
    ),
}
