"""A scheduler on a real port, and peers that speak to it as daemons do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import grpc
import grpc.aio
import pytest

from pantala.model.announce import EmptyTask, MetadataOnly
from pantala.model.pieces import ByteRange
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import common_pb2, errordetails_pb2, scheduler_pb2
from pantala.testing.announce import LIMIT, Swarm, is_to_source, swarm, until
from pantala.testing.seed import seed
from pantala.testing.stage import MIB, task_id

pytestmark = pytest.mark.usefixtures("kind")

# Cold tasks


async def test_the_first_peer_goes_to_the_origin_and_the_second_to_it() -> None:
    """Nobody has it, no seed: the first is told at once, the next gets that one."""
    async with swarm() as s:
        await s.hosts("a", "b")
        first = await s.source("a")
        second = s.peer("b")
        await second.register()
        assert await second.parents() == {first.id}
        await second.started()
        await second.piece(0, first.id)
        await second.finished()
        await first.source_finished()
        assert (await s.stat()).state == "Succeeded"


async def test_of_many_at_once_one_is_elected() -> None:
    """Fifty peers in one instant: one goes to the origin, all others get it as their parent."""
    async with swarm() as s:
        await s.hosts(*(f"h{n}" for n in range(50)))
        peers = [s.peer(f"h{n}") for n in range(50)]
        await asyncio.gather(*(peer.register() for peer in peers))
        answers = {peer: asyncio.ensure_future(peer.answer()) for peer in peers}
        done, waiting = await asyncio.wait(
            answers.values(), timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED
        )
        assert len(done) == 1
        assert is_to_source(done.pop().result())
        elected = next(p for p, answer in answers.items() if answer.done())
        await elected.source_started()
        for answer in await asyncio.gather(*waiting):
            named = elected.named(answer)
            assert named[0] == elected.id
            assert len(set(named)) == len(named) <= 1 + 2 * 13  # those named after it are partners


async def test_when_the_elected_one_fails_one_other_is_elected() -> None:
    """One peer's failure at the origin is its own; the rest wait for the next."""
    async with swarm() as s:
        await s.hosts("a", "b", "c")
        first = await s.source("a")
        waiting = [s.peer("b"), s.peer("c")]
        await first.source_failed()
        await waiting[0].register()
        await waiting[0].to_source()
        await waiting[1].register()
        await waiting[0].source_started()
        assert await waiting[1].parents() == {waiting[0].id}


async def test_when_the_origin_fails_everybody_is_told() -> None:
    """After the fourth failure those who wait hear what the origin said."""
    async with swarm() as s:
        await s.hosts(*"abcde")
        for name in "abcd":
            peer = s.peer(name)
            assert is_to_source(await peer.asked())
            await peer.source_started()
            await peer.source_failed("503 Service Unavailable")
        last = s.peer("e")
        await last.register()
        details = await last.ends(grpc.StatusCode.INTERNAL)
        assert "4 hosts" in details
        assert "503 Service Unavailable" in details
        held = await s.holder("a")  # a success wipes that out
        again = s.peer("e")
        await again.register()
        assert await again.parents() == {held.id}


async def test_neither_one_sick_host_nor_bad_credentials_bar_others() -> None:
    """Four failures of one host are one, and an origin that says 403 says it to that caller."""
    async with swarm() as s:
        await s.hosts(*"abcdefg")
        for name, status in (*[("a", 503)] * 4, *[(name, 403) for name in "bcde"]):
            peer = s.peer(name)
            assert is_to_source(await peer.asked())
            await peer.source_started()
            backend = errordetails_pb2.Backend(message="no", status_code=status)
            request = scheduler_pb2.DownloadPieceBackToSourceFailedRequest(backend=backend)
            await peer.tell(download_piece_back_to_source_failed_request=request)
            await peer.source_failed("no")
        assert is_to_source(await s.peer("f").asked())


async def test_a_seed_in_trouble_of_its_own_is_no_reason_to_ask_no_other() -> None:
    """The next one is asked; only what the origin did would be the same there."""
    details = json.dumps({"message": "no descriptors", "header": {}, "blame": "local"}).encode()
    async with swarm() as s, seed(s, "one") as one, seed(s, "two") as two:
        for daemon in (one, two):
            daemon.fail_with = grpc.StatusCode.INTERNAL, "x", details
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register()
        await peer.to_source()
        assert (one.requests.qsize(), two.requests.qsize()) == (1, 1)


