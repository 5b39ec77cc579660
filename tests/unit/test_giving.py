"""core/giving: which piece a parent offers to which child next."""

from __future__ import annotations

import random

import pytest

from pantala.core.giving import AHEAD, HOLD, LAPSE, Giving, Grant
from pantala.core.window import Window

LENGTH = 4 << 20
ALL = 0xFF
ROOM = 4


def giving(*children: str, here: int = ALL, lacks: int = ALL, places: int = 2) -> Giving:
    """Some pieces are here, and these children want all."""
    found = Giving(Window(places, places, first=places), random.Random(3), LENGTH)
    found.here = here
    for child in children:
        found.join(child, lacks, ROOM)
    return found


def send(found: Giving, number: int, now: float, *, arrived: bool = True) -> None:
    """A child asks for what it was granted, and gets it a second later."""
    grant = found.asked(number)
    assert grant is not None
    found.sent(grant, now + 1, arrived=arrived)


def test_different_pieces_to_different_children() -> None:
    """As many as there are places; the next when one is sent."""
    found = giving("a", "b", "c")
    (one, first), (other, second) = found.grant(0.0)
    assert one != other
    assert first != second
    assert found.grant(0.0) == []
    assert found.asked(second) is not None
    send(found, first, 0.0)
    ((_, third),) = found.grant(1.0)
    assert third not in (first, second)


def test_what_others_bring_is_not_offered_and_may_be_later() -> None:
    """A place that was kept for it is free; and it is no reason to part."""
    found = giving("a", "b", here=0b11, lacks=0b11, places=1)
    ((child, number),) = found.grant(0.0)
    found.spares(child, 0b11, 0.0)
    other = "ab".replace(child, "")
    ((next_child, _),) = found.grant(0.0)
    assert next_child == other
    found.leave(other, 0.0)
    assert found.grant(1.0) == []
    assert not found.is_through_with(child, 0)
    found.lacks(child, 1 << number)
    assert found.grant(1.0) == [(child, number)]
    found.has(child, 0b11, 1.0)
    assert found.is_through_with(child, 0)


def test_each_once_before_any_twice() -> None:
    """Children tell nothing: what was granted is as good as there."""
    found = giving("a", "b", "c", "d", places=1)
    given = []
    for now in range(10):
        ((_, number),) = found.grant(now)
        given.append(number)
        send(found, number, now)
        for child in "abcd":
            found.has_room(child, ROOM)
    assert sorted(given[:8]) == list(range(8))


def test_what_the_most_lack_comes_first() -> None:
    """Two of three have the first four pieces, so that the others are rarer."""
    found = giving("a", "b", "c", places=4)
    for child in ("a", "b"):
        found.has(child, 0x0F, 0.0)
    assert {number for _, number in found.grant(0.0)} == {4, 5, 6, 7}


def test_a_source_holds_back_what_it_gave() -> None:
    """Whoever has it gives it to the others, until that has taken long."""
    found = giving("a", "b", here=0b1)
    found.at_source = True
    ((first, number),) = found.grant(0.0)
    send(found, number, 0.0)
    assert found.grant(1.0) == []
    found.here = 0b11
    ((_, number),) = found.grant(1.0)
    assert number == 1
    send(found, number, 1.0)
    assert found.grant(HOLD) == []
    again = found.grant(HOLD + 0.5)
    assert [number for child, number in again if child != first] == [0]


def test_a_source_that_has_read_everything() -> None:
    """Holds nothing back."""
    found = giving("a", "b", here=0b1, lacks=0b1)
    found.at_source = True
    ((first, _),) = found.grant(0.0)
    send(found, 0, 0.0)
    found.at_source = False
    ((second, _),) = found.grant(1.0)
    assert {first, second} == {"a", "b"}


def test_nobody_without_room_is_offered_anything() -> None:
    """Until it tells that it has some."""
    found = giving("a", "b", places=4)
    found.has_room("a", 0)
    found.has_room("b", 1)
    assert [child for child, _ in found.grant(0.0)] == ["b"]
    found.has_room("a", 2)
    assert [child for child, _ in found.grant(0.0)] == ["a", "a"]


def test_a_grant_that_is_not_asked_for() -> None:
    """It keeps its place for a moment; another comes first then, but the offer stands."""
    found = giving("a", "b", lacks=0b1, here=0b1, places=1)
    ((first, _),) = found.grant(0.0)
    assert found.grant(LAPSE / 2) == []
    ((second, _),) = found.grant(LAPSE)
    assert {first, second} == {"a", "b"}
    assert found.grant(2 * LAPSE) == []
    assert found.asked(0) is None
    assert not found.is_through_with(first, 0) or not found.is_through_with(second, 0)


def test_a_grant_lapses_when_the_others_have_left() -> None:
    """A child alone needs no place, and there are other tasks; what it was offered it may have."""
    found = giving("a", "b", places=1)
    ((child, number),) = found.grant(0.0)
    found.leave("b" if child == "a" else "a", 0.0)
    found.grant(LAPSE)
    assert len(found.slots) == 0
    assert found.asked(number) is None
    assert not found.is_through_with(child, 0)


def test_a_child_that_wants_a_piece_again() -> None:
    """It is offered it once more."""
    found = giving("a", "b", lacks=0b1, here=0b1, places=2)
    assert len(found.grant(0.0)) == 2
    for _ in range(2):
        send(found, 0, 0.0, arrived=False)
    assert found.grant(1.0) == []
    found.lacks("a", 0b1)
    assert found.grant(1.0) == [("a", 0)]


