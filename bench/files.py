"""What it costs to receive pieces into a file, and to serve them from one, way by way.

    python bench/files.py [--size 512MiB] [--rounds 9] [--connections 4] [--directory .]

Two processes and plain sockets, pieces of 4 MiB, the page cache of a file system on a disk, no
fsync. Each way checks what a daemon checks: the CRC-32 of each piece, on arrival, or before its
first byte is sent. The order of the ways is another one each round; what is printed are medians.
docs/adr/0017 draws its conclusions from this.

- Receiving: a new file each time. *Preallocated* means ``fallocate``, else the file is sparse.
- Serving: one file, warm in the page cache, and then *cold*: its pages are dropped before each
  round (``POSIX_FADV_DONTNEED`` after an fsync), so the disk counts.
"""

from __future__ import annotations

import argparse
import fcntl
import mmap
import multiprocessing
import os
import random
import resource
import socket
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from pantala.model.digest import crc32
from pantala.model.units import format_size, parse_size
from pantala.testing.threads import in_threads

PIECE = 4 << 20
CHUNK = 1 << 20


class Part(NamedTuple):
    """What one connection carries: a part of a file."""

    fd: int
    start: int
    length: int

    def pieces(self) -> range:
        """Where its pieces begin."""
        return range(self.start, self.start + self.length, PIECE)


class Cost(NamedTuple):
    """Of one round: bytes a second, and CPU seconds of the process that works with the file."""

    rate: float
    user: float
    system: float


# -- receiving ----------------------------------------------------------------------------------


def mapped(sock: socket.socket, part: Part) -> None:
    """Into a mapping of the file."""
    memory = mmap.mmap(part.fd, part.length, offset=part.start)
    with memoryview(memory) as view:
        for at in range(0, part.length, CHUNK):
            with view[at : at + CHUNK] as chunk:
                sock.recv_into(chunk, 0, socket.MSG_WAITALL)
                crc32(chunk)
    memory.close()


def written(sock: socket.socket, part: Part, *, size: int) -> None:
    """Into a buffer that stays warm, and from there by ``pwrite``."""
    buffer = memoryview(bytearray(size))
    for at in range(part.start, part.start + part.length, size):
        sock.recv_into(buffer, 0, socket.MSG_WAITALL)
        crc32(buffer)
        os.pwrite(part.fd, buffer, at)


