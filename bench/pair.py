"""Bytes a second from a warm daemon to another, as a ratio to a bare socket loop in the same run.

    python bench/pair.py [--size 1GiB] [--rounds 5] [--json results.json]

Two daemons, a scheduler and an origin are started as real processes. The first daemon gets the
content from the origin; then, each round, the second gets it from the first, verified, and
forgets it again. Between rounds a bare loop moves as many bytes between two processes over
plain sockets, by the calls that cost least, into memory that is warm and into memory that was
never touched. What a daemon receives into has never been touched either.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydragonfly.cli._handoff import connect
from pydragonfly.model.units import format_size, parse_size
from pydragonfly.testing.cluster import Cluster, Node
from pydragonfly.testing.content import Pattern
from pydragonfly.testing.origin import Origin

CHUNK = 1 << 20
PATIENCE = 600.0


# -- a bare loop -------------------------------------------------------------------------------


def serve(size: int, connections: int, pipe: Connection) -> None:
    """Send *size* bytes over each of so many connections, as often as asked."""
    memory = mmap.mmap(-1, size // connections)
    memory.write(os.urandom(CHUNK) * (len(memory) // CHUNK))
    view = memoryview(memory)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        socks = [listener.accept()[0] for _ in range(connections)]
    while pipe.recv():
        run_threads([lambda s=sock: s.sendall(view) for sock in socks])


def run_threads(works: list[Any]) -> None:
    """Run each in a thread, and wait for all."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class BareLoop:
    """Two processes and plain sockets."""

    def __init__(self, size: int, connections: int) -> None:
        self._part = size // connections
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=serve, args=(size, connections, theirs), daemon=True
        )
        self._process.start()
        port = self._pipe.recv()
        self._socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        self._warm = [self._fresh() for _ in self._socks]
        for memory in self._warm:
            memory.write(bytes(len(memory)))

    def _fresh(self) -> mmap.mmap:
        fd = os.memfd_create("bare")
        os.ftruncate(fd, self._part)
        memory = mmap.mmap(fd, self._part)
        os.close(fd)
        return memory

    def run(self, *, warm: bool) -> float:
        """Bytes a second."""
        memories = self._warm if warm else [self._fresh() for _ in self._socks]

        def receive(sock: socket.socket, memory: mmap.mmap) -> None:
            view, at = memoryview(memory), 0
            while at < len(view):
                at += sock.recv_into(view[at : at + CHUNK], 0, socket.MSG_WAITALL)

        started = time.perf_counter()
        self._pipe.send("again")
        run_threads(
            [lambda s=s, m=m: receive(s, m) for s, m in zip(self._socks, memories, strict=True)]
        )
        return self._part * len(self._socks) / (time.perf_counter() - started)

    def close(self) -> None:
        """End it."""
        self._pipe.send("")
        for sock in self._socks:
            sock.close()
        self._process.join()


# -- a daemon ----------------------------------------------------------------------------------


def fetch(node: Node, url: str, size: int) -> float:
    """Have *node* get *url*; bytes a second."""
    deadline = time.monotonic() + PATIENCE
    with connect(str(node.socket)) as connection:
        started = time.perf_counter()
        connection.send({"op": "download", "url": url}, deadline=deadline)
        while (event := connection.receive(deadline=deadline)) is not None:
            if event["event"] == "error":
                raise SystemExit(event["message"])
            if event["event"] == "done":
                break
        return size / (time.perf_counter() - started)


def forget(node: Node) -> None:
    """Have *node* delete all it holds."""
    from pydragonfly.pb import dfdaemon_pb2, node_pb2  # noqa: PLC0415  heavy, and not timed

    with node.channel() as channel:
        for task in node.node_stub(channel).ListTasks(node_pb2.ListTasksRequest()).tasks:
            request = dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task.id)
            node.download_stub(channel).DeleteCacheTask(request)


def measure(size: int, rounds: int, connections: int) -> dict[str, list[float]]:
    """Rates by name, bytes a second, one a round."""
    rates: dict[str, list[float]] = {"warm": [], "fresh": [], "pair": []}
    bare = BareLoop(size, connections)
    capacity = str(size + (64 << 20))
    with tempfile.TemporaryDirectory(prefix="pd-") as directory, Origin() as origin:
        origin.put("/content", Pattern(size, 1))
        with Cluster(Path(directory)) as cluster:
            cluster.scheduler()
            first = cluster.daemon("first", capacity=capacity)
            second = cluster.daemon("second", capacity=capacity)
            fetch(first, origin.url("/content"), size)
            sent = origin.sent()
            for _ in range(rounds):
                rates["warm"].append(bare.run(warm=True))
                rates["pair"].append(fetch(second, origin.url("/content"), size))
                rates["fresh"].append(bare.run(warm=False))
                forget(second)
            if origin.sent() != sent:
                raise SystemExit("the second daemon asked the origin: nothing was measured")
    bare.close()
    return rates


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--connections", default=4, type=int, help="of the bare loop")
    parser.add_argument("--json", type=Path, help="write the rates here, too")
    options = parser.parse_args()
    size = options.size // (options.connections * CHUNK) * options.connections * CHUNK
    rates = measure(size, options.rounds, options.connections)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, words in (
        ("warm", "bare socket loop, warm memory"),
        ("fresh", "bare socket loop, fresh memory"),
        ("pair", "daemon to daemon, verified"),
    ):
        print(f"{words:32} {format_size(middle[name])}/s")
    print(f"ratio to the bare loop into warm memory   {middle['pair'] / middle['warm']:.2f}")
    print(f"ratio to the bare loop into fresh memory  {middle['pair'] / middle['fresh']:.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"size": size, "rates": rates}))


if __name__ == "__main__":
    main()
