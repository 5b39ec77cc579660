"""daemon/downloading/download.py: what a caller sees of a download."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from pantala.daemon.downloading.download import (
    Anew,
    Arrived,
    Download,
    Event,
    Growing,
    Started,
)
from pantala.errors import (
    InvalidRequest,
    NoProvider,
    RangeNotSatisfiable,
    TaskDeleted,
    TimedOut,
)
from pantala.model.ids import Identity
from pantala.model.pieces import ByteRange, Piece
from pantala.model.task import DownloadRequest, Kind, PieceRecord, TaskRecord, Traffic
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.journal import NullJournal
from pantala.storage.memory import MemoryMedium
from pantala.storage.store import Store
from pantala.testing.inside import wish

REQUEST = DownloadRequest(kind=Kind.CACHE, url="http://origin/f")
RECORD = TaskRecord(
    kind=Kind.CACHE,
    id="t",
    url=REQUEST.url,
    created_at=0.0,
    updated_at=0.0,
    content_length=1050,
    piece_length=100,
    response_header={"Content-Type": "x"},
)


@pytest.fixture
def holdings() -> Iterator[Store]:
    """Every lease has ended in the end."""
    holdings = Store(MemoryMedium(1 << 20), NullJournal(), clock=lambda: 0.0)
    yield holdings
    holdings.close()
    assert holdings.ledger.used == 0


@pytest.fixture
def holding(holdings: Store) -> Holding:
    """Eleven pieces, 0 to 2 of which are here."""
    holding = holdings.open(RECORD)
    holding.reserve(range(11))
    for number in range(3):
        publish(holding, number)
    return holding


def publish(holding: Holding, number: int) -> PieceRecord:
    """Somebody brings a piece."""
    claim = holding.claim(number)
    return claim.publish("crc32:0", parent_id="p", traffic=Traffic.REMOTE_PEER)


def download(**wishes: object) -> Download:
    """A caller."""
    return Download(*wish(REQUEST.url, **wishes), Identity("t", "f"), "peer")


async def events(download: Download) -> list[Event]:
    """All of them; the caller is gone then."""
    found: list[Event] = []
    await collect(download, found)
    download.close()
    return found


async def collect(download: Download, seen: list[Event]) -> None:
    """Add them to *seen*, also those that come before a failure."""
    async for event in download:
        seen += [event]


async def until(true: Callable[[], bool]) -> None:
    """Returns when it is. The loop goes on meanwhile."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.001)


def numbers(event: Event) -> list[tuple[int, Traffic]]:
    """Which pieces came, and from where."""
    assert isinstance(event, Arrived)
    return [(piece.number, traffic) for piece, traffic in event.pieces]


async def test_a_whole_file(holding: Holding) -> None:
    """What is here, and what has come by then, each piece once; then the end."""
    caller = download()
    caller.begin(holding)
    assert caller.missing == set(range(3, 11))
    for number in range(3, 11):
        piece = publish(holding, number)
        assert not caller.over
        caller.arrived([piece])
        caller.arrived([piece])
    assert caller.over
    started, arrived = await events(caller)

    assert started == Started(
        content_length=1050,
        piece_length=100,
        part=ByteRange(0, 1050),
        pieces=tuple(Piece(n, n * 100, 50 if n == 10 else 100) for n in range(11)),
        response_header={"Content-Type": "x"},
        finished=False,
    )
    assert numbers(arrived) == [
        (n, Traffic.LOCAL_PEER if n < 3 else Traffic.REMOTE_PEER) for n in range(11)
    ]


async def test_what_comes_meanwhile(holding: Holding) -> None:
    """Is told as soon as somebody listens again, and no later than the end."""
    caller, seen = download(), list[Event]()
    caller.begin(holding)
    listening = asyncio.ensure_future(collect(caller, seen))
    for number in range(3, 11):
        caller.arrived([publish(holding, number)])
        if number == 5:
            await until(lambda: any(isinstance(event, Arrived) for event in seen))
    await listening
    caller.close()
    came = [pair for event in seen if isinstance(event, Arrived) for pair in numbers(event)]
    assert [number for number, _ in came] == list(range(11))


