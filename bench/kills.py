"""Kill a daemon or the scheduler again and again, and look at what is left when it is back.

    python bench/kills.py [--rounds 200] [--seed 1]

Scheduler, origin, two peers, and the daemon that is killed are real processes. It downloads, and
all of them import, export, keep replicas and delete; at a random moment it gets SIGKILL, or the
scheduler does. When both are back, every piece that was reported finished must be there and right,
what was imported must be kept by as many hosts as shall, by the scheduler's count and in truth, and
no file may be there that its daemon does not know.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

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
        kills = Kills(cluster, origin, rounds=options.rounds, seed=options.seed)
        wrong = kills.run()
    print(f"seed {options.seed}: " + ", ".join(f"{n} {what}" for what, n in kills.done.items()))
    print(f"all was true again within {kills.longest:.1f} s")
    print("\n".join(wrong) or "everything held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
