"""How a task is cut into pieces."""

from __future__ import annotations

from typing import NamedTuple

from pantala.model.announce import Registration


class Shape(NamedTuple):
    """In bytes. Peers exchange pieces only if they agree on it."""

    content_length: int
    piece_length: int

    def told(self, registration: Registration) -> Shape:
        """How a peer says that the task is cut; what it does not say is as here."""
        content, piece = registration.content_length, registration.piece_length
        told = Shape(
            self.content_length if content is None else content,
            self.piece_length if piece is None else piece,
        )
        return self if told == self else told  # of thousands of peers it is one and the same

    @property
    def piece_count(self) -> int:
        """Pieces in the whole content; 0 while it is not known how it is cut."""
        return -(-self.content_length // self.piece_length) if self.piece_length else 0
