"""core/sched/digests.py: whose word on a piece counts, for how long, and what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pantala.core.digests import DigestRun, DigestTable
from pantala.core.sched.choose import ToSource
from pantala.core.sched.entities import Peer
from pantala.core.sched.room import HOST, PEER
from pantala.core.sched.rules import Limits
from pantala.testing.stage import MIB, Stage

ALL = 0b111
NOTHING: tuple[str, list[DigestRun]] = ("", [])


def run(first: int, *crcs: int) -> DigestRun:
    """Digests from *first* on."""
    return DigestRun(first, list(crcs))


def told(stage: Stage, peer: Peer, version: str = "", pieces: int = ALL) -> dict[int, int]:
    """What *peer* hears."""
    _, runs = stage.world.digests.tell(peer, version, pieces)
    return {number: crc for each in runs for number, crc in each.each()}


def sent(stage: Stage, host: str = "a", task: str = "t", **said: object) -> Peer:
    """A peer that was sent to the origin, for nobody has the task."""
    peer = stage.register(host, task, **said)
    assert isinstance(stage.decide(peer), ToSource)
    stage.world.start_back_to_source(peer, stage.now)
    return peer


@pytest.fixture
def stage() -> Stage:
    """One world."""
    return Stage()


def test_who_was_sent_is_believed(stage: Stage) -> None:
    """The first word on a piece counts, and who has read another is told of it."""
    reader = sent(stage)
    hear = stage.world.digests.hear
    assert hear(reader, "v", [run(0, 7), run(2, 9)]) == 0
    child = stage.child("b")
    assert stage.world.digests.tell(child, "", ALL)[0] == "v"
    assert told(stage, child) == told(stage, child, "v") == {0: 7, 2: 9}
    assert told(stage, child, "v", 0b100) == {2: 9}
    assert stage.world.digests.tell(child, "w", ALL) == NOTHING
    assert stage.world.digests.tell(child, "v", 0) == NOTHING
    assert hear(reader, "v", [run(0, 7, 8, 1)]) == 0b100
    assert told(stage, child) == {0: 7, 1: 8, 2: 9}


def test_who_went_by_himself_is_not(stage: Stage) -> None:
    """He hears where his word is another; of what nobody else has read there is none."""
    stranger = stage.source("a")
    assert not stranger.was_sent
    assert stage.world.digests.hear(stranger, "v", [run(0, 7)]) == 0
    assert told(stage, stranger) == {}
    stage.host("s", type=1)
    seed = stage.source("s")
    assert stage.world.digests.hear(seed, "v", [run(0, 8)]) == 0
    assert stage.world.digests.hear(stranger, "v", [run(0, 7, 5)]) == 0b1
    assert told(stage, stranger) == {0: 8}


def test_what_has_no_name(stage: Stage) -> None:
    """Nothing is learnt of it, nor of nothing."""
    reader = sent(stage)
    assert stage.world.digests.hear(reader, "", [run(0, 7)]) == 0
    assert stage.world.digests.hear(reader, "v", [run(0)]) == 0
    assert told(stage, reader) == {}
    stage.check()


def test_versions(stage: Stage) -> None:
    """Two are kept; who has none hears of the last."""
    reader = sent(stage)
    for number, version in enumerate("uvw"):
        stage.world.digests.hear(reader, version, [run(0, number)])
    assert told(stage, reader) == told(stage, reader, "w") == {0: 2}
    assert told(stage, reader, "v") == {0: 1}
    assert told(stage, reader, "u") == {}


def test_what_is_cut_otherwise(stage: Stage) -> None:
    """Is nothing to a peer, though it has the same name."""
    stage.world.digests.hear(sent(stage), "v", [run(0, 7)])
    other = stage.source("b", piece_length=5 * MIB)
    assert told(stage, other) == told(stage, other, "v") == {}


def test_it_is_counted_and_goes_with_the_last_peer(stage: Stage) -> None:
    """What is read then may be something else."""
    used = HOST + PEER
    reader = sent(stage)
    used += reader.registration.size
    for version in ("u", "version", "w"):
        stage.world.digests.hear(reader, version, [run(0, 7)])
    kept = 2 * DigestTable.size(3) + len("version") + len("w")
    assert stage.world.room.used == used + kept
    stage.world.remove_peer(reader)
    assert stage.world.room.used == HOST
    assert told(stage, sent(stage)) == {}
    stage.check()


def test_where_there_is_no_room() -> None:
    """Nothing is kept, and nothing fails; nor is anything of what has more pieces than can be."""
    stage = Stage(replace(Limits(), kept_each=HOST + 2 * PEER))
    reader = sent(stage, content_length=4 * MIB * 10_000, piece_length=4 * MIB)
    assert stage.world.digests.hear(reader, "v", [run(0, 7)]) == 0
    assert told(stage, reader) == {}
    stage.check()
    stage = Stage()
    reader = sent(stage, content_length=2**62, piece_length=4 * MIB)
    assert stage.world.digests.hear(reader, "v", [run(0, 7)]) == 0
    assert told(stage, reader) == {}
    stage.check()
