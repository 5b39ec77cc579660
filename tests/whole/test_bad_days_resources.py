"""Programs keep what they were given, and the system gives few descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from pantala.client.connection import connect
from pantala.testing.cluster import PATIENCE, Cluster, Node, until
from pantala.testing.origin import Origin, Pattern

MIB = 1 << 20

#: Downloads each URL by a connection of its own, closes that, and keeps descriptor and mapping.
#: Says how many bytes of memory it keeps; ends with its input.
HOARDER = """
import json, mmap, os, sys, time
from pantala.client.connection import connect
kept = []
for url in sys.argv[2:]:
    deadline = time.monotonic() + 60
    with connect(sys.argv[1]) as connection:
        connection.send({"op": "download", "url": url}, deadline=deadline)
        while (event := connection.receive(deadline=deadline))["event"] not in ("done", "error"):
            if event["event"] == "segment" or event.get("segment"):
                fd = connection.take_descriptor()
                kept.append((fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ)))
            elif event["event"] == "content":
                connection.receive_content(event["inline"], deadline=deadline)
        assert event["event"] == "done", event
print(sum(os.fstat(fd).st_blocks * 512 for fd, _ in kept), flush=True)
sys.stdin.read()
"""


def test_a_program_that_keeps_everything(cluster: Cluster, origin: Origin) -> None:
    """What it keeps counts, it is not given more than its share, and others have the rest."""
    node = cluster.daemon("a", capacity="64MiB")
    urls = []
    for number in range(16):
        content = Pattern(8 * MIB, seed=number)
        origin.put(f"/{number}", content)
        urls.append(origin.url(f"/{number}"))
    with hoarder(node, urls) as kept:
        # Twelve per cent, and the content with which that was exceeded.
        assert kept <= (64 * MIB * 12 // 100) + 8 * MIB
        until(lambda: node.store()["pinned"] == kept, "it is counted")
        store = node.store()
        assert kept == store["leased"] <= store["used"] <= 64 * MIB
        origin.put("/large", Pattern(48 * MIB, seed=99))
        assert cluster.get(node, origin.url("/large")).code == 0
        assert node.store()["used"] <= 64 * MIB
    until(lambda: node.store()["leased"] == 0, "it is free again")
    origin.put("/whole", Pattern(64 * MIB, seed=98))
    got = cluster.get(node, origin.url("/whole"))
    assert got.bytes() == Pattern(64 * MIB, seed=98).read()


@contextmanager
def hoarder(node: Node, urls: list[str]) -> Iterator[int]:
    """A program that keeps all that it gets; how many bytes of memory that is."""
    command = [sys.executable, "-c", HOARDER, str(node.socket), *urls]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the hoarder failed"
        yield int(line)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def test_few_descriptors(cluster: Cluster, origin: Origin) -> None:
    """More tasks than descriptors, small and large: each is served, and old ones make room."""
    node = few_descriptors(cluster, 180)
    for number in range(110):
        size = 300 * 1024 if number % 2 else 5 * MIB
        origin.put(f"/{number}", Pattern(size, seed=number))
        got = cluster.get(
            node, origin.url(f"/{number}"), "--overwrite", output=cluster.directory / "o"
        )
        assert got.code == 0, got.stderr
        assert got.bytes() == Pattern(size, seed=number).read()
    assert not node.errors, node.errors


def test_everybody_has_a_turn(cluster: Cluster, origin: Origin) -> None:
    """120 programs at once, each of which keeps its content for a while; six fit."""
    node = cluster.daemon("a", capacity="64MiB")
    waited = []

    def read(number: int) -> bytes:
        origin.put(f"/{number}", Pattern(10 * MIB, seed=number))
        deadline = time.monotonic() + PATIENCE
        with connect(str(node.socket)) as connection:
            request = {"op": "download", "url": origin.url(f"/{number}"), "timeout": PATIENCE}
            connection.send(request, deadline=deadline)
            fd, content = -1, bytearray()
            while (event := connection.receive(deadline=deadline) or {})["event"] != "done":
                assert event["event"] != "error", event
                if event["event"] == "waiting":
                    waited.append(number)
                if event["event"] == "segment" or event.get("segment"):
                    fd = connection.take_descriptor()
                if event["event"] == "content":
                    content += connection.receive_content(event["inline"], deadline=deadline)
            if fd >= 0:
                content += os.pread(fd, 10 * MIB, 0)
                os.close(fd)
            time.sleep(0.1)  # that it keeps it for a while is the point
            return bytes(content)

    with ThreadPoolExecutor(120) as threads:
        for number, content in enumerate(threads.map(read, range(120))):
            assert content == Pattern(10 * MIB, seed=number).read()
    assert len(waited) > 100
    until(lambda: node.store()["leased"] == 0, "everybody is gone")
    assert not node.errors, node.errors


def few_descriptors(cluster: Cluster, count: int) -> Node:
    """A daemon that is given so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    cluster.forks = False
    node = cluster.daemon("few", capacity="4GiB", wait=False)
    cluster.forks = True
    # As the child has it before it looks: Python takes longer to start than this.
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (count, count))
    node.ready = node.wait_for("ready")
    assert resource.prlimit(node.pid, resource.RLIMIT_NOFILE) == (count, count)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    return node
