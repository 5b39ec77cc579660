"""A file whose length shows at its end: streamed from its origin, then cut into pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pantala.core.policy import policy_of
from pantala.daemon.node import Node
from pantala.model.digest import piece_digest
from pantala.model.pieces import piece_length_for, pieces_for
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
    tell: Callable[[int], None],
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
        SourceFailed: The answer broke off.
        OutOfSpace: There is no room, and nobody waits for some.
    """
    holding.learn_version(origin.version)
    received = await _stream(node, means, holding, callers, origin, tell=tell)
    least = policy_of(holding.kind).least_piece
    length = piece_length_for(received, piece_length, least=least)
    holding.finish_growing(received, length)
    for piece in pieces_for(None, content_length=received, piece_length=length):
        claim = holding.claim(piece.number)
        try:
            with contextlib.closing(holding.content.extent(piece.offset, piece.length)) as extent:
                crc = await node.threads.helpers.run(Checksum(extent))
        except BaseException:  # cancelled, too: a claim must not outlive its receiver
            claim.abandon()
            raise
        claim.publish(piece_digest(crc), parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
        await claim.kept()


async def _stream(
    node: Node,
    means: Means,
    holding: Holding,
    callers: Callers,
    origin: Origin,
    *,
    tell: Callable[[int], None],
) -> int:
    """Receive it; how many bytes that were."""
    body = origin.take_stream()
    received = 0
    try:
        while True:
            sink = await means.rooms[holding.kind].extend(holding, callers)
            with contextlib.closing(sink):
                await means.bandwidth.source.take(sink.length)
                count = await node.threads.readers.run(origin.url, StreamFetch(body, sink))
            received += count
            node.metrics.piece_traffic(Traffic.BACK_TO_SOURCE, count)
            tell(received)
            for download in callers.active():
                download.grown(received)
            if count < sink.length:
                return received
    finally:
        await node.threads.helpers.call(body.close)
