"""What it costs to receive bytes into memory, way by way.

    python bench/receive.py [--size 1GiB] [--rounds 9] [--connections 4]

One process sends over plain sockets; this one receives as many bytes into a memfd, in one way
after the other, in another order each round. docs/adr/0005 draws its conclusions from this. To see
what huge pages change, as root, before and after:

    echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled
    echo never  > /sys/kernel/mm/transparent_hugepage/shmem_enabled
"""

from __future__ import annotations

import argparse
import fcntl
import mmap
import multiprocessing
import os
import random
import socket
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

from pantala.model.units import format_size, parse_size
from pantala.testing.threads import in_threads

CHUNK = 1 << 20
STEP = 4 << 20
_POPULATE_WRITE = 23  # Linux's MADV_POPULATE_WRITE; Python does not name it


class Place(NamedTuple):
    """Where one connection's bytes go: a part of a mapped memfd."""

    fd: int
    memory: mmap.mmap
    start: int
    length: int


def in_place(sock: socket.socket, place: Place) -> None:
    """As a daemon does."""
    _, memory, start, length = place
    with memoryview(memory) as whole:
        at = 0
        while at < length:
            with whole[start + at : start + min(at + CHUNK, length)] as part:
                at += sock.recv_into(part, 0, socket.MSG_WAITALL)


def populated(sock: socket.socket, place: Place) -> None:
    """Pages are made and mapped, a step at a time, before they are received into."""
    for at in range(0, place.length, STEP):
        part = place._replace(start=place.start + at, length=min(STEP, place.length - at))
        place.memory.madvise(_POPULATE_WRITE, part.start, part.length)
        in_place(sock, part)


def allocated(sock: socket.socket, place: Place) -> None:
    """Pages are made, not mapped, a step at a time, before they are received into."""
    for at in range(0, place.length, STEP):
        part = place._replace(start=place.start + at, length=min(STEP, place.length - at))
        os.posix_fallocate(place.fd, part.start, part.length)
        in_place(sock, part)


def bounced(sock: socket.socket, place: Place) -> None:
    """Into a small buffer that stays warm, and from there by ``pwrite``."""
    buffer = memoryview(bytearray(CHUNK))
    at = 0
    while at < place.length:
        count = sock.recv_into(buffer[: place.length - at], 0, socket.MSG_WAITALL)
        os.pwrite(place.fd, buffer[:count], place.start + at)
        at += count


def spliced(sock: socket.socket, place: Place) -> None:
    """Through a pipe, by the kernel alone."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, CHUNK)
    at = 0
    while at < place.length:
        end = at + os.splice(sock.fileno(), into, min(CHUNK, place.length - at))
        while at < end:
            at += os.splice(out, place.fd, end - at, offset_dst=place.start + at)
    os.close(out)
    os.close(into)


#: Name: how, and whether into memory that was filled before.
WAYS: dict[str, tuple[Callable[[socket.socket, Place], None], bool]] = {
    "warm memory, in place": (in_place, True),
    "fresh memory, in place": (in_place, False),
    "fresh, populated first": (populated, False),
    "fresh, allocated first": (allocated, False),
    "fresh, through a buffer and pwrite": (bounced, False),
    "fresh, through a pipe": (spliced, False),
}


def serve(size: int, connections: int, pipe: Connection) -> None:
    """Send *size* bytes over each of so many connections, as often as asked."""
    memory = mmap.mmap(-1, size)
    memory.write(os.urandom(CHUNK) * (size // CHUNK))
    view = memoryview(memory)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        socks = [listener.accept()[0] for _ in range(connections)]
    while pipe.recv():
        in_threads([partial(sock.sendall, view) for sock in socks])


def make(size: int) -> tuple[int, mmap.mmap]:
    """A memfd as long as that, mapped; nothing in it was ever touched."""
    fd = os.memfd_create("bench")
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return fd, memory


def measure(size: int, rounds: int, connections: int) -> dict[str, list[float]]:
    """Bytes a second by way, one a round."""
    part = size // connections
    pipe, theirs = multiprocessing.Pipe()
    sender = multiprocessing.Process(target=serve, args=(part, connections, theirs), daemon=True)
    sender.start()
    port = pipe.recv()
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    warm = make(size)
    warm[1].write(bytes(size))
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in random.sample(sorted(WAYS), len(WAYS)):
            receive, is_warm = WAYS[name]
            fd, memory = warm if is_warm else make(size)
            places = [Place(fd, memory, n * part, part) for n in range(connections)]
            started = time.perf_counter()
            pipe.send("again")
            in_threads(
                [partial(receive, sock, place) for sock, place in zip(socks, places, strict=True)]
            )
            rates[name].append(size / (time.perf_counter() - started))
            if not is_warm:
                memory.close()
                os.close(fd)
    pipe.send("")
    for sock in socks:
        sock.close()
    sender.join()
    return rates


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--rounds", default=9, type=int)
    parser.add_argument("--connections", default=4, type=int)
    options = parser.parse_args()
    size = options.size // (options.connections * STEP) * options.connections * STEP
    rates = measure(size, options.rounds, options.connections)
    limit = statistics.median(rates["warm memory, in place"])
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:36} {format_size(middle):>8}/s   {middle / limit:.2f}")


if __name__ == "__main__":
    main()
