"""core/sched/describing.py: who asks the origin what a task is, and who waits for that."""

from __future__ import annotations

from typing import Any

import pytest

from pantala.core.sched import describing
from pantala.core.sched.describing import FRESH, KEPT, LONGEST, STILL, TURN, Descriptions
from pantala.core.sched.entities import TaskKey
from pantala.core.sched.questions import Answer, Asker, AskSeed, Told, Wait, YourTurn
from pantala.core.sched.refusals import REST
from pantala.core.sched.rules import Limits
from pantala.errors import Busy, DragonflyError, NoProvider, OnlyPeers, OriginError
from pantala.model.task import Description, DownloadRequest
from pantala.testing.stage import MIB, Stage, task_id

Terms = dict[str, Any]

IS = Description(10 * MIB, 4 * MIB, '"v1"', {"ETag": '"v1"'})


class Play:
    """Hosts that ask about one task.

    Attributes:
        woken: How often those who ask were told to look again.
    """

    def __init__(self, **limits: Any) -> None:
        self.stage = Stage(Limits(**limits))
        self.woken: list[TaskKey] = []
        self.known = Descriptions(self.stage.world, self.woken.append)

    def ask(
        self,
        host: str,
        *,
        origin: bool = False,
        login: str = "",
        version: str = "",
        anew: bool = False,
        **wish: Any,
    ) -> Asker:
        """*host* wants to know, with *login* for the origin."""
        known = self.stage.world.hosts.get(host) or self.stage.host(host)
        headers = {"Authorization": login} if login else {}
        request = DownloadRequest(
            self.stage.kind, "http://origin/f", request_header=headers, **wish
        )
        return self.known.ask(
            known,
            task_id("t"),
            request,
            self.stage.now,
            origin=origin or anew,
            version=version,
            anew=anew,
        )

    def look(self, asker: Asker) -> Answer:
        """What it is answered now."""
        return self.known.answer(asker, self.stage.now)

    def turn(self, host: str, **terms: Any) -> Asker:
        """*host* asks, and it is its turn."""
        asker = self.ask(host, **terms)
        assert self.look(asker) == YourTurn()
        return asker

    def learnt(self, asker: Asker, said: Description = IS, *, alone: bool = False) -> None:
        """It has the origin's word."""
        self.known.learnt(asker, said, self.stage.now, alone=alone)

    def failed(self, asker: Asker, status: int | None = 404) -> None:
        """The origin has failed it, and it goes."""
        self.known.failed(asker, f"said {status}", status, self.stage.now)
        self.gone(asker)

    def gone(self, asker: Asker) -> None:
        """Its stream has ended."""
        self.known.gone(asker, self.stage.now)


def told(answer: Answer) -> Description:
    """The description in an answer, which must be one."""
    assert isinstance(answer, Told), answer
    return answer.description


@pytest.fixture(params=[{}, {"origin": True}], ids=["cold", "compared"])
def terms(request: pytest.FixtureRequest) -> Terms:
    """On which a question is asked: whether nothing but the origin's word will do."""
    wanted: Terms = request.param
    return wanted


# Turns


def test_one_asks_and_the_others_wait(terms: Terms) -> None:
    """Until he has registered after he has told, for as long as that may take."""
    play = Play(start=10)
    first, second = play.turn("a", **terms), play.ask("b", **terms)
    assert play.look(second) == Wait(play.stage.now + TURN)
    play.learnt(first)
    assert play.woken
    assert play.look(second) == Wait(play.stage.now + 10)
    assert not play.known.has_settled(first, play.stage.now)
    play.stage.source("a")
    assert play.known.has_settled(first, play.stage.now)
    assert told(play.look(second)).content_length == IS.content_length


def test_who_does_not_register_is_not_waited_for(terms: Terms) -> None:
    """He says so, or his time is over, or he is gone: what he told holds."""
    for how in ("alone", "late", "gone"):
        play = Play(start=KEPT / 2)
        first, second = play.turn("a", **terms), play.ask("b", **terms)
        play.learnt(first, alone=how == "alone")
        if how == "late":
            play.stage.now += KEPT / 2
        elif how == "gone":
            play.gone(first)
        assert told(play.look(second)) == IS, how


