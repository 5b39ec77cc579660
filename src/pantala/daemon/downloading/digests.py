"""What the pieces of one flight must be, by the word of whoever read the origin.

The scheduler tells it. A piece of a parent whose digest is known by then is checked before it is
published; another, when its digest comes: then what is here is of no use, and is begun anew. No
caller is told that all is here before the scheduler was asked for what is lacking.

What the scheduler does not say in time, or does not know, is taken at the parent's word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pantala.background import Tasks
from pantala.core.digests import DigestRun, DigestTable
from pantala.core.policy import policy_of
from pantala.errors import DigestMismatch, SourceChanged
from pantala.model.digest import piece_crc, piece_digest
from pantala.model.numbers import bits_of_numbers
from pantala.model.task import PieceRecord
from pantala.storage.holding import Holding


class Listener(Protocol):
    """The flight."""

    @property
    def wanted(self) -> frozenset[int]:
        """Pieces that are to come."""

    def may_be(self, version: str) -> bool:
        """Whether that is, or may become, the version of what is here."""

    def is_through_by(self, numbers: frozenset[int]) -> bool:
        """Some caller needs nothing but these."""

    def hand_on(self, pieces: Sequence[PieceRecord]) -> None:
        """Callers may have these pieces."""

    def on_wrong(self, piece: PieceRecord, why: SourceChanged) -> None:
        """A piece that is here, and perhaps was given away, is not what it must be."""


class PieceDigests:
    """See the module. Also :class:`~pantala.ports.Digests`.

    Args:
        holding: What is here.
        listener: The flight.
        tasks: Those of the flight.
        ask: Has the scheduler asked for what is lacking, if there is one that can be asked. Takes
            a second at most.
    """

    def __init__(
        self,
        holding: Holding,
        listener: Listener,
        tasks: Tasks,
        ask: Callable[[], Awaitable[None]],
    ) -> None:
        self._holding = holding
        self._listener = listener
        self._tasks = tasks
        self._ask = ask
        self._table = DigestTable(holding.record.piece_count or 0)
        #: Of content that has no origin, nobody has read it there.
        self._has_origin = policy_of(holding.kind).from_source
        #: Pieces that are here, and were given by others.
        self._given = bits_of_numbers(n for n, p in holding.pieces.items() if p.parent_id)
        self._has_asked = False
        #: The answer to the question that is under way.
        self._answer: asyncio.Event | None = None
        #: Pieces that are here, and of which no caller has been told.
        self._held: list[PieceRecord] = []
        #: Asks what they must be.
        self._confirming: asyncio.Task[None] | None = None
        #: Something that is here is not what it must be.
        self._wrong: SourceChanged | None = None

    @property
    def version(self) -> str:
        """See :class:`~pantala.ports.Digests`."""
        return self._holding.record.version

    @property
    def lacks(self) -> int:
        """See :class:`~pantala.ports.Digests`."""
        if not self._has_origin:
            return 0
        return (self._given | bits_of_numbers(self._listener.wanted)) & ~self._table.known

    @property
    def has_unchecked(self) -> bool:
        """Some of what is here was given by others, and nobody has said that it is right."""
        return self._has_origin and self._given & ~self._table.known != 0

    # -- what is asked, and told ---------------------------------------------------------------

    def ask_first(self, *, at_origin: bool) -> None:
        """The scheduler has answered: ask for what is lacking, once. Pieces wait for the answer.

        Who reads all of it *at_origin* needs nobody's word.
        """
        if not self._has_asked and (self._given or not at_origin):
            self._has_asked = True
            self._tasks.start(self._find_out(), "ask for digests")

    async def _find_out(self) -> None:
        if self._answer is not None:
            await self._answer.wait()
        if not self.lacks:
            return
        self._answer = asyncio.Event()
        try:
            await self._ask()
        finally:
            self._answer.set()
            self._answer = None

    def take(self, version: str, runs: Sequence[DigestRun]) -> None:
        """See :class:`~pantala.ports.Digests`."""
        if not self._listener.may_be(version):
            return
        for run in runs:
            self._table.put(run)
            for number, _ in run.each():
                if number in self._holding.pieces:
                    self._look(self._holding.pieces[number])

    def _look(self, piece: PieceRecord) -> None:
        if self._wrong is None and self._differs(piece.number, piece.digest):
            self._wrong = _other_reading(piece.number)
            if piece.parent_id:
                what = f"piece {piece.number} of {piece.parent_id} is not what the origin gave"
                self._wrong = SourceChanged(what, version=self.version)
            self._listener.on_wrong(piece, self._wrong)

    def _differs(self, number: int, digest: str) -> bool:
        want = self._table.get(number)
        return want is not None and want != piece_crc(digest)

    async def _hear_of(self, number: int) -> None:
        if self._answer is not None and self._table.get(number) is None:
            await self._answer.wait()

    # -- pieces that come ----------------------------------------------------------------------

    async def check(self, number: int, digest: str, parent: str) -> None:
        """*parent* has given a piece. Waits for an answer that is under way.

        Raises:
            DigestMismatch: It is another one.
        """
        await self._hear_of(number)
        if self._differs(number, digest):
            want = piece_digest(self._table.get(number) or 0)
            raise DigestMismatch(f"piece {number} from {parent}", want=want, got=digest)

    async def check_origin(self, number: int, digest: str) -> None:
        """The origin has given a piece. Waits likewise.

        Raises:
            SourceChanged: Others have got another from it, though it says that all is as it was.
        """
        await self._hear_of(number)
        if self._differs(number, digest):
            raise _other_reading(number)

    def on_piece(self, piece: PieceRecord) -> None:
        """A piece was published. Callers may have it, but for the last of what they wait for.

        Before that, the scheduler is asked what those must be that others gave.
        """
        if piece.parent_id:
            self._given |= 1 << piece.number
        self._look(piece)
        self._held.append(piece)
        if self._confirming is None or self._confirming.done():
            if self.has_unchecked and self._listener.is_through_by(self.held):
                self._confirming = self._tasks.start(self._confirm(), "confirm what was given")
            else:
                self._hand_on()

    @property
    def held(self) -> frozenset[int]:
        """Pieces that are here, and of which no caller has been told."""
        return frozenset(piece.number for piece in self._held)

    async def _confirm(self) -> None:
        await self._find_out()
        self._hand_on()

    def _hand_on(self) -> None:
        if self._wrong is None:
            pieces, self._held = self._held, []
            self._listener.hand_on(pieces)

    async def settle(self) -> None:
        """All has come. Returns when callers have been told so.

        Raises:
            SourceChanged: Something is not what it must be.
        """
        if self._confirming is not None:
            await asyncio.wait((self._confirming,))
        if self._wrong is not None:
            raise self._wrong


def _other_reading(number: int) -> SourceChanged:
    return SourceChanged(
        f"the origin's content changed: piece {number} is not the one that others have read",
        wavers=True,
    )
