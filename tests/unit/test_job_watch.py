"""cli/_job_watch.py: what schedulers say of jobs, some of which say nothing."""

from __future__ import annotations

import argparse
import socket
import time
from contextlib import ExitStack

import pytest

from pantala.cli import _job_watch, _jobs
from pantala.errors import DragonflyError, InvalidRequest


def test_many_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take no longer than one."""
    monkeypatch.setattr(_job_watch, "_LIST", 1.0)
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(8)
        ]
        schedulers = _job_watch.Schedulers([f"127.0.0.1:{port}" for port in silent])
        began = time.monotonic()
        with pytest.raises(DragonflyError):
            schedulers.jobs()
        assert time.monotonic() < began + 6.0


def test_an_empty_id() -> None:
    """It is the beginning of every id, and none is meant."""
    options = argparse.Namespace(command="show", job_id="", json=False)
    options.scheduler_endpoint = ("127.0.0.1:9",)
    with pytest.raises(InvalidRequest, match="ID"):
        _jobs.run(argparse.ArgumentParser(), options)
