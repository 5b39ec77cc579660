"""Where a scheduler learns what is wanted of its cluster: a file, or somebody who is asked."""

from __future__ import annotations

from typing import Protocol

from pantala.model.cluster import ClusterWishes


class ClusterSource(Protocol):
    """One of them. It is read again and again, by one reader who waits for it to answer."""

    async def read(self) -> ClusterWishes:
        """What is wanted now. The wait for others has an end.

        It logs once what it does not understand and can leave out, such as a key that nobody
        knows.

        Raises:
            DragonflyError: That cannot be had, or makes no sense: one line says why, and what to
                do. What was read last still holds; the first time, the scheduler does not start.
        """
