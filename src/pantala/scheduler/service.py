"""The methods of ``scheduler.v2.Scheduler``, those for kinds of task made from their table."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from itertools import accumulate, takewhile
from types import SimpleNamespace
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from google.protobuf.empty_pb2 import Empty

from pantala.core.sched.entities import Peer
from pantala.core.sched.owners import claim, owned
from pantala.core.sched.world import World
from pantala.errors import NoProvider, NotFound
from pantala.model.ids import check_task_id
from pantala.pb import common_pb2, scheduler_pb2
from pantala.rpc.dialects import ImportDialect

from . import convert
from .announce_streams import AnnounceStreams
from .callers import caller_of, version_of
from .dialects import SCHEDULER_DIALECTS, ImportNames, SchedulerDialect
from .imports import Imports
from .jobs import Jobs

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SERVICE: Final = "scheduler.v2.Scheduler"

#: Trailing metadata of AnnounceHost: new for a host that we did not know, or no longer. A daemon
#: that sees another one than before announces what it holds, for we know nothing of it.
EPOCH_KEY: Final = "pantala-epoch"

#: Trailing metadata of ListHosts: how many hosts its answer has no room for.
LEFT_OUT_KEY: Final = "pantala-left-out"

#: Bytes of hosts in one answer. gRPC's clients take no more than 4 MiB unless told to.
_MAX_LISTED: Final = 4 * 1024 * 1024 - 1024
#: Bytes before each of them, at most: a tag, and a length of three.
_FRAME: Final = 4

_Context = grpc.aio.ServicerContext[Any, Any]
_Unary = Callable[[Any, _Context], Awaitable[Any]]


class Service:
    """Answers calls from the world.

    Args:
        world: What is known.
        streams: Answer the announce streams.
        imports: Answers what is said of imported tasks.
        jobs: Answers what all hosts are asked for at once.
        epoch: New at each start of a scheduler, see :data:`EPOCH_KEY`.
    """

    def __init__(
        self, world: World, streams: AnnounceStreams, imports: Imports, jobs: Jobs, epoch: str
    ) -> None:
        self._world = world
        self._streams = streams
        self._imports = imports
        self._jobs = jobs
        self._epoch = epoch
        # Values here are monotonic; messages want unix time.
        self._clock_offset = time.time() - time.monotonic()

    def methods(self) -> SimpleNamespace:
        """All methods by their names, for :func:`pantala.rpc.service.add_service`."""
        methods: dict[str, Any] = {
            "AnnounceHost": self.announce_host,
            "ListHosts": self.list_hosts,
            "DeleteHost": self.delete_host,
            **self._jobs.methods(),
        }
        for dialect in SCHEDULER_DIALECTS.values():
            methods[dialect.shared.announce] = self._announce(dialect)
            if dialect.imports is not None and dialect.shared.imports is not None:
                methods |= self._imported(dialect, dialect.imports, dialect.shared.imports)
                continue
            methods[dialect.stat_peer] = self._stat_peer(dialect)
            methods[dialect.delete_peer] = self._delete_peer(dialect)
            methods[dialect.shared.stat[0]] = self._stat_task(dialect)
            methods[dialect.shared.delete[0]] = self._delete_task(dialect)
        return SimpleNamespace(**methods)

    async def announce_host(
        self, request: scheduler_pb2.AnnounceHostRequest, context: _Context
    ) -> Empty:
        """A host is there, or still there."""
        caller, now = caller_of(context), time.monotonic()
        known = claim(self._world, request.host.id, caller, now)
        facts = convert.host_facts(request, known.facts if known is not None else None)
        if known is None:
            logger.info("host", host=facts.id, seed=facts.is_seed, address=facts.address)
        host = self._world.announce(facts, now, caller)
        context.set_trailing_metadata(((EPOCH_KEY, f"{self._epoch}.{host.life}"),))
        return Empty()

    async def list_hosts(
        self, request: scheduler_pb2.ListHostsRequest, context: _Context
    ) -> scheduler_pb2.ListHostsResponse:
        """All hosts, or those of one type; of too many the first, and how many there are beside."""
        hosts = self._world.hosts.values()
        wanted = [host.facts.announced for host in hosts]
        if request.HasField("type"):
            those = self._world.roster.each(seeds=request.type != 0)
            wanted = [facts.announced for facts in those if facts.type == request.type]
        sizes = accumulate(len(announced) + _FRAME for announced in wanted)
        count = sum(1 for _ in takewhile(lambda size: size <= _MAX_LISTED, sizes))
        if count < len(wanted):
            context.set_trailing_metadata(((LEFT_OUT_KEY, str(len(wanted) - count)),))
        listed = map(common_pb2.Host.FromString, wanted[:count])
        return scheduler_pb2.ListHostsResponse(hosts=listed)

    async def delete_host(
        self, request: scheduler_pb2.DeleteHostRequest, context: _Context
    ) -> Empty:
        """A host says goodbye: it is forgotten at once, with all its peers."""
        self._world.host(request.host_id)
        host = claim(self._world, request.host_id, caller_of(context), time.monotonic())
        if host is not None:
            self._world.remove_host(host)
            self._imports.host_left()
        logger.info("host left", host=request.host_id)
        return Empty()

    def _announce(self, dialect: SchedulerDialect) -> Callable[..., AsyncGenerator[Any, None]]:
        async def announce(
            requests: AsyncIterator[Any], context: _Context
        ) -> AsyncGenerator[Any, None]:
            try:
                stream = self._streams.announce(
                    dialect, caller_of(context), requests, version=version_of(context)
                )
                async with aclosing(stream) as answers:
                    async for answer in answers:
                        yield answer
            except NoProvider as error:
                # What the contract has for "not on these terms".
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

        return announce

    def _imported(
        self, dialect: SchedulerDialect, names: ImportNames, said: ImportDialect
    ) -> dict[str, Any]:
        """All methods of a kind whose tasks are imported, but for the announce stream."""
        imports = self._imports

        async def started(request: Any, context: _Context) -> Empty:
            await imports.started(dialect, request, caller_of(context))
            return Empty()

        async def finished(request: Any, context: _Context) -> Any:
            return await imports.finished(dialect, request, caller_of(context))

        async def failed(request: Any, context: _Context) -> Empty:
            await imports.failed(dialect, request, caller_of(context))
            return Empty()

        async def stat_peer(request: Any, _: _Context) -> Any:
            return await imports.stat_peer(dialect, request)

        async def stat_task(request: Any, _: _Context) -> Any:
            return await imports.stat_task(dialect, request.task_id)

        async def delete_peer(request: Any, context: _Context) -> Empty:
            await imports.delete_peer(dialect, names, request, caller_of(context))
            return Empty()

        async def delete_task(request: Any, context: _Context) -> Empty:
            await imports.delete_task(dialect, names, request, caller_of(context))
            return Empty()

        return {
            said.started[0]: started,
            said.finished[0]: finished,
            said.failed[0]: failed,
            dialect.stat_peer: stat_peer,
            dialect.delete_peer: delete_peer,
            dialect.shared.stat[0]: stat_task,
            dialect.shared.delete[0]: delete_task,
        }

    def _stat_peer(self, dialect: SchedulerDialect) -> _Unary:
        async def stat_peer(request: Any, _: _Context) -> Any:
            peer = self._world.peer((dialect.kind, request.peer_id))
            _check_task(peer, request.task_id)
            return convert.peer_message(dialect, peer, self._clock_offset)

        return stat_peer

    def _delete_peer(self, dialect: SchedulerDialect) -> _Unary:
        async def delete_peer(request: Any, context: _Context) -> Empty:
            peer = self._world.peers.get((dialect.kind, request.peer_id))
            if peer is not None:
                _check_task(peer, request.task_id)
                owned(self._world, peer.host.id, caller_of(context))
                self._world.remove_peer(peer)
            return Empty()

        return delete_peer

    def _stat_task(self, dialect: SchedulerDialect) -> _Unary:
        async def stat_task(request: Any, _: _Context) -> Any:
            task = self._world.task((dialect.kind, check_task_id(request.task_id)))
            return convert.task_message(dialect, task, self._clock_offset)

        return stat_task

    def _delete_task(self, dialect: SchedulerDialect) -> _Unary:
        async def delete_task(request: Any, context: _Context) -> Empty:
            host = owned(self._world, request.host_id, caller_of(context))
            self._world.remove_from_host(host, (dialect.kind, check_task_id(request.task_id)))
            return Empty()

        return delete_task


def _check_task(peer: Peer, task_id: str) -> None:
    """Whether *peer* is one of the task that it is said to be of."""
    if peer.task.id != check_task_id(task_id):
        raise NotFound(f"peer {peer.id} is not known here as one of task {task_id}")