def spliced(sock: socket.socket, part: Part, *, check: Callable[[int, int], int] | None) -> None:
    """Through a pipe, by the kernel alone; what has come is then read to check it."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, CHUNK)
    for start in part.pieces():
        at = start
        while at < start + PIECE:
            end = at + os.splice(sock.fileno(), into, min(CHUNK, start + PIECE - at))
            while at < end:
                at += os.splice(out, part.fd, end - at, offset_dst=at)
        if check is not None:
            check(part.fd, start)
    os.close(out)
    os.close(into)


# -- checking what lies in a file ---------------------------------------------------------------

_buffers = threading.local()


def warm(size: int) -> memoryview:
    """A buffer that this thread has used before."""
    buffer: memoryview = getattr(_buffers, str(size), memoryview(b""))
    if not buffer:
        buffer = memoryview(bytearray(size))
        setattr(_buffers, str(size), buffer)
    return buffer


def by_mapping(fd: int, start: int) -> int:
    """The CRC-32 of a piece, over a mapping made for it."""
    with (
        mmap.mmap(fd, PIECE, prot=mmap.PROT_READ, offset=start) as memory,
        memoryview(memory) as view,
    ):
        return crc32(view)


def by_populated_mapping(fd: int, start: int) -> int:
    """The same, with all its pages mapped in one go."""
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    with (
        mmap.mmap(fd, PIECE, flags=flags, prot=mmap.PROT_READ, offset=start) as memory,
        memoryview(memory) as view,
    ):
        return crc32(view)


def by_reading(fd: int, start: int, *, size: int = CHUNK // 4) -> int:
    """The CRC-32 of a piece, read into a small buffer."""
    buffer, crc = warm(size), 0
    for at in range(start, start + PIECE, size):
        os.preadv(fd, [buffer], at)
        crc = crc32(buffer, crc)
    return crc


# -- serving ------------------------------------------------------------------------------------


def sent_by_sendfile(
    sock: socket.socket, part: Part, *, check: Callable[[int, int], int] | None
) -> None:
    """``sendfile``, after a check."""
    for start in part.pieces():
        if check is not None:
            check(part.fd, start)
        at = start
        while at < start + PIECE:
            at += os.sendfile(sock.fileno(), part.fd, at, start + PIECE - at)


def sent_from_buffer(sock: socket.socket, part: Part) -> None:
    """Read a whole piece into a buffer, check it there, send it from there."""
    buffer = warm(PIECE)
    for start in part.pieces():
        os.preadv(part.fd, [buffer], start)
        crc32(buffer)
        sock.sendall(buffer)


def sent_from_small_buffer(sock: socket.socket, part: Part) -> None:
    """Read twice into a small buffer: to check, then to send."""
    buffer = warm(CHUNK // 4)
    for start in part.pieces():
        by_reading(part.fd, start)
        for at in range(start, start + PIECE, len(buffer)):
            os.preadv(part.fd, [buffer], at)
            sock.sendall(buffer)


def sent_from_mapping(sock: socket.socket, part: Part, *, populate: bool) -> None:
    """Map a piece, check it there, send it from there."""
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
    for start in part.pieces():
        with (
            mmap.mmap(part.fd, PIECE, flags=flags, prot=mmap.PROT_READ, offset=start) as memory,
            memoryview(memory) as view,
        ):
            crc32(view)
            sock.sendall(view)


Work = Callable[[socket.socket, Part], None]

RECEIVING: dict[str, Work] = {
    "mapping": mapped,
    "buffer of 1 MiB, pwrite": partial(written, size=CHUNK),
    "buffer of 256 KiB, pwrite": partial(written, size=CHUNK // 4),
    "splice, not checked": partial(spliced, check=None),
    "splice, checked by reading": partial(spliced, check=by_reading),
    "splice, checked by mapping": partial(spliced, check=by_mapping),
}

SERVING: dict[str, Work] = {
    "sendfile, not checked": partial(sent_by_sendfile, check=None),
    "sendfile, checked by mapping": partial(sent_by_sendfile, check=by_mapping),
    "sendfile, checked by populated mapping": partial(sent_by_sendfile, check=by_populated_mapping),
    "sendfile, checked by reading": partial(sent_by_sendfile, check=by_reading),
    "buffer of a piece": sent_from_buffer,
    "buffer of 256 KiB, read twice": sent_from_small_buffer,
    "mapping": partial(sent_from_mapping, populate=False),
    "populated mapping": partial(sent_from_mapping, populate=True),
}


# -- the other side -----------------------------------------------------------------------------


def other_side(size: int, connections: int, pipe: Connection, *, sends: bool) -> None:
    """Send, or receive and forget, *size* bytes on each connection as often as asked."""
    memory = mmap.mmap(-1, size if sends else CHUNK * connections)
    memory.write(os.urandom(CHUNK) * (len(memory) // CHUNK))
    view = memoryview(memory)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        socks = [listener.accept()[0] for _ in range(connections)]

    def forget(number: int, sock: socket.socket) -> None:
        with view[number * CHUNK : (number + 1) * CHUNK] as buffer:
            left = size
            while left:
                left -= sock.recv_into(buffer, min(left, CHUNK), socket.MSG_WAITALL)

    while pipe.recv():
        if sends:
            in_threads([partial(sock.sendall, view) for sock in socks])
        else:
            in_threads([partial(forget, n, sock) for n, sock in enumerate(socks)])
        pipe.send("done")


class Bench:
    """One side, its connections to the other, and a directory for files."""

    def __init__(self, directory: Path, size: int, connections: int, *, sends: bool) -> None:
        self._path = directory / "file"
        self._size = size
        self._part = size // connections
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(
            target=other_side,
            args=(self._part, connections, theirs),
            kwargs={"sends": sends},
            daemon=True,
        )
        self._process.start()
        port = self._pipe.recv()
        self._socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]

    @contextmanager
    def new_file(self, *, allocate: bool) -> Iterator[int]:
        """A file of the right length that is gone afterwards."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, self._size)
            if allocate:
                os.posix_fallocate(fd, 0, self._size)
            yield fd
        finally:
            os.close(fd)
            self._path.unlink()

    def run(self, work: Work, fd: int) -> Cost:
        """One round."""
        parts = [Part(fd, n * self._part, self._part) for n in range(len(self._socks))]
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        self._pipe.send("again")
        in_threads(
            [partial(work, sock, part) for sock, part in zip(self._socks, parts, strict=True)]
        )
        self._pipe.recv()
        took = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        return Cost(self._size / took, user, system)

    def close(self) -> None:
        """End it."""
        self._pipe.send("")
        for sock in self._socks:
            sock.close()
        self._process.join()


Costs = dict[str, list[Cost]]


def receive(directory: Path, size: int, rounds: int, connections: int) -> Costs:
    """Costs by way."""
    costs: Costs = defaultdict(list)
    bench = Bench(directory, size, connections, sends=True)
    ways = [(name, allocate) for name in RECEIVING for allocate in (False, True)]
    for _ in range(rounds):
        for name, allocate in random.sample(ways, len(ways)):
            with bench.new_file(allocate=allocate) as fd:
                label = f"{name}, {'preallocated' if allocate else 'sparse'}"
                costs[label].append(bench.run(RECEIVING[name], fd))
    bench.close()
    return costs


def serve(directory: Path, size: int, rounds: int, connections: int) -> Costs:
    """Costs by way."""
    costs: Costs = defaultdict(list)
    bench = Bench(directory, size, connections, sends=False)
    block = os.urandom(CHUNK)
    with bench.new_file(allocate=True) as fd:
        for at in range(0, size, CHUNK):
            os.pwrite(fd, block, at)
        os.fsync(fd)
        for cold in (False, True):
            for _ in range(max(1, rounds // 3) if cold else rounds):
                for name in random.sample(list(SERVING), len(SERVING)):
                    if cold:
                        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    label = f"{name}{', cold' if cold else ''}"
                    costs[label].append(bench.run(SERVING[name], fd))
    bench.close()
    return costs


def show(title: str, costs: Costs) -> None:
    """Medians, in the order of the names."""
    print(f"{title:52}      rate   CPU seconds: user  system")
    for name in sorted(costs):
        rate, user, system = (
            statistics.median(values) for values in zip(*costs[name], strict=True)
        )
        print(f"  {name:50} {format_size(int(rate)):>7}/s              {user:5.2f}   {system:5.2f}")


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512MiB", type=parse_size)
    parser.add_argument("--rounds", default=9, type=int)
    parser.add_argument("--connections", default=4, type=int)
    parser.add_argument("--directory", default=Path(), type=Path, help="on a disk")
    options = parser.parse_args()
    step = options.connections * PIECE
    size = options.size // step * step
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="bench-") as name:
        arguments = Path(name), size, options.rounds, options.connections
        show("receiving", receive(*arguments))
        show("serving", serve(*arguments))


if __name__ == "__main__":
    main()
