"""Pieces for other nodes: which of them are here, and their bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import quote

from pantala.core.policy import KIND_OF_TAG
from pantala.daemon.node import Node
from pantala.daemon.telling.damage import drop
from pantala.daemon.throttle import Throttle
from pantala.errors import Damaged, InvalidRequest, TaskDeleted, TaskNotFound, Unavailable
from pantala.model.numbers import Numbers
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind, PieceRecord, Traffic
from pantala.net.piece_server import Upload
from pantala.ports import Extent
from pantala.rpc.parent_link import CLOCK_KEY, DIGESTS_KEY, VERSION_KEY
from pantala.storage.holding import Holding
from pantala.wire.vortex import PieceContent, PieceRequest, content_tag

from .exchange import Exchange

#: Seconds to wait for the version of a task of which nothing is here yet; a child gives a
#: parent up that says nothing for twice as long.
_VERSION_LIMIT: Final = 5.0


class _Copy:
    """Copies a piece out of the store, in a thread: the longest take tens of milliseconds."""

    def __init__(self, extent: Extent, digest: str) -> None:
        self._extent = extent
        self._digest = digest

    def abort(self) -> None:
        """Does nothing: it is over soon in any case."""

    def run(self) -> bytes:
        """The bytes, checked. Raises Damaged."""
        self._extent.check(self._digest)
        with self._extent.read(0, self._extent.length) as data:
            return bytes(data)


class NodeUploads:
    """What this node gives away.

    Args:
        node: What all rooms share.
        rng: Chooses who is given what.

    Attributes:
        bandwidth: How much it may be, bytes a second.
        exchange: Children that are told by and by which piece they may have.
    """

    def __init__(self, node: Node, rng: random.Random) -> None:
        self._node = node
        self.bandwidth = Throttle(node.config.upload.bandwidth_limit)
        self.exchange = Exchange(node.tasks, rng)

    def holding(self, kind: Kind, task_id: str) -> Holding:
        """What is held of a task. Raises TaskNotFound when that is nothing."""
        holding = self._node.stores.get(kind, task_id)
        if holding is None:
            raise TaskNotFound(task_id)
        return holding

    @asynccontextmanager
    async def upload(self, request: PieceRequest) -> AsyncIterator[Upload]:
        """See :class:`~pantala.net.piece_server.Uploads`."""
        kind = KIND_OF_TAG.get(request.tag)
        if kind is None:
            raise InvalidRequest(f"{request.tag.name} is not served here")
        async with self.piece(kind, request.task_id, request.number) as (record, extent):
            granted = self.bandwidth.grants(record.length)
            with self._told(self.holding(kind, request.task_id), record.number):
                yield Upload(
                    PieceContent(
                        tag=content_tag(request.tag),
                        number=record.number,
                        offset=record.offset,
                        length=record.length,
                        digest=record.digest,
                        parent_id=record.parent_id,
                        traffic=Traffic.REMOTE_PEER,
                        cost=int(record.cost),
                        created_at=int(record.created_at),
                    ),
                    extent,
                    None if granted else self.bandwidth.take,
                )

    @contextmanager
    def _told(self, holding: Holding, number: int) -> Iterator[None]:
        """Those who exchange shall know that a piece is sent, and when it was."""
        sending, arrived = self.exchange.asked(holding, number), False
        try:
            yield
            arrived = True
        finally:
            self.exchange.sent(sending, arrived=arrived)

    @asynccontextmanager
    async def piece(
        self, kind: Kind, task_id: str, number: int
    ) -> AsyncIterator[tuple[PieceRecord, Extent]]:
        """A piece and its bytes, which stay in place inside the ``with``.

        Waits for a piece that is on its way; bandwidth is the caller's to ask for. Leaving by
        an exception means that it was not delivered.

        Raises:
            TaskNotFound, PieceNotFound, TaskDeleted: It is not here.
            TimedOut: It is still on its way.
            Damaged: Raised inside the ``with``, it is here no longer.
        """
        holding = self.holding(kind, task_id)
        with holding.lease():
            record = await holding.wait_for_piece(number, self._node.config.download.piece_timeout)
            if holding.gone:
                raise TaskDeleted(f"task {task_id} was deleted")
            holding.upload_started()
            self._node.metrics.upload_started()
            delivered = False
            try:
                part = ByteRange(record.offset, record.length)
                with contextlib.closing(holding.extent(part)) as extent:
                    yield record, extent
                delivered = True
                self._node.metrics.upload_traffic(record.length)
            except Damaged as error:
                drop(
                    holding,
                    number,
                    error,
                    stores=self._node.stores,
                    announcements=self._node.announcements,
                )
                raise
            finally:
                self._node.metrics.upload_finished()
                if not holding.gone:
                    holding.upload_ended(delivered=delivered)

    async def copied(self, kind: Kind, task_id: str, number: int) -> tuple[PieceRecord, bytes]:
        """A piece and a copy of its bytes, once that much may be uploaded. Raises as :meth:`piece`.

        Raises:
            Damaged: The bytes are not what they were.
        """
        async with self.piece(kind, task_id, number) as (record, extent):
            await self.bandwidth.take(record.length)
            return record, await self._node.threads.helpers.run(_Copy(extent, record.digest))

    async def version(self, holding: Holding) -> str:
        """The version of what is held; ``""`` when it has none.

        Waits a little while that is to be learnt: whoever answers the flight first tells it.

        Raises:
            Unavailable: It is not known yet, and no piece is here. What is told cannot be taken
                back, and pieces of two versions must not be mixed.
        """
        with holding.watch() as news, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_VERSION_LIMIT):
                while not (holding.version_is_settled or holding.pieces or holding.gone):
                    if not holding.coming:
                        break
                    await news.get()
        if not (holding.version_is_settled or holding.pieces or holding.gone):
            raise Unavailable(f"task {holding.id}: which version it will be is not known yet")
        return holding.record.version

    async def hello(self, holding: Holding) -> tuple[tuple[str, str], ...]:
        """What a child hears first of what is held, as metadata of its stream.

        Raises:
            Unavailable: See :meth:`version`.
        """
        version = quote(await self.version(holding), safe="")
        clock = str(self._node.stores.now())
        return (VERSION_KEY, version), (DIGESTS_KEY, holding.digests), (CLOCK_KEY, clock)

    async def offers(self, holding: Holding, missing: Numbers) -> AsyncGenerator[PieceRecord, None]:
        """Those of the pieces that are here, then those that a flight brings, as they come.

        Ends when none of the rest is on its way. What a child that reads nothing costs meanwhile
        does not depend on how many pieces there are to offer.

        Args:
            holding: What is offered.
            missing: The pieces; used up.

        Raises:
            TaskDeleted: The task was deleted.
        """
        with holding.lease(), holding.watch() as news:
            for number in missing:
                if (record := holding.pieces.get(number)) is not None:
                    missing.discard(number)
                    yield record
            # What is published when the flight ends is in the queue before the news of its end.
            while missing and not holding.gone:
                if news.empty() and not any(number in missing for number in holding.coming):
                    break
                published = await news.get()
                if published is not None and published in missing:
                    missing.discard(published)
                    yield holding.pieces[published]
        if holding.gone:
            raise TaskDeleted(f"task {holding.id} was deleted")
