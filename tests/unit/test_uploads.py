"""daemon/sharing/uploads.py: which pieces are here for others, and their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pantala.daemon.app import Daemon
from pantala.errors import (
    InvalidRequest,
    PieceNotFound,
    TaskDeleted,
    TaskNotFound,
    Unavailable,
)
from pantala.model.numbers import Numbers
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage.claims import Claim
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.testing import inside
from pantala.wire.vortex import PieceContent, PieceRequest, Tag

TASK = "a" * 64
PIECE = 100_000
RECORD = TaskRecord(
    kind=Kind.CACHE,
    id=TASK,
    url="http://origin/f",
    created_at=0.0,
    updated_at=0.0,
    content_length=4 * PIECE,
    piece_length=PIECE,
)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Without a scheduler."""
    async with inside.daemon(tmp_path) as daemon:
        yield daemon
        assert daemon.stores[Kind.CACHE].ledger.leased == 0


@pytest.fixture
def holding(daemon: Daemon) -> Holding:
    """Four pieces, 0 and 1 of which are here."""
    holding = daemon.stores[Kind.CACHE].open(RECORD)
    holding.reserve(range(4))
    for number in (0, 1):
        publish(holding.claim(number))
    return holding


def publish(claim: Claim) -> PieceRecord:
    """Bring a piece, full of its number."""
    fill(claim.sink, bytes([claim.piece.number]) * claim.piece.length)
    return claim.publish("crc32:9", parent_id="parent", traffic=Traffic.BACK_TO_SOURCE)


def request(number: int, *, task: str = TASK, tag: Tag = Tag.DOWNLOAD_CACHE_PIECE) -> PieceRequest:
    """For a piece."""
    return PieceRequest(tag, task, number)


async def test_a_piece(daemon: Daemon, holding: Holding) -> None:
    """What is said of it, its bytes, and what is remembered of it; in use meanwhile."""
    async with daemon.uploads.upload(request(1)) as upload:
        said = upload.content
        assert bytes(upload.extent.read(0, PIECE)) == b"\1" * PIECE
        assert (holding.record.uploading_count, holding.record.uploaded_count) == (1, 0)
        assert holding.lease_count == 1
        created_at = int(holding.pieces[1].created_at)

    assert said == PieceContent(
        tag=Tag.CACHE_PIECE_CONTENT,
        number=1,
        offset=PIECE,
        length=PIECE,
        digest="crc32:9",
        parent_id="parent",
        traffic=int(Traffic.REMOTE_PEER),
        cost=0,
        created_at=created_at,
    )
    assert (holding.record.uploading_count, holding.record.uploaded_count) == (0, 1)
    assert holding.lease_count == 0
    with pytest.raises(ValueError, match="released"):
        upload.extent.read(0, 1)


async def test_a_child_that_did_not_get_it(daemon: Daemon, holding: Holding) -> None:
    """It is not counted as served."""
    with pytest.raises(ConnectionError):
        async with daemon.uploads.upload(request(1)):
            raise ConnectionError
    assert (holding.record.uploading_count, holding.record.uploaded_count) == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (request(0, task="b" * 64), TaskNotFound),
        (request(2), PieceNotFound),
        (request(99), PieceNotFound),
        (request(0, tag=Tag.DOWNLOAD_PIECE), TaskNotFound),
        (request(0, tag=Tag.DOWNLOAD_PERSISTENT_CACHE_PIECE), TaskNotFound),
        (request(0, tag=Tag.DOWNLOAD_PERSISTENT_PIECE), InvalidRequest),
    ],
)
async def test_what_is_not_here(
    daemon: Daemon, holding: Holding, wanted: PieceRequest, expected: type[Exception]
) -> None:
    """Another task, a piece that nobody fetches, one that does not exist, another kind."""
    with pytest.raises(expected):
        async with daemon.uploads.upload(wanted):
            pytest.fail("there is no such piece")
    assert holding.record.uploading_count == 0


async def test_a_piece_that_is_on_its_way(daemon: Daemon, holding: Holding) -> None:
    """It is waited for."""
    claim = holding.claim(3)

    async def get() -> bytes:
        async with daemon.uploads.upload(request(3)) as upload:
            return bytes(upload.extent.read(0, PIECE))

    getting = asyncio.ensure_future(get())
    await asyncio.sleep(0)
    assert not getting.done()
    publish(claim)
    assert await getting == b"\3" * PIECE


async def test_deleted_while_it_is_sent(daemon: Daemon, holding: Holding) -> None:
    """The bytes stay until it is through, and it changes nothing in what comes after."""
    async with daemon.uploads.upload(request(1)) as upload:
        daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
        successor = daemon.stores[Kind.CACHE].open(RECORD)
        assert bytes(upload.extent.read(0, PIECE)) == b"\1" * PIECE
    assert (successor.record.uploading_count, successor.record.uploaded_count) == (0, 0)
    with pytest.raises(PieceNotFound):
        async with daemon.uploads.upload(request(1)):
            pytest.fail("the successor has nothing")


