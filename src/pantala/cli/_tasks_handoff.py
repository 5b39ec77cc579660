"""A daemon's tasks, asked for over its hand-off socket: that takes no gRPC, most of the time."""

from __future__ import annotations

import time

from pantala.client.connection import Connection, dial
from pantala.errors import Forbidden, RemoteProtocolError, Unavailable
from pantala.errors.answers import error_named
from pantala.paths import DEFAULT_SOCKET, handoff_path_for, personal_socket

TYPE_CHECKING = False  # as for dfget: there is no time to import typing
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping, Sequence
    from typing import Any, Final, Self, TypeVar

    from pantala.rpc.rows import Row

    from ._tasks_grpc import Kind

    T = TypeVar("T")

#: Seconds for the first event of a list, which is in memory; and for all of an answer, which may
#: have to come from a scheduler: the daemon's own word about that says more than ours.
_SHORT: Final = 5.0
_LONG: Final = 31.0


class NotServed(Exception):
    """No such request is served here, or not to this user; nothing was done. gRPC may."""


class HandoffTasks:
    """What a daemon holds and knows of tasks.

    Args:
        endpoint: The path of its gRPC socket.
        sock: Connected to its hand-off socket, for the first request.
    """

    def __init__(self, endpoint: str, sock: _socket.socket) -> None:
        self._endpoint = endpoint
        self._sock: _socket.socket | None = sock
        self._has_answered = False

    @classmethod
    def at(cls, endpoint: str | None) -> Self | None:
        """Of the daemon that was named, the machine's, or the personal one; None: ask by gRPC."""
        for path in (DEFAULT_SOCKET, personal_socket()) if endpoint is None else (endpoint,):
            try:
                if (sock := dial(handoff_path_for(path))) is not None:
                    return cls(path, sock)
                if (sock := dial(path)) is not None:
                    sock.close()
                    return None
            except Forbidden:
                return None
        return None

    def held(self, kind: Kind) -> tuple[list[Row], dict[str, int]]:
        """All of a kind, and how much its store has and uses, in bytes."""
        rows: list[Row] = []
        *events, done = self._ask("list", kind)
        for event in events:
            rows += self._field(event, "tasks", list)
        return rows, {n: self._field(done, n, int) for n in ("capacity_bytes", "used_bytes")}

    def stat(self, kind: Kind, keys: Mapping[str, Any]) -> Row:
        """What is known of the task that *keys* of a request name."""
        *_, done = self._ask("stat", kind, **keys)
        return self._field(done, "task", dict)

    def holders(self, kind: Kind, keys: Mapping[str, Any], limit: int) -> tuple[Sequence[Row], int]:
        """The hosts that hold some of the task that *keys* name; how many there are beside."""
        *_, done = self._ask("holders", kind, **keys, limit=limit)
        return self._field(done, "holders", list), self._field(done, "left_out", int)

    def delete(
        self, kind: Kind, keys: Mapping[str, Any], *, swarm: bool
    ) -> tuple[list[str], dict[str, str]]:
        """Delete a task; the hosts where it was, as far as they are told, and why it still is."""
        *_, done = self._ask("delete", kind, **keys, swarm=swarm)
        return self._field(done, "host_ids", list), self._field(done, "failed", dict)

    def _ask(self, op: str, kind: Kind, **keys: Any) -> list[dict[str, Any]]:
        """The events that answer a request, the last of them ``done``.

        Raises:
            NotServed: This daemon is older, or not this user's here.
            DragonflyError: What it answered, or that it did not.
        """
        sock, self._sock = self._sock or dial(handoff_path_for(self._endpoint)), None
        if sock is None and self._has_answered:  # gRPC must not do again what is done
            raise Unavailable(f"no daemon at {self._endpoint} any more")
        if sock is None:
            raise NotServed
        events: list[dict[str, Any]] = []
        with Connection(sock, self._endpoint) as connection:
            now = time.monotonic()
            deadline = now + (_SHORT if op == "list" else _LONG)
            connection.send({"op": op, "kind": kind.type, **keys}, deadline=deadline)
            while not events or events[-1].get("event") != "done":
                event = connection.receive(deadline=deadline) or {}
                if event.get("event") == "error":
                    raise self._failure(event)
                events.append(event)
                deadline = now + _LONG
        self._has_answered = True
        return events

    def _field(self, event: Mapping[str, Any], key: str, type: type[T]) -> T:
        value = event.get(key)
        if not isinstance(value, type):
            raise RemoteProtocolError(f"the daemon at {self._endpoint} sent {key}={value!r:.100}")
        return value

    def _failure(self, event: Mapping[str, Any]) -> Exception:
        code, message = str(event.get("code")), str(event.get("message"))
        older = code == "INVALID_ARGUMENT" and message.startswith("unknown op ")
        if older or code == "PERMISSION_DENIED":
            return NotServed()
        return error_named(code)(f"the daemon at {self._endpoint}: {message}")
