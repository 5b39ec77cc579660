"""What one operation costs when there is more of something: pieces, tasks, children.

    python bench/growth.py [--pieces 16,256,4096] [--tasks 10,1000,100000] [--children 1,16,64]
                           [--rounds 3] [--json results.json] [--svg FILE]

- *pieces*: one piece of 4 MiB, by its range, of a file of so many that a daemon gets from its
  origin;
- *tasks*: a small object that is hot, over a kept hand-off connection, and one that is not here and
  comes from the origin, in a daemon that holds so many others;
- *children*: a piece of 4 MiB that a daemon sends, while so many receive from it at once.

Each is the CPU time of the daemon for one operation, as a multiple of that with the fewest. Daemons
are real processes, but for the one of the tasks: they are put into its store directly, as fetching
them would take minutes, so its figures include its clients. Sizes take turns in each round.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import logging
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from pantala.daemon.app import Daemon
from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import Piece
from pantala.model.task import Kind, TaskRecord, Traffic
from pantala.net.piece_client import Address, Connections, PieceFetch, TimeLimits
from pantala.ports import MemorySink, fill
from pantala.testing import inside
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.drawing import bars
from pantala.testing.kept_client import KeptClient
from pantala.testing.measure import middle, numbers, ratio, take_turns, write_json
from pantala.testing.origin import Origin
from pantala.testing.threads import in_threads
from pantala.wire.vortex import PieceRequest, Tag

PIECE = 4 << 20
LIMITS = TimeLimits(60.0, 60.0, 60.0)

#: Bytes of a small object, and what is counted for a task besides.
SMALL = 64
RECORD = 8192


class Run(NamedTuple):
    """One operation: CPU milliseconds of the daemon, and milliseconds until it was done."""

    cpu: float
    wall: float


def clocked(cpu: Callable[[], float], work: Callable[[], object], times: int) -> Run:
    """Of *times* operations in all that *work* does."""
    used, began = cpu(), time.perf_counter()
    work()
    wall = time.perf_counter() - began
    return Run(1e3 * (cpu() - used) / times, 1e3 * wall / times)


class Pieces:
    """A daemon that fetches pieces of large files, of which it has no others."""

    FILES, EACH = 4, 15

    def __init__(self, cluster: Cluster, origin: Origin) -> None:
        self._node = cluster.daemon("pieces", capacity=str(64 * PIECE))
        self._client = KeptClient(self._node.handoff)
        self._origin = origin
        self._names = itertools.count()

    def run(self, count: int) -> Run:
        """Of files of so many."""
        wanted = []
        for _ in range(self.FILES):
            name = f"/pieces{next(self._names)}"
            self._origin.put(name, Pattern(count * PIECE))
            first, *others = random.sample(range(count), self.EACH + 1)
            self._get(self._origin.url(name), first)  # what it is, is known from here on
            wanted += [(self._origin.url(name), number) for number in others]

        def work() -> None:
            for url, number in wanted:
                self._get(url, number)

        return clocked(self._node.cpu_seconds, work, len(wanted))

    def _get(self, url: str, number: int) -> None:
        start = number * PIECE
        self._client.ask(url=url, range=f"{start}-{start + PIECE - 1}", piece_length=PIECE)
        last = self._client.events()[-1]
        if last["event"] != "done":
            raise SystemExit(f"piece {number}: {last}")
        if self._client.fds:  # it was the last
            os.close(self._client.fds.pop())
            self._client.send({"id": self._client.asked, "op": "release"})
            self._client.events()


class Tasks:
    """A daemon in this process, which holds so many tasks."""

    HOT, COLD = 2000, 50

    def __init__(self, count: int, directory: Path, origin: Origin) -> None:
        self._count, self._origin = count, origin
        self._directory = directory
        self._names = itertools.count()

    async def run(self, rounds: int) -> dict[str, list[Run]]:
        """Of what is hot, and what is not."""
        capacity = str((64 << 20) + 8 * RECORD * self._count)
        name = f"t{self._count}"
        async with inside.daemon(self._directory, name, storage__cacheCapacity=capacity) as daemon:
            put(daemon, self._count)
            return await asyncio.to_thread(self._ask, daemon, rounds)

    def _ask(self, daemon: Daemon, rounds: int) -> dict[str, list[Run]]:
        with KeptClient(daemon.config.download.server.handoff_path) as client:
            hot = self._new()
            client.have([hot])
            found = take_turns(
                {
                    "hot object": lambda: clocked(
                        time.process_time,
                        lambda: [client.get(hot) for _ in range(self.HOT)],
                        self.HOT,
                    ),
                    "cold object": lambda: clocked(
                        time.process_time,
                        lambda: client.have([self._new() for _ in range(self.COLD)], 1),
                        self.COLD,
                    ),
                },
                rounds,
            )
            held = len(daemon.stores[Kind.CACHE])
        if held < self._count:
            raise SystemExit(f"it holds {held} tasks, not {self._count}")
        return found

    def _new(self) -> str:
        name = f"/task{next(self._names)}"
        self._origin.put(name, Pattern(SMALL))
        return self._origin.url(name)


def put(daemon: Daemon, count: int) -> None:
    """Have it hold so many tasks, as if it had fetched them."""
    store = daemon.stores[Kind.CACHE]
    content = bytes(SMALL)
    digest = piece_digest(crc32(content))
    for number in range(count):
        now, url = time.time(), f"http://origin/filling/{number}"
        task_id = hashlib.sha256(url.encode()).hexdigest()
        holding = store.open(
            TaskRecord(
                kind=Kind.CACHE,
                id=task_id,
                identity=task_id,
                url=url,
                created_at=now,
                updated_at=now,
                content_length=SMALL,
                piece_length=PIECE,
            )
        )
        holding.reserve([0])
        claim = holding.claim(0)
        fill(claim.sink, content)
        claim.publish(digest, parent_id=None, traffic=Traffic.BACK_TO_SOURCE)


class Children:
    """A daemon that sends pieces."""

    OPERATIONS = 128

    def __init__(self, cluster: Cluster, origin: Origin) -> None:
        origin.put("/children", Pattern(16 * PIECE))
        self._node: Node = cluster.daemon("parent", capacity=str(32 * PIECE))
        url = origin.url("/children")
        with KeptClient(self._node.handoff) as client:
            client.ask(url=url, piece_length=PIECE)
            self._task = client.events()[0]["task_id"]
        self._connections = Connections(per_parent=64)

    def run(self, count: int) -> Run:
        """While so many receive."""
        left = iter(range(self.OPERATIONS))

        def child() -> None:
            into = bytearray(PIECE)
            for number in left:
                self._fetch(number % 16, into)

        return clocked(self._node.cpu_seconds, lambda: in_threads([child] * count), self.OPERATIONS)

    def _fetch(self, number: int, into: bytearray) -> None:
        fetch = PieceFetch(
            self._connections,
            Address("127.0.0.1", self._node.ports["storage"]),
            PieceRequest(Tag.DOWNLOAD_CACHE_PIECE, self._task, number),
            Piece(number, number * PIECE, PIECE),
            MemorySink(memoryview(into)),
            limits=LIMITS,
        )
        fetch.run()


def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Runs by what is done and how much there is, one a round."""
    runs: dict[str, list[Run]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pd-")))
        origin = stack.enter_context(Origin())
        cluster = stack.enter_context(Cluster(directory))
        for name, make, counts in (
            ("pieces", Pieces, options.pieces),
            ("children", Children, options.children),
        ):
            bench: Pieces | Children = make(cluster, origin)
            ways = {f"{name}/{count}": partial(bench.run, count) for count in counts}
            bench.run(counts[0])
            runs |= take_turns(ways, options.rounds)
        for count in options.tasks:
            found = asyncio.run(Tasks(count, directory, origin).run(options.rounds))
            runs |= {f"tasks, {name}/{count}": each for name, each in found.items()}
    return runs


def draw(runs: dict[str, list[Run]]) -> str:
    """CPU time of one operation; medians."""
    groups: dict[str, dict[str, float]] = {}
    for name in sorted(runs, key=lambda name: int(name.split("/")[1])):
        what, count = name.split("/")
        groups.setdefault(what, {})[f"{int(count):,}"] = middle(runs[name]).cpu
    return bars("CPU time of one operation, when there is more", "ms", groups)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pieces", default=[16, 256, 4096], type=numbers)
    parser.add_argument("--tasks", default=[10, 1000, 100_000], type=numbers)
    parser.add_argument("--children", default=[1, 16, 64], type=numbers)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    parser.add_argument("--svg", type=Path, help="draw them here, too")
    options = parser.parse_args()
    if min(options.pieces) <= Pieces.EACH:
        parser.error(f"--pieces: at least {Pieces.EACH + 1}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    runs = measure(options)
    print(f"{'':20}{'how many':>9}{'CPU ms':>9}{'ms':>9}   CPU to the fewest")
    for name in sorted({name.split("/")[0] for name in runs}):
        rows = {int(row.split("/")[1]): runs[row] for row in runs if row.startswith(f"{name}/")}
        fewest = rows[min(rows)]
        for count, found in sorted(rows.items()):
            run = middle(found)
            times = ratio((r.cpu for r in found), (r.cpu for r in fewest))
            print(f"{name:20}{count:9}{run.cpu:9.3f}{run.wall:9.3f}   {times:.2f}")
    if options.json:
        write_json(options.json, runs, piece=PIECE, small=SMALL)
    if options.svg:
        options.svg.write_text(draw(runs))


if __name__ == "__main__":
    main()
