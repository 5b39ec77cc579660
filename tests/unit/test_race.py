"""daemon/downloading/race.py: who is first publishes, and nobody writes there any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pantala.daemon.app import Daemon
from pantala.daemon.downloading.race import Race, Spare
from pantala.model.digest import crc32, piece_digest
from pantala.model.task import Kind, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage.holding import Holding
from pantala.testing import inside
from pantala.testing.cluster import PATIENCE

LENGTH = 300_000
RIGHT, WRONG = b"r" * LENGTH, b"w" * LENGTH


class Writer:
    """A thread that writes what is wrong into a view, for as long as it is not given up."""

    def __init__(self, into: memoryview) -> None:
        self._into = into
        self._enough = threading.Event()
        self.began = threading.Event()

    def abort(self) -> None:
        """End it."""
        self._enough.set()

    def run(self) -> None:
        """Write, and once more when it is given up."""
        while not self._enough.wait(0.001):
            self._into[:] = WRONG
            self.began.set()
        self._into[:] = WRONG


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """With threads."""
    async with inside.daemon(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def holding(daemon: Daemon) -> Holding:
    """One piece is wanted."""
    record = TaskRecord(
        kind=Kind.CACHE,
        id="a" * 64,
        url="u",
        created_at=0.0,
        updated_at=0.0,
        content_length=LENGTH,
        piece_length=LENGTH,
    )
    holding = daemon.stores[Kind.CACHE].open(record)
    holding.reserve([0])
    return holding


async def test_the_second_is_first(daemon: Daemon, holding: Holding) -> None:
    """The first is out of its thread before the bytes are put into their place."""
    race, lease = Race(holding.claim(0)), holding.lease()
    writer = Writer(race.claim.sink.window(0))

    async def first() -> None:
        with race.run(second=False):
            await daemon.node.threads.receivers.run(writer)

    async def second() -> None:
        with race.run(second=True):
            async with daemon.engine.means.spare.borrow(LENGTH) as view:
                view[:] = RIGHT
                await race.win(daemon.node.threads.helpers, view)
                race.publish(piece_digest(crc32(RIGHT)), parent_id="p", traffic=Traffic.REMOTE_PEER)

    slow = asyncio.ensure_future(first())
    assert await asyncio.to_thread(writer.began.wait, PATIENCE)
    await second()
    assert slow.cancelled()
    assert race.is_over
    assert bytes(holding.content.extent(0, LENGTH).read(0, LENGTH)) == RIGHT
    assert holding.pieces[0].parent_id == "p"
    assert daemon.engine.means.spare.lent == 0
    lease.end()


async def test_the_first_is_first(daemon: Daemon, holding: Holding) -> None:
    """The second is given up; it had a place of its own all the time."""
    race, lease = Race(holding.claim(0)), holding.lease()
    writers: list[Writer] = []

    async def second() -> None:
        with race.run(second=True):
            async with daemon.engine.means.spare.borrow(LENGTH) as view:
                writers.append(Writer(view))
                await daemon.node.threads.receivers.run(writers[0])

    slow = asyncio.ensure_future(second())
    await asyncio.sleep(0)
    with race.run(second=False):
        fill(race.claim.sink, RIGHT)
        await race.win(daemon.node.threads.helpers, None)
        race.publish(piece_digest(crc32(RIGHT)), parent_id="p", traffic=Traffic.REMOTE_PEER)
    await asyncio.wait((slow,))
    assert slow.cancelled()
    assert bytes(holding.content.extent(0, LENGTH).read(0, LENGTH)) == RIGHT
    assert daemon.engine.means.spare.lent == 0
    lease.end()


async def test_the_claim_ends_with_the_last(holding: Holding) -> None:
    """Not before: the other may still be about to write."""
    lease, race = holding.lease(), Race(holding.claim(0))
    with race.run(second=False):
        with race.run(second=True):
            pass
        with pytest.raises(ValueError, match="twice in the same way"), race.run(second=False):
            pass
        assert not race.claim.over.is_set()
    assert race.claim.over.is_set()
    holding.claim(0).abandon()
    lease.end()


async def test_buffers_are_few() -> None:
    """Who asks for more than is left waits for it, in order."""
    spare, order = Spare(10), list[str]()

    async def use(name: str, length: int) -> None:
        async with spare.borrow(length) as view:
            order.append(name)
            assert len(view) == length
            assert spare.lent <= 10
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE):
        async with spare.borrow(6):
            waiting = [asyncio.ensure_future(use(*a)) for a in (("a", 5), ("b", 1), ("c", 10))]
            for _ in range(3):
                await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert spare.lent == 0
