"""daemon/downloading/engine.py, and the flights it starts: whole daemons in this process."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pantala.core.policy import POLICIES
from pantala.core.sched.states import PeerState
from pantala.daemon.app import Daemon
from pantala.daemon.downloading import flight
from pantala.daemon.downloading.download import Arrived, Download, Growing, Started
from pantala.daemon.downloading.flight import Flight
from pantala.errors import (
    DigestMismatch,
    DragonflyError,
    FeatureOff,
    InvalidRequest,
    NoProvider,
    NoRoom,
    OriginError,
    RangeNotSatisfiable,
    SourceChanged,
    TaskDeleted,
    TimedOut,
    Unavailable,
)
from pantala.model.pieces import ByteRange
from pantala.model.task import Delivery, DownloadRequest, Kind, Traffic
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.inside import get
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
PIECE = MIB
SIZE = 10 * MIB
CONTENT = Pattern(SIZE)
WHOLE = CONTENT.read()


@pytest.fixture
async def lone(tmp_path: Path, stack: AsyncExitStack) -> Daemon:
    """A daemon without a scheduler."""
    return await stack.enter_async_context(inside.daemon(tmp_path))


@pytest.fixture
async def swarm(tmp_path: Path, stack: AsyncExitStack) -> list[Daemon]:
    """Two daemons with a scheduler."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    return [
        await stack.enter_async_context(inside.daemon(tmp_path, name, port=scheduler.port))
        for name in "ab"
    ]


@pytest.fixture
def url(origin: Origin) -> str:
    """Of a file of three pieces."""
    origin.put("/f", CONTENT)
    return origin.url("/f")


def held(daemon: Daemon) -> Holding:
    """The one task of a daemon."""
    (holding,) = daemon.stores[Kind.CACHE]
    return holding


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


async def idle(daemon: Daemon) -> None:
    """Wait until nothing is under way."""
    await until(lambda: not daemon.engine.busy)


# -- one daemon ----------------------------------------------------------------------------------


async def test_cold_then_hot(lone: Daemon, origin: Origin, url: str) -> None:
    """The origin is read once."""
    assert await get(lone, url) == WHOLE
    await idle(lone)
    asked = origin.count()
    origin.pause()
    assert await get(lone, url) == WHOLE
    assert await get(lone, url, range=ByteRange(5, 100)) == WHOLE[5:105]

    assert asked == 11, "a probe, and ten pieces"
    assert held(lone).lease_count == 0
    assert lone.stores[Kind.CACHE].figures().used == SIZE


