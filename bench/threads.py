"""Who receives: threads, the event loop, threads without a lock, or processes. See docs/adr/0034.

    python bench/threads.py [--size 512MiB] [--piece 4MiB] [--rounds 5] [--python PATH]...
                            [--json results.json]

A process sends pieces to whoever asks for them over a plain socket, as a parent does. Another has
an event loop that spends some time in Python on each piece, as a daemon's decisions do, and gets
pieces into memory that is there already, one or four at once, in these ways:

- threads: each piece is handed to a thread, which asks for it and receives it;
- runs: a thread is handed eight pieces, asks for all of them ahead, and reports once;
- loop: the event loop itself receives, by ``sock_recv_into``;
- processes: each receiver is a process that has the memory as well, and is told of each piece.

All take turns. Each run is a process of its own, so that other builds of Python can take part:
each ``--python`` names one, and needs nothing but its standard library. A build without the
interpreter's lock is measured with it, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 20
#: Pieces that one thread is given at once.
RUN = 8
REQUEST = struct.Struct("!QQ")


class Run(NamedTuple):
    """Seconds, and CPU seconds of all who receive, for a GiB."""

    seconds: float
    cpu: float


# -- what is measured, in a process of its own -----------------------------------------------------


def decide(steps: int) -> int:
    """Spend so many steps in Python, as decisions do."""
    total = 0
    for step in range(steps):
        total += step & 3
    return total


def connect(port: int) -> socket.socket:
    """To the sender."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def some(count: int) -> int:
    """*count* bytes have come. Raises ConnectionError: none, for the other side is gone."""
    if not count:
        raise ConnectionError("the other side has hung up")
    return count


def receive(sock: socket.socket, place: memoryview) -> None:
    """Fill a place, blocking."""
    at = 0
    while at < len(place):
        with place[at : at + CHUNK] as window:
            at += some(sock.recv_into(window, 0, socket.MSG_WAITALL))


class Receivers(ABC):
    """One way to get pieces. Its methods run on the event loop."""

    def __init__(self, port: int, count: int, memory: mmap.mmap, piece: int) -> None:
        self.port, self.count, self.piece = port, count, piece
        self.view = memoryview(memory)
        self.start()

    def start(self) -> None:  # noqa: B027  some have nothing to do
        """Get ready; needs no words where there is nothing to do."""

    def stop(self) -> None:  # noqa: B027  some have nothing to do
        """End who else takes part."""

    def place(self, number: int) -> memoryview:
        """Where a piece belongs."""
        return self.view[number * self.piece : (number + 1) * self.piece]

    @abstractmethod
    async def get(self, who: int, numbers: Sequence[int]) -> None:
        """Have a receiver get these."""


class Threads(Receivers):
    """Threads; a call for each hand-over."""

    def start(self) -> None:
        """Connections, and threads."""
        self.socks = [connect(self.port) for _ in range(self.count)]
        self.pool = ThreadPoolExecutor(self.count)

    def work(self, who: int, numbers: Sequence[int]) -> None:
        """In a thread."""
        requests = [REQUEST.pack(number * self.piece, self.piece) for number in numbers]
        self.socks[who].sendall(b"".join(requests))
        for number in numbers:
            with self.place(number) as place:
                receive(self.socks[who], place)

    async def get(self, who: int, numbers: Sequence[int]) -> None:
        """See above."""
        await asyncio.get_running_loop().run_in_executor(self.pool, self.work, who, numbers)


class Loop(Receivers):
    """The event loop."""

    def start(self) -> None:
        """Connections that never block."""
        self.socks = [connect(self.port) for _ in range(self.count)]
        for sock in self.socks:
            sock.settimeout(0)

    async def get(self, who: int, numbers: Sequence[int]) -> None:
        """See above."""
        loop, sock = asyncio.get_running_loop(), self.socks[who]
        for number in numbers:
            await loop.sock_sendall(sock, REQUEST.pack(number * self.piece, self.piece))
            with self.place(number) as place:
                at = 0
                while at < self.piece:
                    with place[at : at + CHUNK] as window:
                        at += some(await loop.sock_recv_into(sock, window))


class Processes(Receivers):
    """Processes, to each of which a socket leads."""

    def start(self) -> None:
        """Fork them; what is mapped is shared."""
        self.ends = []
        for _ in range(self.count):
            ours, theirs = socket.socketpair()
            if not os.fork():
                ours.close()
                self.work(theirs)
                os._exit(0)
            theirs.close()
            ours.settimeout(0)
            self.ends.append(ours)

    def work(self, end: socket.socket) -> None:
        """In a process, until nobody asks any more."""
        sock = connect(self.port)
        while asked := end.recv(8):
            number = int.from_bytes(asked, "big")
            sock.sendall(REQUEST.pack(number * self.piece, self.piece))
            with self.place(number) as place:
                receive(sock, place)
            end.sendall(b"!")

    def stop(self) -> None:
        """Hang up, and wait for them."""
        for end in self.ends:
            end.close()
        for _ in self.ends:
            os.wait()

    async def get(self, who: int, numbers: Sequence[int]) -> None:
        """See above."""
        loop, end = asyncio.get_running_loop(), self.ends[who]
        for number in numbers:
            await loop.sock_sendall(end, number.to_bytes(8, "big"))
            some(len(await loop.sock_recv(end, 1)))


