"""``pantala.v1.Exchange``: a child follows what is here, and is told what it may have.

``Grow`` is for content of which nobody knows yet how long it is: all that is here may be had.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Final

from pantala.background import Tasks
from pantala.core.places import owner_of
from pantala.core.shares import Shares
from pantala.daemon.node import Node
from pantala.daemon.sharing.exchange import Child, Exchange
from pantala.daemon.sharing.uploads import NodeUploads
from pantala.errors import Busy, DragonflyError, TaskDeleted, TaskNotFound
from pantala.model.exchange import Wish
from pantala.model.ids import check_task_id
from pantala.model.numbers import bits_of, runs_of
from pantala.pb import exchange_pb2
from pantala.rpc.convert import kind_of
from pantala.rpc.service import address_of, first_word, sends_headers
from pantala.storage.holding import Holding

from .task_methods import Context

EXCHANGE_SERVICE: Final = "pantala.v1.Exchange"

#: Seconds after which a child hears that this host lives, if there is nothing else to say.
_ALIVE: Final = 1.0

#: Seconds for which a task is kept here for a child that asks for nothing: whoever follows all that
#: there are must not keep the room of all.
_KEPT: Final = 20.0

#: Followers of one task that grows here. By the scheduler's plan there are half as many; the others
#: may have lost whom they followed. An address may have as many as it leaves free for the others:
#: one alone has what the plan says.
FOLLOWERS: Final = 8

#: A child's words may keep this host busy for a tenth of the time, if they take longer than so many
#: seconds: those of a task of a hundred thousand pieces do.
_BUSY: Final = 0.002
_REST: Final = 9


class ExchangeService:
    """See the module.

    Args:
        node: What all rooms share.
        uploads: What is given away.
        streams: How much the streams may take on which children hear of pieces.
        piece_port: Where pieces are served.
    """

    #: Bytes that one takes, besides six sets of the pieces that there are.
    STREAM: Final = 32 << 10

    def __init__(
        self, node: Node, uploads: NodeUploads, streams: Shares, *, piece_port: int
    ) -> None:
        self._node = node
        self._uploads = uploads
        self._streams = streams
        self._piece_port = piece_port
        #: Of each task that grows here, by address.
        self._followers: defaultdict[Holding, Counter[str]] = defaultdict(Counter)

    @sends_headers
    async def Follow(  # noqa: N802  the contract's name
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncGenerator[Any, None]:
        """See ``exchange.proto``."""
        first = await first_word(requests, "child")
        wish = _wish(first)
        child = address_of(context)
        holding = self._uploads.holding(kind_of(first.type), check_task_id(first.task_id))
        size = self.STREAM + (holding.record.piece_count or 0) * 3 // 4
        if not self._streams.fits(child, size):
            raise Busy(f"{child} follows too much here; try again when some of it is through")
        with self._streams.hold(child, size):
            await context.send_initial_metadata(await self._uploads.hello(holding))
            yield exchange_pb2.FollowResponse(
                content_length=holding.total,
                piece_length=holding.record.piece_length or 0,
                ip=self._node.config.host.ip,
                tcp_port=self._piece_port,
            )
            joined = self._uploads.exchange.join(holding, first.peer_id, child, wish)
            with holding.lease() as lease, joined as here:
                async for offers in self._offers(here, requests):
                    if Exchange.now() - here.asked_at > _KEPT:
                        lease.end()
                    yield _offering(offers)
            if holding.gone:
                raise TaskDeleted(f"task {holding.id} was deleted")

    @sends_headers
    async def Grow(  # noqa: N802  the contract's name
        self, request: Any, context: Context
    ) -> AsyncGenerator[Any, None]:
        """See ``exchange.proto``."""
        child, task_id = address_of(context), check_task_id(request.task_id)
        holding = self._uploads.holding(kind_of(request.type), task_id)
        growth = holding.growth
        if growth is None or holding.record.version != request.version:
            raise TaskNotFound(task_id)
        if not self._streams.fits(child, self.STREAM):
            raise Busy(f"{child} follows too much here; try again later")
        ip, port = self._node.config.host.ip, self._piece_port
        place, room = self._place(holding, owner_of(child)), self._streams.hold(child, self.STREAM)
        with place, room, holding.watch() as news:
            await context.send_initial_metadata(())
            while growth is holding.growth and not holding.gone:
                here = len(growth.steps)
                yield exchange_pb2.GrowResponse(ip=ip, tcp_port=port, steps=here)
                await _news(news)

    @contextlib.contextmanager
    def _place(self, holding: Holding, owner: str) -> Iterator[None]:
        """*owner* follows what grows, inside the ``with``. Raises Busy: there is no place."""
        followers = self._followers[holding]
        if followers[owner] >= FOLLOWERS - followers.total():
            raise Busy(f"{owner} follows this too often, or too many do; try again later")
        followers[owner] += 1
        try:
            yield
        finally:
            followers[owner] -= 1
            if not followers.total():
                del self._followers[holding]

    async def _offers(
        self, child: Child, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[int, None]:
        """What is offered to a child, which is listened to meanwhile."""
        ears = Tasks()
        ears.start(_listen(child, requests), "a child's words")
        try:
            while (offers := await child.offers(_ALIVE)) is not None:
                yield offers
        finally:
            await ears.cancel()


async def _news(news: asyncio.Queue[int | None]) -> None:
    """Wait until something has happened, for as long as need not be said that this host lives."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ALIVE):
            await news.get()
    while not news.empty():
        news.get_nowait()


async def _listen(child: Child, requests: AsyncIterator[Any]) -> None:
    """Take what a child tells, to its end or ours."""
    error: DragonflyError | None = None
    try:
        async for request in requests:
            began = time.monotonic()
            child.hear(_wish(request))
            took = time.monotonic() - began
            if took > _BUSY:
                await asyncio.sleep(_REST * took)
    except DragonflyError as found:
        error = found
    finally:
        child.end(error)


def _wish(request: Any) -> Wish:
    later = _bits(request.later)
    return Wish(
        lacks=_bits(request.lacks),
        has=_bits(request.has) & ~later,
        room=request.room if request.HasField("room") else None,
        later=later,
    )


def _bits(runs: Any) -> int:
    return bits_of((run.first, run.count) for run in runs)


def _offering(pieces: int) -> Any:
    runs = [exchange_pb2.Run(first=first, count=count) for first, count in runs_of(pieces)]
    return exchange_pb2.FollowResponse(offers=runs)
