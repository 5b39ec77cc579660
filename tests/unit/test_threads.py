"""daemon/host/threads.py: work in threads that can be given up, and whose threads it may use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pantala.daemon.host.threads import OriginWorkers


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


async def begun(*jobs: Waiting) -> None:
    """Wait until they have."""
    async with asyncio.timeout(20):
        while not all(job.begun.is_set() for job in jobs):  # noqa: ASYNC110  threads set it
            await asyncio.sleep(0.005)
