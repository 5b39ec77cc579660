"""How what a scheduler's core does grows with what it knows and does not touch.

    python bench/world.py [--tasks 1000 100000] [--hosts 100 10000] [--idle 100000 500000]
                          [--json results.json]

Without gRPC, and without waiting; microseconds, but for memory. Of a world with so many other
tasks, each of a host that holds it:

    register    a peer of a task of its own joins, and leaves
    leave       a host with one task leaves
    list, seeds of so many hosts, all of them, or the only seed: as a job picks them
    count       likewise three of them

And of so many peers that hold something and about which nothing happens:

    tick        a look for what has gone: peers, hosts and tasks
    KiB         of memory, for a peer with its task
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pantala.core.sched.expire import sweep_hosts, sweep_peers, sweep_tasks
from pantala.core.sched.preheat import Scope, Selection, select
from pantala.core.sched.rules import Limits
from pantala.testing.stage import Stage

#: Times that each thing is done.
_TIMES: Final = 200
#: Tasks that one host holds.
_EACH: Final = 100


def _timed(call: Callable[[], object], times: int = _TIMES) -> float:
    """Microseconds that *call* takes, of this thread's own time: the median."""
    took = []
    for _ in range(times):
        began = time.thread_time()
        call()
        took.append(1e6 * (time.thread_time() - began))
    return statistics.median(took)


def _idle(tasks: int) -> Stage:
    """A world with so many tasks, each held by one host."""
    stage = Stage(Limits(kept=1 << 40, kept_each=1 << 40))
    for number in range(tasks):
        stage.holder(f"h{number // _EACH}", f"t{number}")
    return stage


def _others(tasks: int) -> dict[str, float]:
    stage = _idle(tasks)
    gc.freeze()
    stage.host("newcomer")

    def register() -> None:
        stage.world.remove_peer(stage.register("newcomer", "own"))

    leaving: list[float] = []
    for _ in range(_TIMES):
        host = stage.holder("leaving", "left").host
        began = time.thread_time()
        stage.world.remove_host(host)
        leaving.append(1e6 * (time.thread_time() - began))
    result = {
        "other_tasks": tasks,
        "register_us": _timed(register),
        "leave_us": statistics.median(leaving),
    }
    gc.unfreeze()
    return result


def _targets(hosts: int) -> dict[str, float]:
    stage = Stage()
    for number in range(hosts):
        stage.host(f"h{number}")
    stage.host("seed", type=1)
    world = stage.world

    def chosen(selection: Selection) -> Callable[[], object]:
        return lambda: select(world.roster, selection, ours_only=True)

    return {
        "hosts": hosts,
        "all_us": _timed(chosen(Selection(Scope.ALL_PEERS)), 20),
        "count_us": _timed(chosen(Selection(Scope.ALL_PEERS, count=3)), 20),
        "seeds_us": _timed(chosen(Selection(Scope.ALL_SEEDS)), 20),
    }


def _ticks(peers: int) -> dict[str, float]:
    gc.collect()
    tracemalloc.start()
    stage = _idle(min(peers, 20_000))
    kib = tracemalloc.get_traced_memory()[0] / min(peers, 20_000) / 1024
    tracemalloc.stop()
    del stage
    stage = _idle(peers)
    gc.freeze()
    world, now = stage.world, stage.now
    result = {
        "idle_peers": peers,
        "peers_tick_us": _timed(lambda: sweep_peers(world, now), 20),
        "hosts_tick_us": _timed(lambda: sweep_hosts(world, now), 20),
        "tasks_tick_us": _timed(lambda: sweep_tasks(world, now), 20),
        "kib_per_peer_and_task": kib,
    }
    gc.unfreeze()
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="*", default=[1000, 100_000])
    parser.add_argument("--hosts", type=int, nargs="*", default=[100, 10_000])
    parser.add_argument("--idle", type=int, nargs="*", default=[100_000, 500_000])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for make, sizes in (
        (_others, options.tasks),
        (_targets, options.hosts),
        (_ticks, options.idle),
    ):
        for size in sizes:
            rows.append(make(size))
            print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
            gc.collect()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
