"""Small objects that are hot: objects a second and how long one takes, beside Redis and nginx.

    python bench/small.py [--count 10000] [--size 16KiB] [--callers 1,16] [--rounds 5]
                          [--json results.json]

A daemon, a Redis and an nginx have the same objects in memory, and are asked for all of them by
programs that keep their connections: one alone, or several processes at once. All clients are
Python, as lean as the protocol allows: frames of the hand-off socket, RESP over a unix socket,
HTTP/1.1 over TCP on loopback. Each asks for one object after the other; "×16" keeps sixteen under
way on each connection.

All take turns in each round. Printed are medians; rates also as medians of ratios to Redis.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Protocol

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster
from pantala.testing.content import Pattern
from pantala.testing.kept_client import KeptClient
from pantala.testing.measure import (
    Nginx,
    Redis,
    middle,
    numbers,
    percentile,
    ratio,
    served,
    take_turns,
    write_json,
)
from pantala.testing.origin import Origin

#: Requests under way on a connection where more than one is.
DEPTH = 16

_READ = 64 << 10


class Run(NamedTuple):
    """One pass over all objects.

    Attributes:
        rate: Objects a second.
        p50, p99: Microseconds for one; 0 where several are under way.
        server, clients: CPU microseconds for one.
    """

    rate: float
    p50: float
    p99: float
    server: float
    clients: float


# -- clients -------------------------------------------------------------------------------------


class Getter(Protocol):
    """Who asks for objects by the path of their URL."""

    def get(self, name: str) -> bytes:
        """One."""

    def get_all(self, names: Iterable[str], depth: int) -> Iterator[bytes]:
        """Many, *depth* of which are under way."""


class Ours:
    """Over the hand-off socket."""

    def __init__(self, path: Path, base: str) -> None:
        self._client = KeptClient(path)
        self._base = base

    def get(self, name: str) -> bytes:
        return self._client.get(self._base + name)

    def get_all(self, names: Iterable[str], depth: int) -> Iterator[bytes]:
        return self._client.get_all((self._base + name for name in names), depth)


class Lines(ABC):
    """A protocol whose answers have a head of text and say how long the rest is."""

    def __init__(self, sock: socket.socket, request: bytes, end: bytes, tail: int) -> None:
        self._sock = sock
        self._request = request
        self._end, self._tail = end, tail
        self._data = b""

    @abstractmethod
    def _length(self, head: bytes) -> int:
        """Of the content, as the head says."""

    @abstractmethod
    def _framed(self, name: str) -> bytes:
        """The request for one."""

    def _answer(self) -> bytes:
        while (at := self._data.find(self._end)) < 0:
            self._data += self._more()
        start = at + len(self._end)
        size = self._length(self._data[:at])
        while len(self._data) < start + size + self._tail:
            self._data += self._more()
        content = self._data[start : start + size]
        self._data = self._data[start + size + self._tail :]
        return content

    def _more(self) -> bytes:
        data = self._sock.recv(_READ)
        if not data:
            raise ConnectionError("the server has closed")
        return data

    def get(self, name: str) -> bytes:
        self._sock.sendall(self._framed(name))
        return self._answer()

    def get_all(self, names: Iterable[str], depth: int) -> Iterator[bytes]:
        under_way, left = 0, iter(names)
        while frames := [self._framed(name) for name in islice(left, depth - under_way)]:
            self._sock.sendall(b"".join(frames))
            under_way += len(frames)
            while under_way > depth // 2:
                yield self._answer()
                under_way -= 1
        for _ in range(under_way):
            yield self._answer()


class Resp(Lines):
    """Redis."""

    def __init__(self, path: Path) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        super().__init__(sock, b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n", b"\r\n", 2)

    def _framed(self, name: str) -> bytes:
        return self._request % (len(name), name.encode())

    def _length(self, head: bytes) -> int:
        return int(head[1:])

    def set(self, name: str, value: bytes) -> None:
        """Store an object."""
        words = (b"SET", name.encode(), value)
        command = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._sock.sendall(b"*3\r\n" + command)
        if self._more() != b"+OK\r\n":
            raise SystemExit("Redis takes no objects")


class Http(Lines):
    """nginx."""

    def __init__(self, port: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n\r\n", 0)

    def _framed(self, name: str) -> bytes:
        return self._request % name.encode()

    def _length(self, head: bytes) -> int:
        return int(head.partition(b"\r\nContent-Length: ")[2].partition(b"\r\n")[0])


# -- callers -------------------------------------------------------------------------------------


class Told(NamedTuple):
    """By one caller: when it began and ended, its CPU seconds, and the seconds of each object."""

    began: float
    ended: float
    cpu: float
    each: list[float]


def call(connect: Callable[[], Getter], pipe: Connection, size: int) -> None:
    """Ask for all that is named on *pipe*, as often as it is."""
    getter = connect()
    pipe.send("ready")
    clock = time.perf_counter
    while (wish := pipe.recv()) is not None:
        names, depth = wish
        each, cpu, began = [], time.process_time(), clock()
        if depth == 1:
            at = began
            for name in names:
                if len(getter.get(name)) != size:
                    raise SystemExit(f"{name}: not what it should be")
                now = clock()
                each.append(now - at)
                at = now
        elif sum(map(len, getter.get_all(names, depth))) != size * len(names):
            raise SystemExit("not what it should be")
        pipe.send(Told(began, clock(), time.process_time() - cpu, each))


class Callers:
    """So many processes with a connection each."""

    def __init__(self, connect: Callable[[], Getter], count: int, size: int) -> None:
        self._pipes = []
        for _ in range(count):
            pipe, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(
                target=call, args=(connect, theirs, size), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(pipe)
        for pipe in self._pipes:
            pipe.recv()

    def run(self, names: list[str], depth: int, cpu: Callable[[], float]) -> Run:
        """Have them ask for all of *names*, a part each; *cpu*: of the server."""
        used = cpu()
        for n, pipe in enumerate(self._pipes):
            pipe.send((names[n :: len(self._pipes)], depth))
        told: list[Told] = [pipe.recv() for pipe in self._pipes]
        used = cpu() - used
        wall = max(t.ended for t in told) - min(t.began for t in told)
        each = [1e6 * seconds for t in told for seconds in t.each] or [0.0]
        micro = 1e6 / len(names)
        return Run(
            len(names) / wall,
            percentile(each, 0.5),
            percentile(each, 0.99),
            used * micro,
            sum(t.cpu for t in told) * micro,
        )


# -- servers -------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """Who serves: how to connect to it, and its CPU seconds until now."""

    connect: Callable[[], Getter]
    cpu: Callable[[], float]


def candidates(stack: ExitStack, names: list[str], size: int) -> dict[str, Candidate]:
    """Whoever is there, with all objects in memory."""
    found = {}
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pd-")))
    origin = stack.enter_context(Origin())
    for n, name in enumerate(names):
        origin.put(name, Pattern(size, n))
    cluster = stack.enter_context(Cluster(directory))
    node = cluster.daemon("small", capacity=str(max(1 << 30, 2 * size * len(names))))
    path = node.handoff
    with KeptClient(path) as first:
        first.have([origin.url(name) for name in names])
    found["hand-off"] = Candidate(partial(Ours, path, origin.url("")), node.cpu_seconds)
    if shutil.which("redis-server"):
        redis = stack.enter_context(Redis())
        client = Resp(redis.path)
        for n, name in enumerate(names):
            client.set(name, Pattern(size, n).read())
        found["redis"] = Candidate(partial(Resp, redis.path), redis.cpu_seconds)
    else:
        print("redis: not here (redis-server)")
    if shutil.which("nginx"):
        root = served(stack)
        for n, name in enumerate(names):
            (root / name[1:]).write_bytes(Pattern(size, n).read())
        nginx = stack.enter_context(Nginx(root))
        found["nginx"] = Candidate(partial(Http, nginx.port), nginx.cpu_seconds)
    else:
        print("nginx: not here (nginx-light)")
    return found


def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Runs by callers and candidate, one a round."""
    names = [f"/o{n}" for n in range(options.count)]
    with ExitStack() as stack:
        found = candidates(stack, names, options.size)
        ways: dict[str, Callable[[], Run]] = {}
        for count in options.callers:
            for who, candidate in found.items():
                callers = Callers(candidate.connect, count, options.size)
                for depth in (1, DEPTH):
                    name = f"{count}/{who}{f' ×{depth}' if depth > 1 else ''}"
                    ways[name] = partial(callers.run, names, depth, candidate.cpu)
        for way in ways.values():
            way()
        return take_turns(ways, options.rounds)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", default=10_000, type=int)
    parser.add_argument("--size", default="16KiB", type=parse_size, help="1 MiB at most")
    parser.add_argument("--callers", default=[1, 16], type=numbers)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    options = parser.parse_args()
    runs = measure(options)
    print(f"{options.count} × {format_size(options.size)}, {os.cpu_count()} CPUs")
    print(
        f"{'callers':>7}  {'':14}{'objects/s':>10}{'p50 µs':>9}{'p99 µs':>9}"
        f"{'CPU µs: server':>16}{'client':>8}   rate to Redis"
    )
    for name, found in runs.items():
        count, who = name.split("/")
        run = middle(found)
        line = f"{count:>7}  {who:14}{run.rate:10.0f}"
        line += f"{run.p50:9.0f}{run.p99:9.0f}" if run.p50 else f"{'':18}"
        line += f"{run.server:16.1f}{run.clients:8.1f}"
        depth = who.partition(" ")[2]
        if redis := runs.get(f"{count}/redis{f' {depth}' if depth else ''}"):
            line += f"   {ratio((r.rate for r in found), (r.rate for r in redis)):.2f}"
        if depth and (redis := runs.get(f"{count}/redis")):
            one = ratio((r.rate for r in found), (r.rate for r in redis))
            line += f" ({one:.2f} to one by one)"
        print(line)
    if options.json:
        write_json(options.json, runs, count=options.count, size=options.size)


if __name__ == "__main__":
    main()
