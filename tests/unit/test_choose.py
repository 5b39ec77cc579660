"""core/sched/choose.py: parents, the origin, or patience."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from pantala.core.sched.choose import (
    AskSeed,
    Decision,
    Parents,
    ToSource,
    Wait,
    check_priority,
    decide,
    find_candidates,
    find_success_parent,
)
from pantala.core.sched.entities import Peer, Trigger
from pantala.core.sched.rules import RULES, Limits
from pantala.core.sched.states import PeerState
from pantala.errors import NoProvider, OnlyPeers, OriginClosed, OriginError
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


def ids(decision: Decision) -> set[str]:
    """The parents of a decision, which must be some."""
    assert isinstance(decision, Parents), decision
    return {parent.id for parent in decision.parents}


# Elections


def test_the_first_goes_to_the_origin_and_the_next_waits_for_it() -> None:
    """Until it has started, for as long as it may take; then it is a parent."""
    stage = Stage(Limits(start=10))
    first, second = stage.register("a"), stage.register("b")
    assert isinstance(stage.decide(first), ToSource)
    assert stage.decide(second) == Wait(stage.now + 10)
    stage.changed.clear()
    stage.world.start_back_to_source(first, stage.now)
    assert stage.changed
    assert ids(stage.decide(second)) == {first.id}


def test_of_a_thousand_at_once_one_is_elected() -> None:
    """Whatever the order in which they ask."""
    stage = Stage()
    peers = [stage.register(f"h{n}") for n in range(1000)]
    Random(5).shuffle(peers)
    decisions = [stage.decide(peer) for peer in peers]
    assert sum(isinstance(d, ToSource) for d in decisions) == 1
    assert sum(isinstance(d, Wait) for d in decisions) == 999


@pytest.mark.parametrize("how", ["fail", "never starts", "deleted"])
def test_when_the_elected_one_is_lost_one_other_is_elected(how: str) -> None:
    """It failed, or is gone, or did not start in time: one takes its place, others wait."""
    stage = Stage()
    first, *others = (stage.register(name) for name in "abcd")
    for peer in (first, *others):
        stage.decide(peer)
    stage.changed.clear()
    if how == "fail":
        stage.world.fail(first, stage.now)
    elif how == "deleted":
        stage.world.remove_peer(first)
    else:
        stage.now += stage.world.limits.start
    assert stage.changed or how == "never starts"
    decisions = [stage.decide(peer) for peer in others]
    assert [type(d) for d in decisions] == [ToSource, Wait, Wait]


def test_a_blocked_one_is_not_waited_for() -> None:
    """Nor one that does not share, nor one on the same host."""
    stage = Stage()
    told = stage.register("a")
    stage.decide(told)
    blocker = stage.register("b")
    stage.world.block(blocker, told.id)
    assert isinstance(stage.decide(blocker), ToSource)
    assert isinstance(stage.decide(stage.register("c")), Wait)

    stage.host("selfish", disable_shared=True)
    stage.decide(stage.register("selfish", "u"))
    assert isinstance(stage.decide(stage.register("b", "u")), ToSource)

    stage.decide(stage.register("x", "v"))
    assert isinstance(stage.decide(stage.register("x", "v")), ToSource)


def test_who_insists_goes_to_the_origin() -> None:
    """Any number of them, at any time, though others hold it."""
    stage = Stage()
    stage.holder("a")
    for name in "bcd":
        peer = stage.register(name, need_back_to_source=True)
        assert isinstance(stage.decide(peer), ToSource)
    assert isinstance(stage.decide(stage.register("b")), Parents)


def test_a_running_peer_told_to_the_origin_is_waited_for() -> None:
    """Two children lose their only parent: one goes, the other waits for it."""
    stage = Stage()
    top = stage.source("a")
    one, other = stage.child("b"), stage.child("c")
    stage.world.link([top], other)
    stage.world.remove_peer(top)
    assert isinstance(stage.decide(one), ToSource)
    assert isinstance(stage.decide(other), Wait)
    stage.world.start_back_to_source(one, stage.now)
    assert ids(stage.decide(other)) == {one.id}
    stage.check()


def test_failures_at_the_origin_come_to_an_end() -> None:
    """After a few, those who wait are told what the origin said; later it is tried again."""
    stage = Stage(Limits(origin_failures=2, origin_memory=60))
    last = stage.register("z")
    for name in "ab":
        peer = stage.register(name)
        assert isinstance(stage.decide(peer), ToSource)
        stage.world.start_back_to_source(peer, stage.now)
        stage.world.fail(peer, stage.now, origin="503 Service Unavailable")
    with pytest.raises(OriginError, match=r"failed for 2 hosts.*503 Service"):
        stage.decide(last)
    stage.now += 61
    assert isinstance(stage.decide(last), ToSource)


def fails(stage: Stage, host: str, status: int | None, credentials: str = "") -> None:
    """A peer of *host* goes to the origin and fails there."""
    headers = {"Authorization": credentials} if credentials else {}
    peer = stage.source(host, request_header=headers)
    stage.world.fail(peer, stage.now, origin="x", status=status)


@pytest.mark.parametrize(
    ("failures", "barred"),
    [
        ([("a", 503), ("b", None)], True),
        ([("a", 404), ("b", 404)], True),
        ([("a", 503), ("a", 503), ("a", 503)], False),  # one sick host
        ([("a", 401), ("b", 403), ("c", 403)], False),  # credentials that were refused
        ([("a", 404, "bob"), ("b", 404, "bob"), ("c", 404, "bob")], False),  # to him alone, perhaps
        ([("a", 404, "bob"), ("b", 404, "eve")], True),
        ([("a", 503, "bob"), ("b", 503, "bob")], True),  # which has nothing to do with him
        ([("a", 404, "bob"), ("a", 404, "eve")], False),
    ],
)
def test_whose_failures_count(failures: list[tuple[Any, ...]], barred: bool) -> None:  # noqa: FBT001  a column of the table
    """Those of distinct hosts with distinct credentials, where the origin may be at fault."""
    stage = Stage(Limits(origin_failures=2))
    for failure in failures:
        fails(stage, *failure)
    last = stage.register("z")
    if barred:
        with pytest.raises(OriginError, match="failed for 2 hosts"):
            stage.decide(last)
    else:
        assert isinstance(stage.decide(last), ToSource)


def test_too_many_at_the_origin() -> None:
    """The cap holds, but not for those who insist."""
    stage = Stage(Limits(back_to_source=1, patience=2))
    source = stage.source("a")
    stage.source("b")
    peer = stage.register("c")
    for other in list(source.task.peers):
        stage.world.block(peer, other)
    assert stage.decide(peer) == Wait(stage.now + 2)
    stage.now += 2
    with pytest.raises(NoProvider, match="backToSourceCount"):
        stage.decide(peer)


# Peers that may not ask the origin


def test_disabled_back_to_source_waits_a_little_when_nobody_comes() -> None:
    """Never elected; the time counts from when nobody was coming any more."""
    stage = Stage(Limits(patience=2.5))
    peer = stage.register("a", disable_back_to_source=True)
    assert stage.decide(peer) == Wait(stage.now + 2.5)
    stage.now += 1
    assert stage.decide(peer) == Wait(stage.now + 1.5)
    told = stage.register("b")
    assert isinstance(stage.decide(told), ToSource)
    stage.now += 5
    assert stage.decide(peer) == Wait(stage.now + 5)
    stage.world.fail(told, stage.now)
    assert stage.decide(peer) == Wait(stage.now + 2.5)
    stage.now += 2.5
    with pytest.raises(NoProvider, match="disable_back_to_source"):
        stage.decide(peer)


def test_a_kind_without_an_origin() -> None:
    """Nobody is ever elected: peers wait a little for a holder, then hear that there is none."""
    rules = {Stage.kind: replace(RULES[Stage.kind], from_source=False)}
    stage = Stage(Limits(patience=2), rules=rules)
    peer = stage.register("a")
    assert stage.decide(peer) == Wait(stage.now + 2)
    stage.now += 2
    with pytest.raises(NoProvider, match="have no origin"):
        stage.decide(peer)


def test_a_burst_of_cold_tasks_spares_the_origin() -> None:
    """Without a delay: of many hosts that ask for many tasks at once, one is sent for each task."""
    stage = Stage()
    peers = [
        stage.register(f"h{host}", f"t{task}", url=f"http://origin/{task}")
        for host in range(50)
        for task in range(20)
    ]
    stage.rng.shuffle(peers)
    sent = [peer for peer in peers if isinstance(stage.decide(peer), ToSource)]
    assert len({peer.task for peer in sent}) == len(sent) == 20
    for peer in sent:
        stage.world.start_back_to_source(peer, stage.now)
    stage.now += 0.1
    others = [stage.decide(peer) for peer in peers if peer not in sent]
    assert all(isinstance(each, Parents | Wait) for each in others)
    stage.check()


# Priorities and seeds


def test_priorities() -> None:
    """1 never; 2 only from peers; 3 without seeds; the others ask a seed."""
    stage = Stage()
    stage.host("seed", type=1)
    refused = stage.register("a", "x", priority=1)
    with pytest.raises(OriginClosed, match="LEVEL1"):
        check_priority(refused.registration.request, "x")
    with pytest.raises(OnlyPeers, match="LEVEL2"):
        stage.decide(stage.register("a", "t2", priority=2))
    assert isinstance(stage.decide(stage.register("a", "t3", priority=3)), ToSource)
    for priority in (0, 4, 5, 6):
        peer = stage.register("a", f"t{priority}", priority=priority)
        check_priority(peer.registration.request, peer.task.id)
        assert isinstance(stage.decide(peer), AskSeed)
    waiting = stage.register("b", "t3", priority=2)
    assert isinstance(stage.decide(waiting), Wait)


def test_a_seed_is_asked_once_and_waited_for() -> None:
    """By the first; all wait until it has started, and then have it as parent."""
    stage = Stage(Limits(seed_start=30))
    seed = stage.host("seed", type=1)
    peers = [stage.register(name) for name in "abc"]
    assert stage.decide(peers[0]) == AskSeed((seed,))
    assert [stage.decide(p) for p in peers] == [Wait(stage.now + 30)] * 3
    stage.now += 5
    at_seed = stage.source("seed")
    assert [ids(stage.decide(p)) & {at_seed.id} for p in peers] == [{at_seed.id}] * 3


def test_a_seed_that_takes_too_long_is_not_waited_for() -> None:
    """After its time one of the others goes to the origin."""
    stage = Stage(Limits(seed_start=30))
    stage.host("seed", type=1)
    one, other = stage.register("a"), stage.register("b")
    stage.decide(one)
    stage.now += 30
    assert isinstance(stage.decide(one), ToSource)
    assert isinstance(stage.decide(other), Wait)


def test_a_seed_that_has_failed_is_not_waited_for() -> None:
    """Its peer has come and gone while the call lasts."""
    stage = Stage()
    stage.host("seed", type=1)
    peer = stage.register("a")
    stage.decide(peer)
    stage.world.fail(stage.source("seed"), stage.now, origin="x")
    assert isinstance(stage.decide(peer), ToSource)


def test_seeds_are_left_alone_for_a_while() -> None:
    """As the end of the last call says; then they are asked again."""
    stage = Stage()
    stage.host("seed", type=1)
    peer = stage.register("a")
    assert isinstance(stage.decide(peer), AskSeed)
    stage.world.end_trigger(peer.task, no_seed_before=stage.now + 30)
    assert isinstance(stage.decide(peer), ToSource)
    stage.world.fail(peer, stage.now)
    stage.now += 30
    assert isinstance(stage.decide(stage.register("b")), AskSeed)


def test_a_lost_seed_does_not_stop_anybody() -> None:
    """The host that was asked has left; its promise ends when its time does."""
    stage = Stage(Limits(seed_start=30))
    seed = stage.host("seed", type=1)
    peer = stage.register("a")
    stage.decide(peer)
    stage.world.remove_host(seed)
    assert isinstance(stage.decide(peer), Wait)
    peer.task.trigger = Trigger(seed.id, stage.now - 30)
    assert isinstance(stage.decide(peer), ToSource)


def test_a_seed_that_comes_of_itself_does_not_wait_for_itself() -> None:
    """It was asked for a task that somebody on it wants just now: the two are one download."""
    stage = Stage(Limits(start=10))
    stage.host("seed", type=1)
    child = stage.register("a")
    assert isinstance(stage.decide(child), AskSeed)
    own = stage.register("seed")
    assert isinstance(stage.decide(own), ToSource)
    stage.world.start_back_to_source(own, stage.now)
    assert ids(stage.decide(child)) == {own.id}


def test_a_seed_that_was_of_no_use_is_not_asked_again_for_the_same_peer() -> None:
    """It says that it is done, and cannot be this one's parent."""
    stage = Stage()
    stage.host("seed", type=1)
    peer = stage.register("a")
    assert isinstance(stage.decide(peer), AskSeed)
    stage.world.block(peer, stage.holder("seed").id)
    stage.world.end_trigger(peer.task, no_seed_before=0.0)
    assert isinstance(stage.decide(peer), ToSource)