def test_who_goes_hands_his_turn_on(terms: Terms) -> None:
    """At once; one who only waited does not."""
    play = Play()
    first, second, third = (play.ask(name, **terms) for name in "abc")
    assert play.look(first) == YourTurn()
    assert isinstance(play.look(second), Wait)
    play.gone(second)
    assert not play.woken
    play.gone(first)
    assert play.woken
    assert play.look(third) == YourTurn()


def test_a_turn_ends(terms: Terms) -> None:
    """Another asks then, too; whoever hears first tells all."""
    play = Play()
    first, second, third = (play.ask(name, **terms) for name in "abc")
    assert play.look(first) == YourTurn()
    play.stage.now += TURN
    assert play.look(second) == YourTurn()
    play.learnt(first, alone=True)
    assert told(play.look(third)) == IS


def test_an_origin_that_is_silent(terms: Terms) -> None:
    """Turn after turn is over; then all are told, whether those who ask still hope or not."""
    play = Play(origin_failures=4)
    for name in "abcd":
        play.turn(name, **terms)
        play.stage.now += TURN
    with pytest.raises(OriginError, match=r"4 hosts.*no answer"):
        play.look(play.ask("e", **terms))


def test_who_has_no_turn_says_nothing(terms: Terms) -> None:
    """Whatever he says is not heard."""
    play = Play()
    first, second = play.turn("a", **terms), play.ask("b", **terms)
    play.learnt(second)
    play.known.reading(second, 1, play.stage.now)
    play.failed(second)
    assert play.look(play.ask("c", **terms)) == Wait(play.stage.now + TURN)
    play.gone(first)


# Reading


def test_who_reads_keeps_the_turn_as_long_as_he_moves(terms: Terms) -> None:
    """All wait for him, and hear how far he is."""
    play = Play()
    first, second = play.turn("a", **terms), play.ask("b", **terms)
    for step in range(100):
        play.known.reading(first, step, play.stage.now)
        assert play.look(second) == Wait(play.stage.now + TURN, reading=True, received=step)
        play.stage.now += TURN - 1
    play.stage.now += 1
    assert play.look(second) == YourTurn()


def test_who_reads_and_has_no_more_than_before(terms: Terms) -> None:
    """It is another's turn, though he says that he lives."""
    play = Play()
    first, second = play.turn("a", **terms), play.ask("b", **terms)
    end = play.stage.now + STILL
    while play.stage.now < end:
        play.known.reading(first, 5, play.stage.now)
        assert isinstance(play.look(second), Wait)
        play.stage.now += TURN / 2
    assert play.look(second) == YourTurn()
    play.known.reading(first, 6, play.stage.now)
    assert play.look(play.ask("c", **terms)) == Wait(play.stage.now + TURN)


def test_what_was_read_is_his_who_read_it(terms: Terms) -> None:
    """If he is gone before anybody could have it of him, so is his word."""
    play = Play()
    first, second = play.turn("a", **terms), play.ask("b", **terms)
    play.known.reading(first, 5, play.stage.now)
    play.learnt(first, Description(5, read=True))
    assert isinstance(play.look(second), Wait)
    play.gone(first)
    assert play.look(second) == YourTurn()


# What is believed


def test_what_somebody_holds_is_told_to_all() -> None:
    """At once, whatever they would ask the origin with, and without its word."""
    play = Play()
    peer = play.stage.holder("a")
    assert told(play.look(play.ask("b", login="x"))) == Description(*peer.shape)


def test_what_is_held_is_compared_all_the_same() -> None:
    """Those who hold it may hold what it was: who must fetch it waits until somebody does."""
    play = Play(start=10)
    play.stage.holder("z")
    play.stage.now += 1
    first, second = play.turn("a", origin=True), play.ask("b", origin=True)
    play.learnt(first)
    assert play.look(second) == Wait(play.stage.now + 10)
    peer = play.stage.child("a")
    assert isinstance(play.look(second), Wait)
    play.stage.world.piece(peer, 1.0, "z", play.stage.now)
    assert told(play.look(second)) == IS


