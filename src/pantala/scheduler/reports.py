"""``pantala.v1.Reports``: what peers have got, in batches instead of one message for each piece."""

from __future__ import annotations

import time
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from pantala.core.sched.entities import OVER
from pantala.core.sched.owners import owned
from pantala.core.sched.world import World
from pantala.errors import InvalidRequest, NotFound
from pantala.model.task import Traffic
from pantala.pb import reporting_pb2
from pantala.rpc.convert import kind_of
from pantala.rpc.reporting import piece_sums

from .callers import caller_of
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

    async def Pieces(self, request: reporting_pb2.PiecesRequest, context: Any) -> Empty:  # noqa: N802  the service's name
        """A peer has got these.

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
        if peer.state in OVER:
            raise InvalidRequest(f"peer {peer.id} is through: its pieces are told before that")
        content, piece = peer.shape
        count = -(-content // piece) if piece else 0
        sums = piece_sums(request, count, piece)
        if self._world.batch(peer, request.number, sums, time.monotonic()):
            for told in sums:
                source = told.parent_id is None
                traffic = Traffic.BACK_TO_SOURCE if source else Traffic.REMOTE_PEER
                self._metrics.pieces_finished(peer, traffic, told.count, told.length)
        return Empty()
