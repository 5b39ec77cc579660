"""Interfaces between the engine and the world. Adapters implement them, ``daemon`` joins them.

- :mod:`.places`: where bytes go, and where they lie: memory, or a file
- :mod:`.sources`: origins, whatever they are asked by
- :mod:`.schedulers`: what a daemon needs of its schedulers
- :mod:`.parents`: other daemons as parents
- :mod:`.cluster`: where a scheduler learns what is wanted of its cluster
"""

from .cluster import ClusterSource
from .parents import ParentLink, Wants
from .places import Extent, MemoryExtent, MemorySink, Sink, fill
from .schedulers import AnnounceStream, Digests, KnownTask, SchedulerLink, Turn
from .sources import Abort, Source, SourceBody, SourceRequest

__all__ = [
    "Abort",
    "AnnounceStream",
    "ClusterSource",
    "Digests",
    "Extent",
    "KnownTask",
    "MemoryExtent",
    "MemorySink",
    "ParentLink",
    "SchedulerLink",
    "Sink",
    "Source",
    "SourceBody",
    "SourceRequest",
    "Turn",
    "Wants",
    "fill",
]
