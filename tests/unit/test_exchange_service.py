"""daemon/serving/exchange_service.py: children that exchange, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from pantala.core.transfer import GONE
from pantala.core.window import Window
from pantala.daemon.app import Daemon
from pantala.daemon.serving import exchange_service, services
from pantala.model.digest import crc32, piece_digest
from pantala.model.numbers import MAX_NUMBERS, bits_of
from pantala.model.task import Kind, TaskRecord, Traffic
from pantala.pb import exchange_pb2, exchange_pb2_grpc
from pantala.ports import fill
from pantala.rpc import service
from pantala.rpc.parent_link import CLOCK_KEY, VERSION_KEY
from pantala.rpc.transport import channel_options
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.testing import inside
from pantala.testing.cluster import PATIENCE

TASK = "a" * 64
PIECES = 6
LENGTH = 100


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A task of six pieces is on its way to it; none is here."""
    async with inside.daemon(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def holding(daemon: Daemon) -> Holding:
    """What it has of the task."""
    record = TaskRecord(
        kind=Kind.CACHE,
        id=TASK,
        url="u",
        created_at=0.0,
        updated_at=0.0,
        content_length=PIECES * LENGTH,
        piece_length=LENGTH,
        version="1",
    )
    holding = daemon.stores[Kind.CACHE].open(record)
    holding.reserve(range(PIECES))
    holding.coming = frozenset(range(PIECES))
    return holding


@pytest.fixture
async def stub(daemon: Daemon) -> AsyncIterator[Any]:
    """How children talk to it."""
    target = f"127.0.0.1:{daemon.ports['upload']}"
    async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
        yield exchange_pb2_grpc.ExchangeStub(channel)


def bring(holding: Holding, number: int) -> None:
    """A piece comes."""
    data = bytes(LENGTH)
    claim = holding.claim(number)
    fill(claim.sink, data)
    claim.publish(piece_digest(crc32(data)), parent_id=None, traffic=Traffic.BACK_TO_SOURCE)


def words(**parts: Any) -> Any:
    """A child's first."""
    first = {"host_id": "h", "task_id": TASK, "type": Kind.CACHE.value, "room": 4}
    lacks = [exchange_pb2.Run(first=0, count=PIECES)]
    return exchange_pb2.FollowRequest(**{**first, "lacks": lacks, **parts})


async def follow(stub: Any, first: Any = None) -> Any:
    """A child's stream, once the parent has said what it is."""
    call = stub.Follow()
    await call.write(first or words())
    hello = await call.read()
    assert (hello.content_length, hello.piece_length) == (PIECES * LENGTH, LENGTH)
    assert (hello.ip, hello.tcp_port > 0) == ("127.0.0.1", True)
    return call


async def offers(call: Any) -> int:
    """The next that is offered; words that only say that the host lives are passed over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            message = await call.read()
            if message is grpc.aio.EOF:
                return -1
            if message.offers:
                return bits_of((run.first, run.count) for run in message.offers)


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a stream ends, whatever comes before."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return await call.code(), await call.details()


async def nothing_is_kept(daemon: Daemon, holding: Holding) -> None:
    """Until the server has heard that its children are gone."""
    async with asyncio.timeout(PATIENCE):
        while holding.lease_count or daemon.uploads.exchange.slots:  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.01)  # between two looks


async def test_one_child_is_offered_what_comes(stub: Any, holding: Holding) -> None:
    """What is here at once, the rest as it comes; the end when nothing more will."""
    bring(holding, 0)
    call = await follow(stub)
    metadata = dict(await call.initial_metadata())
    assert metadata[VERSION_KEY] == "1"
    assert float(metadata[CLOCK_KEY]) > 0
    assert await offers(call) == 0b000001
    bring(holding, 4)
    assert await offers(call) == 0b010000
    for number in (1, 2, 3, 5):
        bring(holding, number)
    got = 0
    while got != 0b101110:
        got |= await offers(call)
    await call.write(exchange_pb2.FollowRequest(has=[exchange_pb2.Run(first=0, count=PIECES)]))
    holding.coming = frozenset()
    assert await offers(call) == -1
    assert await call.code() is grpc.StatusCode.OK


async def test_two_children_get_different_pieces(
    stub: Any, daemon: Daemon, holding: Holding
) -> None:
    """Each hears of its own first, and of the other's when there is nothing else to give."""
    daemon.uploads.exchange.slots = Window(2, 2, first=2)
    one, other = await follow(stub), await follow(stub)
    for number in (3, 5):
        bring(holding, number)
    first, second = await offers(one), await offers(other)
    assert {first, second} == {0b001000, 0b100000}
    assert (await offers(one), await offers(other)) == (second, first)
    for call in (one, other):
        call.cancel()
    await nothing_is_kept(daemon, holding)


async def test_what_a_child_has_is_told_to_whoever_brings_the_task(
    stub: Any, holding: Holding
) -> None:
    """From its first word on, by its own name, and its address; and when it is gone."""
    told: asyncio.Queue[tuple[str, str, int, int]] = asyncio.Queue()
    holding.on_told = lambda *words: told.put_nowait(words)
    run = exchange_pb2.Run
    call = await follow(
        stub, words(peer_id="p", lacks=[run(first=0, count=3)], has=[run(first=3, count=1)])
    )
    async with asyncio.timeout(PATIENCE):
        assert await told.get() == ("p", "127.0.0.1", 0, 0b1000)
        await call.write(exchange_pb2.FollowRequest(has=[run(first=0, count=1)]))
        assert await told.get() == ("p", "127.0.0.1", 0, 0b0001)
        await call.write(exchange_pb2.FollowRequest(lacks=[run(first=0, count=1)]))
        assert await told.get() == ("p", "127.0.0.1", 0b0001, 0)
        call.cancel()
        assert await told.get() == ("p", "127.0.0.1", GONE, 0)


async def test_what_a_child_wants_later_is_not_offered(stub: Any, holding: Holding) -> None:
    """Until it lacks it; nor is it through before, though nothing more comes here."""
    for number in range(3):
        bring(holding, number)
    holding.coming = frozenset()
    run = exchange_pb2.Run
    later = [run(first=0, count=2)]
    call = await follow(stub, words(lacks=[run(first=2, count=1)], has=later, later=later))
    assert await offers(call) == 0b100
    await call.write(exchange_pb2.FollowRequest(has=[run(first=2, count=1)]))
    await call.write(exchange_pb2.FollowRequest(lacks=[run(first=1, count=1)]))
    assert await offers(call) == 0b010
    await call.write(exchange_pb2.FollowRequest(has=later))
    assert await offers(call) == -1


async def test_a_word_now_and_then(stub: Any, holding: Holding) -> None:
    """Nothing to offer: the child hears that its parent lives."""
    assert holding.coming
    call = await follow(stub)
    async with asyncio.timeout(PATIENCE):
        message = await call.read()
    assert message == exchange_pb2.FollowResponse()
    call.cancel()


@pytest.mark.parametrize(
    ("first", "code", "why"),
    [
        (words(task_id="../x"), grpc.StatusCode.INVALID_ARGUMENT, "task id"),
        (words(task_id="b" * 64), grpc.StatusCode.NOT_FOUND, "b" * 64),
        (words(type=99), grpc.StatusCode.INVALID_ARGUMENT, "99"),
        (
            words(lacks=[exchange_pb2.Run(first=MAX_NUMBERS, count=1)]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "at most",
        ),
        (
            words(lacks=[exchange_pb2.Run(first=1, count=1)] * (1 << 16)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "out of order",
        ),
    ],
)
async def test_strange_first_words(
    stub: Any, holding: Holding, first: Any, code: grpc.StatusCode, why: str
) -> None:
    """One line, and nothing has changed."""
    call = stub.Follow()
    await call.write(first)
    found, details = await ended(call)
    assert found is code, details
    assert why in details
    assert holding.lease_count == 0


async def test_pieces_that_there_are_not(stub: Any, daemon: Daemon, holding: Holding) -> None:
    """What a child says of them is not kept, or a few children would take megabytes."""
    every = [exchange_pb2.Run(first=0, count=MAX_NUMBERS)]
    call = await follow(stub, words(lacks=every))
    await call.write(exchange_pb2.FollowRequest(lacks=every))
    bring(holding, 0)
    assert await offers(call) == 0b1
    (task,) = daemon.uploads.exchange._by_holding.values()
    (child,) = task.giving._children.values()
    assert child.lacks.bit_length() == PIECES
    call.cancel()


async def test_strange_words_later(stub: Any, holding: Holding) -> None:
    """They end the stream, with the reason."""
    call = await follow(stub)
    run = exchange_pb2.Run(first=1, count=0)
    await call.write(exchange_pb2.FollowRequest(has=[run]))
    code, details = await ended(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no pieces" in details
    assert not holding.gone


@pytest.mark.parametrize("says", [b"", b"\xff\xff\xff"])
async def test_no_words_at_all(daemon: Daemon, holding: Holding, says: bytes) -> None:
    """Or no message."""
    assert holding.coming
    target = f"127.0.0.1:{daemon.ports['upload']}"
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.stream_stream("/pantala.v1.Exchange/Follow")()
        if says:
            await call.write(says)
        await call.done_writing()
        code, _ = await ended(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_who_says_nothing(
    daemon: Daemon, holding: Holding, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not waited for for ever."""
    assert holding.coming
    assert not daemon.stopping.is_set()
    monkeypatch.setattr(service, "FIRST_WORD", 0.05)
    code, details = await ended(stub.Follow())
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "not a word" in details


async def test_too_many_streams(
    stub: Any, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one address: told to come again."""
    assert holding.coming
    monkeypatch.setattr(exchange_service.ExchangeService, "STREAM", 1 + services._STREAMS_OF_ONE)
    call = stub.Follow()
    await call.write(words())
    code, details = await ended(call)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "try again" in details


async def test_a_task_that_is_deleted(stub: Any, daemon: Daemon, holding: Holding) -> None:
    """Its children hear of it."""
    call = await follow(stub)
    daemon.stores.remove(holding, Reason.DELETED)
    code, details = await ended(call)
    assert code is grpc.StatusCode.ABORTED
    assert "deleted" in details


async def test_who_comes_when_nothing_comes_any_more(stub: Any, holding: Holding) -> None:
    """And needs nothing of what is here is let go of at once, whoever else there is."""
    bring(holding, 0)
    first = await follow(stub)
    assert await offers(first) == 0b1
    holding.coming = frozenset()
    second = await follow(stub, words(lacks=[exchange_pb2.Run(first=1, count=1)]))
    assert await ended(second) == (grpc.StatusCode.OK, "")
    first.cancel()


async def test_who_asks_for_nothing_keeps_no_room(
    stub: Any, daemon: Daemon, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on hearing of what is here, as long as nobody else needs the room."""
    monkeypatch.setattr(exchange_service, "_KEPT", 0.01)
    call = await follow(stub)
    async with asyncio.timeout(PATIENCE):
        while holding.lease_count:  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.01)  # between two looks
    bring(holding, 0)
    assert await offers(call) == 0b1
    (task,) = daemon.uploads.exchange._by_holding.values()
    (child,) = task.children.values()
    before = child.asked_at
    daemon.uploads.exchange.asked(holding, 0)
    assert child.asked_at > before
    daemon.stores.remove(holding, Reason.LRU)
    code, details = await ended(call)
    assert code is grpc.StatusCode.ABORTED
    assert "deleted" in details


async def test_who_has_gone_keeps_nothing(stub: Any, daemon: Daemon, holding: Holding) -> None:
    """Neither a lease, nor a place, nor a share of the streams."""
    bring(holding, 0)
    calls = [await follow(stub) for _ in range(3)]
    await offers(calls[0])
    for call in calls:
        call.cancel()
    await nothing_is_kept(daemon, holding)
