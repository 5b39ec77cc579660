"""Swarms on a virtual clock: they finish, run the same again, and say so when a rule is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pantala.core.transfer import Transfer
from pantala.errors import ConfigError
from pantala.model.announce import Reschedule
from pantala.sim import __main__ as command
from pantala.sim import faults
from pantala.sim.exchange import Exchange
from pantala.sim.invariants import Broken, check
from pantala.sim.report import quantile, report, round_bound
from pantala.sim.run import build, run
from pantala.sim.scenario import SCENARIOS, Scenario, make, parse_rate, read
from pantala.sim.scheduler import Stream

NAMES = sorted(path.stem for path in SCENARIOS.glob("*.json"))
MIB = 1 << 20


def small(**fields: Any) -> Scenario:
    """A few hosts that start one after the other."""
    return make({"hosts": 6, "size": 64 * MIB, "spread": 0.3, "check": 1, **fields})


def transcript(scenario: Scenario) -> list[str]:
    """All that happens."""
    lines: list[str] = []
    assert run(scenario, lines.append).broken == ""
    return lines


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 2])
def test_each_scenario_finishes(name: str, seed: int) -> None:
    """All that live have all they wanted, and everything held, mostly after every event."""
    every = 5 if name == "many-idcs" else 1  # each look is at all its hundred hosts
    scenario = read(name, {"size": "48MiB", "seed": seed, "check": every})
    outcome = run(scenario)
    found = report(outcome)

    assert scenario.why
    assert outcome.broken == ""
    assert found.finished + found.lost == found.wanted
    assert found.last >= 0.99 * found.ideal
    assert sum(host.up.carried for host in outcome.swarm.hosts) > 0 or name == "flash-crowd"


def test_the_same_seed_is_the_same_run() -> None:
    """To the last line; another one is another."""
    scenario = small(dying=0.2, dying_until=1.0)

    assert transcript(scenario) == transcript(scenario)
    assert transcript(scenario) != transcript(small(dying=0.2, dying_until=1.0, seed=2))


def test_one_host_follows_its_seed_by_some_pieces() -> None:
    """The seed reads one alone, then two at once, and the host fetches two or three at once."""
    found = report(run(make({"hosts": 1, "latency": 0.0, "headers": 0.0, "piece_length": 4 * MIB})))
    piece = found.ideal / 32

    assert found.ideal + piece <= found.last <= found.ideal + 5 * piece


def test_headers_and_latencies_cost_what_they_cost() -> None:
    """A twentieth more bytes are a twentieth more time."""
    bare = report(run(small(headers=0.0, latency=0.0)))
    more = report(run(small(headers=0.05, latency=0.0)))
    late = report(run(small(headers=0.0, latency=0.1)))

    assert more.median == pytest.approx(1.05 * bare.median, rel=0.15)
    assert late.median > bare.median + 0.1


def test_hosts_that_exchange_are_quicker_than_hosts_that_only_have_parents() -> None:
    """And all of them are there soon after the seed."""
    fields = {"hosts": 8, "size": 128 * MIB}
    together = report(run(small(**fields)))
    tree = report(run(small(**fields, partners=0, exchange=False)))

    assert together.last < 2 * together.ideal < tree.last
    assert together.wishes > 0 == tree.wishes


def test_near_rates_make_about_the_same_run() -> None:
    """Of the exactly fair ones."""
    exact, near = (report(run(small(hosts=12, exact=exact))) for exact in (True, False))

    assert near.median == pytest.approx(exact.median, rel=0.3)


def test_who_dies_does_not_count() -> None:
    """But those who were given something by it do."""
    found = report(run(small(hosts=10, dying=0.3, dying_from=0.4, dying_until=0.8)))

    assert found.lost > 0
    assert found.finished == 10 - found.lost


def test_a_seed_that_dies_is_made_up_for_at_the_origin() -> None:
    """Whoever knows nobody else goes there."""
    found = report(run(small(seed_dies=0.5)))

    assert found.broken == ""
    assert found.origin > 1


def test_a_silent_death_costs_more_than_one_that_is_told() -> None:
    """Nobody is told, so children find out by themselves."""
    told, silent = (report(run(small(seed_dies=0.5, silent=silent))) for silent in (False, True))

    assert silent.last > told.last


def test_bytes_go_across_the_line_and_are_counted() -> None:
    """At least once, and not of a swarm in one place."""
    line = {"idcs": 2, "line": "100Mbit"}

    assert report(run(small(**line))).across >= 1
    assert report(run(small())).across == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"idcs": 2, "line": "400Mbit", "hosts": 30},
        {"idcs": 10, "oversubscribed": 4, "hosts": 60},
        {"idcs": 3, "oversubscribed": 4, "hosts": 30, "mixed": [[0.3, 0.1]]},
        {"idcs": 3, "oversubscribed": 4, "hosts": 30, "dying": 0.2, "silent": True},
    ],
    ids=["two", "ten", "slow hosts", "hosts that die"],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_each_piece_comes_to_a_data_centre_about_once(fields: dict[str, Any], seed: int) -> None:
    """Whoever goes out for it, and whatever becomes of him; nobody waits for nobody meanwhile."""
    fields = {"size": 256 * MIB, "piece_length": MIB, "check": 50, "seed": seed, **fields}
    outcome = run(small(**fields))
    found = report(outcome)

    assert outcome.broken == ""
    most = 1.1 if "mixed" not in fields and "dying" not in fields else 1.4
    assert found.entered < most
    assert min(outcome.swarm.entered[idc] for idc in range(1, fields["idcs"])) >= 256 * MIB


def test_a_data_centre_whose_ways_out_die_gets_others() -> None:
    """All three that went first, a moment after they began; and all that are left finish."""
    scenario = small(idcs=2, oversubscribed=2, hosts=20, spread=0.0)
    swarm = build(scenario)
    killed: set[str] = set()

    def kill() -> None:
        for host in swarm.hosts:
            flight = next(iter(host.holdings.values())).flight
            if host.idc == 1 and flight is not None and flight.transfer.has_far:
                killed.add(host.name)
                faults.kill(swarm, host)

    swarm.clock.at(0.8, kill)
    while swarm.active or swarm.planned:
        swarm.clock.step()
        check(swarm)
    ends = [flight for flight in swarm.flights if flight.host.alive]

    assert len(killed) == 3
    assert all(flight.holding.is_whole for flight in ends)
    assert sum(flight.host.idc == 1 for flight in ends) == 7
    assert swarm.entered[1] < 2.2 * scenario.size


def test_whoever_has_partners_beyond_its_data_centre_goes_out() -> None:
    """All others have only those of their own, and so fetch nothing over the line."""
    swarm = run(small(idcs=4, oversubscribed=4, hosts=60)).swarm
    out = [flight for flight in swarm.flights if flight.transfer.has_far]

    assert len(out) <= 4 * 3 + 1


# -- broken rules ------------------------------------------------------------------------------


def test_who_does_not_ask_again_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only parent has died."""
    monkeypatch.setattr(Transfer, "_unstick", lambda _self: [])

    assert "waits for nobody" in run(small(seed_dies=0.5, partners=0)).broken


