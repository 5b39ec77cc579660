"""At the scheduler a host belongs to its daemon: strangers, and daemons that start anew."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from pantala.core.sched.room import HOST
from pantala.model import ids
from pantala.model.task import Kind
from pantala.pb import scheduler_pb2, scheduler_pb2_grpc
from pantala.rpc.transport import channel_options
from pantala.testing import bad_parent as bad
from pantala.testing.announce import LIMIT, Peer, Swarm, is_to_source, refusal, swarm
from pantala.testing.bad_parent import BadParent, Conduct
from pantala.testing.cluster import Cluster, until
from pantala.testing.origin import Origin, Pattern
from pantala.testing.stage import task_id

DENIED = grpc.StatusCode.PERMISSION_DENIED
CONTENT = Pattern(10 << 20, seed=8)


@pytest.fixture
async def s() -> AsyncIterator[Swarm]:
    """A scheduler, as a daemon with a secret calls it."""
    async with swarm() as plain, plain.caller("the daemon's own") as mine:
        yield mine


async def registered_for(stranger: Swarm, host: str) -> Peer:
    """*stranger* registers a peer of a host that is not its own."""
    peer = stranger.peer(host)
    await peer.register(need_back_to_source=True)
    assert f"host {host} is another daemon's" in await peer.ends(DENIED)
    return peer


@pytest.mark.parametrize("secret", [None, "another"])
async def test_a_stranger_has_no_say(s: Swarm, secret: str | None) -> None:
    """Of another's host he moves, ends, adds and takes away nothing, whatever he sends along."""
    await s.hosts("a", "b")
    held = await s.holder("a")
    async with s.caller(secret, address="127.0.0.9") as stranger:
        calls: list[Awaitable[Any]] = [
            stranger.host("a", ip="127.0.0.9", port=9),
            stranger.stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id="a")),
            stranger.stub.DeleteCacheTask(
                scheduler_pb2.DeleteCacheTaskRequest(host_id="a", task_id=task_id("t"))
            ),
            stranger.stub.DeleteCachePeer(
                scheduler_pb2.DeleteCachePeerRequest(
                    host_id="a", peer_id=held.id, task_id=task_id("t")
                )
            ),
        ]
        assert [await refusal(call) for call in calls] == [DENIED] * 4
        await registered_for(stranger, "a")
        await stranger.host("x")  # one of his own
        await registered_for(stranger, "b")
    listed = (await s.stub.ListHosts(scheduler_pb2.ListHostsRequest())).hosts
    assert next((h.id, h.ip, h.port) for h in listed) == ("a", "127.0.0.1", 4000)
    child = s.peer("b")
    await child.register()
    assert await child.parents() == {held.id}


async def test_reports_are_of_the_streams_own_peer(s: Swarm) -> None:
    """Whoever names another's peer in his own stream is told that it is not known there."""
    await s.hosts("a")
    peer = await s.source("a")
    async with s.caller(address="127.0.0.9") as stranger:
        await stranger.host("x")
        fake = stranger.peer("x", "u")
        assert is_to_source(await fake.asked())
        fake.ids = peer.ids
        await fake.source_started()
        assert "register it first" in await fake.ends(grpc.StatusCode.NOT_FOUND)
    assert (await s.stat_peer(peer.id)).state == "BackToSource"


async def test_a_stock_host_is_bound_to_its_address() -> None:
    """It has no secret. Its daemon may be started anew, as it always could."""
    async with swarm() as stock:
        await stock.host("a")
        async with stock.caller(address="127.0.0.9") as stranger:
            assert await refusal(stranger.host("a", port=9)) is DENIED
            await registered_for(stranger, "a")
        async with stock.caller() as again:
            await again.host("a", port=4001)
            assert (await again.holder("a")).id


async def test_a_daemon_that_starts_anew_is_let_in(s: Swarm) -> None:
    """At the same address, as soon as the streams of its life before have ended."""
    await s.hosts("a", "b")
    held, going = await s.holder("a"), await s.source("a", "u")
    goodbye = scheduler_pb2.DeleteHostRequest(host_id="a")
    async with s.caller("new") as again:
        assert await refusal(again.stub.DeleteHost(goodbye)) is DENIED
        going.call.cancel()
        await s.until_state(going, "Failed")
        await again.stub.DeleteHost(goodbye)
        await again.host("a")
        assert await s.gone(held)
        await registered_for(s, "a")


