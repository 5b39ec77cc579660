"""cli/dfctl.py: the program against real gRPC servers on unix sockets."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from pantala import BUILD_VERSION
from pantala.cli import _daemon, _tasks_handoff, dfctl
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS
from pantala.model.ids import task_id
from pantala.model.pieces import pieces_for
from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2, node_pb2
from pantala.testing.handoff_daemon import Conversation, HandoffDaemon

ONE, TWO, GONE = "1" * 64, "2" * 64, "f" * 64


class _Daemon:
    """Answers what ``dfctl`` asks, and notes which cache RPCs came."""

    def __init__(self) -> None:
        self.version = BUILD_VERSION
        self.asked: list[str] = []
        self.pieces = [common_pb2.Piece(length=4 << 20)]
        self.tasks = [
            node_pb2.NodeTask(
                id=ONE,
                type=common_pb2.CACHE,
                url="https://me:pw@origin.example/models/a-rather-long-name.safetensors?sig=s3cret",
                tag="t",
                piece_length=4 << 20,
                content_length=10 << 20,
                piece_count=3,
                finished_piece_count=2,
                reserved_bytes=12 << 20,
                lease_count=7,
                created_at=Timestamp(seconds=1_700_000_000),
                updated_at=Timestamp(seconds=1_700_000_060),
            )
        ]

    def info(self, _request: node_pb2.InfoRequest, _context: object) -> node_pb2.InfoResponse:
        return node_pb2.InfoResponse(version=self.version, host_id="h")

    def list_tasks(
        self, request: node_pb2.ListTasksRequest, _context: object
    ) -> node_pb2.ListTasksResponse:
        assert request.type == common_pb2.CACHE
        return node_pb2.ListTasksResponse(
            tasks=self.tasks, capacity_bytes=1 << 30, used_bytes=12 << 20
        )

    def stat(
        self, request: dfdaemon_pb2.StatCacheTaskRequest, context: grpc.ServicerContext
    ) -> common_pb2.CacheTask:
        self.asked.append(request.task_id)
        if request.task_id == GONE:
            context.abort(grpc.StatusCode.NOT_FOUND, f"task {GONE} not found")
        return common_pb2.CacheTask(
            id=request.task_id,
            url="http://origin/x?sig=s3cret",
            request_header={"Authorization": "s3cret"},
            state="Succeeded",
            content_length=10 << 20,
            piece_count=3,
            peer_count=2,
            has_available_peer=True,
            pieces=self.pieces,
            created_at=Timestamp(seconds=1_700_000_000),
        )

    def delete(
        self, request: dfdaemon_pb2.DeleteCacheTaskRequest, context: grpc.ServicerContext
    ) -> Empty:
        self.asked.append(request.task_id)
        if request.task_id == GONE:
            context.abort(grpc.StatusCode.NOT_FOUND, f"task {GONE} not found")
        return Empty()


def _handlers(daemon: _Daemon, *, ours: bool) -> list[grpc.GenericRpcHandler]:
    def unary(call: Any, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    node = {
        "Info": unary(daemon.info, node_pb2.InfoRequest),
        "ListTasks": unary(daemon.list_tasks, node_pb2.ListTasksRequest),
    }
    download = {
        "StatCacheTask": unary(daemon.stat, dfdaemon_pb2.StatCacheTaskRequest),
        "DeleteCacheTask": unary(daemon.delete, dfdaemon_pb2.DeleteCacheTaskRequest),
    }
    handlers = [grpc.method_handlers_generic_handler("dfdaemon.v2.DfdaemonDownload", download)]
    if ours:
        handlers.append(grpc.method_handlers_generic_handler("pantala.v1.Node", node))
    return handlers


@contextlib.contextmanager
def _served(path: Path, *, ours: bool = True) -> Iterator[_Daemon]:
    """A daemon at *path*; a stock one if it is not *ours*."""
    daemon = _Daemon()
    server = grpc.server(ThreadPoolExecutor(2), handlers=_handlers(daemon, ours=ours))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield daemon
    finally:
        server.stop(None).wait(20)


def _run(*arguments: str) -> int:
    try:
        return dfctl.run(arguments, os.environ)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket that the environment names; times are shown as in Greenwich."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    path = tmp_path / "dfdaemon.sock"
    monkeypatch.setenv("DFCTL_DFDAEMON_ENDPOINT", str(path))
    yield path
    monkeypatch.undo()
    time.tzset()


def test_ls(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each task, whole ids, and what is used of how much."""
    with _served(endpoint):
        assert _run("cache-task", "ls") == 0
    head, line, summary = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "ID"
    assert line.split() == [
        *(
            ONE,
            "https://origin.example/models/a-rather-long-name.safetensors",
            "4.0",
            "MiB",
            "10.0",
            "MiB",
            "2/3",
        ),
        *("2023-11-14", "22:13:20", "-", "-", "2023-11-14", "22:14:20", "7"),
    ]
    assert summary == "1 task, 12.0 MiB of 1.0 GiB used"


