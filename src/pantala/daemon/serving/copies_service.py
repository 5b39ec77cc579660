"""``pantala.v1.Copies``: what schedulers ask of what is here, beyond the contract."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from pantala.daemon.importing.importer import Importer
from pantala.daemon.node import Node
from pantala.errors import TaskNotFound
from pantala.model.ids import check_task_id
from pantala.pb import node_pb2
from pantala.rpc.convert import kind_of
from pantala.rpc.import_calls import version_of
from pantala.storage.home import Reason

COPIES_SERVICE: Final = node_pb2.DESCRIPTOR.services_by_name["Copies"].full_name


class CopiesService:
    """Its methods.

    Args:
        node: What all rooms share.
        importer: Knows what is being imported.
    """

    def __init__(self, node: Node, importer: Importer) -> None:
        self._node = node
        self._importer = importer

    async def IsImporting(self, request: Any, _: Any) -> Any:  # noqa: N802  the service's name
        """Whether an import goes on; see ``node.proto``."""
        key = kind_of(request.type), check_task_id(request.task_id)
        goes_on = self._importer.carries_on(*key, request.peer_id)
        return node_pb2.IsImportingResponse(is_importing=goes_on)

    async def Stat(self, request: Any, _: Any) -> Any:  # noqa: N802  the service's name
        """How much of a task is here; see ``node.proto``."""
        kind, task_id = kind_of(request.type), check_task_id(request.task_id)
        holding = self._node.stores.get(kind, task_id)
        if holding is None:
            raise TaskNotFound(task_id)
        return node_pb2.StatCopyResponse(
            complete=holding.complete,
            finished_piece_count=len(holding.pieces),
            piece_count=holding.record.piece_count or 0,
            finished_bytes=sum(piece.length for piece in holding.pieces.values()),
        )

    async def Delete(self, request: Any, _: Any) -> Empty:  # noqa: N802  the service's name
        """Delete the copy that is meant, and no other; see ``node.proto``."""
        kind, task_id = kind_of(request.type), check_task_id(request.task_id)
        holding = self._node.stores.get(kind, task_id)
        meant = holding is not None and holding.record.version == version_of(request.created_at)
        self._node.metrics.delete(kind, ok=meant)
        if holding is None or not meant:
            raise TaskNotFound(task_id)
        self._node.stores.remove(holding, Reason.DELETED)
        return Empty()
