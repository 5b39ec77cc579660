"""rpc/parent_link.py against parents that are played from a script, over real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from pantala.core.pace import SLEPT
from pantala.errors import (
    Busy,
    DigestMismatch,
    NotFound,
    ParentLost,
    PieceNotFound,
    RemoteProtocolError,
    TaskDeleted,
    TaskNotFound,
)
from pantala.model.announce import Candidate, HostFacts
from pantala.model.digest import crc32, piece_digest, piece_metadata_digest
from pantala.model.exchange import Copy, Offer
from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2
from pantala.rpc.parent_link import VERSION_KEY, GrpcParents, _is_at
from pantala.rpc.service import add_service, sends_headers

TASK = "a" * 64
DATA = b"test content"
WANTED = Offer(3, 300, len(DATA), "", None)
Answer = dfdaemon_pb2.SyncCachePiecesResponse


class Script:
    """A parent that says what it is told to."""

    def __init__(self) -> None:
        self.version: str | None = "%22v%2F1%22"
        self.answers: list[Any] = []
        self.networks: list[common_pb2.Network] = []
        self.error: Exception | None = None
        self.pause = asyncio.Event()
        self.pause.set()
        self.piece: Any = None
        self.heard: list[Any] = []
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    @sends_headers
    async def SyncCachePieces(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Offer what was prepared, then wait, then fail if told to."""
        self.heard.append(request)
        self.asked.set()
        keys = () if self.version is None else ((VERSION_KEY, self.version),)
        await context.send_initial_metadata(keys)
        try:
            for answer in self.answers:
                yield answer
            await self.pause.wait()
        finally:
            self.left.set()
        if self.error is not None:
            raise self.error

    async def SyncHost(self, request: Any, _: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Tell what was prepared, as :meth:`SyncCachePieces`."""
        self.heard.append(request)
        try:
            for network in self.networks:
                yield common_pb2.Host(network=network)
            await self.pause.wait()
        finally:
            self.left.set()
        if self.error is not None:
            raise self.error

    async def DownloadCachePiece(self, request: Any, _: Any) -> Any:  # noqa: N802  the contract's name
        """Bring what was prepared."""
        self.heard.append(request)
        if self.error is not None:
            raise self.error
        await self.pause.wait()
        return self.piece


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Candidate]:
    """*script* as a candidate."""
    server = grpc.aio.server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", script)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Candidate("peer", HostFacts("host", "host", "127.0.0.1", port))
    finally:
        await server.stop(None)


@pytest.fixture
def script() -> Script:
    """One parent."""
    return Script()


@pytest.fixture
async def parent(script: Script, stack: AsyncExitStack) -> Candidate:
    """Where it is."""
    return await stack.enter_async_context(serving(script))


@pytest.fixture
async def parents(stack: AsyncExitStack) -> GrpcParents:
    """A child's view of parents."""
    parents = GrpcParents("me")
    stack.push_async_callback(parents.close)
    return parents


async def offers(parents: GrpcParents, parent: Candidate, gap: float = 20.0) -> list[Offer | Copy]:
    """All of them."""
    found = parents.offers(parent, Kind.CACHE, TASK, frozenset({5, 3}), gap=gap)
    return [offer async for offer in found]


# -- offers --------------------------------------------------------------------------------------


async def test_offers(parents: GrpcParents, parent: Candidate, script: Script) -> None:
    """First the version, then what it has, and where to ask for it."""
    script.answers = [
        Answer(number=3, offset=300, length=100, ip="127.0.0.1", tcp_port=4005),
        Answer(number=5, offset=500, length=10, ip="127.0.0.1", tcp_port=4005),
    ]
    assert await offers(parents, parent) == [
        Copy('"v/1"'),
        Offer(3, 300, 100, "127.0.0.1", 4005),
        Offer(5, 500, 10, "127.0.0.1", 4005),
    ]
    (request,) = script.heard
    assert (request.host_id, request.task_id) == ("me", TASK)
    assert list(request.interested_cache_piece_numbers) == [3, 5]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(number=3, offset=300, length=100),
        Answer(number=3, offset=300, length=100, ip="127.0.0.1"),
        Answer(number=3, offset=300, length=100, tcp_port=4005),
        Answer(number=3, offset=300, length=100, ip="127.0.0.1", tcp_port=0),
        Answer(number=3, offset=300, length=100, ip="127.0.0.1", tcp_port=70000),
    ],
)
async def test_a_parent_without_a_data_port(
    parents: GrpcParents, parent: Candidate, script: Script, answer: Any
) -> None:
    """Its pieces come by gRPC."""
    script.answers = [answer]
    _, offer = await offers(parents, parent)
    assert isinstance(offer, Offer)
    assert offer.port is None


