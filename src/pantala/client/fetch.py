"""One download over one connection, step by step, for those who wait in the thread that calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from sys import is_finalizing
from typing import TYPE_CHECKING, Any, Final

from pantala.errors import Unavailable

from .arrival import Arrival, Step
from .connection import Connection
from .dialling import Dialling
from .landing import Landing, Lease
from .saving import name_of

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Downloads of one call that are under way at once.
CONCURRENCY: Final = 8

#: Seconds after which whoever ends a wait of others looks whether they have ended.
_LOOK: Final = 0.05

#: Seconds beyond a request's own limit in which the daemon's word about that is waited for: it says
#: more than ours.
GRACE: Final = 1.0


class Fetching:
    """A download, and where it comes to lie; how it is waited for is in the classes below.

    Args:
        request: As docs/handoff.md has it.
        dialling: Makes connections, and keeps those that are idle.

    Attributes:
        arrival: What has come.
        landing: Where it is.
    """

    def __init__(self, request: Mapping[str, Any], dialling: Dialling) -> None:
        self._request = request
        self._deadline = time.monotonic() + request["timeout"] + GRACE
        self._dialling = dialling
        self._idle = dialling.idle
        self._connection: Connection | None = None
        self._failure: Exception | None = None
        self.arrival = Arrival(name_of(request), "")
        self.landing = Landing(self.arrival)

    def __del__(self, ends: Callable[[], bool] = is_finalizing) -> None:
        if not ends():  # then modules go, and the system closes all
            self.withdraw()

    def withdraw(self) -> None:
        """Nothing more is wanted; what is here stays."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.hang_up()

    def _begun(self, connection: Connection) -> Connection:
        self._connection = connection
        self.arrival.endpoint = connection.endpoint
        return connection

    def _failed(self, error: BaseException) -> None:
        """Nobody may go on in the midst of a frame, whatever has cut in."""
        if not isinstance(error, Exception):
            # A signal, or a cancellation, is for whoever waits now, and not for who asks next.
            error = Unavailable(f"the wait for {name_of(self._request)} was interrupted: ask anew")
        self._failure = error
        self.withdraw()

    def _asked(self) -> Connection:
        """The connection. Raises Unavailable: it was hung up."""
        if self._connection is None:
            raise Unavailable(f"nothing more is wanted of {name_of(self._request)}")
        return self._connection

    def _finish(self) -> None:
        """All is here: the connection is for the next, or stays with what was handed off."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.landing.fd >= 0:
            self.landing.keep(Lease(connection, self._idle))
        else:
            self._idle.put(connection)


class Fetch(Fetching):
    """One that is waited for in the thread that calls."""

    def step(self) -> Step:
        """Wait for what comes next; not to be called when all is here.

        Raises:
            DragonflyError: What the daemon or the origin said, or that there is no daemon. A
                second call raises the same, or that the first was interrupted.
        """
        if self._failure is not None:
            raise self._failure
        try:
            event = self._ask() if self._connection is None else self._next()
            step = self.arrival.on(event)
            self._receive(step)
        except BaseException as error:  # a signal, too
            self._failed(error)
            raise
        if self.arrival.done:
            self._finish()
        return step

    def run(self) -> Landing:
        """Wait until all of it is here. Raises as :meth:`step` does."""
        while not self.arrival.done:
            self.step()
        return self.landing

    def _ask(self) -> dict[str, Any]:
        """Ask, and return the first event, whichever connection it comes over."""
        dialled = 0
        while True:
            kept = self._idle.take()
            dialled += kept is None
            connection = self._begun(kept or self._dialling.dial())
            try:
                connection.send(self._request, deadline=self._deadline)
                return self._next()
            except Unavailable as error:
                if not self._dialling.goes_on(error, connection, dialled):
                    raise
                connection.close()

    def _next(self) -> dict[str, Any]:
        event = self._asked().receive(deadline=self._deadline)
        assert event is not None  # noqa: S101  where there is no pause, there is an event or an error
        return event

    def _receive(self, step: Step) -> None:
        """Take what comes with an event."""
        connection, landing = self._asked(), self.landing
        landing.take(step)
        if step.segment:
            landing.have_descriptor(connection.take_descriptor())
        elif step.inline and step.name == "whole":
            landing.have_all(connection.receive_content(step.inline, deadline=self._deadline))
        elif step.inline:
            connection.receive_into(landing.room_for(step), deadline=self._deadline)


def end_all(futures: Sequence[Future[Any]], under_way: Collection[Fetch]) -> None:
    """Wait until no thread works on *futures* any more.

    Args:
        futures: Those that have not begun are cancelled.
        under_way: Downloads that they wait for now, and begin meanwhile: these waits are ended.
    """
    from concurrent.futures import wait  # noqa: PLC0415  who has futures has imported it

    for future in futures:
        future.cancel()
    while wait(futures, timeout=0).not_done:
        for fetch in list(under_way):
            fetch.withdraw()
        wait(futures, timeout=_LOOK)