async def test_a_peer_told_to_start_that_never_does_is_given_up() -> None:
    """Its stream ends without a word: who waited for it is elected."""
    async with swarm() as s:
        await s.hosts("a", "b")
        told = s.peer("a")
        assert is_to_source(await told.asked())
        waiting = s.peer("b")
        await waiting.register()
        told.call.cancel()
        await waiting.to_source()


DYING = """
import asyncio, sys, grpc
from pantala.pb import scheduler_pb2, scheduler_pb2_grpc, common_pb2

async def main():
    channel = grpc.aio.insecure_channel(sys.argv[1])
    call = scheduler_pb2_grpc.SchedulerStub(channel).AnnounceCachePeer()
    ids = dict(host_id="a", task_id=sys.argv[2], peer_id="a-doomed")
    register = scheduler_pb2.RegisterCachePeerRequest(
        url="http://o/f", actual_content_length=10 << 20, actual_piece_length=4 << 20)
    await call.write(scheduler_pb2.AnnounceCachePeerRequest(
        **ids, register_cache_peer_request=register))
    await call.read()
    started = scheduler_pb2.DownloadCachePeerBackToSourceStartedRequest()
    await call.write(scheduler_pb2.AnnounceCachePeerRequest(
        **ids, download_cache_peer_back_to_source_started_request=started))
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_daemon_is_replaced() -> None:
    """When the elected daemon dies by SIGKILL, its child asks again and is sent in its place."""
    async with swarm() as s:
        s.kind = Kind.CACHE
        await s.hosts("a", "b", "c")
        command = (sys.executable, "-c", DYING, f"127.0.0.1:{s.scheduler.port}", task_id("t"))
        doomed = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert doomed.stdout is not None
        assert await doomed.stdout.readline() == b"started\n"
        child = s.peer("b")
        await child.register()
        assert await child.parents() == {"a-doomed"}
        await child.started()
        doomed.kill()
        await doomed.wait()
        await until(lambda: _is_failed(s, "a-doomed"))
        await child.reschedule("a-doomed")
        await child.to_source()


async def _is_failed(s: Swarm, peer_id: str) -> bool:
    return bool((await s.stat_peer(peer_id)).state == "Failed")


async def test_a_stream_that_ends_without_a_word() -> None:
    """A daemon that closes its side has given up: others do not wait for it."""
    async with swarm() as s:
        await s.hosts("a", "b")
        quiet = await s.source("a")
        await quiet.call.done_writing()
        await quiet.ends(grpc.StatusCode.OK)
        assert (await s.stat_peer(quiet.id)).state == "Failed"
        other = s.peer("b")
        await other.register()
        await other.to_source()


# Peers that may not ask the origin


async def test_disabled_back_to_source_is_absolute() -> None:
    """Such a peer is never elected: it waits a little, then hears why it gets nothing."""
    async with swarm(scheduler__retryInterval="20ms") as s:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(disable_back_to_source=True)
        details = await peer.ends(grpc.StatusCode.FAILED_PRECONDITION)
        assert "no peer can offer it" in details
        assert "disable_back_to_source" in details


async def test_disabled_back_to_source_waits_for_who_is_on_the_way() -> None:
    """Longer than its patience, as long as somebody else has been told to start."""
    async with swarm(scheduler__retryInterval="20ms") as s:
        await s.hosts("a", "b")
        told = s.peer("a")
        assert is_to_source(await told.asked())
        waiting = s.peer("b")
        await waiting.register(disable_back_to_source=True)
        answer = asyncio.ensure_future(waiting.answer())
        done, _ = await asyncio.wait((answer,), timeout=0.3)
        assert not done
        await told.source_started()
        assert waiting.named(await answer) == [told.id]


# Empty files


async def test_empty_content() -> None:
    """Nothing to fetch: an answer of its own, then started and finished are taken."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        answer = await peer.asked(length=0)
        assert peer.understood(answer) == EmptyTask()
        await peer.started()
        await peer.finished()
        stat = await s.stat()
        assert (stat.content_length, stat.size_scope) == (0, common_pb2.EMPTY)
        assert stat.has_available_peer
        assert not stat.pieces


async def test_an_empty_file_is_announced_likewise() -> None:
    """A holder of nothing: empty answer, back-to-source started and finished are taken."""
    async with swarm() as s:
        await s.hosts("a")
        peer = s.peer("a")
        answer = await peer.asked(length=0, need_back_to_source=True)
        assert peer.understood(answer) == EmptyTask()
        await peer.source_started()
        await peer.source_finished()
        assert (await s.stat()).has_available_peer


