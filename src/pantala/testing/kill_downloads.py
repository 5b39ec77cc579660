"""Downloads to a daemon that is killed meanwhile, and what must hold when it is back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc

from pantala.model.task import Kind
from pantala.rpc.daemon_dialects import daemon_dialect

from .cluster import PATIENCE, Node
from .content import Pattern
from .kill_scene import Scene
from .origin import Origin

#: Contents have up to so many bytes: several pieces.
LARGEST: Final = 30 << 20

#: Pieces of a file that are looked at when the daemon is back.
_LOOKS: Final = 3

_KIND: Final = Kind.STANDARD


@dataclass
class Promise:
    """What the daemon has told anybody of one task.

    Attributes:
        path: At the origin.
        task_id: ``""`` until it was told.
        pieces: Numbers of those that it has reported finished, and nobody has asked it to delete.
    """

    path: str
    content: Pattern
    task_id: str = ""
    pieces: set[int] = field(default_factory=set)


class Downloads:
    """All of them.

    Args:
        scene: Where.
        origin: Where files come from.
        victim: The name of the daemon that is killed.
        files: How many there are.
    """

    def __init__(self, scene: Scene, origin: Origin, *, victim: str, files: int) -> None:
        self._scene = scene
        self._origin = origin
        self._victim = victim
        self._dialect = daemon_dialect(_KIND)
        self._promises: list[Promise] = []
        for number in range(files):
            size = scene.random.randint(1, LARGEST)
            content = Pattern(size, seed=scene.seed * 1000 + number)
            self._promises.append(Promise(f"/{number}", content))
            origin.put(f"/{number}", content)

    def begin(self, peer: Node) -> None:
        """From every second file *peer* has all of it."""
        for promise in self._promises[::2]:
            self._read(peer, promise)

    def works(self, number: int) -> list[Callable[[], None]]:
        """What may be done at once."""
        random = self._scene.random
        chosen = random.sample(self._promises, min(number, len(self._promises)))
        kinds = (self._read, self._get, self._delete)
        node = self._scene.nodes[self._victim]
        return [partial(random.choice(kinds), node, promise) for promise in chosen]

    def look(self) -> None:
        """All that was promised is here."""
        node, random = self._scene.nodes[self._victim], self._scene.random
        tasks = node.tasks()
        for promise in self._promises:
            if not promise.pieces:
                continue
            task = tasks.get(promise.task_id)
            count = 0 if task is None else task.finished_piece_count
            if count < len(promise.pieces):
                self._scene.complain(
                    f"{promise.path}: {count} pieces are here, {len(promise.pieces)} were finished"
                )
                continue
            pieces = sorted(promise.pieces)
            for number in random.sample(pieces, min(_LOOKS, len(pieces))):
                self._scene.look_at_piece(node, _KIND, promise.task_id, number, promise.content)

    def tidy(self) -> None:
        """Delete some, so that there is something to do."""
        node = self._scene.nodes[self._victim]
        for promise in self._scene.random.sample(self._promises, len(self._promises) // 3):
            self._delete(node, promise)

    def end(self) -> None:
        """Have all of them."""
        for promise in self._promises:
            self._get(self._scene.nodes[self._victim], promise)

    def _read(self, node: Node, promise: Promise) -> None:
        """Download, and remember what was said to be here."""
        request = self._dialect.message("Download{}TaskRequest")()
        field = self._dialect.download
        (getattr(request, field) if field else request).url = self._origin.url(promise.path)
        self._scene.note(f"download of {promise.path} at {node.name}")
        with node.channel() as channel:
            method = self._method(node, channel, "Download{}Task")
            try:
                for answer in method(request, timeout=PATIENCE):
                    promise.task_id = answer.task_id
                    if answer.HasField("download_piece_finished_response"):
                        number = answer.download_piece_finished_response.piece.number
                        if node.name == self._victim:
                            promise.pieces.add(number)
            except grpc.RpcError as error:
                self._scene.rpc_broke_off(f"download of {promise.path}", error)
            else:
                self._scene.done["downloads"] += 1

    def _get(self, node: Node, promise: Promise) -> None:
        """Download to a file, by ``dfget``: all of it, or nothing at all."""
        scene = self._scene
        scene.note(f"dfget of {promise.path} at {node.name}")
        got = scene.cluster.get(node, self._origin.url(promise.path))
        if got.code == 0:
            scene.done["outputs"] += 1
            if got.bytes() != promise.content.read():
                scene.complain(f"wrong bytes of {promise.path} in an output")
            got.path.unlink()
        else:
            scene.broke_off(f"dfget of {promise.path}", got.stderr.strip())
        if left := got.left:
            scene.complain(f"dfget of {promise.path} has left {left}")

    def _delete(self, node: Node, promise: Promise) -> None:
        """Whatever comes of it, nothing is promised any more."""
        if not promise.task_id:
            return
        promise.pieces.clear()
        self._scene.note(f"deletion of {promise.path} at {node.name}")
        with node.channel() as channel:
            request = self._dialect.message("Delete{}TaskRequest")(task_id=promise.task_id)
            try:
                self._method(node, channel, "Delete{}Task")(request, timeout=PATIENCE)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    self._scene.rpc_broke_off(f"deletion of {promise.path}", error)
            else:
                self._scene.done["deletions"] += 1

    def _method(self, node: Node, channel: grpc.Channel, pattern: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(
            node.download_stub(channel), self._dialect.name(pattern)
        )
        return method
