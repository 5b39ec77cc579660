"""daemon/telling/manager.py: a manager that names schedulers, over real gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from pantala import BUILD_VERSION
from pantala.core.blocking import BlockLists, Deed, read
from pantala.daemon.app import Daemon
from pantala.daemon.config import DaemonConfig, load
from pantala.daemon.telling import manager as manager_module
from pantala.daemon.telling.dynconfig import Dynconfig
from pantala.errors import Forbidden
from pantala.model.task import Kind
from pantala.pb import (
    common_pb2,
    dfdaemon_pb2,
    dfdaemon_pb2_grpc,
    manager_pb2,
    node_pb2,
    node_pb2_grpc,
)
from pantala.rpc.transport import channel_options
from pantala.scheduler.app import Scheduler
from pantala.testing import inside, ports
from pantala.testing.manager_server import ManagerServer

TAGS = {"block_list": {"cache_task": {"download": {"tags": ["t"]}}}}


@pytest.fixture
def manager() -> Iterator[ManagerServer]:
    """One that is up."""
    with ManagerServer() as manager:
        yield manager


def serving(directory: Path, port: int = 0) -> AbstractAsyncContextManager[Scheduler]:
    """A scheduler that serves, and has its records in *directory*."""
    return inside.scheduler(port, database__sqlite__path=str(directory / "s.db"))


@pytest.fixture
async def scheduler(stack: AsyncExitStack, tmp_path: Path) -> int:
    """The port of one."""
    return (await stack.enter_async_context(serving(tmp_path))).port


@pytest.fixture
def nobody(own_port: int) -> int:
    """A port at which nobody serves."""
    return own_port


class Watched:
    """A Dynconfig, and what it has told."""

    def __init__(self, config: DaemonConfig, **more: Any) -> None:
        self.lists: list[BlockLists] = []
        self.logs: list[Any] = []
        self.changes: list[tuple[str, ...]] = []
        self.dynconfig = Dynconfig(
            config,
            on_change=self.changes.append,
            on_lists=lambda lists, _source: self.lists.append(lists),
            **more,
        )

    async def start(self) -> tuple[str, ...]:
        with capture_logs() as logs:
            await self.dynconfig.start()
        self.logs += logs
        return self.dynconfig.current()

    async def refresh(self) -> tuple[str, ...]:
        with capture_logs() as logs:
            await self.dynconfig.refresh()
        self.logs += logs
        return self.dynconfig.current()

    @property
    def warnings(self) -> list[str]:
        return [log["event"] for log in self.logs if log["log_level"] == "warning"]


def config(directory: Path, manager: ManagerServer, **more: object) -> DaemonConfig:
    """Of a daemon of that manager's; *more* by dotted key, with ``__`` for a dot."""
    keys = {key.replace("__", "."): value for key, value in more.items()}
    settings: dict[str, object] = {
        "manager.addr": f"http://{manager.address}",
        "storage.dir": str(directory),
        "host.ip": "127.0.0.1",
        "host.hostname": "here",
    }
    return load(None, settings | keys)


def at(port: int) -> str:
    """An address of this machine."""
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize("seed", [False, True])
async def test_who_asks(tmp_path: Path, manager: ManagerServer, scheduler: int, seed: bool) -> None:  # noqa: FBT001  a parameter of the test
    """It says all by which a manager chooses a cluster."""
    manager.add(scheduler, 7)
    more = {"seedPeer__enable": seed, "host__idc": "i", "host__location": "l"}
    watched = Watched(config(tmp_path, manager, host__schedulerClusterID=7, **more))
    assert await watched.start() == (at(scheduler),)
    (asked,) = manager.requests("ListSchedulers")
    assert asked == manager_pb2.ListSchedulersRequest(
        source_type=manager_pb2.SEED_PEER_SOURCE if seed else manager_pb2.PEER_SOURCE,
        hostname="here",
        ip="127.0.0.1",
        idc="i",
        location="l",
        version=BUILD_VERSION,
        scheduler_cluster_id=7,
    )
    assert watched.warnings == []


