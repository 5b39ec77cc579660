"""Those who bring one piece: one into its place, and perhaps a second into a buffer beside it.

    first    receives into the claim's sink ────────────────► verified: published; second given up
    second   receives into a buffer ──► verified: first given up, and out of its thread;
                                        copied into the claim's sink; published

Nobody receives into the place of a piece any more when it is published: a late write would change a
verified piece.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

from pantala.daemon.host.threads import Workers
from pantala.model.pieces import Piece
from pantala.model.task import PieceRecord, Traffic
from pantala.ports import Sink, fill
from pantala.storage.claims import Claim

#: Bytes of buffers for second fetches, over all downloads: two of the longest pieces that there
#: are, 32 of the shortest.
SPARE: Final = 128 << 20


class Spare:
    """Buffers for second fetches. They are no part of the store's capacity, so they are few.

    Args:
        limit: Bytes of all that are lent at once; at least those of one.
    """

    def __init__(self, limit: int = SPARE) -> None:
        self._limit = limit
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()
        self.lent = 0

    @asynccontextmanager
    async def borrow(self, length: int) -> AsyncIterator[memoryview]:
        """A buffer, in the order of those who ask. Inside the ``with`` alone."""
        async with self._turn:
            while self.lent and self.lent + length > self._limit:
                self._returned.clear()
                await self._returned.wait()
            self.lent += length
        try:
            with mmap.mmap(-1, length) as memory, memoryview(memory) as view:
                yield view
        finally:
            self.lent -= length
            self._returned.set()


class Fill:
    """Copies a piece that is here, in a thread: the longest take tens of milliseconds."""

    def __init__(self, into: Sink, data: bytes | memoryview) -> None:
        self._into = into
        self._data = data

    def abort(self) -> None:
        """Does nothing: it waits for nobody, so it is over soon."""

    def run(self) -> None:
        """Do it. Raises StoreFailed when the bytes cannot be kept."""
        fill(self._into, self._data)


class Place(NamedTuple):
    """Where a fetch receives a piece to.

    Attributes:
        beside: What *sink* fills, if that is not where the piece belongs.
    """

    piece: Piece
    sink: Sink
    beside: memoryview | None = None


class Race:
    """The fetches of one piece. The first that is through publishes it."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        #: A second fetch has all of it: nobody need begin another.
        self.decided = False
        self._runners: dict[bool, asyncio.Task[Any]] = {}

    @contextmanager
    def run(self, *, second: bool) -> Iterator[None]:
        """Take part, in the current task. The last to leave ends the claim, if nobody has."""
        task = asyncio.current_task()
        if task is None or second in self._runners:
            raise ValueError(f"{self.claim.piece} is fetched twice in the same way")
        self._runners[second] = task
        try:
            yield
        finally:
            del self._runners[second]
            if not self._runners and not self.claim.over.is_set():
                self.claim.abandon()

    @property
    def is_over(self) -> bool:
        """Nobody takes part any more."""
        return not self._runners

    async def win(self, helpers: Workers, beside: memoryview | None) -> None:
        """Have the piece, which was verified, in its place, and nobody else who might write there.

        Args:
            helpers: Copy from one to the other.
            beside: Where the second received it; None: it is the first who calls.

        Raises:
            StoreFailed: The bytes cannot be kept.
        """
        other = self._runners.get(beside is None)
        if other is not None:
            other.cancel()
        if beside is None:
            return  # the other has its own buffer
        self.decided = True
        if other is not None:
            # Its task ends only after its thread has let go of the sink.
            await asyncio.wait((other,))
        await helpers.run(Fill(self.claim.sink, beside))

    def publish(self, digest: str, *, parent_id: str | None, traffic: Traffic) -> PieceRecord:
        """See :meth:`Claim.publish`; after :meth:`win`."""
        return self.claim.publish(digest, parent_id=parent_id, traffic=traffic)
