"""logs.py: one door, one stream, one format."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pantala.errors import ConfigError
from pantala.logs import setup_logging

PROGRAM = """
import logging, structlog
from pantala.logs import setup_logging
setup_logging({level!r}, json={json})
structlog.get_logger("ours").info("held", task="t1")
logging.getLogger("theirs").info("said %s", "so")
try:
    raise ValueError("why")
except ValueError:
    structlog.get_logger("ours").exception("broke")
"""


def _run(level: str, *, json: bool = False) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level, json=json)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_one_json_object_a_line() -> None:
    """Without a terminal: JSON, for structlog and the standard library alike."""
    held, said, broke = (json.loads(line) for line in _run("info"))
    assert (held["event"], held["task"], held["level"]) == ("held", "t1", "info")
    assert held["logger"] == "ours"
    assert (said["event"], said["logger"]) == ("said so", "theirs")
    assert "ValueError: why" in broke["exception"]
    assert "timestamp" in held


def test_the_level_is_kept() -> None:
    """What is less severe than asked for does not appear."""
    assert [json.loads(line)["event"] for line in _run("WARN")] == ["broke"]


def test_unknown_levels_are_named() -> None:
    """The error names the level and the choices."""
    with pytest.raises(ConfigError, match=r"'loud'.*debug, info"):
        setup_logging("loud")