def test_seeds_do_not_ask_seeds() -> None:
    """A seed's own download goes to the origin."""
    stage = Stage()
    stage.host("one", type=1)
    stage.host("two", type=1)
    assert isinstance(stage.decide(stage.register("one")), ToSource)


# Which parents


def test_the_sample_is_uniform() -> None:
    """Of many equal parents each is offered as often."""
    stage = Stage(Limits(candidates=1, sample=15))
    holders = [stage.holder(f"h{n}") for n in range(30)]
    child = stage.register("c")
    rng = Random(9)
    seen: Counter[str] = Counter()
    for _ in range(3000):
        seen.update(p.id for p in find_candidates(stage.world.limits, child, set(), rng))
    assert set(seen) == {holder.id for holder in holders}
    assert all(50 < count < 160 for count in seen.values())


def test_a_good_parent_among_many_useless_peers_is_found() -> None:
    """Whatever has failed, waits or is blocked does not hide it."""
    stage = Stage()
    for number in range(300):
        stage.world.fail(stage.source(f"f{number}"), stage.now)
        stage.register(f"w{number}")
    good = stage.holder("good")
    assert ids(stage.decide(stage.register("c"))) == {good.id}


def test_the_best_come_first_and_no_more_than_asked_for() -> None:
    """By score: here the same place in a data centre."""
    stage = Stage(Limits(candidates=2))
    stage.host("c", idc="x", location="hall|rack")
    for name, location in (("far1", "attic"), ("near", "hall|rack"), ("far2", "cellar")):
        stage.host(name, idc="x", location=location)
        stage.holder(name)
    decision = stage.decide(stage.register("c"))
    assert isinstance(decision, Parents)
    assert len(decision.parents) == 2
    assert decision.parents[0].host.id == "near"


