"""What a :class:`.bad_parent.BadParent` that exchanges says to its children: each is a ``Talk``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pantala.pb import exchange_pb2

from .bad_parent import BadParent


def offering(first: int, count: int) -> Any:
    """Say that these pieces may be asked for."""
    return exchange_pb2.FollowResponse(offers=[exchange_pb2.Run(first=first, count=count)])


def offer_again(parent: BadParent) -> Iterator[Any]:
    """Everything, again and again."""
    while not parent.released.wait(0.01):
        yield offering(0, len(parent.pieces()))


def flood(parent: BadParent) -> Iterator[Any]:
    """Everything, without a pause."""
    while not parent.released.is_set():
        yield offering(0, len(parent.pieces()))


def offer_one(_parent: BadParent) -> Iterator[Any]:
    """One piece, and no more: its child has to come again."""
    yield offering(0, 1)


def offer_beyond(parent: BadParent) -> Iterator[Any]:
    """A piece that there is not."""
    yield offering(len(parent.pieces()), 1)
