"""daemon/downloading/digests.py: what pieces must be, and what becomes of those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pantala.background import Tasks
from pantala.core.digests import DigestRun
from pantala.daemon.downloading.digests import PieceDigests
from pantala.errors import DigestMismatch, SourceChanged
from pantala.model.task import Kind, PieceRecord, TaskRecord, Traffic
from pantala.testing import inside

COUNT = 4


class Flight:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.wanted = frozenset(range(COUNT))
        self.version = "v"
        self.handed: list[int] = []
        self.wrong: list[tuple[int, SourceChanged]] = []
        #: Questions, each of which is answered when this is set, by that.
        self.asked = 0
        self.answers = asyncio.Event()
        self.answer: list[DigestRun] = []
        self.digests: PieceDigests

    def may_be(self, version: str) -> bool:
        """It is that."""
        return version == self.version

    def is_through_by(self, numbers: frozenset[int]) -> bool:
        """All are wanted."""
        return set(range(COUNT)) <= numbers | set(self.handed)

    def hand_on(self, pieces: Sequence[PieceRecord]) -> None:
        """Write it down."""
        self.handed += [piece.number for piece in pieces]

    def on_wrong(self, piece: PieceRecord, why: SourceChanged) -> None:
        """Write it down."""
        self.wrong.append((piece.number, why))

    async def ask(self) -> None:
        """Answer when it is time."""
        self.asked += 1
        await self.answers.wait()
        self.digests.take("v", self.answer)


@pytest.fixture
async def flight(tmp_path: Path) -> AsyncIterator[Flight]:
    """Of four pieces."""
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(inside.daemon(tmp_path))
        yield make(daemon, Kind.CACHE, stack)


def make(daemon: Any, kind: Kind, stack: AsyncExitStack) -> Flight:
    """A flight."""
    record = TaskRecord(
        kind=kind,
        id="a" * 64,
        url="u",
        created_at=0.0,
        updated_at=0.0,
        content_length=COUNT * 10,
        piece_length=10,
        version="v",
    )
    holding, flight, tasks = daemon.stores[kind].open(record), Flight(), Tasks()
    stack.push_async_callback(tasks.cancel)
    holding.reserve(range(COUNT))
    flight.digests = PieceDigests(holding, flight, tasks, flight.ask)
    return flight


def come(flight: Flight, number: int, parent: str | None = "p") -> None:
    """A piece is here; its digest is its number."""
    claim = flight.digests._holding.claim(number)
    traffic = Traffic.REMOTE_PEER if parent else Traffic.BACK_TO_SOURCE
    piece = claim.publish(f"crc32:{number}", parent_id=parent, traffic=traffic)
    flight.digests.on_piece(piece)


async def until(flight: Flight, asked: int) -> None:
    """So many questions were asked."""
    async with asyncio.timeout(10):
        while flight.asked < asked:  # noqa: ASYNC110  what is waited for is a count
            await asyncio.sleep(0)


def run(first: int, *crcs: int) -> list[DigestRun]:
    """Digests from *first* on."""
    return [DigestRun(first, list(crcs))]


async def test_pieces_wait_for_the_answer(flight: Flight) -> None:
    """To the first question; what is known by then is not asked for."""
    digests = flight.digests
    digests.take("v", run(0, 0))
    assert digests.lacks == 0b1110
    digests.ask_first(at_origin=False)
    await until(flight, 1)
    checks = [asyncio.ensure_future(digests.check(n, "crc32:1", "p")) for n in range(3)]
    origin = asyncio.ensure_future(digests.check_origin(1, "crc32:0"))
    await asyncio.wait(checks[:1])
    with pytest.raises(DigestMismatch, match="piece 0 from p: expected crc32:0, actual crc32:1"):
        checks[0].result()
    flight.answer = run(1, 1)
    assert not any(check.done() for check in (*checks[1:], origin))
    flight.answers.set()
    await asyncio.wait((*checks, origin))
    checks[1].result()
    checks[2].result()  # nobody knows
    with pytest.raises(
        SourceChanged, match="piece 1 is not the one that others have read"
    ) as found:
        origin.result()
    assert found.value.wavers
    digests.ask_first(at_origin=False)
    await asyncio.sleep(0)
    assert flight.asked == 1


async def test_who_reads_all_need_not_ask(flight: Flight) -> None:
    """But who has some of others must."""
    flight.digests.ask_first(at_origin=True)
    come(flight, 1, None)
    flight.digests.ask_first(at_origin=True)
    await asyncio.sleep(0)
    assert not flight.asked
    come(flight, 0)
    flight.digests.ask_first(at_origin=True)
    await until(flight, 1)


async def test_the_last_piece_is_not_handed_on_before_the_answer(flight: Flight) -> None:
    """Nor is what comes meanwhile; then all is."""
    come(flight, 0, None)
    for number in (1, 2):
        come(flight, number)
    assert flight.handed == [0, 1, 2]
    come(flight, 3)
    await until(flight, 1)
    assert flight.digests.held == {3}
    assert flight.handed == [0, 1, 2]
    assert flight.digests.lacks == 0b1111  # the flight wants them still
    flight.wanted = frozenset()
    assert flight.digests.lacks == 0b1110
    settled = asyncio.ensure_future(flight.digests.settle())
    flight.answer = run(1, 1, 2)
    flight.answers.set()
    await settled
    assert flight.handed == [0, 1, 2, 3]
    assert not flight.digests.held
    assert not flight.wrong


async def test_nothing_is_asked_where_all_is_known(flight: Flight) -> None:
    """The last piece comes at once."""
    flight.digests.take("v", run(0, 0, 1, 2, 3))
    for number in range(COUNT):
        come(flight, number)
    assert flight.handed == [0, 1, 2, 3]
    await flight.digests.settle()
    assert not flight.asked


async def test_a_lie_that_shows_at_the_end(flight: Flight) -> None:
    """What is held back is never handed on, and the version stays what it is."""
    for number in range(COUNT):
        come(flight, number)
    await until(flight, 1)
    flight.answer = run(0, 0, 7, 8)
    flight.answers.set()
    with pytest.raises(SourceChanged, match="piece 1 of p is not what the origin gave") as found:
        await flight.digests.settle()
    assert found.value.version == "v"
    assert not found.value.wavers
    assert flight.handed == [0, 1, 2]
    assert [number for number, _ in flight.wrong] == [1]


async def test_a_lie_that_shows_in_between(flight: Flight) -> None:
    """Of what was read here, others have read something else."""
    come(flight, 2, None)
    flight.digests.take("w", run(2, 7))  # of another version, which is nothing to us
    assert not flight.wrong
    flight.digests.take("v", run(2, 7))
    assert [(number, why.wavers, why.version) for number, why in flight.wrong] == [(2, True, "")]


async def test_what_was_imported(tmp_path: Path) -> None:
    """It has no origin, and nobody who has read it there."""
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(inside.daemon(tmp_path))
        flight = make(daemon, Kind.PERSISTENT_CACHE, stack)
        flight.digests.ask_first(at_origin=False)
        for number in range(COUNT):
            come(flight, number)
        await flight.digests.settle()
        assert flight.handed == [0, 1, 2, 3]
        assert not flight.digests.lacks
        assert not flight.asked
