"""Hosts that want at once what nobody has, of an origin with a limit: how close to one reader.

    python bench/cold.py [--size 128MiB] [--rate 64MiB] [--hosts 1,4,8] [--rounds 3]
                         [--json results.json] [--svg FILE]

A scheduler and daemons are real processes; the origin sends so many bytes a second at most, to all
of its callers together. At the same moment a program asks each daemon for a file that none of them
has, over the hand-off socket. What is counted is when the last has all of it, as a multiple of
size / rate, the best that can be; and what the origin sent, as a multiple of the file. Beside it as
many curls fetch the file from the origin, where curl is installed.

All take turns in each round; what is printed are medians, and the median of ratios to the curls.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.drawing import bars
from pantala.testing.kept_client import KeptClient
from pantala.testing.measure import (
    cpu_of_children,
    middle,
    numbers,
    ratio,
    run_all,
    take_turns,
    write_json,
)
from pantala.testing.origin import Origin
from pantala.testing.threads import in_threads


class Run(NamedTuple):
    """One start of several hosts.

    Attributes:
        slowest: Until the last had all of it, as a multiple of size / rate.
        origin: What the origin sent, as a multiple of the file.
        cpu: CPU seconds of all daemons; of all curls.
    """

    slowest: float
    origin: float
    cpu: float


class Bench:
    """An origin, and daemons of which each run uses some."""

    def __init__(self, origin: Origin, nodes: list[Node], size: int, rate: int) -> None:
        self._origin, self._nodes, self._size, self._rate = origin, nodes, size, rate
        self._count = 0

    def _fresh(self) -> str:
        """A URL that nobody has asked for yet."""
        self._count += 1
        self._origin.put(f"/{self._count}", Pattern(self._size, self._count))
        return self._origin.url(f"/{self._count}")

    def _run(self, seconds: float, sent: int, cpu: float) -> Run:
        return Run(seconds * self._rate / self._size, sent / self._size, cpu)

    def daemons(self, hosts: int) -> Run:
        """So many of them."""
        nodes, url, sent = self._nodes[:hosts], self._fresh(), self._origin.sent()
        cpu, took = sum(node.cpu_seconds() for node in self._nodes), list[float]()
        began = time.perf_counter()

        def get(node: Node) -> None:
            with KeptClient(node.handoff) as client:
                client.ask(url=url)
                last = client.events()[-1]
            if last["event"] != "done":
                raise SystemExit(f"{node.name}: {last}")
            took.append(time.perf_counter() - began)

        in_threads([partial(get, node) for node in nodes])
        cpu = sum(node.cpu_seconds() for node in self._nodes) - cpu
        return self._run(max(took), self._origin.sent() - sent, cpu)

    def curls(self, hosts: int) -> Run:
        """So many of them."""
        url, sent, cpu = self._fresh(), self._origin.sent(), cpu_of_children()
        words = ["curl", "-sf", url, "-o", "/dev/null"]
        took = run_all(lambda _: subprocess.Popen(words), hosts)
        return self._run(took[-1], self._origin.sent() - sent, cpu_of_children() - cpu)


def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Runs by hosts and candidate, one a round."""
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as directory,
        Origin(rate=options.rate) as origin,
        Cluster(Path(directory)) as cluster,
    ):
        cluster.scheduler()
        names = [f"host{n}" for n in range(max(options.hosts))]
        nodes = cluster.daemons(*names, capacity=str(2 * options.size + (64 << 20)))
        bench = Bench(origin, nodes, options.size, options.rate)
        ways: dict[str, Callable[[], Run]] = {}
        for hosts in options.hosts:
            ways[f"{hosts}/daemons"] = partial(bench.daemons, hosts)
            if shutil.which("curl"):
                ways[f"{hosts}/curls"] = partial(bench.curls, hosts)
        return take_turns(ways, options.rounds)


def draw(runs: dict[str, list[Run]]) -> str:
    """Seconds of the slowest as multiples of the best that can be; medians."""
    groups: dict[str, dict[str, float]] = {}
    for name, found in runs.items():
        hosts, who = name.split("/")
        groups.setdefault(f"{hosts} at once", {})[who] = middle(found).slowest
    title = "Nobody has it: the slowest host, as a multiple of size / rate of the origin"
    return bars(title, "×", groups, others={"curls"})


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="128MiB", type=parse_size)
    parser.add_argument("--rate", default="64MiB", type=parse_size, help="of the origin, a second")
    parser.add_argument("--hosts", default=[1, 4, 8], type=numbers)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    parser.add_argument("--svg", type=Path, help="draw them here, too")
    options = parser.parse_args()
    runs = measure(options)
    best = options.size / options.rate
    print(f"{format_size(options.size)} at {format_size(options.rate)}/s: {best:.2f} s at best")
    print(f"{'hosts':>5}  {'':8}{'slowest':>9}{'origin':>8}{'CPU s':>8}   time to curls")
    for name, found in runs.items():
        hosts, who = name.split("/")
        run = middle(found)
        line = f"{hosts:>5}  {who:8}{run.slowest:8.2f}×{run.origin:7.2f}×{run.cpu:8.2f}"
        if curls := runs.get(f"{hosts}/curls"):
            line += f"   {ratio((r.slowest for r in found), (r.slowest for r in curls)):.2f}"
        print(line)
    if options.json:
        write_json(options.json, runs, size=options.size, rate=options.rate)
    if options.svg:
        options.svg.write_text(draw(runs))


if __name__ == "__main__":
    main()
