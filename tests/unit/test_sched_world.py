"""core/sched/world.py: what happens, and that the books stay true."""

from __future__ import annotations

import pytest

from pantala.core.sched.choose import ToSource
from pantala.core.sched.rules import RULES, Limits
from pantala.core.sched.states import PeerState, TaskState
from pantala.errors import (
    InvalidRequest,
    InvalidTransition,
    NotFound,
    TaskNotFound,
)
from pantala.model.pieces import ByteRange
from pantala.model.task import Kind
from pantala.testing.stage import MIB, Stage, task_id


@pytest.fixture(
    params=[kind for kind, rules in RULES.items() if rules.from_source],
    ids=lambda kind: kind.name,
    autouse=True,
)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds for one kind of task holds for all that fetch from an origin."""
    monkeypatch.setattr(Stage, "kind", request.param)


def test_a_download_from_the_origin_to_the_child() -> None:
    """The life of a source and of its child, and of their task."""
    stage = Stage()
    source = stage.source("a")
    task = source.task
    assert (source.state, task.state) == (PeerState.BACK_TO_SOURCE, TaskState.RUNNING)
    assert list(task.at_origin) == [source.id]
    child = stage.child("b")
    assert list(child.parents) == [source.id]
    stage.now += 5
    stage.world.finish(child, stage.now)
    assert (child.state, child.cost, child.parents) == (PeerState.SUCCEEDED, 5, {})
    assert task.state is TaskState.SUCCEEDED
    stage.world.finish(source, stage.now)
    assert (list(task.at_origin), set(task.holders)) == ([], {source, child})
    stage.check()


def test_unknown_things_are_named() -> None:
    """A host, a peer or a task that is not there."""
    world = Stage().world
    with pytest.raises(NotFound, match=r"host h .*AnnounceHost"):
        world.host("h")
    with pytest.raises(NotFound, match=r"peer p .*register"):
        world.peer((Stage.kind, "p"))
    with pytest.raises(TaskNotFound):
        world.task((Stage.kind, task_id("t")))


def test_kinds_that_are_not_served() -> None:
    """A registration of another kind leaves nothing behind."""
    stage = Stage()
    with pytest.raises(InvalidRequest, match="PERSISTENT tasks"):
        stage.register("a", kind=Kind.PERSISTENT)
    assert not stage.world.tasks
    assert not stage.world.peers


def test_kinds_share_nothing_but_hosts() -> None:
    """Cache and standard tasks of one id live side by side; a host's load is counted once."""
    stage = Stage()
    cache = stage.holder("a", kind=Kind.CACHE, peer_id="same")
    standard = stage.holder("a", kind=Kind.STANDARD, peer_id="same")
    assert cache.task is not standard.task
    children = [stage.child("b", kind=kind) for kind in (Kind.CACHE, Kind.STANDARD)]
    assert [next(iter(child.parents.values())).parent for child in children] == [cache, standard]
    assert stage.world.hosts["a"].uploads == 2
    stage.check()
    stage.world.remove_host(stage.world.hosts["a"])
    assert set(stage.world.peers.values()) == set(children)
    stage.check()


def test_a_peer_id_is_used_once() -> None:
    """The second registration is refused, and the first peer is as it was."""
    stage = Stage()
    first = stage.source("a", peer_id="p")
    with pytest.raises(InvalidTransition, match="BackToSource"):
        stage.register("b", "other", peer_id="p")
    assert first.state is PeerState.BACK_TO_SOURCE
    assert (Stage.kind, task_id("other")) not in stage.world.tasks
    stage.check()


def test_lengths_are_adopted_when_nobody_holds_the_task() -> None:
    """A file that has changed at its origin."""
    stage = Stage()
    old = stage.holder("a", url="http://old")
    stage.world.remove_peer(old)
    stage.register("b", content_length=8 * MIB, url="http://new")
    assert old.task.shape == (8 * MIB, 4 * MIB)
    assert old.task.registration.request.url == "http://new"


def test_lengths_that_contradict_the_holders() -> None:
    """Whoever has another version than they is left to the origin; both live, unmixed."""
    stage = Stage()
    old = stage.holder("a")
    assert isinstance(stage.decide(stage.register("b", content_length=8 * MIB)), ToSource)
    assert isinstance(stage.decide(stage.register("b", piece_length=8 * MIB)), ToSource)
    new = stage.holder("b", content_length=8 * MIB)
    assert old.task.shape.content_length == 10 * MIB
    assert list(stage.child("c").parents) == [old.id]
    assert list(stage.child("d", content_length=8 * MIB).parents) == [new.id]
    assert old.task.shape.content_length == 10 * MIB
    stage.world.remove_peer(old)
    assert old.task.shape.content_length == 8 * MIB
    stage.check()


