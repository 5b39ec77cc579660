"""The client for programs that wait on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from pantala.errors import InvalidRequest
from pantala.model.urls import public_url

from .blocking import Copies, Tasks
from .connection import Connection
from .content import Content
from .dialling import Dialling
from .fetch import CONCURRENCY, GRACE
from .fetch_async import AsyncFetch, receive, send
from .output import output_at
from .parts import Copier, Cut, Reader
from .progress import Progress, Telling
from .saving import Saving
from .tasks import LIMIT, Answer, Task, checked, task_of, the_one
from .wishes import Identity, Range, Wishes

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

#: Bytes that are copied on the loop: more would hold up others for more than a millisecond.
_AT_ONCE: Final = 4 << 20

A = TypeVar("A")
B = TypeVar("B")


class AsyncClient:
    """As :class:`.Client`, for tasks of an event loop, any number of which may use it at once.

    Cancelling a task that waits ends the wait at once; what the daemon has begun goes on there.

    Args:
        endpoint: As for :class:`.Client`.
        wishes: Defaults for what is asked for, see :class:`.Wishes`.

    Raises:
        InvalidRequest: There is no such wish.
    """

    def __init__(
        self, endpoint: str | PathLike[str] | None = None, **wishes: Unpack[Wishes]
    ) -> None:
        self._dialling = Dialling(endpoint, wishes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As :meth:`.Client.close`."""
        self._dialling.close()

    # -- content ---------------------------------------------------------------------------------

    async def open(
        self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]
    ) -> Content:
        """As :meth:`.Client.open`: ``with await client.open(url) as content``."""
        return Content(url, await self._fetch(url, wishes, range, again=True).run())

    async def get(self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]) -> bytes:
        """As :meth:`.Client.get`."""
        with await self.open(url, range=range, **wishes) as content:
            return await _copied(content.copy, content.size)

    async def get_many(
        self, urls: Iterable[str], *, concurrency: int = CONCURRENCY, **wishes: Unpack[Wishes]
    ) -> Copies:
        """Copies of the contents of *urls*, in their order, of which *concurrency* come at once.

        The first that fails ends the others' wait, and is raised.
        """
        if concurrency < 1:
            raise InvalidRequest(f"concurrency: want 1 or more, not {concurrency}")
        return [*await self._each(lambda url: self.get(url, **wishes), [*urls], concurrency)]

    async def get_into(
        self, url: str, buffer: Any, *, range: Range | None = None, **wishes: Unpack[Wishes]
    ) -> int:
        """As :meth:`.Client.get_into`."""
        copier = Copier(buffer)
        fetch = self._fetch(url, wishes, range, again=True)
        try:
            while not fetch.arrival.done:
                step = await fetch.step()
                size = sum(end - first for first, end in step.brought)
                await _copied(partial(copier.take, step, fetch.landing), size)
        finally:
            fetch.withdraw()
            fetch.landing.close()
        return fetch.arrival.length

    async def get_ranges(
        self, url: str, ranges: Iterable[Range], **wishes: Unpack[Wishes]
    ) -> Copies:
        """As :meth:`.Client.get_ranges`."""
        wanted = Cut(ranges)

        async def take(span: Range) -> None:
            with await self.open(url, range=span, **wishes) as content:
                await _copied(partial(wanted.take, span, content), content.size)

        # Once is enough: asked again, an origin might say that what came of the first has changed.
        first = wanted.spans[:1] if self._dialling.refreshes(wishes) else []
        await self._each(take, first)
        if first:
            wishes["refresh"] = False
        await self._each(take, wanted.spans[len(first) :])
        return wanted.copies

    async def array(
        self,
        url: str,
        dtype: DTypeLike = "uint8",
        shape: int | Sequence[int] = -1,
        *,
        range: Range | None = None,
        **wishes: Unpack[Wishes],
    ) -> NDArray[Any]:
        """As :meth:`.Client.array`."""
        with await self.open(url, range=range, **wishes) as content:
            return content.array(dtype, shape)

    async def stream(
        self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]
    ) -> AsyncIterator[memoryview]:
        """As :meth:`.Client.stream`: ``async for part in client.stream(url)``."""
        fetch = self._fetch(url, wishes, range)
        reader = Reader(fetch.landing)
        try:
            while not fetch.arrival.done:
                await fetch.step()
                for part in reader.parts():
                    yield part
        finally:
            fetch.withdraw()
            fetch.landing.close()

    async def download(
        self,
        url: str,
        path: str | PathLike[str],
        *,
        range: Range | None = None,
        overwrite: bool = False,
        progress: Callable[[Progress], object] | None = None,
        **wishes: Unpack[Wishes],
    ) -> Task:
        """As :meth:`.Client.download`; a thread writes, and *progress* is called on the loop."""
        request = self._dialling.download(url, wishes, range)
        deadline = time.monotonic() + request["timeout"] + GRACE
        loop = asyncio.get_running_loop()
        connection = await self._dial()

        def tell(news: Progress) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, news)

        def write() -> Task:
            with output_at(path, overwrite=overwrite) as output:
                in_files = request["kind"] != "CACHE"
                saving = Saving(connection, output, Telling(tell), in_files=in_files)
                saving.run(request, deadline=deadline)
                output.commit()
            return task_of(saving.arrival, public_url(url))

        try:
            return await _in_thread(write, connection.hang_up)
        finally:
            connection.close()

    async def prefetch(self, urls: str | Iterable[str], **wishes: Unpack[Wishes]) -> Tasks:
        """As :meth:`.Client.prefetch`; the first that fails ends the others' wait."""

        async def fetch(url: str) -> Task:
            found = self._fetch(url, wishes, again=True)
            (await found.run()).close()
            return task_of(found.arrival, public_url(url))

        return [*await self._each(fetch, [urls] if isinstance(urls, str) else [*urls])]

    async def refresh(self, url: str, **wishes: Unpack[Wishes]) -> Task:
        """As :meth:`.Client.refresh`."""
        wishes["refresh"] = True
        return (await self.prefetch(url, **wishes))[0]

    # -- tasks -----------------------------------------------------------------------------------

    async def stat(self, url: str, **identity: Unpack[Identity]) -> Task:
        """As :meth:`.Client.stat`."""
        request = {"op": "stat", **self._dialling.identity(url, identity)}
        return the_one(await self._ask(request, url))

    async def list(self, kind: str = "CACHE") -> Tasks:
        """As :meth:`.Client.list`."""
        return (await self._ask({"op": "list", "kind": kind.upper()}, "its tasks")).tasks

    async def evict(self, url: str, *, swarm: bool = False, **identity: Unpack[Identity]) -> None:
        """As :meth:`.Client.evict`."""
        request = {"op": "delete", **self._dialling.identity(url, identity), "swarm": swarm}
        checked(await self._ask(request, url), url)

    # -- how it is asked -------------------------------------------------------------------------

    def _fetch(
        self, url: str, wishes: Mapping[str, Any], part: Range | None = None, *, again: bool = False
    ) -> AsyncFetch:
        request = self._dialling.download(url, wishes, part, again=again)
        return AsyncFetch(request, self._dialling, self._dial)

    async def _dial(self) -> Connection:
        """A new connection. Connecting, and starting a daemon, wait: not on the loop."""
        dialling = asyncio.get_running_loop().run_in_executor(None, self._dialling.dial)
        try:
            return await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(_close)
            raise

    async def _ask(self, request: Mapping[str, Any], what: str) -> Answer:
        """The answer to a question about tasks."""
        deadline = time.monotonic() + LIMIT
        idle, dialled = self._dialling.idle, 0
        while True:
            answer = Answer(public_url(what))
            kept = idle.take()
            dialled += kept is None
            connection = kept or await self._dial()
            try:
                await send(connection, request, deadline)
                while answer.done is None:
                    answer.on(await receive(connection, deadline))
            except BaseException as error:  # that it is cancelled, too
                connection.close()
                if not self._dialling.goes_on(error, connection, dialled):
                    raise
            else:
                idle.put(connection)
                return answer

    async def _each(
        self, work: Callable[[A], Awaitable[B]], items: Sequence[A], concurrency: int = CONCURRENCY
    ) -> Sequence[B]:
        """What *work* makes of each, several at once; the first failure ends all."""
        places = asyncio.Semaphore(concurrency)

        async def one(item: A) -> B:
            async with places:
                return await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(item)) for item in items]
        except BaseExceptionGroup as errors:  # one alone is what callers look for
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


async def _copied(copy: Callable[[], A], size: int) -> A:
    """What *copy* makes of so many bytes; on the loop only if it is done with them soon."""
    return copy() if size <= _AT_ONCE else await _in_thread(copy)


async def _in_thread(work: Callable[[], A], give_up: Callable[[], None] | None = None) -> A:
    """What *work* makes in a thread, which has ended when this has, also when it is cancelled.

    Args:
        work: Takes no longer than copying does, unless it is given up.
        give_up: Lets it end at once.
    """
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if give_up is not None:
            give_up()
        await asyncio.gather(working, return_exceptions=True)
        raise


def _close(dialling: asyncio.Future[Connection]) -> None:
    """Nobody waits any more for what has been dialled."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().close()
