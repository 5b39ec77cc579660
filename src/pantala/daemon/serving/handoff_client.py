"""Who asks on the hand-off socket, for those who answer: a connection, or one request of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from pantala.errors import (
    DragonflyError,
    InvalidRequest,
    NoRoom,
    OriginError,
    RangeNotSatisfiable,
    RemoteProtocolError,
    TimedOut,
)
from pantala.wire.handoff import HandoffDecoder, encode, parse

from .caller import Caller, caller_of

#: Seconds for a client to send a request. It has nothing to wait for.
REQUEST_LIMIT: Final = 10.0

#: Seconds for a client to take an answer that is no download's.
ANSWER_LIMIT: Final = 60.0

#: Characters of what is said of an error: a frame has a limit.
_LONGEST: Final = 4096

#: Makes the descriptor that goes with a frame, in the moment in which it can be sent, so that those
#: that wait to be sent take none. It may be called more than once; None: there is none to be had.
MakeDescriptor = Callable[[], int | None]


class ClientGone(ConnectionError):
    """What is sent to a client does not reach it, or is not taken; no other error means that."""


class Client(Protocol):
    """Who has asked for something.

    Attributes:
        patience: Seconds in which a frame must be taken, or, among those of other requests, begin.
        caller: Whose program it is.
        goes_on: It may ask for something else when it has this.
    """

    patience: float
    caller: Caller
    goes_on: bool

    async def send(
        self,
        message: Mapping[str, Any],
        make: MakeDescriptor | None = None,
        content: memoryview | None = None,
    ) -> bool:
        """Send a frame, with a descriptor or content if there is one.

        Returns:
            False: nothing was sent, as there is no descriptor to be had, or too many are on their
            way in this system.

        Raises:
            ClientGone: It is gone, or does not take it.
            TimedOut: It takes others' frames, and for too long; nothing was sent.
        """

    async def wait_until_gone(self) -> None:
        """Return when the client needs nothing more of what it has asked for."""


class Connection:
    """A client as it has connected. If it asks once, this is whom to answer."""

    goes_on = False

    def __init__(self, sock: socket.socket) -> None:
        self.patience = ANSWER_LIMIT
        self.sock = sock
        self.decoder = HandoffDecoder()
        self.caller = caller_of(sock)
        self._loop = asyncio.get_running_loop()

    async def request(self) -> tuple[bytes, dict[str, Any]]:
        """The first one, as it was written and what it says.

        Raises:
            InvalidRequest: It is no JSON object, or too long.
            TimedOut: It is not here yet.
            OSError: There is none.
        """
        try:
            async with asyncio.timeout(REQUEST_LIMIT):
                while (text := self.decoder.next_text()) is None:
                    data = await self._loop.sock_recv(self.sock, 65536)
                    if not data:
                        raise ConnectionResetError("no request")
                    self.decoder.feed(data)
            return text, parse(text)
        except TimeoutError:
            raise TimedOut(f"no request within {REQUEST_LIMIT:g} s") from None
        except RemoteProtocolError as error:
            raise unreadable(error) from error

    async def wait_until_gone(self) -> None:
        """It has closed its end, or says more than it may."""
        with contextlib.suppress(OSError):
            await self._loop.sock_recv(self.sock, 1)

    async def send(
        self,
        message: Mapping[str, Any],
        make: MakeDescriptor | None = None,
        content: memoryview | None = None,
    ) -> bool:
        data = encode(message)
        try:
            async with asyncio.timeout(self.patience):
                return await transmit(self.sock, data, make, content)
        except OSError as error:
            raise ClientGone(str(error)) from error


def unreadable(error: RemoteProtocolError) -> InvalidRequest:
    """To us a peer's fault; to the client, what it asks for makes no sense."""
    return InvalidRequest(f"cannot read the request: {error}")


def failure(error: DragonflyError) -> dict[str, Any]:
    """The event that tells of it; what is in it may come from the request, but not all of that."""
    said = str(error)[:_LONGEST]
    message: dict[str, Any] = {"event": "error", "code": error.code.name, "message": said}
    if isinstance(error, OriginError):
        message |= {"status_code": error.status, "header": error.header}
        message["transient"] = error.transient
    elif isinstance(error, RangeNotSatisfiable):
        message["code"] = "OUT_OF_RANGE"  # gRPC's own is that of Dragonfly, which says less
    elif type(error) is NoRoom:
        message |= {"needed": error.needed, "capacity": error.capacity}
    return message


async def transmit(
    sock: socket.socket,
    frame: bytes | memoryview,
    make: MakeDescriptor | None,
    content: memoryview | None,
) -> bool:
    """Send all of it; see :meth:`Client.send`. Raises OSError."""
    loop, data = asyncio.get_running_loop(), memoryview(frame)
    if make is not None:
        sent = await _send_with(sock, data, make)
        if not sent:
            return False
        data = data[sent:]
    await loop.sock_sendall(sock, data)
    if content is not None:
        await loop.sock_sendall(sock, content)
    return True


async def _send_with(sock: socket.socket, data: memoryview, make: MakeDescriptor) -> int:
    """Send the beginning of *data*, and a descriptor; how much it is, 0 if there is none."""
    while True:
        fd = make()
        if fd is None:
            return 0
        try:
            return socket.send_fds(sock, [data], [fd])
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
            return 0
        finally:
            os.close(fd)
        await _writable(sock)


async def _writable(sock: socket.socket) -> None:
    """Wait until it takes something."""
    loop, number = asyncio.get_running_loop(), sock.fileno()
    writable = loop.create_future()
    loop.add_writer(number, writable.set_result, None)
    try:
        await writable
    finally:
        loop.remove_writer(number)
