"""The threads of a daemon, by what they wait for: see the table in ARCHITECTURE.md."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pantala.net.piece_server import SENDERS

#: Threads that receive pieces from parents. Each flight uses as many as it may fetch at once;
#: beyond this, fetches wait for a thread.
RECEIVERS: Final = 256

#: Threads that receive from origins, and how many of them from one host: sixteen flights of eight
#: pieces. Four hosts may be slow before others have to wait.
READERS: Final = 512
READERS_OF_ONE: Final = 128

#: Threads that ask origins what a content is, and how many of them ask one host.
PROBERS: Final = 128
PROBERS_OF_ONE: Final = 32

#: Threads for checksums and the like, which no transfer must hold up.
HELPERS: Final = 16


class OriginThreads:
    """Threads that wait for origins. One host gets a share, so that others are served meanwhile.

    Args:
        name: Of the threads.
        count: Of the threads.
        share: How many may wait for one host.
    """

    def __init__(self, name: str, *, count: int, share: int) -> None:
        self.pool = ThreadPoolExecutor(count, name)
        self._share = share
        #: Of each host for which somebody waits.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

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
        receivers: Receive pieces from parents.
        senders: Send pieces to children.
        readers: Receive from origins.
        probers: Ask origins what a content is.
        helpers: Hash whole contents, and do the like.
        disposer: Gives memory back.
    """

    def __init__(self) -> None:
        self.receivers = ThreadPoolExecutor(RECEIVERS, "receive")
        self.senders = ThreadPoolExecutor(SENDERS, "send")
        self.readers = OriginThreads("read", count=READERS, share=READERS_OF_ONE)
        self.probers = OriginThreads("probe", count=PROBERS, share=PROBERS_OF_ONE)
        self.helpers = ThreadPoolExecutor(HELPERS, "help")
        self.disposer = ThreadPoolExecutor(1, "free")

    def shutdown(self) -> None:
        """Let them end without waiting for it. What nobody has begun is left, but for memory."""
        for pool in (
            self.helpers,
            self.probers.pool,
            self.readers.pool,
            self.senders,
            self.receivers,
        ):
            pool.shutdown(wait=False, cancel_futures=True)
        self.disposer.shutdown(wait=False)
