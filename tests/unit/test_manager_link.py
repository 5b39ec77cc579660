"""scheduler/manager.py: a manager that is told of a scheduler, over real gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from pantala.model.cluster import Application, ClusterWishes, UrlPriority
from pantala.pb import common_pb2, manager_pb2
from pantala.scheduler import manager as under_test
from pantala.scheduler.config import Database, Sqlite, load
from pantala.scheduler.manager import ManagerLink
from pantala.testing import inside
from pantala.testing.cluster import PATIENCE
from pantala.testing.manager_server import ManagerServer


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagerServer]:
    """One that is up, and called again soon when it was away."""
    monkeypatch.setattr(under_test, "_BACKOFF", (0.05, 0.2))
    with ManagerServer() as manager:
        yield manager


def settings(directory: Path, manager: ManagerServer, **more: object) -> dict[str, Any]:
    """Of a scheduler of that manager's, with ``__`` for a dot."""
    return {
        "manager__addr": manager.address,
        "manager__schedulerClusterID": 3,
        "manager__keepAlive__interval": "50ms",
        "server__advertiseIP": "127.0.0.1",
        "server__host": "here",
        "database__sqlite__path": str(directory / "s.db"),
        **more,
    }


def link(directory: Path, manager: ManagerServer, **more: object) -> ManagerLink:
    """The end of it that speaks."""
    given = settings(directory, manager, server__port=8002, **more)
    config = load(None, {key.replace("__", "."): value for key, value in given.items()})
    return ManagerLink(manager.address, config, Random(1))


def wants(manager: ManagerServer, **config: object) -> None:
    """Have the cluster's configuration."""
    manager.cluster(3, config=config, client_config={"load_limit": 7})


async def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  what is waited for is in another thread
            await asyncio.sleep(0.01)


async def test_it_is_told_of_the_scheduler(tmp_path: Path, manager: ManagerServer) -> None:
    """Where it is and what it does; and that it lives, until it does not."""
    more = {"host__idc": "i", "host__location": "l"}
    async with inside.scheduler(**settings(tmp_path, manager, **more)) as scheduler:
        await until(lambda: len(manager.requests("KeepAlive")) > 2)
        told = manager.requests("UpdateScheduler")[-1]
        assert told == manager_pb2.UpdateSchedulerRequest(
            source_type=manager_pb2.SCHEDULER_SOURCE,
            hostname="here",
            ip="127.0.0.1",
            port=scheduler.port,
            idc="i",
            location="l",
            scheduler_cluster_id=3,
            features=["schedule"],
            config=b'{"manager_keep_alive_interval": 50000000}',
        )
        (row,) = manager.schedulers
        assert (row.state, row.port) == ("active", scheduler.port)
        word = manager.requests("KeepAlive")[0]
        assert word == manager_pb2.KeepAliveRequest(
            source_type=manager_pb2.SCHEDULER_SOURCE, hostname="here", ip="127.0.0.1", cluster_id=3
        )
    await until(lambda: row.state == "inactive")


async def test_another_port_for_daemons(tmp_path: Path, manager: ManagerServer) -> None:
    """Such as that of whoever passes connections on."""
    async with inside.scheduler(**settings(tmp_path, manager, server__advertisePort=9)):
        await until(lambda: manager.requests("KeepAlive"))
        assert {each.port for each in manager.requests("UpdateScheduler")} == {9}


async def test_it_comes_back(tmp_path: Path, manager: ManagerServer) -> None:
    """It is told anew, and asked at once what it wants; that it was away is said once."""
    manager.stop()
    with capture_logs() as logs:
        async with inside.scheduler(**settings(tmp_path, manager)) as scheduler:
            assert scheduler._world.limits.candidates == 3
            await asyncio.sleep(0.3)  # it has been called more than once
            for limit in (4, 5):
                wants(manager, candidate_parent_limit=limit)
                manager.start()
                await until(partial(lambda n: scheduler._world.limits.candidates == n, limit))
                await until(lambda: manager.schedulers[0].state == "active")
                manager.stop()
    loud = [(log["event"], log["what"]) for log in logs if log["log_level"] == "warning"]
    assert loud.count(("no good answer of the manager", "keep alive")) <= 3
    assert loud[0] == ("no good answer of the manager", "what is wanted of the cluster")
    assert {event for event, _ in loud} == {"no good answer of the manager"}