def test_ls_of_nothing(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the summary."""
    with _served(endpoint) as daemon:
        daemon.tasks.clear()
        assert _run("cache-task", "ls") == 0
    assert capsys.readouterr().out == "0 tasks, 12.0 MiB of 1.0 GiB used\n"


def test_ls_for_programs(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are numbers; nothing secret."""
    with _served(endpoint):
        assert _run("cache-task", "ls", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "tasks": [
            {
                "id": ONE,
                "type": "CACHE",
                "url": "https://origin.example/models/a-rather-long-name.safetensors",
                "tag": "t",
                "application": None,
                "piece_length": 4 << 20,
                "content_length": 10 << 20,
                "piece_count": 3,
                "finished_piece_count": 2,
                "reserved_bytes": 12 << 20,
                "lease_count": 7,
                "uploaded_count": 0,
                "created_at": "2023-11-14T22:13:20+00:00",
                "finished_at": None,
                "failed_at": None,
                "updated_at": "2023-11-14T22:14:20+00:00",
            }
        ],
        "capacity_bytes": 1 << 30,
        "used_bytes": 12 << 20,
    }


def test_stat(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fact a line; without the headers, which may hold credentials."""
    with _served(endpoint):
        assert _run("cache-task", "stat", ONE) == 0
        text = capsys.readouterr().out
        assert _run("cache-task", "stat", ONE, "--json") == 0
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    facts = {name: value.strip() for name, value in lines.items()}
    assert facts["ID"] == ONE
    assert facts["URL"] == "http://origin/x"
    assert facts["STATE"] == "Succeeded"
    assert facts["PIECE LENGTH"] == "4.0 MiB"
    assert facts["AVAILABLE"] == "yes"
    assert facts["CREATED"] == "2023-11-14 22:13:20"
    assert facts["UPDATED"] == facts["TAG"] == "-"
    out = capsys.readouterr().out
    assert json.loads(out)["piece_length"] == 4 << 20
    assert "s3cret" not in text + out


@pytest.mark.parametrize(
    ("content", "asked", "shown"),
    [
        (0, 4 << 20, None),
        (11_358, 4 << 20, 11_358),
        (5 << 20, 16 << 20, 5 << 20),
        (4 << 20, 4 << 20, 4 << 20),
        (10 << 20, 4 << 20, 4 << 20),
    ],
)
def test_ls_and_stat_agree(
    endpoint: Path, capsys: pytest.CaptureFixture[str], content: int, asked: int, shown: int | None
) -> None:
    """On how long the pieces are, whichever of them a stat lists; a single one is the content."""
    pieces = [
        [common_pb2.Piece(**asdict(piece))]
        for piece in pieces_for(None, content_length=content, piece_length=asked)
    ]
    with _served(endpoint) as daemon:
        daemon.tasks[0].content_length, daemon.tasks[0].piece_length = content, asked
        assert _run("cache-task", "ls", "--json") == 0
        (listed,) = json.loads(capsys.readouterr().out)["tasks"]
        assert listed["piece_length"] == shown
        for daemon.pieces in pieces or [[]]:
            assert _run("cache-task", "stat", ONE, "--json") == 0
            assert json.loads(capsys.readouterr().out)["piece_length"] == shown


def test_what_is_not_there(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and status 1."""
    with _served(endpoint):
        assert _run("cache-task", "stat", GONE) == 1
        message = f"the daemon at {endpoint}: task {GONE} not found"
        assert capsys.readouterr() == ("", f"dfctl: {message}\n")
        assert _run("cache-task", "stat", GONE, "--json") == 1
    out = capsys.readouterr().out
    assert json.loads(out) == {"error": {"code": "NOT_FOUND", "message": message}}


def test_rm_goes_on(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails does not keep the others, but shows in the status."""
    with _served(endpoint) as daemon:
        assert _run("cache-task", "rm", ONE) == 0
        assert capsys.readouterr() == (f"removed {ONE}\n", "")
        assert _run("cache-task", "rm", ONE, GONE, TWO) == 1
        out, err = capsys.readouterr()
        assert out == f"removed {ONE}\nremoved {TWO}\n"
        assert err == f"dfctl: the daemon at {endpoint}: task {GONE} not found\n"
        assert _run("cache-task", "rm", ONE, GONE, "--json") == 1
        assert daemon.asked == [ONE, ONE, GONE, TWO, ONE, GONE]
    result = json.loads(capsys.readouterr().out)
    assert result["removed"] == [ONE]
    assert list(result["failed"]) == [GONE]


def test_ids_are_checked_first(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, before any daemon is asked."""
    for command in (["stat", "abc"], ["rm", ONE, "ABC"]):
        assert _run("cache-task", *command, "-e", str(endpoint)) == 2
        assert "64 lower-case hexadecimal digits" in capsys.readouterr().err


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment says what content is."""
    for name in [name for name in os.environ if name.startswith("DFCTL_")]:
        if "ENDPOINT" not in name:
            monkeypatch.delenv(name)


def test_the_beginning_of_an_id(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is enough where it is that of one task; four digits at least."""
    other = ONE[:10] + "2" * 54
    with _served(endpoint) as daemon:
        daemon.tasks.append(node_pb2.NodeTask(id=other, type=common_pb2.CACHE))
        assert _run("cache-task", "stat", ONE[:11]) == 0
        assert _run("cache-task", "rm", "1111…", f"{other[:12]}…", "2222", TWO) == 1
        assert daemon.asked == [ONE, other, TWO]
        out, err = capsys.readouterr()
        assert out.endswith(f"\nremoved {other}\nremoved {TWO}\n")
        first, second = err.splitlines()
        assert first == f"dfctl: the ids of 2 tasks begin with 1111: {ONE}, {other}"
        assert second.startswith("dfctl: this daemon has no task whose id begins with 2222; one")
        assert _run("cache-task", "rm", "1111", ONE[:11], "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["removed"], list(result["failed"])) == ([ONE], ["1111"])
    for text in ("111", "11111x", "ABCD", ONE + "1", "…"):
        assert _run("cache-task", "stat", text, "-e", str(endpoint)) == 2
        assert "lower-case hexadecimal digits, the first 4 or more" in capsys.readouterr().err


def test_many_that_begin_alike(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some are named."""
    with _served(endpoint) as daemon:
        ids = [f"abcd{n:060d}" for n in range(12)]
        daemon.tasks[:] = [node_pb2.NodeTask(id=each, type=common_pb2.CACHE) for each in ids]
        assert _run("cache-task", "stat", "abcd") == 1
    line = f"dfctl: the ids of 12 tasks begin with abcd: {', '.join(ids[:10])} and 2 more\n"
    assert capsys.readouterr().err == line


SIGNED = "https://me:s3cret@h/a?X-Amz-Signature=s3cret&v=2"
FLAGS = ("--tag", "t", "--application", "a", "--piece-length", "8MiB", "-H", "Accept: x")


@pytest.mark.usefixtures("no_variables")
def test_a_url_by_handoff(
    endpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is told what dfget would tell it; nothing secret is printed."""

    def answer(talk: Conversation) -> None:
        task = {"id": ONE, "url": "https://h/a"}
        talk.send(event="done", task=task, host_ids=[], failed={})

    names = {"url": SIGNED, "filtered_query_params": list(DEFAULT_FILTERED_QUERY_PARAMS)}
    with HandoffDaemon(endpoint.parent, answer) as daemon:
        assert _run("task", "stat", SIGNED) == 0
        monkeypatch.setenv("DFCTL_TAG", "env")
        assert _run("cache-task", "rm", SIGNED, ONE, *FLAGS[2:], "--filtered-query-param", "v") == 0
    stat, rm, other = daemon.requests
    assert stat == {"op": "stat", "kind": "STANDARD", **names}
    assert other == {"op": "delete", "kind": "CACHE", "task_id": ONE, "swarm": False}
    assert rm == {
        "op": "delete",
        "kind": "CACHE",
        "swarm": False,
        "url": SIGNED,
        "tag": "env",
        "application": "a",
        "piece_length": 8 << 20,
        "request_header": {"Accept": "x"},
        "filtered_query_params": ["v"],
    }
    out, err = capsys.readouterr()
    assert out.endswith(f"removed https://h/a\nremoved {ONE}\n")
    assert "s3cret" not in out + err


@pytest.mark.usefixtures("no_variables")
def test_a_url_by_grpc(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its id is made here, as the daemon makes it."""
    with _served(endpoint) as daemon:
        assert _run("cache-task", "stat", SIGNED) == 0
        assert _run("cache-task", "rm", SIGNED, *FLAGS) == 0
        assert _run("cache-task", "rm", SIGNED, "--content-for-calculating-task-id", "c") == 0
    filtered = DEFAULT_FILTERED_QUERY_PARAMS
    plain = task_id(Kind.CACHE, SIGNED, filtered_query_params=filtered)
    flagged = task_id(
        Kind.CACHE,
        SIGNED,
        filtered_query_params=filtered,
        tag="t",
        application="a",
        piece_length=8 << 20,
        request_header={"Accept": "x"},
    )
    assert daemon.asked == [plain, flagged, task_id(Kind.CACHE, SIGNED, content="c")]
    assert "s3cret" not in "".join(capsys.readouterr())


def test_urls_that_name_no_task(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage."""
    for arguments, words in (
        (["persistent-cache-task", "rm", "http://h/a"], "have no URL: name them by their ids"),
        (["task", "stat", "http://:s3cret@/a"], "it names no host"),
        (["task", "stat", "http://h/a", "-H", "s3cret"], "header 1 has no colon"),
    ):
        assert _run(*arguments, "-e", str(endpoint)) == 2
        err = capsys.readouterr().err
        assert words in err
        assert "s3cret" not in err


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120, 160, 250])
def test_a_list_fits_the_terminal(endpoint: Path, columns: int) -> None:
    """Ids are cut first, then URLs; then it does without some columns."""
    with _served(endpoint):
        drawn = {flags: _on_terminal(columns, *flags) for flags in ((), ("--no-trunc",))}
    whole = drawn["--no-trunc",]
    head, line, summary = drawn[()]
    assert max(map(len, (head, line))) <= columns
    assert summary == whole[2] == "1 task, 12.0 MiB of 1.0 GiB used"
    assert ONE in whole[1]
    assert (line == whole[1]) == (columns >= len(whole[1]))
    if columns >= 60:
        assert line.startswith("111111111111")
        assert "  https://o" in line
        assert "10.0 MiB" in line
    if 120 <= columns < 250:
        assert line.startswith("111111111111…  https")


def _on_terminal(columns: int, *flags: str) -> list[str]:
    """The lines of ``dfctl cache-task ls`` on a terminal that is so wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "pantala.cli.dfctl", "cache-task", "ls", *flags]
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        client = subprocess.Popen(command, stdout=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO, when the client has gone
            while data := terminal.read(4096):
                shown += data
        assert client.wait(30) == 0
    return shown.decode().splitlines()


@pytest.mark.parametrize("empty", ["", "unix:", "unix://"])
def test_an_endpoint_that_is_empty(
    endpoint: Path, capsys: pytest.CaptureFixture[str], empty: str
) -> None:
    """Wrong usage, though the environment names another."""
    with _served(endpoint):
        assert _run("cache-task", "ls", "-e", empty) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--endpoint" in line
    assert f"{empty!r}: want the path of a socket" in line
    assert "[" not in line  # no Python
    assert _run("cache-task", "ls", "--help") == 0
    assert "DFCTL_ENDPOINT" in capsys.readouterr().out


def test_an_endpoint_as_grpc_writes_it(
    endpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As dfget takes it; and an empty variable counts as unset."""
    monkeypatch.setenv("DFCTL_DFDAEMON_ENDPOINT", "")
    monkeypatch.setenv("DFCTL_ENDPOINT", f"unix://{endpoint}")
    with _served(endpoint):
        assert _run("cache-task", "ls") == 0
    assert capsys.readouterr().out.endswith("1 task, 12.0 MiB of 1.0 GiB used\n")


def test_a_stock_daemon_is_spared(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would die of the question."""
    with _served(endpoint, ours=False) as stock:
        for command in (["ls"], ["stat", ONE], ["rm", ONE]):
            assert _run("cache-task", *command) == 1
            assert capsys.readouterr().err == (
                f"dfctl: the daemon at {endpoint} is not pantala: a cache RPC would kill it\n"
            )
        assert stock.asked == []
    with _served(endpoint) as other:
        other.version = "v2.1.0"
        assert _run("cache-task", "rm", ONE) == 1
        assert other.asked == []
    assert "is not pantala" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("INVALID_ARGUMENT", "unknown op 'list': want 'info' or 'download'"),
        ("PERMISSION_DENIED", "user 5 is not among download.server.allowUsers"),
    ],
    ids=["older", "another's"],
)
def test_a_daemon_that_does_not_serve_it_by_handoff(
    endpoint: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    """It is asked by gRPC instead, once."""

    def refuse(talk: Conversation) -> None:
        talk.send(event="error", code=code, message=message)

    with HandoffDaemon(endpoint.parent, refuse) as other, _served(endpoint) as daemon:
        assert _run("cache-task", "ls") == _run("cache-task", "stat", ONE) == 0
        assert _run("cache-task", "rm", ONE, TWO) == 0
        assert [request["op"] for request in other.requests] == ["list", "stat", "delete"]
        assert daemon.asked == [ONE, ONE, TWO]
    out, err = capsys.readouterr()
    assert (out.endswith(f"removed {ONE}\nremoved {TWO}\n"), err) == (True, "")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "done"}, "sent capacity_bytes=None"),
        ({"event": "error", "code": "NOT_FOUND", "message": "no\x1b[31m such"}, "no [31m such"),
        ({"event": "error"}, "None"),
        (None, "closed the connection too early: if it is still running, its log says why"),
    ],
)
def test_strange_answers(
    endpoint: Path, capsys: pytest.CaptureFixture[str], event: dict[str, Any] | None, said: str
) -> None:
    """One line, and status 1; what gRPC would say does not matter."""

    def answer(talk: Conversation) -> None:
        if event is not None:
            talk.send(**event)

    with HandoffDaemon(endpoint.parent, answer):
        assert _run("cache-task", "ls") == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"dfctl: the daemon at {endpoint}")
    assert said in err


def test_a_daemon_that_is_stuck(
    endpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for as long as one that has to ask its scheduler."""
    monkeypatch.setattr(_tasks_handoff, "_SHORT", 0.1)
    with HandoffDaemon(endpoint.parent, lambda talk: talk.wait_closed()):
        assert _run("cache-task", "ls") == 1
    line = f"dfctl: no answer in time from the daemon at {endpoint}\n"
    assert capsys.readouterr() == ("", line)


def test_no_daemon(endpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, not in gRPC's."""
    assert _run("cache-task", "ls") == 1
    assert capsys.readouterr().err == (
        f"dfctl: no daemon at {endpoint}: start dfdaemon, or name its socket with --endpoint\n"
    )


@contextlib.contextmanager
def _foreign(path: Path, answer: bytes) -> Iterator[None]:
    """A program at *path* that is no daemon; without an *answer* it holds the line."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        held = []

        def serve() -> None:
            with contextlib.suppress(OSError):  # it is shut down
                while True:
                    client, _ = listener.accept()
                    held.append(client)
                    if answer:
                        client.recv(1000)
                        client.sendall(answer)
                        client.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in held:
                client.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_socket_of_another_program(
    endpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
) -> None:
    """Said in words, and what to do; not what gRPC thinks of its frames."""
    monkeypatch.setattr(_daemon, "SHORT", 0.5)
    with _foreign(endpoint, answer):
        assert _run("cache-task", "ls") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dfctl: no daemon answers at {endpoint}: ")
    assert "the socket is another program's; name that of a daemon with --endpoint" in line
    assert "HTTP/2" not in line


def test_the_personal_daemon_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no other was named and the machine has none."""
    monkeypatch.setattr(_daemon, "DEFAULT_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "pantala").mkdir()
    with _served(tmp_path / "pantala" / "dfdaemon.sock"):
        assert _run("cache-task", "ls") == 0
    assert capsys.readouterr().out.endswith("1 task, 12.0 MiB of 1.0 GiB used\n")
    assert _run("cache-task", "ls") == 1
    assert " or " in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both end with status 0."""
    assert _run("--version") == 0
    assert capsys.readouterr().out == f"dfctl {BUILD_VERSION}\n"
    assert _run("--help") == 0
    assert "dfctl cache-task rm ID ID" in capsys.readouterr().out
