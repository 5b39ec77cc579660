"""The client's end of the hand-off socket, see docs/handoff.md: who dials, sends and waits."""

from __future__ import annotations

import _socket  # socket imports a dozen modules that nothing here needs
import os
import stat
import struct
import time
from contextlib import suppress

from pantala.errors import FeatureOff, Forbidden, TimedOut, Unavailable
from pantala.paths import DEFAULT_SOCKET, handoff_path_for, personal_socket

from .channel import Channel

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Final, Self

# A socket whose queue is full has a daemon behind it that is busy; it need not be for long.
_CONNECT_TIMEOUT: Final = 3

# A frame is a few hundred bytes as a rule, and 1 MiB at most.
_READ: Final = 65536

_INT: Final = struct.Struct("i")
# A frame brings one descriptor. What does not fit here, the kernel closes.
_ANCILLARY: Final = _socket.CMSG_SPACE(_INT.size)
_CLOSE_ON_EXEC: Final = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)  # Linux has it, macOS has not


class Connection(Channel):
    """A connection to a daemon, for those who wait in the thread that calls.

    A context manager; leaving it closes the connection, which ends what was asked for and the lease
    on what came of it.

    Args:
        sock: Connected to a hand-off socket; closed with this.
        endpoint: The daemon's gRPC socket, for messages.
        numbered: It is to carry more than one request.
    """

    def __init__(self, sock: _socket.socket, endpoint: str, *, numbered: bool = False) -> None:
        super().__init__(endpoint, numbered=numbered)
        self.sock = sock
        self._process = os.getpid()

    def __del__(self) -> None:
        self.sock.close()  # when a program ends, nothing else can be called any more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close this side's descriptor: the daemon hears of it if no fork has another."""
        self.sock.close()
        self.close_descriptors()

    def hang_up(self) -> None:
        """Close, and wake up whoever waits for something in another thread."""
        if self._process == os.getpid():  # the other side of a fork may go on
            with suppress(OSError):  # the daemon was quicker
                self.sock.shutdown(_socket.SHUT_RDWR)
        self.close()

    def is_alive(self) -> bool:
        """The daemon has not closed its end of a connection that waits for a request."""
        self.sock.settimeout(0)
        try:
            return bool(self.sock.recv(1, _socket.MSG_PEEK))  # "released", which is passed over
        except BlockingIOError:
            return True
        except OSError:
            return False

    def release_now(self) -> bool:
        """End the request without waiting; False: that cannot be, and the connection is of no use.

        Called where an object is destroyed: nothing is raised.
        """
        try:
            self.sock.settimeout(0)
            frame = self.release()
            return self.sock.send(frame) == len(frame)
        except OSError:
            return False

    def send(self, request: Mapping[str, Any], *, deadline: float) -> None:
        """Send a request.

        Args:
            request: As docs/handoff.md lists them.
            deadline: Monotonic time after which to give up.

        Raises:
            LocalProtocolError: It does not fit into a frame.
            TimedOut: The daemon does not read.
        """
        frame = self.request(request)
        self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            # A daemon that refuses this user says so and closes without reading; its answer
            # is there to be received all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.sock.sendall(frame)
        except TimeoutError as error:
            raise TimedOut(f"the daemon at {self.endpoint} does not read its socket") from error

    def receive(self, *, deadline: float, pause: float | None = None) -> dict[str, Any] | None:
        """The next event; None when none has come for *pause* seconds.

        Raises:
            TimedOut: None has come before *deadline*, a monotonic time.
            Unavailable: The daemon closed the connection.
            RemoteProtocolError: What came is no event.
        """
        until = deadline if pause is None else min(deadline, time.monotonic() + pause)
        while (event := self.next_event()) is None:
            if not self._fill(until):
                if until == deadline:
                    raise self.late()
                return None
        return event

    def receive_content(self, length: int, *, deadline: float) -> bytes:
        """The *length* bytes that follow the last event.

        Raises:
            TimedOut, Unavailable, RemoteProtocolError: As :meth:`receive` does.
        """
        while (content := self.take_content(length)) is None:
            if not self._fill(deadline):
                raise self.late()
        return content

    def receive_into(self, buffer: memoryview, *, deadline: float) -> None:
        """Fill *buffer* with bytes that follow the last event; the kernel puts most of them there.

        Raises:
            TimedOut, Unavailable: As :meth:`receive` does.
        """
        at = self.take_into(buffer)
        while at < len(buffer):
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                at += self.take_more(buffer[at:])
            except TimeoutError:
                raise self.late() from None

    def take_more(self, buffer: memoryview) -> int:
        """Put into *buffer* what has come of the bytes that follow the last event; how many.

        Raises:
            TimeoutError, BlockingIOError: As the socket does when nothing comes.
            Unavailable: The daemon closed the connection.
        """
        try:
            size = self.sock.recv_into(buffer)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError:  # reset, or hung up in another thread
            size = 0
        if not size:
            self.feed(b"", (), cut=False)
        return size

    def late(self) -> TimedOut:
        """What is to be raised when nothing has come in time."""
        return TimedOut(f"no answer in time from the daemon at {self.endpoint}")

    def _fill(self, until: float) -> bool:
        """Take what the daemon sent; False when it sent nothing before *until*."""
        wait = until - time.monotonic()
        if wait <= 0:
            return False
        self.sock.settimeout(wait)
        try:
            self.take()
        except TimeoutError:
            return False
        return True

    def take(self) -> None:
        """Take what has come, as soon as something has.

        Raises:
            TimeoutError, BlockingIOError: As the socket does when nothing comes.
            Unavailable, RemoteProtocolError: As :meth:`receive` does.
        """
        try:
            data, words, flags, _ = self.sock.recvmsg(_READ, _ANCILLARY, _CLOSE_ON_EXEC)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError:  # reset, or hung up in another thread
            data, words, flags = b"", [], 0
        fds: list[int] = []
        for level, kind, payload in words:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                whole = len(payload) // _INT.size * _INT.size
                fds += (fd for (fd,) in _INT.iter_unpack(payload[:whole]))
        self.feed(data, fds, cut=bool(flags & _socket.MSG_CTRUNC))


