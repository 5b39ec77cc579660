"""testing/namespaces.py: a link is as fast as it says, and nothing is left of the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from pantala.testing.namespaces import CannotLink, Network

possible = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc"))), reason="needs root and iproute2"
)

_SERVE = """
import socket
with socket.create_server((ADDRESS, 7000)) as server:
    print("ready", flush=True)
    with server.accept()[0] as sock:
        while sock.recv(1 << 20):
            pass
        sock.sendall(b".")
"""
_SEND = """
import socket
with socket.create_connection((ADDRESS, 7000), timeout=30) as sock:
    sock.sendall(bytes(COUNT))
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)
"""


def _python(host: str, script: str) -> subprocess.Popen[str]:
    words = ["ip", "netns", "exec", host, sys.executable, "-c", script]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@possible
def test_a_link_has_a_limit() -> None:
    """What goes over it takes its time, and is counted."""
    name, count = f"t{os.getpid() % 100000}", 2 << 20
    try:
        network = Network(name).__enter__()
    except CannotLink as error:
        pytest.skip(f"not in this container: {error}")
    try:
        (one, _), (two, address) = network.host(40_000_000), network.host()
        server = _python(two, f"ADDRESS = {address!r}\n{_SERVE}")
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        began = time.monotonic()
        sender = _python(one, f"ADDRESS = {address!r}\nCOUNT = {count}\n{_SEND}")
        assert sender.wait(30) == 0
        assert time.monotonic() - began > 0.9 * count * 8 / 40_000_000
        assert server.wait(30) == 0
        for process in (server, sender):
            assert process.stdout is not None
            process.stdout.close()
        assert network.carried(one)[0] >= count
    finally:
        network.__exit__(None, None, None)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert name not in listed.stdout


def test_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotLink, match="need root"), Network():
        pass
