"""Our programs, running: what tests ask of them, and do to them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.request import urlopen

import grpc
import psutil

from pantala.core.policy import Medium, policy_of
from pantala.model.task import Kind
from pantala.paths import handoff_path_for
from pantala.pb import dfdaemon_pb2_grpc, node_pb2, node_pb2_grpc
from pantala.rpc.daemon_dialects import daemon_dialect
from pantala.rpc.transport import channel_options

from .forks import Process

#: Seconds for a program to start, to stop, or for a download; multiplied on slow machines.
PATIENCE: Final = 30.0 * float(os.environ.get("PANTALA_TEST_SLOWNESS", "1"))

#: How the gauges of a store begin.
_FAMILIES: Final = {Medium.MEMORY: "cache", Medium.DISK: "disk"}

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
        time.sleep(0.02)  # what is waited for may be anywhere
    return answer


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in user and in kernel mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class StartFailed(Exception):
    """A program ended instead of getting ready."""


@dataclass
class Program:
    """One of our programs, running.

    Attributes:
        ready: What it logged when it was ready.
    """

    process: Process
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
            time.sleep(0.02)  # it is written to a file
        raise TimeoutError(f"no {event!r} within {patience:g} s; log:\n{self.log}")

    def kill(self) -> None:
        """End it at once, without a chance to clean up."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        """Send it the signal of that number."""
        self.process.send_signal(number)

    def ask_to_stop(self) -> None:
        """SIGTERM, as a supervisor sends it; also if it is stopped just now."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()

    def stop(self) -> int:
        """Ask it to stop and wait until it has; its exit code."""
        self.ask_to_stop()
        return self.process.wait(PATIENCE)

    def written_to_disk(self) -> int:
        """Bytes it has caused to be written to storage, as the kernel counts them."""
        text = Path(f"/proc/{self.pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])

    def resident(self) -> int:
        """Bytes of memory it has to itself: its own pages and those of its segments."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return 1024 * int(next(x for x in text.splitlines() if x.startswith("Rss:")).split()[1])

    def cpu_seconds(self) -> float:
        """CPU time that it has used, in user and in kernel mode."""
        return cpu_seconds(self.pid)

    def threads(self) -> int:
        """How many it has."""
        return psutil.Process(self.pid).num_threads()

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@dataclass
class Node(Program):
    """A daemon.

    Attributes:
        content_dir: Where the files of its tasks are.
        kind: Of the tasks that it is asked about, unless it is said.
    """

    socket: Path = Path()
    content_dir: Path = Path()
    kind: Kind = Kind.CACHE

    @property
    def name(self) -> str:
        """As it was started by."""
        return self.socket.stem

    @property
    def handoff(self) -> Path:
        """Its hand-off socket."""
        return Path(handoff_path_for(str(self.socket)))

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

    def delete(self, task_id: str, kind: Kind | None = None) -> None:
        """Delete a task from it. Raises grpc.RpcError."""
        dialect = daemon_dialect(self.kind if kind is None else kind)
        with self.channel() as channel:
            method = getattr(self.download_stub(channel), dialect.name("Delete{}Task"))
            method(dialect.message("Delete{}TaskRequest")(task_id=task_id), timeout=PATIENCE)

    def store(self, kind: Kind | None = None) -> dict[str, int]:
        """Gauges of the store that a kind is in: ``used``, ``leased`` (bytes) and others."""
        url = f"http://127.0.0.1:{self.ports['metrics']}/metrics"
        with urlopen(url, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        medium = policy_of(self.kind if kind is None else kind).medium
        prefix = f"dragonfly_client_{_FAMILIES[medium]}_"
        named = (line.removeprefix(prefix).split() for line in lines if line.startswith(prefix))
        return {name.removesuffix("_bytes"): int(float(value)) for name, value in named}

    def node_stub(self, channel: grpc.Channel) -> node_pb2_grpc.NodeStub:
        """Our own service."""
        return node_pb2_grpc.NodeStub(channel)