async def test_what_is_wanted(tmp_path: Path, manager: ManagerServer) -> None:
    """Of three messages' JSON, and of applications; all of it is written down."""
    wants(manager, candidate_parent_limit=4, filter_parent_limit=20, job_rate_limit=0)
    manager.add(8002, 3)
    manager.schedulers[0].hostname = "here"
    seed = manager_pb2.SeedPeer(hostname="s")
    seed.seed_peer_cluster.config = json.dumps({"load_limit": 99}).encode()
    manager.schedulers[0].seed_peers.append(seed)
    level = common_pb2.Priority
    manager.applications.append(
        manager_pb2.Application(
            id=7,
            name="a",
            priority=manager_pb2.ApplicationPriority(
                value=level.LEVEL3,
                urls=[manager_pb2.URLPriority(regex="x", value=level.LEVEL1)],
            ),
        )
    )
    manager.applications.append(manager_pb2.Application(name="b"))
    expected = ClusterWishes(
        applications=(
            Application("a", 7, priority=3, urls=(UrlPriority("x", 1),)),
            Application("b"),
        ),
        candidate_parent_limit=4,
        filter_parent_limit=20,
        load_limit=7,
        seed_load_limit=99,
    )
    assert await link(tmp_path, manager).read() == expected
    kept = tmp_path / "scheduler-manager.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    manager.stop()
    assert await link(tmp_path, manager).read() == expected
    assert await link(tmp_path, manager, server__host="other").read() == ClusterWishes()
    assert await link(tmp_path / "new", manager).read() == ClusterWishes()
    kept.write_text("{")
    assert await link(tmp_path, manager).read() == ClusterWishes()
    whose = {"manager": manager.address, "scheduler_cluster_id": 3, "hostname": "here"}
    kept.write_text(json.dumps({"of": whose, "answer": {"applications": 3}}))
    assert await link(tmp_path, manager).read() == ClusterWishes()


async def test_each_worker_remembers(tmp_path: Path, manager: ManagerServer) -> None:
    """To a manager each is a scheduler of its own; none writes over what another was told."""
    wants(manager, candidate_parent_limit=4)
    given = settings(tmp_path, manager, server__port=8002, server__workers=2)
    config = load(None, {key.replace("__", "."): value for key, value in given.items()})
    workers = [config.of_worker(number, 0, 0) for number in range(2)]
    links = [ManagerLink(manager.address, each, Random(1)) for each in workers]
    wanted = [await each.read() for each in links]
    assert [each.candidate_parent_limit for each in wanted] == [4, 4]
    manager.stop()
    again = [ManagerLink(manager.address, each, Random(1)) for each in workers]
    assert [await each.read() for each in again] == wanted


@pytest.mark.parametrize("old", [False, True])
async def test_without_applications(tmp_path: Path, manager: ManagerServer, old: bool) -> None:  # noqa: FBT001  a parameter of the test
    """A manager that has none says that it has not found any; an old one knows no such method."""
    wants(manager, candidate_parent_limit=4)
    if old:
        manager.failing["ListApplications"] = grpc.StatusCode.UNIMPLEMENTED
    assert (await link(tmp_path, manager).read()).candidate_parent_limit == 4


@pytest.mark.parametrize(
    "config", [b"{", b"[]", b"\xff", b'{"candidate_parent_limit": 1000}', b"[" * 9999]
)
async def test_garbage(tmp_path: Path, manager: ManagerServer, config: bytes) -> None:
    """What was wanted last holds, here and on the disk; said once."""
    wants(manager, candidate_parent_limit=4)
    one = link(tmp_path, manager)
    before = await one.read()
    manager.cluster(3, config=config)
    with capture_logs() as logs:
        assert await one.read() == before
        assert await one.read() == before
    (log,) = logs
    assert "schedulerclusterconfig" in log["why"].lower().replace("_", "")
    assert await link(tmp_path, manager).read() == before


async def test_without_a_place_to_write(manager: ManagerServer) -> None:
    """It asks all the same."""
    wants(manager, candidate_parent_limit=4)
    nowhere = Database(sqlite=Sqlite(path=None))
    config = load(None, {"server.host": "here", "manager.schedulerClusterID": 3})
    config = config.model_copy(update={"database": nowhere})
    one = ManagerLink(manager.address, config, Random(1))
    assert (await one.read()).candidate_parent_limit == 4
    manager.stop()
    again = ManagerLink(manager.address, config, Random(1))
    assert await again.read() == ClusterWishes()


@pytest.mark.parametrize(
    ("code", "anew"), [(grpc.StatusCode.UNAVAILABLE, True), (grpc.StatusCode.INTERNAL, False)]
)
async def test_a_stream_into_the_void(
    tmp_path: Path,
    manager: ManagerServer,
    code: grpc.StatusCode,
    anew: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    """A machine that lost its power ends no stream: where it does not answer, one is begun anew."""
    one = link(tmp_path, manager)
    await one.keep_alive()
    manager.failing["GetScheduler"] = code
    await one.read()
    before = len(manager.requests("UpdateScheduler"))
    await one.keep_alive()
    await one.keep_alive()
    assert len(manager.requests("UpdateScheduler")) == before + anew
    await until(lambda: len(manager.requests("KeepAlive")) == 3)
    await one.close()


async def test_pauses_grow(
    tmp_path: Path, manager: ManagerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a limit, and differ from one scheduler to the next."""
    manager.stop()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(under_test, "_BACKOFF", (1.0, 60.0))
    one: Any = link(tmp_path, manager)
    with capture_logs():
        for _ in range(10):
            await one.keep_alive()
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "sleep", sleep)
                await one.rest()
    for number, pause in enumerate(slept):
        whole = min(2.0**number, 60.0)
        assert whole / 2 <= pause <= whole * 1.5
    assert len(set(slept)) == 10
