"""Errors as gRPC statuses, and back. The only place that decides either."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog

from pantala.errors import (
    Blame,
    Busy,
    DragonflyError,
    HostUnknown,
    OriginError,
    SourceChanged,
    SourceUnreachable,
    Unavailable,
)
from pantala.errors.answers import error_named

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Trailing metadata that carries an origin's answer. A Dragonfly daemon puts plain JSON there,
#: not the packed ``google.rpc.Status`` that the key's name promises.
DETAILS_KEY: Final = "grpc-status-details-bin"

#: Trailing metadata of ours: which of several errors with the same status it is.
REASON_KEY: Final = "pantala-reason"

_REASONS: Final[Mapping[str, type[DragonflyError]]] = {
    "host-unknown": HostUnknown,
    # The peer's own word, and not that of a connection that cannot be made.
    "unavailable": Unavailable,
}

# HTTP/2 peers commonly refuse 8 KiB of header fields, trailers included. Beyond these sizes an
# answer would be lost as a whole, so the origin's headers go first, then the text is cut.
_MAX_DETAILS: Final = 4096
_MAX_MESSAGE: Final = 1024

#: What grpcio says of a call that the other side refused before we had written anything.
_REFUSED_EARLY: Final = "Internal error from Core"

_STATUS: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}

#: Of an origin's failures, those that have a status of their own.
_SOURCE_ERRORS: Final[Mapping[grpc.StatusCode, type[OriginError]]] = {
    grpc.StatusCode.ABORTED: SourceChanged,
    grpc.StatusCode.UNAVAILABLE: SourceUnreachable,
}


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str, bytes | None]:
    """Choose status, message and details for *error*.

    Ours say themselves how to answer. Any other is a bug: the peer gets a number to quote and
    nothing more, because the text may hold paths or credentials; our log has the rest.

    Returns:
        Status, message, and for an origin's failure the bytes for :data:`DETAILS_KEY`.
    """
    if not isinstance(error, DragonflyError):
        reference = uuid.uuid4().hex[:8]
        logger.error("unexpected error", reference=reference, exc_info=error)
        text = f"internal error {reference}; the log of the answering process has the details"
        return grpc.StatusCode.INTERNAL, text, None
    status = _STATUS[error.code]
    if isinstance(error, OriginError):
        return status, _clip(error.message), _details(error)
    return status, _clip(str(error)), None


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End the call with the status that belongs to *error*. Always raises, as gRPC wants."""
    status, message, details = status_of(error)
    trailing: list[tuple[str, str | bytes]] = []
    if details is not None:
        trailing.append((DETAILS_KEY, details))
    trailing += ((REASON_KEY, name) for name, kind in _REASONS.items() if type(error) is kind)
    await context.abort(status, message, tuple(trailing))


def from_rpc_error(error: grpc.aio.AioRpcError, who: str) -> DragonflyError:
    """The error of ours that a failed call stands for.

    Args:
        error: What the call raised.
        who: The peer, as it shall stand in the message: ``"scheduler 10.0.0.1:8002"``.
    """
    status = error.code()
    details = _read_details(error)
    if details is not None:
        return _SOURCE_ERRORS.get(status, OriginError)(
            details.message,
            status=details.status,
            header=details.header,
            blame=details.blame,
        )
    text = f"{who}: {error.details() or status.name}"
    if status is grpc.StatusCode.INTERNAL and error.details() == _REFUSED_EARLY:
        return Busy(text)
    for key, value in error.trailing_metadata() or ():
        if key == REASON_KEY and value in _REASONS:
            return _REASONS[str(value)](text)
    return error_named(status.name)(text)


def is_answer(error: grpc.aio.AioRpcError) -> bool:
    """Whether a peer of ours has said so itself, so that it is there."""
    return any(key == REASON_KEY for key, _ in error.trailing_metadata() or ())


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _details(error: OriginError) -> bytes:
    whole: dict[str, Any] = {
        "message": _clip(error.message),
        "header": error.header,
        "status_code": error.status,
    }
    if error.blame is Blame.LOCAL:  # a key of ours; the status tells the others apart
        whole["blame"] = error.blame
    data = json.dumps(whole, separators=(",", ":")).encode()
    if len(data) > _MAX_DETAILS:
        data = json.dumps({**whole, "header": {}}, separators=(",", ":")).encode()
    return data


def _read_details(error: grpc.aio.AioRpcError) -> OriginError | None:
    """The origin's failure that the peer tells of; None when it tells of none."""
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        try:
            told = json.loads(value)
            status_code = told.get("status_code")
            return OriginError(
                str(told["message"]),
                status=None if status_code is None else int(status_code),
                header={str(k): str(v) for k, v in (told.get("header") or {}).items()},
                blame=Blame(told["blame"]) if told.get("blame") in set(Blame) else None,
            )
        except (ValueError, TypeError, AttributeError, KeyError):
            return None  # a packed Any, as other gRPC servers send
    return None
