"""Which HTTP client reads fastest into a mapping of ours?

Starts an origin as a process of its own and lets each client fetch the same content into the
same, warm, mapped memfd, round after round. What counts are the ratios between clients within
one run. Clients that are not installed are left out; see docs/adr/0001-origin-client.md.

    python bench/origin_clients.py [--mib 256] [--rounds 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib.util
import mmap
import os
import socket
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import urllib3

_POOL = urllib3.PoolManager(maxsize=16)
_STEP = 1 << 20


def bare_socket(url: str, view: memoryview) -> None:
    """The limit: no HTTP to speak of, the kernel fills the mapping."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        done = 0
        while done < len(view):
            done += connection.recv_into(view[done:], 0, socket.MSG_WAITALL)


def http_client(url: str, view: memoryview) -> None:
    """``http.client`` with ``readinto``."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", parts.path)
    _fill(connection.getresponse(), view)
    connection.close()


def urllib3_under(url: str, view: memoryview) -> None:
    """urllib3's pool and headers, ``readinto`` of the ``http.client`` response under it."""
    response = _POOL.request("GET", url, preload_content=False)
    _fill(response._original_response, view)  # type: ignore[attr-defined]  # noqa: SLF001  what is compared is what lies under it
    response.release_conn()


def urllib3_read(url: str, view: memoryview) -> None:
    """urllib3's ``read``, copied into the mapping."""
    response = _POOL.request("GET", url, preload_content=False)
    done = 0
    while data := response.read(_STEP):
        view[done : done + len(data)] = data
        done += len(data)
    response.release_conn()


def aiohttp_read(url: str, view: memoryview) -> None:
    """``read`` of aiohttp, copied into the mapping."""
    aiohttp = importlib.import_module("aiohttp")

    async def fetch() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            done = 0
            while data := await response.content.read(_STEP):
                view[done : done + len(data)] = data
                done += len(data)

    asyncio.run(fetch())


def httpx_read(url: str, view: memoryview) -> None:
    """``iter_raw`` of httpx, copied into the mapping."""
    httpx = importlib.import_module("httpx")

    done = 0
    with httpx.stream("GET", url) as response:
        for data in response.iter_raw(_STEP):
            view[done : done + len(data)] = data
            done += len(data)


def _fill(response: http.client.HTTPResponse, view: memoryview) -> None:
    done = 0
    while n := response.readinto(view[done : done + _STEP]):
        done += n


CLIENTS: dict[str, Callable[[str, memoryview], None]] = {
    "bare socket, MSG_WAITALL": bare_socket,
    "http.client readinto": http_client,
    "urllib3, readinto underneath": urllib3_under,
    "urllib3 read + copy": urllib3_read,
    "httpx iter_raw + copy": httpx_read,
    "aiohttp read + copy": aiohttp_read,
}


def _installed(name: str) -> bool:
    module = name.split(maxsplit=1)[0]
    return module not in {"httpx", "aiohttp"} or importlib.util.find_spec(module) is not None


def measure(url: str, size: int, rounds: int, threads: int) -> dict[str, tuple[float, float]]:
    """Median GB/s of wall clock, and of this process's CPU time, for each client."""
    total = size * threads
    fd = os.memfd_create("bench")
    os.ftruncate(fd, total)
    view = memoryview(mmap.mmap(fd, total))
    parts = [view[start : start + size] for start in range(0, total, size)]
    clients = {name: client for name, client in CLIENTS.items() if _installed(name)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(bare_socket, [url] * threads, parts))  # touches the pages
        want = zlib.crc32(view)
        for _ in range(rounds):
            for name, client in clients.items():
                wall, cpu = time.perf_counter(), time.process_time()
                list(pool.map(client, [url] * threads, parts))
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
                if zlib.crc32(view) != want:
                    raise SystemExit(f"{name} read wrong bytes")
    return {
        name: (
            total / statistics.median(wall for wall, _ in took) / 1e9,
            total / statistics.median(cpu for _, cpu in took) / 1e9,
        )
        for name, took in times.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="clients at once")
    options = parser.parse_args()
    size = options.mib << 20
    command = [sys.executable, "-m", "pantala.testing.origin", "--pattern", f"/x={size}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as origin:
        try:
            port = (origin.stdout.readline() if origin.stdout else "").strip()
            speeds = measure(f"http://127.0.0.1:{port}/x", size, options.rounds, options.threads)
        finally:
            origin.terminate()
    limit = next(iter(speeds.values()))
    print(f"{'client':30} {'GB/s':>6} {'of limit':>9} {'GB per CPU s':>13} {'of limit':>9}")
    for name, (wall, cpu) in speeds.items():
        print(f"{name:30} {wall:6.2f} {wall / limit[0]:9.0%} {cpu:13.2f} {cpu / limit[1]:9.0%}")


if __name__ == "__main__":
    main()
