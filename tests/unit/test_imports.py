"""scheduler/imports.py and replication.py: a scheduler, and daemons played over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pantala import BUILD_VERSION
from pantala.pb import common_pb2, scheduler_pb2
from pantala.scheduler.app import Scheduler
from pantala.testing.announce import refusal, until
from pantala.testing.inside import scheduler
from pantala.testing.keeper import Keeper, parents_of, until_kept
from pantala.testing.stage import MIB, task_id

Made = Callable[..., Awaitable[Keeper]]

#: So that a test need not wait: hosts are swept, copies are counted all the time.
QUICK: dict[str, Any] = {
    "scheduler__gc__hostGCInterval": "100ms",
    "scheduler__gc__replicaInterval": "100ms",
    "scheduler__gc__replicaGrace": "500ms",
}


@asynccontextmanager
async def swarm(path: Path, **settings: Any) -> AsyncIterator[tuple[Scheduler, Made]]:
    """A scheduler with its rows in *path*, and a way to make daemons."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(
            scheduler(**({"database__sqlite__path": str(path / "rows.db")} | QUICK | settings))
        )

        async def keeper(name: str, **terms: Any) -> Keeper:
            return await stack.enter_async_context(Keeper(name, [made.port], **terms))

        yield made, keeper


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Made]:
    """A way to make daemons of one scheduler."""
    async with swarm(tmp_path) as (_, keeper):
        yield keeper


