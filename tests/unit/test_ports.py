"""testing/ports.py: ports that nobody takes while nobody listens."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pantala.testing import ports

#: Says of each number whether that one can be had.
PROGRAM = """
import random, sys
from pantala.testing import ports
numbers = iter(int(word) for word in sys.argv[1:])
random.randrange = lambda *_: next(numbers)
with ports.port() as number:
    print(number)
"""


def test_each_is_had_once() -> None:
    """By this process or another; afterwards it can be had again."""
    with ports.port() as one, ports.port() as two:
        assert one != two
        command = [sys.executable, "-c", PROGRAM, str(one), str(two), str(one ^ 1)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == [str(one ^ 1)]


def test_none_that_the_system_chooses() -> None:
    """Whoever connects, or listens on any port, gets none of these; they can be listened on."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ports.port() as number:
        assert ports._FIRST <= number < first
        socket.create_server(("127.0.0.1", number)).close()


def test_what_somebody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over; where there is no other, that is said."""
    with contextlib.ExitStack() as stack:
        with ports.port() as number:
            stack.enter_context(socket.create_server(("127.0.0.1", number)))
        monkeypatch.setattr(random, "randrange", lambda *_: number)
        stack.enter_context(pytest.raises(OSError, match="are in use"))
        stack.enter_context(ports.port())
