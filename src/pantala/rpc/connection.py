"""A connection to one scheduler, as those need it who speak on it: see :mod:`.scheduler`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Connection(Protocol):
    """What calls to a scheduler have in common."""

    @property
    def address(self) -> str:
        """``host:port``, for messages."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call, as the secret by which a host is known again."""

    def speaking(self) -> AbstractContextManager[None]:
        """Whatever a call may raise, as an error of ours."""
