"""What a host is told that waits for somebody who reads content of unknown length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Leader(NamedTuple):
    """Somebody who may be followed: a host that reads the content, or follows itself."""

    host_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Growth:
    """What is read, and whom to follow.

    Attributes:
        version: As the origin names it; else a name of this reading alone.
        first: Number of the first of *crcs*; 0 begins a list anew, another one goes on with it.
        crcs: The CRC-32 of each step, by the word of who reads the origin.
        leaders: The best first.
    """

    version: str
    first: int
    crcs: tuple[int, ...]
    leaders: tuple[Leader, ...]


class Grown(NamedTuple):
    """What a leader has.

    Attributes:
        ip, port: Where its steps are served by Vortex.
        steps: So many, from the first on.
    """

    ip: str
    port: int
    steps: int
