"""What is here is read once more before somebody on this machine relies on it."""

from __future__ import annotations

import contextlib

from pantala.daemon.node import Node
from pantala.daemon.telling.damage import drop
from pantala.errors import Damaged
from pantala.model.pieces import ByteRange
from pantala.model.task import PieceRecord
from pantala.ports import Extent
from pantala.storage.holding import Holding


class _Check:
    """Reads pieces, in a thread."""

    def __init__(self, pieces: list[tuple[int, str, Extent]]) -> None:
        self._pieces = pieces
        self._given_up = False

    def abort(self) -> None:
        """Stop after the piece that is being read."""
        self._given_up = True

    def run(self) -> list[tuple[int, Damaged]]:
        """Those that are not what they were."""
        bad: list[tuple[int, Damaged]] = []
        for number, digest, extent in self._pieces:
            if self._given_up:
                break
            try:
                extent.check(digest)
            except Damaged as error:
                bad.append((number, error))
        return bad


async def check(node: Node, holding: Holding, part: ByteRange) -> None:
    """Drop those pieces within *part* that are not any more what was verified.

    Raises:
        TaskDeleted: The task was deleted.
        Unavailable: The bytes cannot be reached.
    """
    pieces = [
        piece
        for piece in holding.pieces.values()
        if piece.offset < part.end and part.start < piece.offset + piece.length
    ]
    # Where nothing of the part is here, any piece will show whether there is a file for it.
    pieces = pieces or [*holding.pieces.values()][:1]
    try:
        damaged = await _damaged(node, holding, pieces)
    except Damaged as error:
        damaged = [(pieces[0].number, error)]
    for number, why in damaged:
        drop(holding, number, why, stores=node.stores, announcements=node.announcements)


async def _damaged(
    node: Node, holding: Holding, pieces: list[PieceRecord]
) -> list[tuple[int, Damaged]]:
    """Which of *pieces* are. Raises Damaged where the whole content is."""
    with holding.lease(), contextlib.ExitStack() as stack:
        extents = [
            (
                piece.number,
                piece.digest,
                stack.enter_context(
                    contextlib.closing(holding.extent(ByteRange(piece.offset, piece.length)))
                ),
            )
            for piece in pieces
        ]
        return await node.threads.helpers.run(_Check(extents))