def test_a_stranger_does_not_decide_how_long_a_file_is() -> None:
    """Nor do many, if he made them up; nor those whom he has deceived."""
    stage = Stage()
    stage.host("a", at="10.0.0.7")
    held = stage.holder("a")
    for number in range(9):
        stage.host(f"liar{number}", at="10.6.6.6")
        stage.holder(f"liar{number}", content_length=7)
    for number in range(9):
        stage.host(f"fooled{number}", at=f"10.0.1.{number}")
        stage.child(f"fooled{number}", content_length=7)
    assert held.task.shape == (10 * MIB, 4 * MIB)
    child = stage.child("b")
    assert list(child.parents) == [held.id]
    stage.check()


def test_two_honest_hosts_outvote_the_one_that_came_first() -> None:
    """Until then his word is all there is."""
    stage = Stage()
    stage.host("liar", at="10.6.6.6")
    lie = stage.holder("liar", content_length=7)
    for number, expected in enumerate((7, 10 * MIB)):
        stage.host(f"h{number}", at=f"10.0.0.{number}")
        stage.holder(f"h{number}")
        assert lie.task.shape.content_length == expected
    assert len(stage.child("c").parents) == 2
    stage.check()


def test_absent_lengths_are_those_of_the_holders() -> None:
    """A peer that does not say; of a task that nobody holds, it is empty."""
    stage = Stage()
    empty = stage.register("a", "e", content_length=None, piece_length=None)
    assert empty.state is PeerState.RECEIVED_EMPTY
    held = stage.holder("a")
    child = stage.child("b", content_length=None, piece_length=None)
    assert child.shape == held.shape
    assert list(child.parents) == [held.id]


def test_a_range_does_not_make_a_task_succeed() -> None:
    """Only a peer that wanted everything does."""
    stage = Stage()
    part = stage.holder("a", range=ByteRange(0, MIB))
    assert (part.state, part.task.state) == (PeerState.SUCCEEDED, TaskState.RUNNING)
    assert stage.holder("b").task.state is TaskState.SUCCEEDED


def test_a_task_that_is_held_stays_so() -> None:
    """Peers that join it, announce it again, or fail, do not change its state."""
    stage = Stage()
    task = stage.holder("a").task
    stage.world.fail(stage.child("b"), stage.now)
    assert task.state is TaskState.SUCCEEDED
    again = stage.source("b")
    assert task.state is TaskState.SUCCEEDED
    stage.world.fail(again, stage.now, origin="x")
    assert task.state is TaskState.SUCCEEDED


def test_a_task_fails_with_its_last_hope() -> None:
    """Not while another is there or expected; the next registration revives it."""
    stage = Stage()
    first, second = stage.source("a"), stage.source("b")
    task = first.task
    states = []
    stage.world.fail(first, stage.now, origin="x")
    states.append(task.state)
    stage.world.fail(second, stage.now)
    states.append(task.state)
    third = stage.register("c")
    states.append(task.state)
    assert states == [TaskState.RUNNING, TaskState.FAILED, TaskState.RUNNING]
    stage.decide(third)
    stage.world.start_back_to_source(third, stage.now)
    assert set(task.holders) == {third}


def test_failures_at_the_origin_are_remembered_until_a_success() -> None:
    """Only the last few, however many come."""
    stage = Stage(Limits(origin_failures=4))
    for number in range(6):
        stage.world.fail(stage.source(f"h{number}"), stage.now, origin=str(number))
    task = next(iter(stage.world.tasks.values()))
    assert [failure.description for failure in task.origin_failures] == ["2", "3", "4", "5"]
    stage.world.fail(stage.source("a"), stage.now)
    assert len(task.origin_failures) == 4
    stage.holder("a")
    assert not task.origin_failures


def test_failing_twice_is_failing_once() -> None:
    """A stream that ends after its peer has said how it went changes nothing."""
    stage = Stage()
    peer = stage.holder("a")
    stage.world.fail(peer, stage.now, origin="x")
    assert peer.state is PeerState.SUCCEEDED
    assert not peer.task.origin_failures


