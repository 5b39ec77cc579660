"""``pantala.v1.Holdings``: what hosts hold, many tasks in a message.

Each that is held becomes what it would be had its host told it on an announce stream of its own: a
peer that has got it from the origin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from pantala.core.sched.entities import Caller, Host
from pantala.core.sched.owners import owned
from pantala.core.sched.rules import RULES
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, HostUnknown, InvalidRequest
from pantala.model.ids import check_task_id
from pantala.model.task import Kind
from pantala.pb import holdings_pb2
from pantala.rpc.convert import kind_of
from pantala.rpc.holdings import MOST_TOLD, registration_of

from .callers import caller_of
from .convert import check_registration, check_version
from .metrics import Metrics

SERVICE: Final = holdings_pb2.DESCRIPTOR.services_by_name["Holdings"].full_name

#: Tasks after which others have their turn: some three milliseconds.
_TURN: Final = 32

#: Seconds without a batch after which a stream is ended. A daemon closes its own when it has told
#: all; one that hangs must not keep it.
_GAP: Final = 60.0


class HoldingService:
    """Takes what hosts tell of what they hold.

    Args:
        world: What is known.
        metrics: Told how much was told.
    """

    def __init__(self, world: World, metrics: Metrics) -> None:
        self._world = world
        self._metrics = metrics

    async def Tell(  # noqa: N802  the service's name
        self, requests: AsyncIterator[holdings_pb2.TellRequest], context: Any
    ) -> AsyncGenerator[holdings_pb2.TellResponse, None]:
        """Batches in, and what was refused of each out.

        Raises:
            HostUnknown: The host has not announced itself, or was forgotten meanwhile.
            NotYours: The host is another's.
            InvalidRequest: A batch is too large, or what was dropped has no name.
        """
        caller = caller_of(context)
        messages = aiter(requests)
        while True:
            try:
                async with asyncio.timeout(_GAP):
                    message = await anext(messages)
            except (StopAsyncIteration, TimeoutError):
                return
            yield await self._take(message, caller)

    async def _take(
        self, message: holdings_pb2.TellRequest, caller: Caller
    ) -> holdings_pb2.TellResponse:
        count = len(message.dropped) + len(message.held)
        if count > MOST_TOLD:
            raise InvalidRequest(f"{count} tasks in one message: want {MOST_TOLD} at most")
        host = owned(self._world, message.host_id, caller)
        dropped = [(_kind(each.type), check_task_id(each.task_id)) for each in message.dropped]
        for key in dropped:
            self._world.remove_from_host(host, key)
        answer = holdings_pb2.TellResponse()
        for index, each in enumerate(message.held):
            if index % _TURN == _TURN - 1:
                await asyncio.sleep(0)
                if self._world.hosts.get(host.id) is not host:
                    raise HostUnknown(f"host {host.id} was forgotten; announce it first")
            try:
                self._hold(host, each)
            except DragonflyError as error:
                answer.refused.add(index=index, description=str(error))
        self._metrics.holdings_told(len(message.held) - len(answer.refused), len(dropped))
        return answer

    def _hold(self, host: Host, held: holdings_pb2.Held) -> None:
        """A host holds this, from now on."""
        kind = _kind(held.type)
        check_version(held.version)
        said = registration_of(host.id, kind, held)
        check_registration(held, said)
        world, now = self._world, time.monotonic()
        peer = world.register(said, now)
        if peer.shape.content_length:
            world.start_back_to_source(peer, now)
        else:
            world.start(peer, now)
        world.finish(peer, now)


def _kind(number: int) -> Kind:
    """The kind of task, of those that are told of here. Raises InvalidRequest."""
    kind = kind_of(number)
    rules = RULES.get(kind)
    if rules is None or rules.imported:
        raise InvalidRequest(f"{kind.name} tasks are not told of here")
    return kind