@pytest.mark.parametrize("ip", ["10.0.0.1", "::1", "127.0.0.2", "localhost", "127.0.0.1:22"])
async def test_a_parent_that_names_another_machine(
    parents: GrpcParents, parent: Candidate, script: Script, ip: str
) -> None:
    """Its children do not call whom it likes; what it offered before is good."""
    script.answers = [
        Answer(number=3, offset=300, length=100, ip="127.0.0.1", tcp_port=4005),
        Answer(number=5, offset=500, length=10, ip=ip, tcp_port=22),
    ]
    found = parents.offers(parent, Kind.CACHE, TASK, frozenset({5, 3}), gap=20.0)
    assert await anext(found) == Copy('"v/1"')
    assert await anext(found) == Offer(3, 300, 100, "127.0.0.1", 4005)
    with pytest.raises(RemoteProtocolError, match="another machine"):
        await anext(found)


@pytest.mark.parametrize(
    ("address", "ip", "expected"),
    [
        ("[fd00::1]:4000", "fd00:0::1", True),
        ("[fd00::1]:4000", "fd00::2", False),
        ("10.0.0.1:4000", "10.0.0.1", True),
        ("seed.example:4000", "seed.example", True),
        ("seed.example:4000", "10.0.0.1", False),
    ],
)
def test_where_a_parent_is(address: str, ip: str, *, expected: bool) -> None:
    """However the same address is written."""
    assert _is_at(address, ip) == expected


