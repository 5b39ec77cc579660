"""core/sched/centres.py: who of a data centre fetches from beyond it."""

from __future__ import annotations

from typing import Any

import pytest

from pantala.core.sched.centres import ENOUGH, is_way_out
from pantala.core.sched.choose import Parents, Wait
from pantala.core.sched.entities import Peer
from pantala.core.sched.rules import RULES
from pantala.model.pieces import ByteRange
from pantala.testing.stage import MIB, Stage


@pytest.fixture(
    params=[kind for kind, rules in RULES.items() if rules.from_source],
    ids=lambda kind: kind.name,
    autouse=True,
)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds for one kind of task holds for all that fetch from an origin."""
    monkeypatch.setattr(Stage, "kind", request.param)


def stage_at(*sources: str) -> Stage:
    """Somebody at the origin in each of these data centres."""
    stage = Stage()
    for idc in sources:
        stage.host(f"source in {idc}", idc=idc)
        stage.source(f"source in {idc}")
    return stage


def told(stage: Stage, name: str, idc: str, **facts: Any) -> Peer:
    """A new peer of a new host, which was told its parents and has not begun."""
    stage.host(name, idc=idc, **facts)
    peer = stage.register(name)
    assert isinstance(stage.decide(peer), Parents)
    return peer


def started(stage: Stage, number: int, idc: str, **facts: Any) -> list[Peer]:
    """So many that are under way."""
    peers = []
    for at in range(number):
        peers.append(told(stage, f"{idc}{at}", idc, **facts))
        stage.world.start(peers[-1], stage.now)
    return peers


def parents(peer: Peer) -> set[str]:
    """Data centres of its parents."""
    return {edge.parent.host.centre for edge in peer.parents.values()}


def test_a_few_go_out_and_the_others_stay_in() -> None:
    """The first ones; what the others get they get from these, and from each other."""
    stage = stage_at("a")
    peers = started(stage, 10, "b")
    assert [is_way_out(peer) for peer in peers] == [True] * ENOUGH + [False] * (10 - ENOUGH)
    assert all(parents(peer) == {"a"} for peer in peers[:ENOUGH])
    assert all(parents(peer) == {"b"} for peer in peers[ENOUGH:])
    for peer in peers[ENOUGH:]:
        assert {each.host.centre for each in peer.partners} == {"b"}
    assert set(peers[1].partners) >= {peers[0], peers[2]}
    stage.check()


def test_the_others_wait_until_one_has_begun() -> None:
    """It was told a moment ago; they look again when it begins."""
    stage = stage_at("a")
    ways = [told(stage, f"b{number}", "b") for number in range(ENOUGH)]
    late = stage.register(stage.host("late", idc="B").id)
    assert stage.decide(late) == Wait(stage.now + stage.world.limits.start)
    stage.changed.clear()
    stage.world.start(ways[0], stage.now)
    assert late.task in stage.changed
    decision = stage.decide(late)
    assert isinstance(decision, Parents)
    assert decision.parents == (ways[0],)
    assert set(late.partners) == set(ways)


def test_nobody_waits_longer_than_that() -> None:
    """Whoever finds nobody in its data centre goes out."""
    stage = stage_at("a")
    for number in range(ENOUGH):
        told(stage, f"b{number}", "b")
    late = stage.register(stage.host("late", idc="b").id)
    stage.now += stage.world.limits.start + 1
    assert isinstance(stage.decide(late), Parents)
    assert parents(late) == {"a"}


def test_where_one_has_everything_nobody_goes_out() -> None:
    """But if it is of no use: stuck, slow, or it failed this one, or has not all of it."""
    stage = stage_at("a")
    stage.host("b", idc="b")
    whole = stage.holder("b")
    assert parents(told(stage, "x", "b")) == {"b"}
    assert parents(told(stage, "fast", "b", max_tx_bandwidth=10**11)) == {"a"}
    failed = stage.register(stage.host("y", idc="b").id)
    stage.world.block(failed, whole.id)
    for _ in range(2):  # they are told, and would be waited for
        stage.decide(failed)
        stage.now += stage.world.limits.start + 1
    assert "a" in parents(failed)
    for cost in (1.0, 1.0, 30.0):
        stage.world.piece(whole, cost, None, stage.now)
    assert parents(told(stage, "z", "b")) == {"a"}


def test_a_part_is_not_everything() -> None:
    """Whoever wants all of it goes out for the rest."""
    stage = stage_at("a")
    stage.host("b", idc="b")
    stage.holder("b", range=ByteRange(0, 4 * MIB))
    stage.host("x", idc="b")
    part = stage.register("x", range=ByteRange(0, MIB))
    stage.decide(part)
    assert parents(part) == {"b"}
    assert parents(told(stage, "y", "b")) == {"a"}


def test_slow_ways_out_are_not_enough() -> None:
    """By what hosts say of their links: there are as many as carry what three good ones do."""
    stage = stage_at("a")
    slow = started(stage, 3, "b", max_tx_bandwidth=10**9)
    assert all(is_way_out(peer) for peer in slow)
    fast = [told(stage, f"fast{number}", "b") for number in range(3)]
    assert all(is_way_out(peer) for peer in fast)
    assert not is_way_out(stage.child(stage.host("one more", idc="b").id))
    # To a slow one they are as good as any.
    assert not is_way_out(stage.child(stage.host("slow", idc="b", max_tx_bandwidth=10**9).id))


@pytest.mark.parametrize("how", ["fail", "remove_peer", "remove_host"])
def test_when_one_is_lost_another_is_made_one(how: str) -> None:
    """Without being asked: one of those who have been there for the longest time."""
    stage = stage_at("a")
    peers = started(stage, 6, "b")
    stage.orphans.clear()
    if how == "fail":
        stage.world.fail(peers[0], stage.now)
    elif how == "remove_peer":
        stage.world.remove_peer(peers[0])
    else:
        stage.world.remove_host(peers[0].host)
    (heir,) = stage.orphans
    assert heir in peers[ENOUGH:]
    stage.decide(heir)
    assert is_way_out(heir)
    assert "a" in parents(heir)
    assert set(heir.partners) >= {peers[1], peers[2]}
    stage.check()


def test_all_lost_at_once() -> None:
    """Each of the others is called once at most, and has a way to the source afterwards."""
    stage = stage_at("a")
    peers = started(stage, 8, "b")
    stage.orphans.clear()
    for peer in peers[:ENOUGH]:
        stage.world.fail(peer, stage.now)
    for orphan in dict.fromkeys(stage.orphans):
        decision = stage.decide(orphan)
        assert isinstance(decision, Parents | Wait)
        if isinstance(decision, Parents):
            stage.world.start(orphan, stage.now)
    left = peers[ENOUGH:]
    assert any(is_way_out(peer) for peer in left)
    assert all(peer.parents or isinstance(stage.decide(peer), Parents) for peer in left)
    stage.check()


def test_who_asks_again_because_nothing_comes_goes_out() -> None:
    """One of a data centre in ten seconds: all notice at the same time."""
    stage = stage_at("a")
    peers = started(stage, 8, "b")
    for seconds, at, out in ((1, 4, False), (20, 4, True), (0, 5, False), (11, 5, True)):
        stage.now += seconds
        stage.decide(peers[at])
        assert is_way_out(peers[at]) == out
    stage.now += 20
    stage.world.piece(peers[6], 1.0, None, stage.now)  # it gets what it wants
    stage.decide(peers[6])
    assert not is_way_out(peers[6])


def test_a_source_gives_to_its_own_data_centre_and_to_others() -> None:
    """What it gives to others comes back by a few who go out for it."""
    stage = stage_at("a")
    started(stage, 3, "b")
    peers = started(stage, 6, "a")
    assert sum(is_way_out(peer) for peer in peers) == ENOUGH - 1
    assert all("a" in parents(peer) for peer in peers)


def test_one_data_centre_alone_has_no_way_out() -> None:
    """There is nobody to go to."""
    stage = stage_at("a")
    peers = started(stage, 20, "a")
    assert not any(is_way_out(peer) for peer in peers)
    stage.check()


def test_whoever_names_no_data_centre_is_beyond_all() -> None:
    """It gets parents from anywhere; and a stock daemon, too."""
    stage = stage_at("")
    assert all(is_way_out(peer) for peer in started(stage, 2, "b"))
    stage.host("c", idc="b", version="2.3.4")
    stock = stage.register("c")
    stage.decide(stock)
    assert parents(stock) == {"", "b"}
    assert not is_way_out(told(stage, "nowhere", ""))
    stage.check()


def test_a_host_that_moves_to_another_data_centre() -> None:
    """Its peers count there, and its children may lead out now."""
    stage = stage_at("a")
    peers = started(stage, 6, "b")
    child = peers[5]
    for edge in list(child.parents.values()):
        stage.host(edge.parent.host.id, idc="c")
    assert is_way_out(child)
    stage.check()
