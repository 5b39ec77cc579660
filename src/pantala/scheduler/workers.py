"""Several schedulers, a process each, and the parent that keeps them running.

The parent does nothing else: it has no gRPC, no event loop, and one thread, so it can fork, and
what is forked begins as any scheduler does. Workers share no memory and know nothing of
each other; daemons spread their tasks over them as over schedulers of several machines.

    worker ──► parent    where it listens, once; its end
    parent ──► worker    SIGTERM; and a pipe that ends with the parent, however that ends
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import FrameType
from typing import Final

import structlog

from pantala.core.restarts import Restarts
from pantala.errors import Unavailable
from pantala.model.addresses import host_port
from pantala.rpc.probing import probe

from .config import SchedulerConfig

logger: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: Seconds for workers to stop; a scheduler gives its streams 5.
_GRACE: Final = 15.0

#: Bytes of what a worker says of itself at most.
_WORD: Final = 4096

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker is told: it is one.

    Attributes:
        number: Which one, from 0.
        config: Its own settings.
        life: A pipe that ends with the parent.
        word: A pipe on which it says where it listens.
    """

    number: int
    config: SchedulerConfig
    life: int
    word: int

    def ready(self, port: int, metrics_port: int | None) -> None:
        """It listens."""
        with contextlib.suppress(BrokenPipeError):  # then life has ended, too
            os.write(self.word, json.dumps([port, metrics_port or 0]).encode())
        os.close(self.word)

    def end_with_parent(self) -> None:
        """From now on this process stops when the parent is gone, if need be the hard way."""
        threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def _watch(self) -> None:
        os.read(self.life, 1)  # nobody writes: it returns when the other end is closed
        logger.warning("the parent of the workers is gone; stopping")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)


@dataclass(slots=True)
class _Worker:
    """One of them, as the parent knows it. Process id 0: it does not run."""

    number: int
    pid: int = 0
    began: float = 0.0
    due: float = 0.0
    word: int = -1
    port: int = 0
    metrics_port: int = 0
    ready: bool = False
    restarts: Restarts = field(default_factory=Restarts)


def keep(config: SchedulerConfig) -> Place | None:
    """Run ``server.workers`` workers until SIGTERM or SIGINT; a second one ends them at once.

    Returns:
        In the parent None, when all have stopped. In each worker, which is a process of its own,
        its place; the caller then carries on as that worker.

    Raises:
        CannotListen: A port of theirs is taken.
        SystemExit: A worker could not start; it has said why.
        Unavailable: A worker ends again and again, however often it is started anew.
    """
    _check_ports(config)
    return _Parent(config).run()


def _check_ports(config: SchedulerConfig) -> None:
    """One line for all that could not listen. Raises CannotListen."""
    for number in range(config.server.workers):
        one = config.of_worker(number, 0, 0)
        probe(host_port(one.server.listen_ip, one.server.port), "server.port", "server.listenIP")
        if one.metrics.enable:
            host = one.metrics.addr.rpartition(":")[0] or "0.0.0.0"
            probe(f"{host}:{one.metrics.port}", "metrics.addr", "metrics.addr")


