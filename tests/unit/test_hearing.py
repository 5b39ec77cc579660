"""daemon/downloading/hearing.py: whose word counts."""

from __future__ import annotations

import pytest

from pantala.core.transfer import GONE
from pantala.daemon.downloading.hearing import Hearing
from pantala.model.announce import Candidate, HostFacts

Told = list[tuple[str, int, int]]


@pytest.fixture
def told() -> Told:
    """What was believed."""
    return []


@pytest.fixture
def hearing(told: Told) -> Hearing:
    """Nobody is known to it."""
    return Hearing(lambda *words: told.append(words))


def at(peer: str, ip: str) -> Candidate:
    """A peer, as the scheduler tells of it."""
    return Candidate(peer, HostFacts(peer, peer, ip, 4000))


def test_who_is_where_the_scheduler_says(hearing: Hearing, told: Told) -> None:
    """It is believed, and nobody else who takes its name, be it to say that it is gone."""
    hearing.know([at("p", "10.0.0.1")])
    hearing.told("p", "10.0.0.1", 0, 0b11)
    hearing.told("p", "10.0.0.2", 0, 0b1100)
    hearing.told("p", "10.0.0.2", GONE, 0)
    hearing.told("p", "::ffff:10.0.0.1", 0b1, 0)
    assert told == [("p", 0, 0b11), ("p", 0b1, 0)]


def test_who_comes_before_the_scheduler_tells_of_it(hearing: Hearing, told: Told) -> None:
    """Its word counts from then on, and not that of another."""
    hearing.told("p", "10.0.0.1", 0, 0b11)
    hearing.told("p", "10.0.0.1", 0b1, 0b100)
    hearing.told("p", "10.0.0.2", 0, 0b1000)
    hearing.told("q", "10.0.0.2", 0, 0b1)
    hearing.told("q", "10.0.0.2", GONE, 0)
    assert not told
    hearing.know([at("p", "10.0.0.1"), at("q", "10.0.0.2")])
    assert told == [("p", 0, 0b110)]


def test_of_version_six(hearing: Hearing, told: Told) -> None:
    """A host calls from any address of its network."""
    hearing.know([at("p", "2001:db8::1"), at("q", "no:address")])
    hearing.told("p", "2001:db8::beef:2", 0, 0b1)
    hearing.told("p", "2001:db9::1", 0, 0b10)
    hearing.told("q", "2001:db8::1", 0, 0b1)
    assert told == [("p", 0, 0b1)]
