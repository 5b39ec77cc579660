"""Content whose origin names no length: one host reads it, and the others follow as it comes."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any
from urllib.request import urlopen

import pytest

from pantala.client.connection import Connection, connect
from pantala.model.task import Kind
from pantala.testing.cluster import PATIENCE, Cluster, Node, Program, until
from pantala.testing.origin import Fault, Origin, Pattern

MIB = 1 << 20
STEP = 4 * MIB
SIZE = 21 * MIB + 12345
CONTENT = Pattern(SIZE, 7)
OTHER = Pattern(SIZE, 8)

#: Of an origin that names no length, and of one that stalls in the midst of it.
UNSIZED = Fault(chunked=True, no_range=True)
STALLS = Fault(chunked=True, no_range=True, stall_after=14 * MIB)


#: Of one that names no version.
UNNAMED = {"ETag": "", "Last-Modified": ""}


class Caller(threading.Thread):
    """Somebody who wants a file of a node, and hears how it comes.

    Attributes:
        grown: Bytes that were there when it was last told.
    """

    def __init__(self, node: Node, url: str, kind: Kind, **wish: Any) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.grown = 0
        self._request = {"op": "download", "url": url, "kind": kind.name, **wish}
        self._content = bytearray()
        self._error = ""
        self._fd = -1
        self.start()

    def run(self) -> None:
        """Take what comes, to the end."""
        deadline = time.monotonic() + 3 * PATIENCE
        try:
            with connect(str(self.node.socket)) as connection:
                connection.send(self._request, deadline=deadline)
                while (event := connection.receive(deadline=deadline) or {})["event"] != "done":
                    self._take(connection, event, deadline)
        except Exception as error:  # noqa: BLE001  whoever waits for the thread is to see it
            self._error = f"{type(error).__name__}: {error}"

    def _take(self, connection: Connection, event: dict[str, Any], deadline: float) -> None:
        if event["event"] == "growing":
            self.grown = event["bytes"]
        elif event["event"] == "error":
            raise ValueError(event["message"])
        elif event["event"] == "segment" or event.get("segment"):
            self._fd = connection.take_descriptor()
        elif event["event"] == "content":
            self._content += connection.receive_content(event["inline"], deadline=deadline)

    def end(self) -> str:
        """Wait for it; what went wrong, or ``""``."""
        self.join(3 * PATIENCE)
        assert not self.is_alive()
        return self._error

    def bytes(self) -> bytes:
        """What it was given, if all went well."""
        assert self.end() == ""
        if self._fd >= 0:
            self._content += os.pread(self._fd, 2 * SIZE, 0)
            os.close(self._fd)
            self._fd = -1
        return bytes(self._content)


@pytest.fixture
def nodes(kind: Kind, cluster: Cluster, scheduler: Program) -> list[Node]:
    """Six daemons at it."""
    assert scheduler.ready
    assert cluster.kind is kind
    cluster.capacity = "64MiB"
    return cluster.daemons(*(f"n{i}" for i in range(6)))


def reader(nodes: list[Node]) -> Node:
    """Who reads the origin for all."""
    line = "asking the origin for others"
    return until(lambda: next((node for node in nodes if line in node.log), None), "somebody reads")


def call_all(nodes: list[Node], origin: Origin, kind: Kind, **wish: Any) -> list[Caller]:
    """All want the same."""
    return [Caller(node, origin.url("/f"), kind, **wish) for node in nodes]


def all_have(callers: list[Caller], size: int) -> None:
    """Wait until each has so much of it."""
    until(lambda: all(c.grown >= size for c in callers) or None, "it grows everywhere")


def uploaded(node: Node) -> int:
    """Bytes that it has given to other hosts."""
    url = f"http://127.0.0.1:{node.ports['metrics']}/metrics"
    with urlopen(url, timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    name = "dragonfly_client_upload_traffic"
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(name)))


def followers(nodes: list[Node]) -> int:
    """So many have kept something that they had followed."""
    return sum('"followed"' in node.log for node in nodes)


@pytest.mark.parametrize("headers", [{}, UNNAMED], ids=["a version", "none"])
def test_all_have_what_there_is(
    kind: Kind, origin: Origin, nodes: list[Node], headers: dict[str, str]
) -> None:
    """Three whole steps of fourteen MiB, on all six, though read once; then the rest, and once."""
    origin.put("/f", CONTENT, headers=headers)
    origin.fault("/f", STALLS)
    callers = call_all(nodes, origin, kind)
    all_have(callers, 3 * STEP)
    assert origin.count("/f") == 1
    origin.release()
    assert all(c.bytes() == CONTENT.read() for c in callers)
    assert origin.count("/f") == 1
    assert origin.sent("/f") == SIZE
    assert followers(nodes) == 5
    assert sum(uploaded(node) for node in nodes) == 5 * SIZE


@pytest.mark.parametrize(
    ("size", "piece_length"), [(5 * STEP, None), (SIZE, 2 * STEP), (SIZE, 16 * STEP)]
)
def test_however_it_is_cut(
    kind: Kind, origin: Origin, nodes: list[Node], size: int, piece_length: int | None
) -> None:
    """Whole steps and no more; pieces of several steps; one piece of more than there is."""
    content = Pattern(size, 9)
    origin.put("/f", content)
    origin.fault("/f", STALLS)
    callers = call_all(nodes[:3], origin, kind, piece_length=piece_length)
    all_have(callers, 3 * STEP)
    origin.release()
    assert all(c.bytes() == content.read() for c in callers)
    assert origin.count("/f") == 1
    assert not any(node.errors for node in nodes)


@pytest.mark.parametrize("size", [0, 100, STEP])
def test_however_little(kind: Kind, origin: Origin, nodes: list[Node], size: int) -> None:
    """What is through before anybody follows, or is nothing."""
    content = Pattern(size, 9)
    origin.put("/f", content)
    origin.fault("/f", UNSIZED)
    callers = call_all(nodes[:3], origin, kind)
    assert all(c.bytes() == content.read() for c in callers)
    assert origin.count("/f") == 1


def test_nobody_serves_all(kind: Kind, origin: Origin, nodes: list[Node]) -> None:
    """The reader has four followers, and the fifth follows one of them."""
    origin.put("/f", CONTENT)
    origin.fault("/f", STALLS)
    callers = call_all(nodes, origin, kind)
    all_have(callers, 3 * STEP)
    sent = sorted(uploaded(node) for node in nodes)
    assert sent == [0, 0, 0, 0, 3 * STEP, 4 * 3 * STEP]
    origin.release()
    assert all(c.bytes() == CONTENT.read() for c in callers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("named", [True, False], ids=["a version", "none"])
def test_the_reader_is_lost(
    kind: Kind, origin: Origin, nodes: list[Node], number: int, named: object
) -> None:
    """Another reads, once; whoever has something by a version's name goes on with it."""
    origin.put("/f", CONTENT, headers={} if named else UNNAMED)
    origin.fault("/f", STALLS, times=1)
    origin.fault("/f", UNSIZED)
    callers = call_all(nodes, origin, kind)
    all_have(callers, 3 * STEP)
    first = reader(nodes)
    first.signal(number)
    try:
        others = [c for c in callers if c.node is not first]
        assert all(c.bytes() == CONTENT.read() for c in others)
        assert origin.count("/f") == 2
    finally:
        first.signal(signal.SIGCONT)
        origin.release()
    (lost,) = (c for c in callers if c.node is first)
    assert bool(lost.end()) == (number == signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_follower_is_lost(kind: Kind, origin: Origin, nodes: list[Node], number: int) -> None:
    """Those that followed it follow another."""
    origin.put("/f", CONTENT)
    origin.fault("/f", STALLS)
    callers = call_all(nodes, origin, kind)
    all_have(callers, 3 * STEP)
    first = reader(nodes)
    (second,) = (node for node in nodes if node is not first and uploaded(node))
    second.signal(number)
    origin.release()
    left = [c for c in callers if c.node is not second]
    assert all(c.bytes() == CONTENT.read() for c in left)
    assert origin.count("/f") == 1
    second.signal(signal.SIGCONT)
    (lost,) = (c for c in callers if c.node is second)
    assert bool(lost.end()) == (number == signal.SIGKILL)


def test_the_origin_fails(kind: Kind, origin: Origin, nodes: list[Node]) -> None:
    """Always in the midst of it: after some have tried, all are told so."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(chunked=True, no_range=True, cut_after=14 * MIB))
    callers = call_all(nodes, origin, kind)
    assert all(c.end() for c in callers)
    assert origin.count("/f") <= 4 * 2
    assert all(node.store()["used"] == 0 for node in nodes)


def test_the_origin_fails_once(kind: Kind, origin: Origin, nodes: list[Node]) -> None:
    """Whoever has read it then is told so; the others have it, by another reading."""
    origin.put("/f", CONTENT)
    origin.fault("/f", Fault(chunked=True, no_range=True, cut_after=14 * MIB), times=1)
    origin.fault("/f", UNSIZED)
    callers = call_all(nodes, origin, kind)
    failed = [c for c in callers if c.end()]
    assert len(failed) <= 1
    assert all(c.bytes() == CONTENT.read() for c in callers if c not in failed)
    assert origin.count("/f") <= 3


@pytest.mark.parametrize("same", [True, False], ids=["by the same name", "by another"])
def test_it_changes(kind: Kind, origin: Origin, nodes: list[Node], same: object) -> None:
    """The reader is killed, and the next reads other content: nothing is left of the first."""
    headers = {"ETag": '"same"'} if same else {}
    origin.put("/f", CONTENT, headers=headers)
    origin.fault("/f", STALLS, times=1)
    origin.fault("/f", UNSIZED)
    callers = call_all(nodes, origin, kind)
    all_have(callers, 3 * STEP)
    origin.put("/f", OTHER, headers=headers)
    first = reader(nodes)
    first.kill()
    assert all(c.bytes() == OTHER.read() for c in callers if c.node is not first)
    assert origin.count("/f") == 2
    origin.release()


def test_no_room(kind: Kind, cluster: Cluster, origin: Origin, nodes: list[Node]) -> None:
    """One that cannot have all of it is told so in the end; the others have it."""
    origin.put("/f", CONTENT)
    origin.fault("/f", STALLS)
    callers = call_all(nodes[:3], origin, kind)
    all_have(callers, STEP)
    small = cluster.daemon("small", capacity="10MiB")
    full = Caller(small, origin.url("/f"), kind)
    small.wait_for("not followed")
    origin.release()
    assert all(c.bytes() == CONTENT.read() for c in callers)
    assert "capacity" in full.end()
    assert origin.count("/f") == 1
    assert small.store()["used"] == 0


def test_a_digest(kind: Kind, origin: Origin, nodes: list[Node]) -> None:
    """Whoever gives a wrong one fails, and nobody else."""
    origin.put("/f", CONTENT)
    origin.fault("/f", STALLS, times=1)
    origin.fault("/f", UNSIZED)
    right, wrong = f"sha256:{CONTENT.digest()}", f"sha256:{OTHER.digest()}"
    callers = call_all(nodes[:5], origin, kind, digest=right)
    all_have(callers, 3 * STEP)
    deceived = Caller(nodes[5], origin.url("/f"), kind, digest=wrong)
    all_have([deceived], 3 * STEP)
    assert origin.count("/f") == 1
    origin.release()
    assert all(c.bytes() == CONTENT.read() for c in callers)
    assert "sha256" in deceived.end()
    assert origin.count("/f") <= 3


@pytest.mark.parametrize("seed", [True, False])
def test_who_may_not_ask_the_origin(
    kind: Kind, cluster: Cluster, origin: Origin, nodes: list[Node], seed: object
) -> None:
    """A seed reads it, or a peer that may."""
    origin.put("/f", CONTENT)
    origin.fault("/f", STALLS)
    if seed:
        cluster.daemon("seed", seed=True)
    callers = [] if seed else call_all(nodes[:1], origin, kind)
    all_have(callers, 3 * STEP)
    callers += call_all(nodes[1:], origin, kind, disable_back_to_source=True)
    all_have(callers, 3 * STEP)
    origin.release()
    assert all(c.bytes() == CONTENT.read() for c in callers)
    assert origin.count("/f") == 1


def test_deleted_meanwhile(kind: Kind, origin: Origin, nodes: list[Node]) -> None:
    """On the host of one who follows: he is told so, and nobody else."""
    origin.put("/f", CONTENT)
    origin.fault("/f", STALLS)
    callers = call_all(nodes[:3], origin, kind)
    all_have(callers, 3 * STEP)
    first = reader(nodes)
    one = next(c for c in callers if c.node is not first)
    (task_id,) = one.node.tasks()
    one.node.delete(task_id, kind)
    assert "deleted" in one.end()
    origin.release()
    assert all(c.bytes() == CONTENT.read() for c in callers if c is not one)
    assert origin.count("/f") == 1
