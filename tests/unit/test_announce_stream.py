"""rpc/announce_stream.py: pieces in batches, to schedulers that know them and those that do not.

What else a stream says and hears is in test_scheduler_link.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty
from structlog.testing import capture_logs

from pantala.core.beliefs import Beliefs
from pantala.core.digests import DigestRun
from pantala.errors import Busy, DragonflyError, NotFound, Unavailable
from pantala.model.announce import (
    Answer,
    Finished,
    PieceFailed,
    PieceFinished,
    Registration,
    SourcePieceFinished,
    Started,
)
from pantala.model.task import DownloadRequest, Kind, PieceRecord, Traffic
from pantala.pb import common_pb2, reporting_pb2, scheduler_pb2
from pantala.rpc import announce_stream, reporting
from pantala.rpc.scheduler_link import Schedulers
from pantala.rpc.service import add_service
from pantala.scheduler import reports

TASK = "a" * 64
REGISTRATION = Registration(
    host_id="h",
    task_id=TASK,
    peer_id="p",
    request=DownloadRequest(kind=Kind.CACHE, url="http://o/f"),
    content_length=1000,
    piece_length=100,
    piece_count=10,
)


def came(number: int, parent: str = "q") -> PieceFinished:
    """A piece has come from *parent*."""
    return PieceFinished(
        PieceRecord(number, 0, 100, "crc32:1", parent, Traffic.REMOTE_PEER, 0.25, 1.0)
    )


def read(number: int) -> SourcePieceFinished:
    """A piece has come from the origin; its digest is its number."""
    return SourcePieceFinished(
        PieceRecord(number, 0, 100, f"crc32:{number}", None, Traffic.BACK_TO_SOURCE, 0.25, 1.0)
    )


class Flight:
    """What is known of digests, written down."""

    def __init__(self, lacks: int = 0) -> None:
        self.version = "v"
        self.lacks = lacks
        self.told: list[tuple[str, list[tuple[int, int]]]] = []

    def take(self, version: str, runs: Sequence[DigestRun]) -> None:
        """Write it down."""
        self.told.append((version, [each for run in runs for each in run.each()]))


class Script:
    """A scheduler: what it hears, in order, by either service."""

    def __init__(self) -> None:
        #: An arm of the stream, or a batch.
        self.heard: list[Any] = []
        self.numbers: list[int] = []
        #: Digests that batches told of, and the pieces whose digests were asked for.
        self.read: list[tuple[str, list[tuple[int, list[int]]]]] = []
        self.lacks: list[int] = []
        #: What it answers.
        self.digests = reporting_pb2.PiecesResponse()
        #: What calls with batches are refused with, one after another.
        self.errors: list[DragonflyError | grpc.StatusCode] = []
        #: Says nothing until this is set.
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def AnnounceHost(self, _request: Any, _context: Any) -> Any:  # noqa: N802  the contract's name
        """Take it."""
        return Empty()

    async def DeleteHost(self, _request: Any, _context: Any) -> Any:  # noqa: N802  the contract's name
        """Take it."""
        return Empty()

    async def AnnounceCachePeer(self, requests: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Name no parents, and listen until the last word."""
        await anext(requests)
        await self.speaks.wait()
        answer = scheduler_pb2.AnnounceCachePeerResponse()
        answer.normal_cache_task_response.SetInParent()
        yield answer
        async for message in requests:
            arm = message.WhichOneof("request")
            self.heard.append(arm.removesuffix("_request"))
            if arm == "download_cache_peer_finished_request":
                return

    async def Pieces(self, request: reporting_pb2.PiecesRequest, context: Any) -> Any:  # noqa: N802  the contract's name
        """Take a batch, or refuse it."""
        self.numbers.append(request.number)
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, DragonflyError):
                raise error
            await context.abort(error, "Method not found!")
        self.heard.append({told.parent_id: (told.count, told.bytes) for told in request.pieces})
        self.read += [(request.version, [(r.first, list(r.crc32)) for r in request.read])]
        self.lacks += [reporting.lacking(request)]
        return self.digests


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """*script* on a port; its address."""
    server = grpc.aio.server()
    add_service(server, "scheduler.v2.Scheduler", script)
    add_service(server, reports.SERVICE, script)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
async def script() -> Script:
    """One scheduler."""
    return Script()


