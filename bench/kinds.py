"""CacheTask against Task: bytes a second from one daemon to another, and bytes written to disks.

    python bench/kinds.py [--size 1GiB] [--rounds 5] [--directory .] [--json results.json]

Two daemons, a scheduler and an origin are real processes. The first daemon gets a file from the
origin, once as a cache task and once as a task; then the second gets each from the first, verified,
again and again, and forgets it. *Cold* means that before each turn the first daemon's files are
written out and their pages dropped (``POSIX_FADV_DONTNEED``, which their owner may do), so that it
reads its disk. What is written is what the kernel counts for both daemons (``write_bytes`` in
/proc/PID/io: pages that they have made dirty, whether they are on the disk already or not).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from pantala.model.task import Kind
from pantala.model.units import format_size, parse_size
from pantala.rpc.daemon_dialects import daemon_dialect
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

PATIENCE = 600.0

KINDS = (Kind.CACHE, Kind.STANDARD)


class Turn(NamedTuple):
    """What the second daemon's getting a file took.

    Attributes:
        rate: Bytes a second.
        written: Bytes that both daemons wrote for it.
    """

    rate: float
    written: int


def call(node: Node, kind: Kind, pattern: str, **fields: str) -> float:
    """Make a call to the end of its answer; the seconds that it took."""
    dialect = daemon_dialect(kind)
    request = dialect.message(f"{pattern}Request")()
    if "url" in fields and dialect.download is not None:
        getattr(request, dialect.download).url = fields.pop("url")
    request.MergeFrom(type(request)(**fields))
    with node.channel() as channel:
        method = getattr(node.download_stub(channel), dialect.name(pattern))
        started = time.perf_counter()
        answer = method(request, timeout=PATIENCE)
        if pattern.startswith("Download"):
            for _ in answer:
                pass
        return time.perf_counter() - started


def forget(node: Node) -> None:
    """Have *node* delete all it holds."""
    for task_id, task in node.tasks().items():
        call(node, Kind(task.type), "Delete{}Task", task_id=task_id)


def drop_pages(directory: Path) -> None:
    """Have the next reader of the files below *directory* read a disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(size: int, rounds: int, directory: Path) -> dict[tuple[Kind, bool], list[Turn]]:
    """Turns, by kind and whether the first daemon's files were cold."""
    turns: dict[tuple[Kind, bool], list[Turn]] = defaultdict(list)
    capacity = str(2 * size + (64 << 20))
    with Origin() as origin, Cluster(directory) as cluster:
        origin.put("/content", Pattern(size, 1))
        url = origin.url("/content")
        cluster.scheduler()
        first, second = (
            cluster.daemon(
                name, capacity=capacity, config={"storage": {"dir": str(directory / f"{name}.d")}}
            )
            for name in ("first", "second")
        )
        for kind in KINDS:
            call(first, kind, "Download{}Task", url=url)
        sent = origin.sent()
        ways = [(kind, cold) for kind in KINDS for cold in (False, True)]
        for _ in range(rounds):
            for kind, cold in random.sample(ways, len(ways)):
                forget(second)
                if cold:
                    drop_pages(directory / "first.d" / "content")
                before = first.written_to_disk() + second.written_to_disk()
                took = call(second, kind, "Download{}Task", url=url)
                written = first.written_to_disk() + second.written_to_disk() - before
                turns[kind, cold].append(Turn(size / took, written))
        if origin.sent() - sent >= size:  # a few bytes may tell whether it has changed
            raise SystemExit("the second daemon asked the origin: nothing was measured")
    return turns


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--directory", default=Path(), type=Path, help="on a disk")
    parser.add_argument("--json", type=Path, help="write the turns here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="pk-") as name:
        turns = measure(options.size, options.rounds, Path(name).resolve())
    for (kind, cold), found in sorted(turns.items()):
        rate = format_size(int(statistics.median(turn.rate for turn in found)))
        written = format_size(int(statistics.median(turn.written for turn in found)))
        pages = "cold" if cold else "warm"
        print(f"{kind.name:9} {pages}   {rate:>10}/s   {written:>10} written by the daemons")
    if options.json:
        named = {
            f"{kind.name} {'cold' if cold else 'warm'}": t for (kind, cold), t in turns.items()
        }
        options.json.write_text(json.dumps({"size": options.size, "turns": named}))


if __name__ == "__main__":
    main()
