"""A host: its link, what it holds, and what it brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pantala import BUILD_VERSION
from pantala.model.announce import HostFacts

from .exchange import Exchange, Exchanging
from .network import Link
from .uploads import Plain, Uploads

if TYPE_CHECKING:
    from .flight import Flight

#: Of a HostFacts that is a strong seed.
_SEED: Final = 1


@dataclass(eq=False, slots=True)
class Task:
    """A file that the swarm wants.

    Attributes:
        number: Which.
        size: Bytes of it.
        piece_length: Bytes of each piece but the last.
    """

    number: int
    size: int
    piece_length: int

    @property
    def id(self) -> str:
        """As schedulers know it."""
        return f"{self.number:064x}"

    @property
    def url(self) -> str:
        """Where it comes from."""
        return f"http://origin/{self.number}"

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.size // self.piece_length)

    def length(self, number: int) -> int:
        """Bytes of a piece."""
        return min(self.piece_length, self.size - number * self.piece_length)


@dataclass(eq=False, slots=True)
class Holding:
    """What a host has of a task.

    Attributes:
        pieces: Those that are here, as bits.
        bytes: Bytes that came in as pieces, however often.
        flight: Brings them; None: nobody has asked yet.
    """

    host: Host
    task: Task
    pieces: int = 0
    bytes: int = 0
    uploads: Uploads = field(default_factory=Plain)
    flight: Flight | None = None

    def __post_init__(self) -> None:
        if self.host.exchange is not None:
            self.uploads = Exchanging(self.host.exchange, self)

    @property
    def is_whole(self) -> bool:
        """Whether all is here."""
        return self.pieces == (1 << self.task.pieces) - 1


class Host:
    """A machine with a daemon.

    Args:
        name: As the transcript calls it.
        idc: Its data centre.
        up: What it sends over.
        down: What it receives over.
        rate: Bits a second that it announces.
        is_seed: Whether it is one.

    Attributes:
        alive: Its daemon runs.
        silent: It does not, and nobody was told: its machine has lost its power.
        holdings: By task.
        exchange: Who is given what; None: whoever asks.
        listeners: Flights that hear what it can still give, and the peer that they mean.
    """

    __slots__ = (
        *("alive", "died", "down", "exchange", "facts", "holdings", "idc"),
        *("listeners", "name", "silent", "telling", "up"),
    )

    def __init__(
        self, name: str, *, idc: int, up: Link, down: Link, rate: int, is_seed: bool = False
    ) -> None:
        self.name = name
        self.idc = idc
        self.up = up
        self.down = down
        self.alive = True
        self.silent = False
        self.died: float | None = None
        self.exchange: Exchange | None = None
        self.holdings: dict[Task, Holding] = {}
        self.listeners: dict[tuple[Flight, str], None] = {}
        #: It tells its listeners once a second.
        self.telling = False
        self.facts = HostFacts(
            id=name,
            hostname=name,
            ip=name,
            port=4000,
            type=_SEED if is_seed else 0,
            idc=f"idc{idc}",
            max_tx_bandwidth=rate,
            version=BUILD_VERSION,
        )

    def holding(self, task: Task) -> Holding:
        """What it has of *task*, perhaps nothing."""
        found = self.holdings.get(task)
        if found is None:
            found = self.holdings[task] = Holding(self, task)
        return found