def test_a_question_that_is_not_answered_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler forgets it, so the heap has nothing more to do for that host."""
    tell = Stream.tell

    def forget(self: Stream, report: Any) -> None:
        if not isinstance(report, Reschedule):
            tell(self, report)

    monkeypatch.setattr(Stream, "tell", forget)

    assert "waits for nobody" in run(small(seed_dies=0.5, partners=0)).broken


def test_who_fetches_too_much_at_once_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 32 pieces, of 8 at once."""
    monkeypatch.setattr(Transfer, "_has_place", lambda _self: True)
    monkeypatch.setattr(Transfer, "room", 64)

    assert "fetches at once" in run(small(size=128 * MIB, exchange=False)).broken


def test_who_finishes_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One piece is not asked for."""
    store = Transfer._store

    def store_and_forget(self: Transfer, piece: Any, *, second: bool) -> list[Any]:
        commands = store(self, piece, second=second)
        self.wanted.pop(12, None)
        self.unoffered.pop(12, None)
        self.ready.discard(12)
        return commands

    monkeypatch.setattr(Transfer, "_store", store_and_forget)

    assert "before all was here" in run(small()).broken


def test_too_many_answers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is given fifty times."""
    answer = Stream._answer

    def answer_on_and_on(self: Stream, said: Any) -> None:
        for _ in range(50):
            answer(self, said)

    monkeypatch.setattr(Stream, "_answer", answer_on_and_on)

    assert "without asking" in run(small()).broken


