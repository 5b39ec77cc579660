"""What the other rooms of a daemon have told to the swarm."""

from __future__ import annotations

from typing import Protocol

from pantala.model.announce import Registration
from pantala.model.task import Kind
from pantala.ports import AnnounceStream
from pantala.storage.holding import Holding


class Announcements(Protocol):
    """Telling the swarm what this node holds."""

    def announce(self, holding: Holding) -> None:
        """Say what of a task is here, soon."""

    def damaged(self, holding: Holding) -> None:
        """Say that less of a task is here than was told, soon."""

    async def announce_now(self, holding: Holding) -> None:
        """Say it, and return when it was heard, or could not be said."""

    async def settle(self, kind: Kind, task_id: str) -> None:
        """Return when what is to be told of a task was heard, or could not be said."""

    def open_stream(self, registration: Registration) -> AnnounceStream:
        """Open the stream of a download to the scheduler of its task.

        It ends with :meth:`heard`, if all was told on it, else with :meth:`announce`.

        Raises:
            SchedulerLost: No scheduler is available.
        """

    def heard(self, holding: Holding) -> None:
        """What of a task is here was said on the stream that :meth:`open_stream` opened last."""

    async def introduce(self, task_id: str) -> None:
        """Announce this host again, now: the scheduler of a task does not know it."""
