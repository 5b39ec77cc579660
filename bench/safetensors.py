"""A safetensors file that is here already, opened by several processes of one machine.

    python bench/safetensors.py [--size 1GiB] [--processes 8] [--rounds 3] [--json results.json]

A daemon holds the file in memory. In each round as many processes at once ask for all of its
tensors, as numpy arrays, and then read a number of each page. Printed are the medians over all of
them: how long until a process has the arrays, with a client that has not asked before, and until it
has read them; and of each round the largest: what all of them have of the file in memory, each page
counted once (the sum of their Pss, and of the daemon's), and what they have read from disks.

Beside it as many read the same file from a disk, all of it cached, with the library safetensors.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pantala
from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster
from pantala.testing.measure import middle, shared_memory, take_turns, write_json
from pantala.testing.origin import Origin
from pantala.testing.tensors import Model

_TENSOR = 16 << 20

#: It says when it is ready, begins when it is told to, and then says how long it took.
_PROGRAM = """
import sys, time
import numpy as np
way, what, endpoint = sys.argv[1:]
if way == "pantala":
    import pantala
    load = pantala.safetensors.load
    client = pantala.Client(endpoint)
    work = lambda: load(what, client=client)
else:
    from safetensors.numpy import load_file
    work = lambda: load_file(what)
print("ready", flush=True)
sys.stdin.readline()
begun = time.perf_counter()
found = work()
has = time.perf_counter() - begun
for tensor in found.values():
    int(tensor.view(np.uint8)[::4096].sum())
print(has, time.perf_counter() - begun, flush=True)
sys.stdin.readline()
"""


class Run(NamedTuple):
    """Of one round.

    Attributes:
        has: Milliseconds until a process has its arrays, the median.
        slowest: Of the last process.
        read: Milliseconds until it has read a number of each page, the median.
        shared: Bytes of the file in memory that is shared, over its size.
        private: Bytes in memory that is a process's own, the largest, over the file's size.
        disk: Bytes that all have read from disks.
    """

    has: float
    slowest: float
    read: float
    shared: float
    private: float
    disk: float


def read_from_disk(pid: int) -> int:
    """Bytes that a process had fetched from storage."""
    text = Path(f"/proc/{pid}/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())["read_bytes"])


def told(process: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert process.stdout is not None  # noqa: S101  it was started so
    return process.stdout.readline()


def go_on(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Let all of them take the next step."""
    for process in processes:
        assert process.stdin is not None  # noqa: S101  it was started so
        process.stdin.write("\n")
        process.stdin.flush()


def run(words: Sequence[str], count: int, size: int, daemon: int) -> Run:
    """A round of *count* processes."""
    command = [sys.executable, "-c", _PROGRAM, *words]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)
    ]
    for process in processes:
        if told(process) != "ready\n":
            raise SystemExit(f"{words} did not begin")
    before = [read_from_disk(process.pid) for process in processes]
    go_on(processes)
    times = [[1e3 * float(word) for word in told(process).split()] for process in processes]
    memory = [shared_memory(process.pid) for process in processes]
    disk = sum(read_from_disk(process.pid) for process in processes) - sum(before)
    shared = sum(each.pss for each in [*memory, shared_memory(daemon)])
    go_on(processes)
    for process in processes:
        process.communicate(timeout=60)
    has, read = ([each[at] for each in times] for at in (0, 1))
    return Run(
        statistics.median(has),
        max(has),
        statistics.median(read),
        shared / size,
        max(each.private for each in memory) / size,
        disk,
    )


def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Runs by how the file is read, one a round."""
    count = max(1, options.size // _TENSOR)
    model = Model(tuple((f"layers.{n}", options.size // count // 4 * 4) for n in range(count)))
    with tempfile.TemporaryDirectory(prefix="pd-") as directory, Origin() as origin:
        file = Path(directory) / "model.safetensors"
        with file.open("wb") as out:
            for chunk in model.chunks(0, model.size):
                out.write(chunk)
        origin.put("/model", model)
        with Cluster(Path(directory)) as cluster:
            node = cluster.daemon("hot", capacity=str(model.size + (64 << 20)))
            url = origin.url("/model")
            with pantala.Client(str(node.socket)) as client:
                client.prefetch(url)
            ways: dict[str, Callable[[], Run]] = {
                name: partial(run, words, options.processes, model.size, node.pid)
                for name, words in {
                    "pantala.safetensors.load": ("pantala", url, str(node.socket)),
                    "safetensors.numpy.load_file": ("library", str(file), ""),
                }.items()
                if options.library or "pantala" in name
            }
            return take_turns(ways, options.rounds)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--processes", default=8, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument(
        "--no-library", dest="library", action="store_false", help="it needs memory for all copies"
    )
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    options = parser.parse_args()
    runs = measure(options)
    print(f"{format_size(options.size)}, {options.processes} processes at once, milliseconds")
    print(f"{'':30}{'has':>9}{'slowest':>9}{'read':>9}  shared  private  from disk")
    for name, found in runs.items():
        each = middle(found)
        shared, private, disk = (max(r[at] for r in found) for at in (3, 4, 5))
        line = f"{name:30}{each.has:9.2f}{each.slowest:9.2f}{each.read:9.1f}"
        print(f"{line}{shared:8.3f}{private:9.3f}{disk:11.0f}")
    if options.json:
        write_json(options.json, runs, size=options.size, processes=options.processes)


if __name__ == "__main__":
    main()