def test_a_clock_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks again and again, at once."""
    turn = Exchange.turn

    def turn_for_ever(self: Exchange) -> None:
        turn(self)
        self.swarm.clock.after(0.0, self.turn)

    monkeypatch.setattr(Exchange, "turn", turn_for_ever)

    assert "time stands still" in run(small(hosts=1, check=0)).broken


def test_a_crowded_host_is_noticed() -> None:
    """More children than it may have."""
    outcome = run(small(hosts=2))
    host = next(iter(outcome.swarm.scheduler.world.hosts.values()))
    host.uploads = host.upload_limit + 1

    with pytest.raises(Broken, match="children"):
        check(outcome.swarm)


# -- what is printed ---------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures for people or as JSON, a drawing, and all that happened."""
    words = ["flash-crowd", "--hosts", "3", "--size", "32MiB", "--seed", "7"]
    words += ["--piece-length", "4MiB"]
    drawing, said = tmp_path / "run.svg", tmp_path / "run.txt"

    assert command.main([*words, "--json", "--svg", str(drawing), "--transcript", str(said)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["hosts"], found["seed"], found["finished"], found["broken"]) == (3, 7, 3, "")
    assert found["first"] <= found["median"] <= found["p99"] <= found["last"]
    assert ET.parse(drawing).getroot().tag.endswith("svg")  # noqa: S314  our own
    assert len([line for line in said.read_text().splitlines() if " has " in line]) == 4 * 8

    assert command.main(words) == 0
    assert "3 of 3 downloads on 3 hosts have finished" in capsys.readouterr().out


def test_a_run_that_fails_says_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what happened last."""
    monkeypatch.setattr(Transfer, "_unstick", lambda _self: [])

    words = ["seed-dies", "--hosts", "1", "--partners", "0", "--seed", "9"]
    assert command.main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert "waits for nobody" in said[0]
    assert f"python -m pantala.sim {' '.join(words)}" in said[1]
    assert 1 < len(said) <= 42


def test_each_flag_is_explained() -> None:
    """By what the docstring says of its field."""
    said = command.fields()

    assert said["hosts"] == "That want something; seeds come on top."
    assert said["dying_from"] == said["dying_until"] != ""
    assert all(said.values())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere"], "flash-crowd"),
        (["flash-crowd", "--hosts", "0"], "want at least 1"),
        (["flash-crowd", "--hosts", "many"], "hosts is 'many'"),
        (["flash-crowd", "--latency", "-1"], "no less than 0"),
        (["flash-crowd", "--latency", "nan"], "no less than 0"),
        (["flash-crowd", "--silent", "maybe"], "yes or no"),
        (["flash-crowd", "--wants", "2"], "wants 2 of 1"),
    ],
)
def test_what_makes_no_sense(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says why."""
    assert command.main(words) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_scenarios_are_read_with_care(tmp_path: Path) -> None:
    """A file of one's own may name sizes and rates as people do; nothing unknown is taken."""
    path = tmp_path / "mine.json"
    path.write_text('{"rate": "1Gbit", "size": "1GiB", "mixed": [[0.5, 0.1]], "silent": true}')
    scenario = read(str(path), {"hosts": "4"})
    assert (scenario.name, scenario.rate, scenario.size) == ("mine", 10**9, 1 << 30)
    assert (scenario.hosts, scenario.mixed, scenario.silent) == (4, ((0.5, 0.1),), True)
    for text in ("[]", "{", '{"colour": 1}', '{"size": null}', '{"mixed": [1]}'):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read(str(path), {})


def test_rates_as_people_write_them() -> None:
    """Or as plain numbers."""
    assert [parse_rate(text) for text in ("200Mbit", "1.5Gbit", "9", 7)] == [
        200_000_000,
        1_500_000_000,
        9,
        7,
    ]


def test_bounds_and_quantiles() -> None:
    """32 pieces to 7 hosts: 31 rounds, and 3 to reach the last."""
    scenario = make({"hosts": 7, "rate": 8 * 4 * MIB, "piece_length": 4 * MIB})

    assert round_bound(scenario) == 34
    assert [quantile([1.0, 2.0, 3.0, 4.0], q) for q in (0, 0.5, 0.99, 1)] == [1, 2, 4, 4]
