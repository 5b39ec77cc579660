"""``dfget --cache`` of a hot file, beside ``python -c pass``, turn and turn about.

    python bench/hot.py [--size 1MiB] [--rounds 30] [--json results.json]

One daemon holds the file; each round starts one process of either kind and waits for its end.
Both run the same interpreter with the same environment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pantala.model.units import parse_size
from pantala.testing.cluster import Cluster
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin


def clock(command: list[str], env: dict[str, str]) -> float:
    """Seconds that *command* takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds by kind of process, one a round."""
    seconds: dict[str, list[float]] = {"pass": [], "dfget": []}
    with tempfile.TemporaryDirectory(prefix="pd-") as directory, Origin() as origin:
        origin.put("/hot", Pattern(size))
        with Cluster(Path(directory)) as cluster:
            node = cluster.daemon("hot")
            # Compiled modules are what an installed program has.
            env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
            get = [sys.executable, "-m", "pantala.cli.dfget", "--cache", origin.url("/hot")]
            get += ["-O", str(Path(directory) / "out"), "-e", str(node.socket), "--overwrite"]
            nothing = [sys.executable, "-c", "pass"]
            for command in (get, nothing):
                clock(command, env)
            for _ in range(rounds):
                seconds["pass"].append(clock(nothing, env))
                seconds["dfget"].append(clock(get, env))
    return seconds


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1MiB", type=parse_size)
    parser.add_argument("--rounds", default=30, type=int)
    parser.add_argument("--json", type=Path, help="write the times here, too")
    options = parser.parse_args()
    seconds = measure(options.size, options.rounds)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"python -c pass  {middle['pass'] * 1000:.1f} ms")
    print(f"dfget --cache   {middle['dfget'] * 1000:.1f} ms")
    print(f"ratio           {middle['dfget'] / middle['pass']:.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
