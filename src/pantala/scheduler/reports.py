"""``pantala.v1.Reports``: what peers have got, in batches instead of one message for each piece.

The answers say what pieces must be, as those know who read the origin
(:mod:`pantala.core.sched.digests`).
"""

from __future__ import annotations

import time
from typing import Any, Final

from pantala.core.sched.entities import OVER, Peer
from pantala.core.sched.owners import owned
from pantala.core.sched.world import World
from pantala.errors import InvalidRequest, NotFound
from pantala.model.task import Traffic
from pantala.pb import reporting_pb2
from pantala.rpc.convert import kind_of
from pantala.rpc.reporting import digest_messages, digest_runs, lacking, piece_sums

from .callers import caller_of
from .convert import check_version
from .metrics import Metrics

SERVICE: Final = reporting_pb2.DESCRIPTOR.services_by_name["Reports"].full_name


class ReportService:
    """Takes batches. What a batch says counts as if the announce stream had said it.

    Args:
        world: What is known.
        metrics: Told of everything.
    """

    def __init__(self, world: World, metrics: Metrics) -> None:
        self._world = world
        self._metrics = metrics

    async def Pieces(  # noqa: N802  the service's name
        self, request: reporting_pb2.PiecesRequest, context: Any
    ) -> reporting_pb2.PiecesResponse:
        """A peer has got these, or asks what some must be.

        Raises:
            HostUnknown: The host has not announced itself.
            NotYours: The host is another's.
            NotFound: It has no such peer of that task.
            InvalidRequest: What is said cannot be true.
        """
        host = owned(self._world, request.host_id, caller_of(context))
        peer = self._world.peer((kind_of(request.type), request.peer_id))
        if peer.host is not host or peer.task.id != request.task_id:
            raise NotFound(
                f"peer {peer.id} is not known here as one of host {host.id} and task "
                f"{request.task_id}"
            )
        check_version(request.version)
        count = peer.shape.piece_count
        lacks, read = lacking(request), digest_runs(request.read, count)
        differs = 0
        self._world.learn_version(peer, request.version)
        if request.number or request.pieces or read:
            self._take(peer, request)
            differs = self._world.digests.hear(peer, request.version, read)
        version, runs = self._world.digests.tell(peer, request.version, lacks | differs)
        return reporting_pb2.PiecesResponse(version=version, digests=digest_messages(runs))

    def _take(self, peer: Peer, request: reporting_pb2.PiecesRequest) -> None:
        """Count a batch, if it has not been counted before."""
        if peer.state in OVER:
            raise InvalidRequest(f"peer {peer.id} is through: its pieces are told before that")
        sums = piece_sums(request, peer.shape.piece_count, peer.shape.piece_length)
        if self._world.batch(peer, request.number, sums, time.monotonic()):
            for told in sums:
                source = told.parent_id is None
                traffic = Traffic.BACK_TO_SOURCE if source else Traffic.REMOTE_PEER
                self._metrics.pieces_finished(peer, traffic, told.count, told.length)
