"""daemon/downloading/trailing.py: content of unknown length is followed, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from pantala.core.sched.growth import FANOUT
from pantala.daemon.app import Daemon
from pantala.daemon.downloading import trailing
from pantala.daemon.downloading.callers import Callers
from pantala.daemon.downloading.download import Download, Growing
from pantala.daemon.downloading.trailing import Trail
from pantala.daemon.serving import exchange_service
from pantala.errors import NoRoom, ParentLost, SchedulerLost, TaskDeleted
from pantala.model.digest import crc32
from pantala.model.growth import Growth, Leader
from pantala.model.ids import Identity
from pantala.model.pieces import GROWTH_STEP as STEP
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, Description, DownloadRequest, Kind, TaskRecord, Traffic
from pantala.ports import fill
from pantala.storage.disk import DiskMedium
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.memory import MemoryMedium
from pantala.testing import inside
from pantala.testing.cluster import PATIENCE
from pantala.testing.content import Pattern
from pantala.testing.origin import Fault, Origin

TASK = "a" * 64
RECORD = TaskRecord(kind=Kind.CACHE, id=TASK, url="u", created_at=0.0, updated_at=0.0)
SIZE = 3 * STEP + 1000
DATA = Pattern(SIZE, 1).read()
OTHER = Pattern(SIZE, 2).read()
SAID = Description(SIZE, STEP, growth="v")


def steps(data: bytes) -> list[bytes]:
    """The whole ones."""
    return [data[at : at + STEP] for at in range(0, len(data) - STEP + 1, STEP)]


def crcs(data: bytes) -> tuple[int, ...]:
    """What each must be."""
    return tuple(crc32(step) for step in steps(data))


class Ahead:
    """A daemon that may be followed."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        address = f"127.0.0.1:{daemon.ports['upload']}"
        self.leader = Leader(daemon.config.host_id, address)
        self.holding: Holding | None = None

    def read(self, data: bytes, version: str = "v", count: int = 3) -> None:
        """It has so many steps."""
        stores = self.daemon.node.stores
        record = replace(RECORD, version=version)
        self.holding = stores.open(record)
        self.holding.lease()
        for step in steps(data)[:count]:
            self.more(step)

    def more(self, step: bytes) -> None:
        """One more."""
        assert self.holding is not None
        fill(self.holding.extend(), step)
        self.holding.grown(crc32(step), parent_id=None, traffic=Traffic.BACK_TO_SOURCE)


class Behind:
    """A flight that waits, and whom it is told to follow."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        request = DownloadRequest(kind=Kind.CACHE, url="http://origin/f")
        self.caller = Download(request, Delivery(), Identity(TASK, "f"), "peer")
        callers = Callers(self.caller)
        self.trail = Trail(daemon.node, daemon.engine.means, callers, RECORD)
        self.grown = 0

    def hear(self, data: bytes, *leaders: Ahead, version: str = "v", count: int = 3) -> None:
        """What the reader says, and who may be followed."""
        growth = Growth(version, 0, crcs(data)[:count], tuple(a.leader for a in leaders))
        self.trail.hear(growth)

    async def has(self, data: bytes, count: int = 3) -> None:
        """Wait until so many steps of it are here; they are what they should be."""
        async with asyncio.timeout(PATIENCE):
            while self.grown != count * STEP:
                event = await anext(aiter(self.caller))
                assert isinstance(event, Growing)
                self.grown = event.received
        holding = self.holding
        assert holding is not None
        assert holding.growth is not None
        with_extent = holding.extent(ByteRange(0, count * STEP))
        assert with_extent.read(0, count * STEP) == data[: count * STEP]

    async def finish(self, said: Description = SAID) -> list[int]:
        """It is known how long it is; the pieces that are here then."""
        await self.trail.finish(said, said.piece_length)
        return [] if self.holding is None else sorted(self.holding.pieces)

    @property
    def holding(self) -> Holding | None:
        """What has come."""
        return self.daemon.node.stores.get(Kind.CACHE, TASK)

    @property
    def used(self) -> int:
        """Bytes that it takes."""
        return self.daemon.node.stores[Kind.CACHE].ledger.used

    async def is_over(self) -> None:
        """Wait until it has given up; nothing is left of it."""
        await until(lambda: self.trail.over)
        await self.trail.drop()
        assert self.used == 0


async def until(condition: Callable[[], bool]) -> None:
    """Ask again and again, with an end."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def ahead(tmp_path: Path, stack: AsyncExitStack) -> list[Ahead]:
    """Two that may be followed."""
    return [Ahead(await stack.enter_async_context(inside.daemon(tmp_path, name))) for name in "ab"]


