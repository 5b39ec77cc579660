"""``dfget`` with many URLs: who fetches them, and what is told of each as it ends."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

from pantala.client.connection import Connection
from pantala.client.output import output_for
from pantala.client.saving import Saving
from pantala.errors import DragonflyError, TimedOut, Unavailable
from pantala.model.urls import public_url

from ._arguments import GRACE, Options, request_of
from ._board import Board, Line
from ._outcome import advice, failure, outcome, print_json, result_of
from ._signals import Stopped
from ._targets import Target, make_directory

#: Seconds for all who are told to stop: they may have to write what they have.
_STOP: Final = 10.0

#: Seconds that an alarm may be set to: 30 years.
_LONGEST: Final = 1e9


class Connect(Protocol):
    """Connects to the daemon at a socket, or the usual one, and says if it had to be started."""

    def __call__(
        self, endpoint: str | None, say: Callable[[str], None], *, numbered: bool
    ) -> Connection: ...


class _End(NamedTuple):
    """Of one file.

    Attributes:
        target: Which.
        result: What ``--json`` prints of it; None: it failed.
        error: Of what.
    """

    target: Target
    result: Mapping[str, Any] | None
    error: BaseException | None = None


def fetch_all(options: Options, targets: Sequence[Target], connect: Connect) -> int:
    """Fetch all *targets*, some at once; the exit status.

    Args:
        options: What the user wants of each.
        targets: Two of them have no file in common.
        connect: Finds the daemon.
    """
    board = Board(sys.stderr, len(targets), shown=options.progress)
    crew = _Crew(options, targets, connect, board)
    # No worker takes longer: as long as there are files left, all of them have one.
    seconds = options.timeout * (len(targets) / options.jobs + 1) + 2 * GRACE
    status = outcome("dfget", crew.run, as_json=options.json, seconds=min(seconds, _LONGEST))
    return status or int(crew.failed > 0)


class _Crew:
    """Some threads that fetch, and this one that tells of it."""

    def __init__(
        self, options: Options, targets: Sequence[Target], connect: Connect, board: Board
    ) -> None:
        self.options = options
        self.board = board
        self.request = request_of(options)
        self.failed = 0
        self.stopping = False
        self._left = deque(targets)
        self._connect = connect
        self._heard: SimpleQueue[_End | str | None] = SimpleQueue()
        self._workers: list[_Worker] = []

    def run(self) -> None:
        """Fetch all. Raises DragonflyError: nothing can be had at all."""
        if self.options.directory is not None:
            make_directory(self.options.directory)
        # One that cannot be had is told of once, and one that must be started is started by one.
        first = self.connect()
        for number in range(min(self.options.jobs, len(self._left))):
            self._workers.append(_Worker(self, number, None if number else first))
        try:
            for worker in self._workers:
                worker.start()
            self._hear()
        except Stopped as stop:
            savings = [worker.saving for worker in self._workers]
            stop.advice = advice(self.options, [each.arrival for each in savings if each])
            raise
        finally:
            self._stop()
            self.board.clear()
        self.board.done()

    def connect(self) -> Connection:
        """A connection for a worker."""
        return self._connect(self.options.endpoint, self.tell, numbered=True)

    def take(self) -> Target | None:
        """The next file for a worker, if there is one."""
        try:
            return None if self.stopping else self._left.popleft()
        except IndexError:
            return None

    def tell(self, what: _End | str | None) -> None:
        """Have this told by the thread that tells: a file's end, or words; None: a worker's."""
        self._heard.put(what)

    def _hear(self) -> None:
        """Tell of what comes until all workers have ended."""
        working = len(self._workers)
        while working:
            try:
                heard = self._heard.get(timeout=self.board.pause)
            except Empty:
                heard = ""
            if heard is None:
                working -= 1
            elif isinstance(heard, str):
                self.board.say(heard)
            else:
                self._ended(heard)
            self.board.tick()

    def _ended(self, end: _End) -> None:
        as_json = self.options.json
        self.board.ended(end.result)
        if end.result is not None:
            if as_json:
                print_json(end.result)
            return
        if not isinstance(end.error, DragonflyError | OSError):
            raise end.error or AssertionError(end)
        self.failed += 1
        url, output = public_url(end.target.url), end.target.output
        told = failure(end.error)
        if as_json:
            print_json({"url": url, "output": output, "error": told})
        message = told["message"]
        self.board.say(message if output in message else f"{output}: {message}")

    def _stop(self) -> None:
        """Have all workers end: what is unfinished is thrown away."""
        self.stopping = True
        for worker in self._workers:
            worker.hang_up()
        deadline = time.monotonic() + _STOP
        for worker in self._workers:
            if worker.ident is not None:
                worker.join(max(deadline - time.monotonic(), 0))


class _Worker(threading.Thread):
    """Fetches one file after the other, over one connection."""

    def __init__(self, crew: _Crew, number: int, connection: Connection | None) -> None:
        # One that writes to a server which does not answer must not keep the program.
        super().__init__(name=f"dfget-{number}", daemon=True)
        self._crew = crew
        self._number = number
        self._connection = connection
        #: What is under way.
        self.saving: Saving | None = None

    def run(self) -> None:
        crew = self._crew
        try:
            while (target := crew.take()) is not None:
                crew.tell(self._end_of(target))
        finally:
            self.hang_up()
            crew.tell(None)

    def hang_up(self) -> None:
        """End what is under way, from whatever thread."""
        connection = self._connection
        if connection is not None:
            connection.hang_up()

    def _end_of(self, target: Target) -> _End:
        line = self._crew.board.begin(self._number, target.output)
        line.say = self._crew.tell
        try:
            return _End(target, self._fetch(target, line))
        except BaseException as error:  # noqa: BLE001  the thread that tells raises what is no failure of one file
            return _End(target, None, error)
        finally:
            self._crew.board.end(self._number)

    def _fetch(self, target: Target, line: Line) -> Mapping[str, Any]:
        options, begun = self._crew.options, time.monotonic()
        hard_link = options.force_hard_link
        with output_for(target.output, overwrite=options.overwrite, hard_link=hard_link) as output:
            while True:
                kept = self._connection is not None
                connection = self._connected()
                self.saving = saving = Saving(connection, output, line, in_files=not options.cache)
                try:
                    self._run(saving, target.url, begun + options.timeout + GRACE)
                except Unavailable as error:
                    # One that was idle may have been closed in this moment.
                    lost = not connection.answered and not isinstance(error, TimedOut)
                    if self._crew.stopping or not (kept and lost):
                        raise
                    continue
                break
            output.commit()
        seconds = time.monotonic() - begun
        return result_of(saving.arrival, options, target.url, target.output, seconds)

    def _run(self, saving: Saving, url: str, deadline: float) -> None:
        """Ask for *url*; afterwards the connection is ready for the next, or gone."""
        try:
            saving.run({**self._crew.request, "url": url}, deadline=deadline)
        finally:
            if not saving.settle():
                self.hang_up()
                self._connection = None

    def _connected(self) -> Connection:
        """The connection. Raises Unavailable: there is none to be had, or it is too late."""
        if self._connection is None:
            self._connection = self._crew.connect()
        if self._crew.stopping:  # who says so has hung up what was there before
            self.hang_up()
            raise Unavailable("stopped")
        return self._connection
