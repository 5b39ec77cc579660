"""Fixtures of all tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Programs that end with the test, in a directory with a short path."""
    directory = Path(tempfile.mkdtemp(prefix="pd-"))
    try:
        with Cluster(directory) as cluster:
            yield cluster
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A real HTTP origin."""
    with Origin() as origin:
        yield origin


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine's stands between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