async def test_a_scheduler_that_is_missing(
    lone: Daemon, tmp_path: Path, stack: AsyncExitStack, url: str
) -> None:
    """Is spoken of where there should be one, and only there."""
    nobody = stack.enter_context(socket.socket())
    nobody.bind(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    left = await stack.enter_async_context(inside.daemon(tmp_path, "left", port=port))
    for daemon, expected in (
        (lone, set()),
        (left, {"scheduler lost"}),
    ):
        with capture_logs() as lines:
            assert await get(daemon, url) == WHOLE
            await idle(daemon)
        events = {line["event"] for line in lines if "task" in line}
        assert events - {"download finished"} == expected


async def test_what_a_caller_is_told(lone: Daemon, url: str) -> None:
    """First that it begins, then each piece, and from where."""
    request = DownloadRequest(kind=Kind.CACHE, url=url)
    traffic = []
    for _ in range(2):
        async with lone.engine.open(request) as download:
            started, *arrived = [event async for event in download]
        assert isinstance(started, Started)
        assert (started.content_length, started.piece_length) == (SIZE, PIECE)
        pieces = [pair for event in arrived if isinstance(event, Arrived) for pair in event.pieces]
        assert {piece.number for piece, _ in pieces} == set(range(10))
        traffic.append({how for _, how in pieces})
        await idle(lone)
    assert traffic == [{Traffic.BACK_TO_SOURCE}, {Traffic.LOCAL_PEER}]


async def test_many_at_once(lone: Daemon, origin: Origin, url: str) -> None:
    """One flight for all of them, whoever comes first."""
    wishes: list[dict[str, object]] = [{}] * 20 + [{"range": ByteRange(n, 5)} for n in range(20)]
    found = await asyncio.gather(*(get(lone, url, **wish) for wish in wishes))

    assert found == [WHOLE] * 20 + [WHOLE[n : n + 5] for n in range(20)]
    assert origin.sent() <= SIZE + 1
    await idle(lone)
    assert held(lone).lease_count == 0


async def test_a_part_takes_its_pieces_only(lone: Daemon, origin: Origin, url: str) -> None:
    """The rest comes when somebody wants it."""
    assert await get(lone, url, range=ByteRange(5 * MIB, 10)) == WHOLE[5 * MIB : 5 * MIB + 10]
    await idle(lone)
    assert (lone.stores[Kind.CACHE].figures().used, held(lone).complete) == (PIECE, False)
    assert await get(lone, url) == WHOLE
    assert held(lone).complete
    assert origin.sent() <= SIZE + 1


async def test_a_header_asks_for_a_part_too(lone: Daemon, url: str) -> None:
    """As callers of HTTP do."""
    assert await get(lone, url, request_header={"Range": "bytes=-5"}) == WHOLE[-5:]
    with pytest.raises(RangeNotSatisfiable):
        await get(lone, url, range=ByteRange(SIZE, 1))
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().leased == 0


@pytest.mark.parametrize("size", [0, 1, 1000, PIECE, PIECE + 1])
async def test_sizes(lone: Daemon, origin: Origin, size: int) -> None:
    """None, little, just a piece, and a byte more."""
    origin.put("/s", Pattern(size))
    for _ in range(2):
        assert await get(lone, origin.url("/s")) == Pattern(size).read()
        await idle(lone)
    assert held(lone).complete


async def test_prefetching(lone: Daemon, origin: Origin, url: str) -> None:
    """The rest of a file comes after the part, once."""
    for _ in range(2):
        assert await get(lone, url, range=ByteRange(0, 1), prefetch=True) == WHOLE[:1]
    await until(lambda: held(lone).complete)
    await idle(lone)
    assert origin.sent() <= SIZE + 1


async def test_nobody_waits_for_a_prefetch(
    lone: Daemon, origin: Origin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller has left: it has as long as any flight without one."""
    monkeypatch.setattr(flight, "ORPHAN_LIMIT", 0.2)
    assert await get(lone, url, range=ByteRange(0, 1)) == WHOLE[:1]
    await idle(lone)
    origin.fault("/f", Fault(stall_after=1))
    with capture_logs() as logs:
        assert await get(lone, url, range=ByteRange(0, 1), prefetch=True) == WHOLE[:1]
        await until(lambda: bool(lone.engine.busy))
        await idle(lone)

    [failed] = [entry for entry in logs if entry["event"] == "prefetch failed"]
    assert failed["why"] == "given up: nobody has waited for 0.2 s"
    assert not held(lone).complete


async def test_somebody_waits_with_a_prefetch(
    lone: Daemon, origin: Origin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is no limit but his own; and a caller that leaves starts it, once."""
    monkeypatch.setattr(flight, "ORPHAN_LIMIT", 0.2)
    assert await get(lone, url, range=ByteRange(0, 1)) == WHOLE[:1]
    origin.fault("/f", Fault(stall_after=1, stall=0.6))
    assert await get(lone, url, range=ByteRange(0, 1), prefetch=True) == WHOLE[:1]
    assert await get(lone, url) == WHOLE


# -- what is logged ------------------------------------------------------------------------------


async def test_one_line_tells_of_a_download(swarm: list[Daemon], url: str) -> None:
    """Where its bytes came from, how long it took, and the URL without its secrets."""
    first, second = swarm
    signed = url.replace("http://", "http://me:secret@") + "?token=secret"
    with capture_logs() as logs:
        await get(first, signed)
        await get(second, signed)
        await get(second, signed)
        await get(second, signed, range=ByteRange(PIECE, 1))
    ends = [entry for entry in logs if entry["event"] == "download finished"]

    assert [(e["from_origin"], e["from_peers"], e["from_cache"]) for e in ends] == [
        (SIZE, 0, 0),
        (0, SIZE, 0),
        (0, 0, SIZE),
        (0, 0, PIECE),
    ]
    assert {entry["url"] for entry in ends} == {url}
    assert all(0 <= entry["seconds"] < 100 for entry in ends)
    assert "secret" not in str(ends)


async def test_one_line_tells_why_a_download_failed(lone: Daemon, origin: Origin, url: str) -> None:
    """Once, whatever it is."""
    origin.fault("/f", Fault(status=404), times=1)
    origin.fault("/f", Fault(stall_after=1))
    with capture_logs() as logs:
        with pytest.raises(OriginError):
            await get(lone, url)
        with pytest.raises(TimedOut):
            await get(lone, url, timeout=0.3)
        leaving = asyncio.ensure_future(get(lone, url))
        await until(lambda: len(lone.engine._flights) == 1)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait((leaving,))
        with pytest.raises(InvalidRequest):
            await get(lone, "ftp://me:secret@h/x")
    whys = [e["why"] for e in logs if e["event"] in ("download failed", "download refused")]

    assert "404 Not Found" in whys[0]
    assert whys[1] == "not finished within the 0.3 s that were asked for"
    assert whys[2] == "the caller left"
    assert "scheme 'ftp'" in whys[3]
    assert len(whys) == 4
    assert "secret" not in str(logs)


@pytest.mark.parametrize("size", [100, MIB, SIZE])
async def test_a_file_of_unknown_length(lone: Daemon, origin: Origin, size: int) -> None:
    """Its end shows when it is there; it comes once for all who wait."""
    origin.put("/c", Pattern(size))
    origin.fault("/c", Fault(chunked=True, no_range=True))
    request = DownloadRequest(kind=Kind.CACHE, url=origin.url("/c"))
    async with lone.engine.open(request) as download:
        other = asyncio.ensure_future(get(lone, origin.url("/c")))
        events = [event async for event in download]
        assert await other == Pattern(size).read()

    assert isinstance(events[0], Growing)
    assert isinstance(events[-2], Started)
    assert isinstance(events[-1], Arrived)
    assert {how for _, how in events[-1].pieces} == {Traffic.BACK_TO_SOURCE}
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == size
    assert origin.count() == 1


async def test_an_origin_without_ranges(lone: Daemon, origin: Origin, url: str) -> None:
    """It is read once, from front to back."""
    origin.fault("/f", Fault(no_range=True))
    assert await get(lone, url) == WHOLE
    assert (origin.count(), origin.sent()) == (1, SIZE)


# -- digests -------------------------------------------------------------------------------------


async def test_digests_belong_to_those_who_gave_them(lone: Daemon, url: str) -> None:
    """A wrong one fails its own caller, at once or later, and nobody else."""
    right = f"sha256:{hashlib.sha256(WHOLE).hexdigest()}"
    wrong = f"sha256:{'0' * 64}"
    for _ in range(2):
        found = await asyncio.gather(
            get(lone, url, digest=right),
            get(lone, url, digest=wrong),
            get(lone, url),
            return_exceptions=True,
        )
        assert found[0] == found[2] == WHOLE
        assert isinstance(found[1], DigestMismatch)
        assert (found[1].want, found[1].got) == (wrong, right)
        await idle(lone)
    assert held(lone).lease_count == 0


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(Fault(status=404), "404"), (Fault(status=403), "403")],
)
async def test_an_origin_that_refuses(
    lone: Daemon, origin: Origin, url: str, fault: Fault, expected: str
) -> None:
    """All are told; the next one may have more luck."""
    origin.fault("/f", fault, times=1)
    with pytest.raises(OriginError, match=expected):
        await get(lone, url)
    await idle(lone)
    assert await get(lone, url) == WHOLE


