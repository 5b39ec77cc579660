"""One address opens connection after connection to every port, and says nothing."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pantala.testing.cluster import Cluster, Node
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

MIB = 1 << 20

#: Descriptors of a daemon, and connections that are opened to each of its ports: more than it has
#: descriptors.
DESCRIPTORS = 512
CROWD = 700

#: Read by each Python that starts with its directory in PYTHONPATH.
_POOR = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS},) * 2)\n"


@contextlib.contextmanager
def crowd(port: int) -> Iterator[None]:
    """Idle connections from an address that nobody else has."""
    with ExitStack() as stack:
        for _ in range(CROWD):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0)
            sock.bind(("127.0.0.9", 0))
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", port))
        yield


def healthy(node: Node) -> bool:
    """What a liveness probe finds, in the second that it has."""
    port = node.ports["health"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthy", timeout=10) as answer:
        return bool(answer.status == 200)


@pytest.fixture
def poor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs started from now on have few descriptors."""
    (tmp_path / "sitecustomize.py").write_text(_POOR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("poor")
def test_a_crowd_at_every_port(cluster: Cluster, origin: Origin) -> None:
    """Callers from other addresses are served as ever, and nobody takes the node for dead."""
    scheduler = cluster.scheduler()
    first, second = cluster.daemons("a", "b")
    content = Pattern(20 * MIB)
    origin.put("/f", content)
    with ExitStack() as stack:
        for port in (*first.ports.values(), cluster.scheduler_port):
            stack.enter_context(crowd(port))
        for node in (first, second):
            assert cluster.get(node, origin.url("/f")).bytes() == content.read()
        assert healthy(first)
        assert origin.sent("/f") < content.size + MIB
    for program in (scheduler, first, second):
        assert program.alive
        assert "Too many open files" not in program.log
        assert "scheduler does not answer" not in program.log
