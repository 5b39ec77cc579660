"""Downloads while schedulers are killed: do any fail, how long do they wait, who reads the origin.

    python bench/takeover.py [--schedulers 3] [--daemons 8] [--files 125] [--size 256KiB]
                             [--callers 16] [--rate 20] [--kill 1] [--restart 0] [--away 2]

Schedulers, daemons and an origin are real processes. Each file is downloaded once on each daemon,
in random order, by so many callers at once, at *rate* downloads a second in all; meanwhile
schedulers are killed with SIGKILL: ``--kill`` of them for good, and before that the first one
``--restart`` times, to be there again after ``--away`` seconds. Of those that began within five
seconds of a kill it is told how long they took. A download that fails, or brings something else
than the origin has, ends the run with 1.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pantala
from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster, Node, Program
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

#: Seconds after a kill in which a download that begins is looked at.
_AFTER = 5.0


@dataclass
class Score:
    """What came of the downloads.

    Attributes:
        took: When each began, and the seconds that it took.
        failed: Why some failed.
        kills: When schedulers were killed.
    """

    took: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    def after_kills(self) -> list[float]:
        """Seconds of those that began soon after one, the shortest first."""
        return sorted(took for began, took in self.took if self._is_soon(began))

    def others(self) -> list[float]:
        """Seconds of the others."""
        return sorted(took for began, took in self.took if not self._is_soon(began))

    def _is_soon(self, began: float) -> bool:
        return any(0 <= began - kill < _AFTER for kill in self.kills)


class Callers:
    """Download each file once on each daemon, so many a second, until all are through."""

    def __init__(self, nodes: Sequence[Node], urls: Sequence[str], size: int, rate: float) -> None:
        self.score = Score()
        self._clients = [pantala.Client(str(node.socket)) for node in nodes]
        self._size, self._rate, self._urls = size, rate, urls
        self._pairs = [(c, n) for c in self._clients for n in range(len(urls))]
        random.Random(1).shuffle(self._pairs)  # noqa: S311  an order of downloads is no secret
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.done = 0

    def run(self, callers: int) -> None:
        """Download all."""
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(self._one, range(len(self._pairs))))
        for client in self._clients:
            client.close()

    def _one(self, number: int) -> None:
        client, file = self._pairs[number]
        # Each has its moment, whatever the others take: those that wait are to pile up.
        time.sleep(max(0.0, self._began + number / self._rate - time.monotonic()))
        began, failed = time.monotonic(), ""
        try:
            got = client.get(self._urls[file], timeout=60)
            if got != Pattern(self._size, seed=file).read(0, self._size):
                failed = "other bytes than the origin's"
        except pantala.DragonflyError as error:
            failed = str(error)
        with self._lock:
            self.done += 1
            self.score.took.append((began, time.monotonic() - began))
            if failed:
                self.score.failed.append(f"{self._urls[file]}: {failed}")


def disturb(
    options: argparse.Namespace, cluster: Cluster, running: list[Program], to: Callers
) -> None:
    """Kill schedulers, one after the other, while downloads go on."""
    turns = options.restart + options.kill
    total = options.files * options.daemons
    for turn in range(turns):
        while to.done < total * (turn + 1) // (turns + 1):
            time.sleep(0.01)  # a kill need not be more exact
        victim = running[0] if turn < options.restart else running.pop()
        to.score.kills.append(time.monotonic())
        victim.kill()
        if turn < options.restart:
            time.sleep(options.away)  # what it takes to be started anew is what is measured
            running[0] = cluster.scheduler(port=int(victim.ready["port"]))


def measure(options: argparse.Namespace, directory: Path) -> bool:
    """Run it and print what came out; whether all went well."""
    with Origin() as origin, Cluster(directory, forks=True) as cluster:
        urls = []
        for number in range(options.files):
            origin.put(f"/{number}", Pattern(options.size, seed=number))
            urls.append(origin.url(f"/{number}"))
        schedulers = [cluster.scheduler() for _ in range(options.schedulers)]
        addrs = [f"127.0.0.1:{s.ready['port']}" for s in schedulers]
        nodes = cluster.daemons(
            *(f"h{number}" for number in range(options.daemons)),
            config={"scheduler": {"addrs": addrs}},
            scheduler=False,
            capacity=f"{2 * options.files * options.size}",
        )
        callers = Callers(nodes, urls, options.size, options.rate)
        thread = threading.Thread(target=disturb, args=(options, cluster, schedulers, callers))
        thread.start()
        callers.run(options.callers)
        thread.join()
        score = callers.score
        report(score, options, origin.sent())
        return not score.failed


def report(score: Score, options: argparse.Namespace, sent: int) -> None:
    """Print it."""
    content = options.files * options.size
    print(f"downloads  {len(score.took)}, of which {len(score.failed)} failed")
    for why in score.failed[:5]:
        print(f"           {why}")
    for name, times in (("otherwise", score.others()), ("after kill", score.after_kills())):
        if times:
            p99 = times[int(len(times) * 0.99)] if len(times) > 1 else times[0]
            print(
                f"{name:10} {len(times)}: median {statistics.median(times) * 1000:.0f} ms, "
                f"p99 {p99:.2f} s, slowest {times[-1]:.2f} s"
            )
    print(f"origin     sent {format_size(sent)}, {sent / content:.3f} × the content")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedulers", default=3, type=int)
    parser.add_argument("--daemons", default=8, type=int)
    parser.add_argument("--files", default=125, type=int)
    parser.add_argument("--size", default="256KiB", type=parse_size)
    parser.add_argument("--callers", default=16, type=int)
    parser.add_argument("--rate", default=20.0, type=float)
    parser.add_argument("--kill", default=1, type=int)
    parser.add_argument("--restart", default=0, type=int)
    parser.add_argument("--away", default=2.0, type=float)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pb-") as directory:
        raise SystemExit(0 if measure(options, Path(directory)) else 1)


if __name__ == "__main__":
    main()
