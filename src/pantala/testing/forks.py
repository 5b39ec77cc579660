"""Starts our programs by forking a process that has already imported them.

A test that starts six processes would otherwise import the same modules six times, which is most
of what short tests cost. What runs is the same program: the module is run as ``python -m`` runs it,
as ``__main__``, with its own arguments, environment and streams, in a process with one thread. Only
what is read from the environment before that, such as PYTHONUTF8, is that of the parent.

The parent serves one client over a socket, one request after the other, and ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

#: What is imported beforehand; of programs, what they import before they look at their arguments.
_PROGRAMS: Final = ("pantala.cli.dfget", "pantala.cli.dfdaemon", "pantala.cli.dfscheduler")
_MODULES: Final = (
    *("pantala.cli._daemon_run", "pantala.cli._scheduler_run"),
    *("pantala.daemon.process", "pantala.scheduler.process"),
)

#: What is run, not imported; and the package that puts something into the environment.
_ANEW: Final = (*_PROGRAMS, "pantala.cli")

#: Bytes of a request at most: arguments and environment.
_REQUEST: Final = 1 << 20


class Forked:
    """A process that was forked: what tests need of :class:`subprocess.Popen`.

    Attributes:
        pid: Its process id; nobody else's until it is known here that it has ended.
        returncode: How it ended, as Popen says it; None while that is not known.
    """

    def __init__(self, parent: ForkServer, pid: int, args: Sequence[str]) -> None:
        self._parent = parent
        self._fd = os.pidfd_open(pid)
        self._end = select.poll()  # takes any descriptor: tests open thousands
        self._end.register(self._fd, select.POLLIN)
        self._lock = threading.Lock()
        self.pid = pid
        self.args = args
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it ended, or None."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has. Raises subprocess.TimeoutExpired after *timeout* seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self._look(0.05)) is None:
            if timeout is not None and deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(self.args), timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        with self._lock:
            if self.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._fd, number)

    def terminate(self) -> None:
        """Ask it to end, with SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _look(self, patience: float) -> int | None:
        with self._lock:
            if self.returncode is None and self._end.poll(round(patience * 1000)):
                self.returncode = self._parent.reap(self.pid)
                os.close(self._fd)
            return self.returncode


#: A program under test, however it was started.
Process = subprocess.Popen[bytes] | Forked


class ForkServer:
    """Starts the parent, and has it fork. It ends with this process.

    Raises:
        OSError: It cannot be started, or has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        out: IO[bytes],
        err: IO[bytes],
    ) -> Forked:
        """See :func:`fork`."""
        request = {"module": module, "arguments": arguments, "env": dict(env)}
        answer = self._ask(request | {"cwd": str(Path.cwd())}, [out.fileno(), err.fileno()])
        return Forked(self, answer["pid"], [module, *arguments])

    def reap(self, pid: int) -> int:
        """How a process that has ended did so; from here on its id may be another's."""
        return int(self._ask({"reap": pid}, [])["status"])

    def _ask(self, request: Mapping[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
            answer = self._socket.recv(_REQUEST)
        if not answer:
            raise ConnectionResetError(f"the process that forks has ended: {self._process.poll()}")
        parsed: dict[str, Any] = json.loads(answer)
        return parsed

    def close(self) -> None:
        """It ends; what it has started goes on."""
        self._socket.close()
        self._process.wait()


@functools.cache
def _fork_server() -> ForkServer:
    server = ForkServer()
    atexit.register(server.close)
    return server


def fork(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    out: IO[bytes],
    err: IO[bytes],
) -> Process:
    """Run *module* as ``python -m`` does, in a process forked from the parent of this process."""
    return _fork_server().start(module, arguments, env, out=out, err=err)


def execute(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    out: IO[bytes],
    err: IO[bytes],
) -> Process:
    """Run *module* as its users do."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env=env,
    )


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork when asked to. Returns in the child, with what it is to run; None: the client ended."""
    while True:
        message, fds, *_ = socket.recv_fds(control, _REQUEST, 2)
        if not message:
            return None
        request: dict[str, Any] = json.loads(message)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            threads = len(list(Path("/proc/self/task").iterdir()))
            assert threads == 1, f"{threads} threads: a child would have one, and half of a state"
            if not (pid := os.fork()):
                for number, fd in enumerate(fds, start=1):
                    os.dup2(fd, number)
                    os.close(fd)
                return request
            answer = {"pid": pid}
        for fd in fds:
            os.close(fd)
        control.send(json.dumps(answer).encode())


def main() -> None:
    """Import the programs, then fork one for each request, until the other side hangs up."""
    for name in (*_PROGRAMS, *_MODULES):
        importlib.import_module(name)
    for name in _ANEW:
        del sys.modules[name]
    gc.collect()
    # Else each child would copy every page when it collects, and when it ends most of all.
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        request = _serve(control)
    if request is not None:
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.path[0] = request["cwd"]
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
