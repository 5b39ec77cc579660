"""core/sched/partners.py: who exchanges pieces with whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pantala.core.sched.centres import is_way_out, ways_out
from pantala.core.sched.choose import Parents, ToSource, Wait
from pantala.core.sched.entities import Peer
from pantala.core.sched.expire import sweep_peers
from pantala.core.sched.rules import RULES, Limits
from pantala.core.sched.states import PeerState
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


def started(stage: Stage, *names: str, **said: Any) -> list[Peer]:
    """Peers of these hosts, who are under way; somebody is at the origin."""
    if not stage.world.peers:
        stage.source("source")
    return [stage.child(name, **said) for name in names]


def told(stage: Stage, peer: Peer) -> list[Peer]:
    """The partners of *peer*, which gets parents; it is told of all."""
    decision = stage.decide(peer)
    assert isinstance(decision, Parents)
    listed = [each.id for each in (*decision.parents, *decision.partners)]
    assert len(set(listed)) == len(listed)
    assert {each.id for each in peer.partners} <= set(listed)
    return list(peer.partners)


def test_who_comes_at_the_same_time_is_a_partner() -> None:
    """The newcomer is told of those who are under way, and they of it; once."""
    stage = Stage()
    first, second = started(stage, "a", "b")
    assert set(first.partners) == {second}
    assert stage.news == [first]
    third = stage.register("c")
    assert told(stage, third) == list(third.partners)
    assert set(third.partners) == {first, second}
    assert stage.world.partners.take_news(first) == (second, third)
    assert stage.world.partners.take_news(first) == ()
    assert stage.world.partners.take_news(third) == ()  # it had that with its answer
    stage.check()


def test_a_parent_is_told_of_once() -> None:
    """As a parent; and it hears of the child that may give it something."""
    stage = Stage(Limits(candidates=1))
    first = started(stage, "a")[0]
    child = stage.register("b")
    (source,) = first.parents
    stage.world.block(child, source)
    assert stage.decide(child) == Parents((first,), ())
    assert set(child.partners) == {first}
    assert stage.world.partners.take_news(first) == (child,)
    # The other way round: a child that is drawn by its parent knows it already.
    stage.world.block(first, child.id)
    first.blocked.discard(child.id)
    stage.decide(first)
    assert set(child.partners) == {first}
    assert stage.world.partners.take_news(child) == ()
    stage.check()


def test_there_are_no_circles_of_parents_and_plenty_of_partners() -> None:
    """Of some that came one after another each exchanges with each."""
    stage = Stage()
    peers = started(stage, *"abcdef")
    for peer in peers:
        assert {peer, *peer.partners} == set(peers)
    stage.check()  # that is where circles of parents show


def test_at_the_origin_or_through_it_is_a_parent_only() -> None:
    """Nobody gets it as a new partner; but who had it keeps it."""
    stage = Stage()
    first, second = started(stage, "a", "b")
    stage.world.start_back_to_source(first, stage.now)
    stage.world.finish(second, stage.now)
    third = stage.register("c")
    assert told(stage, third) == []
    assert set(first.partners) == {second}
    stage.check()


@pytest.mark.parametrize("how", ["fail", "remove_peer", "remove_host"])
def test_who_is_gone_is_nobodys_partner(how: str) -> None:
    """At once, told of or not."""
    stage = Stage()
    first, second = started(stage, "a", "b")
    if how == "fail":
        stage.world.fail(second, stage.now)
    elif how == "remove_peer":
        stage.world.remove_peer(second)
    else:
        stage.world.remove_host(second.host)
    assert first.partners == {}
    assert stage.world.partners.take_news(first) == ()
    stage.check()


def test_one_that_has_not_been_told_anything_is_none() -> None:
    """It may be sent to the origin yet."""
    stage = Stage()
    stage.source("source")
    stage.register("a")
    assert told(stage, stage.register("b")) == []
    told_only = stage.register("c")
    stage.decide(told_only)
    assert told_only.state is PeerState.RECEIVED_NORMAL
    assert told_only in told(stage, stage.register("d"))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"version": "2.3.4"}, {}),
        ({"disable_shared": True}, {}),
        ({}, {"content_length": 11 * MIB}),
        ({}, {"range": ByteRange(8, 4)}),
    ],
    ids=["stock", "selfish", "another version", "another part"],
)
def test_who_does_not_fit_is_none(facts: dict[str, Any], said: dict[str, Any]) -> None:
    """To either side."""
    stage = Stage()
    stage.host("a", **facts)
    stage.source("source")
    stage.source("other", **said)
    odd = stage.child("a", **said)
    assert told(stage, stage.register("b", range=ByteRange(0, 4))) == []
    assert odd.partners == {}
    again = stage.register("a", **said)
    assert told(stage, again) == []


def test_who_has_another_version_is_none() -> None:
    """Its pieces belong to other content, whatever their length."""
    stage = Stage()
    (first,) = started(stage, "a", version="1")
    assert told(stage, stage.register("b", version="2")) == []
    assert told(stage, stage.register("c", version="1")) == [first]


def test_a_stock_peer_gets_what_it_always_got() -> None:
    """Parents only, in a task full of ours."""
    stage = Stage()
    started(stage, *"abcdefgh")
    stage.host("stock", version="2.3.4")
    decision = stage.decide(stage.register("stock"))
    assert isinstance(decision, Parents)
    assert (len(decision.parents), decision.partners) == (3, ())
    stage.check()


def test_two_peers_of_a_host_are_none() -> None:
    """Nor does one get two of another host."""
    stage = Stage()
    first = started(stage, "a")[0]
    again = stage.child("a", range=ByteRange(0, 5))
    assert (first.partners, again.partners) == ({}, {})
    assert len(told(stage, stage.register("b"))) == 1
    stage.check()


def test_who_failed_one_is_its_partner_no_more() -> None:
    """Nor ever again, whichever of the two asks."""
    stage = Stage()
    first, second = started(stage, "a", "b")
    stage.world.piece_failed(first, second.id, stage.now)
    assert first.partners == second.partners == {}
    assert told(stage, first) == told(stage, second) == []
    stage.check()


def test_who_failed_many_is_nobodys() -> None:
    """It is distrusted."""
    stage = Stage(Limits(accusers=2))
    bad, *others = (stage.child(name) for name in ["bad", "b", "c", "d"] if stage.source("s"))
    for number, other in enumerate(others[:2]):
        other.host.account = f"10.1.0.{number}"
        stage.world.piece_failed(other, bad.id, stage.now)
    assert bad.distrusted
    assert bad.partners == {}
    stage.check()


def test_a_host_that_stops_sharing_has_none() -> None:
    """As soon as it says so; and when it shares again, it may get some."""
    stage = Stage()
    first, second = started(stage, "a", "b")
    stage.host("a", disable_shared=True)
    assert second.partners == {}
    stage.check()
    stage.host("a")
    assert first in told(stage, second)


def test_each_has_room_for_more_than_it_was_given() -> None:
    """But not for any number; and a newcomer finds room far behind those who came last."""
    stage = Stage(Limits(candidates=1, partners=2))
    peers = started(stage, *(f"h{number}" for number in range(200)))
    assert max(len(peer.partners) for peer in peers) == stage.world.limits.most_partners == 6
    assert all(len(peer.partners) >= 2 for peer in peers[2:])
    assert 60 < len(peers[0].task.sociable or ()) < 160
    stage.check()


def test_who_asks_again_gets_new_ones_for_those_that_it_blocked() -> None:
    """It is told of all that it has, and of none that it blocked."""
    stage = Stage(Limits(partners=3))
    peers = started(stage, *(f"h{number}" for number in range(9)))
    peer = peers[-1]
    blocked = [each.id for each in peer.partners][:2]
    (kept,) = [each.id for each in peer.partners][2:]
    for each in blocked:
        stage.world.block(peer, each)
    again = [each.id for each in told(stage, peer)]
    assert kept in again
    assert len(again) == 3
    assert not set(blocked) & set(again)
    stage.check()


def test_all_are_of_the_own_data_centre_but_those_of_a_way_out() -> None:
    """Of a way out three of four are, and the others lead out of other data centres."""
    stage = Stage(Limits(partners=8))
    stage.source("source")
    for number in range(200):
        stage.host(f"h{number}", idc="iK"[number % 2])
        stage.child(f"h{number}")
    for number in range(40):
        stage.host(f"x{number}", idc="IK"[number % 2])
        peer = stage.register(f"x{number}")
        assert {each.host.centre for each in told(stage, peer)} == {peer.host.centre}
        assert len(peer.partners) == 8
    task = peer.task
    for way in task.ways or ():
        far = [each for each in way.partners if each.host.facts.idc != way.host.facts.idc]
        assert all(is_way_out(each) for each in far)
        others = {each for each in ways_out(task, way.host.centre) if each is not way}
        assert others <= set(way.partners)
    stage.check()


def test_a_way_out_has_partners_beyond_its_data_centre() -> None:
    """One of four; they lead out of theirs."""
    stage = Stage(Limits(partners=8))
    stage.source("source")
    for number in range(100):
        stage.host(f"h{number}", idc=str(number % 4))
        stage.child(f"h{number}")
    stage.host("x", idc="0", max_tx_bandwidth=10**11)  # the others are slow for it
    peer = stage.register("x")
    places = Counter(each.host.centre for each in told(stage, peer))
    assert is_way_out(peer)
    assert places.total() - places["0"] == 2
    assert places["0"] >= 6
    stage.check()


def test_a_host_that_moves_is_near_others() -> None:
    """Its peers are drawn as those of the data centre that it says it is in."""
    stage = Stage()
    first = started(stage, "a", "b")[0]
    stage.host("a", idc="i")
    assert first.task.sociable is not None
    assert first.task.sociable.group_of(first) == "i"
    stage.check()


@pytest.mark.parametrize("idcs", ["i", "j", "", "ijklmnop"])
def test_wherever_others_are_a_peer_gets_enough(idcs: str) -> None:
    """All in its data centre, none, or nobody says where.

    Where none is, room is left for those that will be.
    """
    stage = Stage(Limits(partners=4))
    stage.source("source")
    for number in range(24):
        stage.host(f"h{number}", idc=idcs[number % len(idcs)] if idcs else "")
        stage.child(f"h{number}")
    stage.host("x", idc="i")
    assert len(told(stage, stage.register("x"))) == {"i": 4, "ijklmnop": 3}.get(idcs, 2)


# Orphans


@pytest.mark.parametrize("how", ["fail", "remove_peer", "remove_host"])
def test_who_lost_its_last_parent_is_named(how: str) -> None:
    """At once, and nobody who has another, or never had one; of the orphans one is sent."""
    stage = Stage(Limits(candidates=1))
    parent = stage.source("source")
    orphans = [stage.child(name) for name in "abc"]
    for each in orphans:
        stage.world.link([parent], each)
    stage.register("d")
    if how == "remove_host":
        stage.world.remove_host(parent.host)
    elif how == "fail":
        stage.world.fail(parent, stage.now)
    else:
        stage.world.remove_peer(parent)
    assert stage.orphans == orphans
    decisions = [stage.decide(each) for each in orphans]
    assert [type(each) for each in decisions] == [ToSource, Wait, Wait]
    stage.world.start_back_to_source(orphans[0], stage.now)
    for each in orphans[1:]:
        decision = stage.decide(each)
        assert isinstance(decision, Parents)
        assert set(decision.parents) <= set(orphans) - {each}
    stage.check()


def test_a_late_start_does_not_undo_what_an_orphan_was_told_since() -> None:
    """It was on its way when the parent failed: who was sent to the origin is still expected."""
    stage = Stage(Limits(candidates=1))
    parent = stage.source("source")
    orphan, other = stage.register("a"), stage.register("b")
    for each in (orphan, other):
        assert isinstance(stage.decide(each), Parents)
    stage.world.start(other, stage.now)
    stage.world.fail(parent, stage.now)
    assert isinstance(stage.decide(orphan), ToSource)
    stage.world.start(orphan, stage.now)
    assert isinstance(stage.decide(other), Wait)
    stage.world.start_back_to_source(orphan, stage.now)
    decision = stage.decide(other)
    assert isinstance(decision, Parents)
    assert decision.parents == (orphan,)
    stage.check()


def test_without_partners_nobody_is_looked_after() -> None:
    """Who has lost its last parent notices that itself, for it waits for nobody."""
    stage = Stage(Limits(partners=0))
    parent = stage.source("source")
    child, other = stage.child("a"), stage.child("b")
    assert (child.partners, other.partners) == ({}, {})
    stage.world.link([parent], child)
    stage.world.remove_peer(parent)
    assert not child.parents
    assert stage.orphans == []
    stage.check()


def test_who_has_another_parent_is_no_orphan() -> None:
    """Nor is who has let go of its parents itself."""
    stage = Stage()
    one, other = stage.source("s"), stage.source("t")
    child = stage.child("a")
    assert set(child.parents) == {one.id, other.id}
    stage.world.remove_peer(one)
    assert stage.orphans == []
    stage.world.link([], child)
    stage.world.remove_peer(other)
    assert stage.orphans == []


def test_a_parent_that_failed_keeps_no_child() -> None:
    """Not even until it is swept away; one that has finished does."""
    stage = Stage()
    failed, done = stage.source("s"), stage.source("t")
    child = stage.child("a")
    stage.world.fail(failed, stage.now)
    stage.world.finish(done, stage.now)
    assert set(child.parents) == {done.id}
    sweep_peers(stage.world, stage.now)
    assert stage.orphans == []
    stage.check()
