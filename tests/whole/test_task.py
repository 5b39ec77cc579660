"""The main job: files from the origin once and from peers after that, of every kind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from pantala.model.task import Kind
from pantala.pb import node_pb2, scheduler_pb2
from pantala.rpc.daemon_dialects import DAEMON_DIALECTS
from pantala.testing.cluster import Cluster, Got, Node
from pantala.testing.origin import Fault, Origin, Pattern

pytestmark = pytest.mark.usefixtures("kind")

MIB = 1 << 20
PIECE = 4 * MIB


STAT = {
    Kind.CACHE: ("StatCacheTask", scheduler_pb2.StatCacheTaskRequest),
    Kind.STANDARD: ("StatTask", scheduler_pb2.StatTaskRequest),
}


@pytest.fixture
def swarm(cluster: Cluster) -> tuple[Node, list[Node]]:
    """A scheduler, a seed, and three daemons."""
    cluster.scheduler()
    seed = cluster.daemon("seed", seed=True, wait=False)
    nodes = [cluster.daemon(f"n{i}", wait=False) for i in range(3)]
    for node in (seed, *nodes):
        node.ready = node.wait_for("ready")
    return seed, nodes


def same(got: Got, content: Pattern | bytes) -> None:
    """*got* is *content*, to the byte."""
    assert got.code == 0, got.stderr
    expected = content if isinstance(content, bytes) else content.read()
    assert hashlib.sha256(got.bytes()).digest() == hashlib.sha256(expected).digest()


def test_three_nodes_at_once_and_the_origin_sends_it_once(
    cluster: Cluster, origin: Origin, swarm: tuple[Node, list[Node]]
) -> None:
    """Identical bytes everywhere, one reader at the origin; on a disk only if they belong there."""
    seed, nodes = swarm
    content = Pattern(61 * MIB + 12345, 7)
    origin.put("/model", content)
    before = {node.pid: node.written_to_disk() for node in (seed, *nodes)}

    for got in cluster.get_on_all(
        nodes, origin.url("/model"), "--digest", f"sha256:{content.digest()}"
    ):
        same(got, content)
        assert got.result["bytes_from_origin"] == 0

    # Each node that asks for the length costs a byte.
    assert content.size <= origin.sent("/model") <= content.size + 4
    for node in (seed, *nodes):
        written = node.written_to_disk() - before[node.pid]
        if cluster.kind is Kind.CACHE:
            assert written <= 256 * 1024  # its log
        else:
            assert written >= content.size


@pytest.mark.parametrize(
    ("size", "fault"),
    [
        pytest.param(10_000, None, id="small"),
        pytest.param(0, None, id="empty"),
        pytest.param(PIECE, None, id="one piece"),
        pytest.param(PIECE + 1, None, id="a piece and a byte"),
        pytest.param(9 * MIB, Fault(chunked=True, no_range=True), id="without length"),
        pytest.param(100_000, Fault(chunked=True, no_range=True), id="small without length"),
        pytest.param(0, Fault(chunked=True, no_range=True), id="empty without length"),
        pytest.param(9 * MIB, Fault(no_range=True), id="without ranges"),
    ],
)
def test_after_the_first_node_the_origin_may_be_gone(
    cluster: Cluster,
    origin: Origin,
    swarm: tuple[Node, list[Node]],
    size: int,
    fault: Fault | None,
) -> None:
    """Three nodes one after the other; the origin is asked by the first at most."""
    _, nodes = swarm
    content = Pattern(size, 3)
    origin.put("/file", content)
    if fault is not None:
        origin.fault("/file", fault)

    same(cluster.get(nodes[0], origin.url("/file")), content)
    url = origin.url("/file")
    wait_until_known(cluster, nodes[0], url)
    asked = origin.count()
    origin.stop()

    for node in nodes[1:]:
        same(cluster.get(node, url), content)
    assert origin.count() == asked


def wait_until_known(cluster: Cluster, node: Node, url: str) -> None:
    """Until the scheduler knows a holder: what was announced afterwards takes a moment."""
    task_id = cluster.get(node, url).result["task_id"]
    deadline = time.monotonic() + 10
    with grpc.insecure_channel(f"127.0.0.1:{cluster.scheduler_port}") as channel:
        stub = cluster.scheduler_stub(channel)
        while time.monotonic() < deadline:
            try:
                method, request = STAT[cluster.kind]
                task = getattr(stub, method)(request(task_id=task_id))
            except grpc.RpcError:
                continue
            if task.has_available_peer:
                return
    raise AssertionError(f"nobody holds {url}")


def test_a_range_on_three_nodes(
    cluster: Cluster, origin: Origin, swarm: tuple[Node, list[Node]]
) -> None:
    """Only the pieces that it touches are fetched, once; later nodes have them from peers."""
    _, nodes = swarm
    content = Pattern(40 * MIB, 5)
    origin.put("/big", content)
    part = content.read(9 * MIB, 6 * MIB)

    same(cluster.get(nodes[0], origin.url("/big"), "--range", f"{9 * MIB}-{15 * MIB - 1}"), part)
    assert origin.sent("/big") <= 2 * PIECE + 2
    sent, url = origin.sent("/big"), origin.url("/big")
    origin.stop()
    for node in nodes[1:]:
        same(cluster.get(node, url, "--range", f"{9 * MIB}-{15 * MIB - 1}"), part)
    assert origin.sent("/big") == sent


def test_prefetch_brings_the_rest(cluster: Cluster, origin: Origin) -> None:
    """A range with --prefetch is answered at once; later the whole is here."""
    node = cluster.daemon("alone")
    content = Pattern(20 * MIB, 9)
    origin.put("/big", content)
    got = cluster.get(node, origin.url("/big"), "--range", "-1000", "--prefetch")
    same(got, content.read(20 * MIB - 1000, 1000))

    same(cluster.get(node, origin.url("/big")), content)
    # And a byte for each that asks for the length, or whether it is still the same.
    assert origin.sent("/big") <= content.size + 3


def test_the_seed_dies_in_the_middle(
    cluster: Cluster, origin: Origin, swarm: tuple[Node, list[Node]]
) -> None:
    """Its children go on; one of them asks the origin for what is missing."""
    seed, nodes = swarm
    content = Pattern(48 * MIB, 11)
    origin.put("/model", content)
    origin.fault("/model", Fault(rate=6 * MIB))
    begun = [cluster.begin(node, origin.url("/model")) for node in nodes]
    while origin.sent("/model") < 10 * MIB:
        assert all(process.poll() is None for process, _ in begun)
    seed.kill()
    for each in begun:
        same(cluster.finish(*each), content)


def test_without_any_scheduler(cluster: Cluster, origin: Origin) -> None:
    """A daemon alone serves its machine: the second reader has it from there."""
    node = cluster.daemon("alone", scheduler=False)
    content = Pattern(10 * MIB, 2)
    origin.put("/model", content)
    same(cluster.get(node, origin.url("/model")), content)
    origin.stop()
    got = cluster.get(node, f"http://127.0.0.1:{origin.port}/model")
    same(got, content)
    assert got.result["bytes_from_cache"] == content.size


def test_grpc_clients(cluster: Cluster, origin: Origin, tmp_path: Path) -> None:
    """The contract's own way: events, content inside messages, a file written for the caller."""
    node = cluster.daemon("alone", config={"download": {"server": {"allowOutputPath": True}}})
    content = Pattern(9 * MIB, 4)
    origin.put("/model", content)
    with node.channel() as channel:
        stub = node.download_stub(channel)
        dialect = DAEMON_DIALECTS[cluster.kind]
        request = dialect.message("Download{}TaskRequest")()
        wanted = dialect.wanted(request) if dialect.download is None else request.download
        wanted.url = origin.url("/model")
        wanted.need_piece_content = True
        wanted.output_path = str(tmp_path / "copy")
        wanted.digest = f"sha256:{content.digest()}"
        messages = list(getattr(stub, dialect.name("Download{}Task"))(request))
        started = getattr(messages[0], dialect.started)
        assert started.content_length == content.size
        count = {Kind.CACHE: 9, Kind.STANDARD: 3}[cluster.kind]
        assert [p.number for p in started.pieces] == list(range(count))
        pieces = sorted(
            (m.download_piece_finished_response.piece for m in messages[1:]),
            key=lambda piece: piece.number,
        )
        assert b"".join(p.content for p in pieces) == content.read()
        assert (tmp_path / "copy").read_bytes() == content.read()

        listed = node.node_stub(channel).ListTasks(node_pb2.ListTasksRequest())
        (task,) = listed.tasks
        assert (task.finished_piece_count, task.content_length) == (count, content.size)
        assert task.id == messages[0].task_id
        named = {"task_id": task.id}
        stat = getattr(stub, dialect.name("Stat{}Task"))(
            dialect.message("Stat{}TaskRequest")(**named)
        )
        assert (stat.content_length, stat.has_available_peer) == (content.size, True)
        getattr(stub, dialect.name("Delete{}Task"))(dialect.message("Delete{}TaskRequest")(**named))
        assert not node.node_stub(channel).ListTasks(node_pb2.ListTasksRequest()).tasks


def test_a_machine_with_nothing_running(cluster: Cluster, origin: Origin, tmp_path: Path) -> None:
    """Dfget starts a personal daemon, says so, and works."""
    content = Pattern(70 * MIB, 8)  # more than a stock daemon's cache
    origin.put("/model", content)
    # Short, as a socket's path must be.
    env = {name: str(cluster.directory) for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-m", "pantala.cli.dfget", origin.url("/model")]
    command += ["--cache"] if cluster.kind is Kind.CACHE else []
    done = subprocess.run(
        [*command, "-O", str(tmp_path / "out")],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "started a personal one" in done.stderr
    assert (tmp_path / "out").read_bytes() == content.read()
    pid = int(done.stderr.split("pid ")[1].split(",")[0])
    os.kill(pid, 15)
