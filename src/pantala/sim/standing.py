"""What a host tells of a task when it wants nothing of it: that it is here, or that it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pantala.errors import DragonflyError
from pantala.model import announce
from pantala.model.announce import Answer, Report

from .host import Holding

if TYPE_CHECKING:
    from .scheduler import Stream


class Standing:
    """A host that only tells what of a task it has, or that it comes."""

    def __init__(self, holding: Holding, reports: Sequence[Report]) -> None:
        self.host = holding.host
        self.stream: Stream | None = None
        self._reports = reports

    def on_answer(self, answer: Answer) -> None:
        """Say so, if that is what the scheduler wants to hear."""
        if isinstance(answer, announce.NeedBackToSource) and self.stream is not None:
            for report in self._reports:
                self.stream.tell(report)

    def on_stream_end(self, error: DragonflyError | None) -> None:
        """Nobody hears it."""
        del error
        self.stream = None
