"""core/sched/growth.py: who follows whom while one host reads what has no length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pantala.core.sched import growth as module
from pantala.core.sched.describing import TURN, Descriptions
from pantala.core.sched.growth import FANOUT
from pantala.core.sched.questions import Asker, Told, Wait, YourTurn
from pantala.core.sched.rules import Limits
from pantala.model.task import Description, DownloadRequest
from pantala.testing.stage import MIB, Stage, task_id

READ = Description(21 * MIB, 4 * MIB, read=True)


class Play:
    """Hosts that ask about one task, the first of which reads it."""

    def __init__(self, reader: str = "reader", **terms: Any) -> None:
        self.stage = Stage(Limits())
        self.known = Descriptions(self.stage.world, lambda _key: None)
        self.reader = self.ask(reader, **terms)
        assert self.known.answer(self.reader, self.stage.now) == YourTurn()
        self.read()

    def ask(self, host: str, *, login: str = "", **terms: Any) -> Asker:
        """*host* wants to know, and would follow."""
        known = self.stage.world.hosts.get(host) or self.stage.host(host)
        headers = {"Authorization": login} if login else {}
        wish = {"disable_back_to_source": terms.pop("only_peers", False)}
        request = DownloadRequest(
            self.stage.kind, "http://origin/f", request_header=headers, **wish
        )
        asked = {"origin": False, "follows": True, **terms}
        return self.known.ask(known, task_id("t"), request, self.stage.now, **asked)

    def read(self, first: int = 0, *crcs: int, version: str = "v") -> None:
        """It has these steps, too."""
        received = (first + len(crcs)) * 4 * MIB
        now = self.stage.now
        self.known.reading(self.reader, received, now, version=version, first=first, crcs=crcs)

    def leaders(self, asker: Asker) -> list[str]:
        """Whom it may follow."""
        growth = self.known.growths.followed(asker)
        return [] if growth is None else [host.id for host in growth.leaders(asker)]

    def gone(self, asker: Asker) -> None:
        """Its stream has ended."""
        self.known.gone(asker, self.stage.now)


def test_a_tree() -> None:
    """Each has a few children, and knows all above it."""
    play = Play()
    askers = [play.ask(f"h{i}") for i in range(3 * FANOUT * FANOUT)]
    above = {asker.host.id: play.leaders(asker) for asker in askers}
    assert above["h0"] == ["reader"]
    assert above["h4"] == ["h0", "reader"]
    assert above["h20"] == ["h4", "h0", "reader"]
    parents = [leaders[0] for leaders in above.values()]
    assert max(parents.count(name) for name in parents) == FANOUT
    assert all(above[leaders[0]] == leaders[1:] for leaders in above.values() if len(leaders) > 1)


def test_one_goes() -> None:
    """The last takes its place: few hear of another parent."""
    play = Play()
    askers = [play.ask(f"h{i}") for i in range(10)]
    before = [play.leaders(asker) for asker in askers]
    play.gone(askers[0])
    after = [play.leaders(asker) for asker in askers[1:]]
    assert after[:3] == before[1:4]
    assert after[3] == ["h9", "reader"]
    assert after[8] == ["reader"]


def test_who_does_not_follow() -> None:
    """Who does not say that he would, who shares nothing, and who must ask the origin himself."""
    play = Play(origin=True, login="a")
    assert play.leaders(play.ask("old", follows=False)) == []
    assert play.leaders(play.ask("other", origin=True, login="b")) == []
    quiet = play.stage.host("quiet")
    quiet.learn(replace(quiet.facts, disable_shared=True))
    assert play.leaders(play.ask("quiet")) == []
    assert play.leaders(play.ask("alike", origin=True, login="a")) == ["reader"]
    assert play.leaders(play.ask("cold", login="b")) == ["reader"]


def test_a_reader_that_shares_nothing() -> None:
    """Nobody follows it, and all wait."""
    play = Play()
    host = play.reader.host
    host.learn(replace(host.facts, disable_shared=True))
    other = Play.ask(play, "b")
    play.known.growths.ended(play.reader, None)
    play.read(0, 1)
    assert play.leaders(other) == []
    assert isinstance(play.known.answer(other, play.stage.now), Wait)


def test_what_he_has() -> None:
    """Step after step; what does not go on from what is known is left."""
    play = Play()
    asker = play.ask("a")
    play.read(0, 1, 2)
    play.read(1, 9)
    play.read(3, 9)
    play.read(2, 3)
    growth = play.known.growths.followed(asker)
    assert growth is not None
    assert list(growth.crcs) == [1, 2, 3]
    play.read(0, 7, version="w")
    other = play.known.growths.followed(asker)
    assert other is not None
    assert (other.version, list(other.crcs)) == ("w", [7])


def test_how_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to it, of one and of all; and nothing is left in the end."""
    monkeypatch.setattr(module, "MOST_STEPS", 3)
    play = Play()
    play.read(0, *range(5))
    assert play.known.growths.steps == 3
    play.read(0, version="w")
    assert play.known.growths.steps == 0
    monkeypatch.setattr(module, "_MOST_STEPS_OF_ALL", 2)
    play.read(0, *range(5), version="w")
    assert play.known.growths.steps == 2
    play.gone(play.reader)
    assert play.known.growths.steps == len(play.known.growths) == 0


