"""Pieces of which a scheduler is to hear in one word: a sum for each parent, however many."""

from __future__ import annotations

from typing import Final

from pantala.core.digests import DigestRun, digest_runs
from pantala.model.announce import PieceFinished, PieceSum, SourcePieceFinished
from pantala.model.digest import piece_crc

#: So many are told one by one: a batch is two messages itself, and a call besides.
FEW: Final = 2


class Batch:
    """Pieces that came one after another, with nothing else to be told between them.

    Args:
        most: Pieces after which it is full: a scheduler believes no more than the task has.

    Attributes:
        reports: Each of them, while they are few or asked to be kept; then None.
        count: Of pieces.
        number: By which the scheduler knows the batch again; 0 while more may be added.
        tries: To send it.
    """

    __slots__ = ("_most", "_read", "_sums", "count", "number", "reports", "tries")

    def __init__(self, most: int) -> None:
        self._most = most
        self._sums: dict[str | None, PieceSum] = {}
        #: The digests of those that were read at the origin.
        self._read: dict[int, int] = {}
        self.reports: list[PieceFinished | SourcePieceFinished] | None = []
        self.count = self.number = self.tries = 0

    @property
    def is_open(self) -> bool:
        """Whether more may be added."""
        return self.number == 0 and self.count < self._most

    def add(self, report: PieceFinished | SourcePieceFinished, *, keep: bool) -> None:
        """One more has come. *keep*: perhaps the scheduler wants to hear of each by itself."""
        piece = report.piece
        parent = piece.parent_id or None
        before = self._sums.get(parent, PieceSum(parent, 0, 0, 0.0))
        self._sums[parent] = PieceSum(
            parent, before.count + 1, before.length + piece.length, piece.cost
        )
        self.count += 1
        crc = piece_crc(piece.digest)
        if isinstance(report, SourcePieceFinished) and crc is not None:
            self._read[piece.number] = crc
        if self.reports is not None:
            self.reports.append(report)
            if not keep and len(self.reports) > FEW:
                self.reports = None

    def sums(self) -> tuple[PieceSum, ...]:
        """One for each parent."""
        return tuple(self._sums.values())

    @property
    def is_few(self) -> bool:
        """They had better be told one by one, which loses nothing."""
        return self.count <= FEW and not self._read

    def read(self) -> list[DigestRun]:
        """What those are that were read at the origin: others must not have anything else."""
        return digest_runs(self._read)