async def test_the_cluster_of_the_first_that_serves(
    tmp_path: Path, stack: AsyncExitStack, manager: ManagerServer, scheduler: int, nobody: int
) -> None:
    """In the manager's order; of it only those that serve, and whose address makes sense."""
    other = (await stack.enter_async_context(serving(tmp_path))).port
    third = (await stack.enter_async_context(serving(tmp_path))).port
    manager.add(nobody, 3)
    manager.add(third, 2)
    manager.add(scheduler, 1)
    manager.add(nobody + 1, 2)
    manager.add(other, 2)
    manager.add(1, 2, ip="not-an-ip")
    manager.cluster(1, client_config={"block_list": {"task": {"download": {"tags": ["x"]}}}})
    manager.cluster(2, client_config=TAGS)
    watched = Watched(config(tmp_path, manager))
    assert await watched.start() == tuple(sorted((at(third), at(other))))
    assert set(watched.lists[-1].lists) == {(Kind.CACHE, Deed.DOWNLOAD)}
    del manager.schedulers[1]
    assert await watched.refresh() == (at(scheduler),)
    assert set(watched.lists[-1].lists) == {(Kind.STANDARD, Deed.DOWNLOAD)}


async def test_what_costs_time_is_done_once(
    tmp_path: Path, manager: ManagerServer, scheduler: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patterns are made ready when they change, and no addresses of a list that is too long."""
    made: list[object] = []

    def counted(tree: object) -> BlockLists:
        made.append(tree)
        return read(tree)

    monkeypatch.setattr(manager_module, "read", counted)
    manager.add(scheduler)
    manager.cluster(1, client_config=TAGS)
    watched = Watched(config(tmp_path, manager))
    await watched.start()
    await watched.refresh()
    assert made == [TAGS]
    manager.cluster(1, client_config={})
    await watched.refresh()
    assert made == [TAGS, {}]
    monkeypatch.setattr(manager_module, "_address", pytest.fail)
    for _ in range(256):
        manager.add(scheduler)
    assert await watched.refresh() == (at(scheduler),)
    assert watched.warnings == ["schedulers could not be refreshed"]


async def test_one_that_is_away_for_a_moment_stays(
    tmp_path: Path, manager: ManagerServer, scheduler: int
) -> None:
    """As long as the manager hears of it; one that was never there does not count."""
    with ports.port() as port:
        async with serving(tmp_path, port):
            for each in (scheduler, port):
                manager.add(each)
            watched = Watched(config(tmp_path, manager))
            assert len(await watched.start()) == 2
        assert len(await watched.refresh()) == 2
        manager.schedulers[1].state = "inactive"
        assert await watched.refresh() == (at(scheduler),)
        manager.schedulers[1].state = "active"
        assert await watched.refresh() == (at(scheduler),)


async def test_no_good_answer(
    tmp_path: Path, manager: ManagerServer, scheduler: int, nobody: int
) -> None:
    """The last good one holds; each thing that goes wrong is said once."""
    manager.add(scheduler)
    watched = Watched(config(tmp_path, manager))
    assert await watched.start() == (at(scheduler),)
    rows = manager.schedulers[:]
    manager.schedulers.clear()
    for _ in range(2):
        assert await watched.refresh() == (at(scheduler),)
    manager.add(nobody)
    assert await watched.refresh() == (at(scheduler),)
    manager.stop()
    for _ in range(2):
        assert await watched.refresh() == (at(scheduler),)
    problems = [log["problem"] for log in watched.logs if "problem" in log]
    assert len(problems) == 3
    assert problems[0] == f"manager {manager.address} names no scheduler for this host"
    assert problems[1].startswith("of 1 schedulers that manager ")
    assert problems[2].startswith(f"manager {manager.address}: ")
    manager.schedulers[:] = rows
    manager.start()
    await watched.refresh()
    assert len(watched.warnings) == 3
    assert watched.changes == [(at(scheduler),)]


async def test_an_earlier_life(tmp_path: Path, manager: ManagerServer, scheduler: int) -> None:
    """What it was answered counts while the manager is away, and for nobody else."""
    manager.add(scheduler)
    manager.cluster(client_config=TAGS)
    await Watched(config(tmp_path, manager)).start()
    path = tmp_path / "manager.json"
    assert path.stat().st_mode & 0o777 == 0o600
    manager.stop()
    again = Watched(config(tmp_path, manager))
    assert await again.start() == (at(scheduler),)
    assert set(again.lists[-1].lists) == {(Kind.CACHE, Deed.DOWNLOAD)}
    assert again.warnings == ["schedulers could not be refreshed"]
    for more in (
        {"manager.addr": "http://127.0.0.1:9"},
        {"host.schedulerClusterID": 2},
        {"seedPeer.enable": True},
    ):
        elsewhere = {"storage.dir": str(tmp_path), "manager.addr": manager.address, **more}
        assert await Watched(load(None, elsewhere)).start() == ()
    path.write_text("{")
    damaged = Watched(config(tmp_path, manager))
    assert await damaged.start() == ()
    assert damaged.warnings == [
        "last answer not read",
        "schedulers could not be refreshed",
        "no scheduler: every download goes to the origin",
    ]


async def test_an_earlier_life_that_makes_no_sense(tmp_path: Path, manager: ManagerServer) -> None:
    """It is left alone, with a warning."""
    manager.stop()
    whose = {"manager": manager.address, "scheduler_cluster_id": 0, "part": "client_config"}
    for answer in ({}, {"schedulers": 3}, {"schedulers": [], "config": {"block_list": 3}}):
        (tmp_path / "manager.json").write_text(json.dumps({"of": whose, "answer": answer}))
        watched = Watched(config(tmp_path, manager))
        assert await watched.start() == ()
        assert watched.warnings[0] == "last answer not used"


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"block_list": 3}', b"\xff", b"[" * 9999])
async def test_garbage(tmp_path: Path, manager: ManagerServer, scheduler: int, text: bytes) -> None:
    """What is blocked stays as it was, told once; the schedulers are not affected."""
    manager.add(scheduler)
    manager.cluster(client_config=TAGS)
    watched = Watched(config(tmp_path, manager))
    await watched.start()
    manager.cluster(client_config=text)
    manager.add(scheduler, ip="::1")
    for _ in range(2):
        await watched.refresh()
    assert watched.warnings == ["block lists not read: what was known holds"]
    assert len(watched.lists) == 1
    again = Watched(config(tmp_path, manager))
    await again.start()
    assert set(again.lists[-1].lists) == {(Kind.CACHE, Deed.DOWNLOAD)}
    manager.cluster(client_config=b"")
    await watched.refresh()
    assert watched.lists[-1] == BlockLists()


async def test_a_list_wins(tmp_path: Path, manager: ManagerServer, scheduler: int) -> None:
    """Over the manager, too, which still says what is blocked; and need not be there."""
    manager.add(scheduler)
    manager.cluster(client_config=TAGS)
    watched = Watched(config(tmp_path, manager, scheduler__addrs=["127.0.0.2:1"]))
    assert await watched.start() == ("127.0.0.2:1",)
    assert len(watched.lists[-1].lists) == 1
    manager.stop()
    assert await watched.refresh() == ("127.0.0.2:1",)
    away = Watched(config(tmp_path / "new", manager, scheduler__addrs=["127.0.0.2:1"]))
    assert await away.start() == ("127.0.0.2:1",)


async def test_one_with_a_scheduler_of_its_own_asks_nobody(
    tmp_path: Path, manager: ManagerServer
) -> None:
    """As a personal daemon; and a file that would not be read is told of."""
    own = Watched(config(tmp_path, manager), addrs=("unix:/s",))
    assert await own.start() == ("unix:/s",)
    assert manager.asked == []
    assert [log["keys"] for log in own.logs if "keys" in log] == [["manager.addr"]]
    both = Watched(config(tmp_path, manager, dynconfig__path="/nowhere"))
    assert await both.start() == ()
    assert [log["keys"] for log in both.logs if "keys" in log] == [["dynconfig.path"]]


class Blocked:
    """A daemon whose cluster has blocked all with the tag ``t``."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    async def ask(self, method: str, request: Any) -> Any:
        """Its answer, or the error of its gRPC socket."""
        target = f"unix:{self.daemon.config.download.server.socket_path}"
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            stub: Any = dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)
            if not hasattr(stub, method):
                stub = node_pb2_grpc.NodeStub(channel)
            call = getattr(stub, method)(request)
            try:
                return [each async for each in call] if hasattr(call, "read") else await call
            except grpc.aio.AioRpcError as error:
                return error

    def count(self, deed: str, kind: Kind) -> bool:
        """Whether one was counted."""
        line = f'dragonfly_client_{deed}_task_blocked_total{{type="{kind.value}"}} 1.0'
        return line in self.daemon.metrics.render().decode()


