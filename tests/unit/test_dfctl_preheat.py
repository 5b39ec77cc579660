"""cli/_preheat.py: ``dfctl … preheat`` against a scheduler and daemons of ours, and a stock one."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty

from pantala import BUILD_VERSION
from pantala.cli import _preheat, dfctl
from pantala.cli._preheat_report import Report
from pantala.daemon.app import Daemon
from pantala.model.ids import task_id
from pantala.model.task import Kind
from pantala.rpc.server import new_server
from pantala.rpc.service import add_service
from pantala.rpc.transport import bind
from pantala.testing import inside
from pantala.testing.announce import until
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin


class Cluster:
    """A scheduler, and two daemons of ours, of which one is a seed."""

    def __init__(self, port: int, seed: Daemon, peer: Daemon) -> None:
        self.port = port
        self.seed = seed
        self.peer = peer

    async def preheat(self, *arguments: str, kind: str = "cache-task", **environ: str) -> int:
        """What ``dfctl`` ends with."""
        return await preheat(self.port, *arguments, kind=kind, **environ)


async def preheat(port: int, *arguments: str, kind: str = "cache-task", **environ: str) -> int:
    """Likewise of any scheduler."""
    argv = [kind, "preheat", "--scheduler-endpoint", f"http://127.0.0.1:{port}", *arguments]

    def run() -> int:
        try:
            return dfctl.run(argv, environ)
        except SystemExit as end:
            return int(end.code or 0)

    return await asyncio.to_thread(run)


@pytest.fixture(autouse=True)
def _signals_are_of_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program runs in another one here."""
    monkeypatch.setattr(_preheat, "ended_by_signals", nullcontext)


@pytest.fixture
async def cluster(stack: AsyncExitStack, tmp_path: Path) -> Cluster:
    """One for a test."""
    scheduler = await stack.enter_async_context(inside.scheduler())
    made = [
        await stack.enter_async_context(
            inside.daemon(tmp_path, name, port=scheduler.port, seedPeer__enable=seed)
        )
        for name, seed in (("s", True), ("p", False))
    ]

    async def all_here() -> bool:
        return len(scheduler._world.hosts) == 2

    await until(all_here)
    return Cluster(scheduler.port, *made)


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    """Its lines, without those that daemons here log; and what went to standard error."""
    out, err = capsys.readouterr()
    return [line for line in out.splitlines() if not re.match(r"\d{4}-\d\d-", line)], err


def held(daemon: Daemon, kind: Kind) -> set[str]:
    """Ids of what lies there whole."""
    return {h.id for h in daemon.stores if h.kind is kind and h.complete}


