"""One warm holder to several hosts at once: the slowest, the first, bytes a second, and CPU.

    python bench/fanout.py [--size 512MiB] [--hosts 1,2,4] [--rounds 3] [--outputs none,tmpfs,disk]
                           [--json results.json] [--svg FILE]

A scheduler and daemons are started as real processes. One daemon has two files; then as many
``dfget`` as there are hosts ask their own daemons for one of them at the same moment: as a
CacheTask, and as a Task whose store is on the disk. Their stores have room for one, so each run
evicts what the one before has left; "fresh" is a CacheTask in an empty store. The output is thrown
away, a file on tmpfs, or a file on the disk. Where ``nginx`` and ``curl`` are installed, as many
curls fetch as many bytes from an nginx on tmpfs.

Any other program takes part if FANOUT_OTHER names a command. It is called with the number of hosts,
the size in bytes, and a directory for its output files ("none": they are not wanted), and prints a
JSON list: for each host, the seconds from the start of all until it had the file.

Memory that is free in a virtual machine may be its host's again, and is slow to come back then. So
as much as a run may need is touched, and freed, before each: all find it in the same state,
whatever the run before has freed.

All take turns in each round; what is printed are medians, and medians of ratios to the CacheTask.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc

from pantala.model.task import Kind
from pantala.model.units import parse_size
from pantala.pb import dfdaemon_pb2, node_pb2
from pantala.testing.cluster import Cluster, Node, until
from pantala.testing.content import Pattern
from pantala.testing.drawing import bars
from pantala.testing.measure import (
    TMPFS,
    Nginx,
    cpu_of_children,
    numbers,
    run_all,
    served,
    write_json,
)
from pantala.testing.origin import Origin
from pantala.testing.soak_nodes import is_known

OUTPUTS = "none", "tmpfs", "disk"
KINDS = Kind.CACHE, Kind.STANDARD


class Run(NamedTuple):
    """One fan-out: seconds until the first and the last host had the file, and CPU seconds.

    Attributes:
        daemons: CPU seconds of all daemons; of nginx.
        clients: Of all ``dfget``, or curls.
    """

    first: float
    slowest: float
    daemons: float
    clients: float


class Ours:
    """A holder and hosts. The kind of task is said with each run."""

    def __init__(self, directory: Path, size: int, hosts: int) -> None:
        self._stack = ExitStack()
        self._size = size
        self._origin = self._stack.enter_context(Origin())
        for n in (0, 1):
            self._origin.put(f"/file{n}", Pattern(size, n))
        #: Of each kind, the file that its next run fetches, and the other.
        self._urls = {kind: [self._origin.url(f"/file{n}") for n in (0, 1)] for kind in KINDS}
        self._cluster = self._stack.enter_context(Cluster(directory))
        self._cluster.scheduler()
        capacity = str(size + (64 << 20))
        self._holder = self._cluster.daemon("holder", capacity=str(2 * size + (64 << 20)))
        self._hosts = [self._cluster.daemon(f"host{n}", capacity=capacity) for n in range(hosts)]
        for kind, urls in self._urls.items():
            for url in urls:
                self._finish(self._holder, kind, url)
        # Nobody need ask the origin any more.
        until(lambda: all(map(self._is_known, self._holder.tasks().values())), "all known")

    def _is_known(self, task: node_pb2.NodeTask) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{self._cluster.scheduler_port}") as channel:
            return is_known(self._cluster.scheduler_stub(channel), task)

    def close(self) -> None:
        """End all."""
        self._stack.close()

    def _finish(self, node: Node, kind: Kind, url: str) -> None:
        self._cluster.kind = kind
        got = self._cluster.get(node, url, "--overwrite", output=Path(os.devnull))
        if got.code:
            raise SystemExit(got.stderr)

    def run(self, kind: Kind, hosts: int, outputs: Sequence[Path], *, fresh: bool = False) -> Run:
        """Once; *fresh*: with nothing in the hosts' stores."""
        nodes = self._hosts[:hosts]
        if fresh:
            for node in self._hosts:
                self._forget(node, kind)
            time.sleep(0.5)  # what they forget is freed behind
        self._urls[kind].reverse()
        url, processes = self._urls[kind][0], list[subprocess.Popen[bytes]]()
        daemons = [self._holder, *nodes]
        sent, clients = self._origin.sent(), cpu_of_children()
        used = sum(each.cpu_seconds() for each in daemons)

        def start(n: int) -> subprocess.Popen[bytes]:
            words = [sys.executable, "-m", "pantala.cli.dfget", url, "-O", str(outputs[n])]
            words += ["--overwrite", "-e", str(nodes[n].socket), "--json"]
            if kind is Kind.CACHE:
                words.append("--cache")
            processes.append(subprocess.Popen(words, stdout=subprocess.PIPE))
            return processes[-1]

        took = run_all(start, hosts)
        used = sum(each.cpu_seconds() for each in daemons) - used
        for said in [json.loads(process.communicate()[0]) for process in processes]:
            if said["bytes_from_peers"] != self._size:
                raise SystemExit(f"a host had it from elsewhere: nothing was measured: {said}")
        run = Run(took[0], took[-1], used, cpu_of_children() - clients)
        if self._origin.sent() - sent > self._size // 100:
            raise SystemExit("a host read from the origin: nothing was measured")
        return run

    def fill(self) -> None:
        """Every store is full of what is not asked for next."""
        for kind in KINDS:
            self.run(kind, len(self._hosts), [Path(os.devnull)] * len(self._hosts), fresh=True)

    @staticmethod
    def _forget(node: Node, kind: Kind) -> None:
        node.kind = kind
        with node.channel() as channel:
            stub = node.download_stub(channel)
            for task_id in node.tasks():
                with suppress(grpc.RpcError):  # one that is going already
                    if kind is Kind.CACHE:
                        stub.DeleteCacheTask(dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task_id))
                    else:
                        stub.DeleteTask(dfdaemon_pb2.DeleteTaskRequest(task_id=task_id))