def test_a_child_that_has_it_from_elsewhere() -> None:
    """Its grant keeps no place."""
    found = giving("a", "b", lacks=0b11, here=0b11, places=1)
    ((child, number),) = found.grant(0.0)
    found.has(child, 1 << number, 0.0)
    assert len(found.grant(0.0)) == 1
    assert len(found.slots) == 1


def test_a_child_that_leaves() -> None:
    """What it has not asked for keeps no place; what it has, until that is sent."""
    found = giving("a", "b", "c", places=2)
    (one, first), (other, _) = found.grant(0.0)
    grant = found.asked(first)
    assert grant is not None
    found.leave(one, 0.0)
    found.leave(other, 0.0)
    assert len(found.slots) == 1
    found.sent(grant, 1.0, arrived=False)
    assert len(found.slots) == 0
    assert len(found) == 1


def test_one_child_alone() -> None:
    """Is offered much at once, and more before it has asked for all of that."""
    found = giving("a", here=(1 << 100) - 1, lacks=(1 << 100) - 1)
    offers = [number for _, number in found.grant(0.0)]
    assert offers == list(range(AHEAD))
    assert found.grant(0.0) == []
    for number in offers[: AHEAD // 2]:
        assert found.asked(number) is None
    assert found.grant(0.0) == [("a", n) for n in range(AHEAD, AHEAD + AHEAD // 2)]
    assert found.ahead_of("a") == AHEAD
    assert len(found.slots) == 0


def test_a_slow_child_keeps_no_place() -> None:
    """The others go on."""
    found = giving("a", "b", places=1)
    ((_, number),) = found.grant(0.0)
    send(found, number, 0.0)
    ((slow, number),) = found.grant(1.0)
    assert found.asked(number) is not None
    assert found.grant(3.0) == []
    ((child, _),) = found.grant(6.0)
    assert child != slow


def test_when_there_is_nothing_left() -> None:
    """Nor will be."""
    found = giving("a", "b", here=0b01, lacks=0b11)
    found.has("a", 0b01, 0.0)
    assert found.is_through_with("a", 0)
    assert not found.is_through_with("a", 0b10)
    assert not found.is_through_with("b", 0)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens(seed: int) -> None:
    """Nobody is kept waiting while a place is free, and the count of who lacks what is right."""
    rng = random.Random(seed)
    found = Giving(Window(8, rng.randint(1, 3)), random.Random(seed), LENGTH)
    names: list[str] = []
    sending: list[Grant] = []
    now = 0.0
    for step in range(400):
        now += rng.expovariate(20.0)
        if len(names) < 5 and rng.random() < 0.2:
            names.append(str(step))
            found.join(names[-1], rng.getrandbits(12), rng.randint(0, 3))
        elif names and rng.random() < 0.05:
            found.leave(names.pop(rng.randrange(len(names))), now)
        elif names and rng.random() < 0.5:
            _tell(found, rng.choice(names), rng, now)
        else:
            _serve(found, sending, rng, now)
        for child, number in found.grant(now):
            assert child in names
            assert found.here >> number & 1
        _check(found, now)


@pytest.mark.parametrize("places", [1, 2, 4])
def test_who_comes_again_and_again_and_never_asks(places: int) -> None:
    """Newcomers get something, too, but those who ask get on."""
    found, got, now, newest = giving("honest", lacks=0xFFFF, here=0xFFFF, places=places), 0, 0.0, 0
    for turn in range(400):
        now = turn * LAPSE / 2
        for newest in range(5 * turn, 5 * turn + 5):
            found.join(f"stranger {newest}", 0xFFFF, 2**32 - 1)
        for child, number in found.grant(now):
            if child == "honest":
                grant = found.asked(number)
                assert grant is not None
                found.sent(grant, now + LAPSE / 10, arrived=True)
                got |= 1 << number
        for old in range(newest - 4, newest + 1):
            if turn % 2:
                found.leave(f"stranger {old}", now)
    assert got == 0xFFFF


def _tell(found: Giving, name: str, rng: random.Random, now: float) -> None:
    match rng.randrange(3):
        case 0:
            found.has(name, rng.getrandbits(12), now)
        case 1:
            found.lacks(name, rng.getrandbits(12))
        case 2:
            found.has_room(name, rng.randint(0, 3))


def _serve(found: Giving, sending: list[Grant], rng: random.Random, now: float) -> None:
    match rng.randrange(3):
        case 0:
            found.here, found.at_source = rng.getrandbits(12), rng.random() < 0.3
        case 1:
            grant = found.asked(rng.randrange(12))
            sending += [grant] if grant is not None else []
        case 2 if sending:
            grant = sending.pop(rng.randrange(len(sending)))
            found.sent(grant, now, arrived=rng.random() < 0.8)


def _check(found: Giving, now: float) -> None:
    children = found._children
    among = [number for number in range(12) if found.here >> number & 1]
    counts = {n: sum(who.lacks >> n & 1 for who in children.values()) for n in among}
    most = [n for n in among if counts[n] == max(counts.values())]
    assert found._most_lacked(found.here) == sum(1 << n for n in most)
    for name, who in children.items():
        assert who.busy == sum(grant.child == name for grant in found._grants)
    assert len(found.slots) == len(found._grants)
    if len(children) > 1 and not found.at_source and found.slots.has_place(now):
        for who in children.values():
            assert who.room <= 0 or not who.lacks & found.here & ~who.offered
