"""daemon/downloading: a caller who wants what the origin has since he asked, whatever is here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pantala.daemon.app import Daemon
from pantala.errors import InvalidRequest, OriginError, SourceUnreachable
from pantala.model.task import PRIORITY_ONLY_PEERS, Kind, Traffic
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.inside import wish
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
SIZE = 9 * MIB
OLD, NEW, NEWER = (Pattern(SIZE, seed=seed) for seed in (1, 2, 3))

#: Headers of an origin that names no version.
UNNAMED = {"ETag": "", "Last-Modified": ""}

#: Seconds in which all of a test happens that waits for somebody.
LONG = 60.0


@pytest.fixture(params=[Kind.CACHE, Kind.STANDARD], ids=lambda kind: kind.name.lower())
def kind(request: pytest.FixtureRequest) -> Kind:
    """Of the task."""
    found: Kind = request.param
    return found


@pytest.fixture
def url(origin: Origin) -> str:
    """Of a file of some pieces."""
    origin.put("/f", OLD)
    return origin.url("/f")


@pytest.fixture
async def daemon(tmp_path: Path, stack: AsyncExitStack, url: str, kind: Kind) -> Daemon:
    """It has had the file."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))
    await get(daemon, url, kind=kind)
    return daemon


@pytest.fixture
async def tasks(stack: AsyncExitStack) -> asyncio.TaskGroup:
    """Callers whose answers are looked at later."""
    return await stack.enter_async_context(asyncio.TaskGroup())


async def get(daemon: Daemon, url: str, **wishes: object) -> tuple[Pattern | bytes, int]:
    """Which content it is, and how much of it came from the origin."""
    async with asyncio.timeout(LONG), daemon.engine.open(*wish(url, **wishes)) as download:
        async for _ in download:
            pass
        assert download.holding is not None
        data = bytes(download.holding.view(download.part))
        came = download.came[Traffic.BACK_TO_SOURCE]
    known = {content.read(): content for content in (OLD, NEW, NEWER)}
    return known.get(data, data), came


async def refreshed(
    daemon: Daemon, url: str, kind: Kind, **wishes: object
) -> tuple[Pattern | bytes, int]:
    """The same as it is at the origin now."""
    return await get(daemon, url, kind=kind, refresh=True, **wishes)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110  threads set no event
            await asyncio.sleep(0.01)


async def asked(origin: Origin, count: int) -> None:
    """Wait until the origin was asked so often."""
    await until(lambda: origin.count("/f") >= count)


async def test_it_is_still_the_same(daemon: Daemon, origin: Origin, url: str, kind: Kind) -> None:
    """A byte is asked for, and what is here stays what it was."""
    count, sent = origin.count("/f"), origin.sent("/f")
    assert await refreshed(daemon, url, kind) == (OLD, 0)
    assert (origin.count("/f"), origin.sent("/f")) == (count + 1, sent + 1)


@pytest.mark.parametrize("new", [NEW, Pattern(SIZE + 1, seed=2)], ids=["version", "length"])
async def test_it_has_changed(
    daemon: Daemon, origin: Origin, url: str, kind: Kind, new: Pattern
) -> None:
    """All of it comes anew, and is what everybody gets from then on."""
    origin.put("/f", new)
    data = new if new is NEW else new.read()
    assert await refreshed(daemon, url, kind) == (data, new.size)
    assert await get(daemon, url, kind=kind) == (data, 0)


async def test_nothing_is_here(daemon: Daemon, origin: Origin, kind: Kind) -> None:
    """It is fetched, as ever."""
    origin.put("/g", NEW)
    assert await refreshed(daemon, origin.url("/g"), kind) == (NEW, SIZE)


async def test_a_part(daemon: Daemon, origin: Origin, url: str, kind: Kind) -> None:
    """Of what is still the same nothing comes; of what has changed that part alone."""
    part = {"Range": "bytes=0-9"}
    assert await refreshed(daemon, url, kind, request_header=part) == (OLD.read(0, 10), 0)
    origin.put("/f", NEW)
    data, came = await get(daemon, url, kind=kind, refresh=True, request_header=part)
    assert data == NEW.read(0, 10)
    assert came < SIZE


async def test_whoever_reads_it_keeps_it(
    daemon: Daemon, origin: Origin, url: str, kind: Kind
) -> None:
    """Bytes that somebody was given do not change under his hands."""
    async with daemon.engine.open(*wish(url, kind=kind)) as download:
        async for _ in download:
            pass
        assert download.holding is not None
        origin.put("/f", NEW)
        assert await refreshed(daemon, url, kind) == (NEW, SIZE)
        assert bytes(download.holding.view(download.part)) == OLD.read()


@pytest.mark.parametrize("how", ["length", "no length"])
async def test_no_validator(daemon: Daemon, origin: Origin, kind: Kind, how: str) -> None:
    """That it is as long as before shows nothing: it is read anew."""
    origin.put("/n", OLD, headers=UNNAMED)
    if how == "no length":
        origin.fault("/n", Fault(chunked=True, no_range=True))
    await get(daemon, origin.url("/n"), kind=kind)
    assert await refreshed(daemon, origin.url("/n"), kind) == (OLD, SIZE)
    origin.put("/n", NEW, headers=UNNAMED)
    assert await refreshed(daemon, origin.url("/n"), kind) == (NEW, SIZE)


# Origins that do not say


