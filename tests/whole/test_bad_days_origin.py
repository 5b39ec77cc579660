"""The origin refuses, dies, lies or changes its mind; nobody gets a wrong byte for it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from pantala.core.policy import policy_of
from pantala.model.task import Kind
from pantala.pb import dfdaemon_pb2
from pantala.testing import unharmed
from pantala.testing.cluster import PATIENCE, Cluster, Got, Node, until
from pantala.testing.origin import Fault, Origin, Pattern

MIB = 1 << 20

#: Three pieces, the last of them short.
CONTENT = Pattern(10 * MIB + 77, seed=1)
OTHER = Pattern(CONTENT.size, seed=2)
LONGER = Pattern(CONTENT.size + MIB, seed=2)
SHORTER = Pattern(5 * MIB, seed=2)

_numbers = itertools.count()


@dataclass
class Place:
    """A daemon and a path of its origin that no other test uses."""

    cluster: Cluster
    origin: Origin
    node: Node
    path: str = field(default_factory=lambda: f"/f{next(_numbers)}")

    def put(self, content: Pattern, *faults: tuple[Fault, int | None]) -> None:
        """Serve *content* there, with these faults so many times each."""
        self.origin.put(self.path, content)
        for fault, times in faults:
            self.origin.fault(self.path, fault, times=times)

    def get(self, *arguments: str) -> Got:
        """What a dfget gets."""
        return self.cluster.get(self.node, self.origin.url(self.path), *arguments)


#: What is downloaded, and whether there is a scheduler. Files are looked at where one is: their
#: origin is asked before it, and what becomes of the download is told there all the same.
SITUATIONS = {
    "swarm": (Kind.CACHE, True),
    "alone": (Kind.CACHE, False),
    "files": (Kind.STANDARD, True),
}


@pytest.fixture(scope="module", params=SITUATIONS)
def programs(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Origin]]:
    """A daemon in each situation; the tests share it."""
    kind, swarm = SITUATIONS[request.param]
    with (
        tempfile.TemporaryDirectory(prefix="pd-") as directory,
        Origin() as origin,
        Cluster(Path(directory), forks=True) as cluster,
    ):
        cluster.kind, cluster.capacity = kind, "16MiB"
        if swarm:
            cluster.scheduler()
        times = {"pieceStallTimeout": "1s", "pieceTimeout": "3s"}
        cluster.daemon("a", config={"download": times})
        yield cluster, origin
        unharmed.check(cluster, origin)


@pytest.fixture
def place(programs: tuple[Cluster, Origin]) -> Iterator[Place]:
    """That daemon and a fresh path, and the daemon seems well after the test."""
    cluster, origin = programs
    yield Place(cluster, origin, cluster.nodes[0])
    unharmed.look(cluster, origin)
    origin.reset()


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "404 Not Found"), (403, "403 Forbidden"), (410, "410 Gone"), (500, "500 Internal")],
)
def test_a_refusal(place: Place, status: int, words: str) -> None:
    """The user reads the origin's own status, and the next try is a new one."""
    place.put(CONTENT, (Fault(status=status), None))
    got = place.get()
    assert got.refusal.startswith(f"origin answered {words}")
    assert got.result["error"]["status_code"] == status
    told = [e["why"] for e in place.node.events if e.get("event") == "origin failed"]
    assert words in told[-1]
    place.origin.heal(place.path)
    assert place.get().bytes() == CONTENT.read()


def test_a_refusal_that_passes(place: Place) -> None:
    """Nobody notices a 503 now and then."""
    passing = [(Fault(status=503), 1), (Fault(), 1), (Fault(status=500), 1)]
    place.put(CONTENT, *passing)
    assert place.get().bytes() == CONTENT.read()


def test_nobody_listens(place: Place) -> None:
    """The user reads who refused the connection."""
    place.put(CONTENT)
    place.origin.pause()
    line = place.get().refusal
    assert "connection refused" in line
    assert f"127.0.0.1:{place.origin.port}" in line
    place.origin.resume()
    assert place.get().bytes() == CONTENT.read()


def test_it_dies_in_the_middle(place: Place) -> None:
    """The user reads so, once somebody has tried again."""
    arguments = (f"--pattern=/f={CONTENT.size}", f"--rate={4 * MIB}")
    dying = place.cluster.start("pantala.testing.origin", *arguments, name="origin")
    port = int(until(lambda: dying.log, "the origin's port printed"))
    download = place.cluster.begin(place.node, f"http://127.0.0.1:{port}/f")
    until(lambda: place.node.store()["leased"], "the download begun")
    dying.kill()
    assert "connection refused" in place.cluster.finish(*download).refusal


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault(delay=60), 3),
        (Fault(stall_after=1000), 1),
        (Fault(stall_after=1000, no_range=True), 1),
    ],
    ids=["headers", "ranges", "one pass"],
)
def test_it_hangs(place: Place, fault: Fault, seconds: int) -> None:
    """An origin that says nothing more is given up, and the user reads why."""
    place.put(CONTENT, (fault, None))
    assert f"127.0.0.1:{place.origin.port}: silent for {seconds} s" in place.get().refusal


def test_a_deadline(place: Place) -> None:
    """The user's time is over: the line says so, and the next finds all of it."""
    place.put(CONTENT, (Fault(rate=4 * MIB), None))
    line = place.get("--timeout", "1s").refusal
    assert "not finished within the 1 s that were asked for" in line
    place.origin.release()
    got = place.get()
    assert got.bytes() == CONTENT.read()
    assert place.origin.sent(place.path) <= CONTENT.size + 2  # a byte for each look at its length


