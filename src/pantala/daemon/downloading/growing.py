"""A file whose length shows at its end: streamed from its origin, then cut into pieces.

Others may follow meanwhile: they have each step as soon as it is here, see :mod:`.trailing`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from pantala.core.policy import policy_of
from pantala.daemon.node import Node
from pantala.model.digest import piece_digest
from pantala.model.pieces import GROWTH_STEP, Piece, piece_length_for, pieces_for
from pantala.model.task import Traffic
from pantala.storage.holding import Holding

from .callers import Callers
from .means import Means
from .origin import Checksum, Origin, StreamFetch


async def grow(
    node: Node,
    means: Means,
    holding: Holding,
    callers: Callers,
    origin: Origin,
    *,
    piece_length: int | None,
    tell: Callable[[Holding, int], None],
) -> None:
    """Read all that *origin*'s open answer brings into *holding*, and publish its pieces.

    Args:
        node: For threads and metrics.
        means: For limits and room.
        holding: Of which nothing is known yet.
        callers: Are told how much is here.
        origin: Probed just now.
        piece_length: That was asked for; None: what its length makes it.
        tell: Called with the bytes that are here, each time when more are.

    Raises:
        OriginError: The answer broke off.
        NoRoom: There is no room, and nobody waits for some.
    """
    holding.learn_version(origin.version)
    received, crcs = await _stream(node, means, holding, callers, origin, tell=tell)
    least = policy_of(holding.kind).least_piece
    length = piece_length_for(received, piece_length, least=least)
    holding.finish_growing(received, length)
    await publish(node, holding, crcs, here=received)


async def publish(
    node: Node, holding: Holding, crcs: Sequence[int], *, here: int, parents: Sequence[str] = ()
) -> None:
    """Make pieces of what has grown, now that it is known how it is cut.

    Args:
        node: For threads.
        holding: What has grown.
        crcs: The CRC-32 of each step.
        here: Bytes from the beginning that are here.
        parents: Where each step came from. Empty: from the origin.

    Raises:
        TaskDeleted: The task was deleted.
        StoreFailed: Its bytes cannot be read.
    """
    length = holding.record.piece_length or 1
    for piece in pieces_for(None, content_length=holding.total, piece_length=length):
        if piece.offset + piece.length > here:
            return
        claim = holding.claim(piece.number)
        try:
            known = length == GROWTH_STEP
            crc = crcs[piece.number] if known else await _checksum(node, holding, piece)
        except BaseException:  # cancelled, too: a claim must not outlive its receiver
            claim.abandon()
            raise
        parent = parents[piece.offset // GROWTH_STEP] if parents else None
        traffic = Traffic.BACK_TO_SOURCE if parent is None else Traffic.REMOTE_PEER
        claim.publish(piece_digest(crc), parent_id=parent, traffic=traffic)
        await claim.kept()


async def _checksum(node: Node, holding: Holding, piece: Piece) -> int:
    with contextlib.closing(holding.content.extent(piece.offset, piece.length)) as extent:
        return await node.threads.helpers.run(Checksum(extent))


async def _stream(
    node: Node,
    means: Means,
    holding: Holding,
    callers: Callers,
    origin: Origin,
    *,
    tell: Callable[[Holding, int], None],
) -> tuple[int, list[int]]:
    """Receive it; how many bytes that were, and the CRC-32 of each step."""
    body = origin.take_stream()
    received, crcs = 0, []
    try:
        while True:
            sink = await means.rooms[holding.kind].extend(holding, callers)
            with contextlib.closing(sink):
                await means.bandwidth.source.take(sink.length)
                fetch = StreamFetch(body, sink)
                count = await node.threads.readers.run(origin.url, fetch)
            received += count
            crcs.append(fetch.crc)
            node.metrics.piece_traffic(Traffic.BACK_TO_SOURCE, count)
            if count == sink.length:
                holding.grown(fetch.crc, parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
            tell(holding, received)
            for download in callers.active():
                download.grown(received)
            if count < sink.length:
                return received, crcs
    finally:
        await node.threads.helpers.call(body.close)
