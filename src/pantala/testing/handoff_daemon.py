"""A daemon of which only the hand-off socket is real: a thread that plays a script."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pantala.wire.handoff import HandoffDecoder, encode

# Every wait here ends, so that a test that goes wrong fails instead of hanging.
_PATIENCE: Final = 30.0
_F_SEAL_FUTURE_WRITE: Final = 0x10  # Python 3.11 has no name for it


class Segment:
    """What a daemon hands out, filled through a mapping: a sealed memfd, or a file; read-only.

    Args:
        content: What it is to hold in the end.
        piece_length: Bytes in every piece but the last.
        path: Where the file is to be. None: a memfd.
    """

    def __init__(self, content: bytes, piece_length: int, path: Path | None = None) -> None:
        self.content = content
        self.piece_length = piece_length
        if path is None:
            own = os.memfd_create("segment", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        else:
            own = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o444)
        os.ftruncate(own, len(content))
        self._mapping = mmap.mmap(own, len(content))
        if path is None:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE
            fcntl.fcntl(own, fcntl.F_ADD_SEALS, seals)
        #: To be passed on.
        self.descriptor = os.open(f"/proc/self/fd/{own}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(own)

    def fill(self, number: int, source: str = "REMOTE_PEER") -> list[object]:
        """Put piece *number* in its place; the row that a ``pieces`` event has for it."""
        offset = number * self.piece_length
        piece = self.content[offset : offset + self.piece_length]
        self._mapping[offset : offset + len(piece)] = piece
        return [number, offset, len(piece), source]

    def close(self) -> None:
        """Let go of the memory; those who mapped it keep it."""
        self._mapping.close()
        os.close(self.descriptor)


class Conversation:
    """The daemon's end of one connection.

    Attributes:
        request: What the client asked for.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        self._socket = sock
        decoder = HandoffDecoder()
        while (request := decoder.next_object()) is None:
            data = sock.recv(65536)
            if not data:
                raise ConnectionResetError
            decoder.feed(data)
        self.request = request

    def send(self, descriptor: int | None = None, content: bytes = b"", **event: Any) -> None:
        """Send *event*, with a descriptor or content if there is one."""
        frame = encode(event) + content
        if descriptor is None:
            self._socket.sendall(frame)
        else:
            sent = socket.send_fds(self._socket, [frame], [descriptor])
            self._socket.sendall(frame[sent:])

    def send_raw(self, data: bytes) -> None:
        """Send *data* as it is."""
        self._socket.sendall(data)

    def start(self, segment: Segment, start: int = 0, length: int | None = None) -> None:
        """Send ``started`` and the descriptor."""
        self.send(segment.descriptor, **started(segment, start, length))

    def wait_closed(self) -> None:
        """Return when the client has gone."""
        with contextlib.suppress(ConnectionResetError):
            self._socket.recv(1)


def started(segment: Segment, start: int = 0, length: int | None = None) -> dict[str, Any]:
    """The ``started`` event for a part of *segment*; to its end when *length* is None."""
    whole = len(segment.content)
    return {
        "event": "started",
        "task_id": "a" * 64,
        "peer_id": "peer",
        "content_length": whole,
        "piece_length": segment.piece_length,
        "start": start,
        "length": whole - start if length is None else length,
        "segment": True,
        "response_header": {},
    }


def serve(
    content: bytes,
    piece_length: int = 5000,
    order: Iterable[int] | None = None,
    path: Path | None = None,
) -> Callable[[Conversation], None]:
    """A script that serves all of *content*, its pieces in the *order* given.

    From the file *path*, if there is one.
    """

    def script(talk: Conversation) -> None:
        segment = Segment(content, piece_length, path)
        numbers = range(-(-len(content) // piece_length)) if order is None else order
        with contextlib.closing(segment):
            talk.start(segment)
            for number in numbers:
                talk.send(event="pieces", pieces=[segment.fill(number)])
            talk.send(event="done")
            talk.wait_closed()

    return script


class HandoffDaemon:
    """Listens beside the gRPC socket's place, and plays *script* on each connection.

    A context manager.

    Args:
        directory: Where the sockets lie.
        script: What the daemon does; the connection is closed when it returns.

    Attributes:
        endpoint: The gRPC socket's path; nothing listens there.
        requests: What clients asked for so far.
    """

    def __init__(self, directory: Path, script: Callable[[Conversation], None]) -> None:
        self.endpoint = str(directory / "dfdaemon.sock")
        self.requests: list[dict[str, Any]] = []
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(directory / "dfdaemon.handoff.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, name="handoff-daemon")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing would not wake the accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # shut down
            with sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
                talk = Conversation(sock)
                self.requests.append(talk.request)
                self._script(talk)
