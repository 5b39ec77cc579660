"""testing/forks.py: a program that is forked is the one that would have been started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pantala.testing.cluster import PATIENCE, until
from pantala.testing.forks import Process, execute, fork

#: Says what it finds around itself, on both streams; then it waits for a signal, if told to.
PROGRAM = """
import asyncio, json, os, random, resource, signal, sys, threading
from pathlib import Path
import local
print(json.dumps({
    "name": __name__, "file": __file__, "argv": sys.argv, "path": sys.path[0], "cwd": os.getcwd(),
    "package": __package__, "main": sys.modules["__main__"].__file__,
    "env": dict(os.environ), "flags": list(sys.flags), "local": local.VALUE,
    "input": sys.stdin.read(), "threads": len(os.listdir("/proc/self/task")),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "signals": {n.name: str(signal.getsignal(n)) for n in signal.valid_signals()
                if hasattr(n, "name")},
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "umask": os.umask(0),
    "recursion": sys.getrecursionlimit(), "threshold": __import__("gc").get_threshold(),
    "buffers": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdout.encoding],
}), flush=True)
print("to the other", file=sys.stderr)
Path("random." + str(os.getpid())).write_text(str(random.random()))
if "wait" in sys.argv:
    signal.pause()
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the program, in which this process is."""
    (tmp_path / "found.py").write_text(PROGRAM)
    (tmp_path / "local.py").write_text("VALUE = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PANTALA_OF_THIS_TEST", "ä")
    return tmp_path


def _start(how: Any, module: str, *arguments: str) -> Process:
    with Path("out").open("wb") as out, Path("err").open("wb") as err:
        process: Process = how(module, arguments, os.environ, out=out, err=err)
    return process


@pytest.mark.usefixtures("place")
def test_it_finds_the_same_around_itself() -> None:
    """Name, arguments, environment, directory, streams, signals, limits."""
    found: list[dict[str, Any]] = []
    for how in (execute, fork):
        process = _start(how, "found", "3", "--flag", "")
        assert process.wait(PATIENCE) == 3
        assert Path("err").read_text() == "to the other\n"
        found.append(json.loads(Path("out").read_text()))
    for each in found:
        each["env"] = sorted(f"{k}={v}" for k, v in each["env"].items())
        each["signals"] = {k: v.partition(" @0x")[0] for k, v in each["signals"].items()}
    for key, value in found[0].items():
        assert found[1][key] == value, key
    assert "PANTALA_OF_THIS_TEST=ä" in found[1]["env"]


def test_chance_is_its_own(place: Path) -> None:
    """Two that were forked one after the other do not draw the same numbers."""
    for _ in range(2):
        assert _start(fork, "found", "0").wait(PATIENCE) == 0
    drawn = {path.read_text() for path in place.glob("random.*")}
    assert len(drawn) == 2


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("how", [execute, fork])
def test_it_is_ended(how: Any) -> None:
    """By signals, which its status tells; one that has ended is not signalled."""
    process = _start(how, "found", "0", "wait")
    until(lambda: Path("err").read_text(), "it runs")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGSTOP)
    process.terminate()
    process.send_signal(signal.SIGCONT)
    assert process.wait(PATIENCE) == -signal.SIGTERM
    assert process.poll() == process.returncode == -signal.SIGTERM
    process.kill()


@pytest.mark.usefixtures("place")
def test_it_is_waited_for_by_any_descriptor() -> None:
    """Also by one whose number ``select`` does not take."""
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open("rb"))
        assert _start(fork, "found", "4").wait(PATIENCE) == 4


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("how", [execute, fork])
def test_one_of_our_programs(how: Any) -> None:
    """It says what it is called and what is wrong, and nothing of how it was started."""
    assert _start(how, "pantala.cli.dfget", "--no-such").wait(PATIENCE) == 2
    said = Path("err").read_text()
    assert said.startswith("usage: dfget "), said
    assert "Warning" not in said
    assert _start(how, "pantala.cli.dfscheduler", "--version").wait(PATIENCE) == 0
    assert Path("out").read_text().startswith("dfscheduler ")
