"""Real processes under churn, while their background work is failed at random.

What must hold in the end: every process and every loop lives and goes on, no node was forgotten,
the scheduler knows what is held, every download was right, and memory and descriptors are as they
were. :class:`Soak` says in lines what did not.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc

from pantala.model.task import Kind
from pantala.pb import common_pb2, dfdaemon_pb2, scheduler_pb2

from .cluster import PATIENCE, Cluster, Got, Node, Program, until
from .origin import Origin
from .soak_files import Files
from .soak_nodes import (
    anonymous,
    empty,
    held,
    injected,
    is_known,
    is_refusal,
    no_lease,
    troubles,
)
from .threads import in_threads

#: Of each store, and of each disk: less than all files.
STORE: Final = "24MiB"

#: Seconds that the one is held while the other waits: for some turns of what looks for room.
_HELD: Final = 1.0

#: How a download may end besides well: the task was deleted meanwhile, or there was no room.
_ALLOWED: Final = frozenset({grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED})

#: How much a process may have grown, bytes: threads and allocators that were not warm yet.
_GROWTH: Final = 32 << 20
#: Likewise descriptors: connections to peers that were not met yet.
_DESCRIPTORS: Final = 64

#: Errors that are logged because they were injected.
_EXPECTED: Final = frozenset({"background loop failed; it is tried again"})


class Soak:
    """See the module.

    Args:
        cluster: Empty; it is started here.
        origin: Where the files are.
        seconds: How long.
        seed: Of files, of what is done to them, and of the faults.
        rate: How many of all turns of background loops fail.
    """

    def __init__(
        self, cluster: Cluster, origin: Origin, *, seconds: float, seed: int = 1, rate: float = 0.1
    ) -> None:
        self._cluster = cluster
        self._origin = origin
        self._seconds = seconds
        self._seed = seed
        self._reports = cluster.directory / "reports"
        self._reports.mkdir()
        cluster.wrapper = (
            "pantala.testing.faulty",
            *("--seed", str(seed), "--rate", str(rate), "--reports", str(self._reports)),
        )
        # A host that was silent for twice its interval is forgotten. A turn that fails is tried
        # again after 0.5, 1, 2, 4 s: of four in a row none may reach that.
        self._interval = 10
        self._files = Files(origin, seed)
        self._loops: dict[int, set[str]] = {}
        self._lock = threading.Lock()
        #: Memory and descriptors of each process, before and after.
        self.figures: dict[str, dict[str, tuple[int, int]]] = {}
        self.done: Counter[str] = Counter()
        #: What went wrong, in words.
        self.wrong: list[str] = []

    def run(self) -> list[str]:
        """All of it; what did not hold, a line each."""
        self._start()
        programs: list[Program] = [*self.nodes, self.scheduler]
        with self._churn():
            time.sleep(self._seconds / 3)  # threads have the churn go on
        before = self._measure(programs)
        with self._churn():
            time.sleep(self._seconds * 2 / 3)  # likewise
        self._look_at_loops(programs)
        self._look_at_swarm()
        self._look_at_logs(programs)
        after = self._measure(programs)
        for name, (memory, descriptors) in after.items():
            old_memory, old_descriptors = before[name]
            if memory > old_memory + _GROWTH:
                self.wrong.append(f"{name}: {old_memory >> 20} MiB became {memory >> 20}")
            if descriptors > old_descriptors + _DESCRIPTORS:
                self.wrong.append(f"{name}: {old_descriptors} descriptors became {descriptors}")
        self.figures = {
            name: {
                "MiB": (before[name][0] >> 20, after[name][0] >> 20),
                "descriptors": (before[name][1], after[name][1]),
            }
            for name in after
        }
        return self.wrong

    # -- what runs -----------------------------------------------------------------------------

    def _start(self) -> None:
        names = ("peerGCInterval", "hostGCInterval", "taskGCInterval", "replicaInterval")
        quick = dict.fromkeys(names, "1s")
        config = self._cluster.directory / "scheduler.yaml"
        learning = {"refreshInterval": "1s"}
        config.write_text(json.dumps({"scheduler": {"gc": quick}, "dynConfig": learning}))
        self.scheduler = self._cluster.scheduler("--config", str(config))
        self._name_schedulers(0)
        self.nodes = self._cluster.daemons(
            *"abc",
            capacity=STORE,
            scheduler=False,
            config={
                "dynconfig": {"path": str(self._dynconfig), "refreshInterval": "1s"},
                "scheduler": {"announceInterval": f"{self._interval}s"},
                "gc": {"interval": "1s", "policy": {"cacheTaskTTL": "20s"}},
            },
        )
        for program in (*self.nodes, self.scheduler):
            until(partial(self._has_loops, program), "all loops run")
            self._loops[program.pid] = set(self._report(program)["loops"])

    @property
    def _dynconfig(self) -> Path:
        return self._cluster.directory / "dynconfig.yaml"

    def _name_schedulers(self, turn: int) -> None:
        """The one that there is; now and then with one that there is not."""
        addrs = [f"127.0.0.1:{self._cluster.scheduler_port}"]
        if turn % 2:
            addrs.append("127.0.0.1:1")
        draft = self._dynconfig.with_suffix(".draft")
        draft.write_text(json.dumps({"scheduler": {"addrs": addrs}}))
        draft.replace(self._dynconfig)

    @contextmanager
    def _churn(self) -> Iterator[None]:
        """Downloads, deletions and changes of the schedulers, until the end of the ``with``."""
        stop = threading.Event()
        works = [
            *(lambda number=number: self._use(stop, number) for number in range(4)),
            lambda: self._change_schedulers(stop),
            lambda: self._fill_stores(stop),
            lambda: self._meet(stop),
        ]
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            self._name_schedulers(0)

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  a thread's end must not be silent
            self._complain(f"a worker of the soak failed: {type(error).__name__}: {error}")

    def _complain(self, line: str) -> None:
        with self._lock:
            self.wrong.append(line)

    def _change_schedulers(self, stop: threading.Event) -> None:
        turn = 0
        while not stop.wait(3.0):
            turn += 1
            self._name_schedulers(turn)

    def _fill_stores(self, stop: threading.Event) -> None:
        turn = 0
        while not stop.wait(0.5):
            turn += 1
            kind = Kind.STANDARD if turn % 2 else Kind.CACHE
            in_threads([partial(self._have_one_wait, node, kind) for node in self.nodes])

    def _meet(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            self._start_together()

    def _start_together(self) -> None:
        """All nodes want what nobody has: they hear of each other."""
        path = self._files.cold()
        for got in self._cluster.get_on_all(self.nodes, self._origin.url(path)):
            self._check(got, path, "starts together")

    def _have_one_wait(self, node: Node, kind: Kind) -> None:
        """One program holds so much of the store that another's download waits for room."""
        held_one, wanted = self._files.large
        with held(node, self._origin.url(held_one), kind):
            process, path = self._cluster.begin(node, self._origin.url(wanted), kind=kind)
            time.sleep(_HELD)  # that it has to wait is the point
        self._check(self._cluster.finish(process, path), wanted, "waited for room")

    def _check(self, got: Got, path: str, what: str) -> None:
        """Count a ``dfget`` that went well, or was refused for want of room; complain of others."""
        if got.code:
            refused = is_refusal(got)
            self.done[f"{what}: refused" if refused else f"{what}: failed"] += 1
            if not refused:
                self._complain(f"dfget of {path}: {got.stderr.strip()}")
            return
        self.done[what] += 1
        if not self._files.is_right(path, got.path):
            self._complain(f"wrong bytes of {path}")
        got.path.unlink()

    def _use(self, stop: threading.Event, number: int) -> None:
        """One user: mostly downloads, sometimes deletes."""
        random = Random(f"{self._seed} {number} {time.monotonic()}")
        while not stop.wait(0.02):
            node, path = random.choice(self.nodes), random.choice(self._files.paths)
            dice = random.random()
            if dice < 0.1:
                self._delete(node, random)
            elif dice < 0.2:
                self._get_file(node, path)
            else:
                self._download(node, path, prefetch=dice < 0.3)

    def _download(self, node: Node, path: str, *, prefetch: bool) -> None:
        request = dfdaemon_pb2.DownloadCacheTaskRequest(
            url=self._origin.url(path), type=common_pb2.CACHE
        )
        if prefetch:
            request.range.start, request.range.length = 0, 1
            request.prefetch = True
        with node.channel() as channel:
            try:
                for _ in node.download_stub(channel).DownloadCacheTask(request, timeout=PATIENCE):
                    pass
            except grpc.RpcError as error:
                self._count_refusal(error, path)
            else:
                self.done["downloads"] += 1

    def _count_refusal(self, error: grpc.RpcError, path: str) -> None:
        code = error.code()
        self.done[f"refused: {code.name}"] += 1
        if code not in _ALLOWED:
            self._complain(f"download of {path}: {code.name}: {error.details()}")

    def _get_file(self, node: Node, path: str) -> None:
        """By dfget, and compare it byte by byte."""
        self._check(self._cluster.get(node, self._origin.url(path)), path, "dfget")

    def _delete(self, node: Node, random: Random) -> None:
        tasks = list(node.tasks().values())
        if tasks:
            try:
                chosen = random.choice(tasks)
                node.delete(chosen.id, Kind(chosen.type))
                self.done["deletes"] += 1
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:  # somebody else was quicker
                    self._complain(f"delete: {error.code().name}: {error.details()}")

    # -- what must hold ------------------------------------------------------------------------

    def _report(self, program: Program) -> dict[str, Any]:
        try:
            text = (self._reports / f"{program.pid}.json").read_text()
        except FileNotFoundError:
            return {}
        report: dict[str, Any] = json.loads(text)
        return report

    def _has_loops(self, program: Program) -> bool:
        """All loops run that a program of its kind has when it is ready."""
        return len(self._report(program).get("loops", ())) >= (9 if program in self.nodes else 4)

    def _measure(self, programs: list[Program]) -> dict[str, tuple[int, int]]:
        """Memory of its own, in bytes, and descriptors of each, when it holds nothing."""
        for node in self.nodes:
            until(partial(no_lease, node), "no lease held")
            until(partial(empty, node), "nothing held")
        return {p.log_path.name: (anonymous(p), p.descriptors()) for p in programs}

    def _look_at_loops(self, programs: list[Program]) -> None:
        """All that ran at the start run, go on, and each was failed."""
        for program in programs:
            name = program.log_path.name
            if not program.alive:
                self.wrong.append(f"{name} has ended")
                continue
            first = self._report(program)
            dead = self._loops[program.pid] - set(first["loops"])
            if dead:
                self.wrong.append(f"{name}: loops have ended: {sorted(dead)}")
            spared = sorted(loop for loop in set(first["loops"]) if not injected(first, loop))
            if spared:
                self.wrong.append(f"{name}: loops were never failed: {spared}")
            self._look_at_turns(program, first)

    def _look_at_turns(self, program: Program, first: dict[str, Any]) -> None:
        """Those that wait for nothing from outside make turns; the others when given cause."""
        deadline = time.monotonic() + PATIENCE
        idle = set(self._loops[program.pid])
        turn = 0
        while idle and time.monotonic() < deadline:
            turn += 1
            self._name_schedulers(1)
            self._start_together()
            for node in self.nodes:
                for path in self._files.paths[:3]:
                    self._download(node, path, prefetch=False)
                self._get_file(node, self._files.paths[0])
            kinds = Kind.CACHE, Kind.STANDARD
            waits = itertools.product(self.nodes, kinds)
            in_threads([partial(self._have_one_wait, *each) for each in waits])
            self._name_schedulers(0)
            for node in self.nodes:
                # Daemons keep their connections to each other; a new one has to be accepted.
                socket.create_connection(("127.0.0.1", node.ports["storage"]), PATIENCE).close()
            time.sleep(1.0)  # loops that turn once a second do so
            now = self._report(program)["turns"]
            idle = {loop for loop in idle if now.get(loop, 0) <= first["turns"].get(loop, 0)}
            for node in self.nodes:  # what is held is told when it comes, and when it goes
                self._delete(node, Random(turn))
        if idle:
            self.wrong.append(f"{program.log_path.name}: loops stand still: {sorted(idle)}")

    def _look_at_swarm(self) -> None:
        """The scheduler knows every node, and somebody to ask for all that is held."""
        channel = grpc.insecure_channel(f"127.0.0.1:{self._cluster.scheduler_port}")
        with channel:
            stub = self._cluster.scheduler_stub(channel)

            def unknown() -> list[str]:
                hosts = {h.id for h in stub.ListHosts(scheduler_pb2.ListHostsRequest()).hosts}
                missing = [n.ready["host"] for n in self.nodes if n.ready["host"] not in hosts]
                for node in self.nodes:
                    missing += [t for t, task in node.tasks().items() if not is_known(stub, task)]
                return missing

            try:
                until(lambda: not unknown(), "all known", PATIENCE + 3 * self._interval)
            except TimeoutError:
                self.wrong.append(f"the scheduler does not know {unknown()}")
        for node in self.nodes:
            try:
                until(partial(self._is_well, node), "healthy")
            except TimeoutError:
                self.wrong.append(f"{node.log_path.name} is not healthy: {troubles(node)}")

    def _is_well(self, node: Node) -> bool:
        """It is healthy; if not, it is given cause for a turn of what waits for news."""
        if not troubles(node):
            return True
        self._download(node, self._files.paths[0], prefetch=False)
        self._delete(node, Random(self._seed))
        return False

    def _look_at_logs(self, programs: list[Program]) -> None:
        for program in programs:
            other = [e for e in program.errors if e["event"] not in _EXPECTED]
            self.wrong += [f"{program.log_path.name}: {json.dumps(e)[:2000]}" for e in other[:5]]
            self.done["faults survived"] += len(program.errors) - len(other)
        for event in self.scheduler.events:
            if event.get("event") == "host is silent; forgotten":
                self.wrong.append(f"a node was forgotten: {event}")