async def test_credentials_are_each_callers_own(lone: Daemon, origin: Origin, url: str) -> None:
    """One is refused; the other gets it, on the same flight."""
    origin.fault("/f", Fault(require=("authorization", "good")))
    found = await asyncio.gather(
        get(lone, url, request_header={"Authorization": "bad"}),
        get(lone, url, request_header={"Authorization": "good"}),
        return_exceptions=True,
    )
    assert isinstance(found[0], OriginError)
    assert found[0].status == 401
    assert found[1] == WHOLE


async def test_a_piece_that_the_origin_refuses(lone: Daemon, origin: Origin, url: str) -> None:
    """After a good beginning; what has come stays, and nothing is leased or reserved."""
    origin.fault("/f", Fault(), times=2)
    origin.fault("/f", Fault(status=404))
    with pytest.raises(OriginError, match="404"):
        await get(lone, url)
    await idle(lone)
    figures = lone.stores[Kind.CACHE].figures()
    assert figures.used == sum(p.length for h in lone.stores for p in h.pieces.values()) < SIZE
    assert figures.leased == 0
    origin.heal("/f")
    assert await get(lone, url) == WHOLE


async def test_a_file_that_changes_meanwhile(lone: Daemon, origin: Origin, url: str) -> None:
    """Never a mix: it is begun anew, and nothing of the old one is left."""
    origin.fault("/f", Fault(), times=2)
    origin.fault("/f", Fault(content=Pattern(SIZE, seed=1)))
    assert await get(lone, url) == Pattern(SIZE, seed=1).read()
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == SIZE


