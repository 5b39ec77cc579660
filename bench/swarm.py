"""One file to many nodes at the same moment: what the origin, the disks and the clock say.

    python bench/swarm.py [--size 1GiB] [--nodes 3] [--kill-seed] [--json results.json]

A scheduler, a seed, as many daemons as asked and an HTTP origin are started as real processes;
then ``dfget --cache`` runs on all daemons at once. With ``--kill-seed`` the seed is killed
when a third of the content has left the origin.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern


class Origin:
    """An HTTP origin as a process of its own."""

    def __init__(self, size: int, rate: int | None) -> None:
        command = [sys.executable, "-m", "pantala.testing.origin", "--pattern", f"/file={size}"]
        if rate:
            command += ["--rate", str(rate)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is None:
            raise SystemExit("the origin has no output")
        self._base = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"{self._base}/file"

    def sent(self) -> int:
        """Bytes of content it has sent, by its own count."""
        stats = f"{self._base}/.stats"
        with urllib.request.urlopen(stats, timeout=10) as answer:  # noqa: S310  our own origin
            return int(json.load(answer)["sent"])

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """One round; what was measured."""
    content = Pattern(options.size)
    expected = content.digest()
    capacity = str(options.size + (64 << 20))
    origin = Origin(options.size, options.rate)
    with Cluster(directory) as cluster:
        cluster.scheduler()
        seed = cluster.daemon("seed", seed=True, capacity=capacity)
        nodes = [cluster.daemon(f"n{i}", capacity=capacity) for i in range(options.nodes)]
        written = {node.pid: node.written_to_disk() for node in (seed, *nodes)}
        started = time.perf_counter()
        begun = [
            cluster.begin(node, origin.url, output=directory / f"out{i}")
            for i, node in enumerate(nodes)
        ]
        if options.kill_seed:
            while origin.sent() < options.size // 3:
                time.sleep(0.01)  # the origin is another process: nothing to wait on
            seed.kill()
        got = [cluster.finish(*each) for each in begun]
        seconds = time.perf_counter() - started
        for one in got:
            if one.code:
                raise SystemExit(one.stderr)
        alive: list[Node] = [*nodes] if options.kill_seed else [seed, *nodes]
        result = {
            "size": options.size,
            "nodes": options.nodes,
            "seconds": seconds,
            "each": [one.result["seconds"] for one in got],
            "from_peers": [one.result["bytes_from_peers"] for one in got],
            "from_origin": [one.result["bytes_from_origin"] for one in got],
            "sent_by_origin": origin.sent(),
            "written_to_disk": [n.written_to_disk() - written[n.pid] for n in alive],
            "resident": [n.resident() for n in alive],
            "identical": all(_digest(one.path) == expected for one in got),
        }
    origin.stop()
    return result


def _digest(path: Path) -> str:
    done = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1GiB", type=parse_size)
    parser.add_argument("--nodes", default=3, type=int)
    parser.add_argument("--rate", type=parse_size, help="bytes a second of each origin answer")
    parser.add_argument("--kill-seed", action="store_true")
    parser.add_argument("--directory", default="/dev/shm", help="where outputs go")  # noqa: S108  outputs must not be slower than memory
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pd-", dir=options.directory) as directory:
        result = run(options, Path(directory))
    total = options.size * options.nodes
    print(f"nodes finished after      {', '.join(f'{s:.2f} s' for s in result['each'])}")
    print(f"all of them               {format_size(total / result['seconds'])}/s")
    print(f"identical to the origin's {'yes' if result['identical'] else 'NO'}")
    extra = result["sent_by_origin"] - options.size
    print(f"sent by the origin        {result['sent_by_origin']} bytes, the content and {extra}")
    print(f"written to disk, each     {result['written_to_disk']} bytes")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
