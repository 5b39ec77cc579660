"""How a program that does one thing ends: its result, or one line, and the exit status.

``dfget`` starts with this, so it imports next to nothing.
"""

from __future__ import annotations

import json
import signal
import sys

from pantala.errors import DragonflyError, OriginError
from pantala.model.urls import public_url

from ._process import OutputLost
from ._signals import Stopped, ended_by_signals
from ._text import one_line

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from pantala.client.arrival import Arrival

    from ._arguments import Options


def outcome(
    name: str, work: Callable[[], Mapping[str, Any] | None], *, as_json: bool, seconds: float
) -> int:
    """Do *work*; the exit status. Its failure is one line on standard error.

    Args:
        name: The program's, for that line.
        work: What is to be done; its result is printed with *as_json*, and else, or if it
            returns None, it has printed what there is to tell.
        as_json: Results and errors are printed as one JSON object.
        seconds: After so many it is given up.
    """
    try:
        with ended_by_signals(seconds):
            result = work()
            if as_json and result is not None:
                print_json(result)
    except (DragonflyError, OSError) as error:
        _fail(name, failure(error), as_json=as_json and not isinstance(error, OutputLost))
    except Stopped as stop:
        why = f"stopped by {signal.Signals(stop.number).name}{stop.advice}"
        _fail(name, {"code": "CANCELLED", "message": why, "status_code": None}, as_json=as_json)
        return 128 + stop.number
    else:
        return 0
    return 1


def failure(error: DragonflyError | OSError) -> dict[str, Any]:
    """What ``--json`` prints of an error; its message is one line."""
    return {
        "code": error.code.name if isinstance(error, DragonflyError) else "INTERNAL",
        "message": one_line(str(error)),
        "status_code": error.status if isinstance(error, OriginError) else None,
    }


def _fail(name: str, told: Mapping[str, Any], *, as_json: bool) -> None:
    sys.stderr.write(f"{name}: {told['message']}\n")
    if as_json:
        print_json({"error": told})


def advice(options: Options, arrivals: Iterable[Arrival]) -> str:
    """How to stop what a daemon goes on with, for :class:`.Stopped`."""
    left = [each for each in arrivals if each.task_id is not None and not each.over]
    if not left:
        return ""
    from shlex import quote  # noqa: PLC0415  who is not interrupted has no use for it

    socket = "" if options.endpoint is None else f" -e {quote(options.endpoint)}"
    ids: dict[str, list[str]] = {}
    for each in left:
        kind = "cache-task" if options.cache and not each.overflowed else "task"
        ids.setdefault(kind, []).append(each.task_id or "")
    commands = " and ".join(f"dfctl {kind} rm{socket} {' '.join(n)}" for kind, n in ids.items())
    return f"; the daemon goes on with the download: {commands} stops that"


def print_json(value: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Print what programs read, a line unless there is an *indent*; it is out when this returns."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
    sys.stdout.flush()


def result_of(
    arrival: Arrival, options: Options, url: str, output: str, seconds: float
) -> dict[str, Any]:
    """What ``--json`` prints of a download that is done."""
    return {
        "task_id": arrival.task_id,
        "url": public_url(url),
        "output": output,
        "content_length": arrival.content_length,
        "start": arrival.start,
        "length": arrival.length,
        "bytes_from_peers": arrival.received["peers"],
        "bytes_from_origin": arrival.received["origin"],
        "bytes_from_cache": arrival.received["cache"],
        "seconds": round(seconds, 6),
        "digest_verified": options.digest is not None,
    }
