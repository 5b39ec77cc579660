"""The ten scenarios that a scheduler must pass to stand in for Dragonfly's, by their numbers.

Each runs over real gRPC as announce streams of the contract's messages, against a scheduler on a
port of its own. ADR 18 says where ours answers in another order, or later, than Dragonfly's; what
differs in a scenario is told there. Nearly all run for STANDARD and for CACHE tasks, which is the
ninth but for its eviction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from pantala.model.announce import EmptyTask, MetadataOnly
from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.pb import common_pb2, scheduler_pb2
from pantala.rpc.dialects import DIALECTS
from pantala.testing.announce import LIMIT, Peer, Swarm, is_to_source, swarm, until
from pantala.testing.seed import seed

pytestmark = pytest.mark.usefixtures("kind")

#: Seconds in which Dragonfly's scheduler gives up looking for a parent: four times half a second.
RETRY_BUDGET = 2.0
#: Seconds in which nothing is to happen that would happen at once.
A_WHILE = 0.3


# 1


async def test_a5_1_seed_then_normal() -> None:
    """The seed is sent to the origin, the host gets the seed as its parent, the task succeeds.

    The host waits for the seed as long as that lives, and not for two seconds (ADR 18); here the
    seed is quick, and the host hears of it within the two.
    """
    async with swarm() as s, seed(s, "seed") as daemon:
        await s.hosts("normal")
        began = time.monotonic()
        normal = s.peer("normal")
        await normal.register()
        asked = await asyncio.wait_for(daemon.requests.get(), LIMIT)
        assert asked.need_back_to_source
        daemon.release.set()  # it registers, is told NeedBackToSource, and starts: see Seed
        parents = await normal.parents()
        assert time.monotonic() - began < RETRY_BUDGET
        assert daemon.peer is not None
        assert parents == {daemon.peer.id}
        await normal.started()
        for number in range(3):
            await normal.piece(number, daemon.peer.id)
        await normal.finished()
        await s.until_state(daemon.peer, "Succeeded")
        assert (await s.stat()).state == "Succeeded"


async def test_a5_1_a_slow_seed_is_waited_for() -> None:
    """A seed that takes longer than two seconds still is who fetches: ADR 18 differs on purpose."""
    async with swarm() as s, seed(s, "seed") as daemon:
        await s.hosts("normal")
        normal = s.peer("normal")
        await normal.register()
        await asyncio.wait_for(daemon.requests.get(), LIMIT)
        answer = asyncio.ensure_future(normal.parents())
        done, _ = await asyncio.wait((answer,), timeout=RETRY_BUDGET + A_WHILE)
        assert not done
        daemon.release.set()
        found = await answer
        assert daemon.peer is not None
        assert found == {daemon.peer.id}


# 2


async def test_a5_2_no_seed() -> None:
    """The first is told to go to the origin at once; the second gets it while it is there."""
    async with swarm() as s:
        await s.hosts("a", "b")
        began = time.monotonic()
        first = s.peer("a")
        assert is_to_source(await first.asked())
        assert time.monotonic() - began < RETRY_BUDGET / 2
        await first.source_started()
        await s.until_state(first, "BackToSource")
        second = s.peer("b")
        await second.register()
        assert await second.parents() == {first.id}
        await second.started()
        await second.piece(0, first.id)
        await second.finished()
        await first.source_finished()
        assert (await s.stat()).state == "Succeeded"


# 3


async def test_a5_3_zero_length_content() -> None:
    """EmptyTaskResponse; then started and finished are accepted, and the stream ends well."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        assert peer.understood(await peer.asked(length=0)) == EmptyTask()
        await peer.started()
        await peer.finished()
        assert (await s.stat_peer(peer.id)).state == "Succeeded"
        assert (await s.stat()).size_scope == common_pb2.EMPTY


# 4


# A peer of a CACHE task has no words for it.
@pytest.mark.parametrize("kind", [Kind.STANDARD], indirect=True, ids=["standard"])
async def test_a5_4_metadata_only() -> None:
    """MetadataOnlyResponse; then the peer is offered as a parent.

    It is one once it has said that it started and finished (ADR 18): before that it may be about
    to fail.
    """
    async with swarm() as s:
        await s.hosts("a", "b", "c")
        holder = s.peer("a")
        assert holder.understood(await holder.asked(metadata_only=True)) == MetadataOnly()
        early = s.peer("b")
        assert is_to_source(await early.asked())
        await early.failed()
        await holder.started()
        await holder.finished()
        child = s.peer("c")
        await child.register()
        assert await child.parents() == {holder.id}


