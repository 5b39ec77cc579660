"""``dfget --refresh``: what the origin has now, whatever is here and elsewhere."""

from __future__ import annotations

from typing import cast

import grpc
import pytest

from pantala.model.ids import task_id
from pantala.pb import common_pb2, node_pb2
from pantala.testing.cluster import PATIENCE, Cluster, Node
from pantala.testing.kept_client import KeptClient
from pantala.testing.origin import Fault, Origin, Pattern

MIB = 1 << 20
SIZE = 6 * MIB + 77
OLD, NEW = Pattern(SIZE, seed=1), Pattern(SIZE, seed=2)

#: Headers of an origin that names no version.
UNNAMED = {"ETag": "", "Last-Modified": ""}


def refresh_on_all(cluster: Cluster, origin: Origin, nodes: list[Node], content: Pattern) -> int:
    """All ask at once, and have *content*; how much of it the origin has sent meanwhile.

    Questions what it has cost a byte each, which does not count.
    """
    origin.reset()
    for got in cluster.get_on_all(nodes, origin.url("/f"), "--refresh"):
        assert got.bytes() == content.read()
    probes = sum(seen.headers.get("range") == "bytes=0-0" for seen in origin.requests)
    assert 0 < probes <= len(nodes) + 1  # a seed asks, too
    return origin.sent("/f") - probes


def have(cluster: Cluster, origin: Origin, nodes: list[Node], content: Pattern) -> None:
    """All have *content* of the origin."""
    for node in nodes:
        assert cluster.get(node, origin.url("/f")).bytes() == content.read()


@pytest.mark.usefixtures("kind")
def test_one_node(cluster: Cluster, origin: Origin) -> None:
    """Unchanged: a byte is asked for. Changed: all of it, once, and then for everybody here."""
    node = cluster.daemon("a")
    origin.put("/f", OLD)
    have(cluster, origin, [node], OLD)
    assert refresh_on_all(cluster, origin, [node], OLD) == 0
    origin.put("/f", NEW)
    assert refresh_on_all(cluster, origin, [node], NEW) == SIZE
    assert cluster.get(node, origin.url("/f")).bytes() == NEW.read()


@pytest.mark.usefixtures("kind", "scheduler")
def test_hosts_that_ask_at_once(cluster: Cluster, origin: Origin) -> None:
    """The new content is read once for all; one question at a time, that many share."""
    nodes = cluster.daemons(*(f"n{i}" for i in range(5)))
    origin.put("/f", OLD)
    have(cluster, origin, nodes, OLD)
    assert refresh_on_all(cluster, origin, nodes, OLD) == 0
    origin.put("/f", NEW)
    assert refresh_on_all(cluster, origin, nodes, NEW) == SIZE
    assert refresh_on_all(cluster, origin, nodes, NEW) == 0


@pytest.mark.usefixtures("scheduler")
def test_many_hold_the_old_one(cluster: Cluster, origin: Origin) -> None:
    """None of them is given to those who want the new one, who would ask each in vain."""
    few = {"scheduler": {"maxScheduleCount": 1}}
    old, nodes = cluster.daemons(*"abcdef"), cluster.daemons(*"xyz", config=few)
    origin.put("/f", OLD)
    have(cluster, origin, [*old, *nodes], OLD)
    origin.put("/f", NEW)
    assert refresh_on_all(cluster, origin, nodes, NEW) == SIZE
    assert not any("parent left out" in node.log for node in nodes)
    assert cluster.get(old[0], origin.url("/f")).bytes() == OLD.read()
    # Who asks now has it from them.
    assert refresh_on_all(cluster, origin, old[:2], NEW) == 0


@pytest.mark.usefixtures("kind", "scheduler")
def test_a_seed_holds_the_old_one(cluster: Cluster, origin: Origin) -> None:
    """It is no way to the new one; or is, where its kind is compared each time."""
    cluster.daemon("s", seed=True)
    nodes = cluster.daemons("a", "b")
    origin.put("/f", OLD)
    have(cluster, origin, nodes, OLD)
    origin.put("/f", NEW)
    assert refresh_on_all(cluster, origin, nodes, NEW) == SIZE