@pytest.mark.parametrize("status", [500, 503, 429, None])
async def test_an_origin_that_cannot_answer(
    daemon: Daemon, origin: Origin, url: str, kind: Kind, status: int | None
) -> None:
    """It is said, and that it may help to ask again; what is here stays for who wants that."""
    if status is None:
        origin.pause()
    else:
        origin.fault("/f", Fault(status=status))
    with pytest.raises(SourceUnreachable, match="cannot be compared with what is here") as caught:
        await refreshed(daemon, url, kind)
    assert caught.value.transient
    assert caught.value.status == status
    assert await get(daemon, url, kind=kind) == (OLD, 0)


async def test_a_dead_origin_of_what_is_not_here(
    daemon: Daemon, origin: Origin, kind: Kind
) -> None:
    """Likewise."""
    origin.pause()
    with pytest.raises(SourceUnreachable, match="is not known"):
        await refreshed(daemon, origin.url("/g"), kind)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_an_origin_that_refuses(
    daemon: Daemon, origin: Origin, url: str, kind: Kind, status: int
) -> None:
    """Whoever asks is told; what is here stays for those who do not ask."""
    origin.fault("/f", Fault(status=status))
    with pytest.raises(OriginError) as caught:
        await refreshed(daemon, url, kind)
    assert caught.value.status == status
    origin.heal("/f")
    assert await get(daemon, url, kind=kind) == (OLD, 0)


@pytest.mark.parametrize(
    "wishes", [{"disable_back_to_source": True}, {"priority": PRIORITY_ONLY_PEERS}]
)
async def test_who_must_not_ask(
    daemon: Daemon, origin: Origin, url: str, kind: Kind, wishes: dict[str, object]
) -> None:
    """It makes no sense, and changes nothing."""
    count = origin.count("/f")
    with pytest.raises(InvalidRequest, match="refresh asks the origin"):
        await refreshed(daemon, url, kind, **wishes)
    assert origin.count("/f") == count


async def test_what_has_no_origin(daemon: Daemon) -> None:
    """Likewise."""
    with pytest.raises(InvalidRequest, match="has no origin"):
        await refreshed(daemon, "", Kind.PERSISTENT_CACHE, task_id="0" * 64)


# Several callers


async def test_ten_callers_at_once(daemon: Daemon, origin: Origin, url: str, kind: Kind) -> None:
    """One asks; the others came while it was answered, perhaps too late: they ask once more."""
    origin.put("/f", NEW)
    origin.fault("/f", Fault(delay=0.5))
    count, sent = origin.count("/f"), origin.sent("/f")
    got = await asyncio.gather(*(refreshed(daemon, url, kind) for _ in range(10)))
    assert {data for data, _ in got} == {NEW}
    assert origin.sent("/f") <= sent + SIZE + 2
    pieces = origin.count("/f") - count - 2
    assert pieces * MIB <= SIZE + MIB


async def test_a_change_after_the_answer(
    daemon: Daemon, origin: Origin, url: str, kind: Kind, tasks: asyncio.TaskGroup
) -> None:
    """An answer that was on its way when somebody asked is not one to him."""
    count = origin.count("/f")
    origin.fault("/f", Fault(delay=LONG, content=OLD), times=1)
    first = tasks.create_task(get(daemon, url, kind=kind, refresh=True))
    await asked(origin, count + 1)
    origin.put("/f", NEW)
    second = tasks.create_task(get(daemon, url, kind=kind, refresh=True))
    await asyncio.sleep(0.1)  # it must not have had it by then, nor need it have begun to wait
    assert not second.done()
    origin.release()
    assert await first == (OLD, 0)
    assert await second == (NEW, SIZE)


async def test_who_does_not_insist_need_not_wait(
    daemon: Daemon, origin: Origin, url: str, tasks: asyncio.TaskGroup
) -> None:
    """While the origin thinks, what is here is given to whoever wants no more."""
    await get(daemon, url)
    count = origin.count("/f")
    origin.fault("/f", Fault(delay=LONG), times=1)
    first = tasks.create_task(get(daemon, url, refresh=True))
    await asked(origin, count + 1)
    assert await get(daemon, url) == (OLD, 0)
    assert not first.done()
    origin.release()
    assert await first == (OLD, 0)


async def test_the_others_go_on(
    daemon: Daemon, origin: Origin, kind: Kind, tasks: asyncio.TaskGroup
) -> None:
    """Of two who wait for an origin, which does not answer, one is content with what is here."""
    origin.put("/g", OLD)
    part = {"Range": "bytes=0-9"}
    await get(daemon, origin.url("/g"), kind=kind, request_header=part)
    count = origin.count("/g")
    origin.fault("/g", Fault(delay=LONG, status=503))

    async def refused() -> None:
        with pytest.raises(SourceUnreachable, match="503"):
            await refreshed(daemon, origin.url("/g"), kind, request_header=part)

    first = tasks.create_task(refused())
    await until(lambda: origin.count("/g") > count)
    second = tasks.create_task(get(daemon, origin.url("/g"), kind=kind, request_header=part))
    await asyncio.sleep(0.1)  # so that it waits, too
    assert not second.done()
    origin.release()
    await first
    assert await second == (OLD.read(0, 10), 0)


async def test_a_download_is_under_way(
    daemon: Daemon, origin: Origin, kind: Kind, tasks: asyncio.TaskGroup
) -> None:
    """It began before: when it is through, what it has brought is compared."""
    origin.put("/g", OLD)
    origin.fault("/g", Fault(rate=4 * MIB))
    first = tasks.create_task(get(daemon, origin.url("/g"), kind=kind))
    await until(lambda: origin.sent("/g") > MIB)
    second = tasks.create_task(get(daemon, origin.url("/g"), kind=kind, refresh=True))
    assert await first == (OLD, SIZE)
    origin.heal("/g")
    assert await second == (OLD, 0)