async def test_a_file_that_changes_under_a_reader(lone: Daemon, origin: Origin, url: str) -> None:
    """Who was given bytes of the old one that stay given is told, and nothing of it is left."""
    origin.fault("/f", Fault(), times=2)
    origin.fault("/f", Fault(content=Pattern(SIZE, seed=1), delay=0.5))
    with pytest.raises(SourceChanged):
        await get(lone, url, need_piece_content=True)
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == 0
    assert await get(lone, url) == Pattern(SIZE, seed=1).read()


async def test_a_file_that_changes_again_and_again(lone: Daemon, origin: Origin, url: str) -> None:
    """It is begun anew twice; then whoever waits is told. Nothing of it is left."""
    origin.fault("/f", Fault(), times=2)
    for seed in range(1, 40):
        origin.fault("/f", Fault(content=Pattern(SIZE + seed, seed=seed)), times=1)
    with pytest.raises(SourceChanged):
        await get(lone, url)
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == 0


async def test_a_file_that_changed_since_a_part_of_it_came(
    lone: Daemon, origin: Origin, url: str
) -> None:
    """Likewise, however long ago that was."""
    await get(lone, url, range=ByteRange(0, 1))
    await idle(lone)
    origin.put("/f", Pattern(SIZE, seed=1))
    assert await get(lone, url) == Pattern(SIZE, seed=1).read()


async def test_what_does_not_fit(lone: Daemon, origin: Origin, url: str) -> None:
    """The message says why; a part of it may fit, and others do."""
    origin.put("/large", Pattern(65 * MIB))
    with pytest.raises(NoRoom, match=r"68157440 bytes needed, capacity 67108864"):
        await get(lone, origin.url("/large"))
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == 0
    assert len(lone.stores[Kind.CACHE]) == 0
    part = ByteRange(64 * MIB, 10)
    assert await get(lone, origin.url("/large"), range=part) == Pattern(65 * MIB).read(64 * MIB, 10)
    assert await get(lone, url) == WHOLE


async def test_a_file_of_unknown_length_that_does_not_fit(lone: Daemon, origin: Origin) -> None:
    """It shows in the middle."""
    origin.put("/large", Pattern(65 * MIB))
    origin.fault("/large", Fault(chunked=True, no_range=True))
    with pytest.raises(NoRoom):
        await get(lone, origin.url("/large"))
    await idle(lone)
    assert (lone.stores[Kind.CACHE].figures().used, len(lone.stores[Kind.CACHE])) == (0, 0)


async def test_nobody_has_it_and_the_origin_may_not_be_asked(
    lone: Daemon, origin: Origin, url: str
) -> None:
    """It is not asked; once somebody else has brought it, it can be had."""
    with pytest.raises(NoProvider, match="must not ask the origin"):
        await get(lone, url, disable_back_to_source=True)
    assert origin.count() == 0
    await idle(lone)
    await get(lone, url)
    assert await get(lone, url, disable_back_to_source=True) == WHOLE


async def test_a_caller_in_a_hurry(lone: Daemon, origin: Origin, url: str) -> None:
    """Its time ends, the flight goes on."""
    origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(stall_after=1000))
    with pytest.raises(TimedOut, match=r"0\.1 s"):
        await get(lone, url, timeout=0.1)
    origin.release()
    await idle(lone)
    assert held(lone).complete
    assert held(lone).lease_count == 0


@pytest.mark.parametrize("stage", ["asking", "fetching"])
async def test_a_caller_who_leaves(lone: Daemon, origin: Origin, url: str, stage: str) -> None:
    """At any time: the flight goes on, and no lease is left behind."""
    if stage == "fetching":
        origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(stall_after=1000 if stage == "fetching" else 0, delay=60))
    request = DownloadRequest(kind=Kind.CACHE, url=url)
    async with lone.engine.open(request):
        await until(lambda: origin.count() >= (2 if stage == "fetching" else 1))
    origin.release()
    await idle(lone)
    assert held(lone).complete
    assert lone.stores[Kind.CACHE].figures().leased == 0
    assert lone.stores[Kind.CACHE].expire({Kind.CACHE: 0.0}) == 1