@pytest.fixture
async def blocked(tmp_path: Path, stack: AsyncExitStack) -> Blocked:
    """By the file."""
    part = {"download": {"tags": ["t"]}}
    both = part | {"upload": {"applications": ["a"]}}
    lists = {"task": part, "cacheTask": part, "persistentCacheTask": both}
    path = tmp_path / "dynconfig.yaml"
    path.write_text(json.dumps({"clientConfig": {"blockList": lists}}))
    daemon = inside.daemon(tmp_path, dynconfig__path=str(path))
    return Blocked(await stack.enter_async_context(daemon))


@pytest.mark.parametrize(
    ("method", "kind"), [("DownloadTask", Kind.STANDARD), ("DownloadCacheTask", Kind.CACHE)]
)
async def test_downloads_are_refused(blocked: Blocked, method: str, kind: Kind) -> None:
    """In one line that names the list; and counted."""
    wanted: dict[str, Any] = {"url": "http://127.0.0.1:1/secret?sig=1", "tag": "t"}
    name = "cache_task" if kind is Kind.CACHE else "task"
    fields = wanted if kind is Kind.CACHE else {"download": wanted}
    request = getattr(dfdaemon_pb2, f"{method}Request")(**fields)
    error = await blocked.ask(method, request)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    path = blocked.daemon.config.dynconfig.path
    assert error.details() == (
        f"blocked for this cluster by block_list.{name}.download.tags in clientConfig of {path}"
    )
    assert blocked.count("download", kind)


