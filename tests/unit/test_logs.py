"""logs.py: one door, one stream, one format."""

from __future__ import annotations

import contextlib
import json
import os
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


def test_a_traceback_shows_no_variables() -> None:
    """On a terminal either: they may hold passwords."""
    program = PROGRAM.format(level="info", json=False).replace(
        'raise ValueError("why")', 'secret = "hunter" + "2"; raise ValueError("why")'
    )
    ours, theirs = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True, timeout=60)
    finally:
        os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        said = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while data := terminal.read(65536):
                said += data
    assert b"ValueError: why" in said
    assert b"hunter2" not in said


def test_the_level_is_kept() -> None:
    """What is less severe than asked for does not appear."""
    assert [json.loads(line)["event"] for line in _run("WARN")] == ["broke"]


def test_unknown_levels_are_named() -> None:
    """The error names the level and the choices."""
    with pytest.raises(ConfigError, match=r"'loud'.*debug, info"):
        setup_logging("loud")


def test_what_every_line_says() -> None:
    """Ours, and the library's."""
    script = (
        "import logging, structlog; from pantala.logs import setup_logging;"
        "setup_logging(json=True, always={'worker': 3});"
        "structlog.stdlib.get_logger('a').info('ours'); logging.getLogger('b').info('theirs')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert [json.loads(line)["worker"] for line in done.stderr.splitlines()] == [3, 3]
