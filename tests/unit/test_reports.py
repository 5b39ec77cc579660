"""rpc/reporting.py and scheduler/reports.py: pieces in batches, as a scheduler takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from pantala.model.announce import PieceSum, Registration
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2, reporting_pb2, reporting_pb2_grpc
from pantala.rpc.reporting import piece_sums, pieces_request
from pantala.scheduler.announce_streams import AnnounceStream
from pantala.scheduler.app import Scheduler
from pantala.scheduler.reports import ReportService
from pantala.testing import inside
from pantala.testing.announce import Peer, Swarm, swarm, until
from pantala.testing.content import Pattern
from pantala.testing.inside import get
from pantala.testing.origin import Origin
from pantala.testing.stage import MIB, task_id

PIECE = 4 * MIB

# The wire


@given(
    st.dictionaries(
        st.none() | st.text(min_size=1, max_size=9),
        st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 10**6)),
        max_size=5,
    )
)
def test_a_batch_on_the_wire(sums: dict[str | None, tuple[int, int, int]]) -> None:
    """What is told is what is heard."""
    peer = Registration("h", "t", "p", DownloadRequest(Kind.STANDARD, "http://o/f"))
    told = tuple(
        PieceSum(parent, count, length, micros / 1e6)
        for parent, (count, length, micros) in sums.items()
    )
    message = pieces_request(peer, 7, told)
    heard = reporting_pb2.PiecesRequest.FromString(message.SerializeToString())
    assert (heard.host_id, heard.task_id, heard.peer_id) == ("h", "t", "p")
    assert (heard.type, heard.number) == (common_pb2.STANDARD, 7)
    assert piece_sums(heard, 0, 0) == told


# The scheduler


def counted(scheduler: Scheduler) -> dict[tuple[str, str], float]:
    """Pieces, and their bytes, by traffic, of peers of all kinds."""
    registry: CollectorRegistry = scheduler._metrics.registry
    names = {
        "dragonfly_scheduler_download_piece_finished_total": ("pieces", "traffic_type"),
        "dragonfly_scheduler_traffic": ("bytes", "type"),
    }
    found: dict[tuple[str, str], float] = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name in names:
                what, label = names[sample.name]
                key = what, sample.labels[label]
                found[key] = found.get(key, 0) + sample.value
    return found


def known(scheduler: Scheduler, peer: Peer) -> Any:
    """What the scheduler knows of a peer."""
    return scheduler._world.peers[Kind.CACHE, peer.id]


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Swarm, Peer, Peer, Any]]:
    """A scheduler; one at the origin, its child, both of a task of three pieces; its stub."""
    async with swarm() as s:
        await s.hosts("a", "b")
        source = await s.source("a")
        child = await s.child("b")
        yield s, source, child, reporting_pb2_grpc.ReportsStub(s.channel)


Sums = dict[str, tuple[int, int, float]]


def batch(peer: Peer, sums: Sums, number: int = 1) -> Any:
    """A batch of *peer*: of each parent pieces, bytes and seconds; ``""`` is the origin."""
    message = reporting_pb2.PiecesRequest(
        host_id=peer.ids["host_id"],
        type=common_pb2.CACHE,
        task_id=peer.ids["task_id"],
        peer_id=peer.id,
        number=number,
    )
    for parent, (count, length, cost) in sums.items():
        told = message.pieces.add(parent_id=parent, count=count, bytes=length)
        told.cost.FromMicroseconds(round(cost * 1e6))
    return message


async def test_as_if_each_had_been_told(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """It gets on, so does its parent, who is blamed for nothing any more; all is counted."""
    s, source, child, stub = scene
    parent, peer = known(s.scheduler, source), known(s.scheduler, child)
    parent.accusers.add("x")
    peer.piece_at = parent.updated_at = parent.host.updated_at = 0.0
    await stub.Pieces(batch(child, {source.id: (2, 2 * PIECE, 0.5), "gone": (1, 5, 0.25)}))
    await stub.Pieces(batch(source, {"": (3, 10 * MIB, 0.125)}))
    assert list(peer.costs._costs) == [0.5, 0.25]
    assert list(parent.costs._costs) == [0.125]
    assert not parent.accusers
    assert min(peer.piece_at, parent.piece_at, parent.updated_at, parent.host.updated_at) > 0
    assert counted(s.scheduler) == {
        ("pieces", "REMOTE_PEER"): 3,
        ("bytes", "REMOTE_PEER"): 2 * PIECE + 5,
        ("pieces", "BACK_TO_SOURCE"): 3,
        ("bytes", "BACK_TO_SOURCE"): 10 * MIB,
    }


async def test_what_is_told_twice_counts_once(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """The number of the batch tells."""
    s, source, child, stub = scene
    for number in (1, 1, 2, 1):
        await stub.Pieces(batch(child, {source.id: (1, PIECE, 0.5)}, number))
    assert counted(s.scheduler)["pieces", "REMOTE_PEER"] == 2


Spoil = Callable[[Any], None]


def _set(**fields: Any) -> Spoil:
    return lambda message: message.MergeFrom(type(message)(**fields))


def _piece(**fields: Any) -> Spoil:
    def spoil(message: Any) -> None:
        told = message.pieces[0]
        for name, value in fields.items():
            told.ClearField(name)
            told.MergeFrom(type(told)(**{name: value}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (_set(peer_id="x"), "NOT_FOUND", "peer x is not known here"),
        (_set(host_id="x"), "NOT_FOUND", "host x is not known here"),
        (_set(host_id="a"), "NOT_FOUND", "is not known here as one of host a"),
        (_set(task_id=task_id("other")), "NOT_FOUND", "is not known here as one of host b"),
        (lambda m: m.ClearField("type"), "NOT_FOUND", "is not known here"),
        (lambda m: m.ClearField("number"), "INVALID_ARGUMENT", "number 0"),
        (lambda m: m.pieces.add().CopyFrom(m.pieces[0]), "INVALID_ARGUMENT", "one entry"),
        (_piece(count=0), "INVALID_ARGUMENT", "0 pieces of p"),
        (_piece(count=4), "INVALID_ARGUMENT", "4 pieces: the task has 3"),
        (_piece(bytes=PIECE + 1), "INVALID_ARGUMENT", "bytes in 1 pieces of p"),
        (_piece(cost=Duration(seconds=-1)), "INVALID_ARGUMENT", "-1 s for a piece of p"),
    ],
)
async def test_what_cannot_be(
    scene: tuple[Swarm, Peer, Peer, Any], spoil: Spoil, code: str, says: str
) -> None:
    """One line says why, and nothing has changed."""
    s, _, child, stub = scene
    message = batch(child, {"p": (1, PIECE, 0.5)})
    spoil(message)
    peer = known(s.scheduler, child)
    before = peer.piece_at
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Pieces(message)
    assert refused.value.code().name == code
    said = refused.value.details() or ""
    assert says in said
    assert "\n" not in said
    assert (peer.piece_at, peer.batch, len(peer.costs)) == (before, 0, 0)
    assert not counted(s.scheduler)


async def test_anothers_host(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """Nobody speaks for it."""
    s, _, child, stub = scene
    with pytest.raises(grpc.aio.AioRpcError, match="host b is another daemon's") as refused:
        await stub.Pieces(batch(child, {"p": (1, PIECE, 0.5)}), metadata=(("pantala-secret", "x"),))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not counted(s.scheduler)


async def test_of_one_that_is_through(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """Its last word was the last."""
    s, _, child, stub = scene
    await child.finished()
    with pytest.raises(grpc.aio.AioRpcError, match="is through") as refused:
        await stub.Pieces(batch(child, {"p": (1, PIECE, 0.5)}))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not counted(s.scheduler)


# Digests


async def test_digests(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """Of whom was sent to the origin; in parts, to peers that are through as well."""
    s, source, child, stub = scene
    known(s.scheduler, source).was_sent = True
    message = batch(source, {"": (3, 10 * MIB, 0.125)})
    message.version = "v"
    message.read.add(first=0, crc32=[5, 6, 7])
    assert await stub.Pieces(message) == reporting_pb2.PiecesResponse()
    await child.finished()
    question = batch(child, {}, number=0)
    assert await stub.Pieces(question) == reporting_pb2.PiecesResponse()
    question.lacks.add(first=1, count=2)
    answer = await stub.Pieces(question)
    assert (answer.version, [(d.first, list(d.crc32)) for d in answer.digests]) == (
        "v",
        [(1, [6, 7])],
    )
    again = batch(source, {"": (1, PIECE, 0.125)}, number=2)
    again.version = "v"
    again.read.add(first=1, crc32=[9])
    answer = await stub.Pieces(again)
    assert [(d.first, list(d.crc32)) for d in answer.digests] == [(1, [6])]


async def test_a_version(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """What a peer has is known from then on to be of it."""
    s, source, _, stub = scene
    message = batch(source, {"": (1, PIECE, 0.125)})
    message.version = "v"
    await stub.Pieces(message)
    assert known(s.scheduler, source).version == "v"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: m.read.add(first=2, crc32=[1, 2]), "digest of piece 3: the task has 3"),
        (lambda m: m.read.add(first=0), "no pieces"),
        (lambda m: [m.read.add(first=n, crc32=[1]) for n in (1, 0)], "out of order"),
        (lambda m: m.lacks.add(first=0, count=0), "no pieces"),
        (_set(version="x" * 4097), "version: 4097 characters"),
    ],
)
async def test_digests_that_cannot_be(
    scene: tuple[Swarm, Peer, Peer, Any], spoil: Spoil, says: str
) -> None:
    """Nothing of the batch counts then."""
    s, source, _, stub = scene
    known(s.scheduler, source).was_sent = True
    message = batch(source, {"": (1, PIECE, 0.125)})
    message.version = "v"
    spoil(message)
    with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
        await stub.Pieces(message)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not counted(s.scheduler)
    assert not s.scheduler._world.digests._tasks


async def test_digests_without_a_batch(scene: tuple[Swarm, Peer, Peer, Any]) -> None:
    """What was read is told with what has come."""
    _, source, _, stub = scene
    message = batch(source, {}, number=0)
    message.read.add(first=0, crc32=[1])
    with pytest.raises(grpc.aio.AioRpcError, match="number 0"):
        await stub.Pieces(message)


# Daemons


async def _unimplemented(_self: object, _request: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
async def test_daemons(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stock: bool
) -> None:
    """Nothing is lost: the sums are those of the content, in few words or in many."""
    words: list[str] = []
    hear, take = AnnounceStream._hear_of_piece, ReportService.Pieces

    def counting(self: Any, *args: Any) -> None:
        words.append("piece")
        hear(self, *args)

    async def taking(self: Any, request: Any, context: Any) -> Any:
        words.append("batch")
        return await take(self, request, context)

    monkeypatch.setattr(AnnounceStream, "_hear_of_piece", counting)
    monkeypatch.setattr(ReportService, "Pieces", _unimplemented if stock else taking)
    content = Pattern(32 * MIB + 5, seed=1)
    origin.put("/f", content)
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(inside.scheduler())
        links: list[Any] = []
        for name in "ab":
            daemon = inside.daemon(tmp_path, name, port=scheduler.port)
            d = await stack.enter_async_context(daemon)
            links.extend(d.node.schedulers)
            assert await get(d, origin.url("/f"), piece_length=PIECE) == content.read()

        async def all_is_counted() -> bool:
            return counted(scheduler) == {
                ("pieces", "BACK_TO_SOURCE"): 9,
                ("bytes", "BACK_TO_SOURCE"): content.size,
                ("pieces", "REMOTE_PEER"): 9,
                ("bytes", "REMOTE_PEER"): content.size,
            }

        await until(all_is_counted)
        assert [link.reports.understood for link in links] == [not stock] * 2
    assert ("batch" in words) is not stock
    assert len(words) == 18 if stock else len(words) < 18
