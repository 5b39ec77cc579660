"""Content of which nobody knows yet how long it is: what has come can be read, step by step.

No piece of it is published before its length is known, for then only it is known how it is cut. A
step is what others can have of it meanwhile: as many bytes as the medium takes at a time.
"""

from __future__ import annotations

from pantala.errors import PieceNotFound
from pantala.model.digest import piece_digest
from pantala.model.pieces import ByteRange
from pantala.model.task import PieceRecord, Traffic
from pantala.ports import Extent

from .medium import Growing


class Growth:
    """What has come of one task. Its holding makes it.

    Args:
        task_id: Of the task.
        room: Where it lies.
        step: Bytes of a step.

    Attributes:
        steps: Those that are here, whole, from the first on.
        crcs: The CRC-32 of each.
    """

    def __init__(self, task_id: str, room: Growing, step: int) -> None:
        self.room = room
        self.steps: list[PieceRecord] = []
        self.crcs: list[int] = []
        self._task_id = task_id
        self._step = step

    @property
    def length(self) -> int:
        """Bytes in all steps that are here."""
        return len(self.steps) * self._step

    def add(self, crc: int, *, parent_id: str | None, traffic: Traffic, now: float) -> None:
        """The next step is here.

        Args:
            crc: The CRC-32 of its bytes.
            parent_id: The host that it came from; None for the origin.
            traffic: How it came.
            now: Unix time, seconds.
        """
        self.steps.append(
            PieceRecord(
                number=len(self.steps),
                offset=self.length,
                length=self._step,
                digest=piece_digest(crc),
                parent_id=parent_id,
                traffic=traffic,
                cost=0.0,
                created_at=now,
            )
        )
        self.crcs.append(crc)

    def step(self, number: int) -> PieceRecord:
        """One of them. Raises PieceNotFound: it is not here."""
        if number >= len(self.steps):
            raise PieceNotFound(self._task_id, number)
        return self.steps[number]

    def extent(self, part: ByteRange) -> Extent:
        """The bytes of *part*, where they lie. Raises PieceNotFound: not all of it is here."""
        if part.end > self.length:
            raise PieceNotFound(self._task_id, part.end // self._step)
        return self.room.extent(part.start, part.length)
