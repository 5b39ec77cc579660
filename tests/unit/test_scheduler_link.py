"""rpc/scheduler_link.py against schedulers that are played from a script, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty as Nothing

from pantala.core import absences
from pantala.core.beliefs import Beliefs
from pantala.core.ring import HashRing
from pantala.daemon.downloading.announcing import source_piece_failed
from pantala.errors import (
    Busy,
    DragonflyError,
    NotFound,
    OriginError,
    ParentLost,
    SchedulerLost,
    TimedOut,
    Unavailable,
)
from pantala.model.announce import (
    Answer,
    Candidate,
    CandidateParents,
    EmptyTask,
    Finished,
    HostFacts,
    NeedBackToSource,
    PieceFailed,
    PieceFinished,
    Registration,
    Report,
    Reschedule,
    SourceFailed,
    SourceStarted,
    Started,
)
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest, Kind, PieceRecord, Traffic
from pantala.pb import common_pb2, scheduler_pb2
from pantala.ports import KnownTask
from pantala.rpc import scheduler
from pantala.rpc.scheduler import EPOCH_KEY, SECRET_KEY
from pantala.rpc.scheduler_link import Schedulers
from pantala.rpc.service import add_service

TASK = "a" * 64
REGISTRATION = Registration(
    host_id="h",
    task_id=TASK,
    peer_id="p",
    request=DownloadRequest(kind=Kind.CACHE, url="http://o/f", tag="t", range=ByteRange(5, 10)),
    content_length=350,
    piece_length=100,
    piece_count=4,
    concurrent_piece_count=8,
)
PIECE = PieceRecord(
    number=3,
    offset=300,
    length=50,
    digest="crc32:7",
    parent_id="q",
    traffic=Traffic.REMOTE_PEER,
    cost=0.25,
    created_at=1000.0,
)

Stream = Callable[[AsyncIterator[Any]], AsyncIterator[Any]]
Response = scheduler_pb2.AnnounceCachePeerResponse


class Script:
    """A scheduler that says what it is told to, and remembers what it hears."""

    def __init__(self) -> None:
        self.epoch: str | None = "one"
        self.heard: list[tuple[str, Any]] = []
        #: What proves who calls, of each call.
        self.secrets: list[tuple[str, str]] = []
        self.stat: Any = common_pb2.CacheTask()
        self.error: DragonflyError | None = None
        self.stream: Stream = silence

    async def AnnounceHost(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """Take an announcement."""
        self._note("AnnounceHost", context)
        if self.epoch is not None:
            context.set_trailing_metadata(((EPOCH_KEY, self.epoch),))
        return self._take("AnnounceHost", request)

    async def DeleteHost(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """Take a goodbye."""
        self._note("DeleteHost", context)
        return self._take("DeleteHost", request)

    async def StatCacheTask(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """Say what was prepared."""
        self._note("StatCacheTask", context)
        self._take("StatCacheTask", request)
        return self.stat

    async def DeleteCacheTask(self, request: Any, context: Any) -> Any:  # noqa: N802  the contract's name
        """Take note."""
        self._note("DeleteCacheTask", context)
        return self._take("DeleteCacheTask", request)

    async def AnnounceCachePeer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  the contract's name
        """Play the script."""
        self._note("AnnounceCachePeer", context)
        async for answer in self.stream(requests):
            yield answer

    def _note(self, method: str, context: Any) -> None:
        self.secrets.append((method, dict(context.invocation_metadata())[SECRET_KEY]))

    def _take(self, method: str, request: Any) -> Nothing:
        self.heard.append((method, request))
        if self.error is not None:
            raise self.error
        return Nothing()


async def silence(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Listen, and say nothing."""
    async for message in requests:
        if message is None:
            yield message


def answering(*answers: Any, heard: list[Any] | None = None) -> Stream:
    """Answer at once, then listen until the child says that it is over."""

    async def stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for answer in answers:
            yield answer
        async for message in requests:
            if heard is not None:
                heard.append(message)
            if message.WhichOneof("request") == "download_cache_peer_finished_request":
                return

    return stream


