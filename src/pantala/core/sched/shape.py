"""How a content is cut into pieces."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """In bytes. Peers exchange pieces only if they agree on it."""

    content_length: int
    piece_length: int
