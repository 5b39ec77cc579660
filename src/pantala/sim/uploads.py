"""The upload side of a host: which pieces of a task it offers to whom, and when.

Two do it in different ways: :class:`Plain`, which offers each piece to each child as soon as it is
there, as stock daemons do, and :class:`.exchange.Exchanging`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Follower(Protocol):
    """A child's end of what a parent tells it: one for each ``Follow``."""

    @property
    def lacking(self) -> int:
        """Pieces that the child lacked when it asked, as bits."""

    @property
    def spares(self) -> int:
        """Those that it lacked, and wanted later, if at all."""

    @property
    def has(self) -> int:
        """Those that it had, or fetched."""

    @property
    def name(self) -> str:
        """By which others know it."""

    @property
    def room(self) -> int:
        """So many it would have fetched at once then."""

    def offer(self, numbers: Iterable[int]) -> None:
        """The parent has these, and it may ask for them."""

    def close(self) -> None:
        """The parent will offer no more."""


class Uploads(Protocol):
    """What one host gives away of one task.

    Attributes:
        offered: Offers ever.
    """

    offered: int

    @property
    def followers(self) -> Iterable[Follower]:
        """Children that hear of what comes."""

    def began(self) -> None:
        """A download brings pieces from now on."""

    def publish(self, number: int) -> None:
        """A piece is here."""

    def ended(self) -> None:
        """The download is over: what is here is all that there will be."""

    def follow(self, child: Follower) -> None:
        """A child asks what there is of its pieces, and to hear of what comes."""

    def hear(self, child: Follower, *, lacks: int, has: int, spares: int, room: int) -> None:
        """A child tells what it wants again, what no more, and how much at once."""

    def leave(self, child: Follower) -> None:
        """A child hears no more, if it did."""

    def asked(self, number: int) -> Any:
        """A child is sent a piece. Returns what :meth:`sent` is to be told with."""

    def sent(self, what: Any, *, arrived: bool) -> None:
        """That has ended, and all of it arrived, or not."""


class Plain:
    """Each piece is offered to each child at once, and whoever asks is served: :class:`Uploads`."""

    def __init__(self) -> None:
        self.offered = 0
        #: Pieces that are here, in the order in which they came.
        self._here: list[int] = []
        #: Children, and what each may still be offered.
        self._missing: dict[Follower, int] = {}
        #: Nothing more is on its way.
        self._ended = True

    @property
    def followers(self) -> Iterable[Follower]:
        """See :class:`Uploads`; likewise all that follow."""
        return self._missing

    def began(self) -> None:
        """More will come."""
        self._ended = False

    def publish(self, number: int) -> None:
        """Offer it."""
        self._here.append(number)
        for child in self._missing:
            self._tell(child, (number,))

    def ended(self) -> None:
        """All hear that there is no more."""
        self._ended = True
        followers, self._missing = self._missing, {}
        for child in followers:
            child.close()

    def follow(self, child: Follower) -> None:
        """Offer what is here."""
        self._missing[child] = child.lacking
        self._tell(child, tuple(self._here))
        if self._ended:
            self.leave(child)
            child.close()

    def hear(self, child: Follower, *, lacks: int, has: int, spares: int, room: int) -> None:
        """Is not looked at."""

    def leave(self, child: Follower) -> None:
        """Forget it."""
        self._missing.pop(child, None)

    def asked(self, number: int) -> None:
        """Anybody may have it."""

    def sent(self, what: None, *, arrived: bool) -> None:
        """Makes no difference."""

    def _tell(self, child: Follower, numbers: tuple[int, ...]) -> None:
        missing = self._missing[child]
        new = [number for number in numbers if missing >> number & 1]
        if new:
            for number in new:
                missing &= ~(1 << number)
            self._missing[child] = missing
            self.offered += len(new)
            child.offer(new)
