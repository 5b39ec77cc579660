"""Tasks on disk in a whole daemon: fetched, kept across restarts, checked before they are used."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pantala.daemon.app import Daemon
from pantala.errors import ConfigError, Damaged
from pantala.model.task import Kind
from pantala.storage.holding import Holding
from pantala.testing import inside
from pantala.testing.origin import Fault, Origin

MIB = 1 << 20
SIZE = 9 * MIB
DATA = random.Random(9).randbytes(SIZE)


@pytest.fixture
def origin() -> Iterator[Origin]:
    """It has 9 MiB."""
    with Origin() as made:
        made.put("/f", DATA)
        yield made


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Of a daemon that keeps what it has."""
    return {"storage.dir": str(tmp_path / "data"), "storage.keep": True, **more}


def held(daemon: Daemon) -> Holding:
    """The one task that is here."""
    (holding,) = daemon.stores
    return holding


def flip(tmp_path: Path, at: int) -> None:
    """A bit of the one file goes wrong."""
    (path,) = (p for p in (tmp_path / "data/content").rglob("*") if p.is_file())
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


async def test_it_is_on_the_disk_and_stays_there(tmp_path: Path, origin: Origin) -> None:
    """Another process serves it, though the origin is gone."""
    url = origin.url("/f")
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        assert await inside.get(daemon, url, kind=Kind.STANDARD) == DATA
        holding = held(daemon)
        assert (holding.kind, holding.complete) == (Kind.STANDARD, True)
        path = tmp_path / "data/content/tasks" / holding.id[:3] / holding.id
        assert path.read_bytes() == DATA
        assert len(daemon.stores[Kind.CACHE]) == 0
    origin.stop()
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        assert held(daemon).complete
        assert await inside.get(daemon, url, kind=Kind.STANDARD) == DATA


async def test_a_damaged_piece_is_fetched_again(tmp_path: Path, origin: Origin) -> None:
    """That one alone; nobody sees a wrong byte."""
    url = origin.url("/f")
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        await inside.get(daemon, url, kind=Kind.STANDARD)
        sent = origin.sent()
        flip(tmp_path, 5 * MIB)
        assert await inside.get(daemon, url, kind=Kind.STANDARD) == DATA
        assert 4 * MIB <= origin.sent() - sent <= 4 * MIB + 1
        assert held(daemon).complete


async def test_a_damaged_piece_is_not_given_away(tmp_path: Path, origin: Origin) -> None:
    """It is here no longer."""
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        await inside.get(daemon, origin.url("/f"), kind=Kind.STANDARD)
        holding = held(daemon)
        flip(tmp_path, 1)
        with pytest.raises(Damaged):
            await daemon.uploads.copied(Kind.STANDARD, holding.id, 0)
        assert sorted(holding.pieces) == [1, 2]
        _, data = await daemon.uploads.copied(Kind.STANDARD, holding.id, 2)
        assert data == DATA[8 * MIB :]


async def test_content_of_unknown_length(tmp_path: Path, origin: Origin) -> None:
    """It grows on the disk, and is cut there."""
    origin.put("/g", DATA)
    origin.fault("/g", Fault(chunked=True, no_range=True))
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        assert await inside.get(daemon, origin.url("/g"), kind=Kind.STANDARD) == DATA
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        assert held(daemon).complete


async def test_the_same_directory_twice(tmp_path: Path) -> None:
    """The second daemon does not start, and leaves the first alone."""
    async with inside.daemon(tmp_path, "a", **settings(tmp_path)) as daemon:
        with pytest.raises(ConfigError, match="in use by another daemon"):
            async with inside.daemon(tmp_path, "b", **settings(tmp_path)):
                pass
        assert daemon.ports


async def test_time_to_live(tmp_path: Path, origin: Origin) -> None:
    """As for tasks in memory."""
    more = {"gc.policy.taskTTL": "10ms", "gc.interval": "10ms"}
    async with inside.daemon(tmp_path, **settings(tmp_path)) as daemon:
        await inside.get(daemon, origin.url("/f"), kind=Kind.STANDARD)
    async with inside.daemon(tmp_path, **settings(tmp_path, **more)) as daemon:
        daemon._storage.collect()
        assert list(daemon.stores) == []
    assert not [p for p in (tmp_path / "data/content").rglob("*") if p.is_file()]


async def test_a_full_disk(tmp_path: Path, origin: Origin) -> None:
    """From the high mark on the least recently used goes, until the low one."""
    more = {
        "gc.policy.diskThreshold": "20MiB",
        "gc.policy.distHighThresholdPercent": 80,
        "gc.policy.diskLowThresholdPercent": 50,
    }
    for name in "ab":
        origin.put(f"/{name}", DATA)
    async with inside.daemon(tmp_path, **settings(tmp_path, **more)) as daemon:
        for name in "ab":
            await inside.get(daemon, origin.url(f"/{name}"), kind=Kind.STANDARD)
        daemon._storage.collect()
        assert held(daemon).record.url == origin.url("/b")
