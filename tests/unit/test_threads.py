"""daemon/host/threads.py: work in threads that can be given up, and whose threads it may use."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from pantala.daemon.host.threads import OriginWorkers, Workers


class Waiting:
    """A job that ends when it is given up."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._end = threading.Event()

    def abort(self) -> None:
        """End it."""
        self._end.set()

    def run(self) -> bool:
        """Whether it was told to end in time."""
        self.begun.set()
        return self._end.wait(60)


@pytest.fixture
def threads() -> Iterator[OriginWorkers]:
    """Four, of which one host gets two."""
    threads = OriginWorkers("test", count=4, share=2)
    yield threads
    threads.shutdown()


async def test_one_host_gets_its_share(threads: OriginWorkers) -> None:
    """Others are served meanwhile; the next of the same host when one of the two has ended."""
    urls = ["http://u:p@A/1", "http://a/2?x", "HTTP://a/3", "http://b/1", "https://a:1/1"]
    jobs = [Waiting() for _ in urls]
    running = [
        asyncio.ensure_future(threads.run(url, job)) for url, job in zip(urls, jobs, strict=True)
    ]
    await begun(*jobs[:2], *jobs[3:])
    assert not jobs[2].begun.is_set()
    running[0].cancel()
    await begun(jobs[2])
    for job in jobs:
        job.abort()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert ended[1:] == [True] * 4


async def test_hosts_are_forgotten(threads: OriginWorkers) -> None:
    """As soon as nobody waits for them; a URL without a sensible host is as good as any."""
    for url in ("http://a/", "file:///x", "http://[/"):
        async with threads.turn(url):
            assert len(threads._turns) == 1
    assert not threads._turns


class Quick:
    """A job that does something at once."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.run = work

    def abort(self) -> None:
        """It is over soon."""


@pytest.fixture
def one() -> Iterator[Workers]:
    """A single thread."""
    workers = Workers("one", 1)
    yield workers
    workers.shutdown()


async def test_what_waits_for_a_thread_can_be_given_up(one: Workers) -> None:
    """It is never done."""
    first, done = Waiting(), list[int]()
    running = asyncio.ensure_future(one.run(first))
    await begun(first)
    second = asyncio.ensure_future(one.run(Quick(lambda: done.append(2))))
    await asyncio.sleep(0)  # it runs until it waits
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    first.abort()
    assert await running
    await one.call(done.append, 3)
    assert done == [3]


async def test_what_was_given_up_is_left_by_its_thread_first(one: Workers) -> None:
    """However often whoever waits is cancelled meanwhile."""
    begun_, let_go, end = threading.Event(), threading.Event(), threading.Event()

    class Slow(Waiting):
        def run(self) -> bool:
            begun_.set()
            end.wait(60)
            let_go.set()
            return True

    running = asyncio.ensure_future(one.run(Slow()))
    await one_of(begun_.is_set)
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0.01)  # in which it would end, if it did
        assert not running.done()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert let_go.is_set()


async def test_the_loop_is_woken_once_for_all_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it looks elsewhere."""
    workers, loop, woken = Workers("many", 4), asyncio.get_running_loop(), list[object]()
    wake = loop.call_soon_threadsafe

    def counted(call: Callable[[], object]) -> object:
        woken.append(call)
        return wake(call)

    done: list[int] = []
    running = [asyncio.ensure_future(workers.run(Quick(lambda: done.append(1)))) for _ in range(9)]
    await asyncio.sleep(0)  # each runs until it waits
    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    deadline = time.monotonic() + 20
    while len(done) < 9 and time.monotonic() < deadline:
        time.sleep(0.001)  # noqa: ASYNC251  the loop is to be busy
    time.sleep(0.05)  # noqa: ASYNC251  in which the threads tell it
    await asyncio.gather(*running)
    workers.shutdown()
    assert len(woken) <= 1


async def test_an_error_keeps_nothing(one: Workers) -> None:
    """What a job that failed has used is free as soon as nobody has the error any more."""

    class Memory:
        pass

    kept: list[weakref.ref[Memory]] = []

    def fail() -> None:
        memory = Memory()
        kept.append(weakref.ref(memory))
        raise ValueError("no")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            await one.run(Quick(fail))
        await one.call(lambda: None)
        assert kept[0]() is None
    finally:
        gc.enable()


async def test_who_waits_for_a_thread_hears_of_the_end() -> None:
    """What has begun goes on."""
    workers, first = Workers("one", 1), Waiting()
    running = asyncio.ensure_future(workers.run(first))
    await begun(first)
    second = asyncio.ensure_future(workers.run(Waiting()))
    await asyncio.sleep(0)  # it runs until it waits
    workers.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await second
    with pytest.raises(RuntimeError, match="ended"):
        await workers.run(Waiting())
    first.abort()
    assert await running


async def one_of(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  threads make it so
            await asyncio.sleep(0.005)


async def begun(*jobs: Waiting) -> None:
    """Wait until they have."""
    async with asyncio.timeout(20):
        while not all(job.begun.is_set() for job in jobs):  # noqa: ASYNC110  threads set it
            await asyncio.sleep(0.005)