class Curls:
    """Curls that fetch a file from nginx."""

    def __init__(self, size: int) -> None:
        self._stack = ExitStack()
        root = served(self._stack)
        with (root / "file").open("wb") as file:
            file.writelines([os.urandom(1 << 20)] * (size >> 20))
        self._nginx = self._stack.enter_context(Nginx(root))

    def close(self) -> None:
        """End it."""
        self._stack.close()

    def run(self, hosts: int, outputs: Sequence[Path]) -> Run:
        """Once."""
        used, clients = self._nginx.cpu_seconds(), cpu_of_children()
        url = f"{self._nginx.url}/file"
        took = run_all(
            lambda n: subprocess.Popen(["curl", "-sf", url, "-o", str(outputs[n])]), hosts
        )
        used = self._nginx.cpu_seconds() - used
        return Run(took[0], took[-1], used, cpu_of_children() - clients)


def other(command: str, hosts: int, size: int, place: str) -> Run:
    """What FANOUT_OTHER names; its processes all count as clients."""
    clients = cpu_of_children()
    words = [*shlex.split(command), str(hosts), str(size), place]
    took = sorted(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout))
    return Run(took[0], took[-1], 0.0, cpu_of_children() - clients)


def measure(options: argparse.Namespace, directory: Path) -> dict[str, list[Run]]:
    """Runs by a name of output, hosts and candidate, one a round."""
    runs: dict[str, list[Run]] = {}
    command, most = os.environ.get("FANOUT_OTHER"), max(options.hosts)
    with ExitStack() as stack:
        ours = Ours(directory, options.size, most)
        stack.callback(ours.close)
        nginx = None
        if shutil.which("nginx") and shutil.which("curl"):
            nginx = Curls(options.size)
            stack.callback(nginx.close)
        tmpfs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=TMPFS)))
        places = {"none": None, "tmpfs": tmpfs, "disk": directory}
        for _ in range(options.rounds):
            for name in options.outputs:
                place = places[name]
                outputs = [place / f"out{n}" if place else Path(os.devnull) for n in range(most)]
                for hosts in options.hosts:
                    ours.fill()
                    ways: dict[str, Callable[[], Run]] = {
                        "CacheTask": partial(ours.run, Kind.CACHE, hosts, outputs),
                        "fresh": partial(ours.run, Kind.CACHE, hosts, outputs, fresh=True),
                        "Task": partial(ours.run, Kind.STANDARD, hosts, outputs),
                    }
                    if nginx is not None:
                        ways["nginx, curl"] = partial(nginx.run, hosts, outputs)
                    if command:
                        wanted = str(place or "none")
                        ways["other"] = partial(other, command, hosts, options.size, wanted)
                    # In another order each time: who comes first touches memory for the others.
                    order = random.sample(sorted(ways), len(ways))
                    found = {}
                    for who in order:
                        touch(2 * hosts * options.size)  # the outputs, and fresh stores
                        found[who] = ways[who]()
                    for who in ways:
                        runs.setdefault(f"{name}/{hosts}/{who}", []).append(found[who])
                    for output in outputs if place else ():
                        output.unlink(missing_ok=True)
    return runs


def touch(size: int) -> None:
    """Have the system find so much memory, page by page, and free it."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def names(text: str) -> list[str]:
    """Some of :data:`OUTPUTS`. Raises ValueError."""
    found = text.split(",")
    if not set(found) <= set(OUTPUTS):
        raise ValueError(text)
    return found


def draw(runs: dict[str, list[Run]], size: int) -> str:
    """Rates of all hosts together; medians."""
    groups: dict[str, dict[str, float]] = {}
    for name, found in runs.items():
        output, hosts, who = name.split("/")
        rate = int(hosts) * size / statistics.median(run.slowest for run in found) / 1e9
        groups.setdefault(f"{hosts} at once, output: {output}", {})[who] = rate
    title = f"Hosts get {size >> 20} MiB from one that has it"
    return bars(title, "GB/s", groups, others={"nginx, curl", "other"})


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512MiB", type=parse_size)
    parser.add_argument("--hosts", default=[1, 2, 4], type=numbers)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--outputs", default=[*OUTPUTS], type=names)
    parser.add_argument("--json", type=Path, help="write the runs here, too")
    parser.add_argument("--svg", type=Path, help="draw them here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pd-") as directory:
        runs = measure(options, Path(directory))
    print(
        f"{'output':8}{'hosts':>6}  {'':12}{'GB/s':>6}{'slowest/first':>15}"
        f"{'CPU s: daemons':>16}{'clients':>9}   rate of CacheTask to it"
    )
    for name, found in runs.items():
        output, hosts, who = name.split("/")
        middle = Run(*map(statistics.median, zip(*found, strict=True)))
        cache = runs[f"{output}/{hosts}/CacheTask"]
        ratio = statistics.median(
            run.slowest / ours.slowest for run, ours in zip(found, cache, strict=True)
        )
        rate = int(hosts) * options.size / middle.slowest / 1e9
        spread = statistics.median(run.slowest / run.first for run in found)
        print(
            f"{output:8}{hosts:>6}  {who:12}{rate:6.2f}{spread:15.2f}"
            f"{middle.daemons:16.2f}{middle.clients:9.2f}   {ratio:.2f}"
        )
    if options.json:
        write_json(options.json, runs, size=options.size)
    if options.svg:
        options.svg.write_text(draw(runs, options.size))


if __name__ == "__main__":
    main()
