"""Imported tasks: a scheduler as a real program, and daemons that are played over real gRPC."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from pantala.testing.announce import refusal, until
from pantala.testing.cluster import Cluster, Program
from pantala.testing.keeper import Keeper, until_kept
from pantala.testing.redis_server import RedisServer
from pantala.testing.stage import task_id

#: Seconds that a host may be away: short where one is lost, and longer than a test where none is.
GRACE = 1.0
LONG = 300.0


def start(
    cluster: Cluster, rows: dict[str, object], *, grace: float = LONG, port: int = 0
) -> Program:
    """A scheduler that has its rows there."""
    settings = {
        "scheduler": {
            "gc": {
                "hostGCInterval": "200ms",
                "replicaInterval": "200ms",
                "replicaGrace": f"{grace:g}s",
            }
        },
        "database": rows,
    }
    path = cluster.directory / "scheduler.yaml"
    path.write_text(json.dumps(settings))
    return cluster.scheduler("--config", str(path), port=port)


async def until_known(keeper: Keeper) -> None:
    """The scheduler, started anew, has heard of it."""

    async def known() -> bool:
        return await refusal(keeper.announce()) is None

    await until(known)


async def test_a_holder_is_killed_for_good(cluster: Cluster) -> None:
    """Two replicas on three daemons; the count is restored on the third."""
    rows: dict[str, object] = {"sqlite": {"path": str(cluster.directory / "s.db")}}
    scheduler = start(cluster, rows, grace=GRACE)
    ports = [int(scheduler.ready["port"])]
    async with AsyncExitStack() as stack:
        a, b, c = [
            await stack.enter_async_context(Keeper(name, ports, interval=0.2)) for name in "abc"
        ]
        began = time.monotonic()
        await a.imports("t", replicas=2)
        await until_kept(a, "t", 2, may_be_away=True)
        print(f"two replicas {time.monotonic() - began:.2f} s after the import")  # noqa: T201  what it took
        lost, other = (b, c) if b.held else (c, b)
        began = time.monotonic()
        await lost.kill()

        async def restored() -> bool:
            return other.held == {task_id("t"): True}

        await until(restored)
        took = time.monotonic() - began
        print(f"restored after {took:.2f} s, of which {GRACE} s are grace")  # noqa: T201  what it took
        await until_kept(a, "t", 2, may_be_away=True)


async def test_a_scheduler_is_killed_in_the_middle_of_an_import(cluster: Cluster) -> None:
    """It knows of it when it is back; what was kept is kept; then the import ends."""
    rows: dict[str, object] = {"sqlite": {"path": str(cluster.directory / "s.db")}}
    scheduler = start(cluster, rows)
    port = int(scheduler.ready["port"])
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(Keeper(name, [port])) for name in "ab"]
        await a.imports("kept", replicas=2)
        await until_kept(a, "kept", 2, may_be_away=True)
        begun = await a.begins("t", replicas=2)
        scheduler.kill()
        assert await refusal(a.stat("t")) is grpc.StatusCode.UNAVAILABLE
        await asyncio.to_thread(start, cluster, rows, port=port)
        await until_known(a)
        await until_known(b)
        assert (await a.stat("t")).state == "Uploading"
        assert (await a.stat("kept")).current_persistent_replica_count == 2
        assert (await a.ends("t", begun)).state == "Succeeded"
        await until_kept(a, "t", 2, may_be_away=True)
        assert set(b.held) == {task_id("kept"), task_id("t")}
        asked = ("download", "kept"), ("update", "kept"), ("download", "t")
        assert b.asked == [(what, task_id(name)) for what, name in asked]


async def test_killed_again_and_again(cluster: Cluster) -> None:
    """Whatever moment it is: no task that was imported is lost, none has too few replicas."""
    rows: dict[str, object] = {"sqlite": {"path": str(cluster.directory / "s.db")}}
    scheduler = start(cluster, rows)
    port = int(scheduler.ready["port"])
    async with AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(Keeper(name, [port])) for name in "abc"]
        imported: list[str] = []
        for number in range(6):
            name = f"t{number}"
            work = asyncio.ensure_future(a.imports(name, replicas=2))
            await asyncio.sleep(0.004 * number)
            scheduler.kill()
            if await refusal(work) is None:
                imported.append(name)
            scheduler = await asyncio.to_thread(start, cluster, rows, port=port)
            for keeper in (a, b, c):
                await until_known(keeper)
            if name not in imported and await refusal(a.imports_after_all(name)) is None:
                imported.append(name)
        for name in imported:
            assert (await a.stat(name)).state == "Succeeded"
            await until_at_least(a, name, 2)
        assert len(imported) >= 5
        assert scheduler.errors == []


async def until_at_least(asker: Keeper, task: str, number: int) -> None:
    """So many hosts keep a task, or more."""

    async def kept() -> bool:
        return bool((await asker.stat(task)).current_persistent_replica_count >= number)

    await until(kept)


async def test_two_schedulers_share_a_redis(cluster: Cluster, tmp_path: Path) -> None:
    """One imports at the first, which is killed; the second knows all, and repairs."""
    with RedisServer(tmp_path) as redis:
        rows: dict[str, object] = {"redis": {"addrs": [redis.address]}}
        first, second = (start(cluster, rows, grace=GRACE) for _ in range(2))
        ports = [int(each.ready["port"]) for each in (first, second)]
        async with AsyncExitStack() as stack:
            a, b, c = [
                await stack.enter_async_context(Keeper(name, ports, interval=0.2)) for name in "abc"
            ]
            begun = await a.begins("t", replicas=2)
            first.kill()
            for keeper in (a, b, c):
                keeper.registers_at = 1
            await a.ends("t", begun, scheduler=1)
            await until_kept(a, "t", 2, scheduler=1, may_be_away=True)
            lost, other = (b, c) if b.held else (c, b)
            await lost.kill()

            async def restored() -> bool:
                return other.held == {task_id("t"): True}

            await until(restored)


async def test_a_damaged_file(cluster: Cluster) -> None:
    """Said in a line, moved aside; what was imported can be imported again."""
    path = cluster.directory / "s.db"
    await asyncio.to_thread(path.write_bytes, b"no database" * 1000)
    scheduler = start(cluster, {"sqlite": {"path": str(path)}})
    async with Keeper("a", [int(scheduler.ready["port"])]) as a:
        assert (await a.imports("t", replicas=1)).state == "Succeeded"
    event = "records of imported tasks are damaged; moved aside, starting without any"
    assert scheduler.wait_for(event)["path"] == str(path)
    assert scheduler.errors == []


async def test_two_schedulers_of_one_file(cluster: Cluster) -> None:
    """They know the same."""
    rows: dict[str, object] = {"sqlite": {"path": str(cluster.directory / "s.db")}}
    one = start(cluster, rows)
    async with Keeper("a", [int(one.ready["port"])]) as a:
        await a.imports("t", replicas=1)
        two = start(cluster, rows)
        async with Keeper("b", [int(two.ready["port"])]) as b:
            assert (await b.stat("t")).state == "Succeeded"
            await b.imports("u", replicas=1)
            assert (await a.stat("u")).state == "Succeeded"
        assert not one.errors + two.errors
