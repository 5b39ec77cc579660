"""daemon/downloading: what is here is compared with its origin before it is given away again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pantala.daemon.app import Daemon
from pantala.daemon.downloading import origins
from pantala.errors import OriginError
from pantala.model.task import Kind, Traffic
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.inside import wish
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
SIZE = 9 * MIB
#: An origin that names no version.
UNNAMED = {"ETag": "", "Last-Modified": ""}
OLD, NEW = Pattern(SIZE, seed=1), Pattern(SIZE, seed=2)


@pytest.fixture
def url(origin: Origin) -> str:
    """Of a file of three pieces."""
    origin.put("/f", OLD)
    return origin.url("/f")


@pytest.fixture
async def daemon(tmp_path: Path, stack: AsyncExitStack, url: str) -> Daemon:
    """It has had the file, of a kind whose tasks are compared."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))
    await get(daemon, url)
    return daemon


async def get(daemon: Daemon, url: str, **wishes: object) -> tuple[Pattern | bytes, int]:
    """Which content it is, and how much of it came from the origin."""
    async with daemon.engine.open(*wish(url, kind=Kind.STANDARD, **wishes)) as download:
        async for _ in download:
            pass
        assert download.holding is not None
        data = bytes(download.holding.view(download.part))
        came = download.came[Traffic.BACK_TO_SOURCE]
    known = {p.read(0, p.size): p for p in (OLD, NEW)}
    return known.get(data, data), came


async def test_it_is_still_the_same(daemon: Daemon, origin: Origin, url: str) -> None:
    """A byte is asked for, and nothing comes."""
    before = origin.count("/f")
    assert await get(daemon, url) == (OLD, 0)
    assert origin.count("/f") == before + 1


async def test_it_has_changed(daemon: Daemon, origin: Origin, url: str) -> None:
    """By its validator: what is here is dropped, all of it comes anew, and is kept."""
    origin.put("/f", NEW)
    assert await get(daemon, url) == (NEW, SIZE)
    assert await get(daemon, url) == (NEW, 0)


async def test_it_has_another_length(daemon: Daemon, origin: Origin, url: str) -> None:
    """Whatever the validator says."""
    longer = OLD.read(0, SIZE) + b"!"
    origin.put("/f", longer)
    assert await get(daemon, url) == (longer, SIZE + 1)


async def test_a_part_is_here(daemon: Daemon, origin: Origin) -> None:
    """Parts of two versions are never joined."""
    origin.put("/g", OLD)
    await get(daemon, origin.url("/g"), request_header={"Range": "bytes=0-9"})
    origin.put("/g", NEW)
    assert await get(daemon, origin.url("/g")) == (NEW, SIZE)


async def test_whoever_reads_it_keeps_it(daemon: Daemon, origin: Origin, url: str) -> None:
    """Bytes that somebody was given do not change under his hands."""
    async with daemon.engine.open(*wish(url, kind=Kind.STANDARD)) as download:
        async for _ in download:
            pass
        assert download.holding is not None
        origin.put("/f", NEW)
        assert await get(daemon, url) == (NEW, SIZE)
        assert bytes(download.holding.view(download.part)) == OLD.read(0, SIZE)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_origin_that_cannot_answer_now(
    daemon: Daemon, origin: Origin, url: str, status: int
) -> None:
    """What is here will do."""
    origin.fault("/f", Fault(status=status))
    assert await get(daemon, url) == (OLD, 0)


async def test_a_dead_origin(daemon: Daemon, origin: Origin, url: str) -> None:
    """Likewise."""
    origin.stop()
    assert await get(daemon, url) == (OLD, 0)


async def test_an_origin_that_hangs(
    daemon: Daemon, origin: Origin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds nobody up who can have the content without it."""
    monkeypatch.setattr(origins, "PATIENCE", 0.2)
    origin.fault("/f", Fault(delay=3600))
    async with asyncio.timeout(30):
        assert await get(daemon, url) == (OLD, 0)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_an_origin_that_refuses(
    daemon: Daemon, origin: Origin, url: str, status: int
) -> None:
    """Whoever asks is told; what is here stays for those whom it does not refuse."""
    origin.fault("/f", Fault(status=status))
    with pytest.raises(OriginError) as caught:
        await get(daemon, url)
    assert caught.value.status == status
    origin.heal("/f")
    assert await get(daemon, url) == (OLD, 0)


async def test_who_must_not_ask(daemon: Daemon, origin: Origin, url: str) -> None:
    """Gets what is here."""
    origin.put("/f", NEW)
    before = origin.count("/f")
    assert await get(daemon, url, disable_back_to_source=True) == (OLD, 0)
    assert origin.count("/f") == before


async def test_no_validator(daemon: Daemon, origin: Origin) -> None:
    """The length decides; where that is not told either, it is another file each time."""
    origin.put("/n", OLD, headers=UNNAMED)
    await get(daemon, origin.url("/n"))
    assert await get(daemon, origin.url("/n")) == (OLD, 0)
    origin.put("/u", OLD, headers=UNNAMED)
    origin.fault("/u", Fault(chunked=True, no_range=True))
    await get(daemon, origin.url("/u"))
    assert await get(daemon, origin.url("/u")) == (OLD, SIZE)


async def test_switched_off(tmp_path: Path, stack: AsyncExitStack, origin: Origin) -> None:
    """What is here is taken for right."""
    origin.put("/f", OLD)
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, backend__enableRevalidation=False)
    )
    await get(daemon, origin.url("/f"))
    origin.put("/f", NEW)
    before = origin.count("/f")
    assert await get(daemon, origin.url("/f")) == (OLD, 0)
    assert origin.count("/f") == before
