"""Where the bytes of a piece go, and lie: memory and files, by the same rules."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pantala.errors import Damaged, StoreFailed
from pantala.model.digest import crc32, piece_digest
from pantala.ports import Extent, MemoryExtent, MemorySink, Sink, fill
from pantala.storage.files import BUFFER, FileExtent, FileSink

BEFORE, LENGTH, AFTER = 1000, 3 * BUFFER + 77, 500
DATA = random.Random(1).randbytes(LENGTH)
DIGEST = piece_digest(crc32(DATA))


class Place:
    """Room for a piece between other bytes."""

    def sink(self) -> Sink:
        """Where the piece goes."""
        raise NotImplementedError

    def extent(self) -> Extent:
        """Where it lies."""
        raise NotImplementedError

    def peek(self) -> bytes:
        """All that is there, what is around it included."""
        raise NotImplementedError


class InMemory(Place):
    """A bytearray."""

    def __init__(self) -> None:
        self._bytes = bytearray(BEFORE + LENGTH + AFTER)

    def sink(self) -> Sink:
        return MemorySink(memoryview(self._bytes)[BEFORE : BEFORE + LENGTH])

    def extent(self) -> Extent:
        return MemoryExtent(memoryview(self._bytes)[BEFORE : BEFORE + LENGTH].toreadonly())

    def peek(self) -> bytes:
        return bytes(self._bytes)


class InFile(Place):
    """A file."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(BEFORE + LENGTH + AFTER))
        self.path = path
        self.fd = os.open(path, os.O_RDWR)

    def sink(self) -> Sink:
        return FileSink(self.fd, BEFORE, LENGTH, name="piece 7")

    def extent(self) -> Extent:
        return FileExtent(self.fd, BEFORE, LENGTH, name="piece 7")

    def peek(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[InFile]:
    """Room in a file."""
    place = InFile(tmp_path / "file")
    yield place
    os.close(place.fd)


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, file: InFile) -> Place:
    """Room in either."""
    return InMemory() if request.param == "memory" else file


def sent(extent: Extent, offset: int, count: int) -> bytes:
    """What a child would receive, however little its socket takes at a time."""
    ours, theirs = socket.socketpair()
    received = bytearray()

    def receive() -> None:
        while data := theirs.recv(1 << 20):
            received.extend(data)

    with theirs:
        thread = threading.Thread(target=receive)
        thread.start()
        try:
            with ours:
                at = offset
                while at < offset + count:
                    at += extent.send(ours, at, offset + count - at)
        finally:
            thread.join()
    return bytes(received)


# -- both --------------------------------------------------------------------------------------


def test_filled_and_read(place: Place) -> None:
    """Its bytes are in their place, and nothing is around it."""
    with closing(place.sink()) as sink:
        assert sink.length == LENGTH
        fill(sink, DATA)
    assert place.peek() == bytes(BEFORE) + DATA + bytes(AFTER)
    with closing(place.extent()) as extent:
        assert extent.length == LENGTH
        extent.check(DIGEST)
        for offset, count in ((0, LENGTH), (5, 10), (LENGTH - 1, 1), (BUFFER - 1, BUFFER + 2)):
            with extent.read(offset, count) as data:
                assert data.readonly
                assert data == DATA[offset : offset + count]
            assert sent(extent, offset, count) == DATA[offset : offset + count]


def test_windows_that_are_filled_in_part(place: Place) -> None:
    """As bytes come from a socket; the next window begins where they ended."""
    rng, at = random.Random(2), 0
    sink = place.sink()
    while at < LENGTH:
        with sink.window(at) as window:
            assert 1 <= len(window) <= LENGTH - at
            count = min(len(window), rng.randint(1, BUFFER))
            window[:count] = DATA[at : at + count]
        sink.wrote(at, count)
        at += count
    sink.close()
    assert place.peek()[BEFORE : BEFORE + LENGTH] == DATA


def test_a_sink_that_was_closed(place: Place) -> None:
    """No late write into a verified piece."""
    sink = place.sink()
    fill(sink, DATA)
    sink.close()
    sink.close()
    with pytest.raises(ValueError, match=r"released|closed"):
        sink.window(0)


# -- files -------------------------------------------------------------------------------------


def test_two_sinks_of_one_file(file: InFile) -> None:
    """Each has a buffer of its own, and hands it on."""
    first = FileSink(file.fd, 0, 100, name="piece 1")
    second = FileSink(file.fd, 100, 100, name="piece 2")
    one, two = first.window(0), second.window(0)
    one[:], two[:] = b"1" * 100, b"2" * 100
    first.wrote(0, 100)
    second.wrote(0, 100)
    assert file.peek()[:200] == b"1" * 100 + b"2" * 100
    second.close()
    with FileSink(file.fd, 0, 100, name="piece 3").window(0) as three:
        assert three.obj is two.obj
    first.close()


@pytest.mark.parametrize("at", [0, LENGTH // 2, LENGTH - 1])
def test_a_flipped_bit(file: InFile, at: int) -> None:
    """It is found, whatever reads it then."""
    fill(file.sink(), DATA)
    os.pwrite(file.fd, bytes([DATA[at] ^ 4]), BEFORE + at)
    with pytest.raises(Damaged, match="piece 7 is damaged on this node: expected crc32:"):
        file.extent().check(DIGEST)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda extent: extent.check(DIGEST), id="check"),
        pytest.param(lambda extent: extent.read(0, LENGTH), id="read"),
    ],
)
def test_a_file_that_was_cut_short(file: InFile, use: Callable[[Extent], object]) -> None:
    """An error, where a mapping would end the process."""
    fill(file.sink(), DATA)
    os.truncate(file.path, BEFORE + LENGTH - 1)
    with pytest.raises(Damaged, match="its file has become shorter"):
        use(file.extent())


def test_a_file_that_is_cut_short_while_it_is_sent(file: InFile) -> None:
    """The child is hung up on, and nobody waits for bytes that never come."""
    fill(file.sink(), DATA)
    os.truncate(file.path, BEFORE + 10)
    with pytest.raises(OSError, match="its file has become shorter"):
        sent(file.extent(), 0, LENGTH)


def test_a_disk_that_is_full() -> None:
    """It is said what could not be written, and why."""
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StoreFailed, match="cannot write piece 7: No space left on device"):
            fill(FileSink(fd, 0, 10, name="piece 7"), b"0123456789")
    finally:
        os.close(fd)


def test_a_disk_that_fails(tmp_path: Path) -> None:
    """Likewise."""
    fd = os.open(tmp_path, os.O_RDONLY)  # a directory: the system reads no bytes of it
    try:
        with pytest.raises(Damaged, match="piece 7 is damaged on this node: Is a directory"):
            FileExtent(fd, 0, 10, name="piece 7").check(DIGEST)
    finally:
        os.close(fd)