def _no_child_of_itself(stage: Stage, child: Peer) -> None:
    assert not isinstance(stage.decide(child), Parents)


def test_who_is_never_offered() -> None:
    """Blocked, not sharing, same host, busy, another version."""
    stage = Stage(Limits(uploads=1))
    blocked = stage.holder("a", "blocked")
    child = stage.register("z", "blocked")
    stage.world.block(child, blocked.id)
    _no_child_of_itself(stage, child)

    stage.host("selfish", disable_shared=True)
    stage.holder("selfish", "selfish")
    _no_child_of_itself(stage, stage.register("z", "selfish"))

    stage.holder("b", "host")
    _no_child_of_itself(stage, stage.register("b", "host"))

    stage.holder("c", "busy")
    stage.child("d", "busy")
    child = stage.register("e", "busy")
    found = find_candidates(stage.world.limits, child, set(), stage.rng)
    assert "c" not in {parent.host.id for parent in found}

    stage.source("g", "shape", content_length=MIB)
    other = stage.register("h", "shape", content_length=2 * MIB, need_back_to_source=True)
    assert find_candidates(stage.world.limits, other, set(), stage.rng) == []


def test_who_has_another_version_is_no_parent() -> None:
    """Of those of whom it is known: what a peer has of one that has a version is of that."""
    stage = Stage()
    old, new, unknown = stage.holder("a", version="1"), stage.holder("b", version="2"), "d"
    child = stage.child("c", version="1")
    assert ids(stage.decide(stage.register("x", version="1"))) == {old.id, child.id}
    assert ids(stage.decide(stage.register("y", version="2"))) == {new.id}
    assert isinstance(stage.decide(stage.register("z", version="3")), ToSource)
    anybody = stage.child(unknown)
    assert anybody.id in ids(stage.decide(stage.register("x", version="1")))
    assert anybody.id in ids(stage.decide(stage.register("y", version="2")))
    stage.world.piece(anybody, 0.1, new.id, stage.now)
    assert anybody.version == "2"
    assert anybody.id not in ids(stage.decide(stage.register("x", version="1")))
    stage.world.learn_version(anybody, "1")
    assert anybody.version == "2"
    unnamed = stage.register("e")
    stage.world.learn_version(unnamed, "x" * 1000)  # that would be kept, and charged to nobody
    assert unnamed.version == ""
    stage.check()


