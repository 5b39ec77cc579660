"""How long until a replica that is lost has been made up for.

    python bench/replicas.py [--size 512MiB] [--grace 5s] [--directory .]

A scheduler and three daemons are real processes. One daemon imports a file of which two hosts shall
keep a replica; when they do, one of the two is killed for good. A lost host counts as such when it
has been silent for the scheduler's ``replicaGrace``; what comes after that is what pantala takes to
notice, to choose a host, and to copy.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pantala.model.units import format_size, parse_duration, parse_size
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern

PATIENCE = 600.0


def until(done: Callable[[], bool]) -> float:
    """Wait until it is so; the seconds that it took."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"not within {PATIENCE:g} s")
        time.sleep(0.02)  # what is waited for happens in other processes
    return time.monotonic() - began


def has(node: Node, task_id: str) -> bool:
    """Whether a daemon holds all of a task."""
    task = node.tasks().get(task_id)
    return task is not None and task.HasField("finished_at")


def measure(size: int, grace: float, directory: Path) -> None:
    """Run it and print what came out."""
    settings = {
        "scheduler": {"gc": {"replicaGrace": f"{grace:g}s", "hostGCInterval": "1s"}},
        "database": {"sqlite": {"path": str(directory / "rows.db")}},
    }
    path = directory / "scheduler.yaml"
    path.write_text(json.dumps(settings))
    content, file = Pattern(size, 1), directory / "file"
    file.write_bytes(content.read())
    with Cluster(directory) as cluster:
        cluster.scheduler("--config", str(path))
        config = {
            "download": {"server": {"allowImportPath": True}},
            "scheduler": {"announceInterval": "1s"},
        }
        nodes = cluster.daemons("a", "b", "c", config=config)
        began = time.monotonic()
        got = cluster.command(
            *("dfcache", nodes[0], "import", str(file)), "--persistent-replica-count", "2"
        )
        if got.code:
            raise SystemExit(got.stderr)
        task_id = got.result["id"]
        print(f"imported   {format_size(size)} in {time.monotonic() - began:.2f} s")
        took = until(lambda: any(has(node, task_id) for node in nodes[1:]))
        print(f"replicated {took:.2f} s after that")
        nodes[0].kill()
        (left,) = (node for node in nodes[1:] if not has(node, task_id))
        took = until(lambda: has(left, task_id))
        print(f"restored   {took:.2f} s after its host was killed, {grace:g} s of it the grace")
        output = directory / "output"
        got = cluster.command("dfcache", left, "export", task_id, "-O", str(output))
        same = got.code == 0 and output.read_bytes() == file.read_bytes()
        print(f"identical  {'yes' if same else 'no'}")
        if not same:
            raise SystemExit(got.stderr)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512MiB", type=parse_size)
    parser.add_argument("--grace", default="5s", type=parse_duration)
    parser.add_argument("--directory", default=Path(), type=Path, help="on a disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="pr-") as name:
        measure(options.size, options.grace, Path(name).resolve())


if __name__ == "__main__":
    main()