#: By name: who receives, and how many pieces are handed over at once.
WAYS: dict[str, tuple[type[Receivers], int]] = {
    "threads": (Threads, 1),
    "runs": (Threads, RUN),
    "loop": (Loop, 1),
    "processes": (Processes, 1),
}


def cpu() -> float:
    """Of this process and those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


async def transfer(receivers: Receivers, pieces: int, step: int, steps: int) -> None:
    """Get all pieces, *step* at a hand-over."""
    left = [range(at, min(at + step, pieces)) for at in reversed(range(0, pieces, step))]

    async def one(who: int) -> None:
        while left:
            numbers = left.pop()
            await receivers.get(who, numbers)
            for _ in numbers:
                decide(steps)

    await asyncio.gather(*map(one, range(receivers.count)))


def run_here(options: argparse.Namespace) -> None:
    """Measure one way, and print what it took."""
    memory = mmap.mmap(-1, options.size)
    for at in range(0, options.size, CHUNK):
        memory[at : at + CHUNK] = bytes(CHUNK)
    kind, step = WAYS[options.way]
    before = cpu()
    receivers = kind(options.port, options.receivers, memory, options.piece)
    began = time.perf_counter()
    for _ in range(options.times):
        work = transfer(receivers, options.size // options.piece, step, options.decide)
        asyncio.run(work)
    took = time.perf_counter() - began
    receivers.stop()
    gib = options.times * options.size / (1 << 30)
    print(json.dumps({"seconds": took / gib, "cpu": (cpu() - before) / gib}))


# -- around it -------------------------------------------------------------------------------------


def serve(listener: socket.socket, size: int) -> None:
    """Send what is asked for, for ever."""
    view = memoryview(os.urandom(CHUNK) * (size // CHUNK))

    def answer(sock: socket.socket) -> None:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while asked := sock.recv(REQUEST.size, socket.MSG_WAITALL):
                offset, length = REQUEST.unpack(asked)
                with view[offset : offset + length] as part:
                    sock.sendall(part)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=answer, args=(sock,), daemon=True).start()


def run_apart(python: str, lock: str, words: Sequence[str]) -> Run:
    """Measure one way in a process of its own."""
    environment = {**os.environ, "PYTHON_GIL": lock} if lock else {**os.environ}
    found = subprocess.run(
        [python, __file__, *words], env=environment, stdout=subprocess.PIPE, check=True
    )
    return Run(**json.loads(found.stdout))


def builds(paths: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of Python: by name, the path, and what ``PYTHON_GIL`` is to be."""
    found: dict[str, tuple[str, str]] = {}
    ask = "import sys; from sysconfig import get_config_var as get;"
    ask += "print(*sys.version_info[:2], get('Py_GIL_DISABLED'))"
    for path in paths:
        major, minor, free = subprocess.check_output([path, "-c", ask], text=True).split()
        name = f"{major}.{minor}"
        if free == "1":
            found[f"{name}t"], found[f"{name}t, lock"] = (path, "0"), (path, "1")
        else:
            found[name] = path, ""
    return found


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="512MiB")
    parser.add_argument("--piece", default="4MiB")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--times", default=4, type=int, help="that all is moved in one run")
    parser.add_argument("--decide", default=2000, type=int, help="steps in Python for each piece")
    parser.add_argument("--python", action="append", default=[], help="another build, too")
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    for name in ("--way", "--port", "--receivers"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        for name in ("size", "piece", "port", "receivers"):
            setattr(options, name, int(getattr(options, name)))
        run_here(options)
        return
    from pantala.model.units import parse_size  # noqa: PLC0415  other builds run this, and have no packages
    from pantala.testing.measure import (  # noqa: PLC0415  other builds run this, and have no packages
        middle,
        take_turns,
        write_json,
    )

    size, piece = parse_size(options.size), parse_size(options.piece)
    listener = socket.create_server(("127.0.0.1", 0))
    sender = os.fork()
    if not sender:
        serve(listener, size)
    port, times, steps = listener.getsockname()[1], options.times, options.decide
    terms = {"size": size, "piece": piece, "port": port, "times": times, "decide": steps}
    told = [word for name, value in terms.items() for word in (f"--{name}", str(value))]
    ways: dict[str, Callable[[], Run]] = {}
    for build, (path, lock) in builds([sys.executable, *options.python]).items():
        for way in WAYS:
            for count in (1, 4):
                words = [*told, "--way", way, "--receivers", str(count)]
                ways[f"{build}/{way}/{count}"] = partial(run_apart, path, lock, words)
    try:
        runs = take_turns(ways, options.rounds)
    finally:
        os.kill(sender, 9)
        os.waitpid(sender, 0)
    print(f"{'Python':12}{'':12}{'receivers':>9}{'GB/s':>8}{'CPU s/GiB':>11}")
    for name, found in runs.items():
        build, way, receivers = name.split("/")
        middling = middle(found)
        rate = (1 << 30) / middling.seconds / 1e9
        print(f"{build:12}{way:12}{receivers:>9}{rate:8.2f}{middling.cpu:11.3f}")
    if options.json:
        write_json(options.json, runs, size=size, piece=piece)


if __name__ == "__main__":
    main()
