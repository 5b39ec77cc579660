"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from pantala.testing import ports
from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin

# How long an example takes says how busy the machine is.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")


#: By these coverage starts itself in a Python.
_COVERAGE: Final = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


def pytest_configure(config: pytest.Config) -> None:
    """Let programs under test be alone, and have the signals that they are born with.

    Coverage looks on in the tests' own processes. In the programs that they start it would cost
    two thirds of their time once more, and see little that it has not seen here.

    Under nohup, or in the background of a script, signals are ignored, and whoever is started
    inherits that. A handler that does nothing is as good for us, and is not inherited.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        for name in _COVERAGE:
            os.environ.pop(name, None)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: most tests wait longer than they compute."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that may take longest come first, so that no worker is left with one in the end."""
    items.sort(key=_longest, reverse=True)


def _longest(item: pytest.Item) -> tuple[float, bool]:
    """How long it may take, in seconds, where it says so; and whether it starts programs."""
    own = item.get_closest_marker("timeout")
    return own.args[0] if own else 0.0, item.path.parent.name == "whole"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is left in the end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short path, for sockets: those of pytest grow with its runs."""
    directory = Path(tempfile.mkdtemp(prefix="pt-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Programs that end with the test, in a directory with a short path."""
    directory = Path(tempfile.mkdtemp(prefix="pd-"))
    try:
        with Cluster(directory, forks=True) as cluster:
            yield cluster
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A real HTTP origin."""
    with Origin() as origin:
        yield origin


@pytest.fixture
def own_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody takes while the test does not listen on it."""
    with ports.port() as number:
        yield number


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine's stands between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
