"""HTTP/2 frames made by hand, for what no gRPC client would send."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Final, Self

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4

#: Opens a connection as clients do, with no setting of its own.
HELLO: Final = PREFACE + b"\0\0\0" + bytes((SETTINGS, 0)) + b"\0\0\0\0"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field in HPACK, literal, without indexing."""
    return b"\0" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, out = len(text) - 127, bytearray((127,))
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    return bytes((*out, rest)) + text


def request_head(path: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """The header block of a gRPC call."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *extra,
    )
    return b"".join(literal(name, value) for name, value in fields)


def call(path: bytes, stream: int = 1, message: bytes = b"") -> bytes:
    """A whole unary call."""
    body = b"\0" + struct.pack(">I", len(message)) + message
    return frame(HEADERS, END_HEADERS, stream, request_head(path)) + frame(
        DATA, END_STREAM, stream, body
    )


class Connection:
    """A connection of raw bytes.

    Args:
        target: ``"host:port"`` or ``"unix:path"``, as gRPC has it.
        limit: Seconds that a read may take.
    """

    def __init__(self, target: str, limit: float = 10.0) -> None:
        if target.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(limit)
            self.socket.connect(target.removeprefix("unix:"))
        else:
            host, _, port = target.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send *data*. Whether the other side still listens does not matter."""
        try:
            self.socket.sendall(data)
        except OSError:
            return

    def answer(self, stream: int = 1, limit: int = 1000) -> bytes:
        """What the server sends on *stream* until it ends it; what came, if it hangs up."""
        got = bytearray()
        for _ in range(limit):
            head = self._exactly(9)
            if len(head) < 9:
                break
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = self._exactly(length)
            if kind == GOAWAY:
                break
            if int.from_bytes(head[5:9], "big") != stream:
                continue
            got += payload
            if kind == RST_STREAM or flags & END_STREAM:
                break
        return bytes(got)

    def _exactly(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            try:
                part = self.socket.recv(count - len(got))
            except ConnectionError:
                break
            if not part:
                break
            got += part
        return bytes(got)
