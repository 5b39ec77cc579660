"""What programs import before they do anything: importing is most of what their start costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pantala.testing.handoff_daemon import HandoffDaemon, serve

#: Slow to import, and of no use to a program that fetches one file.
_HEAVY = frozenset(
    [
        "asyncio",
        "dataclasses",
        "grpc",
        "google",
        "hashlib",
        "inspect",
        "isal",
        "logging",
        "pathlib",
        "pydantic",
        "random",
        "rich",
        "selectors",
        "shutil",
        "socket",
        "structlog",
        "subprocess",
        "tempfile",
        "textwrap",
        "threading",
        "typing",
        "urllib",
    ]
)


def imported(*command: str, status: int = 0) -> frozenset[str]:
    """The top-level modules that ``python -m`` of *command* imports until it ends."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # Measured for coverage, it would import much besides.
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
    )
    assert done.returncode == status, done.stderr
    lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time")]
    found = {line[2].strip() for line in lines}
    assert command[0].rpartition(".")[0] in found
    return frozenset(name.partition(".")[0] for name in found)


def test_a_download(tmp_path: Path) -> None:
    """Nothing that would cost more than the download itself."""
    with HandoffDaemon(tmp_path, serve(b"x" * 10_000)) as daemon:
        found = imported(
            *("pantala.cli.dfget", "--cache", "http://origin/x", "-O", str(tmp_path / "out")),
            *("-e", daemon.endpoint),
        )
    assert found & _HEAVY == set()