@pytest.mark.parametrize("who", ["a", "c"])
def test_somebody_is_at_the_origin_since(who: str) -> None:
    """Then those who compare need wait no longer, whoever it is."""
    play = Play()
    play.stage.source("z")
    play.stage.now += 1
    first, second = play.turn("a", origin=True), play.ask("b", origin=True)
    play.learnt(first)
    assert isinstance(play.look(second), Wait)
    play.stage.source(who)
    assert told(play.look(second)) == IS


def test_who_has_it_need_not_wait_for_others() -> None:
    """What a host holds is what the origin has: it fetches nothing."""
    play = Play()
    first = play.turn("a", origin=True)
    same, other = (play.ask("b", origin=True, version=v) for v in (IS.version, "else"))
    assert isinstance(play.look(same), Wait)
    play.learnt(first)
    assert told(play.look(same)) == IS
    assert isinstance(play.look(other), Wait)


def test_a_word_gets_old() -> None:
    """Cold content is what it was for some seconds."""
    play = Play()
    play.learnt(play.turn("a"), alone=True)
    play.stage.now += KEPT
    assert told(play.look(play.ask("b"))) == IS
    play.stage.now += 0.1
    play.turn("c")


def test_a_word_to_compare_with_gets_old_sooner() -> None:
    """And is told to a host that did not ask before it once."""
    play = Play()
    play.learnt(play.turn("a", origin=True), alone=True)
    play.stage.now += FRESH
    assert told(play.look(play.ask("b", origin=True))) == IS
    again = play.turn("b", origin=True)  # it may know of a change
    play.gone(again)
    play.gone(play.turn("a", origin=True))
    play.stage.now += 0.1
    play.turn("c", origin=True)


def test_a_word_that_came_while_one_waited() -> None:
    """However long it took to be told."""
    play = Play()
    first, second = play.turn("a", origin=True), play.ask("b", origin=True)
    play.learnt(first, alone=True)
    play.stage.now += 10 * FRESH
    assert told(play.look(second)) == IS


def test_who_asks_anew_is_told_nothing_older() -> None:
    """Not what was heard a moment ago, nor what was on its way when he came."""
    play = Play()
    first = play.turn("a", origin=True)
    play.stage.now += 0.1
    second = play.ask("b", anew=True)
    assert isinstance(play.look(second), Wait)
    play.learnt(first, alone=True)
    assert play.look(second) == YourTurn()
    play.stage.now += 0.1
    third = play.ask("c", anew=True)
    play.learnt(second, alone=True)
    assert play.look(third) == YourTurn()


def test_any_number_who_ask_anew_have_two_turns() -> None:
    """The second began when all of them were there; and others may be told of it, too."""
    play = Play()
    first = play.turn("a", anew=True)
    play.stage.now += 0.1
    others = [play.ask(f"b{number}", anew=True) for number in range(9)]
    play.learnt(first, alone=True)
    play.stage.now += 0.1
    assert play.look(others[0]) == YourTurn()
    assert all(isinstance(play.look(other), Wait) for other in others[1:])
    play.learnt(others[0], alone=True)
    assert all(told(play.look(other)) == IS for other in others[1:])
    assert told(play.look(play.ask("c", origin=True))) == IS


def test_what_was_held_and_dropped_is_asked_for_anew() -> None:
    """Whoever deletes a task may know of a change."""
    play = Play()
    play.learnt(play.turn("a"))
    play.stage.now += 1
    peer = play.stage.holder("a")
    play.stage.world.remove_peer(peer)
    play.turn("b")


def test_what_was_held_and_forgotten_is_asked_for_anew() -> None:
    """At once: nobody is coming with it, though who described it has not had long to come."""
    play = Play(start=10)
    first = play.turn("a")
    play.learnt(first)
    source = play.stage.source("a")
    play.gone(first)
    play.stage.world.finish(source, play.stage.now)
    play.stage.world.remove_peer(source)
    play.stage.world.remove_task(source.task)
    assert play.look(play.ask("b")) == YourTurn()


