"""The hand-off socket: programs on this machine ask here, and receive the memory itself.

docs/handoff.md is the protocol. The connection is the lease: the kernel ends it with the client's
process, whatever happens to that. One over which many requests come is in :mod:`.kept_connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog

from pantala import BUILD_VERSION
from pantala.background import Loops
from pantala.core.places import Places, is_fair
from pantala.daemon.config import DaemonConfig
from pantala.daemon.downloading.download import (
    Anew,
    Arrived,
    Coming,
    Download,
    Growing,
    Overflowed,
    Started,
    Waiting,
)
from pantala.daemon.downloading.engine import Engine
from pantala.daemon.gate import Gate
from pantala.daemon.host.threads import Threads
from pantala.errors import (
    Busy,
    DragonflyError,
    Forbidden,
    InvalidRequest,
    Unavailable,
)
from pantala.model.task import Delivery, DownloadRequest, Traffic
from pantala.net.sockets import hang_up
from pantala.storage.holding import Holding
from pantala.storage.leases import NOBODY
from pantala.wire.handoff import MAX_CONTENT

from .caller import caller_of
from .handoff_client import Client, ClientGone, Connection, failure
from .handoff_request import parse_download
from .handoff_tasks import HandoffTasks
from .kept_connection import MAX_OPEN, PAUSE_LIMIT, KeptConnection
from .whole import Whole

logger = structlog.get_logger(__name__)

#: Connections at once; each may hold a lease.
MAX_CONNECTIONS: Final = 4096

#: Requests that may be open on connections that carry many, for each connection that there may be.
#: A user may have as large a part of them as of the connections.
_OPEN_EACH: Final = 4

#: Seconds between two words on what is here of pieces that are not whole.
_PROGRESS: Final = 0.5

#: Pieces in one frame: some 60 bytes each, and a frame has a limit.
_PIECES_AT_ONCE: Final = 4096


class HandoffServer:
    """Serves the hand-off socket.

    Args:
        config: Who we are and who may ask.
        engine: For downloads.
        threads: Where content is read.
        admit: Lets a request in, or raises Busy.
        gate: Knows what is blocked.
        tasks: Answers what is asked of tasks.
        whole: What needs no download.
        connections: How many there may be, shared out among the users who call.
        loops: Where it accepts. None: on its own.
    """

    def __init__(
        self,
        config: DaemonConfig,
        engine: Engine,
        threads: Threads,
        admit: Callable[[str], Awaitable[None]],
        tasks: HandoffTasks,
        *,
        gate: Gate,
        whole: Whole,
        connections: int = MAX_CONNECTIONS,
        loops: Loops | None = None,
    ) -> None:
        self._loops = loops or Loops()
        self._host_id = config.host_id
        self._threads = threads
        self._engine = engine
        self._admit = admit
        self._tasks = tasks
        self._gate = gate
        self._whole = whole
        self._allowed = frozenset(config.download.server.allow_users)
        self._sock: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._places: Places[socket.socket] = Places(connections)
        self._most_open = _OPEN_EACH * connections
        #: By user, on connections that carry many.
        self._open = Counter[int]()

    @property
    def busy(self) -> int:
        """How many connections are open."""
        return len(self._clients)

    def start(self, sock: socket.socket) -> None:
        """Serve a listening, non-blocking socket, which is ours from here on."""
        self._sock = sock
        self._accepting = self._loops.keep(lambda: self._accept(sock), "accept programs")

    async def stop(self) -> None:
        """Accept nobody any more, hang up on everybody, and wait until all are gone."""
        if self._accepting is not None:
            self._accepting.cancel()
        tasks = list(self._clients)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sock is not None:
            self._sock.close()

    async def _accept(self, sock: socket.socket) -> None:
        """Accept one program."""
        loop = asyncio.get_running_loop()
        try:
            client, _ = await loop.sock_accept(sock)
        except OSError as error:
            logger.warning("cannot accept on the hand-off socket", why=str(error))
            await asyncio.sleep(0.1)
            return
        admitted, leaver = self._places.enter(caller_of(client).user, client)
        if leaver is not None:
            hang_up(leaver)
        if not admitted:
            client.close()
            return
        client.settimeout(0)
        task = loop.create_task(self._serve(client))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, sock: socket.socket) -> None:
        """One client, from its first request to its end."""
        client = Connection(sock)
        try:
            try:
                self._check_user(client.caller.user)
                text, request = await client.request()
                self._places.works(sock)
                if "id" in request:
                    await self._keep(client, text)
                else:
                    await self._answer(client, request)
            except DragonflyError as error:
                await client.send(failure(error))
        except OSError as error:
            logger.debug("hand-off client gone", why=str(error))
        finally:
            self._places.leave(sock)
            sock.close()

    async def _keep(self, client: Connection, first: bytes) -> None:
        """One client that asks more than once."""
        works, rests = (partial(do, client.sock) for do in (self._places.works, self._places.rests))
        await KeptConnection(client, self._whole, self._answer_one, works, rests).serve(first)

    async def _answer_one(self, client: Client, request: dict[str, Any]) -> None:
        """The same as for a connection of its own, if its user has not too many open."""
        user = client.caller.user
        if not is_fair(self._open[user], self._most_open - self._open.total()):
            error = Busy(f"user {user} has {self._open[user]} requests open: release some, or wait")
            await client.send(failure(error))
            return
        self._open[user] += 1
        try:
            await self._answer(client, request)
        finally:
            self._open[user] -= 1

    async def _answer(self, client: Client, request: dict[str, Any]) -> None:
        """Carry out a request; what is wrong with it, or goes wrong, its client is told.

        Raises:
            ClientGone: It cannot be told.
        """
        try:
            await self._admit("hand-off")
            await self._carry_out(client, request)
        except DragonflyError as error:
            await client.send(failure(error))
        except ClientGone:
            raise
        except Exception:  # a bug with one client must not leave it waiting
            logger.exception("unexpected error on the hand-off socket")
            await client.send(failure(DragonflyError("internal error; see the daemon's log")))

    def _check_user(self, user: int) -> None:
        if self._allowed and user != NOBODY and user not in self._allowed:
            raise Forbidden(f"user {user} is not among download.server.allowUsers")

    async def _carry_out(self, client: Client, request: dict[str, Any]) -> None:
        op = request.pop("op", None)
        if op == "info":
            await client.send(
                {
                    "event": "info",
                    "version": BUILD_VERSION,
                    "host_id": self._host_id,
                    "pid": os.getpid(),
                    "open_requests": MAX_OPEN,
                }
            )
        elif op == "download":
            await self._download(client, *parse_download(request))
        elif isinstance(op, str) and op in self._tasks.ops:
            await self._tasks.answer(client, op, request)
        else:
            known = ", ".join(("info", "download", *self._tasks.ops))
            raise InvalidRequest(f"unknown op {op!r:.100}: want one of {known}")

    async def _download(self, client: Client, request: DownloadRequest, delivery: Delivery) -> None:
        """Carry out a download for as long as the client stays, or its time is over."""
        self._gate.check_download(request)
        client.patience = delivery.timeout or PAUSE_LIMIT
        if client.goes_on and await self._hand_off_whole(client, request, delivery):
            return
        left = asyncio.ensure_future(client.wait_until_gone())
        work = asyncio.ensure_future(self._deliver(client, request, delivery, left))
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _hand_off_whole(
        self, client: Client, request: DownloadRequest, delivery: Delivery
    ) -> bool:
        """Hand off what is here as a whole, for as long as it is needed; whether that can be."""
        holding = self._whole.at_hand(request, delivery)
        if holding is None:
            return False
        with holding.lease():
            message = {"event": "whole", "task_id": holding.id, "segment": True}
            message["content_length"] = holding.total
            if not await client.send(message, partial(_descriptor, client, holding)):
                return False
            holding.touch()
            self._whole.hits(request).count += 1
            await client.wait_until_gone()
        return True

    async def _deliver(
        self,
        client: Client,
        request: DownloadRequest,
        delivery: Delivery,
        left: asyncio.Future[None],
    ) -> None:
        async with self._engine.open(request, delivery) as download:
            handed_off = later = False
            events = download.with_progress(_PROGRESS) if delivery.progress else download
            async for event in events:
                if isinstance(event, Waiting | Growing | Coming):
                    await client.send(_how_far(event))
                elif isinstance(event, Started):
                    clean = _is_clean(download)  # before that is looked at again
                    handed_off = await self._start(client, download, event)
                    later = not clean and not handed_off
                elif isinstance(event, Overflowed):
                    said = f"{event.why}; it is kept as a {event.kind.name} task instead, on disk"
                    await client.send({"event": "warning", "message": said})
                elif isinstance(event, Anew):
                    handed_off = False
                    if delivery.again:  # whoever cannot begin again has not been told anything
                        await client.send({"event": "again"})
                else:
                    await _send_pieces(client, event)
                    if later and _is_clean(download):
                        later = False
                        handed_off = await _send_segment(client, download)
            if await self._finish(client, download, handed_off=handed_off):
                await asyncio.shield(left)

    async def _finish(self, client: Client, download: Download, *, handed_off: bool) -> bool:
        """All is here: send what it has not got; whether it may need that for longer."""
        handed_off = handed_off or await _send_segment(client, download)
        if not handed_off:
            await _send_content(self._threads, client, download)
        await client.send({"event": "done"})
        return handed_off or not client.goes_on

    async def _start(self, client: Client, download: Download, event: Started) -> bool:
        """Say what comes; whether the client has the segment now."""
        message = {
            "event": "started",
            "task_id": download.task_id,
            "peer_id": download.peer_id,
            "content_length": event.content_length,
            "piece_length": event.piece_length,
            "start": event.part.start,
            "length": event.part.length,
            "segment": True,
            "response_header": dict(event.response_header),
        }
        handed_off = await client.send(message, partial(_descriptor, client, download.holding))
        if not handed_off:
            await client.send({**message, "segment": False})
        return handed_off


def _how_far(event: Waiting | Growing | Coming) -> dict[str, Any]:
    if isinstance(event, Waiting):
        return {"event": "waiting", "bytes": event.need}
    name = "growing" if isinstance(event, Growing) else "progress"
    return {"event": name, "bytes": event.received}


async def _send_pieces(client: Client, event: Arrived) -> None:
    names = {traffic: traffic.name for traffic in Traffic}  # asking each takes longer than the rest
    pieces = [[p.number, p.offset, p.length, names[traffic]] for p, traffic in event.pieces]
    for at in range(0, len(pieces), _PIECES_AT_ONCE):
        await client.send({"event": "pieces", "pieces": pieces[at : at + _PIECES_AT_ONCE]})


def _is_clean(download: Download) -> bool:
    return download.holding is None or download.holding.is_clean


def _descriptor(client: Client, holding: Holding | None) -> int | None:
    # None left, or none to be had of this file: the content itself will do.
    with contextlib.suppress(Unavailable, OSError):
        if holding is not None:
            return holding.hand_off(client.caller.user, seal=client.caller.may_write)
    return None


async def _send_segment(client: Client, download: Download) -> bool:
    """The segment, if there is one to be had now that did not come before; whether there was."""
    return await client.send({"event": "segment"}, partial(_descriptor, client, download.holding))


async def _send_content(threads: Threads, client: Client, download: Download) -> None:
    """The part itself, for a client without the segment."""
    if download.holding is None:
        return
    part = download.part
    with contextlib.closing(download.holding.extent(part)) as extent:
        for at in range(0, part.length, MAX_CONTENT):
            with await threads.read(extent, at, min(MAX_CONTENT, part.length - at)) as content:
                head = {"event": "content", "offset": part.start + at, "inline": len(content)}
                await client.send(head, content=content)
