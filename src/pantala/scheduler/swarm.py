"""``pantala.v1.Swarm``: what concerns all hosts of a task.

A scheduler forgets who holds a task when it is told to; but their bytes, only they can delete. So
each host that has peers of the task is asked to, by the contract's method for that. And what they
have of it, only they can say (:mod:`.holders`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from pantala.core.sched.describing import Descriptions
from pantala.core.sched.entities import Host
from pantala.core.sched.owners import owned
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, FeatureOff, NotFound
from pantala.model.ids import check_task_id
from pantala.pb import dfdaemon_pb2_grpc, node_pb2
from pantala.rpc.convert import kind_of
from pantala.rpc.daemon_dialects import DaemonDialect, daemon_dialect
from pantala.rpc.status import from_rpc_error
from pantala.rpc.transport import channel_options

from .callers import caller_of
from .dialects import SCHEDULER_DIALECTS
from .holders import Holders
from .imports import Imports
from .turns import in_turns

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SERVICE: Final = node_pb2.DESCRIPTOR.services_by_name["Swarm"].full_name

#: Hosts that are told at once.
_AT_ONCE: Final = 32

#: Seconds for one host to answer. It deletes at once, and tells us.
_LIMIT: Final = 8.0

#: Seconds for all of them; what is left then is told as failed.
_LIMIT_OF_ALL: Final = 20.0


class Swarm:
    """Answers calls from the world.

    Args:
        world: What is known.
        imports: Who has what was imported.
        descriptions: What was said of tasks by their origins.
    """

    def __init__(self, world: World, imports: Imports, descriptions: Descriptions) -> None:
        self._world = world
        self._imports = imports
        self._descriptions = descriptions
        self._holders = Holders()

    async def ListHolders(  # noqa: N802  the service's name
        self, request: node_pb2.ListHoldersRequest, _: Any
    ) -> node_pb2.ListHoldersResponse:
        """Which hosts hold how much of a task; each is asked.

        Raises:
            InvalidRequest: The request makes no sense.
            TaskNotFound: The task is not known.
            NoProvider: It has not been imported whole.
            FeatureOff: Nobody has tasks of that kind.
            Busy: Others are asking.
        """
        kind = daemon_dialect(kind_of(request.type)).kind
        key = kind, check_task_id(request.task_id)
        if SCHEDULER_DIALECTS[kind].imports is not None:
            await self._imports.prepare(key)
        return await self._holders.tell(self._world.task(key), request)

    async def DeleteTask(  # noqa: N802  the service's name
        self, request: node_pb2.DeleteFromSwarmRequest, context: Any
    ) -> node_pb2.DeleteTaskResponse:
        """Have every host but the one that asks delete a task.

        Raises:
            NotFound: Neither the host nor the task is known.
            NotYours: The host is another's.
            FeatureOff: Nobody deletes tasks of that kind.
        """
        asking = owned(self._world, request.host_id, caller_of(context))
        daemons = daemon_dialect(kind_of(request.type))
        key = daemons.kind, check_task_id(request.task_id)
        dialect = SCHEDULER_DIALECTS[daemons.kind]
        if dialect.imports is not None:
            caller = caller_of(context)
            came = await self._imports.delete_task(dialect, dialect.imports, request, caller)
            gone = sorted(host for host, why in came.items() if not why)
            left = {host: why for host, why in came.items() if why}
            return node_pb2.DeleteTaskResponse(host_ids=gone, failed=left)
        self._descriptions.forget(key)
        task = self._world.task(key)
        hosts = {peer.host.id: peer.host for peer in task.peers.values()}
        hosts.pop(asking.id, None)
        failed: dict[str, str] = dict.fromkeys(hosts, f"not told within {_LIMIT_OF_ALL:g} s")

        async def delete(host: Host) -> None:
            try:
                await _delete(daemons, host, task.id)
            except NotFound:
                pass  # it has gone from there by itself
            except DragonflyError as error:
                failed[host.id] = str(error)
                return
            del failed[host.id]
            self._world.remove_from_host(host, key)

        try:
            async with asyncio.timeout(_LIMIT_OF_ALL):
                await in_turns(list(hosts.values()), _AT_ONCE, delete)
        except TimeoutError:
            pass  # those that are left are told as failed
        logger.info("deleted", task=task.id, hosts=len(hosts) - len(failed), failed=len(failed))
        done = sorted(hosts.keys() - failed.keys())
        return node_pb2.DeleteTaskResponse(host_ids=done, failed=failed)


async def _delete(dialect: DaemonDialect, host: Host, task_id: str) -> None:
    """Have *host* delete a task. Raises DragonflyError."""
    method = dialect.method("Delete{}Task")
    if method is None:
        raise FeatureOff(f"the contract deletes no {dialect.kind.name} tasks")
    target = host.facts.address
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        stub: Any = dfdaemon_pb2_grpc.DfdaemonUploadStub(channel)
        request = dialect.message("Delete{}TaskRequest")(task_id=task_id)
        try:
            await getattr(stub, method)(request, timeout=_LIMIT)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, f"host {host.id}") from error