async def test_a_caller_who_left_before_the_next_flight(lone: Daemon, url: str) -> None:
    """Nothing is begun for somebody who has gone."""
    request = DownloadRequest(kind=Kind.CACHE, url=url)
    download = Download(request, Delivery(), lone.engine.identify(request), "peer")
    last = Flight(lone.node, lone.engine.means, download)
    last.ended.set()
    download.close()
    await lone.engine._retry(download, last)
    assert not lone.engine.busy


async def test_deleted_while_it_is_downloaded(lone: Daemon, origin: Origin, url: str) -> None:
    """Those who wait are told; its memory comes back."""
    origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(stall_after=1000))
    getting = asyncio.ensure_future(get(lone, url))
    await until(lambda: origin.count() >= 2)
    lone.stores[Kind.CACHE].remove(held(lone), Reason.DELETED)
    with pytest.raises(TaskDeleted, match="was deleted while it was downloaded"):
        await getting
    origin.release()
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == 0
    origin.heal("/f")
    assert await get(lone, url) == WHOLE


async def test_deleted_while_the_origin_is_silent(lone: Daemon, origin: Origin, url: str) -> None:
    """Nobody waits for its answers any more."""
    origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(delay=3600))
    getting = asyncio.ensure_future(get(lone, url))
    await until(lambda: origin.count() >= 2)
    lone.stores[Kind.CACHE].remove(held(lone), Reason.DELETED)
    with pytest.raises(TaskDeleted, match="was deleted while it was downloaded"):
        await getting
    await idle(lone)
    assert lone.stores[Kind.CACHE].figures().used == 0


async def test_stopping_when_nobody_waits(lone: Daemon, origin: Origin, url: str) -> None:
    """What nobody waits for has no time at all, also if its last caller leaves only now."""
    origin.put("/g", CONTENT)
    for path in ("/f", "/g"):
        origin.fault(path, Fault(delay=3600))
    request = DownloadRequest(kind=Kind.CACHE, url=origin.url("/g"))
    async with lone.engine.open(DownloadRequest(kind=Kind.CACHE, url=url)):
        async with lone.engine.open(request):
            await until(lambda: origin.count() >= 2)
        draining = asyncio.ensure_future(lone.engine.drain(3600.0))
        await until(lambda: lone.engine.busy == 2)
    await until(draining.done)


async def test_an_answer_that_takes_its_time(
    tmp_path: Path, stack: AsyncExitStack, origin: Origin, url: str
) -> None:
    """It may take as long as a piece, and longer than any wait for bytes."""
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, download__pieceStallTimeout="200ms", download__pieceTimeout="1m")
    )
    origin.fault("/f", Fault(delay=1.0))
    assert await get(daemon, url) == WHOLE
    assert origin.count() == 11


async def test_requests_that_make_no_sense(lone: Daemon, origin: Origin, url: str) -> None:
    """Each is refused before anything begins."""
    for wishes, expected in (
        ({"url": "gopher://x/"}, "gopher"),
        ({"url": "no url"}, "no scheme"),
        ({"piece_length": 1}, "piece length 1"),
        ({"digest": "md5:00"}, "md5"),
        ({"digest": "crc32:1", "range": ByteRange(0, 1)}, "range"),
    ):
        with pytest.raises(InvalidRequest, match=expected):
            await get(lone, **({"url": url} | wishes))
    with pytest.raises(FeatureOff, match="PERSISTENT tasks are not served"):
        lone.engine.identify(DownloadRequest(kind=Kind.PERSISTENT, url=url))
    assert origin.count() == 0
    assert not lone.engine.busy


