"""net/sockets.py: limits that the kernel keeps."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from pantala.net.sockets import hang_up, set_limit, tune


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
        listener.accept()[0] as other,
    ):
        yield one, other


@pytest.mark.parametrize("seconds", [0.0, 0.05, -1.0])
def test_reading_has_an_end(pair: tuple[socket.socket, socket.socket], seconds: float) -> None:
    """Nothing came; no limit at all is not to be had by accident."""
    set_limit(pair[0], socket.SO_RCVTIMEO, seconds)
    with pytest.raises(BlockingIOError):
        pair[0].recv(1)


def test_a_part_comes_short(pair: tuple[socket.socket, socket.socket]) -> None:
    """What has come by then is not lost."""
    set_limit(pair[0], socket.SO_RCVTIMEO, 0.05)
    pair[1].send(b"abc")
    assert pair[0].recv(10, socket.MSG_WAITALL) == b"abc"


def test_sending_has_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """Nobody takes anything."""
    set_limit(pair[0], socket.SO_SNDTIMEO, 0.05)
    with pytest.raises(BlockingIOError):
        pair[0].sendall(bytes(1 << 24))


def test_a_limit_is_kept_exactly(pair: tuple[socket.socket, socket.socket]) -> None:
    """Whole seconds and microseconds."""
    set_limit(pair[0], socket.SO_RCVTIMEO, 12.5)
    raw = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert struct.unpack("@ll", raw) == (12, 500_000)


def test_data_connections_are_tuned(pair: tuple[socket.socket, socket.socket]) -> None:
    """No delay, and a dead peer shows after 5 + 3 × 3 seconds."""
    tune(pair[0])
    assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    found = [
        pair[0].getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in names
        if hasattr(socket, name)
    ]
    assert found in ([5, 3, 3], [])


def test_hanging_up_wakes_who_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    """In another thread; a second time is harmless."""
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pair[0].recv(1)))
    reader.start()
    hang_up(pair[0])
    reader.join(20)
    assert got == [b""]
    pair[0].close()
    hang_up(pair[0])
