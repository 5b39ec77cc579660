"""Churn of downloads and deletions while every background loop is failed at random.

    python bench/soak.py [--seconds 600] [--seed 1] [--rate 0.1]

A scheduler, three daemons with small stores and an origin are started as real processes. Turns of
their loops, and what those call, raise EMFILE, ENOSPC, psutil's errors, codec errors and foreign
cancellations. At the end it prints what was done and what did not hold; it exits with 1 if anything
did not: a process or loop that ended or stands still, a node or content that the scheduler forgot,
a wrong byte, a download that failed, an unexpected error in a log, memory or descriptors that grew.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin
from pantala.testing.soak import Soak


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.1)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="soak") as directory,
        Origin() as origin,
        Cluster(Path(directory)) as cluster,
    ):
        soak = Soak(cluster, origin, seconds=options.seconds, seed=options.seed, rate=options.rate)
        wrong = soak.run()
        for what, count in sorted(soak.done.items()):
            print(f"{what}: {count}")
        for name, figures in soak.figures.items():
            print(f"{name}: {figures}")
        for line in wrong:
            print(f"WRONG  {line}")
    print("FAILED" if wrong else "PASSED")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
