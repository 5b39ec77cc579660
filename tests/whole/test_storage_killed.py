"""A process that writes to the disk store is killed at any moment; the next finds what counts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pantala.model.digest import crc32, piece_digest
from pantala.model.pieces import ByteRange
from pantala.storage.directory import DataDirectory
from pantala.storage.disk import DiskMedium
from pantala.storage.holding import Holding
from pantala.storage.sqlite_journal import SqliteJournal
from pantala.storage.store import Store

ROUNDS = 12

#: Writes tasks of four pieces of 100 kB, deletes some, and says so on its standard output: a line
#: is written only once what it says has been reported.
PROGRAM = """if True:
    import asyncio, os, random, sys, time
    from pathlib import Path
    from pantala.model.digest import crc32, piece_digest
    from pantala.model.task import Kind, TaskRecord, Traffic
    from pantala.ports import fill
    from pantala.storage.directory import DataDirectory
    from pantala.storage.disk import DiskMedium
    from pantala.storage.home import Reason
    from pantala.storage.sqlite_journal import SqliteJournal
    from pantala.storage.store import Store

    LENGTH = 100_000

    async def main(path, seed):
        directory = DataDirectory(path)
        directory.open()
        loop = asyncio.get_running_loop()
        journal = SqliteJournal(directory.journal, loop.call_soon_threadsafe)
        store = Store(DiskMedium(directory), journal, clock=time.time)
        store.load()
        print("ready", flush=True)
        await asyncio.gather(*(write(store, f"{seed}-{n}") for n in range(4)))

    async def write(store, prefix):
        for number in range(10_000):
            name = f"{prefix}-{number}"
            holding = store.open(TaskRecord(
                kind=Kind.STANDARD, id=name, url="u", created_at=1.0, updated_at=1.0,
                content_length=4 * LENGTH, piece_length=LENGTH))
            holding.reserve(range(4))
            lease = holding.lease()
            for piece in range(4):
                data = random.Random(f"{name}/{piece}").randbytes(LENGTH)
                claim = holding.claim(piece)
                await asyncio.to_thread(fill, claim.sink, data)
                claim.publish(
                    piece_digest(crc32(data)), parent_id=None, traffic=Traffic.REMOTE_PEER)
                await claim.kept()
                os.write(1, f"here {name} {piece}\\n".encode())
            lease.end()
            if number % 3 == 2:
                os.write(1, f"deleting {name}\\n".encode())
                store.remove(holding, Reason.DELETED)

    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def reports(path: Path, seed: int, rng: random.Random) -> Iterator[list[str]]:
    """What a process has said until it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(seed)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 0.25))  # wherever it is then, it is killed
    finally:
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
    yield from (line.split() for line in said.decode().splitlines())


async def opened(path: Path) -> tuple[DataDirectory, Store]:
    """The store as the next process finds it."""
    directory = DataDirectory(path)
    directory.open()
    loop = asyncio.get_running_loop()
    journal = SqliteJournal(directory.journal, loop.call_soon_threadsafe)
    store = Store(DiskMedium(directory), journal, clock=time.time)
    store.load()
    return directory, store


def check(holding: Holding) -> None:
    """Every piece that is here is right."""
    for number, piece in holding.pieces.items():
        data = holding.extent(ByteRange(piece.offset, piece.length)).read(0, piece.length)
        assert piece_digest(crc32(data)) == piece.digest
        assert data == random.Random(f"{holding.id}/{number}").randbytes(piece.length)


@pytest.mark.timeout(300)
async def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Nothing that was reported is lost, nothing is wrong, and no file is nobody's."""
    rng = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID", "x"))
    here: dict[str, set[int]] = {}
    deleting: set[str] = set()
    for seed in range(ROUNDS):
        for what, name, *number in reports(tmp_path, seed, rng):
            if what == "here":
                here.setdefault(name, set()).add(int(number[0]))
            else:
                deleting.add(name)
        directory, store = await opened(tmp_path)
        found = {holding.id: holding for holding in store}
        for name in deleting:  # whether that had come to its end was not said
            if name not in found:
                here.pop(name, None)
        for name, numbers in here.items():
            assert numbers <= found[name].pieces.keys()
        for holding in found.values():
            check(holding)
        files = {path.name for path in directory.content.rglob("*") if path.is_file()}
        assert files == found.keys()
        assert store.ledger.used == sum(
            piece.length for holding in store for piece in holding.pieces.values()
        )
        store.close()
        directory.close()
    assert len(here) > ROUNDS