@asynccontextmanager
async def serving(script: Script, port: int = 0) -> AsyncIterator[str]:
    """*script* on a port; its address."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    add_service(server, "scheduler.v2.Scheduler", script)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
def script() -> Script:
    """One scheduler."""
    return Script()


@pytest.fixture
async def address(script: Script, stack: AsyncExitStack) -> str:
    """Where it is."""
    return await stack.enter_async_context(serving(script))


@pytest.fixture
async def schedulers(address: str, stack: AsyncExitStack) -> Schedulers:
    """It has been announced to."""
    schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    stack.push_async_callback(schedulers.close)
    await schedulers.set_addresses([address])
    for one in schedulers.addresses:
        await schedulers.greet(one, common_pb2.Host(id="h"), 60.0)
    return schedulers


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


# -- announcing ----------------------------------------------------------------------------------


async def announce(schedulers: Schedulers) -> bool:
    """Announce to the one there is; whether it may not know what we hold."""
    (address,) = schedulers.addresses
    return await schedulers.greet(address, common_pb2.Host(id="h"), 60.0)


async def test_the_first_time(schedulers: Schedulers, script: Script) -> None:
    """What it remembers of us is from before we were started; it is forgotten, once."""
    await announce(schedulers)
    assert [method for method, _ in script.heard] == ["DeleteHost", "AnnounceHost", "AnnounceHost"]
    first = script.heard[1][1]
    assert (first.host.id, first.interval.seconds) == ("h", 60)
    scheduler = schedulers.pick(TASK)
    assert repr(scheduler) == f"<Scheduler {next(iter(schedulers.addresses))}>"


async def test_a_scheduler_that_was_started_anew(schedulers: Schedulers, script: Script) -> None:
    """It says so by its epoch."""
    assert not await announce(schedulers)
    script.epoch = "two"
    assert await announce(schedulers)
    assert not await announce(schedulers)


async def test_a_stock_scheduler(schedulers: Schedulers, script: Script) -> None:
    """It has no epoch: after any break it may have forgotten everything."""
    script.epoch = None
    await announce(schedulers)
    assert not await announce(schedulers)
    (scheduler,) = schedulers
    script.error = Away("for a moment")
    with pytest.raises(Unavailable):
        await scheduler.delete_task("h", Kind.CACHE, TASK)
    script.error = None
    assert await announce(schedulers)


async def test_a_scheduler_that_refuses(schedulers: Schedulers, script: Script) -> None:
    """It is not used."""
    script.error = ParentLost("as it was told to")
    with pytest.raises(DragonflyError, match="as it was told to"):
        await announce(schedulers)
    assert schedulers.pick(TASK) is None


async def test_a_scheduler_with_too_much_to_do(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there all the same."""
    monkeypatch.setattr(scheduler, "UNARY_LIMIT", 0.5)
    script.error = Busy("as it was told to")
    with pytest.raises(Busy):
        await announce(schedulers)
    assert schedulers.pick(TASK) is not None


async def test_a_scheduler_that_goes_away(stack: AsyncExitStack, script: Script) -> None:
    """It is noticed without a call; when it is back, it is used again."""
    trouble = asyncio.Event()
    schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    schedulers.on_trouble = trouble.set
    stack.push_async_callback(schedulers.close)
    async with serving(script) as address:
        await schedulers.set_addresses([address])
        await announce(schedulers)
        assert schedulers.pick(TASK) is not None
    async with asyncio.timeout(20):
        await trouble.wait()
    assert schedulers.pick(TASK) is None
    with pytest.raises(Unavailable, match=f"scheduler {address}: "):
        await announce(schedulers)
    with pytest.raises(SchedulerLost, match="no scheduler is available"):
        schedulers.open_stream(REGISTRATION)
    async with serving(script, int(address.rpartition(":")[2])):
        async with asyncio.timeout(20):
            while schedulers.pick(TASK) is None:
                try:
                    await announce(schedulers)
                except Unavailable:
                    await asyncio.sleep(0.05)


async def test_a_scheduler_that_is_missed_by_a_call(schedulers: Schedulers, script: Script) -> None:
    """However it shows that it is away: somebody must go and look for it, once."""
    trouble: list[None] = []
    schedulers.on_trouble = lambda: trouble.append(None)
    (link,) = schedulers
    not_away = Busy("not away"), Unavailable("its records are")
    for error in (*not_away, Away("away"), Away("away still")):
        script.error = error
        with pytest.raises(DragonflyError):
            await link.delete_task("h", Kind.CACHE, TASK)
        assert len(trouble) == (error not in not_away)
    assert schedulers.pick(TASK) is None