async def test_another_identity_with_the_same_id(
    lone: Daemon, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the contract's ids allow it: refused and logged, while it arrives and when it is here."""
    monkeypatch.setitem(POLICIES, Kind.STANDARD, POLICIES[Kind.CACHE])
    origin.put("/x/pub", Pattern(SIZE, 1))
    origin.put("/x/public", Pattern(SIZE, 2))
    origin.fault("/x/pub", Fault(delay=0.3), times=1)
    taken = DownloadRequest(
        kind=Kind.STANDARD,
        url=origin.url("/x/pub?sig=secret"),
        tag="lic",
        filtered_query_params=("sig",),
    )
    good = DownloadRequest(kind=Kind.STANDARD, url=origin.url("/x/public"))
    assert lone.engine.identify(taken).task_id == lone.engine.identify(good).task_id

    async def fetch(request: DownloadRequest) -> bytes:
        async with lone.engine.open(request) as download:
            async for _ in download:
                pass
            assert download.holding is not None
            return bytes(download.holding.view(download.part))

    async def refused(request: DownloadRequest) -> None:
        with (
            capture_logs() as logs,
            pytest.raises(InvalidRequest, match="another file on this node") as caught,
        ):
            await fetch(request)
        assert f"that of {origin.url('/x/pub')}:" in str(caught.value)
        assert "secret" not in str(caught.value) + str(logs)
        (logged,) = [line for line in logs if line["event"] == "refused: same id, other content"]
        assert logged["held"] == origin.url("/x/pub")

    async with asyncio.TaskGroup() as group:
        under_way = group.create_task(fetch(taken))
        await until(lambda: bool(lone.engine.busy))
        await refused(good)
    assert under_way.result() == Pattern(SIZE, 1).read()
    await idle(lone)
    await refused(good)
    assert await fetch(taken) == Pattern(SIZE, 1).read()
    lone.stores[Kind.CACHE].remove(held(lone), Reason.DELETED)
    assert await fetch(good) == Pattern(SIZE, 2).read()


async def test_switched_off(tmp_path: Path, stack: AsyncExitStack, url: str) -> None:
    """The key is named."""
    off = await stack.enter_async_context(inside.daemon(tmp_path, storage__cacheCapacity=0))
    with pytest.raises(FeatureOff, match=r"storage\.cacheCapacity is 0"):
        await get(off, url)


async def test_stopping(lone: Daemon, origin: Origin, url: str) -> None:
    """Nothing new begins; what is under way has its time, and no more."""
    origin.fault("/f", Fault(), times=1)
    origin.fault("/f", Fault(stall_after=1000))
    getting = asyncio.ensure_future(get(lone, url))
    await until(lambda: origin.count() >= 2)
    draining = asyncio.ensure_future(lone.engine.drain(20.0))
    await until(lambda: lone.engine._stopping)
    with pytest.raises(Unavailable, match="the daemon is stopping"):
        await get(lone, origin.url("/g"))
    origin.release()
    assert await getting == WHOLE
    await draining


async def known_to(daemon: Daemon, task: str, *, known: bool) -> None:
    """Wait until the swarm has heard of a task, or has heard that it is gone."""
    async with asyncio.timeout(20):
        while (await daemon.schedulers.stat(Kind.CACHE, task) is not None) != known:  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


# -- a swarm -------------------------------------------------------------------------------------


async def test_from_a_peer(swarm: list[Daemon], origin: Origin, url: str) -> None:
    """The second takes it from the first, also when the origin is gone."""
    a, b = swarm
    assert await get(a, url) == WHOLE
    await idle(a)
    origin.pause()
    request = DownloadRequest(kind=Kind.CACHE, url=url)
    async with b.engine.open(request) as download:
        _, *arrived = [event async for event in download]
        assert download.holding is not None
        assert bytes(download.holding.view(download.part)) == WHOLE

    pieces = [pair for event in arrived if isinstance(event, Arrived) for pair in event.pieces]
    assert {how for _, how in pieces} == {Traffic.REMOTE_PEER}
    assert len({piece.parent_id for piece, _ in pieces}) == 1
    await idle(b)
    # The parent hears in its own time that its child has hung up.
    await until(lambda: [h.lease_count for d in swarm for h in d.stores[Kind.CACHE]] == [0, 0])


async def test_both_at_once(swarm: list[Daemon], origin: Origin, url: str) -> None:
    """One of them asks the origin."""
    assert await asyncio.gather(*(get(daemon, url) for daemon in swarm)) == [WHOLE] * 2
    assert origin.sent() <= SIZE + 2


async def test_the_version_travels_with_the_pieces(swarm: list[Daemon], url: str) -> None:
    """Who has a file from a peer can say of which version it is."""
    a, b = swarm
    await get(a, url)
    await idle(a)
    await get(b, url)

    assert held(a).record.version
    assert held(b).record.version == held(a).record.version


async def test_a_peer_and_an_origin_that_disagree(
    swarm: list[Daemon], origin: Origin, url: str
) -> None:
    """A part is from a peer, and the rest has changed at the origin: never a mix."""
    a, b = swarm
    await get(a, url, range=ByteRange(0, 1))
    await idle(a)
    origin.put("/f", Pattern(SIZE, seed=1))
    try:
        found = await get(b, url)
    except SourceChanged:
        found = await get(b, url, tag="again")
    assert found == Pattern(SIZE, seed=1).read()


async def test_nobody_is_misled_about_what_did_not_fit(swarm: list[Daemon], origin: Origin) -> None:
    """The scheduler does not take a node for a holder that found no room."""
    a, b = swarm
    origin.put("/large", Pattern(65 * MIB))
    request = DownloadRequest(kind=Kind.CACHE, url=origin.url("/large"))
    with pytest.raises(NoRoom):
        await get(a, request.url)
    await idle(a)
    assert await b.schedulers.stat(Kind.CACHE, b.engine.identify(request).task_id) is None


async def test_what_grew_is_announced(swarm: list[Daemon], origin: Origin) -> None:
    """Its length is known now, and who has it."""
    a, b = swarm
    origin.put("/c", Pattern(SIZE))
    origin.fault("/c", Fault(chunked=True, no_range=True))
    task = a.engine.identify(DownloadRequest(kind=Kind.CACHE, url=origin.url("/c"))).task_id
    await get(a, origin.url("/c"))
    await known_to(b, task, known=True)
    found = await b.schedulers.stat(Kind.CACHE, task)
    assert found is not None
    assert found.content_length == SIZE
    origin.pause()
    assert await get(b, origin.url("/c")) == WHOLE


async def test_an_evicted_task_is_withdrawn(swarm: list[Daemon], url: str) -> None:
    """The scheduler sends nobody there."""
    a, b = swarm
    task = a.engine.identify(DownloadRequest(kind=Kind.CACHE, url=url)).task_id
    await get(a, url)
    await idle(a)
    assert await b.schedulers.stat(Kind.CACHE, task) is not None
    a.stores[Kind.CACHE].remove(held(a), Reason.LRU)
    await known_to(b, task, known=False)
    assert await get(b, url) == WHOLE


async def test_the_swarm_must_have_it(swarm: list[Daemon], origin: Origin, url: str) -> None:
    """For who must not ask the origin; then a plain refusal, then the content."""
    a, b = swarm
    with pytest.raises(DragonflyError, match="origin"):
        await get(b, url, disable_back_to_source=True)
    assert origin.count() == 0
    await idle(b)
    await get(a, url)
    await idle(a)
    assert await get(b, url, disable_back_to_source=True) == WHOLE


async def test_a_url_that_python_cannot_parse_is_told_like_others(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack
) -> None:
    """WHATWG's rules take ``http://u[@host``: it is held, told, and nothing stops telling."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    origin.put("/f", Pattern(1000))
    origin.put("/g", Pattern(1000))
    odd = origin.url("/f").replace("http://", "http://u[@")

    for url in (odd, origin.url("/g")):
        assert await get(daemon, url) == Pattern(1000).read()
    for peer in list(scheduler._world.peers.values()):
        scheduler._world.remove_peer(peer)
    for holding in daemon.stores[Kind.CACHE]:
        daemon.announcer.announce(holding)

    def told() -> set[str]:
        return {
            task.registration.request.url
            for task in scheduler._world.tasks.values()
            if task.holders
        }

    async with asyncio.timeout(30):
        while told() != {origin.url("/f"), origin.url("/g")}:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
    assert daemon.loops.failing() == []


@pytest.mark.parametrize("content", [None, "mine"])
async def test_no_url_that_cannot_be_parsed_gets_in(lone: Daemon, content: str | None) -> None:
    """Not even where it is no part of the task's id."""
    with pytest.raises(InvalidRequest, match="cannot be parsed"):
        await get(lone, "http://[::1/x", content_for_calculating_task_id=content)


@pytest.mark.parametrize("status", [403, 401, 503])
async def test_only_its_own_faults_are_held_against_an_origin(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, url: str, status: int
) -> None:
    """What a daemon tells its scheduler of one that was asked with credentials it refused."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, port=scheduler.port))
    origin.fault("/f", Fault(), times=1)  # what tells the length
    origin.fault("/f", Fault(status=status))
    with pytest.raises(OriginError):
        await get(daemon, url)
    [task] = scheduler._world.tasks.values()
    await until(lambda: all(peer.state is PeerState.FAILED for peer in task.peers.values()))
    assert len(task.origin_failures) == (1 if status == 503 else 0)
