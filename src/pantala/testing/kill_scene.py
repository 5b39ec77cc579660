"""What those share who work with daemons of which one is killed meanwhile, see :mod:`.kills`."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from random import Random
from typing import Final

import grpc

from pantala.core.policy import policy_of
from pantala.errors import DragonflyError
from pantala.model.pieces import piece_at, piece_length_for
from pantala.model.task import Kind
from pantala.net.piece_client import Address, Connections, PieceFetch, TimeLimits
from pantala.ports import MemorySink
from pantala.wire.vortex import PieceRequest, Tag

from .cluster import PATIENCE, Cluster, Node
from .content import Pattern

#: Seconds that a sleep may be too long. Programs that ask a daemon wait for five.
_LATE: Final = 2.0

_LIMITS: Final = TimeLimits(request=PATIENCE, stall=PATIENCE, piece=PATIENCE)


class Scene:
    """Who is there, and what has come of it so far.

    Args:
        cluster: Runs the programs.
        seed: Of the dice.

    Attributes:
        nodes: The daemons, by name.
        killed: Somebody was killed, so that what is under way may fail.
        done: What was done, and how often.
        wrong: What did not hold, in words.
        histories: What was decided and done in each round that something was wrong in, in words.
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.seed = seed
        self.random = Random(seed)
        self.nodes: dict[str, Node] = {}
        self.killed = threading.Event()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.histories: dict[int, list[str]] = {}
        self._lock = threading.Lock()
        self._round = 0
        self._began = time.monotonic()
        self._history: list[str] = []

    def any_node(self) -> Node:
        """One of them."""
        return self.random.choice(list(self.nodes.values()))

    def begin_round(self, number: int) -> None:
        """The next round begins."""
        with self._lock:
            self._round, self._began, self._history = number, time.monotonic(), []

    def note(self, line: str) -> None:
        """The dice have decided something, or it has been done."""
        with self._lock:
            self._history.append(f"{self._now()}  {line}")

    def sleep(self, seconds: float) -> None:
        """Let so much time go by. It is told if the machine had no turn for us for longer."""
        began = time.monotonic()
        time.sleep(seconds)  # that it goes by is the point
        late = time.monotonic() - began - seconds
        if late > _LATE:
            self.note(f"this machine has held us up for {late:.1f} s")
            self.done["rounds that the machine held up"] += 1

    def complain(self, line: str) -> None:
        """Something did not hold."""
        with self._lock:
            told = f"round {self._round}, {self._now()}: {line}"
            self.wrong.append(told)
            print(told, file=sys.stderr, flush=True)  # noqa: T201  a test kit, whose user waits long
            self._history.append(f"{self._now()}  COMPLAINT: {line}")
            self.histories[self._round] = self._history

    def _now(self) -> str:
        """As logs have it, and since the round began."""
        clock = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        return f"{clock} ({time.monotonic() - self._began:.2f} s)"

    def guarded(self, work: Callable[[], None]) -> None:
        """Do it; whatever it raises is told."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  a thread's end must not be silent
            self.complain(f"a worker failed: {type(error).__name__}: {error}")

    def broke_off(self, what: str, why: str) -> None:
        """A call has failed, which only a kill may bring about."""
        if self.killed.is_set():
            self.done["calls broken off"] += 1
            self.note(f"broken off: {what}: {why}")
        else:
            self.complain(f"{what}: {why}")

    def rpc_broke_off(self, what: str, error: grpc.RpcError) -> None:
        """The same, of a call by gRPC."""
        self.broke_off(what, f"{error.code().name}: {error.details()}")

    def look_at_piece(
        self, node: Node, kind: Kind, task_id: str, number: int, content: Pattern
    ) -> None:
        """Fetch a piece of *content* as a child of *node* does."""
        size, what = content.size, f"{kind.name} task {task_id}, piece {number}"
        length = piece_length_for(size, least=policy_of(kind).least_piece)
        piece = piece_at(number, content_length=size, piece_length=length)
        into = bytearray(piece.length)
        request = PieceRequest(Tag(policy_of(kind).request_tag), task_id, number)
        with closing(Connections()) as connections:
            address = Address("127.0.0.1", node.ports["storage"])
            sink = MemorySink(memoryview(into))
            try:
                PieceFetch(connections, address, request, piece, sink, limits=_LIMITS).run()
            except DragonflyError as error:
                self.complain(f"{what}: {error}")
                return
        self.done["pieces looked at"] += 1
        if into != content.read(piece.offset, piece.length):
            self.complain(f"{what}: wrong bytes")
