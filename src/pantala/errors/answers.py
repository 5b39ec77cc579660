"""Codes read back: the error of ours that another process's answer stands for."""

from __future__ import annotations

from . import (
    Busy,
    Corrupt,
    DragonflyError,
    FeatureOff,
    Forbidden,
    InvalidRequest,
    NoRoom,
    NotFound,
    OriginError,
    OutputExists,
    RangeNotSatisfiable,
    SourceChanged,
    SourceUnreachable,
    TaskDeleted,
    TimedOut,
    Unavailable,
)

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

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
    "OUT_OF_RANGE": RangeNotSatisfiable,
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


def error_of(told: Mapping[str, Any], code: str, message: str, name: str) -> DragonflyError:
    """The error that a daemon tells of on its hand-off socket, with what it says besides.

    Args:
        told: The event.
        code: The name that gRPC has for the status.
        message: What happened, in words.
        name: What could not be had.
    """
    if "status_code" in told:
        return _origin_failed(told, code, message, name)
    needed, capacity = _number(told, "needed"), _number(told, "capacity")
    if needed is not None and capacity is not None:
        return NoRoom.told(f"cannot get {name}: {message}", needed, capacity)
    return error_named(code)(f"cannot get {name}: {message}")


def _origin_failed(told: Mapping[str, Any], code: str, message: str, name: str) -> OriginError:
    """What the origin said, or that nothing came of it."""
    status = _number(told, "status_code")
    kinds = {kind.code.name: kind for kind in (SourceUnreachable, SourceChanged)}
    kind = kinds.get(code, OriginError)
    if status is None:
        text = f"cannot get {name}: {message}"
    else:
        answer = message if message.startswith(str(status)) else f"{status} ({message})"
        text = f"origin answered {answer} for {name}"
    header = told.get("header")
    return kind(
        text,
        status=status,
        header=header if isinstance(header, dict) else None,
        transient=bool(told.get("transient")),
    )


def _number(told: Mapping[str, Any], key: str) -> int | None:
    value = told.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
