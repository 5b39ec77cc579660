"""daemon/serving/handoff_tasks.py: what ``dfctl`` learns over the hand-off socket, as over gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pantala.cli import dfctl
from pantala.cli._tasks_grpc import GrpcTasks
from pantala.cli._tasks_handoff import HandoffTasks, NotServed
from pantala.daemon.app import Daemon
from pantala.daemon.serving.caller import Caller
from pantala.daemon.serving.handoff_client import MakeDescriptor
from pantala.daemon.serving.handoff_request import TaskWish, parse_task_wish
from pantala.errors import DragonflyError, FeatureOff, InvalidRequest, Unavailable
from pantala.model.task import Kind, TaskRecord
from pantala.scheduler.app import Scheduler
from pantala.testing import inside
from pantala.testing.cluster import Cluster
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin
from pantala.wire.handoff import MAX_JSON

MIB = 1 << 20
GONE = "f" * 64
KINDS = dfctl._KINDS


@pytest.fixture
async def scheduler(stack: AsyncExitStack, tmp_path: Path) -> Scheduler:
    """It keeps what is imported."""
    return await stack.enter_async_context(
        inside.scheduler(database__sqlite__path=str(tmp_path / "s.db"))
    )


@pytest.fixture
async def daemon(stack: AsyncExitStack, scheduler: Scheduler, tmp_path: Path) -> Daemon:
    """One that may import files."""
    return await stack.enter_async_context(
        inside.daemon(tmp_path, port=scheduler.port, download__server__allowImportPath=True)
    )


Tasks = HandoffTasks | GrpcTasks
Ask = Callable[[Tasks], Any]


def socket_of(daemon: Daemon) -> str:
    """Where gRPC listens."""
    return str(daemon.config.download.server.socket_path)


async def by_handoff(daemon: Daemon, ask: Ask) -> Any:
    """What is answered, or the error that ``dfctl`` shows."""

    def run() -> Any:
        tasks = HandoffTasks.at(socket_of(daemon))
        assert tasks is not None
        return _answer(tasks, ask)

    return await asyncio.to_thread(run)


async def by_grpc(daemon: Daemon, ask: Ask) -> Any:
    """The same over the other socket."""

    def run() -> Any:
        with GrpcTasks.at(socket_of(daemon)) as tasks:
            return _answer(tasks, ask)

    return await asyncio.to_thread(run)


def _answer(tasks: Tasks, ask: Ask) -> Any:
    try:
        return ask(tasks)
    except DragonflyError as error:
        return type(error), str(error)


async def same(daemon: Daemon, ask: Ask) -> Any:
    """What both sockets answer, who must agree."""
    one, other = await by_handoff(daemon, ask), await by_grpc(daemon, ask)
    assert one == other
    # What went through JSON is what --json prints.
    assert json.loads(json.dumps(one)) == json.loads(json.dumps(other)) if ok(one) else True
    return one


def ok(answer: Any) -> bool:
    """It is no error."""
    return not (isinstance(answer, tuple) and isinstance(answer[0], type))


async def fill(daemon: Daemon, origin: Origin, tmp_path: Path) -> dict[str, list[str]]:
    """Have it hold tasks of each kind, one of them in part; their ids by the word for the kind."""
    for at, size in enumerate((0, 1000, 9 * MIB)):
        origin.put(f"/{at}", Pattern(size, at))
        url = origin.url(f"/{at}").replace("://", "://me:secret@") + "?sig=secret"
        await inside.get(daemon, url, tag="t" if at else None, application="ä\n" * at)
        await inside.get(daemon, url, kind=Kind.STANDARD, request_header={"X": "secret"})
    await inside.get(daemon, origin.url("/2"), tag="part", request_header={"Range": "bytes=0-9"})
    (tmp_path / "file").write_bytes(Pattern(5 * MIB, 9).read())
    await asyncio.to_thread(_import, socket_of(daemon), tmp_path / "file")
    return {
        word: [h.id for h in daemon.stores if h.kind.name == kind.type]
        for word, kind in KINDS.items()
    }


def _import(endpoint: str, path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pantala.cli.dfcache", "import", str(path), "-e", endpoint],
        check=True,
        capture_output=True,
        timeout=60,
    )


async def test_answers_are_those_of_grpc(daemon: Daemon, origin: Origin, tmp_path: Path) -> None:
    """Of each kind: the list, each task, one that is not there, and what is deleted."""
    ids = await fill(daemon, origin, tmp_path)
    assert [len(found) for found in ids.values()] == [3, 4, 1]
    for word, kind in KINDS.items():
        rows, figures = await same(daemon, partial(_held, kind))
        assert [row["id"] for row in rows] == ids[word]
        assert figures["used_bytes"] > 0
        for one in (*ids[word], GONE):
            row = await same(daemon, partial(_stat, kind, one))
            assert "secret" not in str(row)
            assert ok(row) == (one != GONE)
        for swarm in (False, True):
            gone = await same(daemon, partial(_delete, kind, GONE, swarm))
            assert f"the daemon at {socket_of(daemon)}: " in gone[1]


def _held(kind: dfctl._Kind, tasks: Tasks) -> Any:
    return tasks.held(kind)


def _stat(kind: dfctl._Kind, task_id: str, tasks: Tasks) -> Any:
    return tasks.stat(kind, {"task_id": task_id})


def _delete(kind: dfctl._Kind, task_id: str, swarm: bool, tasks: Tasks) -> Any:  # noqa: FBT001  for partial
    return tasks.delete(kind, {"task_id": task_id}, swarm=swarm)


@pytest.mark.parametrize("ask", [by_handoff, by_grpc])
@pytest.mark.parametrize("swarm", [False, True])
async def test_what_is_deleted_is_gone(
    daemon: Daemon,
    origin: Origin,
    tmp_path: Path,
    ask: Any,
    swarm: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    """Whichever socket was asked; hosts are told only where several may be meant."""
    ids = await fill(daemon, origin, tmp_path)
    us = daemon.config.host_id
    for word, kind in KINDS.items():
        one = ids[word][0]
        answer = await ask(daemon, partial(_delete, kind, one, swarm))
        told = swarm or kind.type == "PERSISTENT_CACHE"
        assert answer == ([us] if told else [], {})
        assert daemon.stores.get(Kind[kind.type], one) is None
        assert [row["id"] for row in (await ask(daemon, partial(_held, kind)))[0]] == (
            ids[word][1:]
        )


async def test_a_list_of_many(tmp_path: Path, stack: AsyncExitStack) -> None:
    """It comes in several frames, each within the limit, however long the texts in it are."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, storage__cacheCapacity="1GiB"))
    for at in range(3000):
        path = "x" * (8000 if at % 2 == 0 else 10)
        url = f"http://origin/{path}/{at}"
        daemon.stores.open(TaskRecord(Kind.CACHE, f"{at:064x}", url, 1e9 + at, 1.5e9 + at / 7))
    frames = await asyncio.to_thread(_frames_of, daemon, {"op": "list"})
    assert len(frames) > 12
    assert max(map(len, frames)) <= MAX_JSON
    rows, _ = await same(daemon, partial(_held, KINDS["cache-task"]))
    assert len(rows) == 3000


