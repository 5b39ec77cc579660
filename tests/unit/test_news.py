"""scheduler/news.py, and how a stream ends that had news while it waited for its peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random
from typing import Any

from pantala.background import Tasks
from pantala.core.sched.entities import Caller
from pantala.model.announce import CandidateParents, Registration
from pantala.model.task import DownloadRequest, Kind
from pantala.scheduler.announce_streams import AnnounceStreams
from pantala.scheduler.dialects import SCHEDULER_DIALECTS
from pantala.scheduler.metrics import Metrics
from pantala.scheduler.news import News
from pantala.scheduler.seeds import SeedCaller
from pantala.scheduler.waiters import Waiters
from pantala.testing.stage import MIB, Stage, task_id

DIALECT = SCHEDULER_DIALECTS[Kind.CACHE]


class Hearer:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        """Once more."""
        self.woken += 1

    def orphaned(self) -> None:
        """Never, here."""
        raise AssertionError


async def test_news_are_gathered() -> None:
    """Each hears at once of all that has come meanwhile, but not one who has left."""
    stage, news = Stage(), News()
    peers = [stage.register(name) for name in "abc"]
    hearers = [Hearer() for _ in peers]
    for peer, hearer in zip(peers[:2], hearers, strict=False):
        news.opened(peer, hearer)
    turn = asyncio.ensure_future(news.turn())
    for peer in (*peers, *peers):
        news.partnered(peer)
    news.closed(peers[1])
    await turn
    assert [hearer.woken for hearer in hearers] == [1, 0, 0]
    turn = asyncio.ensure_future(news.turn())
    await asyncio.sleep(0)
    assert not turn.done()  # there are none
    news.partnered(peers[0])
    await turn
    assert hearers[0].woken == 2


async def test_a_stream_that_ends_between_two_messages_gives_up_the_next() -> None:
    """It was waiting for that when it had something to tell."""
    stage, news = Stage(), News()
    stage.world.partners._on_news = news.partnered
    tasks = Tasks()
    streams = AnnounceStreams(
        stage.world,
        Waiters(),
        news,
        seeds=SeedCaller(stage.world, tasks, 1.0),
        tasks=tasks,
        metrics=Metrics(),
        chance=Random(0),
    )
    stage.source("source")
    stage.host("a")
    given_up = False

    async def requests() -> AsyncGenerator[Any, None]:
        nonlocal given_up
        request = DownloadRequest(Kind.CACHE, "http://origin/f")
        said = Registration("a", task_id("t"), "a-1", request, 10 * MIB, 4 * MIB)
        yield DIALECT.shared.codec.encode(said, said)
        try:
            await asyncio.Event().wait()
        finally:
            given_up = True

    async with aclosing(streams.announce(DIALECT, Caller("10.0.0.1"), requests())) as answers:
        await anext(answers)
        pushed = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0)
        child = stage.child("b")
        await news.turn()
        told = DIALECT.shared.codec.decode_answer(await pushed)
        assert isinstance(told, CandidateParents)
        assert [candidate.peer_id for candidate in told.candidates] == [child.id]
        assert not given_up
    assert given_up