async def test_into_memory_on_the_seed(
    cluster: Cluster, origin: Origin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """URLs from the command line and from a list; a line for each, and one in the end."""
    urls = [origin.url(f"/{n}?sig=s3cret") for n in range(3)]
    for n in range(3):
        origin.put(f"/{n}", Pattern(2 << 20))
    listed = tmp_path / "urls"
    listed.write_text(f"# those of the model\n\n {urls[1]} \n{urls[2]}\n")
    assert await cluster.preheat(urls[0], "-i", str(listed), "--tag", "t") == 0
    (*lines, last), err = printed(capsys)
    host = cluster.seed.config.host_id
    assert sorted(lines) == [f"done     {host}  {origin.url(f'/{n}')}  2.0 MiB" for n in range(3)]
    assert last.startswith("3 done, 6.0 MiB in ")
    assert re.fullmatch(r"dfctl: job [0-9a-f]{16}: 3 files, 3 times\n", err)
    ids = {task_id(Kind.CACHE, url, tag="t") for url in urls}
    assert held(cluster.seed, Kind.CACHE) == ids
    assert not held(cluster.peer, Kind.CACHE)


async def test_on_disk_for_programs(
    cluster: Cluster, origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines of JSON; a failure of one URL is told, and is the exit status."""
    origin.put("/there", Pattern(100_000))
    there, not_there = origin.url("/there"), origin.url("/not")
    variables = {"DFCTL_TASK_PREHEAT_SCOPE": "all_peers"}
    assert await cluster.preheat(there, not_there, "--json", kind="task", **variables) == 1
    lines, err = printed(capsys)
    *rows, last = map(json.loads, lines)
    by_url = {row["url"]: row for row in rows}
    assert by_url[there] == {
        "url": there,
        "task_id": task_id(Kind.STANDARD, there),
        "host_id": cluster.peer.config.host_id,
        "hostname": cluster.peer.config.host.hostname,
        "ip": "127.0.0.1",
        "state": "done",
        "received": 100_000,
        "content_length": 100_000,
        "reason": "",
    }
    assert by_url[not_there]["state"] == "failed"
    assert "404" in by_url[not_there]["reason"]
    assert (last["done"], last["failed"], last["received"]) == (1, 1, 100_000)
    assert not err
    assert held(cluster.peer, Kind.STANDARD) == {by_url[there]["task_id"]}


async def test_detached(
    cluster: Cluster, origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job goes on when the program has ended."""
    origin.put("/f", Pattern(1 << 20))
    assert await cluster.preheat(origin.url("/f"), "--detach") == 0
    assert ": 1 files, 1 times\n" in capsys.readouterr().out

    async def there() -> bool:
        return bool(held(cluster.seed, Kind.CACHE))

    await until(there)


async def test_a_refusal_is_one_line(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the scheduler's; without a scheduler, too."""
    assert await cluster.preheat("http://169.254.169.254/x", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["code"] == "PERMISSION_DENIED"
    (line,) = err.splitlines()
    assert line.startswith(
        f"dfctl: scheduler 127.0.0.1:{cluster.port}: jobs keep away from 169.254"
    )
    assert await preheat(9, "http://origin/x") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dfctl: scheduler 127.0.0.1:9: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no URL: name some, or a file of them with --input-file"),
        (["-i", "/nowhere"], "--input-file /nowhere: No such file or directory"),
        (["nothing"], "no URL with a scheme"),
        (["http://a/b", "--scope", "all"], "'all': want one of single_seed_peer"),
        (["http://a/b", "--count", "0"], "'0': want 1 to 200"),
        (["http://a/b", "--ip", "1.2.3.4"], "single_seed_peer has one host for each URL"),
        (["http://a/b", "--scheduler-endpoint", "here"], "'here': expected host:port"),
        (["http://a/b", "-H", "x"], "header 1 has no colon"),
    ],
)
async def test_wrong_usage(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ends with 2, and one line that says why."""
    assert await preheat(9, *arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


async def test_a_list_with_a_line_that_is_no_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named by its number, and nothing is begun."""
    listed = tmp_path / "urls"
    listed.write_text("\ufeffhttp://a/b\nb\n")
    assert await preheat(9, "-i", str(listed)) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(f"--input-file {listed}: line 2: no URL with a scheme, such as https://host/file")
    )
    listed.write_bytes(b"http://h/\xff\n")
    assert await preheat(9, "-i", str(listed)) == 2
    assert f"--input-file {listed}: line 1: a space or control character" in capsys.readouterr().err


class Stock:
    """A scheduler that knows no more than the contract."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def PreheatFile(self, request: Any, context: Any) -> Empty:  # noqa: N802  the contract's name
        """Takes it, or not."""
        self.asked.append(request)
        if request.url.endswith("bad"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")
        return Empty()


@pytest.fixture
async def stock() -> AsyncIterator[tuple[int, Stock]]:
    """One that runs."""
    played, server = Stock(), new_server()
    add_service(server, "scheduler.v2.Scheduler", played)
    port = bind(server, "127.0.0.1:0")
    await server.start()
    yield port, played
    await server.stop(None)


async def test_a_stock_scheduler(
    stock: tuple[int, Stock], capsys: pytest.CaptureFixture[str]
) -> None:
    """Takes files, and says no more; a cache task is not asked of it."""
    port, played = stock
    urls = ["http://a/good", "http://a/bad"]
    flags = ("--tag", "t", "--count", "2", "-p", "3", "-H", "A: b")
    assert await preheat(port, *urls, *flags, kind="task") == 1
    out, err = printed(capsys)
    assert out == [
        "accepted http://a/good",
        f"failed   http://a/bad: scheduler 127.0.0.1:{port}: bad",
    ]
    assert "is not pantala: it does not say what comes of a preheat" in err
    request = played.asked[0]
    assert (request.tag, request.count, request.priority) == ("t", 2, 3)
    assert (request.scope, dict(request.header)) == ("all_seed_peers", {"A": "b"})
    assert await preheat(port, *urls) == 1
    assert capsys.readouterr().err.endswith("is not pantala: it preheats no CACHE tasks\n")
    assert len(played.asked) == 2


def test_progress() -> None:
    """One line that moves, out of the way of results."""
    out, err = io.StringIO(), io.StringIO()
    now = 0.0
    report = Report(out, err, as_json=False, shown=True, clock=lambda: now)
    report.progress(pairs=4, done=1, failed=0, received=1 << 20)
    report.progress(pairs=4, done=1, failed=0, received=2 << 20)  # too soon
    now = 2.0
    report.progress(pairs=4, done=2, failed=1, received=3 << 20)
    report.result({"url": "u", "state": "done", "host_id": "h", "reason": ""})
    assert err.getvalue() == (
        "\r[==        ] 1 of 4 done, 1.0 MiB, 0 s\x1b[K"
        "\r[=======   ] 2 of 4 done, 1 failed, 3.0 MiB, 2 s\x1b[K"
        "\r\x1b[K"
    )
    assert out.getvalue() == "done     h  u\n"


async def hosts(port: int, *arguments: str) -> int:
    """What ``dfctl hosts`` ends with."""
    variables = {"DFCTL_HOSTS_SCHEDULER_ENDPOINT": f"127.0.0.1:{port}"}
    return await asyncio.to_thread(dfctl.run, ["hosts", *arguments], variables)


async def test_hosts(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is there, for people and for programs."""
    assert await hosts(cluster.port) == 0
    (head, *lines, last), _ = printed(capsys)
    assert head.split() == ["ID", "TYPE", "ADDRESS", "IDC", "LOCATION", "DISK", "FREE", "VERSION"]
    kinds = {line.split()[0]: line.split()[1] for line in lines}
    assert kinds == {cluster.seed.config.host_id: "seed", cluster.peer.config.host_id: "normal"}
    assert last == "2 hosts"
    assert await hosts(cluster.port, "--json") == 0
    lines, _ = printed(capsys)
    told = json.loads("\n".join(lines))
    assert told["left_out"] == 0
    by_id = {row["id"]: row for row in told["hosts"]}
    peer = by_id[cluster.peer.config.host_id]
    assert (peer["ip"], peer["version"], peer["shares"]) == ("127.0.0.1", BUILD_VERSION, True)
    assert peer["disk_free"] > 0


async def test_no_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    assert await hosts(9) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dfctl: scheduler 127.0.0.1:9: ")