def test_nobody_waits_for_who_brings_another_version() -> None:
    """Nor does a host have of two of its peers what only one of them has."""
    stage = Stage()
    first = stage.register("a", version="1")
    assert isinstance(stage.decide(first), ToSource)
    assert isinstance(stage.decide(stage.register("b", version="1")), Wait)
    assert isinstance(stage.decide(stage.register("c", version="2")), ToSource)
    part = ByteRange(0, 4 * MIB)
    stage.holder("h", "parts", version="1", range=part)
    new = stage.holder("h", "parts", version="2", range=ByteRange(4 * MIB, 4 * MIB))
    assert new.range == ByteRange(4 * MIB, 4 * MIB)
    stage.check()


def test_a_stuck_parent_comes_last_and_is_better_than_the_origin() -> None:
    """Its last piece took more than twenty times as long as those before."""
    stage = Stage(Limits(candidates=2))
    stage.host("stuck", location="x")
    stage.host("z", location="x")
    stuck = stage.source("stuck")
    for cost in (1.0, 1.0, 21.0):
        assert ids(stage.decide(stage.register("y"))) == {stuck.id}
        stage.world.piece(stuck, cost, None, stage.now)
    assert ids(stage.decide(stage.register("y"))) == {stuck.id}
    other = stage.holder("far")
    decision = stage.decide(stage.register("z"))
    assert isinstance(decision, Parents)
    assert [parent.id for parent in decision.parents] == [other.id, stuck.id]
    stage.world.finish(stuck, stage.now)  # what was slow has come
    decision = stage.decide(stage.register("z"))
    assert isinstance(decision, Parents)
    assert [parent.id for parent in decision.parents] == [stuck.id, other.id]