@pytest.fixture
async def behind(tmp_path: Path, stack: AsyncExitStack) -> Behind:
    """Who follows."""
    follower = Behind(await stack.enter_async_context(inside.daemon(tmp_path, "f")))
    stack.push_async_callback(follower.trail.drop)
    return follower


def test_media_grow_by_steps() -> None:
    """What is told on the wire is what is kept."""
    assert MemoryMedium.step == DiskMedium.step == STEP


async def test_it_comes_and_is_kept(ahead: list[Ahead], behind: Behind) -> None:
    """Step by step, as it grows; then cut as it is said to be."""
    ahead[0].read(DATA, count=1)
    behind.hear(DATA, ahead[0], count=1)
    await behind.has(DATA, 1)
    for step in steps(DATA)[1:]:
        ahead[0].more(step)
    behind.hear(DATA, ahead[0])
    await behind.has(DATA)
    assert await behind.finish() == [0, 1, 2]
    holding = behind.holding
    assert holding is not None
    assert holding.view(ByteRange(0, 3 * STEP)) == DATA[: 3 * STEP]
    assert {p.parent_id for p in holding.pieces.values()} == {ahead[0].leader.host_id}
    assert behind.used == 3 * STEP
    behind.trail.release()
    assert holding.lease_count == 0


@pytest.mark.parametrize(
    ("said", "pieces"),
    [
        (Description(3 * STEP, STEP, growth="v"), [0, 1, 2]),
        (Description(SIZE, 2 * STEP, growth="v"), [0]),
        (Description(SIZE, STEP // 2, growth="v"), [0, 1, 2, 3, 4, 5]),
        (Description(SIZE, STEP, growth="another"), []),
        (Description(SIZE, STEP), []),
        (Description(2 * STEP, STEP, growth="v"), []),
        (Description(SIZE, 4 * STEP, growth="v"), []),
        (Description(3 * STEP, 4 * STEP, growth="v"), [0]),
    ],
)
async def test_what_is_kept(
    ahead: list[Ahead], behind: Behind, said: Description, pieces: list[int]
) -> None:
    """Whole pieces of the reading that has ended so; of nothing else anything."""
    ahead[0].read(DATA)
    behind.hear(DATA, ahead[0])
    await behind.has(DATA)
    assert await behind.finish(said) == pieces
    assert behind.used == min(len(pieces) * said.piece_length, said.content_length)


async def test_who_gives_what_was_not_read(ahead: list[Ahead], behind: Behind) -> None:
    """By the reader's word; nothing of it is kept, and he is not asked again."""
    ahead[0].read(OTHER)
    ahead[1].read(DATA)
    behind.hear(DATA, *ahead)
    await behind.has(DATA)
    assert await behind.finish() == [0, 1, 2]
    assert ahead[0].holding is not None
    assert ahead[0].holding.record.uploaded_count == 1


async def test_nobody_gives_what_was_read(ahead: list[Ahead], behind: Behind) -> None:
    """Then nothing comes, until somebody does."""
    ahead[0].read(OTHER)
    behind.hear(DATA, ahead[0])
    await until(lambda: ahead[0].leader.host_id in behind.trail.liars)
    assert behind.grown == 0
    ahead[1].read(DATA)
    behind.hear(DATA, *ahead)
    await behind.has(DATA)


async def test_who_does_not_have_it(ahead: list[Ahead], behind: Behind) -> None:
    """Who has nothing, or something of another name, is passed over."""
    ahead[0].read(DATA, version="w")
    ahead[1].read(DATA)
    gone = Ahead(ahead[0].daemon)
    gone.leader = Leader("gone", "127.0.0.1:1")
    behind.hear(DATA, gone, *ahead)
    await behind.has(DATA)
    assert behind.holding is not None
    assert behind.holding.givers == {ahead[1].leader.host_id}


async def test_who_lags_behind(
    ahead: list[Ahead], behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He lives, and says so, but does not get what the reader has."""
    monkeypatch.setattr(trailing, "_LAG", 0.1)
    ahead[0].read(DATA, count=1)
    ahead[1].read(DATA)
    behind.hear(DATA, *ahead)
    await behind.has(DATA)


async def test_who_goes_away(ahead: list[Ahead], behind: Behind) -> None:
    """Another is followed from there on."""
    ahead[0].read(DATA, count=1)
    ahead[1].read(DATA)
    behind.hear(DATA, *ahead)
    await behind.has(DATA, 1)
    assert ahead[0].holding is not None
    ahead[0].daemon.node.stores.remove(ahead[0].holding, Reason.FAILED)
    await behind.has(DATA)


@pytest.mark.parametrize("version", ["v", "w"])
async def test_something_else_is_read(ahead: list[Ahead], behind: Behind, version: str) -> None:
    """By the same name or another: what has come goes."""
    ahead[0].read(DATA)
    ahead[1].read(OTHER, version=version)
    behind.hear(DATA, ahead[0])
    await behind.has(DATA)
    behind.hear(OTHER, ahead[1], version=version)
    await behind.has(OTHER, 1)
    await behind.has(OTHER)
    assert await behind.finish(replace(SAID, growth=version)) == [0, 1, 2]


async def test_the_same_is_read_by_another(ahead: list[Ahead], behind: Behind) -> None:
    """From the beginning; who has some of it goes on from there."""
    ahead[0].read(DATA, count=2)
    behind.hear(DATA, ahead[0], count=2)
    await behind.has(DATA, 2)
    before = behind.holding
    ahead[1].read(DATA)
    behind.hear(DATA, ahead[1], count=1)
    behind.hear(DATA, ahead[1])
    await behind.has(DATA)
    assert behind.holding is before


async def test_what_the_last_reader_has_not_spoken_of(ahead: list[Ahead], behind: Behind) -> None:
    """By the same name he may have read something else: only what he has vouched for is kept."""
    ahead[0].read(DATA)
    behind.hear(DATA, ahead[0])
    await behind.has(DATA)
    behind.hear(DATA[:STEP] + OTHER[STEP:], ahead[1], count=1)
    assert await behind.finish() == [0]


async def test_nothing_is_evicted_for_it(ahead: list[Ahead], behind: Behind) -> None:
    """It may never fit, or never be wanted."""
    stores = behind.daemon.node.stores
    ahead[0].read(DATA)
    other = stores.open(replace(RECORD, id="b" * 64, content_length=56 << 20, piece_length=STEP))
    with other.lease():
        other.reserve(range(14))
        for number in range(14):
            other.claim(number).publish("crc32:0", parent_id=None, traffic=Traffic.BACK_TO_SOURCE)
    behind.hear(DATA, ahead[0])
    await until(lambda: behind.trail.over)
    assert await behind.finish() == []
    assert other.complete
    assert not other.gone


async def test_no_room(ahead: list[Ahead], behind: Behind) -> None:
    """What others use stays; it can be had later without."""
    stores = behind.daemon.node.stores
    ahead[0].read(DATA)
    other = stores.open(replace(RECORD, id="b" * 64, content_length=56 << 20, piece_length=STEP))
    with other.lease():
        other.reserve(range(14))
        behind.hear(DATA, ahead[0])
        await until(lambda: behind.trail.over)
        assert await behind.finish() == []
        assert behind.used == 56 << 20
        other.settle()


async def test_others_wait_for_room(ahead: list[Ahead], behind: Behind) -> None:
    """They come first: who follows holds nothing that they could have."""
    ahead[0].read(DATA)
    behind.hear(DATA, ahead[0])
    await behind.has(DATA)
    kept = behind.daemon.node.stores.open(
        replace(RECORD, id="b" * 64, content_length=60 << 20, piece_length=STEP)
    )
    room, over = behind.daemon.engine.means.rooms[Kind.CACHE], asyncio.Event()
    waits = Download(behind.caller.request, Delivery(), Identity("b" * 64, "f"), "peer")
    room.wait(waits, kept, 60 << 20, over)
    await behind.is_over()
    waits.close()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("attended", [False, True])
async def test_others_want_room_who_do_not_wait(
    ahead: list[Ahead], behind: Behind, origin: Origin, *, chunked: bool, attended: bool
) -> None:
    """Who follows makes way for them, too: they are not refused what is there in a moment."""
    ahead[0].read(DATA)
    behind.hear(DATA, ahead[0])
    await behind.has(DATA)
    content = Pattern(60 << 20, 3)
    origin.put("/large", content)
    origin.fault("/large", Fault(chunked=chunked, no_range=chunked))
    url = origin.url("/large")
    got = await inside.get(behind.daemon, url, patient=False, attended=attended)
    assert got == content.read()
    await until(lambda: behind.trail.over)
    assert not behind.daemon.engine.means.rooms[Kind.CACHE].give_way


async def test_there_is_no_room_without_it_either(
    ahead: list[Ahead], behind: Behind, origin: Origin
) -> None:
    """Who does not wait hears so when who follows has made way."""
    ahead[0].read(DATA, count=1)
    behind.hear(DATA, ahead[0], count=1)
    await behind.has(DATA, 1)
    origin.put("/large", Pattern(60 << 20, 3))
    record = replace(RECORD, id="b" * 64, content_length=20 << 20, piece_length=STEP)
    other = behind.daemon.node.stores.open(record)
    with other.lease():
        other.reserve(range(5))
        with pytest.raises(NoRoom):
            await inside.get(behind.daemon, origin.url("/large"), patient=False)
        other.settle()
    await behind.is_over()


async def test_deleted(ahead: list[Ahead], behind: Behind) -> None:
    """Whoever waits is told so at once."""
    ahead[0].read(DATA)
    behind.hear(DATA, ahead[0])
    waiting = asyncio.ensure_future(behind.trail.beside(asyncio.sleep(3600)))
    await behind.has(DATA)
    assert behind.holding is not None
    behind.daemon.node.stores.remove(behind.holding, Reason.DELETED)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TaskDeleted):
            await waiting
    assert behind.used == 0


async def test_the_question_fails(ahead: list[Ahead], behind: Behind) -> None:
    """Nothing is left of what came."""
    ahead[0].read(DATA)
    behind.hear(DATA, ahead[0])

    async def question() -> None:
        await behind.has(DATA)
        raise SchedulerLost("gone")

    with pytest.raises(SchedulerLost):
        await behind.trail.beside(question())
    assert behind.used == 0


async def test_too_many_follow(
    ahead: list[Ahead], behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has enough followers sends others elsewhere."""
    assert exchange_service.FOLLOWERS > FANOUT
    monkeypatch.setattr(exchange_service, "FOLLOWERS", 1)
    for a in ahead:
        a.read(DATA)
    first = Behind(behind.daemon)
    words = behind.daemon.engine.means.parents.grown(
        ahead[0].leader, Kind.CACHE, TASK, "v", gap=PATIENCE
    )
    assert (await anext(words)).steps == 3
    first.hear(DATA, *ahead)
    await first.has(DATA)
    assert first.holding is not None
    assert first.holding.givers == {ahead[1].leader.host_id}
    await words.aclose()
    await first.trail.drop()


async def test_one_address_wants_all_places(
    ahead: list[Ahead], behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has as many as the scheduler's plan gives a host, and leaves the others theirs."""
    calls = [*["10.0.0.1"] * (FANOUT + 1), "10.0.0.2", "10.0.0.1", "10.0.0.3"]
    addresses = iter(calls)
    monkeypatch.setattr(exchange_service, "address_of", lambda _context: next(addresses))
    ahead[0].read(DATA)
    found: list[bool] = []
    async with AsyncExitStack() as stack:
        for _ in calls:
            words = behind.daemon.engine.means.parents.grown(
                ahead[0].leader, Kind.CACHE, TASK, "v", gap=PATIENCE
            )
            await stack.enter_async_context(aclosing(words))
            try:
                found.append((await anext(words)).steps == 3)
            except ParentLost as error:
                assert "10.0.0.1 follows this too often" in str(error)  # noqa: PT017  some do, some not
                found.append(False)
    assert found == [*[True] * FANOUT, False, True, False, True]