async def test_a_parent_that_does_not_speak_of_versions(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """It might hold any."""
    script.version = None
    assert await offers(parents, parent) == [Copy("")]


@pytest.mark.parametrize("error", [TaskNotFound(TASK), TaskDeleted("it was deleted")])
async def test_a_parent_that_has_nothing_more(
    parents: GrpcParents, parent: Candidate, script: Script, error: Exception
) -> None:
    """After what it had; in its words."""
    script.answers = [Answer(number=3, offset=300, length=100)]
    script.error = error
    found = parents.offers(parent, Kind.CACHE, TASK, frozenset({3}), gap=20.0)
    assert [await anext(found), await anext(found)] == [Copy('"v/1"'), Offer(3, 300, 100, "", None)]
    with pytest.raises(ParentLost, match=str(error)):
        await anext(found)


async def test_a_parent_that_is_silent(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """For too long."""
    script.pause.clear()
    with pytest.raises(ParentLost, match=rf"parent {parent.host.address}: silent for 0\.1 s"):
        await offers(parents, parent, gap=0.1)
    async with asyncio.timeout(20):
        await script.left.wait()


async def test_a_child_that_was_stopped(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """It does not know whether the parent was silent: it may ask again."""
    script.pause.clear()
    asyncio.get_running_loop().call_later(0.05, time.sleep, 0.2 + SLEPT)
    with pytest.raises(Busy, match="we slept for"):
        await offers(parents, parent, gap=0.1)


async def test_nobody_there(parents: GrpcParents) -> None:
    """The address is named."""
    async with serving(Script()) as gone:
        pass
    with pytest.raises(ParentLost, match=f"parent {gone.host.address}: "):
        await offers(parents, gone)
    with pytest.raises(ParentLost, match=f"parent {gone.host.address}: "):
        await fetch(parents, gone)


async def test_a_child_that_has_enough(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """The parent notices."""
    script.pause.clear()
    found: Any = parents.offers(parent, Kind.CACHE, TASK, frozenset({3}), gap=20.0)
    async with aclosing(found):
        assert await anext(found) == Copy('"v/1"')
    async with asyncio.timeout(20):
        await script.left.wait()
    assert parents._in_use == {}


async def test_only_so_many_channels(
    parents: GrpcParents, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in use stay, of the others the one used longest ago goes."""
    monkeypatch.setattr("pantala.rpc.parent_link._MAX_CHANNELS", 2)
    scripts = [Script() for _ in range(4)]
    candidates = [await stack.enter_async_context(serving(script)) for script in scripts]
    scripts[0].pause.clear()
    using = asyncio.ensure_future(offers(parents, candidates[0]))
    await scripts[0].asked.wait()
    for candidate in candidates[1:]:
        await offers(parents, candidate)
    assert set(parents._channels) == {candidates[0].host.address, candidates[3].host.address}
    scripts[0].pause.set()
    assert await using == [Copy('"v/1"')]


# -- pieces --------------------------------------------------------------------------------------


async def fetch(
    parents: GrpcParents, parent: Candidate, wanted: Offer = WANTED, limit: float = 20.0
) -> bytes:
    """A piece; its digest must be right."""
    found, digest = await parents.fetch(parent, Kind.CACHE, TASK, wanted, limit=limit)
    assert digest == piece_digest(crc32(found))
    return found


def piece(content: bytes = DATA, *, signed: bool = True, **changes: Any) -> Any:
    """What a parent answers."""
    fields: dict[str, Any] = {
        "number": 3,
        "offset": 300,
        "length": len(DATA),
        "digest": piece_digest(crc32(DATA)),
    }
    fields |= changes
    message = dfdaemon_pb2.DownloadCachePieceResponse(
        piece=common_pb2.Piece(content=content, **fields)
    )
    if signed:
        message.digest = piece_metadata_digest(3, 300, fields["length"], fields["digest"])
    return message


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(piece(), id="with both digests"),
        pytest.param(piece(signed=False), id="without that of the metadata"),
        pytest.param(piece(signed=False, digest=""), id="without any"),
    ],
)
async def test_a_piece(
    parents: GrpcParents, parent: Candidate, script: Script, answer: Any
) -> None:
    """Inside a message, for want of a better way."""
    script.piece = answer
    assert await fetch(parents, parent) == DATA
    (request,) = script.heard
    assert (request.host_id, request.task_id, request.piece_number) == ("me", TASK, 3)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(piece(number=4), RemoteProtocolError, id="another number"),
        pytest.param(piece(offset=0), RemoteProtocolError, id="another offset"),
        pytest.param(piece(length=11), RemoteProtocolError, id="another length"),
        pytest.param(piece(DATA[:-1]), RemoteProtocolError, id="too little"),
        pytest.param(piece(DATA + b"!"), RemoteProtocolError, id="too much"),
        pytest.param(dfdaemon_pb2.DownloadCachePieceResponse(), RemoteProtocolError, id="nothing"),
        pytest.param(piece(b"best content"), DigestMismatch, id="a wrong byte"),
        pytest.param(piece(digest="crc32:1"), DigestMismatch, id="a wrong digest"),
    ],
)
async def test_a_piece_that_is_wrong(
    parents: GrpcParents,
    parent: Candidate,
    script: Script,
    answer: Any,
    expected: type[Exception],
) -> None:
    """Not a byte of it is passed on."""
    script.piece = answer
    with pytest.raises(expected, match=parent.host.address):
        await parents.fetch(parent, Kind.CACHE, TASK, WANTED, limit=20.0)


async def test_a_signature_that_is_wrong(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """What is said of a piece is protected, too."""
    script.piece = piece()
    script.piece.digest = "crc32:1"
    with pytest.raises(DigestMismatch, match="metadata of piece 3"):
        await fetch(parents, parent)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PieceNotFound(TASK, 3), NotFound),
        (TaskNotFound(TASK), NotFound),
        (TaskDeleted("it was deleted"), ParentLost),
        (ValueError("a bug"), ParentLost),
    ],
)
async def test_a_parent_that_refuses(
    parents: GrpcParents,
    parent: Candidate,
    script: Script,
    error: Exception,
    expected: type[Exception],
) -> None:
    """That it has it no longer is no fault of it."""
    script.error = error
    with pytest.raises(expected, match=f"parent {parent.host.address}: "):
        await fetch(parents, parent)
    assert parents._in_use == {}


async def test_a_parent_that_takes_too_long(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """There is a limit for a piece."""
    script.pause.clear()
    with pytest.raises(ParentLost, match=parent.host.address):
        await fetch(parents, parent, limit=0.1)


async def test_a_piece_of_many_megabytes(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """Beyond what gRPC takes by default."""
    data = bytes(20 << 20)
    script.piece = piece(data, length=len(data), digest=piece_digest(crc32(data)))
    assert await fetch(parents, parent, replace(WANTED, length=len(data))) == data


# -- weights -------------------------------------------------------------------------------------


async def test_weights(parents: GrpcParents, parent: Candidate, script: Script) -> None:
    """What is free, never less than a tenth; the stock figure of who says nothing."""
    script.networks = [
        common_pb2.Network(max_tx_bandwidth=1000, tx_bandwidth=300),
        common_pb2.Network(max_tx_bandwidth=1000, tx_bandwidth=2000),
        common_pb2.Network(max_tx_bandwidth=1000),
        common_pb2.Network(),
    ]
    assert [weight async for weight in parents.weights(parent)] == [700, 100, 1000, 10e9]
    (heard,) = script.heard
    assert heard.host_id == "me"
    assert heard.peer_id


async def test_a_parent_that_tells_no_weight(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """The other errors are those of every stream."""
    script.error = TaskNotFound("x")
    with pytest.raises(ParentLost, match=parent.host.address):
        await anext(parents.weights(parent))


async def test_a_child_that_needs_no_weights_any_more(
    parents: GrpcParents, parent: Candidate, script: Script
) -> None:
    """The parent learns that it may stop."""
    script.networks = [common_pb2.Network(max_tx_bandwidth=1)]
    script.pause.clear()
    async with aclosing(parents.weights(parent)) as weights:
        assert await anext(weights) == 1
    async with asyncio.timeout(20):
        await script.left.wait()