def test_load_is_given_back_to_the_byte() -> None:
    """What an edge has charged is what it gives back, though the child has changed since."""
    stage = Stage()
    parent = stage.holder("a")
    child = stage.child("b", concurrent_piece_count=3)
    host = parent.host
    assert (host.uploads, host.upload_count, host.concurrent_pieces) == (1, 1, 3)
    assert host.tx_bandwidth == 4 * MIB * 3 * 8
    assert host.upload_content_length == 10 * MIB
    child.shape = child.shape._replace(content_length=1)
    stage.world.finish(child, stage.now)
    assert (host.uploads, host.upload_count, host.concurrent_pieces) == (0, 1, 0)
    assert (host.tx_bandwidth, host.upload_content_length) == (0, 0)


def test_a_removed_peer_leaves_its_children_at_once() -> None:
    """They have no source any more; their own children are told later, by themselves."""
    stage = Stage()
    top = stage.source("a")
    child = stage.child("b")
    stage.changed.clear()
    stage.world.remove_peer(top)
    assert not child.parents
    assert not top.task.holders
    assert top.task in stage.changed
    assert (child.state, top.state) == (PeerState.RUNNING, PeerState.LEAVE)
    stage.check()


def test_starting_again_is_no_event() -> None:
    """A peer says it after each list of parents."""
    stage = Stage()
    stage.holder("a")
    child = stage.child("b")
    stage.world.start(child, stage.now)
    assert child.state is PeerState.RUNNING


def test_a_running_peer_goes_to_the_origin() -> None:
    """It counts as being there, and has no parents."""
    stage = Stage()
    stage.holder("a")
    child = stage.child("b")
    stage.world.start_back_to_source(child, stage.now)
    stage.world.start_back_to_source(child, stage.now)
    assert (child.state, child.parents) == (PeerState.BACK_TO_SOURCE, {})
    assert list(child.task.at_origin) == [child.id]


def test_an_illegal_event_changes_nothing() -> None:
    """Who is at the origin does not start to fetch from parents."""
    stage = Stage()
    peer = stage.source("a")
    with pytest.raises(InvalidTransition):
        stage.world.start(peer, stage.now)
    assert peer.state is PeerState.BACK_TO_SOURCE
    stage.check()


def test_pieces_keep_alive_and_clear_names() -> None:
    """A piece touches child, parent and the parent's host, and takes accusations back."""
    stage = Stage()
    parent = stage.holder("a")
    accuser, child = stage.child("b"), stage.child("c")
    stage.world.piece_failed(accuser, parent.id, stage.now)
    assert parent.accusers == {accuser.host.id}
    stage.now += 7
    stage.world.piece(child, 0.5, parent.id, stage.now)
    assert parent.accusers == set()
    assert child.piece_at == parent.updated_at == parent.host.updated_at == stage.now
    assert len(child.costs) == 1
    stage.world.piece(child, 0.5, "unknown", stage.now)
    stage.world.piece(child, 0.5, None, stage.now)


def test_several_children_condemn_a_parent() -> None:
    """One host often, or the parent itself, does not."""
    stage = Stage(Limits(accusers=3))
    parent = stage.holder("z")
    children = [stage.child(name) for name in "abc"]
    for _ in range(5):
        again = stage.register("a")
        stage.world.link([parent], again)
        stage.world.piece_failed(again, parent.id, stage.now)
    stage.world.piece_failed(children[1], parent.id, stage.now)
    stage.world.piece_failed(parent, parent.id, stage.now)
    assert parent in parent.task.holders
    stage.world.piece_failed(children[2], parent.id, stage.now)
    assert parent not in parent.task.holders
    assert parent.host.upload_failed_count == 7
    stage.check()


def test_only_known_peers_are_blocked() -> None:
    """A list of anything at all does not fill the memory."""
    stage = Stage()
    parent, child = stage.holder("a"), stage.register("b")
    stage.world.block(child, "nobody")
    stage.world.block(child, parent.id)
    assert child.blocked == {child.id, parent.id}


def test_a_host_that_stops_sharing() -> None:
    """Its peers are no holders, from this announcement until another."""
    stage = Stage()
    peer = stage.holder("a")
    stage.host("a", disable_shared=True)
    assert peer not in peer.task.holders
    stage.host("a", disable_shared=False)
    assert peer in peer.task.holders


