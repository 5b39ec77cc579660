"""A Redis of a test's own: the real program, on a port of its own, in a directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, Self

import pytest

from .cluster import PATIENCE

#: Where this is set, the program must be there; else tests that need it are skipped.
MUST_BE_THERE: Final = "PANTALA_TEST_REDIS"


def redis_or_skip() -> str:
    """The program's path; without it the test is skipped, which says why."""
    program = shutil.which("redis-server")
    if program is None:
        why = "needs redis-server (Debian package redis-server)"
        if os.environ.get(MUST_BE_THERE):
            pytest.fail(why)
        pytest.skip(why)
    return program


class RedisServer:
    """A context manager. It keeps what it has, and has it again when it is started again.

    Args:
        directory: For its files.
        arguments: More of them, such as ``("--requirepass", "secret")``.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._program = redis_or_skip()
        self._directory = directory
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self._directory), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", "--logfile", str(self._directory / "redis.log")]
        self._process = subprocess.Popen([*command, *self._arguments], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._directory / "redis.log").read_text())
            time.sleep(0.01)  # another program: nothing tells when it listens

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False
