"""Several schedulers that share a Redis, or a file; and Redis gone, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pantala.scheduler.app import Scheduler
from pantala.testing.announce import refusal, until
from pantala.testing.inside import scheduler
from pantala.testing.keeper import Keeper, parents_of, until_kept
from pantala.testing.redis_server import RedisServer
from pantala.testing.stage import task_id

#: So that a test need not wait.
QUICK: dict[str, Any] = {
    "scheduler__gc__hostGCInterval": "100ms",
    "scheduler__gc__replicaInterval": "100ms",
    "scheduler__gc__replicaGrace": "500ms",
}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Of the test alone, with a password."""
    with RedisServer(tmp_path, "--requirepass", "sesame") as running:
        yield running


def at(redis: RedisServer) -> dict[str, Any]:
    """The settings that say so."""
    return {"database__redis__addrs": [redis.address], "database__redis__password": "sesame"}


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where they have their rows, as settings: each sort of place."""
    if request.param == "redis":
        return at(request.getfixturevalue("redis"))
    return {"database__sqlite__path": str(tmp_path / "rows.db")}


@asynccontextmanager
async def sharing(place: dict[str, Any], **settings: Any) -> AsyncIterator[Scheduler]:
    """A scheduler that has its rows in *place*."""
    async with scheduler(**(place | QUICK | settings)) as made:
        yield made


async def test_what_one_knows_the_other_knows(place: dict[str, Any]) -> None:
    """A task that was imported at one is fetched, counted and deleted at the other."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(sharing(place)) for _ in range(2)]
        ports = [one.port, two.port]
        a, b, c = [await stack.enter_async_context(Keeper(name, ports)) for name in "abc"]
        begun = await a.begins("t", replicas=1)
        exists = grpc.StatusCode.ALREADY_EXISTS
        assert await refusal(b.begins("t", scheduler=1)) is exists
        await a.ends("t", begun, scheduler=1)
        stream, answer = await b.registers("t", scheduler=1)
        assert parents_of(answer) == {begun}
        stream.cancel()
        held = await c.fetches("t", scheduler=0)
        stream, answer = await b.registers("t", scheduler=1)
        assert parents_of(answer) == {begun, held}
        stream.cancel()
        await c.delete("t")
        assert await refusal(a.stat("t", scheduler=1)) is grpc.StatusCode.NOT_FOUND
        assert await refusal(b.fetches("t", scheduler=1)) is grpc.StatusCode.NOT_FOUND


async def test_a_download_of_what_was_deleted_at_another(place: dict[str, Any]) -> None:
    """It ends with an error, and is no copy of what was imported since by the same id."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(sharing(place)) for _ in range(2)]
        a, b = [
            await stack.enter_async_context(Keeper(name, [one.port, two.port])) for name in "ab"
        ]
        await a.imports("t", replicas=1)
        stream, _ = await b.registers("t", scheduler=1)
        await stream.say("download_persistent_cache_peer_started_request")
        await a.delete("t")
        await a.imports("t", replicas=1)
        await stream.say("download_persistent_cache_peer_finished_request")
        assert await refusal(stream.ended()) is grpc.StatusCode.NOT_FOUND
        assert (await a.stat("t")).current_replica_count == 1


async def test_two_schedulers_fetch_a_replica_once(place: dict[str, Any]) -> None:
    """Both see that one is missing; one works at it."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(sharing(place)) for _ in range(3)]
        ports = [each.port for each in made]
        keepers = [
            await stack.enter_async_context(Keeper(name, ports, interval=1.0)) for name in "abcdef"
        ]
        for number in range(5):
            await keepers[0].imports(f"t{number}", replicas=2, scheduler=number % 3)
        for number in range(5):
            await until_kept(
                keepers[0], f"t{number}", 2, scheduler=(number + 1) % 3, may_be_away=True
            )
        await asyncio.sleep(0.5)
        asked = sorted(task for keeper in keepers for task in fetched(keeper))
        assert asked == sorted(task_id(f"t{number}") for number in range(5))

        lost = max(keepers[1:], key=lambda keeper: len(keeper.held))
        had = set(lost.held)
        await lost.kill()
        for number in range(5):
            await until_replaced(keepers[0], f"t{number}", lost, keepers)
        await asyncio.sleep(0.5)
        later = sorted(t for k in keepers if k is not lost for t in fetched(k) if t in had)
        assert len(later) == len(had), "each of them was fetched once, by one other"


