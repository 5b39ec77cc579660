"""Bytes a second from a warm daemon to another, as a ratio to a bare socket loop in the same run.

    python bench/pair.py [--size 2GiB] [--rounds 5] [--json results.json]

Two daemons, a scheduler and an origin are started as real processes. The first daemon gets two
files from the origin; then the second gets them from the first, verified, again and again:

- where its store is full, so that a task takes over the memory of the one it evicts;
- for a program that reads in place as the bytes come, which takes memory never touched before.

In between, a bare loop moves as many bytes between two processes over plain sockets, by the calls
that cost least, into memory that is warm and into memory that was never touched.
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

from pantala.cli._handoff import connect
from pantala.model.units import format_size, parse_size
from pantala.pb import dfdaemon_pb2
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

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
        memory.madvise(mmap.MADV_HUGEPAGE)  # as a daemon does
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


def hand_off(node: Node, url: str, size: int) -> float:
    """Have *node* get *url* for a program that reads it in place; bytes a second."""
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


class Receiver:
    """A daemon, spoken to by gRPC."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._channel = node.channel()
        self._download = node.download_stub(self._channel)

    def fetch(self, url: str, size: int) -> float:
        """Have it get *url*; bytes a second."""
        request = dfdaemon_pb2.DownloadCacheTaskRequest(url=url)
        started = time.perf_counter()
        for _ in self._download.DownloadCacheTask(request, timeout=PATIENCE):
            pass
        return size / (time.perf_counter() - started)

    def forget(self) -> None:
        """Have it delete all it holds."""
        for task_id in self._node.tasks():
            self._download.DeleteCacheTask(dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task_id))

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


def measure(size: int, rounds: int, connections: int) -> dict[str, list[float]]:
    """Rates by name, bytes a second, one a round."""
    rates: dict[str, list[float]] = {"warm": [], "pair-warm": [], "fresh": [], "pair-fresh": []}
    bare = BareLoop(size, connections)
    with tempfile.TemporaryDirectory(prefix="pd-") as directory, Origin() as origin:
        origin.put("/a", Pattern(size, 1))
        origin.put("/b", Pattern(size, 2))
        a, b = origin.url("/a"), origin.url("/b")
        with Cluster(Path(directory)) as cluster:
            cluster.scheduler()
            first = cluster.daemon("first", capacity=str(2 * size + (64 << 20)))
            second = cluster.daemon("second", capacity=str(size + (64 << 20)))
            for url in (a, b):
                hand_off(first, url, size)
            sent = origin.sent()
            receiver = Receiver(second)
            for _ in range(rounds):
                receiver.fetch(a, size)
                rates["warm"].append(bare.run(warm=True))
                rates["pair-warm"].append(receiver.fetch(b, size))
                receiver.forget()
                rates["fresh"].append(bare.run(warm=False))
                rates["pair-fresh"].append(hand_off(second, a, size))
                receiver.forget()
            receiver.close()
            if origin.sent() != sent:
                raise SystemExit("the second daemon asked the origin: nothing was measured")
    bare.close()
    return rates


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2GiB", type=parse_size)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--connections", default=4, type=int, help="of the bare loop")
    parser.add_argument("--json", type=Path, help="write the rates here, too")
    options = parser.parse_args()
    size = options.size // (options.connections * CHUNK) * options.connections * CHUNK
    rates = measure(size, options.rounds, options.connections)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, words in (
        ("warm", "bare socket loop, warm memory"),
        ("pair-warm", "daemon to daemon, memory of an evicted task"),
        ("fresh", "bare socket loop, fresh memory"),
        ("pair-fresh", "daemon to daemon, fresh memory"),
    ):
        line = f"{words:48} {format_size(middle[name])}/s"
        if name.startswith("pair"):
            against = {other: middle[name] / middle[other] for other in ("warm", "fresh")}
            line += "   " + ", ".join(f"{r:.2f} of the {n} loop" for n, r in against.items())
        print(line)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"size": size, "rates": rates}))


if __name__ == "__main__":
    main()
