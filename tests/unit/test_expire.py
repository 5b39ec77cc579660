"""core/sched/expire.py: what has gone without saying so."""

from __future__ import annotations

import pytest

from pantala.core.sched.entities import Peer, Trigger
from pantala.core.sched.expire import sweep_hosts, sweep_peers, sweep_tasks
from pantala.core.sched.rules import Limits
from pantala.testing.stage import Stage

HOUR = 3600.0


def gone(stage: Stage, peer: Peer) -> bool:
    """Whether a sweep takes *peer* away."""
    sweep_peers(stage.world, stage.now)
    stage.check()
    return peer.key not in stage.world.peers


def test_a_holder_lives_as_long_as_its_host() -> None:
    """However long ago it was asked for last."""
    stage = Stage()
    stage.host("a", interval=300.0)
    peer = stage.holder("a")
    for _ in range(100):
        stage.now += 300
        stage.host("a", interval=300.0)
        sweep_hosts(stage.world, stage.now)
        assert not gone(stage, peer)
    stage.now += 601
    assert sweep_hosts(stage.world, stage.now) == [peer.host]
    assert peer.key not in stage.world.peers
    stage.check()


def test_failed_peers_go_at_once() -> None:
    """There is nothing to say of them any more."""
    stage = Stage()
    peer = stage.source("a")
    assert not gone(stage, peer)
    stage.world.fail(peer, stage.now)
    assert gone(stage, peer)


@pytest.mark.parametrize("at_origin", [True, False])
def test_downloads_without_pieces_go(*, at_origin: bool) -> None:
    """After the time a piece may take; each piece starts it anew."""
    stage = Stage(Limits(piece_timeout=100))
    stage.host("z")
    stage.holder("z")
    peer = stage.source("a") if at_origin else stage.child("a")
    stage.now += 100
    stage.world.piece(peer, 1.0, None, stage.now)
    stage.now += 100
    assert not gone(stage, peer)
    stage.now += 1
    assert gone(stage, peer)


def test_peers_that_never_did_anything_go() -> None:
    """Registered, and no word since."""
    stage = Stage(Limits(peer_ttl=100))
    peer = stage.register("a")
    stage.now += 100
    assert not gone(stage, peer)
    stage.now += 1
    assert gone(stage, peer)


def test_holders_that_nobody_may_ask_go() -> None:
    """Their host stopped sharing, or several children could not get anything from them."""
    stage = Stage(Limits(accusers=1))
    selfish, lost = stage.holder("a"), stage.holder("b", "u")
    assert not gone(stage, selfish)
    stage.host("a", disable_shared=True)
    assert gone(stage, selfish)
    stage.world.piece_failed(stage.child("c", "u"), lost.id, stage.now)
    assert gone(stage, lost)


def test_a_download_on_a_host_that_does_not_share_goes_on() -> None:
    """It is nobody's parent, but it has parents."""
    stage = Stage()
    stage.host("a", disable_shared=True)
    assert not gone(stage, stage.source("a"))


@pytest.mark.parametrize(("interval", "allowed"), [(300.0, 600.0), (0.0, HOUR), (HOUR, 2 * HOUR)])
def test_silent_hosts_go(interval: float, allowed: float) -> None:
    """After twice what they said; those who said nothing, after the default."""
    stage = Stage(Limits(host_ttl=HOUR))
    host = stage.host("a", interval=interval)
    stage.now += allowed
    assert sweep_hosts(stage.world, stage.now) == []
    stage.now += 1
    assert sweep_hosts(stage.world, stage.now) == [host]
    assert not stage.world.hosts


def test_serving_a_piece_is_a_sign_of_life() -> None:
    """A host that serves is not silent."""
    stage = Stage()
    host = stage.host("a", interval=10.0)
    parent = stage.holder("a")
    child = stage.child("b")
    stage.now += 15
    stage.world.piece(child, 1.0, parent.id, stage.now)
    stage.now += 15
    assert host not in sweep_hosts(stage.world, stage.now)


def test_tasks_without_peers_are_forgotten_later() -> None:
    """Not at once, and not while a seed has been asked for them."""
    stage = Stage(Limits(task_ttl=100))
    peer = stage.holder("a")
    task = peer.task
    stage.world.remove_peer(peer)
    stage.now += 100
    assert sweep_tasks(stage.world, stage.now) == 0
    stage.now += 1
    task.trigger = Trigger("seed", stage.now)
    assert sweep_tasks(stage.world, stage.now) == 0
    stage.world.end_trigger(task, no_seed_before=0)
    assert sweep_tasks(stage.world, stage.now) == 1
    assert not stage.world.tasks


def test_tasks_with_peers_stay() -> None:
    """However old."""
    stage = Stage(Limits(task_ttl=100))
    stage.holder("a")
    stage.now += 1000
    assert sweep_tasks(stage.world, stage.now) == 0


def test_who_waits_is_told_of_what_goes() -> None:
    """A sweep that takes the last hope away wakes the others."""
    stage = Stage(Limits(piece_timeout=100))
    stage.source("a")
    stage.changed.clear()
    stage.now += 101
    assert sweep_peers(stage.world, stage.now) == 1
    assert stage.changed


def test_no_host_is_kept_for_ever() -> None:
    """Of an interval no more is believed than after what time a silent host is gone."""
    stage = Stage()
    stage.host("a", interval=10.0**9)
    stage.now += 2 * stage.world.limits.host_ttl
    assert not sweep_hosts(stage.world, stage.now)
    stage.now += 1
    assert [host.id for host in sweep_hosts(stage.world, stage.now)] == ["a"]


def test_nobody_is_looked_at_while_nothing_is_due() -> None:
    """However many hold something, or download: a look finds what has gone, and not all others."""
    stage = Stage(Limits(piece_timeout=100, peer_ttl=1000))
    for number in range(50):
        stage.holder(f"h{number}", "held")
        stage.child(f"h{number}b", "held")
    stage.register("c", "u")
    ages = stage.world.ages
    assert (len(ages.peers), ages.useless) == (51, {})
    stage.now += 100
    assert ages.peers.due(stage.now) == []
    assert ages.tasks.due(stage.now) == []
    assert ages.hosts.due(stage.now) == []


def test_a_sign_of_life_puts_off() -> None:
    """Of those that are looked at in vain, too: until the time is over that it began anew."""
    stage = Stage(Limits(piece_timeout=100))
    peer = stage.source("a")
    for _ in range(3):
        stage.now += 90
        assert not gone(stage, peer)
        stage.world.piece(peer, 1.0, None, stage.now)
    stage.now += 100
    assert not gone(stage, peer)
    stage.now += 1
    assert gone(stage, peer)


def test_a_shorter_interval_counts_at_once() -> None:
    """A host that says that it announces itself more often is missed earlier."""
    stage = Stage()
    stage.host("a", interval=1000.0)
    host = stage.host("a", interval=10.0)
    stage.now += 21
    assert sweep_hosts(stage.world, stage.now) == [host]


def test_who_may_be_asked_again_stays() -> None:
    """A host that shares again before anybody has looked keeps what it holds."""
    stage = Stage()
    peer = stage.holder("a")
    stage.host("a", disable_shared=True)
    stage.host("a")
    assert not gone(stage, peer)