async def test_what_came_before_it_begins_anew(holding: Holding) -> None:
    """Is not told after that, even where somebody waits just then for more to tell at once."""
    caller, seen = download(again=True), list[Event]()
    caller.begin(holding)
    listening = asyncio.ensure_future(collect(caller, seen))
    await until(lambda: any(isinstance(event, Arrived) for event in seen))
    caller.arrived([publish(holding, 3)])
    await asyncio.sleep(0)  # it is waiting for more now
    caller.begin_again()
    caller.begin(holding)
    for number in range(4, 11):
        caller.arrived([publish(holding, number)])
    await listening
    caller.close()
    begun = seen.index(Anew())
    assert [p for e in seen[:begun] if isinstance(e, Arrived) for p in numbers(e)] == [
        (n, Traffic.LOCAL_PEER) for n in range(3)
    ]
    came = [p for e in seen[begun:] if isinstance(e, Arrived) for p in numbers(e)]
    assert [number for number, _ in came] == list(range(11))


@pytest.mark.parametrize(
    ("wishes", "part", "pieces"),
    [
        ({"range": ByteRange(150, 100)}, ByteRange(150, 100), [1, 2]),
        ({"range": ByteRange(0, 9999)}, ByteRange(0, 1050), range(11)),
        ({"request_header": {"rAnGe": "bytes=299-300"}}, ByteRange(299, 2), [2, 3]),
        ({"request_header": {"Range": "bytes=-60"}}, ByteRange(990, 60), [9, 10]),
        (
            {"range": ByteRange(0, 1), "request_header": {"Range": "bytes=500-"}},
            ByteRange(0, 1),
            [0],
        ),
    ],
)
async def test_a_part(
    holding: Holding, wishes: dict[str, object], part: ByteRange, pieces: list[int]
) -> None:
    """By its own field, else by the header; whole pieces are waited for."""
    caller = download(**wishes)
    caller.begin(holding)

    assert caller.part == part
    assert caller.missing == set(pieces) - {0, 1, 2}
    caller.arrived([publish(holding, number) for number in sorted(caller.missing)])
    started, *_ = await events(caller)
    assert isinstance(started, Started)
    assert [piece.number for piece in started.pieces] == list(pieces)


@pytest.mark.parametrize(
    "wishes",
    [
        {"range": ByteRange(1050, 1)},
        {"range": ByteRange(0, 0)},
        {"request_header": {"Range": "bytes=2000-"}},
        {"request_header": {"Range": "lines=1-2"}},
    ],
)
async def test_a_part_that_is_none(holding: Holding, wishes: dict[str, object]) -> None:
    """It is refused, and leaves no lease behind."""
    caller = download(**wishes)
    with pytest.raises(RangeNotSatisfiable):
        caller.begin(holding)
    assert (caller.holding, holding.lease_count) == (None, 0)


async def test_all_of_it_was_here(holding: Holding) -> None:
    """There is nothing to wait for."""
    caller = download(range=ByteRange(0, 300))
    caller.begin(holding)
    assert (caller.over, caller.was_here) == (True, True)
    started, here = await events(caller)
    assert isinstance(started, Started)
    assert not started.finished, "the content has more pieces"
    assert len(numbers(here)) == 3


async def test_an_empty_file(holdings: Store) -> None:
    """It has begun, and is here."""
    caller = download()
    caller.begin(holdings.open(replace(RECORD, id="e", content_length=0)))
    (started,) = await events(caller)
    assert isinstance(started, Started)
    assert (started.finished, started.pieces, started.part) == (True, (), ByteRange(0, 0))


