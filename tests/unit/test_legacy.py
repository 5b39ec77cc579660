"""core/sched/legacy.py: scores worked out by hand from Dragonfly's older formula."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pantala.core.sched.choose import Parents, find_candidates
from pantala.core.sched.entities import Peer
from pantala.core.sched.evaluate import scores
from pantala.core.sched.legacy import evaluate_legacy
from pantala.core.sched.rules import Limits
from pantala.core.sched.shape import Shape
from pantala.model.announce import PieceSum
from pantala.testing.stage import MIB, Stage

#: Ten pieces of 4 MiB.
TEN: Final[dict[str, Any]] = {"content_length": 40 * MIB}


def evaluate(parent: Peer, child: Peer) -> float:
    """The score of one parent alone."""
    return scores((parent,), child)[0]


def running(stage: Stage, host: str, pieces: int) -> Peer:
    """A peer that has so many of ten pieces and fetches from another."""
    stage.holder(f"{host}'s", "t", **TEN)
    peer = stage.child(host, **TEN)
    assert stage.world.batch(peer, 1, [PieceSum(None, pieces, pieces * 4 * MIB, 1.0)], stage.now)
    return peer


def test_the_whole_score() -> None:
    """Half of the pieces, one upload of four failed, 1 of 200 places taken, two elements."""
    stage = Stage()
    stage.host("p", idc="ONE", location="a|b|c|d|e")
    stage.host("c", idc="one", location="A|B|x|d|e")
    parent, child = running(stage, "p", 5), stage.register("c", **TEN)
    parent.host.upload_count, parent.host.upload_failed_count, parent.host.uploads = 4, 1, 1
    # 0.2 × 0.5 + 0.2 × 0.75 + 0.15 × 199/200 + 0.15 × 0.5 + 0.15 × 1 + 0.15 × 0.4
    assert evaluate_legacy(parent, child) == pytest.approx(0.68425)


@pytest.mark.parametrize(
    ("uploads", "failed", "score"),
    [
        (0, 0, 0.2 + 0.2 + 0.15 + 0.075),
        (10, 0, 0.2 + 0.2 + 0.15 + 0.075),
        (10, 4, 0.2 + 0.12 + 0.15 + 0.075),
        (10, 10, 0.2 + 0.15 + 0.075),
        (3, 4, 0.2 + 0.15 + 0.075),
        (0, 1, 0.2 + 0.15 + 0.075),
    ],
)
def test_upload_success(uploads: int, failed: int, score: float) -> None:
    """Of one that has everything and nobody fetches from: what is left of its uploads."""
    stage = Stage()
    parent, child = stage.holder("p", **TEN), stage.register("c", **TEN)
    parent.host.upload_count, parent.host.upload_failed_count = uploads, failed
    assert evaluate_legacy(parent, child) == pytest.approx(score)


@pytest.mark.parametrize(("used", "free"), [(0, 0.15), (3, 0.0375), (4, 0), (5, 0)])
def test_free_uploads(used: int, free: float) -> None:
    """The places that are left, of four; none are left when there are fewer than are taken."""
    stage = Stage(Limits(uploads=4))
    parent, child = stage.holder("p", **TEN), stage.register("c", **TEN)
    parent.host.uploads = used
    assert evaluate_legacy(parent, child) == pytest.approx(0.2 + 0.2 + 0.075 + free)


def test_seeds() -> None:
    """As in the other formula: before those of others while they fetch, and after them later."""
    stage = Stage()
    stage.host("s", type=1)
    stage.holder("a", **TEN)
    seed, child = stage.child("s", **TEN), stage.register("c", **TEN)
    assert evaluate_legacy(seed, child) == pytest.approx(0.2 + 0.15 + 0.15)
    stage.world.finish(seed, stage.now)
    assert evaluate_legacy(seed, child) == pytest.approx(0.2 + 0.2 + 0.15)


def test_pieces() -> None:
    """Of all that there are, and no more; or how many more than the child, if nobody knows that."""
    stage = Stage()
    parent, child = running(stage, "p", 12), stage.register("c", **TEN)
    rest = 0.2 + 0.15 + 0.075
    assert evaluate_legacy(parent, child) == pytest.approx(0.2 + rest)
    child.pieces = 5
    parent.task.shape = Shape(40 * MIB, 0)
    assert evaluate_legacy(parent, child) == pytest.approx(0.2 * 7 + rest)


def test_what_a_host_is_counted() -> None:
    """Each child that it is given, and each failure that one tells of."""
    stage = Stage(Limits(uploads=4, algorithm="legacy"))
    parent = stage.holder("p")
    children = [stage.child(name) for name in "abc"]
    host = parent.host
    assert (host.upload_count, host.upload_failed_count, host.uploads) == (3, 0, 3)
    stage.world.piece_failed(children[0], parent.id, stage.now)
    stage.world.fail(children[1], stage.now)
    assert (host.upload_count, host.upload_failed_count, host.uploads) == (3, 1, 2)
    other = stage.register("d")
    # 0.2 × 1 + 0.2 × 2/3 + 0.15 × 2/4 + 0.15 × 0.5
    assert evaluate_legacy(parent, other) == pytest.approx(0.2 + 0.4 / 3 + 0.15)


def test_it_is_chosen_by_name() -> None:
    """Who has failed others comes last by one formula, and by the other who has a slow link."""
    best = {}
    for algorithm in ("default", "legacy"):
        limits = Limits(candidates=1, algorithm=algorithm)
        stage = Stage(limits)
        stage.host("slow", max_tx_bandwidth=10**8)
        slow, failing = stage.holder("slow"), stage.holder("failing")
        failing.host.upload_count, failing.host.upload_failed_count = 4, 3
        child = stage.register("c")
        assert find_candidates(limits, child, set(), stage.rng) in ([slow], [failing])
        decision = stage.decide(child)
        assert isinstance(decision, Parents)
        (best[algorithm],) = (parent.host.id for parent in decision.parents)
        scores = evaluate(slow, child), evaluate(failing, child)
        assert scores[0] < scores[1]
    assert best == {"default": "failing", "legacy": "slow"}