def fetched(keeper: Keeper) -> list[str]:
    """Tasks that a host was asked to fetch; to keep what it has, each scheduler asks it once."""
    return [task for what, task in keeper.asked if what == "download"]


async def until_replaced(asker: Keeper, task: str, lost: Keeper, keepers: list[Keeper]) -> None:
    """Two of those that are alive keep a task."""

    async def replaced() -> bool:
        living = [keeper for keeper in keepers if keeper is not lost]
        return sum(task_id(task) in keeper.held for keeper in living) == 2

    await until(replaced)
    await until_kept(asker, task, 2, may_be_away=True)


async def test_a_scheduler_dies_while_a_replica_is_fetched(place: dict[str, Any]) -> None:
    """Another one sees to it, as soon as nobody else can be doing so."""
    async with AsyncExitStack() as stack:
        one = sharing(place)
        two = await stack.enter_async_context(sharing(place))
        first = await one.__aenter__()
        ports = [first.port, two.port]
        a, b, c = [
            await stack.enter_async_context(Keeper(name, ports, interval=0.2)) for name in "abc"
        ]
        for keeper in (b, c):
            keeper.release.clear()
        await a.imports("t", replicas=2, scheduler=0)

        async def asked() -> bool:
            return bool(b.asked or c.asked)

        await until(asked)
        await one.__aexit__(None, None, None)
        for keeper in (b, c):
            keeper.registers_at = 1
            keeper.release.set()
        await until_kept(a, "t", 2, scheduler=1, may_be_away=True)


async def test_redis_gone_and_back(redis: RedisServer) -> None:
    """A refusal in words meanwhile, at once; other kinds notice nothing; then all goes on."""
    async with AsyncExitStack() as stack:
        patient = sharing(at(redis), scheduler__gc__replicaGrace="60s")
        made = await stack.enter_async_context(patient)
        a, b, c = [
            await stack.enter_async_context(Keeper(name, [made.port], interval=5.0))
            for name in "abc"
        ]
        await a.imports("t", replicas=2)
        await until_kept(a, "t", 2, may_be_away=True)
        begun = await a.begins("u", replicas=1)
        child = c if b.held else b
        stream, _ = await child.registers("t")
        await stream.say("download_persistent_cache_peer_started_request")
        redis.kill()

        unavailable = grpc.StatusCode.UNAVAILABLE
        for call in (a.stat("t"), a.ends("u", begun), a.begins("v"), b.fetches("t"), a.delete("t")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with asyncio.timeout(10):
                    await call
            assert caught.value.code() is unavailable
            assert f"Redis at {redis.address}" in (caught.value.details() or "")
            assert "try again when it is back" in (caught.value.details() or "")
        await stream.say("download_persistent_cache_peer_finished_request")
        assert await refusal(stream.ended()) is unavailable
        await a.announce()
        await asyncio.sleep(1.0)  # turns go by
        assert made._loops.failing() == []

        redis.start()
        await until_kept(a, "t", 2, may_be_away=True)
        assert (await a.ends("u", begun)).state == "Succeeded"

        async def written_down() -> bool:
            return bool((await a.stat("t")).current_replica_count == 3)

        await until(written_down)


async def test_a_scheduler_starts_without_redis(redis: RedisServer) -> None:
    """And has it as soon as it is there."""
    redis.kill()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(sharing(at(redis)))
        a = await stack.enter_async_context(Keeper("a", [made.port]))
        assert await refusal(a.begins("t")) is grpc.StatusCode.UNAVAILABLE
        redis.start()
        assert (await a.imports("t", replicas=1)).state == "Succeeded"
