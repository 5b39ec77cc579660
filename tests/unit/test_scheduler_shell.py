"""The small parts of the scheduler's shell: waiters, background, metrics, command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from pantala import BUILD_VERSION
from pantala.cli import dfscheduler
from pantala.errors import ConfigError, NotFound
from pantala.logs import setup_logging
from pantala.model.task import PieceRecord, Traffic
from pantala.scheduler.metrics import Metrics, size_level
from pantala.scheduler.waiters import Waiters
from pantala.testing import inside
from pantala.testing.stage import Stage


async def test_waiters_wake_in_the_order_in_which_they_came() -> None:
    """All who wait for a task, and nobody else."""
    stage = Stage()
    one, other = stage.register("a").task, stage.register("a", "u").task
    waiters = Waiters()
    order: list[int] = []

    async def wait(number: int) -> None:
        await waiters.wait(one.key, 30)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        friends = [group.create_task(wait(number)) for number in range(5)]
        stranger = group.create_task(waiters.wait(other.key, 30))
        await asyncio.sleep(0)
        waiters.wake(one)
        await asyncio.wait(friends)
        assert not stranger.done()
        waiters.wake(other)
    assert order == list(range(5))
    assert not waiters._waiting


async def test_a_wait_ends_and_leaves_nothing_behind() -> None:
    """By time, or because who waited has gone."""
    task = Stage().register("a").task
    waiters = Waiters()
    await waiters.wait(task.key, 0.001)
    await waiters.wait(task.key, -1)
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(waiters.wait(task.key, 30))
        await asyncio.sleep(0)
        gone.cancel()
    assert not waiters._waiting
    waiters.wake(task)


@pytest.mark.parametrize(
    ("length", "level"),
    [
        *((0, "0"), (1, "1"), (2**20 - 1, "1"), (2**20, "2"), (4 * 2**20, "3")),
        *((2**30 - 1, "10"), (2**30, "11"), (2**39, "19"), (2**40, "20")),
    ],
)
def test_size_levels(length: int, level: str) -> None:
    """Upper bounds are exclusive."""
    assert size_level(length) == level


def test_families_and_labels() -> None:
    """Counted under Dragonfly's names, by kind of task and type of host."""
    stage, metrics = Stage(), Metrics()
    stage.host("seed", type=1)
    peer = stage.source("seed", priority=5)
    metrics.peer_event("register_peer", peer)
    piece = PieceRecord(0, 0, 7, "", None, Traffic.BACK_TO_SOURCE, 1.0, 1.0)
    metrics.piece_finished(peer, piece)
    metrics.observe("StatCacheTask", ValueError())
    metrics.observe("StatCacheTask", None)
    metrics.observe("Unheard", None)
    text = generate_latest(metrics.registry).decode()
    labels = 'host_type="super",priority="LEVEL5",task_type="CACHE"'
    assert f"dragonfly_scheduler_register_peer_total{{{labels}}} 1.0" in text
    kind = 'host_type="super",task_type="CACHE"'
    assert f'dragonfly_scheduler_traffic{{{kind},type="BACK_TO_SOURCE"}} 7.0' in text
    assert "dragonfly_scheduler_stat_task_total 2.0" in text
    assert "dragonfly_scheduler_stat_task_failure_total 1.0" in text
    assert f'git_version="{BUILD_VERSION}"' in text


async def test_a_taken_metrics_address_is_named() -> None:
    """With the key that decides it; no host is every interface."""

    async def start(address: str) -> str:
        with pytest.raises(ConfigError) as caught:
            async with inside.scheduler(metrics__enable=True, metrics__addr=address):
                pass
        return str(caught.value)

    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        for address, shown in ((f"127.0.0.1:{port}", "127.0.0.1"), (f":{port}", "0.0.0.0")):
            assert await start(address) == (
                f"cannot listen on {shown}:{port}: Address already in use; "
                "set metrics.addr to another port, or to :0 for any free one"
            )
    for host, why in (("192.0.2.1", "Cannot assign requested address"), ("a..b", "")):
        said = await start(f"{host}:0")
        assert said.startswith(f"cannot listen on {host}:0: {why}")
        assert said.endswith("; set metrics.addr to an address of this machine")


async def test_idle_connections_keep_nobody_from_the_metrics() -> None:
    """However many there are."""
    async with inside.scheduler(metrics__enable=True, metrics__addr="127.0.0.1:0") as scheduler:
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                sock = stack.enter_context(socket.socket())
                sock.settimeout(0)
                address = ("127.0.0.1", scheduler.metrics_port)
                await asyncio.get_running_loop().sock_connect(sock, address)
            reader, writer = await asyncio.open_connection("127.0.0.1", scheduler.metrics_port)
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert b"dragonfly_scheduler_version" in await reader.read()
            writer.close()
            before = threading.active_count()
        assert before < 100  # an idle connection has no thread