async def test_an_upload_is_a_use(daemon: Daemon, holding: Holding) -> None:
    """What others want is not evicted first."""
    other = daemon.stores[Kind.CACHE].open(replace(RECORD, id="b" * 64))
    other.reserve(range(4))
    async with daemon.uploads.upload(request(1)):
        pass
    order = [account.key for account in daemon.stores[Kind.CACHE].ledger._live.values()]
    assert order == [f"CACHE/{other.id}", f"CACHE/{holding.id}"]


# -- offers --------------------------------------------------------------------------------------


async def offered(daemon: Daemon, holding: Holding, *numbers: int) -> list[int]:
    """Everything that is offered of these pieces, until no more is."""
    offers = daemon.uploads.offers(holding, Numbers(numbers))
    return [piece.number async for piece in offers]


async def test_what_is_here_is_offered(daemon: Daemon, holding: Holding) -> None:
    """Of what was asked for; where nothing comes, that is all."""
    assert await offered(daemon, holding, 0, 1, 2, 3, 77) == [0, 1]
    assert await offered(daemon, holding, 1, 2) == [1]
    assert await offered(daemon, holding) == []


async def test_what_comes_is_offered_when_it_is_here(daemon: Daemon, holding: Holding) -> None:
    """The stream is open for as long as something may come."""
    holding.coming = frozenset({2, 3})
    watching = [
        asyncio.ensure_future(offered(daemon, holding, *n)) for n in ((0, 2, 3), (3,), (1,))
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in watching] == [False, False, True]
    publish(holding.claim(3))
    holding.coming = frozenset({2})
    assert await watching[1] == [3]
    publish(holding.claim(2))
    assert await watching[0] == [0, 3, 2]
    assert await watching[2] == [1]


async def test_what_comes_last_is_offered_too(daemon: Daemon, holding: Holding) -> None:
    """The flight ends at the very moment."""
    holding.coming = frozenset({2, 3})
    watching = asyncio.ensure_future(offered(daemon, holding, 2, 3))
    await asyncio.sleep(0)
    publish(holding.claim(2))
    publish(holding.claim(3))
    holding.coming = frozenset()
    assert await watching == [2, 3]


async def test_what_does_not_come_is_not_waited_for(daemon: Daemon, holding: Holding) -> None:
    """The flight ended without it."""
    holding.coming = frozenset({2, 3})
    watching = asyncio.ensure_future(offered(daemon, holding, 0, 2, 3))
    await asyncio.sleep(0)
    publish(holding.claim(2))
    holding.coming = frozenset()
    assert await watching == [0, 2]


async def test_what_comes_while_the_child_is_slow(daemon: Daemon, holding: Holding) -> None:
    """Nothing is lost between two looks."""
    holding.coming = frozenset({2, 3})
    offers = daemon.uploads.offers(holding, Numbers((0, 2, 3)))
    found = [(await anext(offers)).number]
    publish(holding.claim(2))
    publish(holding.claim(3))
    holding.coming = frozenset()
    found += [piece.number async for piece in offers]
    assert found == [0, 2, 3]


async def test_deleted_while_it_is_offered(daemon: Daemon, holding: Holding) -> None:
    """Those who wait hear of it."""
    holding.coming = frozenset({2})
    watching = asyncio.ensure_future(offered(daemon, holding, 2))
    await asyncio.sleep(0)
    daemon.stores[Kind.CACHE].remove(holding, Reason.DELETED)
    with pytest.raises(TaskDeleted):
        await watching


# -- versions ------------------------------------------------------------------------------------


async def test_the_version(daemon: Daemon, holding: Holding) -> None:
    """As it is known; there is nothing to wait for where pieces are here, or none come.

    Where nothing is here nothing is said: it might turn out to be another.
    """
    assert await daemon.uploads.version(holding) == ""
    holding.learn_version("1")
    holding.learn_version("2")
    assert await daemon.uploads.version(holding) == "1"
    empty = daemon.stores[Kind.CACHE].open(replace(RECORD, id="b" * 64))
    with pytest.raises(Unavailable, match="not known yet"):
        await daemon.uploads.version(empty)
    empty.learn_version("")
    assert await daemon.uploads.version(empty) == ""
    empty.learn_version("3")
    assert await daemon.uploads.version(empty) == "3"


async def test_a_version_that_comes_with_the_first_piece(daemon: Daemon) -> None:
    """It is waited for."""
    empty = daemon.stores[Kind.CACHE].open(RECORD)
    empty.coming = frozenset({0})
    asking = asyncio.ensure_future(daemon.uploads.version(empty))
    await asyncio.sleep(0)
    assert not asking.done()
    empty.learn_version("1")
    assert await asking == "1"


async def test_a_version_that_an_origin_does_not_name(daemon: Daemon) -> None:
    """It is known that there is none long before the first piece is here."""
    empty = daemon.stores[Kind.CACHE].open(RECORD)
    empty.coming = frozenset({0})
    asking = asyncio.ensure_future(daemon.uploads.version(empty))
    await asyncio.sleep(0)
    assert not asking.done()
    empty.learn_version("")
    async with asyncio.timeout(1):
        assert await asking == ""
