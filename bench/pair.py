"""Bytes a second from a warm daemon to another, and their CPU, against a bare socket loop.

    python bench/pair.py [--size 2GiB] [--rounds 5] [--json results.json] [--svg FILE]

Two daemons, a scheduler and an origin are started as real processes. The first daemon gets two
files from the origin; then the second gets them from the first, verified, again and again:

- where its store is full, so that a task takes over the memory of the one it evicts; for whoever
  waits until all is here, and for a program that reads in place as the bytes come, for which what
  was in that memory goes first;
- into memory never touched before.

In between, a bare loop moves as many bytes between two processes over plain sockets, by the calls
that cost least: into memory that is warm in place, into fresh memory through a warm buffer and
``pwrite``. All take turns in each round, and what is printed are medians of their ratios.
"""

from __future__ import annotations

import argparse
import mmap
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from pantala.client.connection import connect
from pantala.model.units import format_size, parse_size
from pantala.pb import dfdaemon_pb2
from pantala.testing.cluster import Cluster, Node, Program
from pantala.testing.content import Pattern
from pantala.testing.drawing import bars
from pantala.testing.measure import middle, write_json
from pantala.testing.origin import Origin
from pantala.testing.program import cpu_seconds
from pantala.testing.threads import in_threads

CHUNK = 1 << 20
PATIENCE = 600.0


#: What is measured: its name, and with what it is compared.
NAMES = {
    "warm": ("bare socket loop, warm memory", ""),
    "pair-warm": ("daemon to daemon, memory of an evicted task", "warm"),
    "pair-early": ("the same, for a program that reads early", "warm"),
    "fresh": ("bare socket loop, fresh memory", ""),
    "pair-fresh": ("daemon to daemon, fresh memory", "fresh"),
}


class Run(NamedTuple):
    """How one transfer went, for each GiB of it: seconds, and CPU seconds of either side."""

    wall: float
    receiver: float
    sender: float


def per_gib(size: int, *seconds: float) -> Run:
    """Of a transfer of *size* bytes."""
    return Run(*(each * (1 << 30) / size for each in seconds))


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
        in_threads([partial(sock.sendall, view) for sock in socks])


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
        self._warm = [mmap.mmap(-1, self._part) for _ in self._socks]
        for memory in self._warm:
            memory.write(bytes(len(memory)))

    def run(self, *, warm: bool) -> Run:
        """Move it once, into memory of that sort."""

        def in_place(sock: socket.socket, memory: mmap.mmap) -> None:
            view, at = memoryview(memory), 0
            while at < len(view):
                at += sock.recv_into(view[at : at + CHUNK], 0, socket.MSG_WAITALL)

        def bounced(sock: socket.socket, fd: int) -> None:
            view, at = memoryview(bytearray(CHUNK)), 0
            while at < self._part:
                count = sock.recv_into(view[: self._part - at], 0, socket.MSG_WAITALL)
                at += os.pwrite(fd, view[:count], at)

        files: list[int] = []
        if not warm:
            files = [os.memfd_create("bare") for _ in self._socks]
            for fd in files:
                os.ftruncate(fd, self._part)
        own, theirs = time.process_time(), cpu_seconds(self._process.pid or 0)
        started = time.perf_counter()
        self._pipe.send("again")
        if warm:
            pairs = zip(self._socks, self._warm, strict=True)
            in_threads([partial(in_place, *pair) for pair in pairs])
        else:
            in_threads([partial(bounced, *pair) for pair in zip(self._socks, files, strict=True)])
        wall = time.perf_counter() - started
        own = time.process_time() - own
        theirs = cpu_seconds(self._process.pid or 0) - theirs
        for fd in files:
            os.close(fd)
        return per_gib(self._part * len(self._socks), wall, own, theirs)

    def close(self) -> None:
        """End it."""
        self._pipe.send("")
        for sock in self._socks:
            sock.close()
        self._process.join()


# -- a daemon ----------------------------------------------------------------------------------


def hand_off(node: Node, url: str) -> None:
    """Have *node* get *url* for a program that reads it in place."""
    deadline = time.monotonic() + PATIENCE
    with connect(str(node.socket)) as connection:
        connection.send({"op": "download", "url": url}, deadline=deadline)
        while (event := connection.receive(deadline=deadline)) is not None:
            if event["event"] == "error":
                raise SystemExit(event["message"])
            if event["event"] == "done":
                break


