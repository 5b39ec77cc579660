"""What programs import before they do anything: importing is most of what their start costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pantala.testing.handoff_daemon import Conversation, HandoffDaemon, serve

#: What only a program that works for others has a use for.
_WORKING = {
    *("asyncio", "google", "grpc", "hashlib", "inspect", "isal", "logging", "pydantic", "random"),
    *("rich", "socket", "structlog", "subprocess", "tempfile", "threading", "typer", "urllib"),
}
#: Slow to import besides, and of no use to a program that fetches one file.
_HEAVY = {"dataclasses", "pathlib", "selectors", "shutil", "textwrap", "typing", *_WORKING}


def imported(*command: str, status: int = 0) -> set[str]:
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
    return {name.partition(".")[0] for name in found}


def test_a_download(tmp_path: Path) -> None:
    """Nothing that would cost more than the download itself."""
    with HandoffDaemon(tmp_path, serve(b"x" * 10_000)) as daemon:
        found = imported(
            *("pantala.cli.dfget", "--cache", "http://origin/x", "-O", str(tmp_path / "out")),
            *("-e", daemon.endpoint),
        )
    assert found & _HEAVY == set()


@pytest.mark.parametrize("command", [("ls",), ("stat", "1" * 64), ("rm", "1" * 64, "2" * 64)])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["words", "json"])
def test_asking_a_daemon(tmp_path: Path, command: tuple[str, ...], form: tuple[str, ...]) -> None:
    """``dfctl`` asks one of ours over the hand-off socket, without gRPC."""

    def answer(talk: Conversation) -> None:
        task, figures = {"id": "1" * 64}, {"capacity_bytes": 2, "used_bytes": 1}
        event: dict[str, Any] = {"task": task, "host_ids": [], "failed": {}, **figures}
        talk.send(event="done", **event)

    with HandoffDaemon(tmp_path, answer) as daemon:
        found = imported(
            *("pantala.cli.dfctl", "cache-task", *command, "-e", daemon.endpoint, *form)
        )
    assert found & _WORKING == set()


@pytest.mark.parametrize(
    "command",
    [
        ("dfget",),
        ("dfcache",),
        ("dfcache", "import"),
        ("dfctl",),
        ("dfctl", "cache-task", "ls"),
        ("dfdaemon",),
        ("dfscheduler",),
    ],
    ids=" ".join,
)
def test_help_and_version(command: tuple[str, ...]) -> None:
    """They need nothing of what the program does."""
    name, *words = command
    flags = ("--help", "-h", "--version", "-V") if not words else ("--help", "-h")
    for flag in flags:
        assert imported(f"pantala.cli.{name}", *words, flag) & _WORKING == set(), flag
