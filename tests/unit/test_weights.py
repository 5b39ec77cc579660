"""daemon/downloading/weights.py: one stream a host, as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pantala.background import Tasks
from pantala.daemon.downloading.weights import Listener, Weights
from pantala.daemon.throttle import Throttle
from pantala.errors import ParentLost
from pantala.model.announce import Candidate, HostFacts
from pantala.model.task import DownloadRequest, Kind
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin


class Hosts:
    """Whoever is asked tells what is put into its queue; None is its end."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[float | None]] = {}
        self.asked: list[str] = []

    async def weights(self, parent: Candidate) -> AsyncGenerator[float, None]:
        """As :class:`pantala.ports.ParentLink`."""
        self.asked.append(parent.host.id)
        queue = self.queues[parent.host.id] = asyncio.Queue()
        try:
            while (weight := await queue.get()) is not None:
                yield weight
        finally:
            del self.queues[parent.host.id]
        raise ParentLost("it broke off")


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.005)


def candidate(peer: str, host: str) -> Candidate:
    """A peer on a host."""
    return Candidate(peer, HostFacts(host, host, "127.0.0.1", 1))


async def test_one_stream_a_host() -> None:
    """However many listen; it ends with the last, and begins anew with the next."""
    hosts, tasks = Hosts(), Tasks()
    made: Any = Weights(hosts, tasks)  # type: ignore[arg-type]  # the part that it uses
    first: list[float] = []
    second: list[float] = []
    end_first = made.watch(candidate("p", "h"), first.append)
    end_second = made.watch(candidate("q", "h"), second.append)
    await until(lambda: "h" in hosts.queues)
    hosts.queues["h"].put_nowait(1.0)
    await until(lambda: first == second == [1.0])
    end_first()
    hosts.queues["h"].put_nowait(2.0)
    await until(lambda: second == [1.0, 2.0])
    end_second()
    await until(lambda: not hosts.queues)
    assert (first, len(made), hosts.asked) == ([1.0], 0, ["h"])

    end = made.watch(candidate("p", "h"), first.append)
    await until(lambda: "h" in hosts.queues)
    assert hosts.asked == ["h", "h"]
    end()
    await tasks.cancel()


async def test_a_host_that_breaks_off() -> None:
    """Others are told of; it is asked again when the next one wants to hear of it."""
    hosts, tasks = Hosts(), Tasks()
    made: Any = Weights(hosts, tasks)  # type: ignore[arg-type]  # the part that it uses
    heard: list[float | None] = []
    ends = [made.watch(candidate(name, name), heard.append) for name in ("h", "i")]
    await until(lambda: len(hosts.queues) == 2)
    hosts.queues["h"].put_nowait(None)
    await until(lambda: "h" not in hosts.queues)
    hosts.queues["i"].put_nowait(3.0)
    await until(lambda: heard == [None, 3.0])
    assert hosts.asked == ["h", "i"]
    again: list[float] = []
    ends.append(made.watch(candidate("q", "h"), again.append))
    await until(lambda: "h" in hosts.queues)
    hosts.queues["h"].put_nowait(4.0)
    await until(lambda: again == [4.0])
    for end in ends:
        end()
    await until(lambda: not hosts.queues)
    await tasks.cancel()


@pytest.mark.parametrize("at_once", [1, 8])
async def test_a_download_with_a_choice(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, at_once: int
) -> None:
    """Parents are listened to while there is more to fetch than at once, and not after.

    Those that do not exchange: the others say themselves what they would have us fetch.
    """
    scheduler = await stack.enter_async_context(inside.scheduler())
    parents = [
        await stack.enter_async_context(inside.daemon(tmp_path, name, port=scheduler.port))
        for name in "ab"
    ]
    child = await stack.enter_async_context(
        inside.daemon(tmp_path, "c", port=scheduler.port, download__concurrentPieceCount=at_once)
    )
    for parent in parents:
        child.engine.means.parents._note_plain(f"127.0.0.1:{parent.ports['upload']}")
    told: list[tuple[str, float]] = []
    watch = child.engine.means.weights.watch

    def spy(parent: Candidate, listener: Listener) -> Callable[[], None]:
        def tell(weight: float | None) -> None:
            if weight is not None:
                told.append((parent.host.id, weight))
            listener(weight)

        return watch(parent, tell)

    child.engine.means.weights.watch = spy  # type: ignore[method-assign]  # to look on
    origin.put("/f", Pattern(40 << 20))
    for daemon in (*parents, child):
        request = DownloadRequest(Kind.CACHE, origin.url("/f"))
        if daemon is child:
            for parent in parents:  # slow enough to be heard
                parent.uploads.bandwidth = Throttle(20 << 20, burst=4 << 20)
        async with daemon.engine.open(request) as download:
            async for _ in download:
                pass
            assert download.holding is not None
            assert bytes(download.holding.view(download.part)) == Pattern(40 << 20).read()

    await until(lambda: len(child.engine.means.weights) == 0)
    assert {host for host, _ in told} == {p.config.host_id for p in parents}
    assert all(weight > 0 for _, weight in told)
