"""A scheduler and daemons as real processes on this machine, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import grpc

from pantala.model.task import Kind
from pantala.pb import scheduler_pb2_grpc

from . import forks, ports
from .forks import Process
from .program import PATIENCE, Node, Program, StartFailed, until

__all__ = ["PATIENCE", "Cluster", "Got", "Node", "Program", "StartFailed", "until"]


@dataclass
class Got:
    """What a command printed, and how it ended."""

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
    def left(self) -> list[Path]:
        """What is there by the output's name, or by one that it had until it was whole."""
        temporary = self.path.parent.glob(f".{self.path.name}.*")
        return [*temporary, *([self.path] if self.path.is_file() else [])]

    @property
    def refusal(self) -> str:
        """The one line that its user reads of a download that failed and left nothing behind."""
        assert self.code == 1, self
        assert not self.left
        (line,) = self.stderr.splitlines()
        program, _, said = line.partition(": ")
        assert program in {"dfget", "dfcache"}, line
        return said


class Cluster:
    """Starts programs and stops all of them in the end. A context manager.

    Args:
        directory: For sockets, logs and outputs. Its path must be short: a unix socket's has
            107 bytes at most.
        forks: Whether programs are forked, see :mod:`.forks`, or started as their users do.

    Attributes:
        capacity: Of daemons' memory, and of their disks, unless they are given another.
        wrapper: A module, and its arguments, that runs our programs instead of Python itself.
        scheduler_port: Of the scheduler started last; 0: of none. Of workers the first one's.
        schedulers: What daemons are told of it, a range of ports if it is several workers.
        kind: Of task that ``dfget`` is to download, and that daemons are asked about.
    """

    kind = Kind.CACHE

    def __init__(self, directory: Path, *, forks: bool = False) -> None:
        self.directory = directory
        self.forks = forks
        self._programs: list[Program] = []
        self._kept = ExitStack()
        self._downloads: dict[Process, tuple[IO[bytes], IO[bytes]]] = {}
        self._count = 0
        self.capacity = "512MiB"
        self.wrapper: tuple[str, ...] = ()
        self.scheduler_port = 0
        self.schedulers = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for download in list(self._downloads):
            download.kill()
            list(self._end(download))
        self._stop(self.nodes)
        self._stop(self._programs)  # the schedulers, once all have said goodbye to them
        self._kept.close()
        if kind is not None:
            for program in self._programs:
                sys.stderr.write(f"--- {program.log_path.name}\n{program.log[-4000:]}\n")

    @staticmethod
    def _stop(programs: Sequence[Program]) -> None:
        """Stop them at the same time."""
        for program in programs:
            program.ask_to_stop()
        for program in programs:
            try:
                program.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()

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
            words = (*self.wrapper, module, *arguments)
            # Python itself would read what is in env, so it starts anew for that.
            start = forks.fork if self.forks and env is None else forks.execute
            process = start(words[0], words[1:], {**os.environ, **(env or {})}, out=log, err=log)
        program = Program(process, path)
        self._programs.append(program)
        return program

    def scheduler(self, *arguments: str, port: int = 0, workers: int = 1) -> Program:
        """Start a scheduler; later daemons use it. Its ports stay its own when it has ended.

        Args:
            arguments: More flags. Without ``--config`` it keeps its records in the directory.
            port: 0: any.
            workers: So many of them, from that port on.
        """
        port = port or self._kept.enter_context(ports.port(workers))
        flags = ["--port", str(port), "--listen-ip", "127.0.0.1"]
        if "--config" not in arguments:
            path = self.directory / "scheduler.yaml"
            where = {"sqlite": {"path": str(self.directory / "scheduler.db")}}
            path.write_text(json.dumps({"database": where}))  # JSON is YAML
            flags += ["--config", str(path)]
        self.schedulers = f"127.0.0.1:{port}"
        ready = "listening"
        if workers > 1:
            flags += ["--workers", str(workers)]
            self.schedulers += f"-{port + workers - 1}"
            ready = "all workers listen"
        program = self.start("pantala.cli.dfscheduler", *flags, *arguments, name="scheduler")
        program.ready = program.wait_for(ready)
        self.scheduler_port = port
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
            capacity: Of its memory, and of its disk; None: as the cluster has it.
            config: A configuration file's content.
            scheduler: Whether it knows the cluster's scheduler.
            env: More environment.
            wait: False: return at once.
        """
        socket = self.directory / f"{name}.sock"
        flags = ["--ip", "127.0.0.1", "--socket", str(socket)]
        # A machine has one daemon of a host id, and may run several clusters.
        flags += ["--hostname", f"{name}.{self.directory.name}"]
        capacity = capacity or self.capacity
        flags += ["--cache-capacity", capacity]
        data = self.directory / f"{name}.data"
        flags += ["--data-dir", str(data)]
        for port in ("upload", "storage", "metrics", "health"):
            flags += [f"--{port}-port", "0"]
        if seed:
            flags.append("--seed")
        if scheduler and self.schedulers:
            flags += ["--scheduler", self.schedulers]
        path = self.directory / f"{name}.yaml"
        # Small files are to be shared, too.
        ours = {"download": {"bypassSize": 0}, "gc": {"policy": {"diskThreshold": capacity}}}
        path.write_text(json.dumps(_merged(ours, config or {})))  # JSON is YAML
        flags += ["--config", str(path)]
        program = self.start("pantala.cli.dfdaemon", *flags, *arguments, name=name, env=env)
        node = Node(
            program.process,
            program.log_path,
            socket=socket,
            content_dir=data / "content",
            kind=self.kind,
        )
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
        """Run ``dfget`` to its end."""
        return self.finish(*self.begin(node, url, *arguments, output=output))

    def command(self, program: str, node: Node, *arguments: str) -> Got:
        """Run a command of ours that asks *node*, ``dfcache`` or ``dfctl``, to its end."""
        return self.finish(*self.begin_command(program, node, *arguments))

    def begin_command(self, program: str, node: Node, *arguments: str) -> tuple[Process, Path]:
        """Start one, to be given to :meth:`finish`. Its path is that of ``-O``, if it has one."""
        words = (*arguments, "-e", str(node.socket), "--json")
        path = Path(words[words.index("-O") + 1]) if "-O" in words else self.directory
        return self._begin(f"pantala.cli.{program}", words), path

    def begin_preheat(self, *arguments: str) -> tuple[Process, Path]:
        """Start a ``dfctl`` that preheats by the cluster's scheduler; likewise."""
        word = "cache-task" if self.kind is Kind.CACHE else "task"
        at = ("--scheduler-endpoint", self.schedulers, "--json")
        return self._begin("pantala.cli.dfctl", (word, "preheat", *arguments, *at)), self.directory

    def get_on_all(self, nodes: Sequence[Node], url: str, *arguments: str) -> list[Got]:
        """Run ``dfget`` on several nodes at the same moment."""
        begun = [self.begin(node, url, *arguments) for node in nodes]
        return [self.finish(*each) for each in begun]

    def begin(
        self,
        node: Node,
        url: str,
        *arguments: str,
        output: Path | None = None,
        kind: Kind | None = None,
    ) -> tuple[Process, Path]:
        """Start a ``dfget``, to be given to :meth:`finish`; *kind*: else the cluster's."""
        path = output or self.directory / f"out.{self._next()}"
        arguments = (url, "-O", str(path), "-e", str(node.socket), "--json", *arguments)
        if (self.kind if kind is None else kind) is Kind.CACHE:
            arguments = ("--cache", *arguments)
        return self._begin("pantala.cli.dfget", arguments), path

    def _begin(self, module: str, arguments: Sequence[str]) -> Process:
        # Files without a name, so that a directory has nothing but what the program leaves there.
        out, err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  _end closes them
        start = forks.fork if self.forks else forks.execute
        process = start(module, arguments, os.environ, out=out, err=err)
        self._downloads[process] = out, err
        return process

    def finish(self, process: Process, path: Path, *, patience: float = PATIENCE * 2) -> Got:
        """Wait for the end of a command, *patience* seconds at most."""
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        stdout, stderr = self._end(process)
        return Got(code, stdout, stderr, path)

    def _end(self, download: Process) -> Iterator[str]:
        """Wait for the end of it; what it has printed."""
        download.wait(PATIENCE)
        return map(_text, self._downloads.pop(download))

    def scheduler_stub(self, channel: grpc.Channel) -> scheduler_pb2_grpc.SchedulerStub:
        """The scheduler's service."""
        return scheduler_pb2_grpc.SchedulerStub(channel)

    def _next(self) -> int:
        self._count += 1
        return self._count


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both, to the last section; *other* is right where they differ."""
    merged = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], Mapping):
            merged[name] = _merged(one[name], other[name])
    return merged


def _text(file: IO[bytes]) -> str:
    """What was written to it; it is closed."""
    with file:
        file.seek(0)
        return file.read().decode()
