"""core/sched/evaluate.py: scores against worked values of Dragonfly's formula."""

from __future__ import annotations

import pytest

from pantala.core.sched.entities import Caller, Host, Peer
from pantala.core.sched.evaluate import load_quality, scores
from pantala.model.announce import HostFacts
from pantala.testing.stage import Stage

GIB = 1024**3


def evaluate(parent: Peer, child: Peer) -> float:
    """The score of one parent alone."""
    return scores((parent,), child)[0]


def _host(link: float, tx: float = 0, length: int = 0, pieces: int = 0) -> Host:
    facts = HostFacts(id="h", hostname="h", ip="10.0.0.1", port=1, max_tx_bandwidth=int(link))
    return Host(
        facts,
        upload_limit=1,
        created_at=0,
        updated_at=0,
        owner=Caller(),
        heard_at=0,
        account="",
        life=1,
        tx_bandwidth=int(tx),
        upload_content_length=length,
        concurrent_pieces=pieces,
    )


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        (_host(10e9, 2e9, 10 * GIB, 16), 0.857050),
        (_host(1e9), 1.0),
        (_host(0, 5, 5, 5), 0.0),
        (_host(1e9, 9e8, 20 * GIB, 64), 0.073283),
        (_host(1e8), 0.8),
        (_host(1e9, 2e9), 0.5),
        (_host(134217728), 0.8),
    ],
)
def test_load_quality(host: Host, wanted: float) -> None:
    """Link, what is drawn from it, for how long, and in how many pieces."""
    assert load_quality(host) == pytest.approx(wanted, abs=1e-6)


def test_the_whole_score() -> None:
    """Same data centre, two of five elements, a normal host."""
    stage = Stage()
    stage.host("p", idc="ONE", location="a|b|c|d|e", max_tx_bandwidth=10**10)
    stage.host("c", idc="one", location="A|B|x|d|e")
    parent, child = stage.holder("p"), stage.register("c")
    host = parent.host
    host.tx_bandwidth, host.upload_content_length, host.concurrent_pieces = 2 * 10**9, 10 * GIB, 16
    assert evaluate(parent, child) == pytest.approx(0.804230, abs=1e-6)


@pytest.mark.parametrize(
    ("mine", "theirs", "wanted"),
    [
        ("", "", 0.0),
        ("a", "", 0.0),
        ("a|b", "A|B", 1.0),
        ("a|b", "a", 0.2),
        ("a|b|c|d|e|f", "a|b|c|d|e|g", 1.0),
        ("x|b", "a|b", 0.0),
    ],
)
def test_location(mine: str, theirs: str, wanted: float) -> None:
    """Leading elements that are the same, of five."""
    stage = Stage()
    stage.host("p", location=mine, max_tx_bandwidth=0)
    stage.host("c", location=theirs)
    score = evaluate(stage.holder("p"), stage.register("c"))
    assert score == pytest.approx(0.1 * wanted + 0.05)


@pytest.mark.parametrize(
    ("idc", "wanted"), [(("", ""), 0.0), (("i", "j"), 0.0), (("i", "I"), 0.2), (("i", ""), 0.0)]
)
def test_idc(idc: tuple[str, str], wanted: float) -> None:
    """Only if both say the same."""
    stage = Stage()
    stage.host("p", idc=idc[0], max_tx_bandwidth=0)
    stage.host("c", idc=idc[1])
    score = evaluate(stage.holder("p"), stage.register("c"))
    assert score == pytest.approx(wanted + 0.05)


def test_host_type() -> None:
    """Seeds count full while they fetch from others, and nothing later; others half."""
    stage = Stage()
    stage.host("s", type=1, max_tx_bandwidth=0)
    stage.host("n", max_tx_bandwidth=0)
    child = stage.register("c")
    seed = stage.register("s")
    assert evaluate(seed, child) == pytest.approx(0.1)
    stage.world.start(seed, stage.now)
    assert evaluate(seed, child) == pytest.approx(0.1)
    stage.world.finish(seed, stage.now)
    assert evaluate(seed, child) == 0
    assert evaluate(stage.holder("n"), child) == pytest.approx(0.05)
