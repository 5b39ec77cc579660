"""The upload side of a host: which pieces of a task it offers to whom, and when.

This is the one place that knows how a parent decides that. Today's parents offer each piece to each
follower as soon as it is there, and serve whoever asks, all at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Follower(Protocol):
    """A child's end of what a parent tells it: one for each ``Follow``."""

    @property
    def missing(self) -> int:
        """Pieces that the child asked for, as bits."""

    def offer(self, numbers: Iterable[int]) -> None:
        """The parent has these."""

    def close(self) -> None:
        """The parent will offer no more."""


class Uploads:
    """What one host gives away of one task.

    Attributes:
        slots: Pieces that it sends at once at most; None: no limit.
        sending: Pieces that it sends now.
        most: Of :attr:`sending`, ever.
        offered: Offers ever.
    """

    def __init__(self) -> None:
        self.slots: int | None = None
        self.sending = 0
        self.most = 0
        self.offered = 0
        #: Pieces that are here, in the order in which they came.
        self._here: list[int] = []
        self._followers: dict[Follower, None] = {}
        #: Nothing more is on its way.
        self._ended = True

    @property
    def followers(self) -> Iterable[Follower]:
        """Children that hear of what comes."""
        return self._followers

    def began(self) -> None:
        """A download brings pieces from now on."""
        self._ended = False

    def follow(self, child: Follower) -> None:
        """A child asks what there is of its pieces, and to hear of what comes."""
        missing = child.missing
        self._tell(child, [number for number in self._here if missing >> number & 1])
        if self._ended:
            child.close()
        else:
            self._followers[child] = None

    def leave(self, child: Follower) -> None:
        """A child hears no more, if it did."""
        self._followers.pop(child, None)

    def publish(self, number: int) -> None:
        """A piece is here."""
        self._here.append(number)
        for child in self._followers:
            if child.missing >> number & 1:
                self._tell(child, [number])

    def ended(self) -> None:
        """The download is over: what is here is all that there will be."""
        self._ended = True
        followers, self._followers = self._followers, {}
        for child in followers:
            child.close()

    def sends(self) -> None:
        """A child is being sent a piece."""
        self.sending += 1
        self.most = max(self.most, self.sending)

    def sent(self) -> None:
        """That has ended, well or badly."""
        self.sending -= 1

    def _tell(self, child: Follower, numbers: list[int]) -> None:
        if numbers:
            self.offered += len(numbers)
            child.offer(numbers)
