"""Several requests of one call: under way at once, within one time, and ended together."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pantala.errors import TimedOut, Unavailable
from pantala.model.urls import public_url

from .arrival import Step
from .fetch import CONCURRENCY, Fetch, end_all
from .wishes import Range

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .blocking import Client

#: What has come and nobody has taken yet, at most: those who bring more wait.
_QUEUE: Final = 8

#: Seconds after which whoever has something looks whether it is still wanted.
_LOOK: Final = 0.05

T = TypeVar("T")


class Asking:
    """The requests of one call.

    Args:
        client: Whose daemon is asked.
        wishes: See :class:`.Wishes`; the timeout is that of all of them together.
    """

    def __init__(self, client: Client, wishes: Mapping[str, Any]) -> None:
        self._dialling = client._dialling  # noqa: SLF001  what asks for the parts of a call is a part of the client
        self._wishes = dict(wishes)
        self._asked = set[str]()
        self._deadline: float | None = None
        self._under_way: set[Fetch] = set()
        self._ended = False

    def fetch(self, url: str, part: Range | None = None, *, again: bool = False) -> Fetch:
        """A download of *url*, or of a *part* of it.

        Args:
            url: Of the content.
            part: Of it.
            again: Whoever takes its events understands that what came may be void.

        Raises:
            InvalidRequest: It is no URL, or there is no such wish.
            TimedOut: The time is over.
        """
        # Once is enough: again, it might say that what came of the first is not there any more.
        wishes = {**self._wishes, "refresh": None} if url in self._asked else self._wishes
        self._asked.add(url)
        request = self._dialling.download(url, wishes, part, again=again)
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + request["timeout"]
        elif now >= self._deadline:
            raise TimedOut(f"no time is left for {public_url(url)}")
        else:
            request["timeout"] = self._deadline - now
        return Fetch(request, self._dialling)

    def steps(self, fetch: Fetch) -> Generator[Step, None, None]:
        """The events of a download, until all is here. Raises DragonflyError."""
        self._under_way.add(fetch)
        try:
            while not fetch.arrival.done:
                if self._ended:
                    raise Unavailable("nothing more is wanted")
                yield fetch.step()
        finally:
            self._under_way.discard(fetch)
            fetch.withdraw()

    def all(self, works: Sequence[Callable[[], Iterator[T]]]) -> Iterator[T]:
        """What all of *works* bring, in the order in which it comes.

        The first failure ends all of them, and is raised; so does leaving off.
        """
        if len(works) < 2:
            for work in works:
                yield from work()
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  who has one work need not

        self._ended = False
        found: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(_QUEUE)
        with ThreadPoolExecutor(min(CONCURRENCY, len(works)), "pantala") as threads:
            futures: list[Future[None]] = []
            try:
                futures += (threads.submit(self._carry_out, work, found) for work in works)
                left = len(works)
                while left:
                    items, failure = found.get()  # each has its time, and says when it is through
                    if failure is not None:
                        raise failure
                    left -= not items
                    yield from items
            finally:
                self._ended = True
                end_all(futures, self._under_way)

    def _carry_out(
        self,
        work: Callable[[], Iterator[T]],
        found: queue.Queue[tuple[list[T], BaseException | None]],
    ) -> None:
        """Say what a work brings, then nothing; or what it failed of."""
        try:
            for item in work():
                self._say(([item], None), found)
            self._say(([], None), found)
        except BaseException as error:  # noqa: BLE001  raised in the thread that called
            self._say(([], error), found)

    def _say(
        self,
        what: tuple[list[T], BaseException | None],
        found: queue.Queue[tuple[list[T], BaseException | None]],
    ) -> None:
        while not self._ended:
            try:
                found.put(what, timeout=_LOOK)
            except queue.Full:
                continue
            return