def test_of_many_at_the_origin_those_that_came_first_come_first() -> None:
    """Whatever they are called: what is decided is a function of what has happened, and of chance.

    Of the others there is one that is nearest to the child, which would come first.
    """
    stage = Stage(Limits(candidates=3, partners=4))
    stage.host("child", location="x")
    sources = [stage.source(f"s{number}") for number in range(20)]
    stage.host("near", location="x")
    near = stage.source("near")
    decision = stage.decide(stage.register("child"))
    assert isinstance(decision, Parents)
    assert decision.parents[2] is near
    assert set(decision.parents[:2]) == set(sources[:2])


def test_no_circles_of_hosts() -> None:
    """Two that hold different parts, and now both want everything, do not wait for each other."""
    stage = Stage()
    stage.holder("a", range=ByteRange(0, 4 * MIB))
    stage.holder("b", range=ByteRange(4 * MIB, 4 * MIB))
    first, second = stage.register("a"), stage.register("b")
    assert {peer.host.id for peer in _parents(stage.decide(first))} == {"b"}
    stage.world.start(first, stage.now)
    assert second.hosts_below(9) == {first.host}
    assert isinstance(stage.decide(second), ToSource)
    # One that wants what nobody waits for may have it from there.
    apart = stage.register("b", range=ByteRange(0, 4 * MIB))
    assert apart.hosts_below(9) == {first.host}
    stage.world.finish(first, stage.now)
    assert {peer.host.id for peer in _parents(stage.decide(apart))} == {"a"}