async def refused(call: Awaitable[Any], code: grpc.StatusCode, words: str) -> None:
    """*call* is answered like this."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code, caught.value.details()
    assert words in (caught.value.details() or "")


async def test_an_import_and_its_replicas(make: Made) -> None:
    """The importer has the first; of two others one is asked, fetches, and is the second."""
    a, b, c = [await make(name) for name in "abc"]
    begun = await a.begins("t", replicas=2, tag="v1")
    said = await a.stat("t")
    assert (said.state, said.current_replica_count) == ("Uploading", 0)
    done = await a.ends("t", begun)
    assert (done.state, done.persistent_replica_count) == ("Succeeded", 2)
    assert (done.current_persistent_replica_count, done.current_replica_count) == (1, 1)
    await until_kept(a, "t", 2)

    (holder,) = [each for each in (b, c) if each.held]
    assert holder.held == {task_id("t"): True}
    assert [*b.asked, *c.asked] == [("download", task_id("t"))]
    said = await a.stat("t")
    assert (said.tag, said.piece_count, said.content_length) == ("v1", 3, 10 * MIB)
    assert (said.piece_length, said.ttl.seconds, said.id) == (4 * MIB, 3600, task_id("t"))


async def test_a_download_gets_holders_as_parents(make: Made) -> None:
    """Its copy is none that is kept, but counts as a copy."""
    a, b = await make("a"), await make("b")
    begun = await a.begins("t", replicas=1)
    await a.ends("t", begun)
    stream, answer = await b.registers("t")
    assert parents_of(answer) == {begun}
    (parent,) = answer.normal_persistent_cache_task_response.candidate_cache_parents
    assert (parent.host.id, parent.state) == ("a", "Succeeded")
    await stream.say("download_persistent_cache_peer_started_request")
    await stream.say("download_persistent_cache_peer_finished_request")
    await stream.ended()
    said = await a.stat("t")
    assert (said.current_persistent_replica_count, said.current_replica_count) == (1, 2)
    request = scheduler_pb2.StatPersistentCachePeerRequest(**b.ids("t", stream.peer))
    peer = await a.stub().StatPersistentCachePeer(request)
    assert (peer.state, peer.persistent, peer.host.id, peer.task.id) == (
        *("Succeeded", False, "b", task_id("t")),
    )


async def test_an_empty_file(make: Made) -> None:
    """There is nothing to fetch, and all the same it is told, and kept."""
    a, b = await make("a"), await make("b")
    await a.imports("t", replicas=2, length=0)
    await until_kept(a, "t", 2)
    assert b.held == {task_id("t"): True}


async def test_a_copy_that_is_there_is_kept_instead_of_fetching(make: Made) -> None:
    """Its host is asked to keep it."""
    a, b = await make("a"), await make("b", disk_free=0)
    await a.imports("t", replicas=2)
    await b.fetches("t")
    await until_kept(a, "t", 1)
    c = await make("c")
    await until_kept(a, "t", 2)
    assert (b.held, c.held) in [
        ({task_id("t"): False}, {task_id("t"): True}),
        ({task_id("t"): True}, {}),
    ]


async def test_a_host_that_is_lost_is_replaced(make: Made) -> None:
    """And when it is back, it still has what it had."""
    a, b, c = [await make(name) for name in "abc"]
    await a.imports("t", replicas=2)
    await until_kept(a, "t", 2)
    first, second = (b, c) if b.held else (c, b)
    await first.kill()

    async def replaced() -> bool:
        return bool(second.held)

    await until(replaced)
    await until_kept(a, "t", 2)
    await first.start()
    await until_kept(a, "t", 3)


async def test_a_daemon_that_is_started_anew_is_not_replaced(tmp_path: Path) -> None:
    """It is away for less than the grace."""
    async with swarm(tmp_path, scheduler__gc__replicaGrace="30s") as (_, make):
        a, b, c = [await make(name) for name in "abc"]
        await a.imports("t", replicas=2)
        await until_kept(a, "t", 2)
        first, other = (b, c) if b.held else (c, b)
        await first.leave()
        await asyncio.sleep(0.5)  # some turns
        assert (await a.stat("t")).current_persistent_replica_count == 2
        await first.start()
        await asyncio.sleep(0.3)
        assert other.asked == []


async def test_a_host_that_fails_is_not_asked_again_at_once(make: Made) -> None:
    """Another is; and it is told why there are too few."""
    a, b = await make("a"), await make("b")
    b.refuse_with = grpc.StatusCode.UNIMPLEMENTED
    await a.imports("t", replicas=2)

    async def tried() -> bool:
        return bool(b.asked)

    await until(tried)
    await asyncio.sleep(0.5)
    assert len(b.asked) == 1
    c = await make("c")
    await until_kept(a, "t", 2)
    assert c.held


async def test_what_its_host_has_already_is_written_down(make: Made) -> None:
    """A daemon that has all of it fetches nothing, and does not register."""
    a, b = await make("a"), await make("b")
    b.held[task_id("t")] = False
    await a.imports("t", replicas=2)
    await until_kept(a, "t", 2)
    assert b.held == {task_id("t"): True}


async def test_a_download_breaks_off(make: Made) -> None:
    """The peer has failed; a replica that was on the way is asked for again."""
    a, b = await make("a"), await make("b")
    await a.imports("t", replicas=1)
    stream, _ = await b.registers("t", persistent=True)
    await stream.say("download_persistent_cache_peer_started_request")
    stream.cancel()
    request = scheduler_pb2.StatPersistentCachePeerRequest(**b.ids("t", stream.peer))

    async def failed() -> bool:
        return bool((await a.stub().StatPersistentCachePeer(request)).state == "Failed")

    await until(failed)
    assert (await a.stat("t")).current_replica_count == 1
    # It had all of it, but for that its last word was not heard.
    await b.ends("t", stream.peer)
    assert (await a.stat("t")).current_persistent_replica_count == 2
    _, answer = await (await make("c")).registers("t")
    assert stream.peer in parents_of(answer)


async def test_imports_that_are_refused(make: Made) -> None:
    """Each in words that say what is wrong."""
    a, b = await make("a"), await make("b")
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    await refused(a.begins("t", replicas=0), invalid, "persistent_replica_count 0: want 1 to")
    await refused(a.begins("t", ttl=299), invalid, "ttl 299 s: want 300 to 604800")
    await refused(a.begins("t", ttl=604801), invalid, "ttl 604801 s")
    await refused(a.begins("t", piece_length=5), invalid, "piece_length 5")
    await refused(a.begins("t", piece_length=0), invalid, "piece_length")
    await refused(a.begins("t", piece_count=2), invalid, "piece_count 2")
    exists = grpc.StatusCode.ALREADY_EXISTS
    begun = await a.begins("t")
    await refused(b.begins("t"), exists, "host a imports it now")
    await refused(a.begins("u", peer=begun), exists, "choose another id")
    again = await a.begins("t")
    missing = grpc.StatusCode.NOT_FOUND
    await refused(a.ends("t", begun), missing, "not known here")
    await refused(b.ends("t", again), grpc.StatusCode.PERMISSION_DENIED, "of host a")
    await a.ends("t", again)
    await a.ends("t", again)  # its answer may have been lost
    await refused(a.begins("t"), exists, "is here already (Succeeded)")
    await refused(a.ends("t", "nobody"), missing, "nobody")
    await refused(a.stat("other"), missing, "not found")


async def test_a_failed_import_leaves_the_task_failed(make: Made) -> None:
    """Nobody gets it; whoever imports it anew begins afresh."""
    a, b = await make("a"), await make("b")
    begun = await a.begins("t")
    await a.fails("t", begun)
    await a.fails("t", begun)
    assert (await a.stat("t")).state == "Failed"
    await refused(a.ends("t", begun), grpc.StatusCode.NOT_FOUND, "begin anew")
    await refused(
        b.fetches("t"), grpc.StatusCode.FAILED_PRECONDITION, "not here whole: its import is Failed"
    )
    await b.imports("t", replicas=1)
    assert (await a.stat("t")).state == "Succeeded"


async def test_the_host_of_an_import_is_gone(make: Made) -> None:
    """Killed, or started anew: the task has failed."""
    a, b = await make("a"), await make("b")
    await a.begins("t")
    await b.begins("u")
    await a.kill()
    await b.kill()
    await b.start()

    async def both_failed() -> bool:
        states = [(await b.stat(task)).state for task in "tu"]
        return states == ["Failed", "Failed"]

    await until(both_failed)
    await b.imports("t", replicas=1)


@pytest.mark.parametrize("way", ["begun anew", "given up"])
async def test_an_import_ends_while_its_scheduler_is_away(tmp_path: Path, way: str) -> None:
    """By a start of its host, or otherwise, unheard: a scheduler that comes back finds it out."""
    async with swarm(tmp_path) as (first, _):
        a = Keeper("a", [first.port])
        await a.start()
        lost, kept = await a.begins("t"), await a.begins("u")
        port = first.port
    if way == "begun anew":
        await a.kill()
    a.importing.discard(lost)
    async with swarm(tmp_path, port=port) as (_, make):
        if way == "begun anew":
            await a.start()
            a.importing.add(kept)  # whatever it is, it is asked
        await until_known(a)

        async def has_failed() -> bool:
            return bool((await a.stat("t")).state == "Failed")

        await until(has_failed)
        await (await make("b")).imports("t", replicas=1)
        assert (await a.stat("u")).state == "Uploading"
        await a.ends("u", kept)
        await a.kill()


async def test_deleting_a_task(make: Made) -> None:
    """Everywhere, and nobody fetches it again."""
    a, b, c = [await make(name) for name in "abc"]
    await a.imports("t", replicas=3)
    await until_kept(a, "t", 3)
    await c.delete("t")
    assert (a.held, b.held, c.held) == ({}, {}, {})
    assert await refusal(a.stat("t")) is grpc.StatusCode.NOT_FOUND
    assert await refusal(b.fetches("t")) is grpc.StatusCode.NOT_FOUND
    await c.delete("t")
    await asyncio.sleep(0.3)
    assert not any(each.held for each in (a, b, c))


async def test_what_was_asked_of_a_copy_before_it_was_deleted(make: Made) -> None:
    """What comes of it says nothing of a copy of the file that was imported since."""
    a, b, c = [await make(name) for name in "abc"]
    await a.imports("t", replicas=1)
    await b.fetches("t")
    b.release.clear()
    await a.kill()

    async def asked() -> bool:
        return ("update", task_id("t")) in b.asked

    await until(asked)
    await c.delete("t")
    await c.imports("t", replicas=1)
    b.release.set()
    for _ in range(5):
        await asyncio.sleep(0.1)
        assert (await c.stat("t")).current_replica_count == 1


async def test_deleting_a_task_that_is_being_fetched(make: Made) -> None:
    """Who fetches it learns it at the end at the latest."""
    a, b = await make("a"), await make("b")
    await a.imports("t", replicas=1)
    stream, _ = await b.registers("t")
    await stream.say("download_persistent_cache_peer_started_request")
    await a.delete("t")
    await stream.say("download_persistent_cache_peer_finished_request")
    assert await refusal(stream.ended()) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", [BUILD_VERSION, "v2.5.0"])
async def test_deleting_a_peer(make: Made, version: str) -> None:
    """Another host gets the replica; nobody deletes what is another's.

    A stock daemon is told to delete its copy; ours says so because it has.
    """
    a = await make("a", build=common_pb2.Build(git_version=version))
    b, c = [await make(name) for name in "bc"]
    begun = await a.begins("t", replicas=1)
    await a.ends("t", begun)
    await b.fetches("t")
    request = scheduler_pb2.DeletePersistentCachePeerRequest(**a.ids("t", begun))
    assert (
        await refusal(c.stub().DeletePersistentCachePeer(request))
        is grpc.StatusCode.PERMISSION_DENIED
    )
    await a.stub().DeletePersistentCachePeer(request)
    assert bool(a.held) == (version == BUILD_VERSION)
    assert await refusal(a.stub().DeletePersistentCachePeer(request)) is grpc.StatusCode.NOT_FOUND
    await until_kept(b, "t", 1)
    assert b.held == {task_id("t"): True}
    assert b.asked == [("update", task_id("t"))]
    assert c.held == {}


async def test_a_host_that_comes_back_without_its_replica(make: Made) -> None:
    """It is asked for it when it is there again, and is not counted any more."""
    a, b, c = [await make(name) for name in "abc"]
    await a.imports("t", replicas=2)
    await until_kept(a, "t", 2)
    lost, other = (b, c) if b.held else (c, b)
    await lost.kill()
    lost.held.clear()
    lost.asked.clear()
    await lost.start()
    # As a daemon does for its life before.
    await lost.stub().DeleteHost(scheduler_pb2.DeleteHostRequest(host_id=lost.name))
    await lost.announce()

    async def restored() -> bool:
        return other.held == {task_id("t"): True} or lost.held == {task_id("t"): True}

    await until(restored)
    await until_kept(a, "t", 2)
    assert lost.asked[0] == ("update", task_id("t"))


async def test_a_restart_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """What is known is known again; the import goes on, and so does a task that was here."""
    async with swarm(tmp_path) as (first, _):
        a = Keeper("a", [first.port])
        await a.start()
        await a.imports("old", replicas=1)
        begun = await a.begins("t", replicas=2)
        port = first.port
    async with swarm(tmp_path, port=port) as (_, make):
        b = await make("b")
        await until_known(a)
        assert (await a.stat("t")).state == "Uploading"
        await a.ends("t", begun)
        await until_kept(a, "t", 2)
        assert b.held == {task_id("t"): True}
        await b.fetches("old")
        assert (await a.stat("old")).current_replica_count == 2
        await a.kill()


async def until_known(keeper: Keeper) -> None:
    """Its scheduler has heard of it."""

    async def known() -> bool:
        return await refusal(keeper.announce()) is None

    await until(known)


async def test_without_a_place_for_rows(tmp_path: Path) -> None:
    """It is refused in words, once the scheduler is asked; all else works."""
    (tmp_path / "file").touch()
    async with swarm(tmp_path, database__sqlite__path=str(tmp_path / "file" / "x.db")) as (_, make):
        a = await make("a")
        for call in (a.begins("t"), a.stat("t"), a.delete("t"), a.fetches("t")):
            await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "database.sqlite.path")


async def test_reschedule(make: Made) -> None:
    """Parents that are reported are not given again."""
    a, b, c = [await make(name) for name in "abc"]
    begun = await a.begins("t", replicas=1)
    await a.ends("t", begun)
    other = await b.fetches("t")
    stream, answer = await c.registers("t")
    assert parents_of(answer) == {begun, other}
    await stream.say("download_persistent_cache_peer_started_request")
    await stream.say("reschedule_persistent_cache_peer_request", candidate_parents=[{"id": begun}])
    assert parents_of(await stream.answer()) == {other}
    stream.cancel()


async def test_a_holder_that_fails_everybody_is_replaced(make: Made) -> None:
    """It cannot have the content any more, whatever it says."""
    a = await make("a", idc="x")
    b = await make("b", idc="x")
    begun = await a.begins("t", replicas=1)
    await a.ends("t", begun)
    held = await b.fetches("t")
    for name in ("c", "d", "e"):
        child = await make(name, disk_free=0)
        stream, _ = await child.registers("t")
        await stream.say("download_persistent_cache_peer_started_request")
        await stream.say(
            "download_piece_failed_request", piece_number=0, parent_id=begun, temporary=True
        )
        await stream.say("reschedule_persistent_cache_peer_request")
        assert parents_of(await stream.answer()) == {held}
        stream.cancel()

    async def replaced() -> bool:
        return b.held == {task_id("t"): True}

    await until(replaced)
    stream, answer = await (await make("f")).registers("t")
    assert parents_of(answer) == {held}
    stream.cancel()


async def test_metrics_say_how_many_are_missing(tmp_path: Path) -> None:
    """Until there are hosts for them."""
    async with swarm(tmp_path) as (made, make):
        a = await make("a")
        await a.imports("t", replicas=3)
        await make("b")
        await until_kept(a, "t", 2)

        async def one_missing() -> bool:
            return b"dragonfly_scheduler_replicas_missing 1.0" in made._metrics.render()

        await until(one_missing)
        await make("c")
        await until_kept(a, "t", 3)

        async def none_missing() -> bool:
            return b"dragonfly_scheduler_replicas_missing 0.0" in made._metrics.render()

        await until(none_missing)
        assert b"dragonfly_scheduler_replication_total 2.0" in made._metrics.render()
