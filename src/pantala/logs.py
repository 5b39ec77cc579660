"""Logging: structlog and the standard library through one door, to standard error."""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Mapping
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from .errors import ConfigError

#: Names as Dragonfly's tools spell them, and as Python does.
LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_SHARED: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)

#: Where grpcio logs what callers make it meet, and how many characters of a record are kept.
_GRPC: Final = "grpc._cython.cygrpc"
_MAX_OF_GRPC: Final = 500


def _of_strangers(record: logging.LogRecord) -> bool:
    """Keep what strangers send to a gRPC server from filling the log, and out of it.

    grpcio writes a line with a traceback for each header that is no UTF-8, with the whole of its
    value, which may be a secret; and one for each message to a service of the library's own that
    cannot be parsed. Both are answered; neither is news.
    """
    text = record.getMessage()
    if text.startswith("Invalid encoding on "):
        return False
    if text.startswith("Unexpected [DecodeError] "):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
    record.msg, record.args = text[:_MAX_OF_GRPC], ()
    return True


class _Always:
    """Adds the same to every line."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = dict(fields)

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        event.update(self._fields)
        return event


def setup_logging(
    level: str = "info",
    json: bool = False,  # noqa: FBT001, FBT002  the whole call reads setup_logging("info", json=True)
    always: Mapping[str, object] | None = None,
) -> None:
    """Send all log records to standard error; for people on a terminal, else as JSON lines.

    Args:
        level: One of :data:`LEVELS`, in any case. Less severe records are dropped.
        json: JSON lines on a terminal too.
        always: What every line says besides.

    Raises:
        ConfigError: No such level.
    """
    number = LEVELS.get(level.lower())
    if number is None:
        raise ConfigError(f"log level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
    shared: tuple[Processor, ...] = (*_SHARED, _Always(always or {}))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(for_people=sys.stderr.isatty() and not json),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    logging.getLogger(_GRPC).addFilter(_of_strangers)  # the same one is added once
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _renderers(*, for_people: bool) -> tuple[Processor, ...]:
    if for_people:
        # By default it prints the local variables of each frame: URLs, headers and all.
        return (structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),)
    return structlog.processors.format_exc_info, structlog.processors.JSONRenderer()