def test_hosts_that_read_different_parts_serve_each_other() -> None:
    """Neither waits for what the other is waiting for."""
    stage = Stage()
    stage.holder("a", range=ByteRange(0, 4 * MIB))
    stage.holder("b", range=ByteRange(4 * MIB, 4 * MIB))
    one = stage.child("a", range=ByteRange(4 * MIB, 4 * MIB))
    other = stage.child("b", range=ByteRange(0, 4 * MIB))
    assert [edge.parent.host.id for edge in one.parents.values()] == ["b"]
    assert [edge.parent.host.id for edge in other.parents.values()] == ["a"]


def _parents(decision: Decision) -> tuple[Peer, ...]:
    assert isinstance(decision, Parents), decision
    return decision.parents


def test_no_circles() -> None:
    """A child that lost its parent is not sent to those below it, near or far."""
    stage = Stage()
    top = stage.source("a")
    child = stage.child("b")
    below, far = stage.register("c"), stage.register("d")
    stage.world.link([child], below)
    stage.world.start(below, stage.now)
    stage.world.link([below], far)
    stage.world.start(far, stage.now)
    stage.world.remove_peer(top)
    assert child.hosts_below(9) == {below.host, far.host}
    assert isinstance(stage.decide(child), ToSource)
    stage.check()


def test_one_parent_of_a_host() -> None:
    """Two peers of one host are one place to fetch from."""
    stage = Stage()
    stage.holder("a", range=ByteRange(0, MIB))
    stage.source("a")
    decision = stage.decide(stage.register("b"))
    assert len(ids(decision)) == 1


def test_busy_parents_are_waited_for_but_not_for_ever() -> None:
    """All places are taken: look again soon; after a while go to the origin."""
    stage = Stage(Limits(uploads=1, start=10))
    parent = stage.holder("a")
    first = stage.child("b")
    stage.host("b", disable_shared=True)
    second = stage.register("c")
    waited = 0.0
    while isinstance(decision := stage.decide(second), Wait):
        assert decision.until - stage.now <= 1
        waited += decision.until - stage.now
        stage.now = decision.until
    assert isinstance(decision, ToSource)
    assert waited == pytest.approx(10)
    third = stage.register("d")
    stage.world.fail(second, stage.now)
    assert isinstance(stage.decide(third), Wait)
    stage.world.finish(first, stage.now)
    assert ids(stage.decide(third)) == {parent.id}


def test_who_was_given_parents_is_waited_for() -> None:
    """All places are taken, but a new parent is about to start."""
    stage = Stage(Limits(uploads=1, start=10))
    stage.holder("a")
    first, second = stage.register("b"), stage.register("c")
    assert isinstance(stage.decide(first), Parents)
    assert stage.decide(second) == Wait(stage.now + 10)
    stage.world.start(first, stage.now)
    assert ids(stage.decide(second)) == {first.id}


