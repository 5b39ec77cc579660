"""What a daemon takes besides the content that it holds: memory, descriptors, threads.

    python bench/memory.py [--count 10000] [--size 16KiB] [--capacity 64MiB] [--seconds 10]
                           [--json results.json]

A scheduler and a daemon are real processes. The daemon's resident memory, less what its store says
that it holds, is looked at when it has just started; while programs ask for what is hot, and for a
large file that is not, at the same time; and after so many downloads of small objects, again and
again, of which its store keeps the latest. Of the time under load it is the most that was seen. It
should be flat: what the last row has more than the one before is a leak.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.kept_client import KeptClient
from pantala.testing.measure import write_json
from pantala.testing.origin import Origin
from pantala.testing.threads import in_threads

#: Programs that ask for what is hot.
CALLERS = 8


class Look(NamedTuple):
    """At one moment.

    Attributes:
        beyond: Bytes of memory besides content.
        held: Bytes of content.
        tasks: How many.
        cpu: Seconds used since the look before.
    """

    beyond: int
    held: int
    tasks: int
    descriptors: int
    threads: int
    cpu: float


class Bench:
    """A daemon that is looked at."""

    def __init__(self, node: Node, origin: Origin, size: int) -> None:
        self._node, self._origin, self._size = node, origin, size
        self._path = node.handoff
        self._names = itertools.count()
        self._cpu = 0.0

    def look(self) -> Look:
        """Now."""
        store, resident = self._node.store(), self._node.resident()
        cpu = self._node.cpu_seconds()
        since, self._cpu = cpu - self._cpu, cpu
        return Look(
            resident - store["used"],
            store["used"],
            store["tasks"],
            self._node.descriptors(),
            self._node.threads(),
            since,
        )

    def _put(self, size: int) -> str:
        number = next(self._names)
        self._origin.put(f"/{number}", Pattern(size, number))
        return self._origin.url(f"/{number}")

    def downloads(self, count: int) -> None:
        """So many small objects that it has not got."""
        with KeptClient(self._path) as client:
            client.have(self._put(self._size) for _ in range(count))

    def load(self, seconds: float, large: int) -> Look:
        """The most of each that was seen."""
        hot = [self._put(self._size) for _ in range(100)]
        with KeptClient(self._path) as client:
            client.have(hot)
        over = threading.Event()

        def ask() -> None:
            with KeptClient(self._path) as client:
                while not over.is_set():
                    client.have(hot)

        def fetch() -> None:
            while not over.is_set():
                with KeptClient(self._path) as client:
                    client.ask(url=self._put(large))
                    client.events()

        seen: list[Look] = []

        def watch() -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                seen.append(self.look())
                time.sleep(0.1)  # looks cost the daemon something, too
            over.set()

        works: list[Callable[[], None]] = [watch, fetch, *[ask] * CALLERS]
        in_threads(works)
        most = Look(*map(max, zip(*seen, strict=True)))
        return most._replace(cpu=sum(each.cpu for each in seen))


def measure(options: argparse.Namespace) -> dict[str, list[Look]]:
    """Looks, in their order."""
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as directory,
        Origin() as origin,
        Cluster(Path(directory)) as cluster,
    ):
        cluster.scheduler()
        node = cluster.daemon("memory", capacity=str(options.capacity))
        bench = Bench(node, origin, options.size)
        steps: dict[str, Callable[[], Look | None]] = {"idle": lambda: None}
        steps["under load, at most"] = partial(bench.load, options.seconds, options.capacity // 2)
        for times in range(1, 4):
            steps[f"after {times * options.count} downloads"] = partial(
                bench.downloads, options.count
            )
        looks = {}
        for name, step in steps.items():
            found = step()
            looks[name] = [bench.look() if found is None else found]
        return looks


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", default=10_000, type=int)
    parser.add_argument("--size", default="16KiB", type=parse_size)
    parser.add_argument("--capacity", default="64MiB", type=parse_size)
    parser.add_argument("--seconds", default=10.0, type=float, help="of load")
    parser.add_argument("--json", type=Path, help="write the looks here, too")
    options = parser.parse_args()
    looks = measure(options)
    print(
        f"{'':26}{'besides content':>16}{'content':>12}{'tasks':>8}{'descriptors':>13}"
        f"{'threads':>9}{'CPU s':>8}"
    )
    for name, (look,) in looks.items():
        print(
            f"{name:26}{format_size(look.beyond):>16}{format_size(look.held):>12}{look.tasks:8}"
            f"{look.descriptors:13}{look.threads:9}{look.cpu:8.1f}"
        )
    if options.json:
        write_json(options.json, looks, size=options.size, capacity=options.capacity)


if __name__ == "__main__":
    main()
