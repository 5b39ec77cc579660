"""A daemon's tasks, asked for over its gRPC socket: of a daemon that has no better one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self

from pantala.model import ids, task
from pantala.rpc.rows import Row, holder_row, local_row, node_row, stat_row

from ._daemon import Daemon


class Kind(Protocol):
    """A kind of task, as requests name it; see ``dfctl``."""

    word: str
    type: str
    ours: bool


class GrpcTasks:
    """What a daemon holds and knows of tasks.

    Args:
        daemon: It answers.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @classmethod
    @contextmanager
    def at(cls, endpoint: str | None) -> Iterator[Self]:
        """Of the daemon that was named, the machine's, or the personal one.

        Raises:
            Unavailable: Nobody listens there, or answers.
        """
        with Daemon.at(endpoint) as daemon:
            yield cls(daemon)

    def held(self, kind: Kind) -> tuple[list[Row], dict[str, int]]:
        """All of a kind, and how much its store has and uses, in bytes, if the daemon tells."""
        self._spare(kind)
        if not self._daemon.is_ours:
            answer = self._daemon.ask(f"ListLocal{kind.word}Tasks")
            return [local_row(task, kind.type) for task in answer.tasks], {}
        answer = self._daemon.ask_node("ListTasks", type=kind.type)
        figures = {"capacity_bytes": answer.capacity_bytes, "used_bytes": answer.used_bytes}
        return [node_row(task, kind.type) for task in answer.tasks], figures

    def stat(self, kind: Kind, keys: Mapping[str, Any]) -> Row:
        """What is known of the task that *keys* of a hand-off request name."""
        self._spare(kind)
        return stat_row(self._daemon.ask(f"Stat{kind.word}Task", task_id=_id_of(kind, keys)))

    def holders(self, kind: Kind, keys: Mapping[str, Any], limit: int) -> tuple[Sequence[Row], int]:
        """The hosts that hold some of the task that *keys* name; how many there are beside."""
        self._daemon.need_ours("it cannot tell who holds a task")
        answer: Any = self._daemon.ask_node(
            "ListHolders", type=kind.type, task_id=_id_of(kind, keys), limit=limit
        )
        return [holder_row(holder) for holder in answer.holders], answer.left_out

    def delete(
        self, kind: Kind, keys: Mapping[str, Any], *, swarm: bool
    ) -> tuple[list[str], dict[str, str]]:
        """Delete a task; the hosts where it was, as far as they are told, and why it still is."""
        self._spare(kind)
        task_id = _id_of(kind, keys)
        method = f"Delete{kind.word}Task"
        if not swarm and self._daemon.has(method):
            self._daemon.ask(method, task_id=task_id)
            return [], {}
        self._daemon.need_ours(f"it cannot delete {kind.type} tasks" + " in a swarm" * swarm)
        answer: Any = self._daemon.ask_node(
            "DeleteTask", type=kind.type, task_id=task_id, swarm=swarm
        )
        return list(answer.host_ids), dict(answer.failed)

    def _spare(self, kind: Kind) -> None:
        """Raises FeatureOff where a question would end the daemon."""
        if kind.ours:
            self._daemon.need_ours("a cache RPC would kill it")


def _id_of(kind: Kind, keys: Mapping[str, Any]) -> str:
    """The id of the task that is named so: gRPC has no other name. Raises InvalidRequest."""
    if "task_id" in keys:
        return str(keys["task_id"])
    content = keys.get("content_for_calculating_task_id")
    fields = {k: v for k, v in keys.items() if k not in ("url", "content_for_calculating_task_id")}
    return ids.task_id(task.Kind[kind.type], keys["url"], content=content, **fields)
