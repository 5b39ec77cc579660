"""Other daemons as parents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from pantala.model.announce import Candidate
from pantala.model.exchange import Copy, Exchanged, Offer, Offering, Wish
from pantala.model.growth import Grown, Leader
from pantala.model.task import Kind


class Wants(Protocol):
    """What one parent is told of what is wanted here, by the download of that name."""

    first: Wish
    name: str

    async def next(self) -> Wish:
        """What has changed; waits until something has."""


class ParentLink(Protocol):
    """What other daemons can be asked for as parents: what they have, and what they can give."""

    def offers(
        self, parent: Candidate, kind: Kind, task_id: str, numbers: frozenset[int], *, gap: float
    ) -> AsyncIterator[Offer | Copy]:
        """Which of the pieces *parent* has, as it gets them. The first item is the copy.

        Args:
            parent: Whom to ask.
            kind: With *task_id*, of what.
            task_id: The task.
            numbers: The pieces wanted.
            gap: Seconds between two offers at most.

        Raises:
            Busy: It serves as many as it can.
            ParentLost: It could not be reached, broke off, or was silent for too long.
        """

    def exchange(
        self, parent: Candidate, kind: Kind, task_id: str, wants: Wants, *, gap: float
    ) -> AsyncIterator[Copy | Exchanged | Offering]:
        """Which pieces *parent* would have us fetch, one soon after the other.

        The first item is the copy, the second says how it is cut and where pieces are served. There
        is none if *parent* does not exchange: its :meth:`offers` are all that can be had.

        Args:
            parent: Whom to ask.
            kind: With *task_id*, of what.
            task_id: The task.
            wants: What it is told.
            gap: Seconds between two words of it at most.

        Raises:
            Busy, ParentLost: As :meth:`offers`.
        """

    def grown(
        self, leader: Leader, kind: Kind, task_id: str, version: str, *, gap: float
    ) -> AsyncIterator[Grown]:
        """How much *leader* has of content whose length nobody knows yet; told as it grows.

        It ends when the length is known, or *leader* gives up.

        Args:
            leader: Whom to ask.
            kind: With *task_id*, of what.
            task_id: The task.
            version: Of what is read.
            gap: Seconds between two words of it at most.

        Raises:
            Busy, ParentLost: As :meth:`offers`.
        """

    def weights(self, parent: Candidate) -> AsyncIterator[float]:
        """What *parent*'s host can still give, bits a second, above 0; told about once a second.

        Raises:
            ParentLost: It could not be reached, or broke off.
        """

    async def fetch(
        self,
        parent: Candidate,
        kind: Kind,
        task_id: str,
        piece: Offer,
        *,
        limit: float,
    ) -> tuple[bytes, str]:
        """Get a piece inside a message, for want of a better way; its bytes and their digest.

        Raises:
            ParentLost, NotFound, DigestMismatch, RemoteProtocolError: As fetching by Vortex.
        """