async def test_a_file_of_unknown_length(holding: Holding) -> None:
    """It is told how much has come; what it watched coming was not here before."""
    caller = download()
    caller.grown(100)
    caller.grown(200)
    for number in range(3, 11):
        publish(holding, number)
    caller.begin(holding)
    caller.grown(300)
    first, second, _, here = await events(caller)

    assert (first, second) == (Growing(100), Growing(200))
    assert numbers(here) == [(n, Traffic.REMOTE_PEER) for n in range(11)]


async def test_pieces_of_others_are_nothing_to_it(holding: Holding) -> None:
    """A flight brings what any of its callers wants."""
    caller = download(range=ByteRange(0, 400))
    caller.begin(holding)
    caller.arrived([publish(holding, 7)])
    caller.arrived([publish(holding, 3), publish(holding, 4)])
    _, arrived = await events(caller)
    assert numbers(arrived)[3:] == [(3, Traffic.REMOTE_PEER)]


async def test_a_failure_comes_after_what_came(holding: Holding) -> None:
    """And is the last word."""
    caller = download()
    caller.begin(holding)
    caller.fail(NoProvider("first"))
    caller.fail(NoProvider("second"))
    caller.arrived([publish(holding, 3)])
    caller.grown(5)
    seen: list[Event] = []
    with pytest.raises(NoProvider, match="first"):
        await collect(caller, seen)
    assert [type(event) for event in seen] == [Started, Arrived]
    caller.close()


async def test_success_is_the_last_word_too(holding: Holding) -> None:
    """What fails afterwards was for others."""
    caller = download(range=ByteRange(0, 1))
    caller.begin(holding)
    caller.fail(NoProvider("too late"))
    assert len(await events(caller)) == 2


async def test_a_caller_in_a_hurry(holding: Holding) -> None:
    """Its time is its own, counted from its request."""
    caller = download(timeout=0.01)
    caller.begin(holding)
    seen: list[Event] = []
    with pytest.raises(TimedOut, match=r"not finished within the 0\.01 s that were asked for"):
        await collect(caller, seen)
    assert len(seen) == 2
    assert not caller.over, "what is under way goes on"
    caller.close()


async def test_the_bytes_stay_for_as_long_as_it_is_open(holdings: Store, holding: Holding) -> None:
    """Deleted or not."""
    caller = download(range=ByteRange(0, 100))
    caller.begin(holding)
    assert caller.holding is holding
    assert holding.lease_count == 1
    holdings.remove(holding, Reason.DELETED)
    assert len(holding.view(caller.part)) == 100
    caller.close()
    caller.close()
    assert (holding.lease_count, holdings.ledger.used) == (0, 0)


async def test_a_caller_who_left_early(holding: Holding) -> None:
    """Who is gone when the content is found needs no lease on it, which nobody would end."""
    caller = download()
    caller.close()
    caller.begin(holding)
    assert holding.lease_count == 0
    assert caller.missing == set(range(3, 11)), "what is under way goes on"


async def test_a_task_that_was_deleted(holdings: Store, holding: Holding) -> None:
    """Nobody begins with it any more."""
    holdings.remove(holding, Reason.DELETED)
    caller = download()
    with pytest.raises(TaskDeleted):
        caller.begin(holding)


@pytest.mark.parametrize(
    "wishes", [{"range": ByteRange(0, 1)}, {"request_header": {"range": "bytes=0-0"}}]
)
async def test_a_digest_is_of_the_whole(wishes: dict[str, object]) -> None:
    """With a part it would be a promise that nobody keeps."""
    with pytest.raises(InvalidRequest, match="cannot go with a range"):
        download(digest="crc32:1", **wishes)
    with pytest.raises(InvalidRequest, match="md5"):
        download(digest="md5:00")


async def test_who_must_not_ask_the_origin() -> None:
    """It is the caller's word."""
    assert download().may_use_source
    assert not download(disable_back_to_source=True).may_use_source