@pytest.mark.parametrize(
    "faults",
    [
        [(Fault(cut_after=MIB // 2), 2)],
        [(Fault(cut_after=3 * MIB, no_range=True), 1), (Fault(no_range=True), None)],
        [(Fault(cut_after=MIB + MIB // 2), None)],
    ],
    ids=["ranges", "one pass", "again and again"],
)
def test_broken_connections(place: Place, faults: list[tuple[Fault, int | None]]) -> None:
    """What broke off is taken up where it did, as long as that brings something."""
    place.put(CONTENT, *faults)
    assert place.get().bytes() == CONTENT.read()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=1000),
        Fault(cut_after=1000, no_range=True),
        Fault(cut_after=5 * MIB, no_range=True, chunked=True),
        Fault(length_lie=5000, no_range=True),
        Fault(length_lie=5000),
    ],
    ids=["ranges", "one pass", "chunked", "longer", "range longer"],
)
def test_less_than_was_announced(place: Place, fault: Fault) -> None:
    """A body that always ends too early is a failure that says so, not a short file."""
    place.put(CONTENT, (fault, None))
    line = place.get().refusal
    assert "127.0.0.1" in line
    assert "closed the connection after" in line or "another length" in line


def test_more_than_was_announced(place: Place) -> None:
    """What follows a body that is over is not part of it, nor of the next one."""
    place.put(CONTENT, (Fault(length_lie=-5000, no_range=True), None))
    assert place.get().bytes() == CONTENT.read()[:-5000]
    after = Place(place.cluster, place.origin, place.node)
    after.put(OTHER)
    assert after.get().bytes() == OTHER.read()


def test_no_ranges(place: Place) -> None:
    """One pass from front to back brings all of it, and is asked for once."""
    place.put(CONTENT, (Fault(no_range=True), None))
    assert place.get().bytes() == CONTENT.read()
    assert place.origin.sent(place.path) == CONTENT.size
    assert place.origin.count(place.path) == 1


def test_a_part_without_ranges(place: Place) -> None:
    """The way to the part is read and thrown away; what was not asked for is not held."""
    place.put(CONTENT, (Fault(no_range=True), None))
    got = place.get("--range", f"{9 * MIB}-{9 * MIB + 4}")
    assert got.bytes() == CONTENT.read(9 * MIB, 5)
    held = place.node.tasks()[got.result["task_id"]]
    room = CONTENT.size - 8 * MIB if place.cluster.kind is Kind.STANDARD else MIB
    assert (held.finished_piece_count, held.reserved_bytes) == (1, room)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(chunked=True, no_range=True),
        Fault(until_close=True, no_range=True),
        Fault(chunked=True),
        Fault(until_close=True),
    ],
    ids=["chunked", "until close", "chunked ranges", "ranges until close"],
)
def test_no_length(place: Place, fault: Fault) -> None:
    """A file that ends when it ends is as good as any other, a second time too."""
    place.put(CONTENT, (fault, None))
    for source in ("origin", "cache"):
        got = place.get()
        assert got.bytes() == CONTENT.read()
        assert got.result[f"bytes_from_{source}"] == CONTENT.size
    # Who asks whether it is still the same hangs up on an answer that begins with all of it.
    if not policy_of(place.cluster.kind).revalidates:
        assert place.origin.sent(place.path) <= CONTENT.size + 1


def test_a_range_beyond_the_end(place: Place) -> None:
    """Refused before and after the content is held; a range across the end is cut there."""
    place.put(CONTENT)
    beyond = ("--range", f"{CONTENT.size}-")
    cold = place.get(*beyond).refusal
    assert str(CONTENT.size) in cold
    across = place.get("--range", f"{CONTENT.size - 10}-{CONTENT.size}")
    assert across.bytes() == CONTENT.read(CONTENT.size - 10)
    assert place.get().bytes() == CONTENT.read()
    assert place.get(*beyond).refusal == cold


@pytest.mark.parametrize("new", [OTHER, LONGER], ids=["ETag", "length"])
def test_a_change_after_the_eviction(place: Place, new: Pattern) -> None:
    """Nobody holds the old one any more, so the new one is what comes."""
    place.put(CONTENT)
    place.node.delete(place.get().result["task_id"])
    place.put(new)
    assert place.get().bytes() == new.read()


@pytest.mark.parametrize("new", [OTHER, LONGER], ids=["ETag", "length"])
def test_a_change_of_what_is_held_in_part(place: Place, new: Pattern) -> None:
    """Old and new pieces never meet: it is begun anew."""
    place.put(CONTENT)
    assert place.get("--range", "0-99").bytes() == CONTENT.read(0, 100)
    place.put(new)
    assert place.get().bytes() == new.read()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(content=OTHER),
        Fault(content=LONGER),
        Fault(content=LONGER, headers={"ETag": ""}),
        Fault(content=SHORTER),
        Fault(content=OTHER, no_range=True),
    ],
    ids=["ETag", "longer", "longer, no ETag", "shorter", "no ranges"],
)
def test_answers_that_disagree(place: Place, fault: Fault) -> None:
    """The content changes while it is fetched: it is begun anew, and nothing of it is kept."""
    place.put(CONTENT, (Fault(), 2), (fault, None))
    assert isinstance(fault.content, Pattern)
    assert place.get().bytes() == fault.content.read()


def test_refused_is_unavailable(cluster: Cluster) -> None:
    """A gRPC client can tell an origin that is not there just now from one that says no."""
    node = cluster.daemon("a")
    request = dfdaemon_pb2.DownloadCacheTaskRequest(url="http://127.0.0.1:1/x")
    with node.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(node.download_stub(channel).DownloadCacheTask(request, timeout=PATIENCE))
    error: Any = caught.value  # a Call, too
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "127.0.0.1:1: connection refused"