async def test_which_scheduler(stack: AsyncExitStack, script: Script) -> None:
    """The same for each task, of those that are there; the list may change."""
    other = Script()
    addresses = [await stack.enter_async_context(serving(each)) for each in (script, other)]
    schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    stack.push_async_callback(schedulers.close)
    await schedulers.set_addresses(addresses)
    assert (len(schedulers), schedulers.pick(TASK)) == (2, None)
    for address in schedulers.addresses:
        await schedulers.greet(address, common_pb2.Host(id="h"), 60.0)
    tasks = [hashlib.sha256(bytes([n])).hexdigest() for n in range(50)]
    ring = HashRing(addresses)

    assert [picked(schedulers, task) for task in tasks] == [ring.pick(task) for task in tasks]
    await schedulers.set_addresses(addresses[:1])
    assert {picked(schedulers, task) for task in tasks} == {addresses[0]}


def picked(schedulers: Schedulers, task: str) -> str | None:
    """The address of a task's scheduler."""
    scheduler = schedulers.pick(task)
    return scheduler.address if scheduler else None


async def test_saying_goodbye(schedulers: Schedulers, script: Script) -> None:
    """To those who know us; nobody minds if they do not answer."""
    await schedulers.delete_host(20.0)
    assert [m for m, _ in script.heard] == ["DeleteHost", "AnnounceHost", "DeleteHost"]
    script.error = DragonflyError("as it was told to")
    await schedulers.delete_host(20.0)


# -- tasks ---------------------------------------------------------------------------------------


def known(**fields: Any) -> Any:
    """What a scheduler says of a task that somebody holds."""
    first = common_pb2.Piece(number=0, length=100)
    second = common_pb2.Piece(number=1, length=100)
    said: dict[str, Any] = {
        "id": TASK,
        "content_length": 350,
        "piece_count": 4,
        "has_available_peer": True,
        "pieces": [second, first],
    }
    return common_pb2.CacheTask(**(said | fields))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(known(), KnownTask(350, 4, 100), id="known"),
        pytest.param(known(pieces=[]), KnownTask(350, 4, None), id="without pieces"),
        pytest.param(
            known(content_length=0, piece_count=0, pieces=[]), KnownTask(0, 0, None), id="empty"
        ),
        pytest.param(known(id="b" * 64), None, id="of another task"),
        pytest.param(common_pb2.CacheTask(), None, id="a stock stub"),
        pytest.param(known(has_available_peer=False), None, id="nobody lives"),
        pytest.param(known(content_length=0), None, id="pieces of nothing"),
    ],
)
async def test_what_the_swarm_knows(
    schedulers: Schedulers, script: Script, said: Any, expected: KnownTask | None
) -> None:
    """Only what somebody can be had from."""
    script.stat = said
    assert await schedulers.stat(Kind.CACHE, TASK) == expected
    method, request = script.heard[-1]
    assert (method, request.host_id, request.task_id) == ("StatCacheTask", "h", TASK)


@pytest.mark.parametrize(
    ("error", "is_trouble"), [(NotFound("no"), False), (DragonflyError("oh"), True)]
)
async def test_a_scheduler_that_does_not_know(
    schedulers: Schedulers, script: Script, error: DragonflyError, *, is_trouble: bool
) -> None:
    """The origin is asked then; whether it does not know or cannot say."""
    trouble: list[None] = []
    schedulers.on_trouble = lambda: trouble.append(None)
    script.error = error
    assert await schedulers.stat(Kind.CACHE, TASK) is None
    assert bool(trouble) == is_trouble


async def test_deleting(schedulers: Schedulers, script: Script) -> None:
    """A host holds it no longer."""
    (scheduler,) = schedulers
    await scheduler.delete_task("h", Kind.CACHE, TASK)
    method, request = script.heard[-1]
    assert (method, request.host_id, request.task_id) == ("DeleteCacheTask", "h", TASK)
    script.error = DragonflyError("as it was told to")
    with pytest.raises(DragonflyError, match="as it was told to"):
        await scheduler.delete_task("h", Kind.CACHE, TASK)


