"""cli/dfcache.py: the program against a real gRPC server that speaks the contract."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from pantala import BUILD_VERSION
from pantala.cli import dfcache
from pantala.pb import common_pb2, dfdaemon_pb2

ONE, GONE = "1" * 64, "f" * 64
CONTENT = bytes(range(256)) * 40
PIECE = 4096


class _Daemon:
    """A stock daemon: it has no service of ours."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.missing = 0

    def upload(
        self,
        request: dfdaemon_pb2.UploadPersistentCacheTaskRequest,
        context: grpc.ServicerContext,
    ) -> common_pb2.PersistentCacheTask:
        self.asked.append(request)
        if request.tag == "refused":
            context.abort(grpc.StatusCode.INTERNAL, "no scheduler is available")
        return self.stat(dfdaemon_pb2.StatPersistentCacheTaskRequest(task_id=ONE), context)

    def stat(
        self, request: dfdaemon_pb2.StatPersistentCacheTaskRequest, context: grpc.ServicerContext
    ) -> common_pb2.PersistentCacheTask:
        if request.task_id == GONE:
            context.abort(grpc.StatusCode.NOT_FOUND, f"task {GONE} not found")
        return common_pb2.PersistentCacheTask(
            id=request.task_id,
            persistent_replica_count=3,
            current_persistent_replica_count=2,
            current_replica_count=4,
            tag="t",
            piece_length=4 << 20,
            content_length=10 << 20,
            piece_count=3,
            state="Succeeded",
            ttl=Duration(seconds=90_000),
        )

    def download(
        self,
        request: dfdaemon_pb2.DownloadPersistentCacheTaskRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[dfdaemon_pb2.DownloadPersistentCacheTaskResponse]:
        self.asked.append(request)
        if request.task_id == GONE:
            context.abort(grpc.StatusCode.NOT_FOUND, f"task {GONE} not found")
        response = dfdaemon_pb2.DownloadPersistentCacheTaskResponse
        begun = dfdaemon_pb2.DownloadPersistentCacheTaskStartedResponse
        yield response(
            download_persistent_cache_task_started_response=begun(content_length=len(CONTENT))
        )
        offsets = range(0, len(CONTENT), PIECE)
        for number, offset in reversed(list(enumerate(offsets))[self.missing :]):
            data = CONTENT[offset : offset + PIECE]
            piece = common_pb2.Piece(number=number, offset=offset, length=len(data))
            if request.need_piece_content:
                piece.content = data
            arrived = dfdaemon_pb2.DownloadPieceFinishedResponse(piece=piece)
            yield response(download_piece_finished_response=arrived)
        if request.output_path:
            Path(request.output_path).write_bytes(CONTENT)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Daemon]:
    """One that the environment names."""
    path = tmp_path / "dfdaemon.sock"
    for command in ("IMPORT", "EXPORT", "STAT"):
        monkeypatch.setenv(f"DFCACHE_{command}_DFDAEMON_ENDPOINT", str(path))
    made = _Daemon()
    methods: dict[str, Any] = {
        f"{word}PersistentCacheTask": kind(
            call,
            request_deserializer=getattr(
                dfdaemon_pb2, f"{word}PersistentCacheTaskRequest"
            ).FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for word, call, kind in (
            ("Upload", made.upload, grpc.unary_unary_rpc_method_handler),
            ("Stat", made.stat, grpc.unary_unary_rpc_method_handler),
            ("Download", made.download, grpc.unary_stream_rpc_method_handler),
        )
    }
    handler = grpc.method_handlers_generic_handler("dfdaemon.v2.DfdaemonDownload", methods)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    yield made
    server.stop(None).wait(20)


def _run(*arguments: str) -> int:
    try:
        return dfcache.run(arguments, os.environ)
    except SystemExit as end:
        return int(end.code or 0)


def test_import(daemon: _Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The daemon is told what file, and how it is to be kept; what is printed is the id."""
    file = tmp_path / "model"
    file.write_bytes(CONTENT)
    flags = ("--persistent-replica-count", "3", "--ttl", "25h", "--tag", "t")
    assert _run("import", str(file), *flags, "--piece-length", "8MiB") == 0
    assert capsys.readouterr().out == f"{ONE}\n"
    (asked,) = daemon.asked
    assert (asked.path, asked.persistent_replica_count) == (str(file), 3)
    assert (asked.ttl.seconds, asked.timeout.seconds) == (25 * 3600, 1800)
    assert (asked.tag, asked.piece_length) == ("t", 8 << 20)
    assert not asked.HasField("application")
    assert not asked.HasField("content_for_calculating_task_id")
    assert _run("import", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == ONE


@pytest.mark.usefixtures("daemon")
def test_what_takes_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever waits for the hash of a huge file is told why, unless it needs none."""
    file = tmp_path / "model"
    file.touch()
    os.truncate(file, 5 << 30)
    assert _run("import", str(file)) == 0
    warning = "dfcache: the content's id is its hash, which takes a while for a file of this size\n"
    assert capsys.readouterr().err == warning
    assert _run("import", str(file), "--content-for-calculating-task-id", "x") == 0
    assert capsys.readouterr().err == ""


def test_a_path_is_made_absolute(
    daemon: _Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is somewhere else."""
    (tmp_path / "model").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    assert _run("import", "model", "--content-for-calculating-task-id", "x") == 0
    assert daemon.asked[0].path == str(tmp_path / "model")


def test_an_import_that_fails(
    daemon: _Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and status 1; with --json the same as JSON."""
    assert daemon.asked == []
    assert _run("import", str(_file(tmp_path)), "--tag", "refused", "--json") == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].endswith("no scheduler is available")
    assert json.loads(out)["error"]["code"] == "INTERNAL"


def _file(directory: Path) -> Path:
    file = directory / "model"
    file.write_bytes(CONTENT)
    return file


@pytest.mark.parametrize("target", ["out", "-"])
def test_export_through_the_socket(
    daemon: _Daemon, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], target: str
) -> None:
    """In whatever order the pieces come; the daemon is asked to write nothing."""
    out = tmp_path / "out" if target == "out" else Path("-")
    flags = () if target == "-" else ("--transfer-from-dfdaemon",)
    assert _run("export", ONE, "-O", str(out), *flags) == 0
    written = capfdbinary.readouterr().out if target == "-" else out.read_bytes()
    assert written == CONTENT
    (asked,) = daemon.asked
    assert asked.need_piece_content
    assert not asked.HasField("output_path")


def test_export_by_the_daemon(
    daemon: _Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets the whole path, and writes."""
    out = tmp_path / "out"
    assert _run("export", ONE, "-O", str(out), "--overwrite", "--digest", "crc32:1", "--json") == 0
    (asked,) = daemon.asked
    assert (asked.output_path, asked.overwrite, asked.digest) == (str(out), True, "crc32:1")
    assert not asked.need_piece_content
    assert json.loads(capsys.readouterr().out)["content_length"] == len(CONTENT)


def test_an_export_that_ends_early(
    daemon: _Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves nothing behind, and says how much came."""
    daemon.missing = 1
    out = tmp_path / "out"
    assert _run("export", ONE, "-O", str(out), "--transfer-from-dfdaemon") == 1
    assert not out.exists()
    came = len(CONTENT) - PIECE
    assert f"{came} bytes came, of {len(CONTENT)} bytes" in capsys.readouterr().err
    assert _run("export", GONE, "-O", str(out), "--transfer-from-dfdaemon") == 1
    assert capsys.readouterr().err.endswith(f"task {GONE} not found\n")


def test_an_output_that_exists(
    daemon: _Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is asked."""
    out = _file(tmp_path)
    assert _run("export", ONE, "-O", str(out), "--transfer-from-dfdaemon") == 1
    assert daemon.asked == []
    assert "exists" in capsys.readouterr().err


def test_stat(daemon: _Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A fact a line."""
    assert daemon.asked == []
    assert _run("stat", ONE) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    facts = {name: value.strip() for name, value in lines.items()}
    assert facts["STATE"] == "Succeeded"
    assert (facts["CONTENT LENGTH"], facts["PIECE LENGTH"]) == ("10.0 MiB", "4.0 MiB")
    assert (facts["PERSISTENT REPLICA COUNT"], facts["CURRENT REPLICAS"]) == ("3", "4")
    assert facts["TTL"] == "1d 1h"
    assert _run("stat", ONE, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["ttl"], row["current_persistent_replica_count"]) == (90_000, 2)
    assert _run("stat", GONE) == 1
    assert capsys.readouterr().err.endswith(f"task {GONE} not found\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "COMMAND"),
        (("import",), "PATH"),
        (("import", "/nowhere/at/all"), "no such file"),
        (("import", "/"), "is no file"),
        (("import", "/etc/hostname", "--ttl", "4m"), "want 5m to 7d"),
        (("import", "/etc/hostname", "--persistent-replica-count", "0"), "want 1 to 1000"),
        (("import", "/etc/hostname", "--piece-length", "1MiB"), "want 4MiB to 64MiB"),
        (("export", ONE), "-O"),
        (("export", "abc", "-O", "x"), "64 lower-case hexadecimal digits"),
        (("export", ONE, "-O", "-", "--json"), "both want stdout"),
        (("export", ONE, "-O", "-", "--force-hard-link"), "--force-hard-link"),
        (("stat", ONE, "--endpoint", ""), "--endpoint"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    """Status 2, and the last line says what is wrong."""
    assert _run(*arguments) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_variables(
    daemon: _Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """They stand in for flags; one that makes no sense is wrong usage."""
    monkeypatch.setenv("DFCACHE_IMPORT_TTL", "2h")
    monkeypatch.setenv("DFCACHE_IMPORT_TAG", "from the environment")
    assert _run("import", str(_file(tmp_path)), "--tag", "flag") == 0
    assert (daemon.asked[0].ttl.seconds, daemon.asked[0].tag) == (7200, "flag")
    monkeypatch.setenv("DFCACHE_IMPORT_TTL", "soon")
    assert _run("import", str(_file(tmp_path))) == 2
    assert "DFCACHE_IMPORT_TTL" in capsys.readouterr().err


def test_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said in one line."""
    assert _run("stat", ONE, "-e", str(tmp_path / "none.sock")) == 1
    assert capsys.readouterr().err == (
        f"dfcache: no daemon at {tmp_path / 'none.sock'}: start dfdaemon, or name its socket "
        "with --endpoint\n"
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """As the other programs have it."""
    assert _run("--version") == 0
    assert capsys.readouterr().out == f"dfcache {BUILD_VERSION}\n"
