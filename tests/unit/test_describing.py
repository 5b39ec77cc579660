"""rpc/describing.py, scheduler/descriptions.py: one host asks the origin, the others are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from pantala.core.sched.rules import Limits
from pantala.daemon.app import Daemon
from pantala.daemon.downloading.describing import told_piece_length
from pantala.errors import OriginError, RangeNotSatisfiable
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2, describing_pb2, describing_pb2_grpc
from pantala.ports import KnownTask
from pantala.rpc import service
from pantala.scheduler.app import Scheduler
from pantala.scheduler.descriptions import DescriptionService
from pantala.testing import inside
from pantala.testing.announce import LIMIT, Swarm, swarm, until
from pantala.testing.content import Pattern
from pantala.testing.inside import get
from pantala.testing.origin import Fault, Origin
from pantala.testing.stage import task_id

MIB = 1 << 20
SIZE = 5 * MIB
CONTENT = Pattern(SIZE, seed=1)
WHOLE = CONTENT.read()
SHARED = {"download__bypassSize": 0}


@pytest.fixture
async def scheduler(stack: AsyncExitStack) -> Scheduler:
    """A scheduler of ours."""
    return await stack.enter_async_context(inside.scheduler())


@pytest.fixture
async def daemons(tmp_path: Path, stack: AsyncExitStack, scheduler: Scheduler) -> list[Daemon]:
    """Three that have it, and share whatever is not empty."""
    return [
        await stack.enter_async_context(
            inside.daemon(tmp_path, name, port=scheduler.port, **SHARED)
        )
        for name in "abc"
    ]


def probes(origin: Origin) -> int:
    """How often the origin was asked what it has."""
    return sum(seen.headers.get("range") == "bytes=0-0" for seen in origin.requests)


# Daemons


async def test_headers_are_told(origin: Origin, daemons: list[Daemon]) -> None:
    """Whoever could have asked the same may know what the origin answered, but for cookies."""
    origin.put("/f", CONTENT, headers={"Set-Cookie": "a=b", "X-Fine": "yes"})
    await asyncio.gather(*(get(d, origin.url("/f"), kind=Kind.STANDARD) for d in daemons))
    assert probes(origin) == 1
    headers = [
        {k.lower(): v for k, v in holding.record.response_header.items()}
        for d in daemons
        for holding in d.node.stores[Kind.STANDARD]
    ]
    assert [h["x-fine"] for h in headers] == ["yes"] * 3
    assert not any("set-cookie" in h for h in headers)


async def test_whether_it_is_the_same(origin: Origin, daemons: list[Daemon]) -> None:
    """One host asks; what has changed comes anew to all."""
    origin.put("/f", CONTENT)
    url = origin.url("/f")
    await asyncio.gather(*(get(d, url, kind=Kind.STANDARD) for d in daemons))
    origin.reset()
    all_same = await asyncio.gather(*(get(d, url, kind=Kind.STANDARD) for d in daemons))
    assert all_same == [WHOLE] * 3
    assert origin.count() == probes(origin) == 1


@pytest.mark.parametrize("alone", [False, True], ids=["told", "each asks"])
async def test_all_drop_what_has_changed(
    origin: Origin, daemons: list[Daemon], monkeypatch: pytest.MonkeyPatch, alone: object
) -> None:
    """None takes another that has just done so for a holder, and waits for it."""
    if alone:
        monkeypatch.setattr(DescriptionService, "_open", _unimplemented)
    for number in range(5):
        url = origin.url(f"/{number}")
        for seed in (1, 2):
            content = Pattern(SIZE, seed)
            origin.put(f"/{number}", content)
            origin.reset()
            got = await asyncio.gather(*(get(d, url, kind=Kind.STANDARD) for d in daemons))
            assert got == [content.read()] * 3
            assert origin.sent() == SIZE + probes(origin)
            assert probes(origin) == (3 if alone else 1)


async def test_who_asks_again_hears_of_a_change(origin: Origin, daemons: list[Daemon]) -> None:
    """On each host by which it was asked for before, however short ago."""
    origin.put("/f", CONTENT)
    for d in daemons:
        await get(d, origin.url("/f"), kind=Kind.STANDARD)
    new = Pattern(SIZE, seed=2)
    origin.put("/f", new)
    for d in daemons:
        assert await get(d, origin.url("/f"), kind=Kind.STANDARD) == new.read()


async def test_an_origin_that_is_down(origin: Origin, daemons: list[Daemon]) -> None:
    """What is here will do, for all."""
    origin.put("/f", CONTENT)
    for d in daemons:
        await get(d, origin.url("/f"), kind=Kind.STANDARD)
    origin.stop()
    got = await asyncio.gather(*(get(d, origin.url("/f"), kind=Kind.STANDARD) for d in daemons))
    assert got == [WHOLE] * 3


@pytest.mark.parametrize("kind", [Kind.STANDARD, Kind.CACHE])
async def test_a_scheduler_that_knows_no_such_question(
    origin: Origin, daemons: list[Daemon], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Each host asks the origin. The scheduler is asked once."""
    for d in daemons:
        (link,) = d.node.schedulers
        assert link.questions.understood
    monkeypatch.setattr(DescriptionService, "_open", _unimplemented)
    origin.put("/f", CONTENT)
    origin.put("/g", CONTENT)
    for path in ("/f", "/g"):
        got = await asyncio.gather(*(get(d, origin.url(path), kind=kind) for d in daemons))
        assert got == [WHOLE] * 3
    assert not any(link.questions.understood for d in daemons for link in d.node.schedulers)
    assert origin.sent() == 2 * SIZE + probes(origin)