# Seeds


async def test_a_seed_fetches_and_the_peer_gets_it() -> None:
    """One seed, one host: the seed is asked, registers, starts; the host gets it as parent."""
    async with swarm() as s, seed(s, "seed") as daemon:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(output_path="/out", request_header={"k": "v"}, tag="x", prefetch=True)
        request = await asyncio.wait_for(daemon.requests.get(), LIMIT)
        assert request.need_back_to_source
        assert (request.url, request.tag) == ("http://origin/f", "x")
        assert dict(request.request_header) == {"k": "v"}
        daemon.release.set()
        answer = await peer.parents()
        assert daemon.peer is not None
        assert answer == {daemon.peer.id}
        await peer.started()
        await peer.finished()
        assert (await s.stat()).state == "Succeeded"


async def test_a_seed_is_asked_once() -> None:
    """Ten peers of a cold task: one call to the seed, and all get it as parent."""
    async with swarm() as s, seed(s, "seed") as daemon:
        await s.hosts(*(f"h{n}" for n in range(10)))
        peers = [s.peer(f"h{n}") for n in range(10)]
        await asyncio.gather(*(peer.register() for peer in peers))
        daemon.release.set()
        answers = await asyncio.gather(*(peer.answer() for peer in peers))
        assert daemon.peer is not None
        for peer, answer in zip(peers, answers, strict=True):
            assert peer.named(answer)[0] == daemon.peer.id  # those after it are partners
        assert daemon.requests.qsize() == 1


async def test_a_range_is_passed_to_the_seed() -> None:
    """Only what the peer wants is fetched."""
    async with swarm() as s, seed(s, "seed") as daemon:
        await s.hosts("a")
        await s.peer("a").register(range=common_pb2.Range(start=5, length=6))
        request = await asyncio.wait_for(daemon.requests.get(), LIMIT)
        assert request.range == ByteRange(5, 6)


async def test_a_seed_that_cannot_be_reached_is_passed_over() -> None:
    """The next seed on the ring is asked; when none answers, the peer goes itself."""
    async with swarm() as s:
        await s.hosts("a")
        await s.host("dead1", port=1, type=1)
        await s.host("dead2", port=2, type=1)
        peer = s.peer("a")
        await peer.register()
        await peer.to_source()


async def test_the_next_seed_is_asked() -> None:
    """A dead seed and a live one: whichever comes first, the live one fetches."""
    async with swarm() as s, seed(s, "live") as daemon:
        daemon.release.set()
        await s.host("dead", port=1, type=1)
        await s.hosts("a")
        for name in ("t1", "t2", "t3", "t4", "t5", "t6"):
            await s.peer("a", name).register()
            await asyncio.wait_for(daemon.requests.get(), LIMIT)


async def test_a_seed_that_says_it_is_done_and_is_not_is_left_alone() -> None:
    """Its answer ends well, and nobody holds the task: the peer goes itself, no one asks again."""
    async with swarm() as s, seed(s, "seed") as daemon:
        daemon.says_only = True
        await s.hosts("a", "b")
        first = s.peer("a")
        await first.register()
        await first.to_source()
        await first.source_failed()
        second = s.peer("b")
        await second.register()
        await second.to_source()
        assert daemon.requests.qsize() == 1


async def test_a_seed_without_room_for_one_task_is_asked_for_others() -> None:
    """It is full, not dead."""
    async with swarm() as s, seed(s, "seed") as daemon:
        daemon.fail_with = grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", None
        await s.hosts("a")
        big = s.peer("a", "big")
        await big.register()
        await big.to_source()
        daemon.fail_with = None
        daemon.release.set()
        small = s.peer("a")
        await small.register()
        assert len(await small.parents()) == 1
        assert daemon.requests.qsize() == 2


async def test_an_origin_that_failed_the_seed_is_left_to_the_peer() -> None:
    """The seed's credentials are its own: the peer is sent, and the seed not asked again."""
    async with swarm() as s, seed(s, "seed") as daemon:
        details = json.dumps({"message": "403 Forbidden", "header": {}, "status_code": 403})
        daemon.fail_with = grpc.StatusCode.INTERNAL, "403 Forbidden", details.encode()
        await s.hosts("a", "b")
        first = s.peer("a")
        await first.register()
        await first.to_source()
        await first.source_started()
        await first.source_failed()
        second = s.peer("b")
        await second.register()
        await second.to_source()
        assert daemon.requests.qsize() == 1


