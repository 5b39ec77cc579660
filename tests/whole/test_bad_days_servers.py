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


def test_strangers_write_no_log(cluster: Cluster) -> None:
    """Neither headers that are no UTF-8, which may be secrets, nor messages that are none."""
    scheduler = cluster.scheduler()
    target = f"127.0.0.1:{cluster.scheduler_port}"
    before = len(scheduler.log)
    head = raw.request_head(b"/scheduler.v2.Scheduler/StatCacheTask", (b"x", b"\xffsecret" * 500))
    call = raw.frame(raw.HEADERS, raw.END_HEADERS, 1, head)
    call += raw.frame(raw.DATA, raw.END_STREAM, 1, b"\0\0\0\0\0")
    for _ in range(20):
        for hello in (call, raw.call(b"/grpc.health.v1.Health/Check", message=b"\xff" * 100)):
            with raw.Connection(target) as connection:
                connection.send(raw.HELLO + hello)
                assert b"grpc-status" in connection.answer()
    assert len(scheduler.log) - before < 10_000
    assert "secret" not in scheduler.log
    assert not scheduler.errors
