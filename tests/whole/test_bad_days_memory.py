"""Memory, or a disk, is scarce, and those who use it die; it is neither exceeded nor lost."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc.aio
import pytest

from pantala.core.ledger import MEMORY
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2, dfdaemon_pb2_grpc
from pantala.rpc.transport import channel_options
from pantala.storage.disk import DiskMedium
from pantala.testing.cluster import PATIENCE, Cluster, Node, until
from pantala.testing.origin import Fault, Origin, Pattern

MIB = 1 << 20
CONTENT = Pattern(10 * MIB + 77, seed=1)
OTHER = Pattern(12 * MIB, seed=2)
LARGE = Pattern(20 * MIB, seed=3)


#: Where content is, for each kind.
PLACES = {Kind.CACHE: MEMORY, Kind.STANDARD: DiskMedium.place}


@pytest.fixture
def node(cluster: Cluster, unharmed: None) -> Node:
    """A daemon of so little room that two small files do not fit."""
    del unharmed  # it has said how little
    cluster.scheduler()
    return cluster.daemon("a")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    "fault",
    [Fault(), Fault(no_range=True), Fault(no_range=True, chunked=True)],
    ids=["ranges", "one pass", "no length"],
)
def test_larger_than_the_store(cluster: Cluster, origin: Origin, node: Node, fault: Fault) -> None:
    """Refused with what it needs and what there is; a part that fits is served."""
    origin.put("/f", LARGE)
    origin.fault("/f", fault)
    got = cluster.get(node, origin.url("/f"))
    place = PLACES[cluster.kind]
    assert f"no room {place.name}" in got.refusal
    assert f"capacity {16 * MIB}" in got.refusal
    assert place.advice in got.refusal
    assert got.result["error"]["code"] == "RESOURCE_EXHAUSTED"
    assert node.store()["used"] == 0
    if not fault.chunked:
        part = cluster.get(node, origin.url("/f"), "--range", f"{9 * MIB}-{10 * MIB}")
        assert part.bytes() == LARGE.read(9 * MIB, MIB + 1)
        pieces = {Kind.CACHE: 2 * MIB, Kind.STANDARD: 4 * MIB}
        assert node.store()["used"] == pieces[cluster.kind], "two of 1 MiB, or one of 4"


@pytest.mark.usefixtures("kind")
def test_two_that_do_not_fit(cluster: Cluster, origin: Origin, node: Node) -> None:
    """What is being fetched stays; the other waits for its turn, as long as it is told to."""
    origin.put("/f", CONTENT)
    origin.put("/g", OTHER)
    origin.fault("/f", Fault(rate=8 * MIB))
    download = cluster.begin(node, origin.url("/f"))
    until(lambda: node.store()["leased"], "the first begun")
    line = cluster.get(node, origin.url("/g"), "--timeout", "200ms").refusal
    assert f"s for room for 12582912 bytes {PLACES[cluster.kind].name}" in line
    assert f"{CONTENT.size} in use" in line
    second = cluster.begin(node, origin.url("/g"))
    first = cluster.finish(*download)
    assert first.bytes() == CONTENT.read()
    assert cluster.finish(*second).bytes() == OTHER.read()
    assert first.result["task_id"] not in node.tasks()
    assert node.store()["used"] == OTHER.size


@pytest.mark.usefixtures("kind")
def test_a_reader_that_is_killed(
    cluster: Cluster, origin: Origin, node: Node, tmp_path: Path
) -> None:
    """A program holds a mapping: nothing is taken from it, and nothing is lost with it."""
    origin.put("/f", CONTENT)
    origin.put("/g", OTHER)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    mouth = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # Nobody reads the pipe, so this dfget has its mapping until it is killed.
        reader, path = cluster.begin(node, origin.url("/f"), output=pipe)
        until(
            lambda: [t.HasField("finished_at") for t in node.tasks().values()] == [True],
            "all here",
        )
        assert node.store()["leased"] == CONTENT.size
        refused = cluster.get(node, origin.url("/g"), "--timeout", "200ms").refusal
        assert "in use" in refused
        reader.send_signal(signal.SIGKILL)
        assert cluster.finish(reader, path).code == -signal.SIGKILL
    finally:
        os.close(mouth)
    until(lambda: not node.store()["leased"], "its lease ended by the kernel")
    assert cluster.get(node, origin.url("/g")).bytes() == OTHER.read()


@pytest.mark.usefixtures("kind")
def test_a_reader_of_what_is_deleted(
    cluster: Cluster, origin: Origin, node: Node, tmp_path: Path
) -> None:
    """Its bytes stay what they were until it is done; only then they are given back."""
    origin.put("/f", CONTENT)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    mouth = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    reader, path = cluster.begin(node, origin.url("/f"), output=pipe)
    until(
        lambda: [t.HasField("finished_at") for t in node.tasks().values()] == [True],
        "all here",
    )
    node.delete(next(iter(node.tasks())))
    assert not node.tasks()
    assert node.store()["used"] == CONTENT.size
    origin.put("/f", Pattern(CONTENT.size, seed=7))
    os.set_blocking(mouth, True)
    with os.fdopen(mouth, "rb") as end:
        assert end.read() == CONTENT.read()
    assert cluster.finish(reader, path).code == 0
    until(lambda: not node.store()["used"], "the room given back")


@pytest.mark.usefixtures("kind")
def test_deleted_while_it_is_fetched(cluster: Cluster, origin: Origin, node: Node) -> None:
    """The user reads that it was deleted, and the next has all of it again."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=8 * MIB))
    download = cluster.begin(node, origin.url("/f"))
    (task,) = until(node.tasks, "the download begun")
    node.delete(task)
    assert "was deleted while it was downloaded" in cluster.finish(*download).refusal
    origin.heal("/f")
    assert cluster.get(node, origin.url("/f")).bytes() == CONTENT.read()


@pytest.mark.usefixtures("kind")
def test_a_file_of_no_length_meets_the_limit(cluster: Cluster, origin: Origin, node: Node) -> None:
    """While it grows, others are evicted; those in use are not."""
    origin.put("/f", CONTENT)
    origin.put("/g", OTHER)
    origin.fault("/g", Fault(chunked=True, no_range=True))
    task = cluster.get(node, origin.url("/f")).result["task_id"]
    assert cluster.get(node, origin.url("/g")).bytes() == OTHER.read()
    assert task not in node.tasks()
    assert node.store()["used"] == OTHER.size


async def test_a_thousand_at_once(cluster: Cluster, origin: Origin, node: Node) -> None:
    """One task, cold, on one daemon: everybody has all pieces, the origin is read once."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(rate=20 * MIB))
    target = f"unix:{node.socket}"
    request = dfdaemon_pb2.DownloadCacheTaskRequest(url=origin.url("/f"))
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        stub = dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)

        async def pieces() -> set[int]:
            call = stub.DownloadCacheTask(request, timeout=PATIENCE)
            return {
                message.download_piece_finished_response.piece.number
                async for message in call
                if message.HasField("download_piece_finished_response")
            }

        everybody = await asyncio.gather(*(pieces() for _ in range(1000)))
    assert everybody == [set(range(11))] * 1000
    assert origin.sent("/f") <= CONTENT.size + 1
    got = await asyncio.to_thread(cluster.get, node, origin.url("/f"))
    assert got.bytes() == CONTENT.read()
