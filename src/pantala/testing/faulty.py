"""Runs one of our programs on a machine that fails its background work now and then.

    python -m pantala.testing.faulty --seed 1 --rate 0.1 --reports DIR pantala.cli.dfdaemon …

Turns of every background loop, and much of what they call, raise what real machines raise: no
descriptors, no room on the disk, a /proc that cannot be read, text that cannot be encoded, a call
that somebody else has cancelled. Each place has dice of its own, so the same seed brings the same
faults to the same turns. The second turn of each always fails, so none is spared.

Once a second ``DIR/<pid>.json`` says which loops run, how many turns each has made and how many
times it was failed.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import inspect
import json
import os
import runpy
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final
from weakref import WeakSet

import psutil

from pantala.background import Loops

FAULTS: Final[tuple[Callable[[], BaseException], ...]] = (
    lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    lambda: psutil.AccessDenied(msg="injected"),
    lambda: UnicodeEncodeError("utf-8", "\ud800", 0, 1, "injected"),
    asyncio.CancelledError,
)

#: What the announcing asks of the system.
_PSUTIL: Final = ("cpu_percent", "cpu_count", "virtual_memory", "net_io_counters", "net_if_stats")

#: What the announcing does for one task, or a part of it.
_TELLING: Final = "_of_part"


class Faults:
    """Decides which turns fail, and keeps count.

    Args:
        seed: Of all dice.
        rate: How many of the turns fail, 0 to 1.
    """

    def __init__(self, seed: int, rate: float) -> None:
        self._seed = seed
        self._rate = rate
        self._dice: dict[str, Random] = {}
        self._rolls: Counter[str] = Counter()
        self.loops: WeakSet[Loops] = WeakSet()
        #: A program starts on a machine that is well: nothing fails before the first turn is made.
        self._armed = False
        self.turns: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()

    def roll(self, place: str) -> None:
        """Raise one of :data:`FAULTS`, or nothing, as the dice of this *place* will have it."""
        if not self._armed:
            return
        self._rolls[place] += 1
        dice = self._dice.setdefault(place, Random(f"{self._seed} {place}"))
        if dice.random() < self._rate or self._rolls[place] == 2:
            self.injected[place] += 1
            fault = dice.choice(FAULTS)
            raise fault()

    def install(self) -> None:
        """From here on, loops and what they call are failed."""
        honest, faults = Loops.keep, self

        def keep(
            self: Loops,
            turn: Callable[[], object],
            name: str,
            *,
            rest: Callable[[], Awaitable[object]] | None = None,
        ) -> asyncio.Task[None]:
            faults.loops.add(self)
            return honest(self, faults.around(turn, name), name, rest=rest)

        Loops.keep = keep  # type: ignore[method-assign]  # that is the purpose
        for name in _PSUTIL:
            setattr(psutil, name, self.flaky(getattr(psutil, name), f"psutil.{name}"))
        shutil.disk_usage = self.flaky(shutil.disk_usage, "disk_usage")
        # Late, so that a scheduler need not load a daemon before it starts to count.
        from pantala.daemon.telling.teller import Words  # noqa: PLC0415  late, for that reason

        setattr(Words, _TELLING, self.flaky(getattr(Words, _TELLING), "tell a part"))

    def around(self, turn: Callable[[], object], name: str) -> Callable[[], Awaitable[None]]:
        """*turn*, failed before it begins or after all of it was done."""

        async def failing() -> None:
            self.roll(name)
            result = turn()
            if inspect.isawaitable(result):
                await result
            self.turns[name] += 1
            self._armed = True
            self.roll(f"{name}, done")

        return failing

    def flaky(self, function: Callable[..., Any], place: str) -> Callable[..., Any]:
        """*function*, failed before it begins."""

        @functools.wraps(function)
        def failing(*args: Any, **kwargs: Any) -> Any:
            try:
                self.roll(place)
            except asyncio.CancelledError:  # nothing that these call waits for anybody
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
            return function(*args, **kwargs)

        return failing

    def report(self) -> dict[str, Any]:
        """Which loops run, and what became of them."""
        return {
            "loops": sorted(name for loops in list(self.loops) for name in loops.names),
            "failing": [line for loops in list(self.loops) for line in loops.failing()],
            "turns": dict(self.turns),
            "injected": dict(self.injected),
        }

    def keep_reporting(self, path: Path) -> None:
        """Write the report to *path*, once a second, from a thread of its own."""

        def write() -> None:
            while True:
                try:
                    draft = path.with_suffix(".draft")
                    draft.write_text(json.dumps(self.report()))
                    draft.replace(path)
                except (OSError, RuntimeError):  # a dict that grew meanwhile: the next one is whole
                    pass
                time.sleep(1.0)  # a thread of its own, to the program's end

        threading.Thread(target=write, name="report", daemon=True).start()


def main() -> None:
    """Run the program that the command line names, with faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--reports", type=Path, required=True)
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    faults = Faults(options.seed, options.rate)
    faults.install()
    faults.keep_reporting(options.reports / f"{os.getpid()}.json")
    sys.argv = [options.module, *options.arguments]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
