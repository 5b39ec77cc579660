"""What the soak asks of the nodes that it runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc

from pantala.model.task import Kind
from pantala.paths import handoff_path_for
from pantala.pb import common_pb2, node_pb2, scheduler_pb2
from pantala.wire.handoff import HandoffDecoder, encode

from .cluster import PATIENCE, Got, Node, Program


@contextmanager
def held(node: Node, url: str, kind: Kind) -> Iterator[None]:
    """A program on *node* has a file, or was refused it, and keeps its connection."""
    decoder = HandoffDecoder()
    with socket.socket(socket.AF_UNIX) as holder:
        holder.settimeout(PATIENCE)
        holder.connect(handoff_path_for(str(node.socket)))
        holder.sendall(encode({"op": "download", "url": url, "kind": kind.name}))
        over, content = False, 0
        while not over and (data := holder.recv(1 << 16)):
            decoder.feed(data)
            # Whoever keeps much is sent content in frames, which are read past.
            while decoder.take_content(content) is not None:
                event, content = decoder.next_object(), 0
                if event is None:
                    break
                over |= event["event"] in {"done", "error"}
                content = event["inline"] if event["event"] == "content" else 0
        yield


def is_refusal(got: Got) -> bool:
    """It was deleted meanwhile, or there was no room."""
    return "deleted while" in got.stderr or "no room" in got.stderr


def injected(report: dict[str, Any], loop: str) -> int:
    """How many turns of it were failed."""
    found = report["injected"]
    return int(found.get(loop, 0) + found.get(f"{loop}, done", 0))


def anonymous(program: Program) -> int:
    """Bytes of memory that is neither a file's nor a task's."""
    for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel does not say")


def no_lease(node: Node) -> bool:
    """Nobody uses what is in its memory."""
    return not node.store()["leased"]


def empty(node: Node) -> bool:
    """It holds nothing, or is asked to."""
    for task in node.tasks().values():
        try:
            node.delete(task.id, Kind(task.type))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # it expired meanwhile
                raise
    return not node.tasks()


def is_known(stub: Any, task: node_pb2.NodeTask) -> bool:
    """The scheduler knows of somebody who has it."""
    try:
        if task.type == common_pb2.STANDARD:
            known = stub.StatTask(scheduler_pb2.StatTaskRequest(task_id=task.id))
        else:
            known = stub.StatCacheTask(scheduler_pb2.StatCacheTaskRequest(task_id=task.id))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return bool(known.has_available_peer)


def troubles(node: Node) -> str:
    """Why it is not healthy, in its own words; empty when it is."""
    try:
        with urlopen(f"http://127.0.0.1:{node.ports['health']}/healthy", timeout=PATIENCE):
            return ""
    except HTTPError as error:
        with error:
            return error.read().decode() or str(error)
