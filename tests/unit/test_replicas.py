"""core/sched/replicas.py: how many copies there are, and who shall get those that are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantala.core.sched.records import PeerRow, TaskRow
from pantala.core.sched.replicas import (
    NO_SOURCE,
    Attempts,
    Count,
    Plan,
    Presence,
    count,
    obstacle,
    plan,
)
from pantala.core.sched.rules import RULES
from pantala.core.sched.states import PeerState, TaskState
from pantala.model.announce import HostFacts
from pantala.model.task import Kind

KIND = Kind.PERSISTENT_CACHE
RULE = replace(RULES[Kind.CACHE], ours_only=False)
GRACE = 60.0

TASK = TaskRow(
    KIND,
    "t",
    replicas=2,
    content_length=1000,
    piece_length=100,
    ttl=3600.0,
    created_at=0.0,
    updated_at=0.0,
    state=TaskState.SUCCEEDED,
)
HELD, RUNNING, FAILED = PeerState.SUCCEEDED, PeerState.RUNNING, PeerState.FAILED


def host(name: str, **fields: object) -> HostFacts:
    """One that can have a copy, unless *fields* say otherwise."""
    given: dict[str, object] = {"disk_free": 10**6, "download_port": 4000} | fields
    return HostFacts(name, name, "10.0.0.1", 4000, **given)  # type: ignore[arg-type]  # from a dict


def row(host_id: str, state: PeerState = HELD, **fields: object) -> PeerRow:
    """A peer of the task."""
    given: dict[str, object] = {"persistent": True, "created_at": 0.0, "updated_at": 0.0} | fields
    name = f"{host_id}-{state}-{given['persistent']}"
    return PeerRow(KIND, name, "t", host_id, state=state, **given)  # type: ignore[arg-type]  # tests name fields that are there


def look(rows: Iterable[PeerRow], hosts: Iterable[HostFacts], now: float = 0.0) -> Presence:
    """Who of the holders is here."""
    presence = Presence(GRACE)
    presence.look({r.host_id for r in rows}, {h.id: now for h in hosts}, now)
    return presence


def planned(
    rows: list[PeerRow], hosts: list[HostFacts], task: TaskRow = TASK, chance: int = 0
) -> Plan:
    """What is to be done when nobody has been away for long."""
    counted = count(rows, look(rows, hosts), 0.0, fresh=-1.0)
    unfit = partial(obstacle, task, rules=RULE)
    return plan(task, rows, counted, hosts, unfit=unfit, chance=Random(chance), fresh=-1.0)


def ids(hosts: Iterable[HostFacts]) -> set[str]:
    """Their names."""
    return {each.id for each in hosts}


def test_one_is_missing() -> None:
    """Somebody who has none is asked."""
    hosts = [host("a"), host("b")]
    assert ids(planned([row("a")], hosts).fetch) == {"b"}


def test_enough() -> None:
    """Held, or on the way: nothing is to be done."""
    hosts = [host("a"), host("b"), host("c")]
    assert planned([row("a"), row("b")], hosts) == Plan()
    assert planned([row("a"), row("b", RUNNING)], hosts) == Plan()


@pytest.mark.parametrize("state", [TaskState.UPLOADING, TaskState.FAILED, TaskState.PENDING])
def test_what_is_not_imported_whole_is_not_copied(state: TaskState) -> None:
    """Whatever is missing."""
    hosts = [host("a"), host("b")]
    assert planned([row("a")], hosts, replace(TASK, state=state)) == Plan()


def test_two_peers_of_one_host_are_one_replica() -> None:
    """Two copies at one place are lost together."""
    hosts = [host("a"), host("b")]
    rows = [row("a"), replace(row("a"), id="again")]
    assert ids(planned(rows, hosts).fetch) == {"b"}


def test_a_copy_that_is_there_is_kept_first() -> None:
    """It costs nothing."""
    spare = row("b", persistent=False)
    done = planned([row("a"), spare], [host("a"), host("b"), host("c")])
    assert (done.keep, done.fetch) == ((spare,), ())


def test_a_failed_attempt_is_no_copy() -> None:
    """Nor does it keep its host from another."""
    assert ids(planned([row("a"), row("b", FAILED)], [host("a"), host("b")]).fetch) == {"b"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"disable_shared": True}, "shares nothing"),
        ({"disk_free": 999}, "has too little disk"),
        ({"download_port": 0}, "cannot be called"),
    ],
)
def test_hosts_are_sorted_out_before_they_are_picked(fields: dict[str, object], why: str) -> None:
    """So that each that is picked counts; and it is said why there are not enough."""
    hosts = [host("a"), *(host(f"bad{n}", **fields) for n in range(20)), host("good")]
    for chance in range(20):
        assert ids(planned([row("a")], hosts, chance=chance).fetch) == {"good"}
    lacking = planned([row("a")], hosts[:-1])
    assert (lacking.fetch, lacking.short, lacking.unfit) == ((), 1, Counter({why: 20}))


def test_a_kind_of_ours_is_not_asked_of_others() -> None:
    """They would not know it."""
    rule = replace(RULE, ours_only=True)
    assert obstacle(TASK, host("a", version="v2.4.0"), rule) == "does not know such tasks"
    assert obstacle(TASK, host("a", version="pantala/0.1.0"), rule) is None


def test_copies_are_spread_over_data_centres() -> None:
    """The first goes where there is none."""
    hosts = [host("a", idc="x"), *(host(f"x{n}", idc="X") for n in range(20)), host("y", idc="y")]
    for chance in range(20):
        assert ids(planned([row("a")], hosts, chance=chance).fetch) == {"y"}


def test_nothing_to_fetch_from() -> None:
    """All who have it are away for a moment: it would fail."""
    done = planned([row("a")], [host("b"), host("c")])
    assert (done.fetch, done.short) == ((), 1)
    assert done.unfit == Counter({NO_SOURCE: 0})


def test_who_is_away_for_a_moment_still_counts() -> None:
    """And is lost after that, until it is back."""
    rows = [row("a"), row("b")]
    presence = Presence(GRACE)
    both = {"a": 0.0, "b": 0.0}
    presence.look({"a", "b"}, both, 0.0)
    presence.look({"a", "b"}, {"a": 50.0}, 50.0)
    assert count(rows, presence, 59.0, fresh=0.0).missing(TASK) == 0
    assert presence.next_loss(59.0) == 1.0
    assert presence.next_loss(60.0) is None
    lost = count(rows, presence, 60.0, fresh=0.0)
    assert (lost.missing(TASK), lost.lost) == (1, (rows[1],))
    presence.look({"a", "b"}, both, 61.0)
    assert count(rows, presence, 61.0, fresh=0.0).missing(TASK) == 0


def test_a_scheduler_that_is_new_waits_for_hosts_to_come() -> None:
    """It has heard of nobody yet."""
    rows = [row("a"), row("b")]
    presence = Presence(GRACE)
    presence.look({"a", "b"}, {}, 1000.0)
    assert count(rows, presence, 1059.0, fresh=0.0).missing(TASK) == 0
    presence.look({"a", "b"}, {"a": 1030.0}, 1060.0)
    assert count(rows, presence, 1060.0, fresh=0.0).missing(TASK) == 1


def test_who_gives_no_news_does_not_come() -> None:
    """So that another is asked, or the same again."""
    rows = [row("a"), row("b", RUNNING, updated_at=10.0)]
    presence = look(rows, [host("a"), host("b")])
    assert count(rows, presence, 0.0, fresh=10.0).missing(TASK) == 0
    assert count(rows, presence, 0.0, fresh=10.5).missing(TASK) == 1


def test_one_that_failed_is_left_alone_longer_each_time() -> None:
    """Up to ten minutes, until it succeeds."""
    attempts, now, waits = Attempts(), 0.0, []
    for _ in range(9):
        attempts.failed(TASK.key, "a", now)
        began = now
        while attempts.rests(TASK.key, "a", now):
            now += 1.0
        waits.append(now - began)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 640]
    attempts.failed(TASK.key, "a", now)
    attempts.succeeded(TASK.key, "a")
    assert not attempts.rests(TASK.key, "a", now)
    attempts.failed(TASK.key, "a", now)
    attempts.keep_only(set())
    assert not attempts.rests(TASK.key, "a", now)


HOSTS = st.lists(
    st.builds(
        partial(host),
        st.sampled_from([f"h{n}" for n in range(12)]),
        idc=st.sampled_from(["", "x", "y", "z"]),
        disable_shared=st.booleans(),
        disk_free=st.sampled_from([0, 999, 1000, 10**9]),
        download_port=st.sampled_from([0, 4000]),
    ),
    unique_by=lambda each: each.id,
)
ROWS = st.lists(
    st.builds(
        partial(row),
        st.sampled_from([f"h{n}" for n in range(14)]),
        st.sampled_from([HELD, RUNNING, FAILED, PeerState.UPLOADING]),
        persistent=st.booleans(),
    ),
    unique_by=lambda each: each.id,
)


@given(ROWS, HOSTS, st.integers(1, 8), st.integers(0, 3))
def test_a_plan(rows: list[PeerRow], hosts: list[HostFacts], wanted: int, chance: int) -> None:
    """Nobody twice, none who has it, none who cannot; as many as are missing, or all there are."""
    task = replace(TASK, replicas=wanted)
    counted = count(rows, look(rows, hosts), 0.0, fresh=-1.0)
    done = planned(rows, hosts, task, chance)

    kept, asked = [r.host_id for r in done.keep], [h.id for h in done.fetch]
    assert len({*kept, *asked}) == len(kept) + len(asked)
    assert all(obstacle(task, each, RULE) is None for each in done.fetch)
    assert not set(asked) & {r.host_id for r in rows if r.state is not FAILED}
    assert all(r.state is HELD and not r.persistent for r in done.keep)
    assert len(kept) + len(asked) + done.short == counted.missing(task)
    if done.short and NO_SOURCE not in done.unfit:
        taken = {r.host_id for r in rows if r.state is not FAILED} | set(asked)
        assert all(obstacle(task, each, RULE) for each in hosts if each.id not in taken)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_count_is_restored(data: st.DataObject) -> None:
    """Whatever hosts go and come, and whichever fetches fail: in the end there are enough."""
    draw = data.draw
    task = replace(TASK, replicas=draw(st.integers(1, 4)))
    all_hosts = {f"h{n}": host(f"h{n}", idc=f"i{n % 3}") for n in range(8)}
    here = set(all_hosts)
    rows = {"h0": row("h0")}
    presence, attempts, chance = Presence(GRACE), Attempts(), Random(0)
    now = 0.0

    def turn(*, calm: bool) -> Count:
        """The loop's: look, count, plan, and carry it out as far as it goes."""
        presence.look(set(rows), dict.fromkeys(here, now), now)
        counted = count(rows.values(), presence, now, fresh=-1.0)

        def unfit(facts: HostFacts) -> str | None:
            rests = attempts.rests(task.key, facts.id, now)
            return "failed before" if rests else obstacle(task, facts, RULE)

        hosts = [all_hosts[name] for name in sorted(here)]
        done = plan(
            task, list(rows.values()), counted, hosts, unfit=unfit, chance=chance, fresh=-1.0
        )
        for each in done.keep:
            rows[each.host_id] = replace(each, persistent=True)
        for facts in done.fetch:
            if calm or draw(st.booleans()):
                rows[facts.id] = row(facts.id)
                attempts.succeeded(task.key, facts.id)
            else:
                attempts.failed(task.key, facts.id, now)
        return counted

    for _ in range(draw(st.integers(0, 12))):
        turn(calm=False)
        lose = draw(st.sampled_from(sorted(all_hosts)))
        # One copy must stay somewhere, or all is lost indeed.
        if any(name != lose and name in here for name in rows):
            here.discard(lose)
        here.add(draw(st.sampled_from(sorted(all_hosts))))
        now += draw(st.sampled_from([1.0, 30.0, 100.0]))
    for _ in range(16):
        now += 700.0
        counted = turn(calm=True)
    able = len(here)
    assert counted.kept >= min(task.replicas, able)