def _frames_of(daemon: Daemon, request: Mapping[str, Any]) -> list[bytes]:
    """What a client without our code reads, until the daemon closes."""
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as stream:
        sock.settimeout(30)
        sock.connect(str(daemon.config.download.server.handoff_path))
        text = json.dumps(request).encode()
        sock.sendall(struct.pack("!I", len(text)) + text)
        frames: list[bytes] = []
        while not frames or json.loads(frames[-1])["event"] not in ("done", "error"):
            (size,) = struct.unpack("!I", stream.read(4))
            frames.append(stream.read(size))
    return frames


async def test_a_name_that_no_frame_holds(tmp_path: Path, stack: AsyncExitStack) -> None:
    """Keeps nobody from hearing of the others, and of its beginning."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path))
    for at, tag in enumerate(("a", "b" * MAX_JSON, "c")):
        record = TaskRecord(Kind.CACHE, f"{at:064x}", "http://origin/x", 1e9, 1e9, tag=tag)
        daemon.stores.open(record)
    frames = await asyncio.to_thread(_frames_of, daemon, {"op": "list"})
    rows = [row for frame in frames for row in json.loads(frame).get("tasks", ())]
    assert [row["tag"] for row in rows] == ["a", "b" * 4096 + "…", "c"]
    (frame,) = await asyncio.to_thread(_frames_of, daemon, {"op": "stat", "task_id": f"{1:064x}"})
    assert json.loads(frame)["task"]["tag"] == "b" * 4096 + "…"


async def test_a_daemon_that_goes_in_between(daemon: Daemon) -> None:
    """What was done already is not done again by gRPC."""
    asked = await asyncio.to_thread(HandoffTasks.at, socket_of(daemon))
    assert asked is not None
    await asyncio.to_thread(_held, KINDS["cache-task"], asked)
    daemon.config.download.server.handoff_path.unlink()
    with pytest.raises(Unavailable, match="any more"):
        await asyncio.to_thread(_held, KINDS["cache-task"], asked)


class Told:
    """A client that takes all at once, so that nobody gets a turn while it does."""

    goes_on = False
    patience = 1.0
    caller = Caller(os.geteuid(), may_write=False)

    def __init__(self) -> None:
        self.told: list[str] = []

    async def send(
        self,
        message: Mapping[str, Any],
        make: MakeDescriptor | None = None,
        content: memoryview | None = None,
    ) -> bool:
        """Take note of it."""
        del make, content
        self.told.append(message["event"])
        return True

    async def wait_until_gone(self) -> None:
        """It stays."""
        await asyncio.Event().wait()


async def test_others_are_served_meanwhile(tmp_path: Path, stack: AsyncExitStack) -> None:
    """Between two frames of a long list."""
    daemon = await stack.enter_async_context(inside.daemon(tmp_path, storage__cacheCapacity="1GiB"))
    for at in range(3000):
        daemon.stores.open(TaskRecord(Kind.CACHE, f"{at:064x}", "http://origin/x", 1e9, 1e9))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.TaskGroup() as group:
        other = group.create_task(turn())
        client = Told()
        await daemon.handoff._tasks.answer(client, "list", {})
        other.cancel()
    assert turns > len(client.told) // 2 > 5


@pytest.mark.parametrize(
    ("op", "given", "words"),
    [
        ("list", {"task_id": GONE}, "unknown key 'task_id' in a list request"),
        ("stat", {}, "a stat request of a CACHE task needs a 'task_id' or a 'url'"),
        ("stat", {"task_id": GONE, "url": "http://o/f"}, "a 'task_id' or 'url', not both"),
        ("stat", {"task_id": GONE, "tag": "t"}, "a 'task_id' or 'tag', not both"),
        (
            "delete",
            {"url": "http://o/f", "kind": "PERSISTENT_CACHE"},
            "a delete request of a PERSISTENT_CACHE task needs a 'task_id'$",
        ),
        ("stat", {"task_id": 5}, "'task_id' must be str, not int"),
        ("stat", {"task_id": GONE, "swarm": True}, "unknown key 'swarm' in a stat request"),
        ("delete", {"task_id": GONE, "swarm": 1}, "'swarm' must be bool, not int"),
        ("delete", {"task_id": GONE, "kind": "x"}, "unknown 'kind' 'x': want "),
    ],
)
def test_requests_that_make_no_sense(op: str, given: dict[str, Any], words: str) -> None:
    """The key is named."""
    with pytest.raises(InvalidRequest, match=words):
        parse_task_wish(op, given)


def test_requests() -> None:
    """Absent and null mean the same; a kind that is not served is refused as that."""
    assert parse_task_wish("list", {"kind": None}) == TaskWish(Kind.CACHE, "", None, swarm=False)
    wish = {"kind": "STANDARD", "task_id": GONE, "swarm": True}
    assert parse_task_wish("delete", wish) == TaskWish(Kind.STANDARD, GONE, None, swarm=True)
    with pytest.raises(FeatureOff, match="PERSISTENT tasks are not served"):
        parse_task_wish("list", {"kind": "PERSISTENT"})


async def test_a_refusal(daemon: Daemon) -> None:
    """Ids are checked where they enter."""
    (frame,) = await asyncio.to_thread(_frames_of, daemon, {"op": "stat", "task_id": "../x"})
    event = json.loads(frame)
    assert (event["event"], event["code"]) == ("error", "INVALID_ARGUMENT")
    assert "64 lower-case hexadecimal digits" in event["message"]


# -- rights ----------------------------------------------------------------------------------------


async def test_who_may_not_download_may_by_grpc(
    tmp_path: Path, stack: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where users are named and the daemon's own is not: its socket is for it alone."""
    daemon = await stack.enter_async_context(
        inside.daemon(tmp_path, download__server__allowUsers=[os.geteuid() + 1])
    )
    with pytest.raises(NotServed):
        await by_handoff(daemon, partial(_held, KINDS["cache-task"]))
    argv = ["cache-task", "ls", "-e", socket_of(daemon)]
    assert await asyncio.to_thread(dfctl.run, argv, {}) == 0
    assert "0 tasks, 0 B of" in capsys.readouterr().out