# 5


async def test_a5_5_all_known_parents_reported() -> None:
    """A child that reports all parents there are is sent to the origin.

    Dragonfly's scheduler looks for two seconds whether somebody comes; ours knows that nobody is on
    the way, and says so at once (ADR 18).
    """
    async with swarm() as s:
        await s.hosts("a", "b", "c")
        held = await s.holder("a"), await s.holder("b")
        child = s.peer("c")
        await child.register()
        assert await child.parents() == {peer.id for peer in held}
        await child.started()
        began = time.monotonic()
        await child.reschedule(*(peer.id for peer in held))
        await child.to_source()
        assert time.monotonic() - began < RETRY_BUDGET
        await child.source_started()
        await child.source_finished()


# 6


async def _selfish(s: Swarm) -> Peer:
    await s.host("selfish", disable_shared=True)
    await s.holder("selfish")
    return s.peer("child")


async def _same_host(s: Swarm) -> Peer:
    await s.holder("child")
    return s.peer("child")


@pytest.mark.parametrize("scene", [_selfish, _same_host], ids=["disable_shared", "same_host"])
async def test_a5_6_never_offered(scene: Callable[[Swarm], Any]) -> None:
    """Neither who shares nothing, nor a peer of the child's own host: it is sent to the origin."""
    async with swarm() as s:
        await s.hosts("child")
        child = await scene(s)
        await child.register()
        await child.to_source()


@pytest.mark.parametrize("how", ["piece_failed", "reschedule"])
async def test_a5_6_a_blocked_parent_is_never_offered(how: str) -> None:
    """Whether a piece of it failed, or the child named it when it asked for others."""
    async with swarm() as s:
        await s.hosts("bad", "good", "child")
        bad, good = await s.holder("bad"), await s.holder("good")
        child = s.peer("child")
        await child.register()
        assert await child.parents() == {bad.id, good.id}
        await child.started()
        if how == "piece_failed":
            await child.piece_failed(bad.id, temporary=False)
        for blamed in ((bad.id,) if how == "reschedule" else (), ()):  # once is for ever
            await child.reschedule(*blamed)
            assert await child.parents() == {good.id}


async def test_a5_6_a_descendant_is_never_offered() -> None:
    """A child whose parent is gone is not sent to its own child: parents make no circles."""
    async with swarm() as s:
        await s.hosts("top", "child", "below")
        top = await s.source("top")
        child = await s.child("child")
        below = s.peer("below")
        await below.register()
        assert await below.parents() == {top.id, child.id}
        await below.started()
        await s.until_state(below, "Running")
        await child.reschedule(top.id)
        await child.to_source()


# 7