def test_what_is_deleted_everywhere() -> None:
    """Likewise, though nobody held it."""
    play = Play()
    play.learnt(play.turn("a"), alone=True)
    play.known.forget((play.stage.kind, task_id("t")))
    play.turn("b")


# Credentials


def test_others_credentials_while_it_is_cold() -> None:
    """They wait, and are told what anybody is who asks what peers hold; never the word itself."""
    play = Play(start=10)
    first, other = play.turn("a", login="right"), play.ask("b", login="other")
    assert isinstance(play.look(other), Wait)
    play.learnt(first)
    assert play.look(other) == Wait(play.stage.now + 10)
    peer = play.stage.source("a")
    assert told(play.look(other)) == Description(*peer.shape)


def test_others_credentials_of_what_is_not_held() -> None:
    """They could not have heard it: they ask."""
    play = Play()
    play.learnt(play.turn("a", login="right"), alone=True)
    assert told(play.look(play.ask("b", login="right"))) == IS
    play.turn("c", login="other")


def test_what_is_compared_is_compared_for_each() -> None:
    """The origin's answer is a permission, too."""
    play = Play()
    first, other = play.turn("a", origin=True, login="right"), play.ask("b", origin=True)
    assert play.look(other) == YourTurn()
    play.learnt(first, alone=True)
    play.gone(other)
    play.turn("c", origin=True)


# Failures


@pytest.mark.parametrize("status", [404, 500, None, 401])
def test_an_origin_that_fails_several(terms: Terms, status: int | None) -> None:
    """All who would ask alike are told, for a while; then one may try again."""
    play = Play(origin_failures=4)
    waiting = play.ask("w", **terms)
    for name in "abcd":
        play.failed(play.turn(name, **terms), status)
    with pytest.raises(OriginError, match=f"4 hosts.*said {status}") as failed:
        play.look(waiting)
    assert failed.value.status == status
    play.stage.now += REST
    with pytest.raises(OriginError):
        play.look(play.ask("x", **terms))
    play.stage.now += 0.1
    play.failed(play.turn("y", **terms), status)
    with pytest.raises(OriginError, match="5 hosts"):
        play.look(waiting)


def test_one_host_counts_once(terms: Terms) -> None:
    """However often it asks."""
    play = Play(origin_failures=2)
    for _ in range(5):
        play.failed(play.turn("a", **terms))


def test_a_word_ends_all_failures(terms: Terms) -> None:
    """They count from none again."""
    play = Play(origin_failures=2)
    play.failed(play.turn("a", **terms))
    play.gone(gone := play.turn("b", **terms))
    assert gone.had_turn
    play.learnt(last := play.turn("c", **terms), alone=True)
    play.gone(last)
    play.known.forget((play.stage.kind, task_id("t")))
    play.failed(play.turn("d", **terms))
    play.turn("e", **terms)


def test_refused_credentials_are_their_callers() -> None:
    """Others are not held up by them."""
    play = Play(origin_failures=2)
    for name in "ab":
        play.failed(play.turn(name, login="wrong"), 403)
    with pytest.raises(OriginError):
        play.look(play.ask("e", login="wrong"))
    play.turn("f", login="right")


def test_what_others_credentials_find_counts_once() -> None:
    """Many origins say 404 to those who must not know."""
    play = Play(origin_failures=3)
    for name in "ab":
        play.failed(play.turn(name, login="x"), 404)
    play.gone(play.turn("c", login="y"))
    play.failed(play.turn("c", login="y"), 404)
    play.gone(play.turn("d", login="z"))
    play.failed(play.turn("d", login="w"), 404)
    with pytest.raises(OriginError):
        play.look(play.ask("e", login="z"))


# Seeds


def test_a_seed_asks_for_who_may_not() -> None:
    """He waits as long as it is at work, and is told what it holds."""
    play = Play(seed_start=30)
    seed = play.stage.host("seed", type=1)
    mute = play.ask("a", disable_back_to_source=True)
    said = play.look(mute)
    assert isinstance(said, AskSeed)
    assert said.seeds == (seed,)
    play.stage.now += 1000
    assert isinstance(play.look(mute), Wait)
    peer = play.stage.source("seed")
    assert told(play.look(mute)) == Description(*peer.shape)


