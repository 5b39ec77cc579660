"""What is known of a task that is held, for those who only want to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pantala.core.content_state import ContentState
from pantala.model.pieces import ByteRange, Piece
from pantala.model.task import Kind, PieceRecord, TaskRecord


class Known:
    """A :class:`~pantala.core.content_state.ContentState`, to be read.

    Args:
        state: It.
    """

    def __init__(self, state: ContentState) -> None:
        self.state = state

    @property
    def kind(self) -> Kind:
        """The kind of the task."""
        return self.state.record.kind

    @property
    def id(self) -> str:
        """The id of the task."""
        return self.state.record.id

    @property
    def record(self) -> TaskRecord:
        """The record as it is now, or as it was when the task was deleted."""
        return self.state.record

    @property
    def pieces(self) -> Mapping[int, PieceRecord]:
        """The published pieces by number."""
        return self.state.pieces

    @property
    def total(self) -> int:
        """Bytes in the whole content. Only once that is known."""
        return self.state.total

    @property
    def complete(self) -> bool:
        """Every piece is here."""
        return self.state.complete

    @property
    def digests(self) -> str:
        """One digest over those of all pieces; ``""`` while not every piece is here."""
        return self.state.digests

    def parts(self) -> list[ByteRange]:
        """The parts of which every piece is here, in order, each as long as can be."""
        return self.state.parts()

    def piece(self, number: int) -> Piece:
        """Where piece *number* lies. Raises InvalidRequest when there is no such piece."""
        return self.state.piece(number)

    @property
    def version_is_settled(self) -> bool:
        """Somebody who knows has said which version it is, or that it has none."""
        return self.state.version_is_settled

    def lacks(self, numbers: Iterable[int]) -> int:
        """Bytes that :meth:`reserve` would need more."""
        return self.state.lacks(numbers)

    @property
    def fully_reserved(self) -> bool:
        """There is room for every piece, so that a reader of it all can make it no larger."""
        return self.state.fully_reserved