async def test_a_stock_seed_is_never_asked_for_a_cache_task() -> None:
    """It would end itself."""
    async with swarm() as s, seed(s, "stock", version="v2.5.1") as daemon:
        s.kind = Kind.CACHE
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register()
        await peer.to_source()
        assert daemon.requests.empty()


async def test_a_stock_seed_is_asked_for_a_standard_task() -> None:
    """As long as the content is large enough for a stock daemon to tell of it."""
    async with swarm() as s, seed(s, "stock", version="1.5.1") as daemon:
        s.kind = Kind.STANDARD
        await s.hosts("a")
        small = s.peer("a", "small")
        assert is_to_source(await small.asked(length=4 * MIB))
        assert daemon.requests.empty()
        peer = s.peer("a")
        await peer.register(disable_back_to_source=True, digest="crc32:1")
        request = await asyncio.wait_for(daemon.requests.get(), LIMIT)
        assert request == DownloadRequest(
            Kind.STANDARD, "http://origin/f", need_back_to_source=True
        )
        daemon.release.set()
        assert await peer.parents() == {f"{daemon.peer.id}" if daemon.peer else ""}


async def test_a_stock_seed_may_ask_the_origin_before_it_says_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of ours that is silent is passed over; it is given longer."""
    monkeypatch.setattr("pantala.scheduler.hosts._HELLO_LIMIT", 0.1)
    async with (
        swarm() as s,
        seed(s, "ours") as ours,
        seed(s, "stock", version="1.5.1") as stock,
    ):
        s.kind = Kind.STANDARD
        await s.hosts("a")
        for daemon in (ours, stock):
            daemon.says_hello = False
        peer = s.peer("a")
        await peer.register()
        await asyncio.wait_for(stock.requests.get(), LIMIT)
        answer = asyncio.ensure_future(peer.parents())
        done, _ = await asyncio.wait((answer,), timeout=0.3)
        assert not done
        stock.release.set()
        found = await answer
        assert stock.peer is not None
        assert found == {stock.peer.id}


async def test_a_holder_that_only_says_so() -> None:
    """As a stock seed does that is asked for what it has: it fetches nothing, and is a parent."""
    async with swarm() as s:
        s.kind = Kind.STANDARD
        await s.hosts("a", "b")
        holder = s.peer("a")
        assert holder.understood(await holder.asked(metadata_only=True)) == MetadataOnly()
        await holder.started()
        await holder.finished()
        child = s.peer("b")
        await child.register()
        assert await child.parents() == {holder.id}
        assert (await s.stat()).state == "Succeeded"


async def test_kinds_share_no_namespace() -> None:
    """Neither of tasks nor of peers: who has the one has not the other."""
    async with swarm() as s:
        await s.hosts("a", "b")
        for kind in (Kind.STANDARD, Kind.CACHE):
            s.kind = kind
            await s.holder("a")
            assert (await s.stat()).type == kind
        await s.delete_task("a")
        assert not (await s.stat()).has_available_peer
        s.kind = Kind.STANDARD
        assert (await s.stat()).has_available_peer


async def test_a_seeds_own_download_goes_to_the_origin() -> None:
    """A seed does not ask seeds."""
    async with swarm() as s, seed(s, "one") as one, seed(s, "two") as two:
        peer = s.peer("one")
        await peer.register()
        await peer.to_source()
        assert one.requests.empty()
        assert two.requests.empty()


# Priorities


@pytest.mark.parametrize(
    ("priority", "code"),
    [
        (common_pb2.LEVEL1, grpc.StatusCode.FAILED_PRECONDITION),
        (common_pb2.LEVEL2, grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_priorities_that_forbid(
    priority: common_pb2.Priority.ValueType, code: grpc.StatusCode
) -> None:
    """LEVEL1 never downloads; LEVEL2 only what others hold."""
    async with swarm() as s:
        await s.hosts("a", "b")
        peer = s.peer("a")
        await peer.register(priority=priority)
        await peer.ends(code)
        held = await s.holder("b")
        again = s.peer("a")
        await again.register(priority=priority)
        if code is grpc.StatusCode.NOT_FOUND:
            assert await again.parents() == {held.id}
        else:
            await again.ends(code)


async def test_level3_does_not_ask_seeds() -> None:
    """It goes to the origin itself."""
    async with swarm() as s, seed(s, "seed") as daemon:
        await s.hosts("a")
        peer = s.peer("a")
        await peer.register(priority=common_pb2.LEVEL3)
        await peer.to_source()
        assert daemon.requests.empty()


# Rescheduling


async def test_all_known_parents_reported() -> None:
    """When the only parent failed the child, it is sent to the origin at once."""
    async with swarm() as s:
        await s.hosts("a", "b")
        parent = await s.source("a")
        child = await s.child("b")
        await child.piece_failed(parent.id)
        await child.reschedule(parent.id)
        await child.to_source()
        await child.source_started()
        await child.source_finished()


async def test_a_reported_parent_is_not_offered_again() -> None:
    """Of two holders the one that failed is left out, whether it may come back or not."""
    async with swarm() as s:
        await s.hosts("a", "b", "c")
        bad, good = await s.holder("a"), await s.holder("b")
        child = s.peer("c")
        await child.register()
        assert await child.parents() == {bad.id, good.id}
        await child.started()
        await child.piece_failed(bad.id, temporary=False)
        await child.reschedule()
        assert await child.parents() == {good.id}


async def test_three_children_condemn_a_parent() -> None:
    """A parent that failed three different children is offered to nobody."""
    async with swarm() as s:
        await s.hosts(*"abcdz")
        parent = await s.holder("z")
        for name in "abc":
            child = await s.child(name)
            await child.piece_failed(parent.id)
            await child.reschedule(parent.id)
            await child.answer()
            await child.failed()
        fresh = s.peer("d")
        await fresh.register()
        await fresh.to_source()
        assert not (await s.stat()).has_available_peer


async def test_an_evicted_task_is_not_offered() -> None:
    """Deleted by the parent's host: its child asks again and goes to the origin."""
    async with swarm() as s:
        await s.hosts("a", "b")
        parent = await s.holder("a")
        child = await s.child("b")
        await s.delete_task("a")
        assert await s.gone(parent)
        assert not (await s.stat()).has_available_peer
        await child.reschedule(parent.id)
        await child.to_source()