@pytest.fixture
async def schedulers(script: Script) -> AsyncIterator[Schedulers]:
    """It has been announced to."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(script))
        schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
        stack.push_async_callback(schedulers.close)
        await schedulers.set_addresses([address])
        await schedulers.greet(address, common_pb2.Host(id="h"), 60.0)
        yield schedulers


Tell = Callable[[Any], None]


def words(*said: Any) -> Tell:
    """Tell all of it at once."""

    def tell(stream: Any) -> None:
        for each in said:
            stream.tell(each)

    return tell


async def run(
    schedulers: Schedulers,
    first: Tell,
    *then: tuple[Callable[[], bool], Tell],
    flight: Flight | None = None,
) -> None:
    """A stream: *first* is told once it was answered, each of *then* when it holds; to its end."""
    stream = schedulers.open_stream(REGISTRATION)
    answered = asyncio.Event()

    async def tell() -> None:
        await answered.wait()
        first(stream)
        for holds, told in then:
            while not holds():  # noqa: ASYNC110  what is waited for is in the script
                await asyncio.sleep(0.005)
            told(stream)
        stream.tell(Finished())
        stream.finish()

    def on_answer(_: Answer) -> None:
        answered.set()

    async with asyncio.timeout(30):
        await asyncio.gather(tell(), stream.run(on_answer, flight))


FINISHED = "download_cache_peer_finished"
PIECE = "download_piece_finished"
STARTED = "download_cache_peer_started"


async def test_what_was_told_first_is_heard_first(schedulers: Schedulers, script: Script) -> None:
    """A batch comes before whatever was told after it, and sums up each parent."""
    await run(
        schedulers,
        words(
            *(Started(), came(0), came(1, "r"), came(2)),
            *(PieceFailed(3, "q"), came(4, "r"), came(5, "r"), came(6, "r")),
        ),
    )
    assert script.heard == [
        *(STARTED, {"q": (2, 200), "r": (1, 100)}, "download_piece_failed"),
        *({"r": (3, 300)}, FINISHED),
    ]
    assert script.numbers == [1, 2]


async def test_few_are_told_by_themselves(schedulers: Schedulers, script: Script) -> None:
    """A call for two would be no fewer words."""
    await run(schedulers, words(came(0), came(1)))
    assert script.heard == [PIECE, PIECE, FINISHED]


async def test_no_more_than_the_task_has(schedulers: Schedulers, script: Script) -> None:
    """Pieces that came a second time, as those of content that changed, are another batch."""
    await run(schedulers, words(*(came(number) for number in (*range(10), *range(5)))))
    assert script.heard == [{"q": (10, 1000)}, {"q": (5, 500)}, FINISHED]


async def test_once_in_a_while(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before the time is up is one batch with what came before it."""
    monkeypatch.setattr(announce_stream, "_PAUSE", 20.0)
    await run(
        schedulers,
        words(came(0), came(1), came(2)),
        (lambda: bool(script.heard), words(came(3))),
        (lambda: True, words(came(4), came(5))),
    )
    assert script.heard == [{"q": (3, 300)}, {"q": (3, 300)}, FINISHED]