def socket_path(text: str) -> str:
    """The path in what a user gives for ``--endpoint``, which may have gRPC's ``unix:`` before it.

    Raises:
        ValueError: There is none.
    """
    path = text.removeprefix("unix://").removeprefix("unix:")
    if not path:
        raise ValueError(f"{text!r}: want the path of a socket, such as {DEFAULT_SOCKET}")
    return path


def connect(endpoint: str, *, numbered: bool = False) -> Connection:
    """Connect to the hand-off socket of the daemon whose gRPC socket is *endpoint*.

    Raises:
        Unavailable: Nobody listens there.
        Forbidden: This user may not.
        FeatureOff: That daemon has no hand-off socket.
    """
    connection = connect_if_there(endpoint, numbered=numbered)
    if connection is not None:
        return connection
    raise Unavailable(
        f"no daemon at {endpoint}: {_what_is_there(endpoint)}; "
        "start dfdaemon, or name its socket with --endpoint"
    )


def connect_if_there(endpoint: str, *, numbered: bool = False) -> Connection | None:
    """Like :func:`connect`, but None when nobody listens at *endpoint*."""
    sock = dial(handoff_path_for(endpoint))
    if sock is not None:
        return Connection(sock, endpoint, numbered=numbered)
    bare = dial(endpoint)
    if bare is None:
        return None
    bare.close()
    raise FeatureOff(
        f"the daemon at {endpoint} is not a pantala daemon (or an older one): "
        f"no hand-off socket beside it, {handoff_path_for(endpoint)}"
    )


def dial(path: str) -> _socket.socket | None:
    """Connect to the unix socket *path*; None when it does not exist or nobody listens.

    Raises:
        Forbidden: This user may not open it.
        Unavailable: It cannot be connected to for another reason.
    """
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    except OSError as error:  # this process may open no more files
        raise Unavailable(f"cannot connect to the daemon at {path}: {error.strerror}") from error
    try:
        # Python's own timeout would make connect fail at once where the queue is full.
        limit = struct.pack("ll", _CONNECT_TIMEOUT, 0)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
        sock.connect(path)
    except OSError as error:
        sock.close()
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            return None
        if isinstance(error, PermissionError):
            raise Forbidden(
                f"no permission to use {path}: ask for membership in the group that owns it; or "
                f"start 'dfdaemon --personal', and use that with --endpoint {personal_socket()}"
            ) from error
        why = "it is too busy" if isinstance(error, BlockingIOError) else str(error)
        raise Unavailable(f"cannot connect to the daemon at {path}: {why}") from error
    return sock


def _what_is_there(endpoint: str) -> str:
    """What is at *endpoint*, or beside it, where nobody listens."""
    for path in (endpoint, handoff_path_for(endpoint)):
        with suppress(OSError):  # look at the other one
            left = stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116  pathlib costs 3 ms, a tenth of dfget's start
            return "its socket is left from one that has ended" if left else f"{path} is no socket"
    return "no such socket"
