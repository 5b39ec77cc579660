"""Which hosts hold how much of a task: what is known, what they say, and what ``dfctl`` shows."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from pantala.cli import dfctl
from pantala.core.sched.whereabouts import whereabouts
from pantala.daemon.app import Daemon
from pantala.daemon.serving.handoff_request import parse_task_wish
from pantala.errors import InvalidRequest
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2, node_pb2, node_pb2_grpc
from pantala.rpc.server import new_server
from pantala.rpc.service import add_service
from pantala.rpc.transport import bind
from pantala.scheduler import holders
from pantala.scheduler.app import Scheduler
from pantala.testing import inside
from pantala.testing.announce import Swarm, refusal, swarm
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin
from pantala.testing.stage import MIB, Stage, task_id

# -- what is known


def test_those_with_all_of_it_come_first() -> None:
    """Then those with a part, then those that fetch; one peer of a host; by their hosts' ids."""
    stage = Stage()
    stage.holder("c")
    stage.holder("part", range=ByteRange(0, 4 * MIB))
    fetching = stage.child("d")
    again = stage.child("a")
    stage.world.finish(again, stage.now)
    stage.child("a")
    failed = stage.child("e")
    stage.world.fail(failed, stage.now)
    stage.register("told")
    listed, left_out = whereabouts(fetching.task, 10)
    assert [peer.host.id for peer in listed] == ["a", "c", "part", "d"]
    assert listed[0] is again
    assert left_out == 0
    listed, left_out = whereabouts(fetching.task, 1)
    assert ([peer.host.id for peer in listed], left_out) == (["a"], 3)


def test_who_shares_nothing_holds_it_all_the_same() -> None:
    """It is nobody's parent; but that is not what is asked."""
    stage = Stage()
    peer = stage.holder("a", "t")
    stage.host("a", disable_shared=True)
    assert whereabouts(peer.task, 10)[0] == [peer]


# -- what hosts say


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


async def stat(daemon: Daemon, *arguments: str, kind: str = "cache-task") -> int:
    """What ``dfctl … stat`` ends with."""
    path = str(daemon.config.download.server.socket_path)
    argv = [kind, "stat", "-e", path, *arguments]
    return await asyncio.to_thread(dfctl.run, argv, {})


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON at the end of what was printed."""
    out = capsys.readouterr().out
    return json.loads(out[out.index("{\n") :])


async def test_dfctl_lists_them(
    daemons: list[Daemon], scheduler: Scheduler, origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    """All, a part, and a host that does not answer, of which that is said; status 0."""
    origin.put("/f", Pattern(10 * MIB))
    a, b, c = daemons
    await inside.get(a, origin.url("/f"))
    await inside.get(b, origin.url("/f"), range=ByteRange(0, MIB))
    await inside.get(c, origin.url("/f"))
    (task,) = {holding.id for holding in a.stores}
    silent = scheduler._world.hosts[c.config.host_id]
    silent.facts = replace(silent.facts, port=1)
    assert await stat(a, task, "--holders", "--json") == 0
    said = printed(capsys)
    assert (said["id"], said["holders_left_out"]) == (task, 0)
    rows = {row["host_id"]: row for row in said["holders"]}
    whole, part, away = (rows[daemon.config.host_id] for daemon in daemons)
    names = ("complete", "finished_piece_count", "piece_count")
    assert [whole[name] for name in names] == [True, 10, 10]
    assert whole["finished_bytes"] == 10 * MIB
    assert (part["complete"], part["finished_piece_count"]) == (False, 1)
    assert part["finished_bytes"] == MIB
    assert (whole["state"], whole["type"], whole["unanswered"]) == ("Succeeded", "normal", None)
    assert (away["complete"], away["finished_piece_count"]) == (None, None)
    assert "host" in away["unanswered"]
    assert await stat(a, task, "--holders") == 0
    out = capsys.readouterr().out
    assert "3 hosts: 1 with all of it, 1 with a part, 1 did not say\n" in out
    assert "1 of 10 pieces, 1.0 MiB" in out
    assert any(line.split()[:3] == [a.config.host_id, "normal", "all"] for line in out.splitlines())


async def test_dfctl_lists_no_more_than_is_wanted(
    daemons: list[Daemon], origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says how many there are beside; by URL, too. Without the flag nobody is asked."""
    origin.put("/f", Pattern(1000))
    for daemon in daemons:
        await inside.get(daemon, origin.url("/f"))
    assert await stat(daemons[0], origin.url("/f"), "--holders", "--most", "2") == 0
    assert "2 hosts: 2 with all of it, 0 with a part, and 1 more\n" in capsys.readouterr().out
    assert await stat(daemons[0], origin.url("/f"), "--json") == 0
    assert "holders" not in printed(capsys)
    for most in ("0", "501", "x"):
        with pytest.raises(SystemExit) as ended:
            await stat(daemons[0], origin.url("/f"), "--holders", "--most", most)
        assert ended.value.code == 2


