"""What the downloads of a node share with each other, and with nobody else."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from pantala.daemon.config import DaemonConfig
from pantala.daemon.node import Node
from pantala.daemon.throttle import Throttle
from pantala.net.piece_client import Connections
from pantala.rpc.parent_link import GrpcParents
from pantala.sources.registry import Registry

from .download import Download
from .race import Spare
from .room import Rooms
from .sources import sources
from .suspects import Suspects
from .weights import Weights


class Bandwidth(NamedTuple):
    """Limits of what all downloads receive, in bytes a second.

    Attributes:
        download: From anywhere.
        source: From origins.
        prefetch: For nobody who waits.
    """

    download: Throttle
    source: Throttle
    prefetch: Throttle

    @classmethod
    def of(cls, config: DaemonConfig) -> Self:
        """Those of the settings."""
        return cls(
            Throttle(config.download.bandwidth_limit),
            Throttle(config.download.back_to_source_bandwidth_limit),
            Throttle(config.proxy.prefetch_bandwidth_limit),
        )


@dataclass(frozen=True, slots=True)
class Means:
    """See the module. The engine makes it.

    Attributes:
        rooms: Those who wait for room.
        sources: How origins are asked.
        parents: How parents are asked for what they have, and can give.
        connections: To parents, for pieces; kept for the next one.
        weights: What the hosts of parents can give.
        suspects: Who gave what was wrong.
        spare: Buffers for second fetches.
        bandwidth: How much may be received.
        rng: Chooses parents.
    """

    rooms: Rooms
    sources: Registry
    parents: GrpcParents
    connections: Connections
    weights: Weights
    suspects: Suspects
    spare: Spare
    bandwidth: Bandwidth
    rng: random.Random

    @classmethod
    def of(cls, node: Node, begin: Callable[[Download], None]) -> Self:
        """Those of a node.

        Args:
            node: It.
            begin: Begins a download anew for which there is room now.
        """
        parents = GrpcParents(node.config.host_id)
        return cls(
            rooms=Rooms(node.stores, begin),
            sources=sources(node.config.backend, node.metrics),
            parents=parents,
            connections=Connections(),
            weights=Weights(parents, node.tasks),
            suspects=Suspects(),
            spare=Spare(),
            bandwidth=Bandwidth.of(node.config),
            rng=random.Random(),  # noqa: S311  chooses parents, keeps no secret
        )

    async def close(self) -> None:
        """Hang up on all parents; when no download is under way any more."""
        self.connections.close()
        await self.parents.close()
