"""What benches share: candidates that take turns, medians, CPU, and others to compare with."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from . import ports
from .program import cpu_seconds, until

TMPFS: Final = Path("/dev/shm")  # noqa: S108  it is what is measured

T = TypeVar("T", bound=NamedTuple)


def take_turns(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run all of *ways* in each round; the runs of each by its name.

    In another order each time: who comes first may make something ready for the others.
    """
    runs: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        found = {name: ways[name]() for name in random.sample(sorted(ways), len(ways))}
        for name, run in found.items():
            runs[name].append(run)
    return runs


def middle(runs: Sequence[T]) -> T:
    """The medians of each field."""
    return type(runs[0])(*map(statistics.median, zip(*runs, strict=True)))


def ratio(runs: Iterable[float], others: Iterable[float]) -> float:
    """How many times as much as *others*: the median over the rounds."""
    return statistics.median(one / other for one, other in zip(runs, others, strict=True))


def percentile(values: Sequence[float], part: float) -> float:
    """Of *values*, the one that so large a *part* of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def write_json(path: Path, runs: Mapping[str, Sequence[NamedTuple]], **terms: Any) -> None:
    """Write every run, and on what *terms* they were made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {name: [run._asdict() for run in each] for name, each in runs.items()}
    path.write_text(json.dumps({**terms, "runs": told}))


class SharedMemory(NamedTuple):
    """What a process has in memory, in bytes.

    Attributes:
        rss: Of segments that daemons have handed off: pages that it has seen.
        pss: Of these: its share, where others have seen them, too.
        private: All else that is its own.
    """

    rss: int
    pss: int
    private: int


def shared_memory(pid: int) -> SharedMemory:
    """What a process has of the segments of daemons, and besides."""
    rss = pss = private = 0
    of_segment = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name:  # the head of a mapping
            of_segment = "/memfd:" in line
        elif name == "Rss":
            rss += of_segment * int(rest.split()[0])
        elif name == "Pss":
            pss += of_segment * int(rest.split()[0])
        elif name == "Anonymous":
            private += int(rest.split()[0])
    return SharedMemory(1024 * rss, 1024 * pss, 1024 * private)


def numbers(text: str) -> list[int]:
    """``1,2,4``. Raises ValueError."""
    found = [int(word) for word in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def cpu_of_children() -> float:
    """CPU seconds of processes of ours that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_all(start: Callable[[int], subprocess.Popen[bytes]], hosts: int) -> list[float]:
    """Start as many at once; the seconds that each took."""
    began = time.perf_counter()
    left = {start(n) for n in range(hosts)}
    took = []
    while left:
        pid, status, _ = os.wait4(-1, 0)
        for process in {each for each in left if each.pid == pid}:
            left.discard(process)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{process.args!r} ended with {process.returncode}")
            took.append(time.perf_counter() - began)
    return took


def served(stack: ExitStack) -> Path:
    """A directory on tmpfs that a server of another user can read; it goes with *stack*."""
    root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=TMPFS)))
    root.chmod(0o755)
    return root


class _Server(ABC):
    """A server that is not ours. A context manager."""

    def __init__(self, directory: Path, words: Sequence[str]) -> None:
        self._words = words
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        log = self._directory / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(self._words, stdout=out, stderr=out)
        until(self._listens, f"{self._words[0]} listens")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    @abstractmethod
    def _listens(self) -> bool:
        """Whether it can be connected to."""

    def cpu_seconds(self) -> float:
        """CPU time that it has used, with its workers."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sum(map(cpu_seconds, [pid, *map(int, children)]))


class Nginx(_Server):
    """nginx that serves what is below *root*, with two workers and connections that are kept."""

    def __init__(self, root: Path) -> None:
        self._kept = ExitStack()
        self.port = self._kept.enter_context(ports.port())
        directory = Path(tempfile.mkdtemp(prefix="pd-"))
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log stderr;\n"
            "events {}\n"
            "http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; "
            f"open_file_cache max=20000; server {{ listen 127.0.0.1:{self.port}; root {root}; }} }}"
        )
        super().__init__(directory, ["nginx", "-c", str(config), "-p", str(directory)])
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End it, and give its port back."""
        super().close()
        self._kept.close()

    def _listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False


class Redis(_Server):
    """A Redis that writes nothing to the disk, on a unix socket."""

    def __init__(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="pd-"))
        self.path = directory / "redis.sock"
        words = ["redis-server", "--port", "0", "--unixsocket", str(self.path), "--save", ""]
        super().__init__(directory, words)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.path)) == 0
