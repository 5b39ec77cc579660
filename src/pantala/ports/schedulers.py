"""What a daemon needs of its schedulers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pantala.core.digests import DigestRun
from pantala.errors import DragonflyError
from pantala.model.announce import Answer, Report
from pantala.model.growth import Growth
from pantala.model.task import Description, DownloadRequest, ImportedTask, Kind


@dataclass(frozen=True, slots=True)
class KnownTask:
    """What the swarm knows of a task that somebody holds.

    Attributes:
        first_piece: Bytes in piece 0; None when it was not told.
    """

    content_length: int
    piece_count: int
    first_piece: int | None


class Digests(Protocol):
    """What a download knows of the digests of its pieces, by the word of who read the origin."""

    @property
    def version(self) -> str:
        """Of the content that is here; ``""``: there is none, or it has no name yet."""

    @property
    def lacks(self) -> int:
        """A bit for each piece whose digest would be of use."""

    def take(self, version: str, runs: Sequence[DigestRun]) -> None:
        """The scheduler says that these are the digests of that version."""


class AnnounceStream(Protocol):
    """An announce stream: what a daemon and a scheduler tell each other about one download."""

    def tell(self, what: Report) -> None:
        """Queue a message, which is sent in its turn by :meth:`run`. Never waits."""

    def finish(self) -> None:
        """Nothing more will be told; the scheduler has little time left to end the stream."""

    async def ask(self) -> None:
        """Ask for digests that are lacking, where that may be of use. It takes a second at most.

        Not before :meth:`run` has brought the first answer.
        """

    async def run(
        self, on_answer: Callable[[Answer], None], digests: Digests | None = None
    ) -> None:
        """Tell and hear, until the scheduler ends it, or does not in time after :meth:`finish`.

        Args:
            on_answer: Called with each answer.
            digests: Hears of digests. None: nobody needs them.

        Raises:
            HostUnknown: The scheduler does not know this host.
            DragonflyError: The stream broke off, or was refused.
        """


class Turn(Protocol):
    """It is ours to ask the origin what a task is; others wait for what we hear.

    What is told is sent by :meth:`run`, and telling never waits.
    """

    def learnt(self, said: Description, *, alone: bool) -> None:
        """The origin says so. *alone*: this host will not register as a peer."""

    def reading(self, received: int, version: str = "", crcs: Sequence[int] = ()) -> None:
        """The origin names no length, and is read.

        Args:
            received: So many bytes are here.
            version: Of what is read; ``""``: it cannot be followed yet.
            crcs: The CRC-32 of each step that is here.
        """

    def failed(self, error: DragonflyError | None) -> None:
        """It has not said it, for this reason; None: not in time."""

    def end(self) -> None:
        """Nothing comes of it, or of what was told: it is another's turn."""

    async def run(self) -> None:
        """Tell what there is to tell. Returns when the scheduler needs us no longer."""


class SchedulerLink(Protocol):
    """The schedulers of this daemon; the ring decides which one a task belongs to."""

    def __len__(self) -> int:
        """How many are known, whether they answer or not."""

    async def ready(self, task_id: str) -> bool:
        """Wait for a task's scheduler if it went a moment ago; whether it had.

        It is some seconds at most, even if it does not come back.
        """

    async def stat(self, kind: Kind, task_id: str) -> KnownTask | None:
        """What the swarm knows; None when no usable holder lives, or no scheduler answers."""

    async def description(
        self,
        request: DownloadRequest,
        task_id: str,
        *,
        origin: bool,
        version: str,
        patience: float | None,
        anew: bool = False,
        on_growth: Callable[[Growth], None] | None = None,
    ) -> Description | Turn | None:
        """What a task is, from whoever knows; or our turn to ask its origin, after others.

        Args:
            request: With what the origin would be asked.
            task_id: Of the task.
            origin: Nothing but the origin's word will do.
            version: Of what is here, as an origin named it; ``""`` if nothing, or none was named.
            patience: Seconds to wait for others' turns to end. None: as long as it takes.
            anew: Nor a word of its that it may have said before this was asked.
            on_growth: Called with what another reads who is waited for, as it comes. None: he is
                not followed.

        Returns:
            None when no scheduler answers, or none that knows such questions; when it does not know
            whom to send; when that time is over.

        Raises:
            OriginError: The origin has failed several others.
        """

    async def imported(self, kind: Kind, task_id: str) -> ImportedTask:
        """What is known of a task that was imported.

        Raises:
            TaskNotFound: There is no such task.
            NoProvider: Its import has not ended well.
            SchedulerLost: Nobody who knows can be asked.
            DragonflyError: The scheduler does not say.
        """


# -- parents -----------------------------------------------------------------------------------