async def test_without_a_scheduler() -> None:
    """There is nobody to ask, and nobody to tell."""
    nobody = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    assert await nobody.stat(Kind.CACHE, TASK) is None
    assert not await nobody.greet("10.0.0.1:8002", common_pb2.Host(id="h"), 60.0)
    with pytest.raises(SchedulerLost, match="no scheduler is available"):
        nobody.open_stream(REGISTRATION)


async def test_every_call_proves_who_calls(schedulers: Schedulers, script: Script) -> None:
    """By one secret, which is another at each start of a daemon and part of no message."""
    await schedulers.stat(Kind.CACHE, TASK)
    await next(iter(schedulers)).delete_task("h", Kind.CACHE, TASK)
    script.stream = answering(
        Response(empty_cache_task_response=scheduler_pb2.EmptyCacheTaskResponse())
    )
    stream = schedulers.open_stream(REGISTRATION)
    stream.finish()
    await stream.run(lambda _: stream.tell(Finished()))
    await schedulers.delete_host(20.0)
    methods, (secret, *others) = zip(*script.secrets, strict=True)
    assert set(methods) == {
        *("AnnounceHost", "DeleteHost", "StatCacheTask"),
        *("DeleteCacheTask", "AnnounceCachePeer"),
    }
    assert set(others) == {secret}
    assert len(secret) >= 32
    assert not any(secret in str(message) for _, message in script.heard)
    other = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    await other.set_addresses([next(iter(schedulers)).address])
    await announce(other)
    await other.close()
    assert script.secrets[-1][1] != secret


# -- announce streams ----------------------------------------------------------------------------


async def run_stream(schedulers: Schedulers, *tells: Callable[[Any], None]) -> list[Answer]:
    """An announce stream, until the scheduler ends it; the answers."""
    stream = schedulers.open_stream(REGISTRATION)
    for tell in tells:
        tell(stream)
    answers: list[Answer] = []
    async with asyncio.timeout(20):
        await stream.run(answers.append)
    return answers


async def test_registering(schedulers: Schedulers, script: Script) -> None:
    """The first message says who wants what, and what is known of it."""
    heard: list[Any] = []
    script.stream = answering(heard=heard)
    await run_stream(schedulers, lambda c: c.tell(Finished()), lambda c: c.finish())
    first = heard[0]
    arm = first.register_cache_peer_request

    assert (first.host_id, first.task_id, first.peer_id) == ("h", TASK, "p")
    assert (arm.url, arm.tag, arm.range.start, arm.range.length) == ("http://o/f", "t", 5, 10)
    assert (arm.actual_content_length, arm.actual_piece_length) == (350, 100)
    assert (arm.actual_piece_count, arm.concurrent_piece_count) == (4, 8)
    assert not arm.HasField("output_path")


@pytest.mark.parametrize(
    ("tell", "arm", "expected"),
    [
        (Started(), "download_cache_peer_started_request", {}),
        (
            PieceFailed(3, "q"),
            "download_piece_failed_request",
            {"piece_number": 3, "parent_id": "q", "temporary": True},
        ),
        (SourceStarted(), "download_cache_peer_back_to_source_started_request", {}),
    ],
)
async def test_what_is_told(
    schedulers: Schedulers, script: Script, tell: Report, arm: str, expected: dict[str, Any]
) -> None:
    """In the words of the contract."""
    heard: list[Any] = []
    script.stream = answering(heard=heard)
    await run_stream(
        schedulers,
        lambda c: c.tell(tell),
        lambda c: c.tell(Finished()),
        lambda c: c.finish(),
    )
    assert [m.WhichOneof("request") for m in heard[1:]] == [
        arm,
        "download_cache_peer_finished_request",
    ]
    for name, value in expected.items():
        assert getattr(getattr(heard[1], arm), name) == value


async def test_a_piece_that_came(schedulers: Schedulers, script: Script) -> None:
    """With all that is known of it."""
    heard: list[Any] = []
    script.stream = answering(heard=heard)
    await run_stream(
        schedulers,
        lambda c: c.tell(PieceFinished(PIECE)),
        lambda c: c.tell(Finished()),
        lambda c: c.finish(),
    )
    piece = heard[1].download_piece_finished_request.piece
    assert (piece.number, piece.length, piece.digest, piece.parent_id) == (3, 50, "crc32:7", "q")


