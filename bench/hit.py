"""A large file that is here already: how soon a program has it, and how fast it reads it.

    python bench/hit.py [--size 1GiB] [--times 200] [--rounds 5] [--json results.json]

A daemon holds the file in memory. A program asks for it over the hand-off socket, over a connection
that it keeps or over a new one, maps the descriptor and lets go of it again, *times* over in each
round. Then it reads all of the mapping into a small buffer, by ``write`` into which the kernel
copies (a pipe to nobody would not copy). Beside it the same bytes are read by ``readv`` from a file
on the disk whose pages are cached, into a buffer of the same size.

All take turns in each round. Printed are medians, and medians of ratios to reading the file.
"""

from __future__ import annotations

import argparse
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.kept_client import KeptClient
from pantala.testing.measure import middle, percentile, ratio, take_turns, write_json
from pantala.testing.origin import Origin

CHUNK = 1 << 20
_POPULATE_READ = 22  # Linux's MADV_POPULATE_READ; Python does not name it


class Run(NamedTuple):
    """Of one hand-off, or reading: milliseconds, and CPU milliseconds of either side.

    Attributes:
        p50, p99: Of those of a round; the same where there is only one.
    """

    p50: float
    p99: float
    daemon: float
    client: float


class Bench:
    """A daemon with the file, and the file."""

    def __init__(self, node: Node, url: str, file: Path, times: int) -> None:
        self._node, self._url, self._file, self._times = node, url, file, times
        self._path = node.handoff
        self._kept = KeptClient(self._path)
        self._buffer = bytearray(CHUNK)
        self.size = file.stat().st_size

    def _clocked(self, work: Callable[[], None], times: int) -> Run:
        each, clock = [], time.perf_counter
        used, own = self._node.cpu_seconds(), time.process_time()
        for _ in range(times):
            began = clock()
            work()
            each.append(1e3 * (clock() - began))
        own = 1e3 * (time.process_time() - own) / times
        used = 1e3 * (self._node.cpu_seconds() - used) / times
        return Run(percentile(each, 0.5), percentile(each, 0.99), used, own)

    def kept(self) -> Run:
        """Hand-offs over a connection that is there."""
        return self._clocked(lambda: self._map(self._kept).close(), self._times)

    def new(self) -> Run:
        """Hand-offs over a connection each."""

        def work() -> None:
            with KeptClient(self._path) as client:
                self._map(client).close()

        return self._clocked(work, self._times)

    def _map(self, client: KeptClient) -> mmap.mmap:
        """The file, mapped; the daemon is told that it is needed no longer, for the sake of it."""
        number = client.ask(url=self._url)
        last = client.events()[-1]
        if last["event"] not in {"done", "whole"} or not client.fds:
            raise SystemExit(f"not handed off: {last}")
        fd = client.fds.pop()
        mapping = mmap.mmap(fd, self.size, prot=mmap.PROT_READ)
        os.close(fd)
        client.send({"id": number, "op": "release"})
        client.events()
        return mapping

    def read_all(self) -> Run:
        """One hand-off, and all of it copied out of the mapping."""

        def work() -> None:
            with self._map(self._kept) as mapping, memoryview(mapping) as view:
                for at in range(0, self.size, CHUNK):
                    step = min(CHUNK, self.size - at)
                    mapping.madvise(_POPULATE_READ, at, step)
                    self._buffer[:step] = view[at : at + step]

        return self._clocked(work, 1)

    def cached(self) -> Run:
        """All of the file, from the page cache."""

        def work() -> None:
            fd = os.open(self._file, os.O_RDONLY)
            while os.readv(fd, [self._buffer]):
                pass
            os.close(fd)

        return self._clocked(work, 1)


def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Runs by what is done, one a round."""
    content = Pattern(options.size)
    with tempfile.TemporaryDirectory(prefix="pd-") as directory, Origin() as origin:
        origin.put("/file", content)
        file = Path(directory) / "file"
        with file.open("wb") as out:
            for chunk in content.chunks(0, options.size):
                out.write(chunk)
        with Cluster(Path(directory)) as cluster:
            node = cluster.daemon("hit", capacity=str(options.size + (64 << 20)))
            bench = Bench(node, origin.url("/file"), file, options.times)
            ways = {
                "descriptor and mapping, connected": bench.kept,
                "descriptor and mapping, new connection": bench.new,
                "and all of it read": bench.read_all,
                "page cache, all of it read": bench.cached,
            }
            for way in ways.values():
                way()
            return take_turns({name: partial(way) for name, way in ways.items()}, options.rounds)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--times", default=200, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    options = parser.parse_args()
    runs = measure(options)
    print(f"{format_size(options.size)}, milliseconds")
    print(f"{'':40}{'p50':>9}{'p99':>9}{'CPU: daemon':>13}{'client':>9}   to the page cache")
    cached = [run.p50 for run in runs["page cache, all of it read"]]
    for name, found in runs.items():
        run = middle(found)
        times = ratio((each.p50 for each in found), cached)
        shown = f"1/{1 / times:.0f}" if times < 0.5 else f"{times:.2f}"  # a fraction says more
        line = f"{name:40}{run.p50:9.3f}{run.p99:9.3f}{run.daemon:13.3f}{run.client:9.3f}"
        print(f"{line}   {shown}")
    if options.json:
        write_json(options.json, runs, size=options.size)


if __name__ == "__main__":
    main()
