"""The threads of a daemon, by what they wait for: see the table in ARCHITECTURE.md."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple
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


class Workers:
    """Threads that do one kind of work.

    Args:
        name: Of the threads.
        count: Of the threads; each is made when there is work for it.
    """

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, job: Job[T]) -> T:
        """Do blocking work.

        When cancelled, the job is given up, and this returns only after its thread has let go
        of everything: memory it received into may be used for something else then.
        """
        running = self._pool.submit(job.run)
        future = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not running.cancel():  # it has begun
                job.abort()
                await _certainly(future)
            raise

    async def call(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Have *work* done that is over soon: when cancelled, it goes on by itself."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def shutdown(self) -> None:
        """Begin nothing more, and let what has begun end without waiting for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _certainly(future: asyncio.Future[Any]) -> None:
    """Wait until *future* is done, come what may."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((future,))
    future.exception()


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