# Ranges


def test_parts_come_after_wholes_and_do_not_stand_in_the_way() -> None:
    """Offered for the whole, but neither waited for nor a reason not to go to the origin."""
    stage = Stage()
    part = stage.holder("a", range=ByteRange(0, MIB))
    whole = stage.holder("b")
    child = stage.register("c")
    decision = stage.decide(child)
    assert isinstance(decision, Parents)
    assert decision.parents == (whole, part)
    stage.world.block(child, whole.id)
    assert ids(stage.decide(child)) == {part.id}
    stage.world.block(child, part.id)
    assert isinstance(stage.decide(child), ToSource)


def test_a_part_that_has_nothing_of_it_is_not_offered() -> None:
    """Ranges that do not meet."""
    stage = Stage()
    stage.holder("a", range=ByteRange(0, MIB))
    other = stage.register("b", range=ByteRange(MIB, MIB))
    assert isinstance(stage.decide(other), ToSource)
    within = stage.register("c", range=ByteRange(5, 5))
    assert isinstance(stage.decide(within), Parents)


def test_a_part_on_the_way_is_not_waited_for_by_who_wants_all() -> None:
    """But by who wants no more than that."""
    stage = Stage()
    assert isinstance(stage.decide(stage.register("a", range=ByteRange(0, MIB))), ToSource)
    within = stage.register("b", range=ByteRange(0, MIB))
    assert isinstance(stage.decide(within), Wait)
    assert isinstance(stage.decide(stage.register("c")), ToSource)


# Success parents


def test_find_success_parent() -> None:
    """The best that has everything, for a running child only."""
    stage = Stage()
    source = stage.source("a")
    child = stage.child("b")
    assert find_success_parent(stage.world.limits, child, stage.rng) is None
    stage.world.finish(source, stage.now)
    assert find_success_parent(stage.world.limits, child, stage.rng) is source
    assert find_success_parent(stage.world.limits, stage.register("c"), stage.rng) is None


def test_a_peer_that_is_past_parents_goes_on_at_the_origin() -> None:
    """Asking again from there is answered alike."""
    stage = Stage()
    stage.holder("a")
    peer = stage.source("b")
    assert peer.state is PeerState.BACK_TO_SOURCE
    assert isinstance(decide(stage.world, peer, stage.now, stage.rng), ToSource)
    assert not peer.task.expected


def test_a_peer_with_a_whole_swarm_below_it() -> None:
    """Not all of that is looked at: it gets one who is near to the source, or the origin."""
    stage = Stage(Limits(below=5, candidates=1))
    source = stage.source("source")
    first = stage.child("first")
    stage.world.block(first, source.id)
    line = [first]
    for number in range(8):  # a line: each is the parent of the next
        line.append(stage.child(f"h{number}"))
        stage.world.link([line[-2]], line[-1])
    stage.world.link([source, first], line[1])
    aside = stage.child("aside")
    stage.world.link([source], aside)
    assert first.hosts_below(8) == {peer.host for peer in line[1:]}
    assert first.hosts_below(7) is None
    holder = stage.holder("holder")
    stage.world.block(first, aside.id)
    assert ids(stage.decide(first)) == {holder.id}
    stage.world.remove_peer(holder)
    # Those who fetch from nobody else may be full, or have failed it: then one of their children.
    first.blocked.discard(aside.id)
    assert ids(stage.decide(first)) == {aside.id}
    stage.world.remove_peer(aside)
    # Not its own child, which fetches from nobody else either; nor is any below it waited for.
    elected = stage.register("elected")
    told = stage.register("told")
    stage.world.link([line[-1]], told)
    stage.world.expect(told, stage.now + 5)
    assert isinstance(stage.decide(first), ToSource)
    stage.world.expect(elected, stage.now + 7)
    assert stage.decide(first) == Wait(stage.now + 7)
    stage.check()
