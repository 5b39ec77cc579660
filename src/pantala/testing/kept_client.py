"""A program that asks a daemon many times over one hand-off connection (docs/handoff.md)."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from pantala.wire.handoff import parse

_LENGTH: Final = struct.Struct("!I")
_INT: Final = struct.Struct("i")
_ANCILLARY: Final = socket.CMSG_SPACE(_INT.size)
#: More would be memory that is fresh from the system each time, at 30 µs.
_READ: Final = 64 << 10

#: Seconds for the daemon to say anything.
_PATIENCE: Final = 60.0


class Event(NamedTuple):
    """What the daemon says, and the content that came with it.

    Attributes:
        told: The object.
        content: ``b""`` for none.
    """

    told: dict[str, Any]
    content: bytes


class KeptClient:
    """See the module. A context manager; it waits in the thread that calls.

    Args:
        path: Of the hand-off socket.

    Attributes:
        sock: The connection.
        fds: Descriptors that came; closed with this.
        asked: How often it has asked: the last id.
    """

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(path))
        self.fds: deque[int] = deque()
        self.asked = 0
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.sock.close()
        while self.fds:
            os.close(self.fds.pop())

    def ask(self, op: str = "download", **wishes: Any) -> int:
        """Send a request; the id of it."""
        self.asked += 1
        self.send({"id": self.asked, "op": op, **wishes})
        return self.asked

    def send(self, message: object) -> None:
        """A frame, whatever is in it."""
        self.sock.sendall(framed(message))

    def event(self) -> Event:
        """The next one.

        Raises:
            ConnectionError: The daemon has closed.
            TimeoutError: There is none.
        """
        if len(self._data) < _LENGTH.size:
            self._want(_LENGTH.size)
        end = _LENGTH.size + _LENGTH.unpack_from(self._data)[0]
        if len(self._data) < end:
            self._want(end)
        told = parse(self._data[_LENGTH.size : end])
        after = end + told.get("inline", 0)
        if len(self._data) < after:
            self._want(after)
        content = self._data[end:after]
        self._data = self._data[after:]
        return Event(told, content)

    def events(self) -> list[dict[str, Any]]:
        """All until the last of a request; those of several must not be under way."""
        found = [self.event().told]
        while found[-1]["event"] not in {"whole", "done", "error", "released", "info"}:
            found.append(self.event().told)
        return found

    def get(self, url: str) -> bytes:
        """Small content that is at hand. Raises RuntimeError if it is not."""
        self.sock.sendall(self._framed(url))
        return self._whole()

    def get_all(self, urls: Iterable[str], depth: int) -> Iterator[bytes]:
        """The same of many, of which *depth* are asked for before the first is here."""
        under_way, left = 0, iter(urls)
        while frames := [self._framed(url) for url in islice(left, depth - under_way)]:
            self.sock.sendall(b"".join(frames))
            under_way += len(frames)
            while under_way > depth // 2:
                yield self._whole()
                under_way -= 1
        for _ in range(under_way):
            yield self._whole()

    def have(self, urls: Iterable[str], depth: int = 32) -> None:
        """Have the daemon get small content, *depth* of which are under way.

        Raises:
            RuntimeError: One cannot be had.
        """
        under_way, left = 0, iter(urls)
        while True:
            for url in islice(left, depth - under_way):
                self.ask(url=url)
                under_way += 1
            if not under_way:
                return
            told = self.event().told
            if told["event"] == "error":
                raise RuntimeError(f"cannot be had: {told}")
            under_way -= told["event"] in {"done", "whole"}

    def _framed(self, url: str) -> bytes:
        self.asked += 1
        text = b'{"id":%d,"op":"download","url":%b}' % (self.asked, _quoted(url).encode())
        return _LENGTH.pack(len(text)) + text

    def _whole(self) -> bytes:
        told, content = self.event()
        if told["event"] != "whole":
            raise RuntimeError(f"not at hand: {told}")
        return content

    def _want(self, size: int) -> None:
        while len(self._data) < size:
            room = max(_READ, size - len(self._data))
            data, words, _, _ = self.sock.recvmsg(room, _ANCILLARY)
            if not data:
                raise ConnectionError("the daemon has closed")
            for level, kind, payload in words:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.fds.extend(fd for (fd,) in _INT.iter_unpack(payload))
            self._data = self._data + data if self._data else data


def framed(message: object) -> bytes:
    """*message* as a frame."""
    text = json.dumps(message).encode()
    return _LENGTH.pack(len(text)) + text
