"""What a daemon says of tasks (docs/handoff.md), and what is read from that; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

from pantala.errors import RemoteProtocolError, Unavailable
from pantala.errors.answers import error_named
from pantala.model.urls import public_url

from .arrival import Arrival, text_of

#: Seconds for an answer about tasks. A daemon may have to ask its scheduler, and takes 30 at most.
LIMIT: Final = 31.0


class Task(NamedTuple):
    """Content that a daemon knows.

    Attributes:
        id: The daemons' name for it.
        url: Without what may be a secret; None where it is not known.
        size: Bytes in it; None where it is not known.
        details: All that is known, as ``dfctl`` prints it with ``--json``.
    """

    id: str
    url: str | None
    size: int | None
    details: Mapping[str, Any]

    @classmethod
    def of_row(cls, row: object) -> Self:
        """What a daemon says. Raises RemoteProtocolError: it makes no sense."""
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise RemoteProtocolError(f"the daemon named a task that cannot be: {row!r:.100}")
        return cls(row["id"], row.get("url"), row.get("content_length"), row)


class Answer:
    """The answer to a question about tasks, event by event.

    Args:
        what: The question was about, for messages.

    Attributes:
        tasks: That have been named.
        done: The last event, when it has come.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.tasks: list[Task] = []
        self.done: dict[str, Any] | None = None

    def on(self, event: dict[str, Any]) -> None:
        """Take an event.

        Raises:
            DragonflyError: What the daemon says.
            RemoteProtocolError: It makes no sense.
        """
        name = event.get("event")
        if name == "error":
            code, message = text_of(event, "code"), text_of(event, "message")
            raise error_named(code)(f"{self._what}: {message}")
        rows = event.get("tasks") if name == "tasks" else []
        if name not in ("tasks", "done") or not isinstance(rows, list):
            raise RemoteProtocolError(f"the daemon sent {event!r:.100}, which is no answer")
        self.tasks += map(Task.of_row, rows)
        if name == "done":
            self.done = event
            if event.get("task") is not None:
                self.tasks.append(Task.of_row(event["task"]))


def the_one(answer: Answer) -> Task:
    """The task that was asked for. Raises RemoteProtocolError: the daemon named none."""
    if not answer.tasks:
        raise RemoteProtocolError(f"the daemon sent {answer.done!r:.100}, which names no task")
    return answer.tasks[0]


def task_of(arrival: Arrival, url: str) -> Task:
    """The task of a download that is through."""
    details = {"id": arrival.task_id, "url": url, "content_length": arrival.content_length}
    received = {f"bytes_from_{name}": size for name, size in arrival.received.items()}
    return Task(arrival.task_id or "", url, arrival.content_length, details | received)


def checked(answer: Answer, url: str) -> None:
    """See that a task is gone from all hosts.

    Raises:
        Unavailable: From some it may not be.
        RemoteProtocolError: What the daemon says makes no sense.
    """
    if failed := (answer.done or {}).get("failed"):
        if not isinstance(failed, dict):
            raise RemoteProtocolError(f"the daemon sent failed={failed!r:.100}, want an object")
        hosts = ", ".join(f"{host} ({why})" for host, why in failed.items())
        raise Unavailable(f"{public_url(url)} may still be on {hosts}")
