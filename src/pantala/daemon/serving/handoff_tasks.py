"""What programs learn of tasks over the hand-off socket, and how they delete them there.

The answers are those of gRPC: the same methods give them, as the same rows of JSON that ``dfctl``
makes of their messages; but who asks here needs no gRPC.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from pantala.daemon.downloading.engine import Engine
from pantala.daemon.node import Node
from pantala.errors import Forbidden, LocalProtocolError, TimedOut
from pantala.model.task import Kind
from pantala.pb import common_pb2, node_pb2
from pantala.rpc.daemon_dialects import daemon_dialect
from pantala.rpc.rows import holder_row, node_row, stat_row

from .handoff_client import Client
from .handoff_request import TASK_OPS, TaskWish, parse_task_wish
from .services import DownloadService, NodeService, listed

#: Tasks in one frame: some 600 bytes each, and a frame has a limit. Others are served in between.
_TASKS_AT_ONCE: Final = 256

#: Characters of each text of a row that is too long for a frame.
_TEXT: Final = 4096

#: Seconds for schedulers to say what they know of a task, or to have it deleted: ``dfctl``'s own.
_LIMIT: Final = 30.0


class HandoffTasks:
    """Carries out the requests that :data:`~.handoff_request.TASK_OPS` names.

    Args:
        node: What all rooms share.
        service: Whose methods answer.
        engine: Says which task the content of a request is.
    """

    ops = TASK_OPS

    def __init__(self, node: Node, service: DownloadService, engine: Engine) -> None:
        self._node = node
        self._identify = engine.identify
        self._own = NodeService(node, engine)
        self._methods: Mapping[str, Any] = service.methods()
        self._ask = {"stat": self._stat, "holders": self._holders, "delete": self._delete}

    async def answer(self, client: Client, op: str, request: Mapping[str, Any]) -> None:
        """Answer *request*.

        Raises:
            Forbidden: It is of another user than those who may use the gRPC socket.
            InvalidRequest: It makes no sense.
            DragonflyError: What gRPC would answer.
            ClientGone: It cannot be told.
        """
        self._check(client.caller.user)
        wish = self._named(parse_task_wish(op, request))
        if op == "list":
            await self._list(client, wish.kind)
            return
        try:
            async with asyncio.timeout(_LIMIT):
                event = await self._ask[op](wish)
        except TimeoutError:
            raise TimedOut(f"not done within {_LIMIT:g} s") from None
        try:
            await client.send({"event": "done", **event})
        except LocalProtocolError:  # it is too long, and nothing of it was sent
            await client.send({"event": "done", **_shortened(event)})

    def _named(self, wish: TaskWish) -> TaskWish:
        """The same, with the id of the task that it is about. Raises as a download would."""
        if wish.content is None:
            return wish
        return wish._replace(task_id=self._identify(wish.content).task_id)

    def _check(self, user: int) -> None:
        """As the gRPC socket's mode does, which is for its owner alone where users are named."""
        if self._node.config.download.server.allow_users and user not in (0, os.geteuid()):
            raise Forbidden(
                f"user {user} may download, and not manage tasks: with download.server.allowUsers "
                "only root and the daemon's own user may"
            )

    async def _list(self, client: Client, kind: Kind) -> None:
        daemon_dialect(kind)  # or it is refused
        figures = self._node.stores[kind].figures()
        held = [holding for holding in self._node.stores if holding.kind is kind]
        for at in range(0, len(held), _TASKS_AT_ONCE):
            rows = [node_row(listed(h), kind.name) for h in held[at : at + _TASKS_AT_ONCE]]
            await _send(client, rows)
            await asyncio.sleep(0)  # so many rows take a while, and a socket need not
        end = {"capacity_bytes": figures.capacity, "used_bytes": figures.used}
        await client.send({"event": "done", **end})

    async def _stat(self, wish: TaskWish) -> dict[str, Any]:
        dialect = daemon_dialect(wish.kind)
        request = dialect.message("Stat{}TaskRequest")(task_id=wish.task_id)
        message = await self._methods[dialect.name("Stat{}Task")](request, None)
        return {"task": stat_row(message)}

    async def _holders(self, wish: TaskWish) -> dict[str, Any]:
        request = node_pb2.ListHoldersRequest(task_id=wish.task_id, limit=wish.limit)
        request.type = cast("common_pb2.TaskType.ValueType", wish.kind.value)
        answer = await self._own.ListHolders(request, None)
        return {"holders": [*map(holder_row, answer.holders)], "left_out": answer.left_out}

    async def _delete(self, wish: TaskWish) -> dict[str, Any]:
        dialect = daemon_dialect(wish.kind)
        method = self._methods.get(dialect.name("Delete{}Task"))
        if method is not None and not wish.swarm:
            await method(dialect.message("Delete{}TaskRequest")(task_id=wish.task_id), None)
            return {"host_ids": [], "failed": {}}
        request = node_pb2.DeleteTaskRequest(
            type=cast("common_pb2.TaskType.ValueType", wish.kind.value),
            task_id=wish.task_id,
            swarm=wish.swarm,
        )
        answer = await self._own.DeleteTask(request, None)
        return {"host_ids": list(answer.host_ids), "failed": dict(answer.failed)}


async def _send(client: Client, rows: Sequence[Mapping[str, Any]]) -> None:
    """Tell of these tasks, by more than one event where texts are long."""
    try:
        await client.send({"event": "tasks", "tasks": rows})
    except LocalProtocolError:  # it is too long, and nothing of it was sent
        if len(rows) == 1:
            await client.send({"event": "tasks", "tasks": [_shortened(rows[0])]})
            return
        middle = len(rows) // 2
        await _send(client, rows[:middle])
        await _send(client, rows[middle:])


def _shortened(row: Mapping[str, Any]) -> dict[str, Any]:
    """With the beginnings of what a user has named at such length that no frame holds it."""
    return {
        key: _shortened(value)
        if isinstance(value, dict)
        else f"{value[:_TEXT]}…"
        if isinstance(value, str) and len(value) > _TEXT
        else value
        for key, value in row.items()
    }