@pytest.mark.usefixtures("kind", "scheduler")
@pytest.mark.parametrize("fault", [Fault(), Fault(chunked=True, no_range=True)])
def test_no_version_is_named(cluster: Cluster, origin: Origin, fault: Fault) -> None:
    """Nobody has what some other reading has brought, though it is as long."""
    nodes = cluster.daemons("a", "b", "c")
    origin.put("/f", OLD, headers=UNNAMED)
    origin.fault("/f", fault)
    have(cluster, origin, nodes, OLD)
    origin.put("/f", NEW, headers=UNNAMED)
    before = origin.sent("/f")
    for got in cluster.get_on_all(nodes[:2], origin.url("/f"), "--refresh"):
        assert got.bytes() == NEW.read()
    assert origin.sent("/f") - before <= 3 * SIZE


@pytest.mark.usefixtures("kind")
def test_the_origin_is_down(cluster: Cluster, origin: Origin) -> None:
    """One line says that nothing could be compared; what is here stays."""
    node = cluster.daemon("a")
    origin.put("/f", OLD)
    have(cluster, origin, [node], OLD)
    origin.pause()
    said = cluster.get(node, origin.url("/f"), "--refresh").refusal
    assert "cannot be compared with what is here" in said
    assert cluster.get(node, origin.url("/f")).bytes() == OLD.read()
    origin.resume()
    assert refresh_on_all(cluster, origin, [node], OLD) == 0


def test_readers_of_the_old_one(cluster: Cluster, origin: Origin) -> None:
    """They keep it while another has the new one."""
    node = cluster.daemon("a")
    origin.put("/f", OLD)
    have(cluster, origin, [node], OLD)
    with KeptClient(node.handoff) as reader:
        reader.ask(url=origin.url("/f"))
        reader.events()
        origin.put("/f", NEW)
        assert refresh_on_all(cluster, origin, [node], NEW) == SIZE
        with open(reader.fds[0], "rb", closefd=False) as segment:
            assert segment.read() == OLD.read()


def test_what_is_small_and_at_hand(cluster: Cluster, origin: Origin) -> None:
    """A connection that carries many requests answers none of these by what is here."""
    node = cluster.daemon("a")
    origin.put("/f", b"old")
    with KeptClient(node.handoff) as client:
        for content in (b"old", b"new"):
            origin.put("/f", content)
            for _ in range(2):
                client.ask(url=origin.url("/f"), refresh=True)
                told: list[str] = []
                came = b""
                while not told or told[-1] not in {"done", "error", "whole"}:
                    event = client.event()
                    told.append(event.told["event"])
                    came += event.content
                assert (told[-1], came) == ("done", content)
            assert client.get(origin.url("/f")) == content
        client.ask(url=origin.url("/f"), refresh=True, disable_back_to_source=True)
        (refused,) = client.events()
        assert refused["code"] == "INVALID_ARGUMENT"


@pytest.mark.usefixtures("kind")
def test_over_grpc(cluster: Cluster, origin: Origin) -> None:
    """A call of our own, since the contract has no word for it."""
    node = cluster.daemon("a")
    origin.put("/f", OLD)
    have(cluster, origin, [node], OLD)
    wanted = common_pb2.Download(url=origin.url("/f"))
    wanted.type = cast("common_pb2.TaskType.ValueType", cluster.kind.value)
    with node.channel() as channel:
        refresh = node.node_stub(channel).RefreshTask
        request = node_pb2.RefreshTaskRequest(download=wanted)
        answer = refresh(request, timeout=PATIENCE)
        assert answer.task_id == task_id(cluster.kind, origin.url("/f"))
        assert (answer.content_length, answer.bytes_from_cache) == (SIZE, SIZE)
        origin.put("/f", NEW)
        answer = refresh(request, timeout=PATIENCE)
        assert (answer.bytes_from_origin, answer.bytes_from_cache) == (SIZE, 0)
        for field, value in (("output_path", "/x"), ("disable_back_to_source", True)):
            request = node_pb2.RefreshTaskRequest(download=wanted)
            setattr(request.download, field, value)
            with pytest.raises(grpc.RpcError) as caught:
                refresh(request, timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert cluster.get(node, origin.url("/f")).bytes() == NEW.read()
