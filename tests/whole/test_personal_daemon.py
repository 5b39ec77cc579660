"""A personal daemon is its user's alone: the kernel's own lists, and what other users can reach."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pantala.client.personal import connect_personal
from pantala.pb import dfdaemon_pb2, dfdaemon_pb2_grpc, node_pb2, node_pb2_grpc
from pantala.testing.content import Pattern
from pantala.testing.origin import Origin

LISTENING = "0A"  # the kernel's number for it, in /proc/net/tcp


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this user."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "pantala"


@pytest.fixture
def pid(runtime: Path) -> Iterator[int]:
    """Of a personal daemon that runs."""
    assert not runtime.exists()
    connection, pid = connect_personal()
    connection.__exit__(None, None, None)
    assert pid is not None
    yield pid
    os.kill(pid, 15)


def sockets_of(pid: int) -> set[str]:
    """Numbers of the inodes of a process's sockets."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found


def listeners(pid: int) -> set[str]:
    """Local addresses of a process's sockets that listen on TCP, as the kernel writes them."""
    mine = sockets_of(pid)
    assert mine
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in mine:
                found.add(fields[1])
    return found


def test_what_listens_is_found() -> None:
    """The check below can fail."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"{server.getsockname()[1]:04X}"
        assert {at.rpartition(":")[2] for at in listeners(os.getpid())} >= {port}


def test_nothing_listens_on_tcp(pid: int, runtime: Path, origin: Origin, tmp_path: Path) -> None:
    """It serves over sockets that no other user can open, and knows what it has."""
    content = Pattern(9 << 20)
    origin.put("/private", content)
    command = [sys.executable, "-m", "pantala.cli.dfget", "--cache", origin.url("/private")]
    command += ["-e", str(runtime / "dfdaemon.sock"), "-O", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == content.read()
    assert listeners(pid) == set()

    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in runtime.iterdir() if p.is_socket()}
    names = ("dfdaemon.sock", "dfdaemon.handoff.sock", "dfdaemon.scheduler.sock")
    assert found == dict.fromkeys(names, 0o600)

    task_id = json.loads(done.stdout)["task_id"]
    with grpc.insecure_channel(f"unix:{runtime}/dfdaemon.sock") as channel:
        daemon = dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)
        task = daemon.StatCacheTask(dfdaemon_pb2.StatCacheTaskRequest(task_id=task_id))
        assert (task.content_length, task.has_available_peer) == (content.size, True)
        listed = node_pb2_grpc.NodeStub(channel).ListTasks(node_pb2.ListTasksRequest())
        assert [t.id for t in listed.tasks] == [task_id]
    log = (runtime / "dfdaemon.log").read_text()
    assert "announced" in log  # to its own scheduler, which takes a host that listens nowhere
    assert "scheduler does not answer" not in log
