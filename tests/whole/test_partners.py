"""What peers hear without having asked, from a scheduler on a real port."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter

import grpc
import pytest

from pantala.model.announce import SourceFinished
from pantala.testing import announce
from pantala.testing.announce import Peer, Swarm, is_to_source, until

pytestmark = pytest.mark.usefixtures("kind")


swarm = functools.partial(announce.swarm, scheduler__partnerLimit=13)


async def _gather(peer: Peer, wanted: set[str]) -> list[list[str]]:
    """What *peer* is told, message after message, until all *wanted* were named."""
    messages: list[list[str]] = []
    while not wanted <= {name for message in messages for name in message}:
        messages.append(peer.named(await peer.answer()))
    return messages


async def test_who_is_under_way_hears_of_who_joins() -> None:
    """At once, though it is silent; and the other had it named in its answer."""
    async with swarm() as s:
        await s.hosts("origin", "a", "b")
        source = await s.source("origin")
        first = await s.child("a")
        second = s.peer("b")
        await second.register()
        assert await second.parents() == {source.id, first.id}
        assert await first.parents() == {second.id}
        # The stream goes on as it was: what the first says is heard, and it is answered.
        await first.piece(0, second.id)
        await first.reschedule(source.id)
        assert is_to_source(await first.answer())  # a partner alone is no way to the source
        await first.source_started()
        await first.source_finished()


async def test_of_many_each_is_told_once() -> None:
    """Those who join together are told of together, and none twice."""
    async with swarm() as s:
        names = [f"h{number}" for number in range(10)]
        await s.hosts("origin", "a", *names)
        await s.source("origin")
        first = await s.child("a")
        others = [s.peer(name) for name in names]
        await asyncio.gather(*(peer.register() for peer in others))
        messages = await _gather(first, {peer.id for peer in others})
        assert Counter(name for message in messages for name in message) == Counter(
            peer.id for peer in others
        )
        assert len(messages) < len(others)


async def test_a_stock_peer_hears_nothing() -> None:
    """Nor is it told of to others, but as a parent."""
    async with swarm() as s:
        await s.hosts("origin", "a", "b")
        await s.host("stock", version="2.3.4")
        source = await s.source("origin")
        stock = await s.child("stock")
        first = await s.child("a")
        second = await s.child("b")
        assert await first.parents() == {second.id}
        answer = s.peer("stock")
        await answer.register()
        assert await answer.parents() <= {source.id, first.id, second.id}
        await stock.finished()


async def _orphans(s: Swarm, *names: str) -> tuple[Peer, list[Peer]]:
    """A peer at the origin, and its children on hosts of these names, who know each other."""
    await s.hosts("origin", *names)
    source = await s.source("origin")
    children = [s.peer(name) for name in names]
    for peer in children:  # before any of them has started, so that they are not each other's
        await peer.register()
        assert peer.named(await peer.answer())[0] == source.id
    for number, peer in enumerate(children):
        await peer.started()
        await s.until_state(peer, "Running")
        await _gather(peer, {later.id for later in children[number + 1 :]})
    return source, children


@pytest.mark.parametrize("how", ["failed", "deleted", "left"])
async def test_of_orphans_one_is_sent_and_the_others_get_it(how: str) -> None:
    """They did not ask: they have partners still, who have nothing to give."""
    async with swarm() as s:
        source, orphans = await _orphans(s, *"abc")
        if how == "failed":
            await source.failed()
        elif how == "deleted":
            await s.delete_peer(source.id)
        else:
            source.call.cancel()
        answers = {peer: asyncio.ensure_future(peer.answer()) for peer in orphans}
        await asyncio.wait(answers.values(), return_when=asyncio.FIRST_COMPLETED)
        (sent,) = (peer for peer, answer in answers.items() if answer.done())
        assert is_to_source(await answers.pop(sent))
        await sent.source_started()
        for peer, answer in answers.items():
            assert sent.id in peer.named(await answer)
            await peer.started()
            await peer.finished()
        await sent.source_finished()


async def test_an_orphan_that_asks_at_the_same_time() -> None:
    """It may be answered twice; one goes to the origin, and the other gets it."""
    async with swarm() as s:
        source, (first, second) = await _orphans(s, "a", "b")
        await source.failed()
        await first.reschedule(source.id)
        assert is_to_source(await first.answer())
        await second.reschedule(source.id)
        await first.source_started()
        assert first.id in await second.parents()
        await second.finished()
        await first.say(SourceFinished())
        while (answer := await first.call.read()) is not grpc.aio.EOF:
            assert is_to_source(answer)
        assert await first.call.code() is grpc.StatusCode.OK


async def test_an_orphan_that_goes_on_meanwhile() -> None:
    """What it says is heard while others are waited for: it may have everything already."""
    async with swarm() as s:
        source, (first, second) = await _orphans(s, "a", "b")
        await source.failed()
        assert is_to_source(await first.answer())
        await second.piece(0, first.id)
        await second.finished()
        assert (await s.stat_peer(second.id)).state == "Succeeded"
        await first.source_started()
        await s.until_state(first, "BackToSource")


async def test_an_orphan_that_can_have_no_parents() -> None:
    """Hears that, as if it had asked."""
    async with swarm(scheduler__retryLimit=1, scheduler__retryInterval="10ms") as s:
        await s.hosts("origin", "a")
        source = await s.source("origin")
        peer = s.peer("a")
        await peer.register(disable_back_to_source=True)
        assert await peer.parents() == {source.id}
        await peer.started()
        await s.until_state(peer, "Running")
        await source.failed()
        why = await peer.ends(grpc.StatusCode.FAILED_PRECONDITION)
        assert "no peer can offer it" in why
        await s.until_state(peer, "Failed")


async def test_an_orphan_that_leaves_is_not_looked_after() -> None:
    """Nobody looks for its parents any more; if it was the one that was sent, another is."""
    async with swarm() as s:
        source, (first, second, third) = await _orphans(s, *"abc")

        async def looked_after(number: int) -> None:
            async def so_many() -> bool:
                return len(s.scheduler._tasks._tasks) == number

            await until(so_many)

        await source.failed()
        assert is_to_source(await first.answer())
        await looked_after(2)
        second.call.cancel()
        await s.until_state(second, "Failed")
        assert len(s.scheduler._tasks._tasks) == 1
        first.call.cancel()
        assert is_to_source(await third.answer())
        await looked_after(0)
        third.call.cancel()
        await s.until_state(third, "Failed")
        assert not s.scheduler._news._hearers
