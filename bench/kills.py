"""Kill a daemon again and again while it works, and look at what is left each time it is back.

    python bench/kills.py [--rounds 200] [--seed 1]

Scheduler, origin, a peer, and the daemon that is killed are real processes. It downloads, writes
outputs and deletes; at a random moment it gets SIGKILL. When it is back, every piece that it had
reported finished must be there and right, and no file may be there that it does not know.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from pantala.model.task import Kind
from pantala.testing.cluster import Cluster
from pantala.testing.kills import Kills
from pantala.testing.origin import Origin


def main() -> int:
    """Run it, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", default=200, type=int)
    parser.add_argument("--seed", default=secrets.randbelow(1 << 32), type=int)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pk-") as directory,
        Origin() as origin,
        Cluster(Path(directory)) as cluster,
    ):
        kills = Kills(cluster, origin, kind=Kind.STANDARD, rounds=options.rounds, seed=options.seed)
        wrong = kills.run()
    print(f"seed {options.seed}: " + ", ".join(f"{n} {what}" for what, n in kills.done.items()))
    print("\n".join(wrong) or "everything held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
