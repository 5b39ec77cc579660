"""Which daemon a program asks, and by what defaults: what both kinds of client have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, Final

from pantala.errors import InvalidRequest, TimedOut, Unavailable
from pantala.paths import DEFAULT_SOCKET

from .connection import Connection, connect, connect_if_there, socket_path
from .landing import Idle
from .wishes import CONDUCT, Range, download_of, headers_of, identity_of

#: The variable that names the daemon's socket, for programs that name none.
ENDPOINT_VARIABLE: Final = "PANTALA_ENDPOINT"


class Dialling:
    """Connections to one daemon, and what is asked for over them.

    Args:
        endpoint: The path of the daemon's gRPC or hand-off socket. None: that which
            ``$PANTALA_ENDPOINT`` names, else that of this machine's daemon, else a personal one of
            this user, which is started.
        wishes: Defaults for what is asked for.

    Raises:
        InvalidRequest: There is no such wish, or that is no path.
    """

    def __init__(self, endpoint: str | PathLike[str] | None, wishes: Mapping[str, Any]) -> None:
        self._named = _checked(endpoint) if endpoint else None
        self._wishes = dict(wishes)
        self._idle: dict[str | None, Idle] = {}
        self.download("http://host", {})  # wishes that make no sense are refused here and now

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process asks the same, over connections of its own."""
        return type(self), (self._named, self._wishes)

    @property
    def endpoint(self) -> str | None:
        """The daemon that is asked now, if one is named. Raises InvalidRequest."""
        named = os.environ.get(ENDPOINT_VARIABLE) if self._named is None else None
        return _checked(named) if named else self._named

    @property
    def idle(self) -> Idle:
        """Connections to the daemon that is asked now.

        The variable may change while a program runs, and nobody may find a daemon at the other end
        that is not the one which it names.
        """
        named = os.environ.get(ENDPOINT_VARIABLE) if self._named is None else None
        return self._idle.get(named) or self._idle.setdefault(named, Idle())

    def goes_on(self, error: BaseException, connection: Connection, dialled: int) -> bool:
        """Whether another connection is to be tried, as nothing has come over this one.

        One that was idle may have been closed in this moment, by a daemon that ends or is started
        anew. So may a new one, by a personal daemon that was about to quit: once.

        Args:
            error: What has become of the request.
            connection: Over which it was made.
            dialled: How many new ones have been tried for it.
        """
        if not isinstance(error, Unavailable) or isinstance(error, TimedOut):
            return False
        return not connection.answered and dialled <= (self.endpoint is None)

    def close(self) -> None:
        """Close the connections on which nothing is asked."""
        for idle in [*self._idle.values()]:
            idle.close()

    def download(
        self, url: str, wishes: Mapping[str, Any], part: Range | None = None, **more: Any
    ) -> dict[str, Any]:
        """The request for content. Raises InvalidRequest."""
        return download_of(url, self._merged(wishes), part, **more)

    def identity(self, url: str, wishes: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that name the content of a URL. Raises InvalidRequest."""
        merged = self._merged(wishes)
        return identity_of(url, {k: v for k, v in merged.items() if k not in CONDUCT})

    def refreshes(self, wishes: Mapping[str, Any]) -> bool:
        """Whether the origin is asked first."""
        return bool(self._merged(wishes).get("refresh"))

    def _merged(self, wishes: Mapping[str, Any]) -> dict[str, Any]:
        """With our defaults; headers are added to ours."""
        merged = {**self._wishes, **wishes}
        if wishes.get("headers") and self._wishes.get("headers"):
            merged["headers"] = headers_of(self._wishes["headers"])
            merged["headers"] |= headers_of(wishes["headers"])
        return merged

    def dial(self) -> Connection:
        """A new connection. It may wait, for three seconds, or while a daemon starts.

        Raises:
            Unavailable, Forbidden, FeatureOff, TimedOut, ConfigError: There is none to be had.
            InvalidRequest: What the variable names is no path.
        """
        if (endpoint := self.endpoint) is not None:
            return connect(endpoint, numbered=True)
        if (connection := connect_if_there(DEFAULT_SOCKET, numbered=True)) is not None:
            return connection
        from .personal import connect_personal  # noqa: PLC0415  most machines have a daemon

        connection, _ = connect_personal(numbered=True)
        return connection


def _checked(endpoint: str | PathLike[str]) -> str:
    path = fspath(endpoint) if isinstance(endpoint, PathLike) else endpoint
    if not isinstance(path, str) or "\0" in path:
        raise InvalidRequest(f"endpoint: want the path of a socket, not {endpoint!r:.100}")
    try:
        return socket_path(path)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
