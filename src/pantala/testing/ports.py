"""Ports that stay one's own while nobody listens on them.

A port that the system chose is free for anybody once its listener has ended: tests that run beside
this one take it for their next connection. These are none that the system chooses, and whoever has
one has a socket of its name, which no two processes of a machine can.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: The first that is tried: below are those of well-known services.
_FIRST: Final = 10_240

#: How many are tried.
_ATTEMPTS: Final = 1000

_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@contextmanager
def port(count: int = 1) -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else has until the end, whether somebody listens or not.

    Args:
        count: So many of them, one after the other; which is the first.

    Raises:
        OSError: None can be had.
    """
    beyond = int(_RANGE.read_text().split()[0])
    for _ in range(_ATTEMPTS):
        first = random.randrange(_FIRST, beyond - count)
        with contextlib.ExitStack() as stack:
            try:
                for number in range(first, first + count):
                    name = stack.enter_context(socket.socket(socket.AF_UNIX))
                    name.bind(f"\0pantala-test-port-{number}")
                    with socket.socket() as probe:  # a program that is none of our tests
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            yield first
            return
    raise OSError(f"{_ATTEMPTS} ports from {_FIRST} to {beyond - 1} are in use")