class _Parent:
    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._workers = [_Worker(number) for number in range(config.server.workers)]
        self._life, self._alive = os.pipe()
        self._wakeup, self._woken = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._woken, False)
        self._told = 0
        self._said = False

    def run(self) -> Place | None:
        with self._signals():
            while not self._told:
                for worker in self._workers:
                    if not worker.pid and worker.due <= time.monotonic():
                        place = self._begin(worker)
                        if place is not None:
                            return place
                self._wait()
                self._hear()
                self._bury()
            logger.info("stopping all workers", signal=signal.Signals(self._told).name)
            self._stop()
        return None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Notice them; in the end, also in a worker, all is as it was."""
        before = {number: signal.signal(number, self._notice) for number in _SIGNALS}
        wakeup = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for fd in (self._wakeup, self._woken, self._alive):
                os.close(fd)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # see _fork

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            if self._told:
                self._kill(signal.SIGKILL)
            self._told = number

    def _begin(self, worker: _Worker) -> Place | None:
        """Start it, now or soon; in the new process, its place."""
        worker.began = time.monotonic()
        try:
            return self._fork(worker)
        except OSError as error:
            # No memory, process or descriptor is left. The others are no worse for it.
            wait = worker.restarts.ended(0.0) if worker.ready else None
            if wait is None:
                self._end_all()
                raise Unavailable(
                    f"worker {worker.number} cannot be started: {error.strerror}; see what the "
                    "limits of this service are, and what the machine has left"
                ) from error
            logger.warning(
                "worker cannot be started; tried again",
                worker=worker.number,
                after=wait,
                why=error.strerror,
            )
            worker.due = time.monotonic() + wait
            return None

    def _fork(self, worker: _Worker) -> Place | None:
        """Start it; in the new process, its place. Raises OSError."""
        word, says = os.pipe()
        sys.stdout.flush()  # or both would write what is in the buffers
        sys.stderr.flush()
        # A signal between fork and the end of _signals would be taken for one to the parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(word)
            os.close(says)
            raise
        if not pid:
            os.close(word)
            for other in self._workers:
                if other.word >= 0:
                    os.close(other.word)
            config = self._config.of_worker(worker.number, worker.port, worker.metrics_port)
            return Place(worker.number, config, self._life, says)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(says)
        worker.pid, worker.word = pid, word
        logger.info("worker started", worker=worker.number, pid=pid)
        return None

    def _wait(self, until: float | None = None) -> None:
        """Return when something may have happened."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        for worker in self._workers:
            if worker.word >= 0:
                poll.register(worker.word, select.POLLIN)
        due = [worker.due for worker in self._workers if not worker.pid]
        at = until if until is not None else min(due, default=None)
        poll.poll(None if at is None else max(0.0, at - time.monotonic()) * 1000 + 1)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup, _WORD):
                pass

    def _hear(self) -> None:
        """What workers say of themselves, which comes in one piece; and whether it is all."""
        poll = select.poll()
        for worker in self._workers:
            if worker.word >= 0:
                poll.register(worker.word, select.POLLIN)
        readable = {fd for fd, _ in poll.poll(0)}
        for worker in self._workers:
            if worker.word not in readable:
                continue
            if word := os.read(worker.word, _WORD):
                worker.port, worker.metrics_port = json.loads(word)
                worker.ready = True
            os.close(worker.word)
            worker.word = -1
        if not self._said and not self._told and all(worker.ready for worker in self._workers):
            self._said = True
            logger.info("all workers listen", workers=len(self._workers), schedulers=self._range())

    def _range(self) -> str:
        """What daemons are to be given as their schedulers."""
        server = self._config.server
        host = server.advertise_ip or server.listen_ip
        if ip_address(host).is_unspecified:
            host = socket.gethostname()
        ports = [worker.port for worker in self._workers]
        if ports == list(range(ports[0], ports[0] + len(ports))):
            return f"{host_port(host, ports[0])}-{ports[-1]}"
        return ",".join(host_port(host, port) for port in ports)

    def _bury(self) -> None:
        """Take note of those that have ended."""
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            worker.pid = 0
            code = os.waitstatus_to_exitcode(status)
            if self._told:
                continue
            if code > 0 and not worker.ready:
                self._end_all()
                raise SystemExit(code)
            self._start_again(worker, code)

    def _start_again(self, worker: _Worker, code: int) -> None:
        how = _how(code)
        wait = worker.restarts.ended(time.monotonic() - worker.began)
        if wait is None:
            ends = worker.restarts.ends
            self._end_all()
            (word, value), *_ = how.items()
            raise Unavailable(
                f"worker {worker.number} has ended {ends} times, one start after the other, the "
                f"last time with {word.replace('_', ' ')} {value}; its own last lines say why"
            )
        logger.warning("worker ended; it is started anew", worker=worker.number, after=wait, **how)
        worker.due = time.monotonic() + wait

    def _end_all(self) -> None:
        """They cannot go on without one of them."""
        self._told = signal.SIGTERM
        self._stop()

    def _stop(self) -> None:
        """Have all workers end, and return when they have."""
        self._kill(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while any(worker.pid for worker in self._workers):
            self._wait(deadline)
            self._hear()  # or what is not heard would be a reason not to wait
            self._bury()
            if time.monotonic() >= deadline and (late := [w for w in self._workers if w.pid]):
                logger.warning("workers do not stop; killed", workers=[w.number for w in late])
                self._kill(signal.SIGKILL)
                deadline = time.monotonic() + _GRACE

    def _kill(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:  # not waited for yet, so it is nobody else's
                os.kill(worker.pid, number)


def _how(code: int) -> dict[str, object]:
    """How a process ended, for a line in the log."""
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:  # most real-time signals have no names
        return {"signal": -code}