async def test_asking_again(schedulers: Schedulers, script: Script) -> None:
    """It says whose stock is exhausted."""
    heard: list[Any] = []
    script.stream = answering(heard=heard)
    await run_stream(
        schedulers,
        lambda c: c.tell(Reschedule(("q", "r"))),
        lambda c: c.tell(Finished()),
        lambda c: c.finish(),
    )
    arm = heard[1].reschedule_cache_peer_request
    assert [parent.id for parent in arm.candidate_parents] == ["q", "r"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OriginError("404 Not Found", status=404), ("backend", "404 Not Found", 404)),
        (OriginError("no route"), ("backend", "no route", 0)),
        (ParentLost("x" * 5000), ("unknown", "x" * 1024, None)),
    ],
)
async def test_an_origin_that_failed(
    schedulers: Schedulers,
    script: Script,
    error: DragonflyError,
    expected: tuple[str, str, int | None],
) -> None:
    """What it answered, or what else it was; not more than fits."""
    heard: list[Any] = []
    script.stream = answering(heard=heard)
    await run_stream(
        schedulers,
        lambda c: c.tell(source_piece_failed(error)),
        lambda c: c.tell(SourceFailed(str(error))),
        lambda c: c.tell(Finished()),
        lambda c: c.finish(),
    )
    arm = heard[1].download_piece_back_to_source_failed_request
    which, text, code = expected
    assert arm.WhichOneof("response") == which
    assert getattr(arm, which).message == text
    assert code is None or arm.backend.status_code == code
    failed = heard[2].download_cache_peer_back_to_source_failed_request
    assert failed.description == str(error)[:1024]


def peer(name: str, ip: str, port: int, most: int = 0, used: int = 0) -> Any:
    """A candidate, as the scheduler describes it."""
    host = common_pb2.Host(id=f"host-{name}", ip=ip, port=port)
    host.network.max_tx_bandwidth, host.network.tx_bandwidth = most, used
    return common_pb2.CachePeer(id=name, host=host)


def host(name: str, ip: str, port: int, *, most: int, used: int) -> HostFacts:
    """What is understood of it."""
    return HostFacts(name, "", ip, port, max_tx_bandwidth=most, tx_bandwidth=used)


async def test_parents(schedulers: Schedulers, script: Script) -> None:
    """Those that can be dialled; the more free bandwidth, the more weight."""
    response = scheduler_pb2.NormalCacheTaskResponse(
        candidate_parents=[
            peer("a", "10.0.0.1", 4000),
            peer("b", "fd00::1", 4001, most=1000, used=400),
            peer("busy", "10.0.0.2", 4000, most=1000, used=990),
            peer("", "10.0.0.3", 4000),
            peer("nowhere", "", 4000),
            peer("no port", "10.0.0.4", 0),
            peer("odd port", "10.0.0.5", 70000),
            common_pb2.CachePeer(id="no host"),
        ]
    )
    script.stream = answering(Response(normal_cache_task_response=response))
    answers = await run_stream(schedulers, lambda c: c.tell(Finished()), lambda c: c.finish())

    assert answers == [
        CandidateParents(
            (
                Candidate("a", HostFacts("host-a", "", "10.0.0.1", 4000)),
                Candidate("b", host("host-b", "fd00::1", 4001, most=1000, used=400)),
                Candidate("busy", host("host-busy", "10.0.0.2", 4000, most=1000, used=990)),
            )
        )
    ]
    (found,) = answers
    assert isinstance(found, CandidateParents)
    assert [(c.host.address, c.host.weight) for c in found.candidates] == [
        ("10.0.0.1:4000", 10e9),
        ("[fd00::1]:4001", 600.0),
        ("10.0.0.2:4000", 100.0),
    ]


async def test_other_answers(schedulers: Schedulers, script: Script) -> None:
    """In the order in which they come."""
    source = scheduler_pb2.NeedBackToSourceResponse(description="why")
    script.stream = answering(
        Response(empty_cache_task_response=scheduler_pb2.EmptyCacheTaskResponse()),
        Response(need_back_to_source_response=source),
    )
    answers = await run_stream(schedulers, lambda c: c.tell(Finished()), lambda c: c.finish())
    assert answers == [EmptyTask(), NeedBackToSource("why")]