def test_who_may_ask_waits_for_the_seed_that_was_asked() -> None:
    """For as long as it may take to begin."""
    play = Play(seed_start=30)
    play.stage.host("seed", type=1)
    assert isinstance(play.look(play.ask("a", disable_back_to_source=True)), AskSeed)
    able = play.ask("b")
    assert play.look(able) == Wait(play.stage.now + 30)
    play.stage.now += 30
    assert play.look(able) == YourTurn()


def test_a_seed_that_the_origin_fails() -> None:
    """Who waited for it is told why; who comes later is told that there is nobody."""
    play = Play(patience=2)
    play.stage.host("seed", type=1)
    mute = play.ask("a", disable_back_to_source=True)
    said = play.look(mute)
    assert isinstance(said, AskSeed)
    play.stage.world.end_trigger(said.task, no_seed_before=play.stage.now + 100)
    play.known.seed_failed(mute.key, OriginError("404 Not Found"), play.stage.now)
    with pytest.raises(OriginError, match="404"):
        play.look(mute)
    play.stage.now += 1
    late = play.ask("b", disable_back_to_source=True)
    assert play.look(late) == Wait(play.stage.now + 2)
    play.stage.now += 2
    with pytest.raises(NoProvider):
        play.look(late)


@pytest.mark.parametrize(
    ("wish", "refusal"),
    [({"disable_back_to_source": True}, NoProvider), ({"priority": 2}, OnlyPeers)],
)
def test_nobody_may_ask(wish: dict[str, Any], refusal: type[DragonflyError]) -> None:
    """A little later it is said so, unless somebody comes who may. No task comes of it."""
    play = Play(patience=2)
    if "priority" in wish:
        play.stage.host("seed", type=1)
    mute = play.ask("a", **wish)
    assert play.look(mute) == Wait(play.stage.now + 2)
    assert not play.stage.world.tasks
    able = play.turn("b")
    assert play.look(mute) == Wait(play.stage.now + TURN)
    play.gone(able)
    play.stage.now += 2
    with pytest.raises(refusal):
        play.look(mute)


# Limits


def test_open_questions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one host, and of all."""
    monkeypatch.setattr(describing, "_MOST_OF_HOST", 2)
    monkeypatch.setattr(describing, "_MOST", 3)
    play = Play()
    first = play.ask("a")
    play.ask("a")
    with pytest.raises(Busy):
        play.ask("a")
    play.ask("b")
    with pytest.raises(Busy):
        play.ask("c")
    play.gone(first)
    play.ask("c")


def test_what_is_over_is_forgotten() -> None:
    """With the questions that follow."""
    play = Play()
    for number in range(100):
        name = task_id(str(number))
        host = play.stage.world.hosts.get("a") or play.stage.host("a")
        request = DownloadRequest(play.stage.kind, "http://origin/f")
        asker = play.known.ask(host, name, request, play.stage.now, origin=False)
        assert play.look(asker) == YourTurn()
        play.learnt(asker, alone=True)
        play.gone(asker)
    assert len(play.known) == 100
    play.stage.now += KEPT + 1
    for _ in range(100):
        play.gone(play.ask("a"))
    assert len(play.known) == 1


def test_nobody_is_waited_for_for_ever_who_says_that_he_reads() -> None:
    """However much more he says he has each time: another reads, too."""
    play = Play()
    liar, other = play.turn("liar"), play.ask("other")
    began, received = play.stage.now, 0
    while isinstance(play.look(other), Wait):
        assert play.stage.now <= began + LONGEST
        received += 1
        play.stage.now += 2.0
        play.known.reading(liar, received, play.stage.now)
    assert play.stage.now > began + LONGEST - STILL
    play.known.reading(liar, received + 1, play.stage.now)
    play.known.reading(other, 1, play.stage.now)
    third = play.ask("third")
    assert play.look(third) == Wait(play.stage.now + TURN, reading=True, received=1)