class Pair:
    """Two daemons, the second of which is also spoken to by gRPC."""

    def __init__(self, first: Program, second: Node, size: int) -> None:
        self._first, self._second, self._size = first, second, size
        self._channel = second.channel()
        self._download = second.download_stub(self._channel)

    def fetch(self, url: str, *, in_place: bool) -> Run:
        """Have the second get *url*."""
        cpus = [each.cpu_seconds() for each in (self._second, self._first)]
        started = time.perf_counter()
        if in_place:
            hand_off(self._second, url)
        else:
            request = dfdaemon_pb2.DownloadCacheTaskRequest(url=url)
            for _ in self._download.DownloadCacheTask(request, timeout=PATIENCE):
                pass
        wall = time.perf_counter() - started
        used = [
            each.cpu_seconds() - cpu
            for each, cpu in zip((self._second, self._first), cpus, strict=True)
        ]
        return per_gib(self._size, wall, *used)

    def forget(self) -> None:
        """Have it delete all it holds."""
        for task_id in self._second.tasks():
            self._download.DeleteCacheTask(dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task_id))
        time.sleep(0.3)  # what it deletes is unmapped behind, at the cost of whoever is next

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


def measure(size: int, rounds: int, connections: int) -> dict[str, list[Run]]:
    """Runs by name, one a round."""
    runs: dict[str, list[Run]] = {name: [] for name in NAMES}
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
                hand_off(first, url)
            sent = origin.sent()
            pair = Pair(first, second, size)
            for _ in range(rounds):
                for url in (a, b):  # as it is in a store that has been full for a while
                    pair.fetch(url, in_place=False)
                runs["warm"].append(bare.run(warm=True))
                runs["pair-warm"].append(pair.fetch(a, in_place=False))
                runs["pair-early"].append(pair.fetch(b, in_place=True))
                pair.forget()
                runs["fresh"].append(bare.run(warm=False))
                runs["pair-fresh"].append(pair.fetch(a, in_place=True))
                pair.forget()
            pair.close()
            if origin.sent() != sent:
                raise SystemExit("the second daemon asked the origin: nothing was measured")
    bare.close()
    return runs


def draw(runs: dict[str, list[Run]]) -> str:
    """Rates, and CPU of whoever receives; medians."""
    middles = {NAMES[name][0]: middle(found) for name, found in runs.items()}
    others = {words for words, against in NAMES.values() if not against}
    rates = {words: (1 << 30) / run.wall / 1e9 for words, run in middles.items()}
    cpu = {words: run.receiver for words, run in middles.items()}
    groups = {"GB/s": rates, "CPU seconds of the receiver for a GiB": cpu}
    return bars("One daemon gets a file from another", "", groups, others=others)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2GiB", type=parse_size)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--connections", default=4, type=int, help="of the bare loop")
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    parser.add_argument("--svg", type=Path, help="draw them here, too")
    options = parser.parse_args()
    size = options.size // (options.connections * CHUNK) * options.connections * CHUNK
    runs = measure(size, options.rounds, options.connections)
    print(f"{'':44} {'rate':>12}   CPU s/GiB: receiver, sender")
    for name, (words, against) in NAMES.items():
        run = middle(runs[name])
        line = f"{words:44} {format_size((1 << 30) / run.wall):>10}/s"
        line += f"   {run.receiver:9.2f} {run.sender:9.2f}"
        if against:
            pairs = list(zip(runs[name], runs[against], strict=True))
            rate = statistics.median(bare.wall / ours.wall for ours, bare in pairs)
            receiver = statistics.median(ours.receiver / bare.receiver for ours, bare in pairs)
            sender = statistics.median(ours.sender / bare.sender for ours, bare in pairs)
            line += f"   of the loop: rate {rate:.2f}, CPU {receiver:.2f}, {sender:.2f}"
        print(line)
    if options.json:
        write_json(options.json, runs, size=size)
    if options.svg:
        options.svg.write_text(draw(runs))


if __name__ == "__main__":
    main()