async def test_a_host_that_comes_back_is_another(s: Swarm) -> None:
    """By the epoch its daemon sees that what it holds is not known any more."""

    async def epoch() -> str:
        trailing = await (await s.host("a")).trailing_metadata()
        return str(dict(trailing)["pantala-epoch"])

    first = await epoch()
    assert await epoch() == first
    await s.stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id="a"))
    second = await epoch()
    assert second != first
    assert await epoch() == second


async def test_a_peer_is_one_of_its_task(s: Swarm) -> None:
    """StatCachePeer and DeleteCachePeer name both; if they do not fit, there is no such peer."""
    await s.hosts("a")
    peer = await s.source("a")
    assert await refusal(s.stat_peer(peer.id, "other")) is grpc.StatusCode.NOT_FOUND
    request = scheduler_pb2.DeleteCachePeerRequest(peer_id=peer.id, task_id=task_id("other"))
    assert await refusal(s.stub.DeleteCachePeer(request)) is grpc.StatusCode.NOT_FOUND
    nameless = scheduler_pb2.StatCachePeerRequest(peer_id=peer.id)
    assert await refusal(s.stub.StatCachePeer(nameless)) is grpc.StatusCode.INVALID_ARGUMENT
    assert (await s.stat_peer(peer.id)).id == peer.id


async def test_secrets_are_told_to_nobody(s: Swarm) -> None:
    """Neither in what others hear of a host, nor in refusals, nor in the log."""
    with capture_logs() as log:
        await s.hosts("a")
        peer = await s.holder("a")
        async with s.caller("guess", address="127.0.0.9") as stranger:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stranger.host("a")
            listed = await stranger.stub.ListHosts(scheduler_pb2.ListHostsRequest())
            told = f"{listed}{await stranger.stat_peer(peer.id)}{refused.value.details()}"
    assert "another daemon's" in told
    assert any(line["event"] == "host" for line in log)
    for secret in ("the daemon's own", "guess"):
        digest = hashlib.sha256(secret.encode())
        for form in (secret, digest.hexdigest(), str(digest.digest())):
            assert form not in f"{told}{log}"


# Real daemons


def test_a_forgotten_daemon_tells_again_what_it_holds(cluster: Cluster, origin: Origin) -> None:
    """Somebody on its own machine deleted its host; at its next announcement it is all there."""
    cluster.scheduler()
    often = {"scheduler": {"announceInterval": "1s"}}
    holder, child = cluster.daemons("a", "b", config=often)
    origin.put("/f", CONTENT)
    assert cluster.get(holder, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    target = f"127.0.0.1:{cluster.scheduler_port}"
    with grpc.insecure_channel(target, channel_options(target)) as channel:
        stub = scheduler_pb2_grpc.SchedulerStub(channel)
        for host in stub.ListHosts(scheduler_pb2.ListHostsRequest(), timeout=LIMIT).hosts:
            if host.hostname.startswith("a."):
                stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id=host.id), timeout=LIMIT)

    def known() -> bool:
        got = cluster.get(child, origin.url("/f"), "--disable-back-to-source")
        return got.code == 0 and got.bytes() == CONTENT.read()

    until(known, "the holder told again")


def test_a_killed_daemon_comes_back(cluster: Cluster, origin: Origin) -> None:
    """With another secret and the same name: it is known at once, and so is what it fetches."""
    cluster.scheduler()
    node, child = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    assert cluster.get(node, origin.url("/f")).bytes() == CONTENT.read()
    node.kill()
    again = cluster.daemon("a")
    again.wait_for("announced")
    assert cluster.get(again, origin.url("/f")).bytes() == CONTENT.read()
    origin.pause()
    got = cluster.get(child, origin.url("/f"), "--disable-back-to-source")
    assert got.bytes() == CONTENT.read()


# What a task is


@pytest.mark.parametrize("fake", [b"7 bytes", bytes(2 << 20)], ids=len)
@pytest.mark.parametrize("conduct", [bad.deny, bad.cut, bad.corrupt])
def test_nodes_get_over_a_fake_holder(
    cluster: Cluster, origin: Origin, fake: bytes, conduct: Conduct
) -> None:
    """He is all that is known, and has nothing to give: they believe the origin."""
    cluster.scheduler()
    nodes = cluster.daemons("a", "b")
    origin.put("/f", CONTENT)
    url = origin.url("/f")
    task = ids.task_id(Kind.CACHE, url)
    with BadParent(cluster.scheduler_port, task, fake, conduct=conduct, url=url):
        for node in nodes:
            assert cluster.get(node, url).bytes() == CONTENT.read()


