"""Kill a daemon or the scheduler again and again, and look at what is left when it is back.

    python bench/kills.py [--rounds 200] [--seed 1] [--keep DIRECTORY]

Scheduler, origin, two peers, and the daemon that is killed are real processes. It downloads, and
all of them import, export, keep replicas and delete; at a random moment it gets SIGKILL, or the
scheduler does. When both are back, every piece that was reported finished must be there and right,
what was imported must be kept by as many hosts as shall, by the scheduler's count and in truth, and
no file may be there that its daemon does not know.

What does not hold is told when it is noticed, with the round and the time, and in the end what was
decided and done in that round. Threads throw the same dice, so a seed alone does not bring it back:
``--keep`` leaves all logs, settings and records in a directory, but no content.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pantala.testing.cluster import Cluster
from pantala.testing.kills import Kills
from pantala.testing.origin import Origin


def main() -> int:
    """Run it, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", default=200, type=int)
    parser.add_argument("--seed", default=secrets.randbelow(1 << 32), type=int)
    parser.add_argument("--keep", type=Path, help="a directory for logs, which is not there yet")
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists():
        parser.error(f"{options.keep} is there already")
    with (
        tempfile.TemporaryDirectory(prefix="pk-") as directory,
        Origin() as origin,
        Cluster(Path(directory)) as cluster,
    ):
        kills = Kills(cluster, origin, rounds=options.rounds, seed=options.seed)
        try:
            wrong = kills.run()
        finally:
            if options.keep is not None:
                keep(Path(directory), options.keep, kills.histories)
    print(f"seed {options.seed}: " + ", ".join(f"{n} {what}" for what, n in kills.done.items()))
    print(f"all was true again within {kills.longest:.1f} s")
    print(f"every daemon had its scheduler again within {kills.longest_without:.1f} s")
    print("\n".join(wrong) or "everything held")
    for number, history in kills.histories.items():
        print(f"-- round {number}", *history, sep="\n")
    return 1 if wrong else 0


def keep(directory: Path, target: Path, histories: Mapping[int, list[str]]) -> None:
    """Copy what tells what has happened."""
    shutil.copytree(directory, target, ignore=_unwanted)
    lines = (f"-- round {number}\n" + "\n".join(each) for number, each in histories.items())
    (target / "rounds.txt").write_text("\n".join(lines))


def _unwanted(directory: str, names: list[str]) -> set[str]:
    """Content, which is in directories of that name, and what cannot be copied."""
    wanted = {".log", ".yaml", ".db", ".db-wal"}
    return {
        name
        for name in names
        if name == "content"
        or not ((path := Path(directory, name)).is_dir() or path.suffix in wanted)
    }


if __name__ == "__main__":
    sys.exit(main())
