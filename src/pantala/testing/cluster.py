"""A scheduler and daemons as real processes on this machine, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.request import urlopen

import grpc

from pantala.pb import (
    dfdaemon_pb2,
    dfdaemon_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    scheduler_pb2_grpc,
)
from pantala.rpc.transport import channel_options

#: Seconds for a program to start, to stop, or for a download; multiplied on slow machines.
PATIENCE: Final = 30.0 * float(os.environ.get("PANTALA_TEST_SLOWNESS", "1"))


T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """The first true answer of *condition*.

    Raises:
        TimeoutError: There is none within *patience* seconds; it says *what* did not happen.
    """
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"within {patience:g} s not {what}; still {answer!r}")
        time.sleep(0.02)
    return answer


class StartFailed(Exception):
    """A program ended instead of getting ready."""


@dataclass
class Program:
    """One of our programs, running.

    Attributes:
        ready: What it logged when it was ready.
    """

    process: subprocess.Popen[bytes]
    log_path: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it has logged."""
        return self.log_path.read_text(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log, one object a line."""
        found = []
        for line in self.log.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self.process.poll() is None

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What it has logged as an error: something that it did not expect."""
        return [line for line in self.events if line.get("level") in {"error", "critical"}]

    def wait_for(self, event: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The first log line with this event, once there is one.

        Raises:
            StartFailed: The program ended before.
            TimeoutError: It does not come.
        """
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for found in self.events:
                if found.get("event") == event:
                    return found
            if ended:
                raise StartFailed(self.log)
            time.sleep(0.02)
        raise TimeoutError(f"no {event!r} within {patience:g} s; log:\n{self.log}")

    def kill(self) -> None:
        """End it at once, without a chance to clean up."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop and wait until it has; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(PATIENCE)

    def written_to_disk(self) -> int:
        """Bytes it has caused to be written to storage, as the kernel counts them."""
        text = Path(f"/proc/{self.pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])

    def resident(self) -> int:
        """Bytes of memory it has to itself: its own pages and those of its segments."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return 1024 * int(next(x for x in text.splitlines() if x.startswith("Rss:")).split()[1])

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@dataclass
class Node(Program):
    """A daemon."""

    socket: Path = Path()

    @property
    def ports(self) -> dict[str, int]:
        """Where it listens: ``upload``, ``storage``, ``metrics``, ``health``."""
        return {k: v for k, v in self.ready.items() if isinstance(v, int)}

    def channel(self) -> grpc.Channel:
        """To its unix socket; close it after use."""
        target = f"unix:{self.socket}"
        return grpc.insecure_channel(target, channel_options(target))

    def download_stub(self, channel: grpc.Channel) -> dfdaemon_pb2_grpc.DfdaemonDownloadStub:
        """Its service for programs."""
        return dfdaemon_pb2_grpc.DfdaemonDownloadStub(channel)

    def tasks(self) -> dict[str, node_pb2.NodeTask]:
        """What it holds, by task id."""
        with self.channel() as channel:
            listed = self.node_stub(channel).ListTasks(
                node_pb2.ListTasksRequest(), timeout=PATIENCE
            )
        return {task.id: task for task in listed.tasks}

    def delete(self, task_id: str) -> None:
        """Delete a task from it. Raises grpc.RpcError."""
        with self.channel() as channel:
            request = dfdaemon_pb2.DeleteCacheTaskRequest(task_id=task_id)
            self.download_stub(channel).DeleteCacheTask(request, timeout=PATIENCE)

    def store(self) -> dict[str, int]:
        """Its memory store's gauges: ``used``, ``leased``, ``reserved`` (bytes) and others."""
        url = f"http://127.0.0.1:{self.ports['metrics']}/metrics"
        with urlopen(url, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        prefix = "dragonfly_client_cache_"
        named = (line.removeprefix(prefix).split() for line in lines if line.startswith(prefix))
        return {name.removesuffix("_bytes"): int(float(value)) for name, value in named}

    def node_stub(self, channel: grpc.Channel) -> node_pb2_grpc.NodeStub:
        """Our own service."""
        return node_pb2_grpc.NodeStub(channel)


@dataclass
class Got:
    """How a ``dfget`` ended."""

    code: int
    stdout: str
    stderr: str
    path: Path

    @property
    def result(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def bytes(self) -> bytes:
        """What it wrote, if it ended well."""
        assert self.code == 0, self
        return self.path.read_bytes()

    @property
    def refusal(self) -> str:
        """The one line that its user reads of a download that failed and left nothing behind."""
        assert self.code == 1, self
        assert not [*self.path.parent.glob(f".{self.path.name}.*"), *self._made()]
        (line,) = self.stderr.splitlines()
        assert line.startswith("dfget: "), line
        return line.removeprefix("dfget: ")

    def _made(self) -> list[Path]:
        return [self.path] if self.path.is_file() else []


class Cluster:
    """Starts programs and stops all of them in the end. A context manager.

    Args:
        directory: For sockets, logs and outputs. Its path must be short: a unix socket's has
            107 bytes at most.

    Attributes:
        capacity: Of daemons' memory stores unless they are given another.
        wrapper: A module, and its arguments, that runs our programs instead of Python itself.
        scheduler_port: Of the scheduler started last; 0: of none.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._programs: list[Program] = []
        self._downloads: list[subprocess.Popen[str]] = []
        self._count = 0
        self.capacity = "512MiB"
        self.wrapper: tuple[str, ...] = ()
        self.scheduler_port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for download in self._downloads:
            if download.poll() is None:
                download.kill()
            download.communicate()
        for program in reversed(self._programs):
            try:
                program.stop()
            except subprocess.TimeoutExpired:
                program.kill()
        if kind is not None:
            for program in self._programs:
                sys.stderr.write(f"--- {program.log_path.name}\n{program.log[-4000:]}\n")

    @property
    def nodes(self) -> list[Node]:
        """All daemons ever started, the oldest first."""
        return [program for program in self._programs if isinstance(program, Node)]

    def start(
        self, module: str, *arguments: str, name: str, env: Mapping[str, str] | None = None
    ) -> Program:
        """Start one of our programs without waiting for anything."""
        path = self.directory / f"{name}.{self._next()}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *self.wrapper, module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        program = Program(process, path)
        self._programs.append(program)
        return program

    def scheduler(self, *arguments: str, port: int = 0) -> Program:
        """Start a scheduler; later daemons use it."""
        flags = ("--port", str(port), "--listen-ip", "127.0.0.1", *arguments)
        program = self.start("pantala.cli.dfscheduler", *flags, name="scheduler")
        program.ready = program.wait_for("listening")
        self.scheduler_port = int(program.ready["port"])
        return program

    def daemon(
        self,
        name: str,
        *arguments: str,
        seed: bool = False,
        capacity: str | None = None,
        config: Mapping[str, Any] | None = None,
        scheduler: bool = True,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Node:
        """Start a daemon and wait until it is ready.

        Args:
            name: Its hostname and that of its socket.
            arguments: More flags.
            seed: Whether it is a seed peer.
            capacity: Of its memory store; None: as the cluster has it.
            config: A configuration file's content.
            scheduler: Whether it knows the cluster's scheduler.
            env: More environment.
            wait: False: return at once.
        """
        socket = self.directory / f"{name}.sock"
        flags = ["--ip", "127.0.0.1", "--socket", str(socket)]
        # A machine has one daemon of a host id, and may run several clusters.
        flags += ["--hostname", f"{name}.{self.directory.name}"]
        flags += ["--cache-capacity", capacity or self.capacity]
        for port in ("upload", "storage", "metrics", "health"):
            flags += [f"--{port}-port", "0"]
        if seed:
            flags.append("--seed")
        if scheduler and self.scheduler_port:
            flags += ["--scheduler", f"127.0.0.1:{self.scheduler_port}"]
        if config is not None:
            path = self.directory / f"{name}.yaml"
            path.write_text(json.dumps(config))  # JSON is YAML
            flags += ["--config", str(path)]
        program = self.start("pantala.cli.dfdaemon", *flags, *arguments, name=name, env=env)
        node = Node(program.process, program.log_path, socket=socket)
        self._programs[-1] = node
        if wait:
            node.ready = node.wait_for("ready")
        return node

    def daemons(self, *names: str, **terms: Any) -> list[Node]:
        """Start daemons of these names at the same moment, on the same terms."""
        nodes = [self.daemon(name, wait=False, **terms) for name in names]
        for node in nodes:
            node.ready = node.wait_for("ready")
        return nodes

    def get(self, node: Node, url: str, *arguments: str, output: Path | None = None) -> Got:
        """Run ``dfget --cache`` to its end."""
        return self.finish(*self.begin(node, url, *arguments, output=output))

    def get_on_all(self, nodes: Sequence[Node], url: str, *arguments: str) -> list[Got]:
        """Run ``dfget --cache`` on several nodes at the same moment."""
        begun = [self.begin(node, url, *arguments) for node in nodes]
        return [self.finish(*each) for each in begun]

    def begin(
        self, node: Node, url: str, *arguments: str, output: Path | None = None
    ) -> tuple[subprocess.Popen[str], Path]:
        """Start a ``dfget --cache``, to be given to :meth:`finish`."""
        path = output or self.directory / f"out.{self._next()}"
        command = [sys.executable, "-m", "pantala.cli.dfget", "--cache", url, "-O", str(path)]
        command += ["-e", str(node.socket), "--json", *arguments]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._downloads.append(process)
        return process, path

    def finish(self, process: subprocess.Popen[str], path: Path) -> Got:
        """Wait for the end of a ``dfget``."""
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE * 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Got(process.returncode, stdout, stderr, path)

    def scheduler_stub(self, channel: grpc.Channel) -> scheduler_pb2_grpc.SchedulerStub:
        """The scheduler's service."""
        return scheduler_pb2_grpc.SchedulerStub(channel)

    def _next(self) -> int:
        self._count += 1
        return self._count
