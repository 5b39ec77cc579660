"""What ends a gRPC server, and what a moment of many calls does."""

from __future__ import annotations

import pytest

from pantala.testing import raw_http2 as raw
from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin, Pattern

pytestmark = pytest.mark.usefixtures("unharmed")

CONTENT = Pattern(300_000, seed=6)


def test_a_path_of_any_bytes_ends_no_server(cluster: Cluster, origin: Origin) -> None:
    """On the scheduler's port, a daemon's and its socket: all serve afterwards."""
    cluster.scheduler()
    one, two = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    targets = (
        f"127.0.0.1:{cluster.scheduler_port}",
        f"127.0.0.1:{one.ports['upload']}",
        f"unix:{one.socket}",
    )
    for target in targets:
        for _ in range(2):
            with raw.Connection(target) as connection:
                connection.send(raw.HELLO + raw.call(b"/\xff\xfe"))
                assert b"grpc-status\x0212" in connection.answer()
    assert cluster.get(one, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    assert cluster.get(two, origin.url("/f")).result["bytes_from_peers"] == CONTENT.size
    assert len(one.tasks()) == 1
