"""The threads of a daemon, by what they wait for: see the table in ARCHITECTURE.md."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar, TypeVarTuple
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pantala.net.piece_server import SENDERS
from pantala.ports import Extent, MemoryExtent

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Threads that receive pieces from parents. Each flight uses as many as it may fetch at once;
#: beyond this, fetches wait for a thread.
RECEIVERS: Final = 256

#: Threads that receive from origins, and how many of them from one host: sixteen flights of eight
#: pieces. Four hosts may be slow before others have to wait.
READERS: Final = 512
READERS_OF_ONE: Final = 128

#: Threads that ask origins what a file is, and how many of them ask one host.
PROBERS: Final = 128
PROBERS_OF_ONE: Final = 32

#: Threads for checksums and the like, which no transfer must hold up.
HELPERS: Final = 16


class Job(Protocol[T_co]):
    """Blocking work that can be given up."""

    def run(self) -> T_co:
        """Do it, in a worker thread."""

    def abort(self) -> None:
        """Make :meth:`run` fail soon, from any thread."""


class _Work(Generic[T]):
    """A call on its way to a thread and back.

    Attributes:
        ended: Done on the event loop, once a thread has let go of it, or when whoever waits for it
            is cancelled.
    """

    __slots__ = ("_call", "_error", "_is_over", "_once", "_result", "ended", "loop")

    def __init__(self, call: Callable[[], T]) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self._call = call
        self._once = threading.Lock()
        self._result: T
        self._error: BaseException | None = None
        self._is_over = False

    def take(self) -> bool:
        """Be the one who does it, or gives it up before; False: somebody was quicker."""
        return self._once.acquire(blocking=False)

    def do(self) -> None:
        """In the thread that has taken it."""
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001  whoever waits for it raises it
            self._error = error

    def settle(self) -> None:
        """Its thread has let go of it."""
        self._is_over = True
        if not self.ended.done():
            self.ended.set_result(None)

    def give_up(self) -> None:
        """No thread will do it."""
        self._is_over = True
        self.ended.cancel()

    async def has_settled(self) -> None:
        """Wait until its thread has let go of it, come what may."""
        while not self._is_over:
            self.ended = self.loop.create_future()
            with contextlib.suppress(asyncio.CancelledError):
                await self.ended

    def outcome(self) -> T:
        """What it returned, or raise what it raised; once."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error  # it would be kept by its own frames, and they keep memory


class Workers:
    """Threads that do one kind of work.

    The event loop is told in batches: it is woken for the first job that has ended, and finds there
    what else has ended until it looks. A job so costs it much less than with an executor.

    Args:
        name: Of the threads.
        count: Of the threads; each is made when there is work for it.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        #: None: one thread is to end.
        self._waiting: SimpleQueue[_Work[Any] | None] = SimpleQueue()
        self._threads = 0
        #: What was handed over and has not settled.
        self._open = 0
        self._ended: deque[_Work[Any]] = deque()
        #: The loop has been told to look there, and has not yet.
        self._is_told = False
        self._closed = False

    async def run(self, job: Job[T]) -> T:
        """Do blocking work.

        When cancelled, the job is given up, and this returns only after its thread has let go
        of everything: memory it received into may be used for something else then.
        """
        work = self._hand_over(job.run)
        try:
            await work.ended
        except asyncio.CancelledError:
            if work.take():
                self._open -= 1
            else:  # it has begun
                job.abort()
                await work.has_settled()
            raise
        return work.outcome()

    async def call(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Have *work* done that is over soon: when cancelled, it goes on by itself."""
        handed = self._hand_over(functools.partial(work, *arguments))
        await handed.ended
        return handed.outcome()

    def _hand_over(self, call: Callable[[], T]) -> _Work[T]:
        if self._closed:
            raise RuntimeError(f'the threads "{self._name}" have ended')
        work = _Work(call)
        if self._threads <= self._open and self._threads < self._count:
            self._start_thread()
        self._open += 1
        self._waiting.put(work)
        return work

    def _start_thread(self) -> None:
        name = f"{self._name}_{self._threads}"
        try:
            threading.Thread(target=self._work, name=name).start()
        except RuntimeError:  # the system has no more
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            if work.take():
                work.do()
                self._ended.append(work)
                # Whoever reads True here has appended before the loop looks.
                if not self._is_told:
                    self._is_told = True
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        work.loop.call_soon_threadsafe(self._settle)
            del work  # while it waits for the next, it keeps nothing

    def _settle(self) -> None:
        self._is_told = False
        while self._ended:
            self._open -= 1
            self._ended.popleft().settle()

    def shutdown(self) -> None:
        """Begin nothing more, and let what has begun end without waiting for it."""
        self._closed = True
        while not self._waiting.empty():
            work = self._waiting.get()
            if work is not None and work.take():
                work.give_up()
        for _ in range(self._threads):
            self._waiting.put(None)


class OriginWorkers:
    """Threads that wait for origins. One host gets a share, so that others are served meanwhile.

    Args:
        name: Of the threads.
        count: Of the threads.
        share: How many may wait for one host.
    """

    def __init__(self, name: str, *, count: int, share: int) -> None:
        self._workers = Workers(name, count)
        self._share = share
        #: Of each host for which somebody waits.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, url: str, job: Job[T]) -> T:
        """See :meth:`Workers.run`; when it is the turn of those who ask the host of *url*."""
        async with self.turn(url):
            return await self._workers.run(job)

    def shutdown(self) -> None:
        """See :meth:`Workers.shutdown`."""
        self._workers.shutdown()

    def turn(self, url: str) -> asyncio.Semaphore:
        """What to hold while a thread waits for the host of *url*."""
        try:
            host = urlsplit(url).netloc.rpartition("@")[2].lower()
        except ValueError:  # the source will say what is wrong with it
            host = ""
        turn = self._turns.get(host)
        if turn is None:
            turn = self._turns[host] = asyncio.Semaphore(self._share)
        return turn


class Threads:
    """All of them; each is made when there is work for it.

    Attributes:
        receivers: Receive pieces from parents; each is bound by the piece's time limits.
        senders: Send pieces to children.
        readers: Receive from origins.
        probers: Ask origins what a file is; those who receive must not hold them up.
        helpers: For what needs only this machine: hash whole files, and do the like.
        disposer: Gives memory back.
    """

    def __init__(self) -> None:
        self.receivers = Workers("receive", RECEIVERS)
        self.senders = ThreadPoolExecutor(SENDERS, "send")
        self.readers = OriginWorkers("read", count=READERS, share=READERS_OF_ONE)
        self.probers = OriginWorkers("probe", count=PROBERS, share=PROBERS_OF_ONE)
        self.helpers = Workers("help", HELPERS)
        self.disposer = ThreadPoolExecutor(1, "free")

    async def read(self, extent: Extent, offset: int, count: int) -> memoryview:
        """Bytes of *extent*: in a thread, but for memory, which needs no waiting for.

        Raises:
            Damaged: They cannot be read any more.
        """
        if isinstance(extent, MemoryExtent):
            return extent.read(offset, count)
        return await self.helpers.call(extent.read, offset, count)

    def shutdown(self) -> None:
        """Let them end without waiting for it. What nobody has begun is left, but for memory."""
        self.helpers.shutdown()
        self.probers.shutdown()
        self.readers.shutdown()
        self.senders.shutdown(wait=False, cancel_futures=True)
        self.receivers.shutdown()
        self.disposer.shutdown(wait=False)
