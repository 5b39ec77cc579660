"""scheduler/swarm.py: a task is deleted wherever it is, asked for on one host by ``dfctl``."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pantala.cli import dfctl
from pantala.daemon.app import Daemon
from pantala.scheduler.app import Scheduler
from pantala.testing import inside
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

GONE = "f" * 64


@pytest.fixture
async def scheduler(stack: AsyncExitStack) -> Scheduler:
    """One for all."""
    return await stack.enter_async_context(inside.scheduler())


@pytest.fixture
async def daemons(stack: AsyncExitStack, scheduler: Scheduler, tmp_path: Path) -> list[Daemon]:
    """Three of them."""
    return [
        await stack.enter_async_context(inside.daemon(tmp_path, name, port=scheduler.port))
        for name in "abc"
    ]


async def rm(daemon: Daemon, *arguments: str) -> int:
    """What ``dfctl cache-task rm`` ends with."""
    path = str(daemon.config.download.server.socket_path)
    argv = ["cache-task", "rm", "-e", path, *arguments]
    return await asyncio.to_thread(dfctl.run, argv, {})


async def fetch(origin: Origin, *daemons: Daemon) -> str:
    """Have them download; the task's id."""
    origin.put("/f", Pattern(1000))
    for daemon in daemons:
        await inside.get(daemon, origin.url("/f"))
    (task_id,) = {holding.id for daemon in daemons for holding in daemon.stores}
    return task_id


def held(daemons: list[Daemon]) -> list[bool]:
    """Which of them hold anything."""
    return [any(True for _ in daemon.stores) for daemon in daemons]


async def test_everywhere(
    daemons: list[Daemon],
    scheduler: Scheduler,
    origin: Origin,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also when the host that is asked does not hold it itself."""
    for asked in (0, 2):
        task_id = await fetch(origin, *daemons[:2])
        assert await rm(daemons[asked], "--swarm", task_id) == 0
        assert capsys.readouterr().out.endswith(f"removed {task_id} from 2 hosts\n")
        assert held(daemons) == [False, False, False]
        assert not scheduler._world.peers
    assert await rm(daemons[0], "--swarm", task_id) == 1
    assert capsys.readouterr().err.endswith(f"task {task_id} not found\n")


async def test_here_alone(
    daemons: list[Daemon], origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is without the flag."""
    task_id = await fetch(origin, *daemons)
    assert await rm(daemons[0], task_id, "--json") == 0
    assert held(daemons) == [False, True, True]
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{\n") :]) == {"removed": [task_id], "failed": {}}


async def test_one_that_does_not_answer(
    daemons: list[Daemon],
    scheduler: Scheduler,
    origin: Origin,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is named, the others have deleted the task, and it is known as a holder still."""
    task_id = await fetch(origin, *daemons)
    host = scheduler._world.hosts[daemons[1].config.host_id]
    host.facts = replace(host.facts, port=1)
    assert await rm(daemons[0], "--swarm", task_id, "--json") == 1
    assert held(daemons) == [False, True, False]
    out = capsys.readouterr().out
    (why,) = json.loads(out[out.index("{\n") :])["failed"].values()
    assert "removed from 2 hosts, not from 1" in why
    assert daemons[1].config.host_id in why
    assert {peer.host.id for peer in scheduler._world.peers.values()} == {host.id}


async def test_a_scheduler_that_has_forgotten_us(
    daemons: list[Daemon], scheduler: Scheduler, origin: Origin
) -> None:
    """It is told who asks; what others hold it learns from them in time."""
    task_id = await fetch(origin, *daemons[:1])
    for host in list(scheduler._world.hosts.values()):
        scheduler._world.remove_host(host)
    assert await rm(daemons[0], "--swarm", task_id) == 0
    assert held(daemons) == [False, False, False]


async def test_without_a_scheduler(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows who else has it, so nothing is deleted."""
    lone = await stack.enter_async_context(inside.daemon(tmp_path))
    task_id = await fetch(origin, lone)
    assert await rm(lone, "--swarm", task_id) == 1
    assert held([lone]) == [True]
    assert "no scheduler is available that knows who else holds the task" in capsys.readouterr().err


async def test_a_kind_without_a_method_of_the_contract(daemons: list[Daemon]) -> None:
    """The daemon's own service deletes it, or says that it is not here."""
    path = str(daemons[0].config.download.server.socket_path)
    argv = ["persistent-cache-task", "rm", "-e", path, GONE]
    assert await asyncio.to_thread(dfctl.run, argv, {}) == 1
