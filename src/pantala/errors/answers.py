"""Codes read back: the error of ours that another process's answer stands for."""

from __future__ import annotations

from . import (
    Busy,
    Corrupt,
    DragonflyError,
    FeatureOff,
    Forbidden,
    InvalidRequest,
    NotFound,
    OutputExists,
    TaskDeleted,
    TimedOut,
    Unavailable,
)

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: By the name that gRPC has for the status.
_MEANT: Final[Mapping[str, type[DragonflyError]]] = {
    # Nobody but a server that has too many calls cancels one of ours before we do.
    "CANCELLED": Busy,
    "INVALID_ARGUMENT": InvalidRequest,
    "DEADLINE_EXCEEDED": TimedOut,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": OutputExists,
    "PERMISSION_DENIED": Forbidden,
    "RESOURCE_EXHAUSTED": Busy,
    "FAILED_PRECONDITION": FeatureOff,
    "ABORTED": TaskDeleted,
    "OUT_OF_RANGE": InvalidRequest,
    "UNIMPLEMENTED": FeatureOff,
    "UNAVAILABLE": Unavailable,
    "DATA_LOSS": Corrupt,
    "UNAUTHENTICATED": Forbidden,
}


def error_named(code: str) -> type[DragonflyError]:
    """The class of error that a status stands for: the one that those who get it can act upon.

    Several classes have one code, so it need not be the class that was raised over there.

    Args:
        code: The name that gRPC has for the status, such as ``"NOT_FOUND"``.
    """
    return _MEANT.get(code, DragonflyError)
