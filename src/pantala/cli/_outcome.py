"""How a program that does one thing ends: its result, or one line, and the exit status.

``dfget`` starts with this, so it imports next to nothing.
"""

from __future__ import annotations

import json
import signal
import sys

from pantala.errors import DragonflyError, SourceFailed

from ._process import OutputLost
from ._signals import Stopped, ended_by_signals
from ._text import one_line

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def outcome(
    name: str, work: Callable[[], Mapping[str, Any]], *, as_json: bool, seconds: float
) -> int:
    """Do *work*; the exit status. Its failure is one line on standard error.

    Args:
        name: The program's, for that line.
        work: What is to be done; its result is printed with *as_json*, and else it has
            printed what there is to tell.
        as_json: Results and errors are printed as one JSON object.
        seconds: After so many it is given up.
    """
    try:
        with ended_by_signals(seconds):
            result = work()
            if as_json:
                _print_json(result)
    except DragonflyError as error:
        _fail(name, str(error), error.code.name, error, as_json=as_json)
    except OSError as error:
        _fail(name, str(error), "INTERNAL", error, as_json=as_json)
    except Stopped as stop:
        why = f"stopped by {signal.Signals(stop.number).name}"
        _fail(name, why, "CANCELLED", stop, as_json=as_json)
        return 128 + stop.number
    else:
        return 0
    return 1


def _fail(name: str, message: str, code: str, error: BaseException, *, as_json: bool) -> None:
    message = one_line(message)
    sys.stderr.write(f"{name}: {message}\n")
    if as_json and not isinstance(error, OutputLost):
        status_code = error.status_code if isinstance(error, SourceFailed) else None
        _print_json({"error": {"code": code, "message": message, "status_code": status_code}})


def _print_json(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
