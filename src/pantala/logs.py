"""Logging: structlog and the standard library through one door, to standard error."""

from __future__ import annotations

import logging
import logging.config
import sys
from typing import Final

import structlog
from structlog.typing import Processor

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


def setup_logging(level: str = "info", json: bool = False) -> None:  # noqa: FBT001, FBT002  the whole call reads setup_logging("info", json=True)
    """Send all log records to standard error; for people on a terminal, else as JSON lines.

    Args:
        level: One of :data:`LEVELS`, in any case. Less severe records are dropped.
        json: JSON lines on a terminal too.

    Raises:
        ConfigError: No such level.
    """
    number = LEVELS.get(level.lower())
    if number is None:
        raise ConfigError(f"log level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(for_people=sys.stderr.isatty() and not json),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
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
