"""Whose a host is: plays of daemons that announce, start anew, and of strangers."""

from __future__ import annotations

import pytest

from pantala.core.sched.entities import Caller, Host
from pantala.core.sched.owners import claim, owned
from pantala.errors import NotFound, NotYours
from pantala.model.announce import HostFacts
from pantala.testing.stage import Stage

OURS = Caller("10.0.0.1", b"ours")
STOCK = Caller("10.0.0.1")
AFAR = "10.0.0.2"


class Play(Stage):
    """Hosts that tell who they are."""

    def meet(self, caller: Caller, name: str = "h") -> Host:
        """*caller* announces a host. Raises NotYours."""
        claim(self.world, name, caller, self.now)
        facts = HostFacts(id=name, hostname=name, ip="10.0.0.1", port=4000, interval=100.0)
        return self.world.announce(facts, self.now, caller)


@pytest.fixture
def play() -> Play:
    """Nobody is there yet."""
    return Play()


@pytest.mark.parametrize("owner", [OURS, STOCK])
@pytest.mark.parametrize(
    "stranger", [Caller(AFAR), Caller(AFAR, b"mine"), Caller(AFAR, b"our")], ids=repr
)
def test_a_live_host_is_its_owners(play: Play, owner: Caller, stranger: Caller) -> None:
    """Strangers from elsewhere neither announce nor end it, and nothing of it changes."""
    host = play.meet(owner)
    peer = play.holder("h")
    with pytest.raises(NotYours, match="another daemon's"):
        play.meet(stranger)
    with pytest.raises(NotYours):
        owned(play.world, "h", stranger)
    play.now += 100.0  # as long as it may be silent
    with pytest.raises(NotYours):
        play.meet(stranger)
    assert owned(play.world, "h", owner) is host
    assert (host.owner, host.heard_at) == (owner, 1000.0)
    assert peer in peer.task.holders
    play.check()


def test_a_secret_is_good_from_anywhere(play: Play) -> None:
    """A machine that got another address; whoever has had the first one is a stranger now."""
    host = play.meet(OURS)
    play.world.stream_opened(play.source("h"))
    moved = Caller(AFAR, OURS.proof)
    assert play.meet(moved) is host
    assert owned(play.world, "h", OURS) is host
    with pytest.raises(NotYours):
        play.meet(Caller(OURS.address, b"other"))


@pytest.mark.parametrize("before", [OURS, STOCK])
def test_a_daemon_that_is_started_anew(play: Play, before: Caller) -> None:
    """It is let in when its downloads of before have ended; what it held is forgotten."""
    old = play.meet(before)
    held, going = play.holder("h"), play.source("h", "u")
    play.world.stream_opened(going)
    again = Caller(before.address, b"again")
    with pytest.raises(NotYours):
        play.meet(again)
    play.world.fail(going, play.now)
    play.world.stream_closed(going)
    host = play.meet(again)
    assert host is not old
    assert host.life > old.life
    assert not host.peers
    assert held not in held.task.holders
    with pytest.raises(NotYours):
        owned(play.world, "h", before)
    play.check()


def test_a_stock_daemon_may_come_after_ours(play: Play) -> None:
    """On the same machine. It has no secret, and ours no more rights."""
    play.meet(OURS)
    play.meet(STOCK)
    assert owned(play.world, "h", STOCK)
    with pytest.raises(NotYours):
        owned(play.world, "h", OURS)


def test_a_silent_host_is_anybodys(play: Play) -> None:
    """After a quarter more than its interval, if none of its downloads is alive."""
    old = play.meet(OURS)
    play.now += 125.0
    with pytest.raises(NotYours):
        play.meet(Caller(AFAR, b"new"))
    play.now += 0.1
    going = play.source("h")
    play.world.stream_opened(going)
    with pytest.raises(NotYours):
        play.meet(Caller(AFAR, b"new"))
    play.world.stream_closed(going)
    assert play.meet(Caller(AFAR, b"new")) is not old


def test_what_others_tell_of_a_host_is_no_word_of_its_own(play: Play) -> None:
    """Whoever claims to get pieces from it does not keep it alive for its owner."""
    play.meet(OURS)
    holder, child = play.holder("h"), play.child("c")
    play.now += 126.0
    play.world.piece(child, 0.1, holder.id, play.now)
    assert claim(play.world, "h", Caller(AFAR), play.now) is None
    assert "h" not in play.world.hosts


def test_the_first_to_announce_owns(play: Play) -> None:
    """After a goodbye, and after a restart of the scheduler."""
    first = play.meet(OURS)
    play.world.remove_host(first)
    with pytest.raises(NotFound):
        owned(play.world, "h", OURS)
    second = play.meet(Caller(AFAR))
    assert second.life != first.life


def test_secrets_do_not_show() -> None:
    """Not even their digests."""
    assert "ours" not in repr(OURS)