async def test_dfctl_without_a_scheduler(
    tmp_path: Path, origin: Origin, stack: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows who has it: one line, and status 1."""
    lone = await stack.enter_async_context(inside.daemon(tmp_path, "lone", port=1))
    origin.put("/f", Pattern(1000))
    await inside.get(lone, origin.url("/f"))
    assert await stat(lone, origin.url("/f"), "--holders") == 1
    assert "no scheduler" in capsys.readouterr().err


# -- by gRPC


@pytest.fixture
async def known() -> AsyncIterator[Swarm]:
    """A scheduler, and what is told to it by hand."""
    async with swarm() as s:
        yield s


async def ask(s: Swarm, kind: Kind, **fields: Any) -> Any:
    """What the scheduler answers."""
    request = node_pb2.ListHoldersRequest(**({"task_id": task_id("t")} | fields))
    request.type = kind.value  # type: ignore[assignment]  # its kinds are ours
    return await node_pb2_grpc.SwarmStub(s.channel).ListHolders(request)


class Stock:
    """A stock daemon: it says when it was through."""

    async def StatLocalTask(  # noqa: N802  the contract's name
        self, request: Any, _: Any
    ) -> dfdaemon_pb2.StatLocalTaskResponse:
        """All of it."""
        answer = dfdaemon_pb2.StatLocalTaskResponse(task_id=request.task_id)
        answer.finished_at.GetCurrentTime()
        return answer


async def test_a_stock_daemon_counts_no_pieces(known: Swarm) -> None:
    """It says whether it has all; of a cache task it is not asked, which would end it."""
    server = new_server()
    add_service(server, "dfdaemon.v2.DfdaemonUpload", Stock())
    port = bind(server, "127.0.0.1:0")
    await server.start()
    try:
        await known.host("stock", port=port, version="v2.5.1")
        for kind in (Kind.STANDARD, Kind.CACHE):
            known.kind = kind
            await known.holder("stock")
        (held,) = (await ask(known, Kind.STANDARD)).holders
        assert (held.complete, held.unanswered) == (True, "")
        assert not held.HasField("finished_piece_count")
        (held,) = (await ask(known, Kind.CACHE)).holders
        assert "not pantala" in held.unanswered
    finally:
        await server.stop(None)


async def test_what_is_refused(known: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown tasks, numbers and ids that make no sense, and too many callers at once."""
    await known.hosts("a")
    await known.holder("a")
    codes = grpc.StatusCode
    assert await refusal(ask(known, Kind.STANDARD)) is codes.NOT_FOUND
    assert await refusal(ask(known, Kind.CACHE, limit=0)) is codes.INVALID_ARGUMENT
    assert await refusal(ask(known, Kind.CACHE, limit=501)) is codes.INVALID_ARGUMENT
    assert await refusal(ask(known, Kind.CACHE, task_id="x")) is codes.INVALID_ARGUMENT
    monkeypatch.setattr(holders, "_CALLERS", 0)
    assert await refusal(ask(known, Kind.CACHE)) is codes.RESOURCE_EXHAUSTED


async def test_hosts_that_hang_do_not_hang_the_answer(
    known: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time for all is over, those that have not answered have not."""
    monkeypatch.setattr(holders, "_LIMIT_OF_ALL", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel takes calls for it
        await known.host("mute", port=mute.getsockname()[1])
        await known.holder("mute")
        (held,) = (await ask(known, Kind.CACHE)).holders
        assert (held.complete, held.unanswered) == (False, "not asked within 0.2 s")


def test_limits_are_checked_at_the_hand_off_socket() -> None:
    """There they are JSON, which has numbers of any size."""
    for limit in (0, 501, -5, 10**20):
        with pytest.raises(InvalidRequest, match="limit"):
            parse_task_wish("holders", {"task_id": task_id("t"), "limit": limit})
    assert parse_task_wish("holders", {"task_id": task_id("t"), "limit": 5}).limit == 5
