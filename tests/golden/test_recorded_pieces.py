"""Recorded conversations about pieces, played again: stock children to ours, ours to stock parents.

Of each connection the first 128 bytes each way are on record, and how many there were. What a
stock parent sent beyond is made up, so that it has the CRC-32 that the parent announced.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pantala.errors import ParentLost
from pantala.model.pieces import Piece
from pantala.net.piece_client import Address, Connections, PieceFetch, TimeLimits
from pantala.net.piece_server import PieceServer, Upload
from pantala.ports import MemoryExtent, MemorySink
from pantala.wire.vortex import TO_SERVER, FrameDecoder, PieceContent, PieceRequest, to_client

PATIENCE = 20.0
LIMITS = TimeLimits(request=PATIENCE, stall=PATIENCE, piece=PATIENCE)


class Exchange(NamedTuple):
    """What went over one connection.

    Attributes:
        asked: All that the child said before it closed its half.
        answered: The beginning of what the parent said before it hung up.
        size: Bytes that the parent said.
    """

    asked: bytes
    answered: bytes
    size: int

    def request(self) -> PieceRequest:
        """What the child wants."""
        decoder = FrameDecoder(TO_SERVER)
        decoder.receive(self.asked)
        frame = decoder.next_frame()
        assert isinstance(frame, PieceRequest)
        return frame

    def content(self) -> tuple[PieceContent, bytes]:
        """What the parent says of the piece, and the first bytes of it."""
        decoder = FrameDecoder(to_client(self.request().tag))
        decoder.receive(self.answered)
        frame = decoder.next_frame()
        assert isinstance(frame, PieceContent)
        return frame, decoder.release()

    def data(self) -> bytes:
        """A piece with that beginning and that CRC-32."""
        content, begin = self.content()
        most = begin + bytes(content.length - len(begin) - 4)
        return most + four_bytes(zlib.crc32(most), int(content.digest.removeprefix("crc32:")))


def four_bytes(crc: int, wanted: int) -> bytes:
    """Those that make a CRC-32 of *crc* one of *wanted*.

    Each of their 32 bits changes the result in its own way, whatever the others are.
    """
    nothing = zlib.crc32(bytes(4), crc)
    basis: dict[int, tuple[int, int]] = {}
    for bit in range(32):
        change, bits = zlib.crc32((1 << bit).to_bytes(4, "big"), crc) ^ nothing, 1 << bit
        while change and change.bit_length() in basis:
            other, others = basis[change.bit_length()]
            change, bits = change ^ other, bits ^ others
        basis[change.bit_length()] = change, bits
    missing, found = nothing ^ wanted, 0
    while missing:
        change, bits = basis[missing.bit_length()]
        missing, found = missing ^ change, found ^ bits
    return found.to_bytes(4, "big")


def recorded() -> Iterator[Any]:
    """All exchanges of pieces."""
    for file in sorted(Path(__file__).with_name("recorded").glob("*.json")):
        for number, call in enumerate(json.loads(file.read_text())):
            if call["method"] == "vortex":
                child, parent = call["events"]
                asked, answered = bytes.fromhex(child["hex"]), bytes.fromhex(parent["hex"])
                assert len(asked) == child["total_bytes"]
                exchange = Exchange(asked, answered, parent["total_bytes"])
                yield pytest.param(exchange, id=f"{file.stem}-{number}")


EXCHANGES = list(recorded())


class Shelf:
    """One piece."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @asynccontextmanager
    async def upload(self, request: PieceRequest) -> AsyncIterator[Upload]:
        """As :class:`pantala.net.piece_server.Uploads`."""
        assert request == self._exchange.request()
        with closing(MemoryExtent(memoryview(self._exchange.data()))) as extent:
            yield Upload(self._exchange.content()[0], extent)


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_a_stock_child(exchange: Exchange) -> None:
    """It asks, closes its half, and reads to the end: all that it was sent, and the end."""
    with ThreadPoolExecutor(1) as executor:
        server = PieceServer(Shelf(exchange), executor, stall=PATIENCE, piece=PATIENCE)
        port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(exchange.asked)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        writer.close()
        await server.stop(0)
    content, begin = exchange.content()
    assert answer[1 : len(exchange.answered)] == exchange.answered[1:]  # not the first byte
    assert answer.endswith(exchange.data())
    assert len(answer) == len(exchange.answered) - len(begin) + content.length


@contextmanager
def stock_parent(exchange: Exchange, heard: list[bytes]) -> Iterator[Address]:
    """It reads one request, answers as it was recorded, and hangs up."""

    def play() -> None:
        child, _ = listener.accept()
        with child:
            heard.append(child.recv(len(exchange.asked), socket.MSG_WAITALL))
            begin = exchange.content()[1]
            child.sendall((exchange.answered + exchange.data()[len(begin) :])[: exchange.size])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=play)
        thread.start()
        yield Address(*listener.getsockname())
        thread.join()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_stock_parent(exchange: Exchange) -> None:
    """What it sends whole is taken, what it breaks off is lost; its connection is not kept."""
    content, begin = exchange.content()
    into, heard = bytearray(content.length), list[bytes]()
    piece, sink = (
        Piece(content.number, content.offset, content.length),
        MemorySink(memoryview(into)),
    )
    with closing(Connections()) as connections:
        with stock_parent(exchange, heard) as address:
            fetch = PieceFetch(connections, address, exchange.request(), piece, sink, limits=LIMITS)
            if exchange.size == len(exchange.answered) - len(begin) + content.length:
                assert fetch.run() == content.digest
                assert into == exchange.data()
            else:
                with pytest.raises(ParentLost, match=f"closed after .* of {content.length} bytes"):
                    fetch.run()
        assert connections.take(address) is None
    assert [request[1:] for request in heard] == [exchange.asked[1:]]
