"""core/sched/blame.py: whose word counts how often."""

from __future__ import annotations

from pantala.core.sched.blame import block
from pantala.testing.stage import Stage


def test_hosts_at_one_address_accuse_a_parent_once() -> None:
    """A stranger makes up as many as he likes; three addresses are believed."""
    stage = Stage()
    stage.host("a", at="10.0.0.7")
    parent = stage.holder("a")
    for number in range(9):
        stage.host(f"x{number}", at="10.6.6.6")
        stage.world.piece_failed(stage.register(f"x{number}"), parent.id, stage.now)
    assert parent in parent.task.holders
    for number in range(2):
        stage.host(f"y{number}", at=f"10.0.0.{number}")
        stage.world.piece_failed(stage.register(f"y{number}"), parent.id, stage.now)
    assert parent not in parent.task.holders
    stage.check()


def test_behind_one_address_hosts_count() -> None:
    """Where the parent is behind it, too."""
    stage = Stage()
    parent = stage.holder("a")
    for number in range(3):
        assert not parent.distrusted
        stage.world.piece_failed(stage.register(f"h{number}"), parent.id, stage.now)
    assert parent.distrusted


def test_what_a_peer_will_not_have_is_bounded() -> None:
    """Parents that have left are forgotten; those that are there are not."""
    stage = Stage()
    peer, bad = stage.register("a"), stage.holder("b")
    block(peer, bad.id)
    for number in range(1100):
        other = stage.register("c", peer_id=f"p{number}")
        block(peer, other.id)
        stage.world.remove_peer(other)
    assert len(peer.blocked) <= 1000
    assert {peer.id, bad.id} <= peer.blocked