async def test_a_goodbye_before_the_first_hello(tmp_path: Path) -> None:
    """A daemon that starts says it for its life before: no failure, known here or not."""
    text = ""
    async with (
        inside.scheduler() as scheduler,
        inside.daemon(tmp_path, port=scheduler.port),
        asyncio.timeout(20),
    ):
        while "dragonfly_scheduler_leave_host_total 1.0" not in text:
            await asyncio.sleep(0.005)
            text = generate_latest(scheduler._metrics.registry).decode()
    assert "dragonfly_scheduler_leave_host_failure_total 0.0" in text


def test_what_is_a_failure() -> None:
    """All that is refused or broke, but for that goodbye."""
    metrics = Metrics()
    for method in ("DeleteHost", "StatCacheTask"):
        metrics.observe(method, NotFound("nobody knows it"))
        metrics.observe(method, ValueError())
    text = generate_latest(metrics.registry).decode()
    assert "dragonfly_scheduler_leave_host_total 2.0" in text
    assert "dragonfly_scheduler_leave_host_failure_total 1.0" in text
    assert "dragonfly_scheduler_stat_task_failure_total 2.0" in text


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Version, help with examples, and mistakes in one line."""

    def run(*arguments: str, **env: str) -> tuple[int, str, str]:
        try:
            status = dfscheduler.run(arguments, env)
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    assert run("--version") == run("-V") == (0, f"dfscheduler {BUILD_VERSION}\n", "")
    for flag in ("--help", "-h"):
        status, output, _ = run(flag)
        assert status == 0
        assert "  dfscheduler --config my.yaml --check       show what would be used" in output
        assert "SCHEDULER_CONFIG" in output
    wrong = "dfscheduler: --listen-ip: 'nowhere': expected an IP address\n"
    assert run("--listen-ip", "nowhere") == (2, "", wrong)
    for status, _, errors in (
        run("--config", "/nonexistent.yaml"),
        run(SCHEDULER_CONFIG="/nonexistent.yaml"),
    ):
        assert status == 1
        assert errors.startswith("dfscheduler: /nonexistent.yaml: ")
    status, output, _ = run("--check", "--port", "0", "-l", "warn", SCHEDULER_CONFIG="")
    assert status == 0
    server = json.loads(output)["server"]
    assert (server["port"], server["logLevel"]) == (0, "warn")
    status, _, errors = run("--port", "x")
    assert status == 2
    assert errors.endswith("dfscheduler: error: argument --port: 'x': want a whole number\n")


def test_the_dynconfig_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything runs: what is wrong in one line each, and what counts for nothing."""
    path = tmp_path / "dynconfig.yaml"

    def check(text: str, *flags: str, **env: str) -> tuple[int, list[str]]:
        path.write_text(text)
        status = dfscheduler.run(["--check", *flags], env)
        lines = capsys.readouterr().err.splitlines()
        assert all(line.startswith(f"dfscheduler: {path}: ") for line in lines)
        return status, [line.removeprefix(f"dfscheduler: {path}: ") for line in lines]

    flag = ("--dynconfig", str(path))
    assert check("schedulerClusterConfig: {jobRateLimit: 5}", *flag) == (0, [])
    foreign = (
        "scheduler: {addr: s:1}\nfoo: 1\n"
        "applications: [{name: a, priority: {urls: [{regex: '('}]}}]"
    )
    assert check(foreign, SCHEDULER_DYNCONFIG=str(path)) == (
        0,
        [
            "scheduler has no effect",
            "foo has no effect",
            "application a: '(': missing ): (: skipped",
        ],
    )
    wrong = "schedulerClusterConfig: {candidateParentLimit: 0.5}\nseedPeerClusterConfig: 1"
    assert check(wrong, *flag) == (
        1,
        [
            "schedulerClusterConfig.candidateParentLimit = 0.5: expected a valid integer",
            "seedPeerClusterConfig = 1: expected a section, that is, keys of its own",
        ],
    )
    path.unlink()
    assert dfscheduler.run(["--check", *flag], {}) == 1
    assert "No such file" in capsys.readouterr().err


def test_log_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Away from a terminal each line is one object."""
    setup_logging("info")
    logging.getLogger("x").warning("said")
    assert json.loads(capsys.readouterr().err)["event"] == "said"
