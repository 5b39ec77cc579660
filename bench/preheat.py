"""Preheating many files into the memory of many hosts, of which two are killed meanwhile.

    python bench/preheat.py [--files 64] [--hosts 16] [--size 1MiB] [--rate 16MiB] [--kill 2]

A scheduler, the daemons and an origin are real; ``dfctl cache-task preheat`` asks for all files on
all hosts. When hosts that are to be killed have some of the files, they are. Then what is told of
each file on each host is compared with what the daemons have; what does not agree ends the run
with 1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster, Node, until
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

PATIENCE = 600.0


def whole(node: Node) -> set[str]:
    """Ids of the tasks of which it has everything."""
    return {one for one, task in node.tasks().items() if task.HasField("finished_at")}


def has(node: Node, count: int) -> bool:
    """Whether it has all of so many files."""
    return len(whole(node)) >= count


def measure(options: argparse.Namespace, directory: Path) -> bool:
    """Run it and print what came out; whether all that was told is so."""
    with Origin(rate=options.rate) as origin, Cluster(directory, forks=True) as cluster:
        for number in range(options.files):
            origin.put(f"/{number}", Pattern(options.size, seed=number))
        scheduler = cluster.scheduler()
        names = [f"h{number}" for number in range(options.hosts)]
        capacity = f"{2 * options.files * options.size}"
        nodes = dict(zip(names, cluster.daemons(*names, capacity=capacity), strict=True))
        urls = [origin.url(f"/{number}") for number in range(options.files)]
        began = time.monotonic()
        begun = cluster.begin_preheat(*urls, "--scope", "all_peers")
        for turn in range(options.kill):
            victim = nodes.pop(names[turn])
            few = options.files * (turn + 1) // (options.kill + 2)
            until(partial(has, victim, few), "some files", PATIENCE)
            victim.kill()
        got = cluster.finish(*begun, patience=PATIENCE)
        took = time.monotonic() - began
        *rows, last = map(json.loads, got.stdout.splitlines())
        failed = [row for row in rows if row["state"] == "failed"]
        wrong = {row["hostname"].partition(".")[0] for row in failed} & nodes.keys()
        for name, node in nodes.items():
            told = {
                row["task_id"]
                for row in rows
                if row["state"] == "done" and row["hostname"].partition(".")[0] == name
            }
            if told != whole(node):
                wrong.add(name)
        print(f"pairs      {len(rows)}: {last['done']} done, {last['failed']} failed")
        print(f"told wrong {', '.join(sorted(wrong)) or 'none'}")
        print(f"took       {took:.1f} s")
        print(f"origin     sent {format_size(origin.sent())}")
        print(f"scheduler  {scheduler.cpu_seconds():.1f} s of CPU")
        return not wrong and len(rows) == options.files * options.hosts


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", default=64, type=int)
    parser.add_argument("--hosts", default=16, type=int)
    parser.add_argument("--size", default="1MiB", type=parse_size)
    parser.add_argument("--rate", default="16MiB", type=parse_size, help="of the origin, a second")
    parser.add_argument("--kill", default=2, type=int, help="so many hosts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pp-") as directory:
        good = measure(options, Path(directory))
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
