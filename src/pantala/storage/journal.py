"""What outlives the process of what is known of tasks and their pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pantala.errors import DragonflyError
from pantala.model.task import Kind, PieceRecord, TaskRecord

#: Called when something has been written; with an error when it could not be.
Written = Callable[[DragonflyError | None], None]


class Journal(Protocol):
    """Written behind what happens in memory, in the order in which it happened.

    No method waits, and all are called on one thread. Kinds never see each other's entries.

    Attributes:
        lasts: It outlives the process.
    """

    lasts: bool

    def load(self) -> list[tuple[TaskRecord, list[PieceRecord]]]:
        """Open it; everything that is in it. Blocks; called once, before anything is written.

        Raises:
            ConfigError: A later version has written it, or it cannot be opened.
        """

    def task(self, record: TaskRecord) -> None:
        """What is known of a task now."""

    def piece(self, record: TaskRecord, piece: PieceRecord, written: Written) -> None:
        """A verified piece of a task is here; *written* is called once that is certain to last."""

    def dropped(self, kind: Kind, task_id: str, number: int) -> None:
        """A piece is here no more."""

    def deleted(self, kind: Kind, task_id: str) -> None:
        """Nothing of a task is here any more. Nothing happens when it is unknown."""

    def close(self) -> None:
        """Write what is left to be written. Blocks. From here on no piece is written."""


class NullJournal:
    """Nothing outlives the process, as befits memory."""

    lasts = False

    def load(self) -> list[tuple[TaskRecord, list[PieceRecord]]]:
        return []

    def task(self, record: TaskRecord) -> None:
        pass

    def piece(self, record: TaskRecord, piece: PieceRecord, written: Written) -> None:
        del record, piece
        written(None)

    def dropped(self, kind: Kind, task_id: str, number: int) -> None:
        pass

    def deleted(self, kind: Kind, task_id: str) -> None:
        pass

    def close(self) -> None:
        pass
