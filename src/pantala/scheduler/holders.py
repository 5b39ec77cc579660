"""Which hosts hold how much of a task: what is known of it, and what each of them says itself."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pantala.core.sched.entities import Peer, Task
from pantala.core.sched.whereabouts import whereabouts
from pantala.errors import Busy, DragonflyError, FeatureOff, InvalidRequest, NotFound
from pantala.model.announce import HostFacts
from pantala.model.task import Kind
from pantala.pb import node_pb2, node_pb2_grpc
from pantala.rpc.daemon_dialects import daemon_dialect

from .hosts import ask
from .turns import in_turns

#: Hosts that are told of if nobody says how many, and at most: some 200 bytes each.
_HOLDERS: Final = 100
_MAX_HOLDERS: Final = 500

#: Characters of a host's name, and of why it has not said anything.
_MAX_REASON: Final = 250

#: Hosts that are asked at once, and callers for whom that is done.
_AT_ONCE: Final = 32
_CALLERS: Final = 4

#: Seconds for one host to answer, which has it in memory, and for all.
_LIMIT: Final = 3.0
_LIMIT_OF_ALL: Final = 20.0


class Holders:
    """Asks hosts. For a few callers at a time: each has it open connections to many."""

    def __init__(self) -> None:
        self._callers = 0

    async def tell(
        self, task: Task, request: node_pb2.ListHoldersRequest
    ) -> node_pb2.ListHoldersResponse:
        """The answer to *request*, which is about *task*.

        Raises:
            InvalidRequest: It wants to hear of too many, or none.
            Busy: Others are being told.
        """
        most = request.limit if request.HasField("limit") else _HOLDERS
        if not 1 <= most <= _MAX_HOLDERS:
            raise InvalidRequest(f"limit {most}: want 1 to {_MAX_HOLDERS}")
        if self._callers >= _CALLERS:
            raise Busy(f"hosts are being asked for {self._callers} callers; try again later")
        self._callers += 1
        try:
            return await self._tell(task, most)
        finally:
            self._callers -= 1

    async def _tell(self, task: Task, most: int) -> node_pb2.ListHoldersResponse:
        peers, left_out = whereabouts(task, most)
        answer = node_pb2.ListHoldersResponse(holders=map(_holder, peers), left_out=left_out)
        kind, task_id = task.kind, task.id
        pairs = [
            (peer.host.facts, holder) for peer, holder in zip(peers, answer.holders, strict=True)
        ]

        async def look(pair: tuple[HostFacts, node_pb2.Holder]) -> None:
            await _look(*pair, kind, task_id)

        try:
            async with asyncio.timeout(_LIMIT_OF_ALL):
                await in_turns(pairs, _AT_ONCE, look)
        except TimeoutError:
            pass  # of those that are left it is said that they were not asked in time
        return answer


def _holder(peer: Peer) -> node_pb2.Holder:
    facts = peer.host.facts
    return node_pb2.Holder(
        host_id=facts.id,
        hostname=facts.hostname[:_MAX_REASON],
        ip=facts.ip,
        is_seed=facts.is_seed,
        state=peer.state,
        unanswered=f"not asked within {_LIMIT_OF_ALL:g} s",
    )


async def _look(host: HostFacts, holder: node_pb2.Holder, kind: Kind, task_id: str) -> None:
    """Ask *host*, and write what it says into *holder*."""
    try:
        said = await _ask(host, kind, task_id)
    except NotFound:
        holder.unanswered = "it holds nothing of it any more"
    except DragonflyError as error:
        holder.unanswered = str(error)[:_MAX_REASON]
    else:
        holder.unanswered = ""
        holder.MergeFrom(said)


async def _ask(host: HostFacts, kind: Kind, task_id: str) -> node_pb2.Holder:
    """What *host* has, as a Holder of which the rest is unset. Raises DragonflyError."""
    how: dict[str, Any] = {"timeout": _LIMIT, "stock_hello": _LIMIT}
    if host.is_ours:
        asked = node_pb2.StatCopyRequest(type=kind.value, task_id=task_id)  # type: ignore[arg-type]  # its kinds are ours
        said = await ask(host, "Stat", asked, service=node_pb2_grpc.CopiesStub, **how)
        return node_pb2.Holder(
            complete=said.complete,
            finished_piece_count=said.finished_piece_count,
            piece_count=said.piece_count,
            finished_bytes=said.finished_bytes,
        )
    dialect = daemon_dialect(kind)
    method = dialect.method("StatLocal{}Task")
    if method is None:
        raise FeatureOff(f"its daemon is not pantala, and cannot be asked for {kind.name} tasks")
    request = dialect.message("StatLocal{}TaskRequest")(task_id=task_id)
    said = await ask(host, method, request, **how)
    # It says when it was through, and counts no pieces.
    return node_pb2.Holder(complete=said.HasField("finished_at"))