def test_nodes_do_not_call_whom_a_parent_names(cluster: Cluster, origin: Origin) -> None:
    """Its pieces are to be had at its own address, or not at all."""
    cluster.scheduler()
    node = cluster.daemon("a")
    origin.put("/f", CONTENT)
    url = origin.url("/f")
    task = ids.task_id(Kind.CACHE, url)
    with BadParent(cluster.scheduler_port, task, CONTENT.read(), url=url, ip="127.0.0.5") as parent:
        assert cluster.get(node, url).bytes() == CONTENT.read()
        assert not parent.asked
    assert "another machine" in node.log


async def test_a_fake_holder_does_not_decide_how_long_a_file_is(s: Swarm) -> None:
    """He vouches for 7 bytes by as many hosts as he likes; who comes gets the real holder."""
    await s.hosts("a", "b")
    held = await s.holder("a")
    async with s.caller(address="127.0.0.9") as stranger:
        for name in "xyz":
            await stranger.host(name)
            await stranger.holder(name, length=7)
        late = stranger.peer("x")
        await late.register(length=7)
    assert (await s.stat()).content_length == 10 << 20
    child = s.peer("b")
    await child.register()
    assert await child.parents() == {held.id}


async def test_honest_hosts_outvote_a_fake_holder_who_came_first(s: Swarm) -> None:
    """Those who know better are not refused: they go to the origin, and are believed."""
    async with (
        s.caller(address="127.0.0.9") as stranger,
        s.caller("b's", address="127.0.0.2") as other,
    ):
        await stranger.host("x")
        await stranger.holder("x", length=7)
        await s.hosts("a")
        await s.source("a")
        await other.host("b")
        child = other.peer("b")
        await child.register()
        assert len(await child.parents()) == 1  # the one that reads the origin
        second = other.peer("b")
        assert is_to_source(await second.asked(need_back_to_source=True))
        await second.source_started()
        await other.until_state(second, "BackToSource")
        assert (await s.stat()).content_length == 10 << 20


# What a scheduler keeps of strangers


async def test_a_list_of_hosts_has_an_end(s: Swarm) -> None:
    """It is no larger than any client takes, and tells how many are left out."""
    for number in range(30):
        names = (f"h{number}-{k}" for k in range(20))
        await asyncio.gather(*(s.host(name, os="x" * 7500) for name in names))
    call = s.stub.ListHosts(scheduler_pb2.ListHostsRequest())
    listed = await call
    left_out = int(dict(await call.trailing_metadata())["pantala-left-out"])
    assert len(listed.hosts) + left_out == 600
    assert 4_100_000 < listed.ByteSize() <= 4 << 20
    few = s.stub.ListHosts(scheduler_pb2.ListHostsRequest(type=1))
    assert not (await few).hosts
    assert "pantala-left-out" not in dict(await few.trailing_metadata())


async def test_an_announcement_has_a_size(s: Swarm) -> None:
    """It is kept for as long as the host is there."""
    assert await refusal(s.host("a", os="x" * 9000)) is grpc.StatusCode.INVALID_ARGUMENT
    assert not (await s.stub.ListHosts(scheduler_pb2.ListHostsRequest())).hosts


async def test_a_registrations_texts_have_a_size(s: Swarm) -> None:
    """They are kept for as long as the peer is there; headers are not."""
    await s.hosts("a")
    for long in (
        {"url": "http://origin/" + "f" * 17_000},
        {"tag": "x" * 17_000},
        {"filtered_query_params": ["x" * 500] * 40},
    ):
        peer = s.peer("a")
        await peer.register(**long)
        assert "filtered parameters" in await peer.ends(grpc.StatusCode.INVALID_ARGUMENT)
    assert await refusal(s.stat()) is grpc.StatusCode.NOT_FOUND
    peer = s.peer("a")
    assert is_to_source(await peer.asked(request_header={"X": "x" * 40_000}))


async def test_an_address_has_a_share_of_what_is_kept() -> None:
    """Whoever fills his own is refused there and then; others are not."""
    few = {"scheduler__stateLimitPerAddress": 3 * HOST}
    async with swarm(**few) as s, s.caller(address="127.0.0.9") as stranger:
        for name in "abc":
            await stranger.host(name)
        assert await refusal(stranger.host("d")) is grpc.StatusCode.RESOURCE_EXHAUSTED
        peer = stranger.peer("a")
        await peer.register()
        assert "hosts at 127.0.0.9" in await peer.ends(grpc.StatusCode.FAILED_PRECONDITION)
        await s.host("mine")
        assert is_to_source(await s.peer("mine").asked())
        await stranger.host("a", port=4001)  # it is known already
        await stranger.stub.DeleteHost(scheduler_pb2.DeleteHostRequest(host_id="b"))
        await stranger.host("d")
