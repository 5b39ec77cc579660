"""The client for programs that wait in the thread that calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from pantala.model.urls import public_url

from .content import Content
from .dialling import Dialling
from .fetch import CONCURRENCY, GRACE, Fetch, end_all
from .landing import Landing
from .output import output_at
from .parts import Copier, Cut, Reader
from .progress import Progress, Telling
from .reading import ContentFile
from .saving import Saving
from .tasks import LIMIT, Answer, Task, checked, task_of, the_one
from .wishes import Identity, Range, Wishes

if TYPE_CHECKING:
    from concurrent.futures import Future

    from numpy.typing import DTypeLike, NDArray

#: Waits for a download.
Run = Callable[[Fetch], Landing]

#: Under names of their own, since a client has a method ``list``.
Tasks = list[Task]
Copies = list[bytes]

A = TypeVar("A")
B = TypeVar("B")


class Client:
    """A daemon of this machine, to be asked for content.

    Any number of threads may use it at once, and both sides of a fork. It keeps a few connections;
    :meth:`close`, or leaving a ``with``, closes them. What was handed out stays.

    Args:
        endpoint: The path of the daemon's socket. None: ``$PANTALA_ENDPOINT``, else that of this
            machine's daemon; where there is none, a personal one of this user is started.
        wishes: Defaults for what is asked for, see :class:`.Wishes`.

    Raises:
        InvalidRequest: There is no such wish.
    """

    def __init__(
        self, endpoint: str | PathLike[str] | None = None, **wishes: Unpack[Wishes]
    ) -> None:
        self._dialling = Dialling(endpoint, wishes)

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
        """Close the connections over which nothing is asked. The next call makes new ones."""
        self._dialling.close()

    # -- content ---------------------------------------------------------------------------------

    def open(self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]) -> Content:
        """The content of *url*, all of it here, where it lies: nothing of it is copied.

        Args:
            url: Of the content.
            range: Only the bytes from the first to before the second.
            wishes: See :class:`.Wishes`.

        Raises:
            DragonflyError: It cannot be had; :mod:`pantala.errors` has the reasons.
        """
        return Content(url, self._fetch(url, wishes, range, again=True).run())

    def get(self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]) -> bytes:
        """A copy of the content of *url*, or of a *range* of it. Raises as :meth:`open` does."""
        with self.open(url, range=range, **wishes) as content:
            return content.copy()

    def get_into(
        self, url: str, buffer: Any, *, range: Range | None = None, **wishes: Unpack[Wishes]
    ) -> int:
        """Put the content of *url*, or a *range* of it, into memory of the caller's, as it comes.

        Args:
            url: Of the content.
            buffer: Writable and contiguous: an array, the numpy view of a pinned tensor.
            range: Of the content.
            wishes: See :class:`.Wishes`.

        Returns:
            How many bytes were written, at the beginning of *buffer*. The rest is as it was.

        Raises:
            InvalidRequest: The buffer is too short, read-only, or not contiguous; it is as it was.
            DragonflyError: It cannot be had, and what is in the buffer is of no use.
        """
        copier = Copier(buffer)
        fetch = self._fetch(url, wishes, range, again=True)
        try:
            while not fetch.arrival.done:
                copier.take(fetch.step(), fetch.landing)
        finally:
            fetch.withdraw()
            fetch.landing.close()
        return fetch.arrival.length

    def get_ranges(self, url: str, ranges: Iterable[Range], **wishes: Unpack[Wishes]) -> Copies:
        """Copies of several ranges of the content of *url*, in the order in which they are named.

        Only the pieces travel in which they lie. Raises as :meth:`open` does.
        """
        wanted = Cut(ranges)

        def take(span: Range, run: Run) -> None:
            with Content(url, run(self._fetch(url, wishes, span, again=True))) as content:
                wanted.take(span, content)

        # Once is enough: asked again, an origin might say that what came of the first has changed.
        first = wanted.spans[:1] if self._dialling.refreshes(wishes) else []
        self._each(take, first)
        if first:
            wishes["refresh"] = False
        self._each(take, wanted.spans[len(first) :])
        return wanted.copies

    def array(
        self,
        url: str,
        dtype: DTypeLike = "uint8",
        shape: int | Sequence[int] = -1,
        *,
        range: Range | None = None,
        **wishes: Unpack[Wishes],
    ) -> NDArray[Any]:
        """The content of *url* as a read-only numpy array, in the memory where it lies.

        Args:
            url: Of the content.
            dtype: Of the elements.
            shape: In rows, as numpy has it; one of the numbers may be -1.
            range: Of the content: only these bytes are the array.
            wishes: See :class:`.Wishes`.

        Raises:
            ValueError: The content has another number of bytes.
            DragonflyError: It cannot be had.
        """
        with self.open(url, range=range, **wishes) as content:
            return content.array(dtype, shape)

    def stream(
        self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]
    ) -> Iterator[memoryview]:
        """The content of *url* in order, in verified parts, as they come.

        They are read-only views of where the content lies, and may be kept. Leaving off early ends
        the wait; the daemon goes on. Raises as :meth:`open` does, also after the first parts.
        """
        fetch = self._fetch(url, wishes, range)
        reader = Reader(fetch.landing)
        try:
            while not fetch.arrival.done:
                fetch.step()
                yield from reader.parts()
        finally:
            fetch.withdraw()
            fetch.landing.close()

    def open_file(
        self, url: str, *, range: Range | None = None, **wishes: Unpack[Wishes]
    ) -> ContentFile:
        """The content of *url* as a binary file to read and seek in; a read waits for its bytes.

        Raises as :meth:`open` does; so does what reads.
        """
        return ContentFile(self._fetch(url, wishes, range), url)

    def download(
        self,
        url: str,
        path: str | PathLike[str],
        *,
        range: Range | None = None,
        overwrite: bool = False,
        progress: Callable[[Progress], object] | None = None,
        **wishes: Unpack[Wishes],
    ) -> Task:
        """Write the content of *url* to a file, which appears whole or not at all.

        Args:
            url: Of the content.
            path: Of the file.
            range: Of the content.
            overwrite: Replace another file of that name.
            progress: Is told how far it is, ten times a second at most.
            wishes: See :class:`.Wishes`.

        Raises:
            OutputExists: There is a file of that name.
            DragonflyError: The content cannot be had, or not be written.
        """
        request = self._dialling.download(url, wishes, range)
        deadline = time.monotonic() + request["timeout"] + GRACE
        watcher = Telling(progress or (lambda _: None))
        in_files = request["kind"] != "CACHE"
        with (
            output_at(path, overwrite=overwrite) as output,
            self._dialling.dial() as connection,
        ):
            saving = Saving(connection, output, watcher, in_files=in_files)
            saving.run(request, deadline=deadline)
            output.commit()
        return task_of(saving.arrival, public_url(url))

    def prefetch(self, urls: str | Iterable[str], **wishes: Unpack[Wishes]) -> Tasks:
        """Have the daemon get the content of *urls*, so that it is at hand; their tasks, in order.

        Several are under way at once. Raises as :meth:`open` does: what the first of them failed
        of, after all have been tried.
        """

        def fetch(url: str, run: Run) -> Task:
            found = self._fetch(url, wishes, again=True)
            run(found).close()
            return task_of(found.arrival, public_url(url))

        return [*self._each(fetch, [urls] if isinstance(urls, str) else [*urls])]

    def refresh(self, url: str, **wishes: Unpack[Wishes]) -> Task:
        """Have the daemon get what the origin has now, if that is not what is here.

        Whoever looks at what was here keeps it. Other hosts keep what they have until they are
        asked so, too. Raises as :meth:`open` does; if the origin is silent, what is here stays.

        Returns:
            The task. ``details["bytes_from_cache"]`` is all of it if nothing has changed.
        """
        wishes["refresh"] = True
        return self.prefetch(url, **wishes)[0]

    # -- tasks -----------------------------------------------------------------------------------

    def stat(self, url: str, **identity: Unpack[Identity]) -> Task:
        """What is known of the content of *url*. Raises NotFound: nothing."""
        return the_one(self._ask({"op": "stat", **self._dialling.identity(url, identity)}, url))

    def list(self, kind: str = "CACHE") -> Tasks:
        """What the daemon holds of a kind."""
        return self._ask({"op": "list", "kind": kind.upper()}, "its tasks").tasks

    def evict(self, url: str, *, swarm: bool = False, **identity: Unpack[Identity]) -> None:
        """Have the daemon hold the content of *url* no longer; those who look at it keep it.

        Args:
            url: Of the content.
            swarm: Nor any other host that the scheduler knows of.
            identity: See :class:`.Identity`.

        Raises:
            NotFound: It does not.
            DragonflyError: A host could not be told.
        """
        request = {"op": "delete", **self._dialling.identity(url, identity), "swarm": swarm}
        checked(self._ask(request, url), url)

    # -- how it is asked -------------------------------------------------------------------------

    def _fetch(
        self, url: str, wishes: Mapping[str, Any], part: Range | None = None, *, again: bool = False
    ) -> Fetch:
        request = self._dialling.download(url, wishes, part, again=again)
        return Fetch(request, self._dialling)

    def _ask(self, request: Mapping[str, Any], what: str) -> Answer:
        """The answer to a question about tasks."""
        deadline = time.monotonic() + LIMIT
        idle, dialled = self._dialling.idle, 0
        while True:
            answer = Answer(public_url(what))
            kept = idle.take()
            dialled += kept is None
            connection = kept or self._dialling.dial()
            try:
                connection.send(request, deadline=deadline)
                while answer.done is None:
                    answer.on(connection.receive(deadline=deadline) or {})
            except BaseException as error:  # a signal, too: nobody goes on in the midst of a frame
                connection.close()
                if not self._dialling.goes_on(error, connection, dialled):
                    raise
            else:
                idle.put(connection)
                return answer

    def _each(self, work: Callable[[A, Run], B], items: Sequence[A]) -> Sequence[B]:
        """What *work* makes of each, several at once; the first failure, once all are through.

        Whatever cuts in, Ctrl-C say, ends the wait of all, so that no thread is left behind.
        """
        if len(items) < 2:
            return [work(item, Fetch.run) for item in items]
        # Who has one item need not import it.
        from concurrent.futures import ThreadPoolExecutor, wait  # noqa: PLC0415  slow, and one item needs none

        under_way = set[Fetch]()

        def run(fetch: Fetch) -> Landing:
            under_way.add(fetch)
            try:
                return fetch.run()
            finally:
                under_way.discard(fetch)

        with ThreadPoolExecutor(min(CONCURRENCY, len(items)), "pantala") as threads:
            futures: list[Future[B]] = []
            try:
                futures += (threads.submit(work, item, run) for item in items)
                wait(futures)
            except BaseException:
                end_all(futures, under_way)
                raise
        return [future.result() for future in futures]