async def _unimplemented(_self: object, _requests: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def test_a_scheduler_that_ends_meanwhile(
    origin: Origin, daemons: list[Daemon], scheduler: Scheduler
) -> None:
    """Whoever waited asks the origin himself."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(delay=LIMIT), times=1)
    downloads = [asyncio.ensure_future(get(d, origin.url("/f"))) for d in daemons]

    async def one_asks() -> bool:
        return origin.count() > 0

    await until(one_asks)
    await scheduler.stop(0)
    async with asyncio.timeout(2 * LIMIT):
        await asyncio.wait(downloads, return_when=asyncio.FIRST_COMPLETED)
        assert origin.count() >= 2
        origin.release()
        assert await asyncio.gather(*downloads) == [WHOLE] * 3


async def test_all_have_failed(origin: Origin, tmp_path: Path, stack: AsyncExitStack) -> None:
    """Who comes then is told the reason, and the origin is left alone for a moment."""
    settings = {"scheduler__retryBackToSourceLimit": 2}
    scheduler = await stack.enter_async_context(inside.scheduler(**settings))
    for number, name in enumerate("abcd"):
        daemon = await stack.enter_async_context(
            inside.daemon(tmp_path, name, port=scheduler.port, **SHARED)
        )
        with pytest.raises(OriginError, match="404") as failed:
            await get(daemon, origin.url("/f"))
        assert failed.value.status == 404
        assert origin.count() == min(number + 1, 2)


async def test_who_has_learnt_it_and_fetches_nothing(origin: Origin, daemons: list[Daemon]) -> None:
    """Nobody waits for him to begin."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(delay=LIMIT), times=1)
    far = {"Range": f"bytes={SIZE}-"}
    bad = asyncio.ensure_future(get(daemons[0], origin.url("/f"), request_header=far))

    async def asked() -> bool:
        return origin.count() > 0

    await until(asked)
    good = asyncio.ensure_future(get(daemons[1], origin.url("/f")))
    origin.release()
    with pytest.raises(RangeNotSatisfiable):
        await bad
    async with asyncio.timeout(Limits().start / 2):
        assert await good == WHOLE
    assert probes(origin) == 1


# Streams


def of(**fields: Any) -> dict[str, Any]:
    """The field of a question that says what is wanted."""
    said: dict[str, Any] = {"url": "http://origin/f", "type": common_pb2.CACHE} | fields
    return {"download": common_pb2.Download(**said)}


class Asking:
    """A stream that is spoken by hand."""

    def __init__(self, known: Swarm, host: str = "a", **ask: Any) -> None:
        said = {"host_id": host, "task_id": task_id("t"), **of()}
        self._ask = describing_pb2.Ask(**(said | ask))
        self._call: Any = describing_pb2_grpc.DescriptionsStub(known.channel).Describe()

    async def ask(self) -> None:
        """Open it."""
        await self.say(ask=self._ask)

    async def say(self, **arm: Any) -> None:
        """Send a message with that arm."""
        await self._call.write(describing_pb2.DescribeRequest(**arm))

    async def hear(self) -> Any:
        """The next answer but for words of patience; its end is raised."""
        async with asyncio.timeout(LIMIT):
            message = await self._call.read()
            while message is not grpc.aio.EOF and message.HasField("patience"):
                message = await self._call.read()
        return message

    async def growth(self) -> Any:
        """What it hears next of somebody who reads."""
        async with asyncio.timeout(LIMIT):
            while not (message := await self._call.read()).patience.reading:
                pass
        return message.patience.growth

    async def ends(self) -> grpc.StatusCode:
        """How it ends."""
        async with asyncio.timeout(LIMIT):
            code: grpc.StatusCode = await self._call.code()
            return code

    def leave(self) -> None:
        """Hang up."""
        self._call.cancel()


@pytest.fixture
async def known(stack: AsyncExitStack) -> Swarm:
    """A scheduler that knows the hosts a and b."""
    known = await stack.enter_async_context(swarm())
    await known.host("a")
    await known.host("b")
    return known


async def test_a_turn_is_handed_on_and_its_word_told(known: Swarm) -> None:
    """From who hangs up to who waits; what he tells, all hear."""
    first, second, third = Asking(known), Asking(known, "b"), Asking(known)
    for each in (first, second, third):
        await each.ask()
        if each is first:
            assert (await first.hear()).HasField("turn")
    first.leave()
    heard = await asyncio.wait(
        [asyncio.ensure_future(each.hear()) for each in (second, third)],
        return_when=asyncio.FIRST_COMPLETED,
    )
    assert heard[0].pop().result().HasField("turn")
    for waits in heard[1]:
        waits.cancel()


async def test_who_has_told_is_let_go(known: Swarm) -> None:
    """When nobody waits for him to register any more: who registers nothing, at once."""
    first, second = Asking(known), Asking(known, "b")
    await first.ask()
    assert (await first.hear()).HasField("turn")
    await second.ask()
    word = describing_pb2.Description(content_length=5, version="v", alone=True)
    await first.say(learnt=word)
    assert await first.ends() is grpc.StatusCode.OK
    told = (await second.hear()).described
    assert (told.content_length, told.version) == (5, "v")
    assert await second.ends() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"host_id": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"task_id": "../.."}, grpc.StatusCode.INVALID_ARGUMENT),
        (of(url=""), grpc.StatusCode.INVALID_ARGUMENT),
        (of(type=common_pb2.PERSISTENT_CACHE), grpc.StatusCode.INVALID_ARGUMENT),
        (of(type=99), grpc.StatusCode.INVALID_ARGUMENT),
        (of(priority=99), grpc.StatusCode.INVALID_ARGUMENT),
        (of(url="http://o/" + 99999 * "x"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_questions_that_make_no_sense(
    known: Swarm, ask: dict[str, Any], code: grpc.StatusCode
) -> None:
    """They are refused, and it is nobody's turn by them."""
    bad, good = Asking(known, **ask), Asking(known)
    await bad.ask()
    assert await bad.ends() is code
    await good.ask()
    assert (await good.hear()).HasField("turn")


@pytest.mark.parametrize(
    "said",
    [
        {"ask": describing_pb2.Ask()},
        {"learnt": describing_pb2.Description(content_length=2**63)},
        {"learnt": describing_pb2.Description(piece_length=1)},
        {"learnt": describing_pb2.Description(version=99999 * "x")},
        {"reading": describing_pb2.Reading(version=99999 * "x")},
        {"reading": describing_pb2.Reading(version="v", received=8 * MIB, first=1, crcs=[1, 2])},
    ],
)
async def test_words_that_make_no_sense(known: Swarm, said: dict[str, Any]) -> None:
    """They end the turn of who says them, and nobody hears them."""
    first, second = Asking(known), Asking(known, "b")
    await first.ask()
    assert (await first.hear()).HasField("turn")
    await second.ask()
    await first.say(**said)
    assert await first.ends() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await second.hear()).HasField("turn")


async def test_a_stream_that_opens_with_something_else(known: Swarm) -> None:
    """It is refused."""
    odd = Asking(known)
    await odd.say(reading=describing_pb2.Reading())
    assert await odd.ends() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_opens_with_nothing(
    known: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not waited for for ever."""
    monkeypatch.setattr(service, "FIRST_WORD", 0.05)
    assert await Asking(known).ends() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_who_would_follow_hears_what_is_read(known: Swarm) -> None:
    """Each step once, and of whom to have it; an older daemon hears nothing of it."""
    reader, follower, old = Asking(known), Asking(known, "b", follows=True), Asking(known, "b")
    await reader.ask()
    assert (await reader.hear()).HasField("turn")
    await reader.say(reading=describing_pb2.Reading(version="v", received=9 * MIB, crcs=[1, 2]))
    await follower.ask()
    await old.ask()
    while not (first := await follower.growth()).crcs:
        pass
    assert (first.version, first.first, list(first.crcs)) == ("v", 0, [1, 2])
    assert [at.host_id for at in first.leaders] == ["a"]
    await reader.say(
        reading=describing_pb2.Reading(version="v", received=13 * MIB, first=2, crcs=[3])
    )
    while not (more := await follower.growth()).crcs:
        pass
    assert (more.first, list(more.crcs)) == (2, [3])
    assert not (await old.growth()).version


@pytest.mark.parametrize(
    ("told", "length"),
    [
        (KnownTask(20 * MIB, 5, None), 4 * MIB),
        (KnownTask(20 * MIB, 20, None), MIB),
        (KnownTask(20 * MIB, 10, 2 * MIB), 2 * MIB),
        (KnownTask(20 * MIB, 1, None), 20 * MIB),
        (KnownTask(20 * MIB, 0, None), MIB),
    ],
)
def test_how_others_have_cut_it(told: KnownTask, length: int) -> None:
    """As their first piece shows, or the number of pieces."""
    request = DownloadRequest(kind=Kind.CACHE, url="http://origin/f")
    assert told_piece_length(told, request, least=MIB) == length
