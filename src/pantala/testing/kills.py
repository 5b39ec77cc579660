"""A daemon that is killed again and again, at random moments, in the midst of what it does.

What must hold whenever it is back: no byte is wrong, every piece that it had told anybody of is
there, and no file is left that it does not know. :class:`Kills` says in lines what did not.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc

from pantala.core.policy import policy_of
from pantala.errors import DragonflyError
from pantala.model.pieces import piece_at, piece_length_for
from pantala.model.task import Kind
from pantala.net.piece_client import Address, Connections, PieceFetch, TimeLimits
from pantala.ports import MemorySink
from pantala.rpc.daemon_dialects import daemon_dialect
from pantala.wire.vortex import PieceRequest, Tag

from .cluster import PATIENCE, Cluster, Node
from .content import Pattern
from .origin import Origin

#: Contents have up to so many bytes: several pieces.
LARGEST: Final = 30 << 20

#: Bytes a second that the daemon may receive, so that a kill finds it at work.
RATE: Final = "8MiB"

#: Seconds after which it is killed at the latest.
_SPAN: Final = 2.0

#: How often it is killed once more while it starts.
_AGAIN: Final = 0.25

#: Pieces of a content that are looked at when the daemon is back.
_LOOKS: Final = 3

_LIMITS: Final = TimeLimits(request=PATIENCE, stall=PATIENCE, piece=PATIENCE)


@dataclass
class Promise:
    """What the daemon has told anybody of one content.

    Attributes:
        path: At the origin.
        task_id: ``""`` until it was told.
        pieces: Numbers of those that it has reported finished, and nobody has asked it to delete.
    """

    path: str
    content: Pattern
    task_id: str = ""
    pieces: set[int] = field(default_factory=set)


class Kills:
    """See the module.

    Args:
        cluster: With no scheduler yet.
        origin: Where contents come from.
        kind: Of the tasks; one whose contents outlive the process.
        rounds: How often the daemon is killed.
        contents: How many there are. From every second a peer has all of it.
        seed: Of the dice.
    """

    def __init__(
        self,
        cluster: Cluster,
        origin: Origin,
        *,
        kind: Kind,
        rounds: int,
        contents: int = 6,
        seed: int = 1,
    ) -> None:
        self._cluster = cluster
        self._origin = origin
        self._kind = kind
        self._rounds = rounds
        self._random = Random(seed)
        self._promises: list[Promise] = []
        for number in range(contents):
            content = Pattern(self._random.randint(1, LARGEST), seed=seed * 1000 + number)
            self._promises.append(Promise(f"/{number}", content))
            origin.put(f"/{number}", content)
        self._lock = threading.Lock()
        self._killed = threading.Event()
        cluster.kind = kind
        self._dialect = daemon_dialect(kind)
        self.done: Counter[str] = Counter()
        #: What went wrong, in words.
        self.wrong: list[str] = []

    def run(self) -> list[str]:
        """All of it; what did not hold, a line each."""
        self._cluster.scheduler()
        peer = self._start("peer")
        for promise in self._promises[::2]:
            self._read(peer, promise)
        victim = self._start("victim")
        for _ in range(self._rounds):
            self._play(victim)
            if self._random.random() < _AGAIN:
                self._start("victim", killed_after=self._random.uniform(0, _SPAN))
            victim = self._start("victim")
            self._look(victim)
            for promise in self._random.sample(self._promises, len(self._promises) // 3):
                self._delete(victim, promise)
        for promise in self._promises:
            self._get(victim, promise)
        return self.wrong

    def _directory_of(self, name: str) -> Path:
        return self._cluster.directory / f"{name}.data"

    def _start(self, name: str, *, killed_after: float | None = None) -> Node:
        config: dict[str, Any] = {
            "storage": {"dir": str(self._directory_of(name)), "keep": True},
            "download": {"bandwidthLimit": RATE if name == "victim" else "1GiB"},
        }
        node = self._cluster.daemon(name, config=config, wait=killed_after is None)
        if killed_after is not None:
            time.sleep(killed_after)
            node.kill()
            self.done["kills"] += 1
        self._killed.clear()
        return node

    # -- one round -----------------------------------------------------------------------------

    def _play(self, node: Node) -> None:
        """Have *node* do a few things at once, and kill it meanwhile."""
        chosen = self._random.sample(self._promises, min(3, len(self._promises)))
        works = [partial(self._random.choice(self._works), node, promise) for promise in chosen]
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        time.sleep(self._random.uniform(0, _SPAN))
        self._killed.set()
        node.kill()
        self.done["kills"] += 1
        for thread in threads:
            thread.join()

    @property
    def _works(self) -> list[Callable[[Node, Promise], None]]:
        return [self._read, self._get, self._delete]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  a thread's end must not be silent
            self._complain(f"a worker failed: {type(error).__name__}: {error}")

    def _complain(self, line: str) -> None:
        with self._lock:
            self.wrong.append(line)

    # -- what it does --------------------------------------------------------------------------

    def _read(self, node: Node, promise: Promise) -> None:
        """Download, and remember what was said to be here."""
        request = self._dialect.message("Download{}TaskRequest")()
        field = self._dialect.download
        (getattr(request, field) if field else request).url = self._origin.url(promise.path)
        with node.channel() as channel:
            method = self._method(node, channel, "Download{}Task")
            try:
                for answer in method(request, timeout=PATIENCE):
                    promise.task_id = answer.task_id
                    if answer.HasField("download_piece_finished_response"):
                        number = answer.download_piece_finished_response.piece.number
                        self._promised(node, promise, number)
            except grpc.RpcError as error:
                self._broke_off(error, f"download of {promise.path}")
            else:
                self.done["downloads"] += 1

    def _promised(self, node: Node, promise: Promise, number: int) -> None:
        if node.socket.stem == "victim":
            promise.pieces.add(number)

    def _get(self, node: Node, promise: Promise) -> None:
        """Download to a file, by ``dfget``: all of it, or nothing at all."""
        got = self._cluster.get(node, self._origin.url(promise.path))
        if got.code == 0:
            self.done["outputs"] += 1
            if got.bytes() != promise.content.read():
                self._complain(f"wrong bytes of {promise.path} in an output")
            got.path.unlink()
        elif not self._killed.is_set():
            self._complain(f"dfget of {promise.path}: {got.stderr.strip()}")
        else:
            self.done["outputs that did not come"] += 1
        left = [path.name for path in got.path.parent.glob(f".{got.path.name}.*")]
        left += [got.path.name] if got.path.exists() else []
        if left:
            self._complain(f"dfget of {promise.path} has left {left}")

    def _delete(self, node: Node, promise: Promise) -> None:
        """Whatever comes of it, nothing is promised any more."""
        if not promise.task_id:
            return
        promise.pieces.clear()
        with node.channel() as channel:
            request = self._dialect.message("Delete{}TaskRequest")(task_id=promise.task_id)
            try:
                self._method(node, channel, "Delete{}Task")(request, timeout=PATIENCE)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    self._broke_off(error, f"deletion of {promise.path}")
            else:
                self.done["deletions"] += 1

    def _method(self, node: Node, channel: grpc.Channel, pattern: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(
            node.download_stub(channel), self._dialect.name(pattern)
        )
        return method

    def _broke_off(self, error: grpc.RpcError, what: str) -> None:
        if self._killed.is_set():
            self.done["calls broken off"] += 1
        else:
            self._complain(f"{what}: {error.code().name}: {error.details()}")

    # -- what must hold ------------------------------------------------------------------------

    def _look(self, node: Node) -> None:
        """All that was promised is here, and nothing besides."""
        tasks = node.tasks()
        for promise in self._promises:
            if not promise.pieces:
                continue
            task = tasks.get(promise.task_id)
            count = 0 if task is None else task.finished_piece_count
            if count < len(promise.pieces):
                self._complain(
                    f"{promise.path}: {count} pieces are here, {len(promise.pieces)} were finished"
                )
                continue
            pieces = sorted(promise.pieces)
            for number in self._random.sample(pieces, min(_LOOKS, len(pieces))):
                self._look_at_piece(node, promise, number)
        directory = self._directory_of("victim") / "content"
        for path in directory.rglob("*"):
            if path.is_file() and path.name not in tasks:
                self._complain(f"an orphan: {path.relative_to(directory)}")

    def _look_at_piece(self, node: Node, promise: Promise, number: int) -> None:
        """Fetch it as a child does."""
        size = promise.content.size
        piece = piece_at(number, content_length=size, piece_length=piece_length_for(size))
        into = bytearray(piece.length)
        request = PieceRequest(Tag(policy_of(self._kind).request_tag), promise.task_id, number)
        with closing(Connections()) as connections:
            address = Address("127.0.0.1", node.ports["storage"])
            sink = MemorySink(memoryview(into))
            try:
                PieceFetch(connections, address, request, piece, sink, limits=_LIMITS).run()
            except DragonflyError as error:
                self._complain(f"{promise.path}, piece {number}: {error}")
                return
        self.done["pieces looked at"] += 1
        if into != promise.content.read(piece.offset, piece.length):
            self._complain(f"{promise.path}: wrong bytes of piece {number}")