#: As another user: may it download, list and delete, and does ``dfctl``?
_STRANGER = """
import os, sys, time
from pantala.cli import dfctl
from pantala.client.connection import connect
endpoint = sys.argv[1]
ls = ["cache-task", "ls", "-e", endpoint]
dfctl.run(ls, {})  # others need not be able to read the modules that this imports
os.setuid(65534)
for op in ("info", "list", "stat", "delete"):
    with connect(endpoint) as connection:
        wish = {"task_id": "f" * 64} if op in ("stat", "delete") else {}
        connection.send({"op": op, **wish}, deadline=time.monotonic() + 30)
        event = connection.receive(deadline=time.monotonic() + 30)
        print(">", event.get("code", event["event"]))
print(">", dfctl.run(ls, {}))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("named", [False, True])
async def test_who_may(tmp_path: Path, stack: AsyncExitStack, named: bool) -> None:  # noqa: FBT001  a parameter of the test
    """Whoever may use the gRPC socket: where users are named, that is for the daemon's own."""
    await asyncio.to_thread(tmp_path.chmod, 0o711)
    daemon = await stack.enter_async_context(
        inside.daemon(
            tmp_path,
            download__server__socketMode="0666",
            download__server__allowUsers=[65534] if named else [],
        )
    )
    stranger = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STRANGER, socket_of(daemon)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await stranger.communicate()
    told = [line[2:] for line in output.decode().splitlines() if line.startswith("> ")]
    if named:
        assert told == ["info", *["PERMISSION_DENIED"] * 3, "1"], errors
        assert b"dfctl: no permission to use" in errors
    else:
        assert told == ["info", "done", "NOT_FOUND", "NOT_FOUND", "0"], errors


def test_a_whole_program(tmp_path: Path, origin: Origin) -> None:
    """``dfctl`` of a daemon that runs: what was downloaded is listed, shown, removed."""
    origin.put("/f", Pattern(5 * MIB))
    with Cluster(tmp_path) as cluster:
        node = cluster.daemon("a", scheduler=False)
        task = cluster.get(node, origin.url("/f")).result["task_id"]
        (row,) = cluster.command("dfctl", node, "cache-task", "ls").result["tasks"]
        assert (row["id"], row["content_length"]) == (task, 5 * MIB)
        assert cluster.command("dfctl", node, "cache-task", "stat", task).result["id"] == task
        removed = cluster.command("dfctl", node, "cache-task", "rm", task, GONE)
        assert (removed.code, removed.result["removed"]) == (1, [task])
        assert list(removed.result["failed"]) == [GONE]
        assert not cluster.command("dfctl", node, "cache-task", "ls").result["tasks"]