async def test_without_anything_else_to_say(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch goes when its time has come."""
    monkeypatch.setattr(announce_stream, "_PAUSE", 0.05)
    three = words(came(0), came(1), came(2))
    await run(
        schedulers,
        three,
        (lambda: len(script.heard) == 1, three),
        (lambda: len(script.heard) == 2, words()),
    )
    assert script.heard == [{"q": (3, 300)}, {"q": (3, 300)}, FINISHED]


async def test_what_was_read_is_told_with_its_digests(
    schedulers: Schedulers, script: Script
) -> None:
    """However few pieces they are: the contract has no place for the version."""
    await run(schedulers, words(read(2), read(1), read(5)), flight=Flight())
    await run(schedulers, words(came(0), read(3)), flight=Flight())
    assert script.heard == [{"": (3, 300)}, FINISHED, {"q": (1, 100), "": (1, 100)}, FINISHED]
    assert script.read == [("v", [(1, [1, 2]), (5, [5])]), ("v", [(3, [3])])]


async def test_what_is_answered(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch asks for what is lacking; however few its pieces are, but not every time."""
    monkeypatch.setattr(announce_stream, "_PAUSE", 0.05)
    script.digests = reporting_pb2.PiecesResponse(version="w")
    script.digests.digests.add(first=1, crc32=[7, 8])
    flight = Flight(0b111)
    await run(
        schedulers,
        words(came(0)),
        (lambda: len(script.heard) == 1, words(came(1))),
        (lambda: len(script.heard) == 2, words()),
        flight=flight,
    )
    assert script.heard == [{"q": (1, 100)}, PIECE, FINISHED]
    assert script.lacks == [0b111]
    assert flight.told == [("w", [(1, 7), (2, 8)])]


async def test_a_question(schedulers: Schedulers, script: Script) -> None:
    """It is no batch. Whoever lacks nothing, or is refused, hears nothing."""
    script.digests = reporting_pb2.PiecesResponse(version="w")
    script.digests.digests.add(first=0, crc32=[7])
    flight = Flight(0b1)
    asking: list[asyncio.Task[None]] = []

    def ask(stream: Any) -> None:
        asking.append(asyncio.ensure_future(stream.ask()))

    def through() -> bool:
        return all(task.done() for task in asking)

    def refuse(stream: Any) -> None:
        script.errors = [Unavailable("not now")]
        ask(stream)

    def be_stock(stream: Any) -> None:
        script.errors = [grpc.StatusCode.UNIMPLEMENTED]
        ask(stream)

    then = (refuse, be_stock, ask, words())
    await run(schedulers, ask, *((through, each) for each in then), flight=flight)
    assert script.numbers == [0, 0, 0]
    assert script.lacks == [0b1]
    assert flight.told == [("w", [(0, 7)])]
    assert script.heard == [{}, FINISHED]


async def test_digests_that_make_no_sense(schedulers: Schedulers, script: Script) -> None:
    """Nothing is learnt of them."""
    script.digests = reporting_pb2.PiecesResponse(version="w")
    script.digests.digests.add(first=9, crc32=[7, 8])
    flight = Flight(0b1)
    asking: list[asyncio.Task[None]] = []
    await run(
        schedulers,
        lambda stream: asking.append(asyncio.ensure_future(stream.ask())),
        (lambda: all(task.done() for task in asking), words()),
        flight=flight,
    )
    asking[0].result()
    assert not flight.told


async def test_a_stock_scheduler(schedulers: Schedulers, script: Script) -> None:
    """It gets each piece by itself, and is asked once for each connection."""
    script.errors = [grpc.StatusCode.UNIMPLEMENTED]
    pieces = words(*(came(number) for number in range(5)))
    for _ in range(2):
        await run(schedulers, pieces)
    assert script.heard == [*([PIECE] * 5), FINISHED] * 2
    assert script.numbers == [1]


async def test_what_another_stream_has_learnt(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that waits to be sent again goes piece by piece then."""
    monkeypatch.setattr(announce_stream, "_PAUSE", 20.0)
    script.errors = [Unavailable("not now"), grpc.StatusCode.UNIMPLEMENTED]
    three = words(came(0), came(1), came(2))
    others: list[asyncio.Future[None]] = []

    def other(_: Any) -> None:
        others.append(asyncio.ensure_future(run(schedulers, three)))

    def through() -> bool:
        return others[0].done()

    first = (lambda: len(script.numbers) == 1, other)
    await run(schedulers, three, first, (through, words()))
    assert script.heard == [*([PIECE] * 3), FINISHED] * 2
    assert len(script.numbers) == 2


async def test_before_it_has_answered(schedulers: Schedulers, script: Script) -> None:
    """It may not know whose a batch is: each piece goes on the stream."""
    script.speaks.clear()
    stream = schedulers.open_stream(REGISTRATION)
    words(came(0), came(1), came(2), Finished())(stream)
    stream.finish()
    running = asyncio.ensure_future(stream.run(lambda _: None))
    await asyncio.sleep(0)
    script.speaks.set()
    async with asyncio.timeout(20):
        await running
    assert script.heard == [PIECE, PIECE, PIECE, FINISHED]


@pytest.mark.parametrize("error", [Busy("too much"), Unavailable("not now")])
async def test_a_batch_that_was_perhaps_not_heard(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch, error: DragonflyError
) -> None:
    """It is sent again by the same number; what came meanwhile is the next."""
    monkeypatch.setattr(announce_stream, "_PAUSE", 0.05)
    monkeypatch.setattr(reporting, "_PATIENCE", 0.0)
    script.errors = [error, error, error]
    await run(
        schedulers,
        words(came(0), came(1), came(2)),
        (lambda: len(script.numbers) == 2, words(came(3, "r"), came(4, "r"), came(5, "r"))),
        (lambda: len(script.heard) == 2, words()),
    )
    assert script.heard == [{"q": (3, 300)}, {"r": (3, 300)}, FINISHED]
    assert script.numbers == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("errors", "calls"),
    [([NotFound("peer p is not known here")], [1]), ([Unavailable("not now")] * 9, [1, 1])],
)
async def test_a_batch_that_is_not_taken(
    schedulers: Schedulers, script: Script, errors: Sequence[DragonflyError], calls: list[int]
) -> None:
    """It keeps the last word back for no longer than a moment, and that it is lost is logged."""
    script.errors = list(errors)
    with capture_logs() as logs:
        await run(schedulers, words(came(0), came(1), came(2)))
    assert script.heard == [FINISHED]
    assert script.numbers == calls
    (line,) = [line for line in logs if line["event"] == "pieces not told"]
    assert line["pieces"] == 3
    assert str(errors[0]) in line["why"]