async def test_a_refresh_is_refused(blocked: Blocked) -> None:
    """It is a download, too."""
    wanted = common_pb2.Download(url="http://127.0.0.1:1/x", tag="t", type=common_pb2.CACHE)
    error = await blocked.ask("RefreshTask", node_pb2.RefreshTaskRequest(download=wanted))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "by block_list.cache_task.download.tags in" in error.details()
    assert blocked.count("download", Kind.CACHE)


async def test_imports_are_refused(blocked: Blocked, tmp_path: Path) -> None:
    """By the lists for uploads alone."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    request = dfdaemon_pb2.UploadPersistentCacheTaskRequest(
        path=str(file), persistent_replica_count=1, application="a", tag="t"
    )
    request.ttl.FromSeconds(600)
    error = await blocked.ask("UploadPersistentCacheTask", request)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "by block_list.persistent_cache_task.upload.applications in" in error.details()
    assert blocked.count("upload", Kind.PERSISTENT_CACHE)
    request.ClearField("application")
    error = await blocked.ask("UploadPersistentCacheTask", request)
    assert "blocked" not in error.details()


async def test_what_is_here_is_refused_too(blocked: Blocked) -> None:
    """Also where no download is begun for it; and from the moment on in which it is blocked."""
    gate, lists = blocked.daemon.node.gate, blocked.daemon.node.gate.lists
    wanted, _ = inside.wish("http://h/x", tag="t")
    with pytest.raises(Forbidden):
        gate.check_download(wanted)
    gate.follow(BlockLists(), "nobody")
    gate.check_download(wanted)
    gate.follow(lists, "somebody")
    with pytest.raises(Forbidden, match="in somebody"):
        gate.check_download(wanted)
