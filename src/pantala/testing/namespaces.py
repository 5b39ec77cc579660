"""Hosts of a small network on this machine, each with a link of its own: Linux network namespaces.

    host 1 ──tbf── veth ──tbf──┐
    host 2 ──tbf── veth ──tbf──┤ bridge, in a namespace of its own
    fast   ─────── veth ───────┘

A link is as fast as it says in both directions; a host without a limit has the machine's own speed.
Needs root and iproute2 (``ip`` and ``tc``). Unix sockets are in no network namespace, so a program
outside can talk to one inside by its socket.

As a program, it runs a module in a namespace::

    python -m pantala.testing.namespaces NAME MODULE ARGUMENTS…
"""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: What a bucket holds, and how long a packet may wait for it: about that of a switch's port.
_BURST: Final = "128kb"
_LATENCY: Final = "40ms"

#: 10.77.0.1 and so on.
_NET: Final = "10.77.0"

_NEWNET: Final = 0x40000000


class CannotLink(Exception):
    """Such a network cannot be had on this machine, or by this user; says why."""


class Network:
    """A bridge and what hangs on it. A context manager; leaving it removes everything.

    Args:
        name: Begins the names of its namespaces; at most seven characters.

    Raises:
        CannotLink: It cannot be had.
    """

    def __init__(self, name: str = "pan") -> None:
        self._name = name
        self._hub = f"{name}hub"
        self._hosts: list[str] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise CannotLink("network namespaces need root: run it with sudo")
        missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
        if missing:
            raise CannotLink(f"{' and '.join(missing)} not found: install iproute2")
        self._remove()
        _run("ip", "netns", "add", self._hub)
        self._in_hub("ip", "link", "add", "bridge", "type", "bridge")
        self._in_hub("ip", "link", "set", "bridge", "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def host(self, rate: int | None = None) -> tuple[str, str]:
        """Add a host.

        Args:
            rate: Bits a second of its link, each way; None: no limit.

        Returns:
            The namespace and the address.
        """
        number = len(self._hosts) + 1
        name, port = f"{self._name}{number}", f"p{number}"
        address = f"{_NET}.{number}"
        self._hosts.append(name)
        _run("ip", "netns", "add", name)
        end = ("peer", "name", "eth0", "netns", name)
        self._in_hub("ip", "link", "add", port, "type", "veth", *end)
        self._in_hub("ip", "link", "set", port, "master", "bridge", "up")
        for words in (
            ("addr", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _run("ip", "-n", name, *words)
        if rate is not None:
            limit = ("tbf", "rate", f"{rate}bit", "burst", _BURST, "latency", _LATENCY)
            _run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", *limit)
            _run("tc", "-n", self._hub, "qdisc", "add", "dev", port, "root", *limit)
        return name, address

    def carried(self, host: str) -> tuple[int, int]:
        """Bytes that a host has sent and received, as the kernel counts them, headers included."""
        counts = []
        for way in ("tx", "rx"):
            path = f"/sys/class/net/eth0/statistics/{way}_bytes"
            counts.append(int(_run("ip", "netns", "exec", host, "cat", path)))
        return counts[0], counts[1]

    def _in_hub(self, tool: str, *words: str) -> None:
        _run(tool, "-n", self._hub, *words)

    def _remove(self) -> None:
        listed = _run("ip", "netns", "list").splitlines()
        for name in (line.split()[0] for line in listed if line):
            if name.startswith(self._name):
                with suppress(CannotLink):
                    _run("ip", "netns", "del", name)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotLink(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def enter(name: str) -> None:
    """Put this process into a namespace. Raises OSError."""
    with Path("/run/netns", name).open("rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), _NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def main() -> None:
    """Run a module in a namespace; both are named on the command line."""
    enter(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