async def test_an_answer_that_is_none(schedulers: Schedulers, script: Script) -> None:
    """The stream is over."""
    script.stream = answering(Response())
    with pytest.raises(SchedulerLost, match="unexpected answer of the scheduler: None"):
        await run_stream(schedulers)


class Away(Unavailable):
    """What is told of it is no scheduler's own word, but that of a connection."""


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (NotFound, NotFound),
        (Unavailable, Unavailable),
        (Away, Unavailable),
        (DragonflyError, DragonflyError),
    ],
)
async def test_a_stream_that_breaks_off(
    schedulers: Schedulers, script: Script, error: type[DragonflyError], seen: type[DragonflyError]
) -> None:
    """With the scheduler's own words; one that is away is not asked again."""

    async def refuse(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for message in requests:
            if message is not None:
                raise error("because")
            yield message

    script.stream = refuse
    with pytest.raises(seen, match="because"):
        await run_stream(schedulers)
    assert (schedulers.pick(TASK) is None) == (error is Away)


async def test_a_scheduler_that_ends_the_stream(schedulers: Schedulers, script: Script) -> None:
    """Without a word: it is over."""

    async def end(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for message in requests:
            if message is not None:
                return
            yield message

    script.stream = end
    assert await run_stream(schedulers) == []


async def test_a_scheduler_that_thinks_too_long(
    address: str, stack: AsyncExitStack, script: Script
) -> None:
    """There is an end to patience."""
    schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=0.1)
    stack.push_async_callback(schedulers.close)
    await schedulers.set_addresses([address])
    await announce(schedulers)
    script.stream = silence
    with pytest.raises(TimedOut, match=r"no answer for 0\.1 s"):
        await run_stream(schedulers)


async def test_a_scheduler_that_does_not_end_a_stream(
    schedulers: Schedulers, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has some time for it, and no more."""
    monkeypatch.setattr("pantala.rpc.announce_stream._END_LIMIT", 0.1)
    script.stream = silence
    assert await run_stream(schedulers, lambda c: c.finish()) == []


async def test_a_stream_that_is_given_up(schedulers: Schedulers, script: Script) -> None:
    """The scheduler notices."""
    ended = asyncio.Event()

    async def listen(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for message in requests:
                script.heard.append(("stream", message))
                if message is None:
                    yield message
        finally:
            ended.set()

    script.stream = listen
    running = asyncio.ensure_future(run_stream(schedulers))
    await until(lambda: script.heard[-1][0] == "stream")
    running.cancel()
    async with asyncio.timeout(20):
        await ended.wait()


async def test_waiting_for_one_that_went(
    stack: AsyncExitStack, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever begins something goes on when it is back; at once if it has forgotten nothing."""
    monkeypatch.setattr(absences, "RETURN", 60.0)
    schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    stack.push_async_callback(schedulers.close)
    async with serving(script) as address:
        await schedulers.set_addresses([address])
        assert not await schedulers.ready(TASK)  # it was never there
        await announce(schedulers)
        assert not await schedulers.ready(TASK)
    await until(lambda: schedulers.pick(TASK) is None)
    port = int(address.rpartition(":")[2])
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(schedulers.ready(TASK))
        await stack.enter_async_context(serving(script, port))
        assert not waiting.done()
        while schedulers.pick(TASK) is None:
            with contextlib.suppress(Unavailable):
                await announce(schedulers)
            await asyncio.sleep(0.05)  # between two attempts
    assert waiting.result()
    assert not await schedulers.ready(TASK)


async def test_waiting_for_one_that_stays_away(
    stack: AsyncExitStack, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is some seconds, once."""
    monkeypatch.setattr(absences, "RETURN", 0.3)
    schedulers = Schedulers("h", Beliefs(60.0), schedule_timeout=20.0)
    stack.push_async_callback(schedulers.close)
    async with serving(script) as address:
        await schedulers.set_addresses([address])
        await announce(schedulers)
    await until(lambda: schedulers.pick(TASK) is None)
    async with asyncio.timeout(20):
        assert await schedulers.ready(TASK)
    assert not await schedulers.ready(TASK)
