"""Pieces on their way into the store: who fetches which, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterator
from contextlib import contextmanager

from pantala.core.content_state import ContentState
from pantala.core.ledger import Account
from pantala.errors import DragonflyError, PieceNotFound, TaskDeleted, TimedOut
from pantala.model.pieces import Piece
from pantala.model.task import PieceRecord, Traffic
from pantala.ports import Sink

from .home import Home


class Claim:
    """The right to receive one piece.

    It must end, by :meth:`publish` or :meth:`abandon`, only after the receiver has let go of
    :attr:`sink` for certain: a late write would change a verified piece.
    """

    def __init__(self, claims: Claims, piece: Piece, sink: Sink) -> None:
        self._claims = claims
        self._since = claims.now()
        self._failure: DragonflyError | None = None
        self._published = False
        self.piece = piece
        self.sink = sink
        #: Set when the claim has ended, one way or the other.
        self.over = asyncio.Event()

    def publish(self, digest: str, *, parent_id: str | None, traffic: Traffic) -> PieceRecord:
        """The bytes are verified: the piece is here as soon as the journal has it.

        Raises:
            TaskDeleted: The task was deleted meanwhile; nobody will see the piece.
        """
        self.sink.close()
        self._published = True
        now = self._claims.now()
        record = PieceRecord(
            number=self.piece.number,
            offset=self.piece.offset,
            length=self.piece.length,
            digest=digest,
            parent_id=parent_id,
            traffic=traffic,
            cost=max(0.0, now - self._since),
            created_at=now,
        )
        self._claims.publish(self, record)
        if self._failure is not None:
            raise self._failure
        return record

    async def kept(self) -> None:
        """Wait until a piece that was published is here: nobody is to be told of it before.

        Raises:
            TaskDeleted: The task was deleted meanwhile.
            Unavailable: It could not be written down.
        """
        await self.over.wait()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """The bytes are not here, or wrong. Nothing happens once it was published."""
        if not self._published:
            self.sink.close()
            self._claims.abandon(self)

    def end(self, failure: DragonflyError | None = None) -> None:
        """Tell everybody who waits that it is over."""
        self._failure = failure
        self.over.set()


class Claims:
    """The claims on the pieces of one task, and those who want to know how they end.

    Args:
        home: The store that the task is in.
        state: What is known of it.
        account: Its account there.
    """

    def __init__(self, home: Home, state: ContentState, account: Account) -> None:
        self._home = home
        self._state = state
        self._account = account
        self._claims: dict[int, Claim] = {}
        self._watchers: list[asyncio.Queue[int | None]] = []  # which takes less than a set

    def now(self) -> float:
        """Unix time in seconds, by the store's clock."""
        return self._home.now()

    def begin(self, piece: Piece, sink: Sink) -> Claim:
        """A piece that the state says is claimed now is received into *sink*."""
        claim = self._claims[piece.number] = Claim(self, piece, sink)
        return claim

    def abandon(self, claim: Claim) -> None:
        """It does not bring its piece."""
        self._forget(claim.piece.number)
        self._state.abandon(claim.piece.number)
        claim.end()

    def publish(self, claim: Claim, piece: PieceRecord) -> None:
        """It has brought its piece, which is here once that is written down."""

        def written(failure: DragonflyError | None) -> None:
            if self._account.doomed:
                failure = TaskDeleted(f"task {self._state.record.id} was deleted")
            self._forget(piece.number)
            if failure is not None:
                self._state.abandon(piece.number)
                claim.end(failure)
                return
            if self._state.publish(piece, self.now()):
                self._home.journal.task(self._state.record)
            self._home.published(piece.length)
            claim.end()
            self.notify(piece.number)

        if self._account.doomed:
            written(None)
        else:
            self._home.journal.piece(self._state.record, piece, written)

    def _forget(self, number: int) -> None:
        del self._claims[number]
        if not self._claims:  # of most tasks all is here, and the table would stay as it is
            self._claims.clear()

    def received(self, wanted: Container[int]) -> int:
        """Bytes that are here of those pieces of *wanted* that are being received."""
        return sum(c.sink.received for number, c in self._claims.items() if number in wanted)

    async def wait_for(self, number: int, limit: float) -> PieceRecord:
        """A piece, once it is here.

        Raises:
            PieceNotFound: It is not here and nobody fetches it.
            TaskDeleted: The task was deleted.
            TimedOut: After *limit* seconds it was still being fetched.
        """
        if (here := self._state.pieces.get(number)) is not None:
            return here  # as most are: a timer costs a tenth of all that is done for a piece
        task_id = self._state.record.id
        try:
            async with asyncio.timeout(limit):
                while (found := self._state.pieces.get(number)) is None:
                    if self._account.doomed:
                        raise TaskDeleted(f"task {task_id} was deleted")
                    claim = self._claims.get(number)
                    if claim is None:
                        raise PieceNotFound(task_id, number)
                    await claim.over.wait()
        except TimeoutError:
            raise TimedOut(f"piece {number} of task {task_id} is still on its way") from None
        return found

    @contextmanager
    def watch(self) -> Iterator[asyncio.Queue[int | None]]:
        """A queue of what happens: the number of each piece published; None for other news."""
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            yield queue
        finally:
            self._watchers.remove(queue)

    def notify(self, news: int | None) -> None:
        """Tell all who watch: the number of a piece that came, or None: look at everything anew."""
        for queue in self._watchers:
            queue.put_nowait(news)
