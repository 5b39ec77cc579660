"""Questions what a task is, the turns of those who ask, and what they have heard.

    Subject 1 ── n Asker          a question of a host, for as long as it is open
    Subject 1 ── 1 Word           what the origin has said, while that is believed
    Subject 1 ── 1 Refusals       how it has failed hosts

Only :mod:`.describing` changes them. Times are seconds on the clock of its caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pantala.errors import OriginError
from pantala.model.task import Description, DownloadRequest

from .entities import Host, Task, TaskKey
from .refusals import Refusals


@dataclass(frozen=True, slots=True)
class Told:
    """The answer, and the end of it."""

    description: Description


@dataclass(frozen=True, slots=True)
class YourTurn:
    """Ask the origin, and tell what it says."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Decide again when the task changes, and at this time in any case.

    Attributes:
        reading: Somebody reads content whose length the origin does not name...
        received: ...and has so many bytes.
    """

    until: float
    reading: bool = False
    received: int = 0


@dataclass(frozen=True, slots=True)
class AskSeed:
    """Ask one of these hosts to fetch the task, the first that will; then decide again."""

    task: Task
    seeds: tuple[Host, ...]


Answer = Told | YourTurn | Wait | AskSeed


@dataclass(eq=False, slots=True)
class Asker:
    """One question of one host, for as long as it is open."""

    host: Host
    request: DownloadRequest
    credentials: str
    #: Nothing but the origin's word will do.
    origin: bool
    came_at: float
    subject: Subject
    #: Of what its host holds, as an origin named it; ``""`` if nothing, or none was named.
    version: str = ""
    #: He would follow who reads content of unknown length, and be followed.
    follows: bool = False
    #: The origin's word must be of after he came.
    anew: bool = False
    #: It is this one's turn, or was.
    had_turn: bool = False
    #: Since when.
    turn_at: float = 0.0
    #: He has said that he reads the content to its end.
    reads: bool = False
    #: Until when others wait for that at most.
    reads_until: float = 0.0
    has_asked_seed: bool = False
    #: Since when nobody could be waited for.
    alone_since: float | None = None

    @property
    def key(self) -> TaskKey:
        """The task in question."""
        return self.subject.key


@dataclass(frozen=True, slots=True)
class Word:
    """What the origin has said, and to whom.

    Attributes:
        settles_at: By then who heard it fetches the content; others wait until he does, so that it
            is he who goes on with the answer that he has begun to read, and all have it from him.
        had: Somebody had begun to, so that nobody waits any more.
    """

    description: Description
    at: float
    by: Asker
    settles_at: float
    had: bool = False


@dataclass(eq=False, slots=True)
class Subject:
    """What is asked: a task; of content that is compared, with which credentials."""

    key: TaskKey
    askers: dict[Asker, None] = field(default_factory=dict)
    #: Whose turn it is, and until when.
    describer: Asker | None = None
    until: float = 0.0
    #: He reads the content: bytes, and since when it was no more.
    reading: bool = False
    received: int = 0
    moved_at: float = 0.0
    word: Word | None = None
    #: Hosts that were told the word.
    told: set[str] = field(default_factory=set)
    refusals: Refusals = field(default_factory=Refusals)
    #: How a seed failed that was asked for it, and when.
    seed_failure: tuple[float, OriginError] | None = None
