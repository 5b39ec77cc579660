"""What a run is of: hosts, links, files, and what goes wrong; read from a small JSON file.

Rates are bits a second, lengths bytes, times seconds; where a field says so, times are multiples of
the *ideal*, which is the time in which one host's link carries the file at its full rate.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pantala.core.policy import policy_of
from pantala.errors import ConfigError
from pantala.model.pieces import piece_length_for
from pantala.model.task import Kind
from pantala.model.units import parse_size

#: Where scenarios lie that come with the package.
SCENARIOS: Final = Path(__file__).with_name("scenarios")

_RATES: Final = {"k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario.

    Attributes:
        name: Of its file.
        why: What it shows, in a sentence.
        hosts: That want something; seeds come on top.
        seeds: That fetch from the origin for others.
        size: Bytes of each file.
        piece_length: Bytes of each piece but the last; 0: as a CACHE task is cut.
        rate: Of each host's link, each way.
        seed_rate: Of a seed's; 0: as the rest.
        origin_rate: Of the origin's.
        mixed: Parts of the hosts with another rate: pairs of a share and a factor.
        latency: From host to host, and to the scheduler, one way.
        headers: What TCP and IP add to each byte.
        idcs: Data centres, over which hosts are spread evenly; the first has the seeds and the
            scheduler.
        line: Of the line between any two of them, each way; 0: no limit.
        oversubscribed: A data centre's hosts could send, and receive, so many times what its own
            link to all the others carries; 0: no limit.
        line_latency: From one data centre to another.
        spread: Hosts start evenly over so many ideals; 0: all at once.
        tasks: Files. A host wants ``wants`` of them, of the first ones more often (Zipf).
        wants: Files that each host wants, one after the other.
        dying: Share of the hosts that die...
        dying_from, dying_until: ...between these times, in ideals.
        silent: Nobody is told of a death: no connection is reset.
        seed_dies: When the first seed dies, in ideals; 0: never.
        scheduler_stops: When the scheduler dies, in ideals; 0: never.
        scheduler_away: Seconds until it is there again.
        exchange: Daemons give pieces away by and by; else each offers all that it has to everybody.
        partners: To exchange with, that the scheduler gives to each download; 0: none.
        in_flight: Pieces that a download fetches at once.
        max_schedules: Answers of the scheduler that a download acts on.
        look: Seconds between two looks at how fetches get on; 0: none.
        weights: Seconds between two words of a host about what it can still give; 0: none.
        stall: Seconds until a fetch from a silent host is given up.
        keepalive: Seconds until a stream to a silent host is.
        exact: Rates of flows are exactly fair, see :mod:`.network`; None: in small swarms.
        grain: Seconds within which changes of rates are worked out together, unless exact.
        patience: The run is stopped after so many ideals.
        seed: Of all chance.
        check: Events between two checks of the invariants; 0: only at the end; None: by size.
    """

    name: str = ""
    why: str = ""
    hosts: int = 8
    seeds: int = 1
    size: int = 128 << 20
    piece_length: int = 0
    rate: int = 200_000_000
    seed_rate: int = 0
    origin_rate: int = 100_000_000_000
    mixed: tuple[tuple[float, float], ...] = ()
    latency: float = 0.001
    headers: float = 0.045
    idcs: int = 1
    line: int = 0
    oversubscribed: float = 0.0
    line_latency: float = 0.02
    spread: float = 0.0
    tasks: int = 1
    wants: int = 1
    dying: float = 0.0
    dying_from: float = 0.2
    dying_until: float = 2.0
    silent: bool = False
    seed_dies: float = 0.0
    scheduler_stops: float = 0.0
    scheduler_away: float = 5.0
    exchange: bool = True
    partners: int = 13
    in_flight: int = 8
    max_schedules: int = 5
    look: float = 0.25
    weights: float = 1.0
    stall: float = 30.0
    keepalive: float = 20.0
    exact: bool | None = None
    grain: float = 0.005
    patience: float = 100.0
    seed: int = 1
    check: int | None = None

    @property
    def ideal(self) -> float:
        """Seconds in which one host's link carries one file at its full rate."""
        return self.size * 8 / self.rate

    @property
    def piece(self) -> int:
        """Bytes of each piece but the last."""
        least = policy_of(Kind.CACHE).least_piece
        return self.piece_length or piece_length_for(self.size, least=least)

    @property
    def is_exact(self) -> bool:
        """Whether rates are exactly fair."""
        return self.hosts <= 24 if self.exact is None else self.exact

    @property
    def check_every(self) -> int:
        """Events between two checks; 0: none until the end."""
        return self.hosts * self.hosts // 64 + 1 if self.check is None else self.check


_FIELDS: Final = {each.name: each for each in dataclasses.fields(Scenario)}


def read(name: str, changes: Mapping[str, Any]) -> Scenario:
    """A scenario that comes with the package, or of a file; with *changes* to it.

    Raises:
        ConfigError: There is none of that name, or something in it makes no sense.
    """
    path = SCENARIOS / f"{name}.json"
    if not path.is_file():
        path = Path(name)
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        names = ", ".join(sorted(each.stem for each in SCENARIOS.glob("*.json")))
        why = f"{error.strerror or error}; there are {names}, or name a file"
        raise ConfigError(f"scenario {name}: {why}") from error
    except ValueError as error:
        raise ConfigError(f"scenario {path}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"scenario {path}: want an object with the fields of a scenario")
    return make({**found, **changes, "name": path.stem})


def make(values: Mapping[str, Any]) -> Scenario:
    """A scenario of these fields; the others have their defaults.

    Raises:
        ConfigError: A field is unknown, of the wrong type, or out of range.
    """
    unknown = sorted(values.keys() - _FIELDS.keys())
    if unknown:
        raise ConfigError(f"scenario: {unknown[0]!r} is no field of it")
    scenario = Scenario(**{name: parse(name, value) for name, value in values.items()})
    at_least_one = ("hosts", "size", "rate", "idcs", "tasks", "wants", "in_flight")
    for name in at_least_one:
        if getattr(scenario, name) < 1:
            raise ConfigError(f"scenario: {name} is {getattr(scenario, name)}: want at least 1")
    for name, each in _FIELDS.items():
        value = getattr(scenario, name)
        if each.type in ("int", "float") and not 0 <= value < math.inf:
            raise ConfigError(f"scenario: {name} is {value}: want no less than 0")
    if scenario.wants > scenario.tasks:
        raise ConfigError(f"scenario: a host wants {scenario.wants} of {scenario.tasks} tasks")
    return scenario


def parse(name: str, value: Any) -> Any:
    """*value* as field *name* has it. Sizes may be ``"4MiB"``, rates ``"200Mbit"``.

    Raises:
        ConfigError: It cannot be one.
    """
    kind = str(_FIELDS[name].type)
    try:
        if name in ("size", "piece_length"):
            return parse_size(value)
        if name == "rate" or name.endswith("_rate") or name == "line":
            return parse_rate(value)
        if name == "mixed":
            return tuple((float(share), float(factor)) for share, factor in value)
        if kind.startswith("bool"):
            return _switch(value)
        if kind == "float":
            return float(value)
        return int(value) if kind.startswith("int") else str(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"scenario: {name} is {value!r}: {error}") from error


def parse_rate(value: str | int) -> int:
    """Bits a second, of ``"200Mbit"`` or a number. Raises ValueError: it is neither."""
    text = str(value).removesuffix("bit")
    factor = _RATES.get(text[-1:], 1)
    return round(float(text.rstrip("kMG")) * factor)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("yes", "no"):
        return bool(value == "yes")
    raise ValueError("want yes or no")
