"""tests/conftest.py: what all tests stand on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_suite_may_run_under_nohup() -> None:
    """Signals that are ignored where the tests were started still reach what they start."""
    test = "tests/unit/test_dfget.py::test_a_signal_leaves_nothing_behind"
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0")
    done = subprocess.run(
        ["sh", "-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh", *pytest, test],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout
