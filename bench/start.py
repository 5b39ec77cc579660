"""What the commands cost from start to exit, beside ``python -c pass``, turn and turn about.

    python bench/start.py [--rounds 30] [--large 1GiB] [--large-rounds 5] [--directory .]
                          [--json results.json]

One daemon holds a file of 1 MiB and a large one as cache tasks. Each round starts every command
once, in an order that changes, and waits for its end; medians are printed, and how they compare to
an interpreter that does nothing. ``cp`` copies the same bytes from /dev/shm to the same directory.
All run the same interpreter with the same environment, as they are installed beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from pantala.model.units import format_size, parse_size
from pantala.testing.cluster import Cluster
from pantala.testing.content import Pattern
from pantala.testing.measure import TMPFS, middle, take_turns, write_json
from pantala.testing.origin import Origin

PROGRAMS: Final = ("dfget", "dfcache", "dfctl", "dfdaemon", "dfscheduler")

#: What all the others are compared to.
NOTHING: Final = "python -c pass"

SMALL: Final = 1 << 20

Commands = Mapping[str, Sequence[str]]


class Run(NamedTuple):
    """Of one command, from start to exit."""

    seconds: float


def program(name: str) -> list[str]:
    """How one of ours is started: as it was installed, if it was."""
    installed = Path(sys.executable).with_name(name)
    return [str(installed)] if installed.exists() else [sys.executable, "-m", f"pantala.cli.{name}"]


def clock(command: Sequence[str], output: Path) -> Run:
    """What *command* takes, which may write *output*."""
    with suppress(FileNotFoundError):
        output.unlink()
    # Compiled modules are what an installed program has.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(
        command, check=True, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    return Run(time.perf_counter() - started)


def in_turn(commands: Commands, rounds: int, output: Path) -> dict[str, list[Run]]:
    """Runs by command, one a round; a first one of each does not count."""
    ways = {name: partial(clock, command, output) for name, command in commands.items()}
    for way in ways.values():
        way()
    return take_turns(ways, rounds)


def measure(large: int, rounds: int, large_rounds: int, directory: Path) -> dict[str, list[Run]]:
    """Runs by command, one a round."""
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as place,
        tempfile.TemporaryDirectory(prefix="pd-", dir=directory) as outputs,
        tempfile.TemporaryDirectory(prefix="pd-", dir=TMPFS) as memory,
        Origin() as origin,
        Cluster(Path(place)) as cluster,
    ):
        cluster.capacity = f"{2 * (large >> 20) + 64}MiB"
        node = cluster.daemon("hot", scheduler=False)
        output = Path(outputs, "out")
        moves: dict[int, dict[str, list[str]]] = {}
        for size in (SMALL, large):
            shown = format_size(size)
            origin.put(f"/{size}", Pattern(size))
            get = [*program("dfget"), "--cache", origin.url(f"/{size}"), "-O", str(output)]
            get += ["-e", str(node.socket)]
            copied = Path(memory, str(size))
            clock([*get[:-3], str(copied), *get[-2:]], copied)
            moves[size] = {
                f"dfget --cache, {shown}": get,
                f"cp, {shown}": ["cp", str(copied), str(output)],
            }
        ls = [*program("dfctl"), "cache-task", "ls", "-e", str(node.socket)]
        commands = {NOTHING: [sys.executable, "-c", "pass"], **moves[SMALL], "dfctl ls": ls}
        commands |= {f"{name} --version": [*program(name), "--version"] for name in PROGRAMS}
        return in_turn(commands, rounds, output) | in_turn(moves[large], large_rounds, output)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", default=30, type=int, help="default 30")
    parser.add_argument("--large", default="1GiB", type=parse_size, help="default 1GiB")
    parser.add_argument("--large-rounds", default=5, type=int, help="of the large file, default 5")
    parser.add_argument("--directory", default=Path(), type=Path, help="for outputs, default here")
    parser.add_argument("--json", type=Path, help="write the times here, too")
    options = parser.parse_args()
    runs = measure(options.large, options.rounds, options.large_rounds, options.directory)
    nothing = middle(runs[NOTHING]).seconds
    for name, found in runs.items():
        seconds = middle(found).seconds
        print(f"{name:26} {seconds * 1000:8.1f} ms  {seconds / nothing:6.2f} ×")
    if options.json:
        write_json(options.json, runs, large=options.large)


if __name__ == "__main__":
    main()