async def test_an_evicted_task_wakes_those_who_wait() -> None:
    """Who waits for a peer whose host drops the task is sent in its place."""
    async with swarm() as s:
        await s.hosts("a", "b")
        told = s.peer("a")
        assert is_to_source(await told.asked())
        waiting = s.peer("b")
        await waiting.register()
        await s.delete_task("a")
        await waiting.to_source()
        await told.source_started()
        await told.ends(grpc.StatusCode.NOT_FOUND)


# Who is no parent


async def test_a_host_that_does_not_share_is_never_offered() -> None:
    """Nor waited for, nor counted as a holder."""
    async with swarm() as s:
        await s.host("selfish", disable_shared=True)
        await s.hosts("a")
        await s.holder("selfish", "held")
        assert not (await s.stat("held")).has_available_peer
        assert is_to_source(await s.peer("selfish", "told").asked())
        for task in ("held", "told"):
            peer = s.peer("a", task)
            await peer.register()
            await peer.to_source()


async def test_the_same_host_is_never_offered() -> None:
    """A daemon does not fetch from itself."""
    async with swarm() as s:
        await s.hosts("a")
        await s.holder("a")
        again = s.peer("a")
        await again.register()
        await again.to_source()


async def test_a_failed_peer_is_no_parent() -> None:
    """It gave up; the next is sent to the origin."""
    async with swarm() as s:
        await s.hosts("a", "b")
        await (await s.source("a")).failed()
        other = s.peer("b")
        await other.register()
        await other.to_source()


# Ranges


async def test_a_part_is_offered_but_does_not_stand_in_the_way() -> None:
    """A holder of a range is offered for the whole; when that did not help: the origin."""
    async with swarm() as s:
        await s.hosts("a", "b", "c")
        part = await s.holder("a", range=common_pb2.Range(start=0, length=4 * MIB))
        whole = s.peer("b")
        await whole.register()
        assert await whole.parents() == {part.id}
        await whole.started()
        await whole.reschedule(part.id)
        await whole.to_source()
        assert (await s.stat()).state == "Running"
        within = s.peer("c")
        await within.register(range=common_pb2.Range(start=MIB, length=MIB))
        assert part.id in await within.parents()
