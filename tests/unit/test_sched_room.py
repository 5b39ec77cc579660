"""core/sched/room.py: how much is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pantala.core.sched.entities import Caller
from pantala.core.sched.room import HOST, PEER
from pantala.core.sched.rules import Limits
from pantala.errors import Busy, NoProvider
from pantala.testing.stage import Stage

#: Characters in the ids and the URL of a registration here.
WORDS = 83

LIMITS = replace(
    Limits(), kept_each=HOST + 2 * PEER + 1000, kept=2 * HOST + 3 * (PEER + WORDS), idle_tasks=2
)


def words(size: int) -> str:
    """A tag that makes a registration of a task that long, ids and URL included."""
    return "x" * (size - WORDS)


def test_an_address_has_a_share() -> None:
    """Of hosts and of peers with their words; what leaves makes room."""
    stage = Stage(LIMITS)
    stage.host("a")
    first = stage.register("a", "1", tag=words(600))
    with pytest.raises(NoProvider, match=r"hosts at 10\.0\.0\.1"):
        stage.register("a", "2", tag=words(600))
    assert len(stage.world.tasks) == 1
    stage.register("a", "2", tag=words(400))
    with pytest.raises(Busy, match=r"hosts at 10\.0\.0\.1"):
        stage.host("b")
    assert "b" not in stage.world.hosts
    stage.check()
    stage.world.remove_peer(first)
    stage.register("a", "3", tag=words(600))
    stage.world.remove_host(stage.world.hosts["a"])
    assert stage.world.room.used == 0
    stage.host("b")
    stage.check()


def test_all_have_an_end() -> None:
    """However many addresses a stranger has."""
    stage = Stage(LIMITS)
    for name, at in (("a", "10.0.0.1"), ("b", "10.0.0.2")):
        stage.host(name, at=at)
        stage.register(name)
    stage.register("a", "2")
    with pytest.raises(NoProvider):
        stage.register("b", "3")
    with pytest.raises(Busy):
        stage.host("c", at="10.0.0.3")
    stage.check()


def test_a_host_stays_in_the_share_where_it_was_met() -> None:
    """Its owner may call from elsewhere later."""
    stage = Stage(LIMITS)
    host = stage.host("a", at="10.0.0.1")
    host.owner = Caller("10.0.0.2", b"proof")
    stage.register("a")
    stage.world.remove_host(host)
    assert stage.world.room.used == 0


def test_tasks_without_peers_make_room_for_others() -> None:
    """The one that has been without for the longest time goes first."""
    stage = Stage(LIMITS)
    for name in ("1", "2"):
        stage.world.remove_peer(stage.register("a", name))
    back = stage.register("a", "1")  # it is no longer without
    stage.world.remove_peer(stage.register("a", "3"))
    assert len(stage.world.tasks) == 3
    stage.world.remove_peer(back)
    left = {task.id for task in stage.world.tasks.values()}
    again = {stage.register("a", name).task.id for name in ("3", "1")}
    assert left == again
    stage.check()


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("local", "local"),
        ("fd00:1:2:3::7", "fd00:1:2:3::/64"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("fd00:1:2:4::7", "fd00:1:2:4::/64"),
    ],
)
def test_accounts(address: str, account: str) -> None:
    """Of IPv6, who has one address has all of its network."""
    assert Caller(address).account == account
