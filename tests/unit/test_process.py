"""cli/_process.py and cli/__init__.py: what all four programs do with the process they get."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pantala.testing.cluster import PATIENCE, until
from pantala.testing.handoff_daemon import Conversation, HandoffDaemon, Segment, serve

CONTENT = random.Random(8).randbytes(50_000)
URL = "http://origin.example/file"

#: Of each program something that prints.
PRINTING = [
    ("dfget", "--help"),
    ("dfget", "--version"),
    ("dfctl", "--version"),
    ("dfctl", "cache-task", "ls", "--help"),
    ("dfdaemon", "--help"),
    ("dfdaemon", "--check", "--hostname", "é"),
    ("dfscheduler", "--help"),
]
#: Where printing leads to nothing, and what is said of it.
NOWHERE = {
    "-": "it is closed",
    "/dev/full": "No space left on device",
    "a pipe": "Broken pipe",
}


def _command(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"pantala.cli.{program}", *arguments]


def _run(
    program: str, *arguments: str, closed: str = "", stdout: int = subprocess.PIPE, **env: str
) -> tuple[int, str, str]:
    """Status, output and errors of a program; a shell closes descriptors beforehand."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *_command(program, *arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        timeout=PATIENCE,
        env=os.environ | env,
    )
    return done.returncode, done.stdout, done.stderr


def _run_into(nowhere: str, *command: str) -> tuple[int, str]:
    """Status and errors of a program whose output cannot be had."""
    if nowhere == "-":
        status, _, errors = _run(*command, closed=">&-")
        return status, errors
    if nowhere == "a pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(nowhere, os.O_WRONLY)
    try:
        status, _, errors = _run(*command, stdout=writer)
    finally:
        os.close(writer)
    return status, errors


@pytest.mark.parametrize("nowhere", NOWHERE)
@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_output_that_is_lost(command: tuple[str, ...], nowhere: str) -> None:
    """One line, and a failure: whoever asked for it does not have it."""
    status, errors = _run_into(nowhere, *command)
    program, why = command[0], NOWHERE[nowhere]
    assert (status, errors) == (1, f"{program}: cannot write standard output: {why}\n")


@pytest.mark.parametrize("nowhere", NOWHERE)
def test_a_result_that_is_lost(tmp_path: Path, nowhere: str) -> None:
    """The file is there, and what was not printed is not printed once more as an error."""
    with HandoffDaemon(tmp_path, serve(CONTENT)) as daemon:
        arguments = ("--cache", URL, "-O", str(tmp_path / "out"), "-e", daemon.endpoint)
        status, errors = _run_into(nowhere, "dfget", *arguments, "--json")
    assert (status, errors) == (1, f"dfget: cannot write standard output: {NOWHERE[nowhere]}\n")
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_an_error_that_is_lost(tmp_path: Path) -> None:
    """The line on standard error says it all the same."""
    arguments = ("--cache", URL, "-O", str(tmp_path / "no" / "file"), "--json")
    status, errors = _run_into("/dev/full", "dfget", *arguments)
    assert status == 1
    assert errors.splitlines() == [
        f"dfget: cannot write {tmp_path}/no/file: {tmp_path}/no is not a directory",
        "dfget: cannot write standard output: No space left on device",
    ]


@pytest.mark.parametrize("closed", [">&-", ">&- <&-", "<&- >&- 2>&-"])
def test_content_does_not_go_astray(tmp_path: Path, closed: str) -> None:
    """What is meant for a closed standard output does not go to the daemon, under its number."""
    heard = bytearray()

    def script(talk: Conversation) -> None:
        gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)
        with contextlib.closing(Segment(CONTENT, 5000)) as segment, gone:
            talk.start(segment)
            talk.send(event="pieces", pieces=[segment.fill(number) for number in range(10)])
            talk.send(event="done")
        with contextlib.suppress(ConnectionResetError):
            while data := talk._socket.recv(65536):
                heard.extend(data)

    with HandoffDaemon(tmp_path, script) as daemon:
        arguments = ("--cache", URL, "-O", "-", "-e", daemon.endpoint)
        status, _, errors = _run("dfget", *arguments, closed=closed)
    lost = "dfget: cannot write standard output: it is closed\n"
    assert (status, errors) == (1, "" if "2>" in closed else lost)
    assert heard == b""


def test_a_download_without_standard_error(tmp_path: Path) -> None:
    """Nobody reads its words; the file is what counts."""
    with HandoffDaemon(tmp_path, serve(CONTENT)) as daemon:
        arguments = ("--cache", URL, "-O", str(tmp_path / "out"), "-e", daemon.endpoint)
        assert _run("dfget", *arguments, closed="<&- >&- 2>&-")[0] == 0
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("program", ["dfdaemon", "dfscheduler"])
def test_a_server_without_standard_streams(tmp_path: Path, program: str, own_port: int) -> None:
    """It serves; its log goes nowhere."""
    port = str(own_port)
    flags = {
        "dfdaemon": (
            *("--ip", "127.0.0.1", "--hostname", tmp_path.name, "--upload-port", port),
            *("--socket", str(tmp_path / "d.sock"), "--cache-capacity", "16MiB"),
            *("--storage-port", "0", "--metrics-port", "0", "--health-port", "0"),
        ),
        "dfscheduler": ("--port", port, "--listen-ip", "127.0.0.1"),
    }

    def answers() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), PATIENCE).close()
            return True
        return False

    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    server = subprocess.Popen([*shell, *_command(program, *flags[program])])
    try:
        until(lambda: answers() or server.poll() is not None, f"{program} answers")
        assert server.poll() is None
        assert all(os.readlink(f"/proc/{server.pid}/fd/{n}") == "/dev/null" for n in range(3))  # noqa: PTH115  what a descriptor leads to, not a path
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_any_encoding(command: tuple[str, ...], encoding: str) -> None:
    """What it has not is escaped."""
    status, output, errors = _run(*command, PYTHONIOENCODING=encoding)
    assert (status, errors) == (0, "")
    assert output


def test_grpc_writes_no_lines_of_its_own() -> None:
    """Not between those of a log that is JSON; unless somebody wants to read them."""
    script = (
        "import asyncio, contextlib, pantala.cli\n"
        "import grpc.aio\n"
        "async def main():\n"
        "    server = grpc.aio.server()\n"
        "    with contextlib.suppress(RuntimeError):\n"
        "        server.add_insecure_port('192.0.2.1:1')\n"
        "    await server.stop(None)\n"
        "asyncio.run(main())\n"
    )
    quiet = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    for env, silent in ((quiet, True), (quiet | {"GRPC_VERBOSITY": "ERROR"}, False)):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True, env=env
        )
        assert (done.stderr == b"") is silent, done.stderr


def test_ctrl_c_before_there_is_anything_to_end() -> None:
    """While gRPC is imported, say: a line, and no traceback."""
    script = (
        "import os, signal; from pantala.cli._process import program\n"
        "with program('dfcache'): os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "dfcache: stopped by SIGINT\n"