def test_it_has_ended() -> None:
    """Who has followed is told of which reading that is; then it is forgotten."""
    play = Play()
    asker = play.ask("a")
    assert play.leaders(asker) == ["reader"]
    play.known.learnt(play.reader, READ, play.stage.now)
    assert play.leaders(asker) == []
    play.stage.holder("reader", content_length=READ.content_length)
    answer = play.known.answer(asker, play.stage.now)
    assert isinstance(answer, Told)
    assert (answer.description.content_length, answer.description.growth) == (21 * MIB, "v")
    play.gone(asker)
    assert not len(play.known.growths)


def test_something_else_has_ended() -> None:
    """What is held is not what was read: the reading is not named."""
    play = Play()
    asker = play.ask("a")
    assert play.leaders(asker) == ["reader"]
    play.known.learnt(play.reader, READ, play.stage.now)
    play.stage.holder("x", content_length=9 * MIB)
    answer = play.known.answer(asker, play.stage.now)
    assert isinstance(answer, Told)
    assert answer.description.growth == ""


def test_nobody_has_followed() -> None:
    """Then nothing is remembered of it."""
    play = Play()
    play.known.learnt(play.reader, READ, play.stage.now)
    assert not len(play.known.growths)


def test_his_turn_is_over() -> None:
    """Whoever reads next is followed, from his first step on."""
    play = Play()
    asker, heir = play.ask("a"), play.ask("b")
    assert play.leaders(asker) == ["reader"]
    play.read(0, 1, 2)
    play.gone(play.reader)
    assert play.known.answer(heir, play.stage.now) == YourTurn()
    assert play.leaders(asker) == []
    play.reader = heir
    play.read(0, 1)
    growth = play.known.growths.followed(asker)
    assert growth is not None
    assert list(growth.crcs) == [1]
    assert play.leaders(asker) == ["b"]
    assert play.leaders(heir) == []


def test_another_reads_it_with_other_credentials() -> None:
    """Who reads on is followed on: each word of the other would end it else."""
    play = Play(origin=True)
    asker = play.ask("a", origin=True)
    other = play.ask("other", login="x", origin=True)
    assert play.known.answer(other, play.stage.now) == YourTurn()
    play.read(0, 1, 2)
    play.known.reading(other, 4 * MIB, play.stage.now, version="w", first=0, crcs=(9,))
    play.read(2, 3)
    growth = play.known.growths.followed(asker)
    assert growth is not None
    assert list(growth.crcs) == [1, 2, 3]


def test_who_may_not_ask_waits_for_who_compares() -> None:
    """As long as that one's turn lasts, neither a seed is asked, nor is it told that nobody may.

    Nor while he has read all of it, and is about to say that he has it.
    """
    play = Play(origin=True)
    play.stage.host("seed", type=1)
    asker = play.ask("a", only_peers=True)
    answer = play.known.answer(asker, play.stage.now)
    assert answer == Wait(play.stage.now + TURN, reading=True)
    assert play.leaders(asker) == ["reader"]
    play.known.learnt(play.reader, READ, play.stage.now)
    start = play.stage.world.limits.start
    assert play.known.answer(asker, play.stage.now) == Wait(play.stage.now + start)
    play.stage.now += start
    assert not isinstance(play.known.answer(asker, play.stage.now), Wait)