async def test_a5_7_an_unknown_host() -> None:
    """NOT_FOUND: it is to announce itself first."""
    async with swarm() as s:
        peer = s.peer("nobody")
        await peer.register()
        assert "nobody" in await peer.ends(grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    ("priority", "code"),
    [
        (common_pb2.LEVEL1, grpc.StatusCode.FAILED_PRECONDITION),
        (common_pb2.LEVEL2, grpc.StatusCode.NOT_FOUND),
    ],
    ids=["level1", "level2"],
)
async def test_a5_7_priorities_that_are_refused(
    priority: common_pb2.Priority.ValueType, code: grpc.StatusCode
) -> None:
    """LEVEL1 may not download; LEVEL2 may not of a task that nobody has."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(priority=priority)
        await peer.ends(code)


async def test_a5_7_a_peer_id_registered_twice() -> None:
    """INTERNAL, for the second; the first goes on."""
    async with swarm() as s:
        await s.hosts("a", "b")
        first = await s.source("a")
        second = s.peer("b")
        second.ids["peer_id"] = first.id
        await second.register()
        await second.ends(grpc.StatusCode.INTERNAL)
        await first.source_finished()


# 8


async def test_a5_8_a_silent_host() -> None:
    """Silent for twice its interval: its peers go with it, and are offered to nobody.

    Within one turn of the sweep, where Dragonfly's scheduler needs a second one for the peers:
    a host that is forgotten takes its peers along.
    """
    every = {"scheduler__gc__hostGCInterval": "50ms", "scheduler__gc__peerGCInterval": "50ms"}
    async with swarm(**every) as s:
        await s.host("silent", interval=Duration(nanos=200_000_000))
        await s.hosts("child", "after")
        holder = await s.holder("silent")
        child = s.peer("child")
        await child.register()
        assert await child.parents() == {holder.id}  # it was one as long as it was heard of
        await child.failed()
        await until(lambda: s.gone(holder))
        assert "silent" not in await _hosts(s)
        after = s.peer("after")
        await after.register()
        await after.to_source()


async def _hosts(s: Swarm) -> set[str]:
    return {host.id for host in (await s.stub.ListHosts(scheduler_pb2.ListHostsRequest())).hosts}


# 9: all of the above for CACHE tasks, and


@pytest.mark.parametrize("other", [True, False], ids=["to_another", "to_source"])
async def test_a5_9_eviction_while_a_child_downloads(kind: Kind, *, other: bool) -> None:
    """The parent's host deletes the task: it is offered no more, the child gets another or goes.

    By DeleteCacheTask, or DeleteTask. The child needs not ask: it lost its last parent by no doing
    of its own, so it is told (ADR 24). Asking is right, too, and then counts.
    """
    async with swarm() as s:
        await s.hosts("parent", "other", "child", "after")
        parent = await s.holder("parent")
        child = s.peer("child")
        await child.register()
        assert await child.parents() == {parent.id}
        await child.started()
        await child.piece(0, parent.id)
        await s.until_state(child, "Running")
        next_ = await s.holder("other") if other else None
        await s.delete_task("parent")
        assert await s.gone(parent)
        answer = await child.answer()
        if next_ is None:
            assert is_to_source(answer)
            return
        assert child.named(answer) == [next_.id]
        await child.piece(1, next_.id)
        await child.finished()
        after = s.peer("after")
        await after.register()
        assert await after.parents() == {next_.id, child.id}
        assert (await s.stat()).type == kind


# 10

#: What is downloaded as a task of either kind.
URL = "http://origin/f"
BOTH = (Kind.STANDARD, Kind.CACHE)


def _peer(s: Swarm, kind: Kind, host: str) -> Peer:
    """A peer of the task of that kind that URL is, by the id that daemons give it."""
    s.kind = kind
    peer = s.peer(host)
    peer.ids["task_id"] = task_id(kind, URL)
    return peer


async def _state(s: Swarm, kind: Kind) -> tuple[str, int]:
    method, request = DIALECTS[kind].stat
    stat = await getattr(s.stub, method)(request(host_id="x", task_id=task_id(kind, URL)))
    assert (stat.id, stat.type, stat.url) == (task_id(kind, URL), kind, URL)
    return str(stat.state), int(stat.peer_count)


async def test_a5_10_both_kinds_of_one_url(kind: Kind) -> None:
    """Two tasks that do not know each other, and one host whose places both kinds share.

    The host has one place. While a child of the one kind has it, a child of the other waits: for a
    busy parent ours has it wait, where Dragonfly's sends it to the origin after two seconds.
    """
    other = next(each for each in BOTH if each is not kind)
    assert task_id(kind, URL) != task_id(other, URL)
    async with swarm(scheduler__loadLimit=1) as s:
        await s.hosts("parent", "one", "two")
        held = {each: _peer(s, each, "parent") for each in BOTH}
        for each in BOTH:
            assert is_to_source(await held[each].asked(url=URL))  # the other one's is not known
            await held[each].source_started()
            await held[each].source_finished()
            assert await _state(s, each) == ("Succeeded", 1)
        one, two = _peer(s, kind, "one"), _peer(s, other, "two")
        await one.register(url=URL)
        assert await one.parents() == {held[kind].id}
        await one.started()
        await two.register(url=URL)
        answer = asyncio.ensure_future(two.parents())
        done, _ = await asyncio.wait((answer,), timeout=A_WHILE)
        assert not done
        await one.finished()
        assert await answer == {held[other].id}
        assert await _state(s, kind) == ("Succeeded", 2)
        await two.started()
        await two.finished()
        assert await _state(s, other) == ("Succeeded", 2)
