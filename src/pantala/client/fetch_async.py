"""The same as :mod:`.connection` and :mod:`.fetch`, for those who wait on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from pantala.errors import Unavailable

from .arrival import Step
from .connection import Connection
from .dialling import Dialling
from .fetch import Fetching
from .landing import Landing


class AsyncFetch(Fetching):
    """One that is waited for on the event loop. A task that waits for it may be cancelled.

    Args:
        request: As docs/handoff.md has it.
        dialling: Keeps connections that are idle.
        dial: Makes one.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        dialling: Dialling,
        dial: Callable[[], Awaitable[Connection]],
    ) -> None:
        super().__init__(request, dialling)
        self._dial = dial

    async def step(self) -> Step:
        """As :meth:`.Fetch.step`."""
        if self._failure is not None:
            raise self._failure
        try:
            event = await (self._ask() if self._connection is None else self._next())
            step = self.arrival.on(event)
            await self._receive(step)
        except BaseException as error:  # that it is cancelled, too
            self._failed(error)
            raise
        if self.arrival.done:
            self._finish()
        return step

    async def run(self) -> Landing:
        """As :meth:`.Fetch.run`."""
        while not self.arrival.done:
            await self.step()
        return self.landing

    async def _ask(self) -> dict[str, Any]:
        """As :meth:`.Fetch._ask`."""
        dialled = 0
        while True:
            kept = self._idle.take()
            dialled += kept is None
            connection = self._begun(kept or await self._dial())
            try:
                await send(connection, self._request, self._deadline)
                return await self._next()
            except Unavailable as error:
                if not self._dialling.goes_on(error, connection, dialled):
                    raise
                connection.close()

    async def _next(self) -> dict[str, Any]:
        return await receive(self._asked(), self._deadline)

    async def _receive(self, step: Step) -> None:
        """Take what comes with an event."""
        connection, landing = self._asked(), self.landing
        landing.take(step)
        if step.segment:
            landing.have_descriptor(connection.take_descriptor())
        elif step.inline and step.name == "whole":
            while (content := connection.take_content(step.inline)) is None:
                await _fill(connection, self._deadline)
            landing.have_all(content)
        elif step.inline:
            room = landing.room_for(step)
            at = connection.take_into(room)
            while at < len(room):
                await _wait(connection, self._deadline)
                with suppress(BlockingIOError):  # it was woken up for nothing
                    at += connection.take_more(room[at:])


async def send(connection: Connection, request: Mapping[str, Any], deadline: float) -> None:
    """Send a request. Raises as :meth:`.Connection.send` does."""
    data = memoryview(connection.request(request))
    connection.sock.settimeout(0)
    while data:
        try:
            data = data[connection.sock.send(data) :]
        except BlockingIOError:
            await _wait(connection, deadline, writable=True)
        except (BrokenPipeError, ConnectionResetError):
            return  # a daemon that refuses this user says so, and closes without reading


async def receive(connection: Connection, deadline: float) -> dict[str, Any]:
    """The next event. Raises as :meth:`.Connection.receive` does."""
    while (event := connection.next_event()) is None:
        await _fill(connection, deadline)
    return event


async def _fill(connection: Connection, deadline: float) -> None:
    """Take what has come, or what comes next; nothing, if it was woken up for nothing."""
    connection.sock.settimeout(0)
    try:
        connection.take()
    except BlockingIOError:
        await _wait(connection, deadline)
        with suppress(BlockingIOError):  # the caller looks whether it has what it needs
            connection.take()


async def _wait(connection: Connection, deadline: float, *, writable: bool = False) -> None:
    """Wait until the socket has something, or takes something."""
    loop, number = asyncio.get_running_loop(), connection.sock.fileno()
    ready: asyncio.Future[None] = loop.create_future()
    begin = loop.add_writer if writable else loop.add_reader
    end = loop.remove_writer if writable else loop.remove_reader
    begin(number, _wake, ready)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            await ready
    except TimeoutError:
        raise connection.late() from None
    finally:
        end(number)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