def test_an_announcement_replaces_the_one_before() -> None:
    """Also address and type; the limit follows the type."""
    stage = Stage(Limits(uploads=1, seed_uploads=2))
    host = stage.host("a", ip="10.0.0.1")
    stage.now += 9
    assert stage.host("a", ip="::1", type=1) is host
    assert (host.facts.address, host.upload_limit, host.updated_at) == ("[::1]:4000", 2, stage.now)
    assert host.created_at == stage.now - 9


def test_what_a_host_tells_twice_counts_once() -> None:
    """The latest speaks for all that the host has; but one with children stays."""
    stage = Stage()
    whole = stage.holder("a")
    part = stage.holder("a", range=ByteRange(0, MIB))
    assert set(whole.task.peers.values()) == {part}
    assert part.range is None
    child = stage.child("b")
    latest = stage.holder("a")
    assert set(child.parents) == {part.id}
    assert set(whole.task.peers.values()) == {part, child, latest}
    stage.world.finish(child, stage.now)
    final = stage.holder("a")
    assert {p for p in whole.task.peers.values() if p.host is final.host} == {final}
    stage.check()


def test_parts_of_one_host_grow_together() -> None:
    """In whole pieces, where they touch; a thousand of them are one peer, and all is the whole."""
    stage = Stage()
    size = 400 * MIB
    for start in range(1, 99, 2):
        stage.holder("a", range=ByteRange(start * 4 * MIB + 5, 7), content_length=size)
    task = next(iter(stage.world.tasks.values()))
    assert len(task.peers) == 49
    for start in range(0, 98, 2):
        last = stage.holder("a", range=ByteRange(start * 4 * MIB, 1), content_length=size)
    assert set(task.peers.values()) == {last}
    assert last.range == ByteRange(0, 98 * 4 * MIB)
    other = stage.holder("b", range=ByteRange(0, 1), content_length=size)
    assert set(task.peers.values()) == {last, other}
    final = stage.holder("a", range=ByteRange(98 * 4 * MIB, 8 * MIB), content_length=size)
    assert final.range is None
    assert set(task.peers.values()) == {final, other}
    stage.check()


def test_a_task_is_what_its_holders_have() -> None:
    """Of two versions the one that is left, when nobody holds the other any more."""
    stage = Stage()
    old, other_old = stage.holder("a"), stage.holder("b")
    new = stage.holder("c", content_length=12 * MIB)
    assert new.task.shape.content_length == 10 * MIB
    stage.world.remove_peer(old)
    assert new.task.shape.content_length == 10 * MIB
    stage.world.remove_peer(other_old)
    assert new.task.shape.content_length == 12 * MIB
    assert list(stage.child("d", content_length=12 * MIB).parents) == [new.id]
    stage.world.remove_peer(new)
    stage.check()


def test_seeds_are_in_ring_order() -> None:
    """Those that share; stock ones only for what they may be asked for, and tell of."""
    stage = Stage()
    ours = ["s1", "s2", "s3"]
    names = ours if Stage.kind is Kind.CACHE else [*ours, "stock"]
    for name in ours:
        stage.host(name, type=1)
    stage.host("stock", type=1, version="v2.5.1")
    stage.host("selfish", type=1, disable_shared=True)
    stage.host("normal")
    firsts = set()
    for number in range(40):
        task = stage.register("normal", f"t{number}").task
        order = [host.id for host in stage.world.seeds.order(task, 0.0)]
        assert sorted(order) == names
        firsts.add(order[0])
    assert firsts == set(names)
    small = stage.register("normal", "small", content_length=4 * MIB).task
    assert sorted(host.id for host in stage.world.seeds.order(small, 0.0)) == ours
    stage.world.remove_host(stage.world.hosts["s1"])
    stage.host("s2", type=0)
    assert {host.id for host in stage.world.seeds.order(task, 0.0)} == set(names) - {"s1", "s2"}


def test_a_seed_that_failed_is_left_alone_for_a_while() -> None:
    """Until some time has passed, or it is heard of again."""
    stage = Stage()
    seed = stage.host("s", type=1)
    stage.host("normal")
    task = stage.register("normal", "t").task
    stage.world.seeds.leave_out(seed, until=10.0)
    assert stage.world.seeds.order(task, 9.0) == []
    assert stage.world.seeds.order(task, 10.0) == [seed]
    stage.world.seeds.leave_out(seed, until=20.0)
    stage.host("s", type=1)
    assert stage.world.seeds.order(task, 11.0) == [seed]
