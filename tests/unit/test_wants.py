"""daemon/downloading/wants: what one parent is told of what is wanted here."""

from __future__ import annotations

import asyncio

import pytest

from pantala.daemon.downloading.wants import Wants
from pantala.model.exchange import Wish


async def test_what_changes_within_a_moment_is_one_message() -> None:
    """The last word on a piece counts."""
    wants = Wants(0b1111, 4)
    assert wants.first == Wish(0b1111, 0, 4)
    wants.has(0)
    wants.has(1)
    wants.lacks(1)
    wants.lacks(2)
    wants.has(2)
    wants.has_room(1)
    assert await wants.next() == Wish(0b0010, 0b0101, 1)


async def test_an_offer_is_news_once() -> None:
    """Until the piece is wanted again; what was never wanted is none."""
    wants = Wants(0b0111, 4)
    assert wants.take_offers(0b1011) == 0b0011
    assert wants.take_offers(0b1111) == 0b0100
    wants.has(1)
    wants.lacks(1)
    wants.lacks(3)
    assert wants.take_offers(0b1111) == 0b1010
    assert wants.take_offers(0b1111) == 0


async def test_what_comes_from_elsewhere_is_wanted_later() -> None:
    """An offer of it is no news; until it does not come from there, or is here."""
    wants = Wants(0b1111, 4, has=0b110000, later=0b0001, name="peer")
    assert wants.first == Wish(0b1110, 0b110000, 4, 0b0001)
    wants.spare(0b0111, 0b1111)
    assert wants.take_offers(0b1111) == 0b1000
    assert await wants.next() == Wish(0, 0, 4, 0b0110)
    wants.has(1)
    wants.spare(0b0100, 0b1101)
    assert await wants.next() == Wish(0b0001, 0b0010, 4, 0)
    assert wants.take_offers(0b0011) == 0b0001
    wants.spare(0, 0b0100)
    wants.spare(0b0100, 0b0100)  # in between nothing was told
    assert await wants.next() == Wish(0, 0, 4, 0b0100)


@pytest.mark.parametrize(("told", "now", "is_news"), [(0, 2, True), (1, 2, False), (2, 0, False)])
async def test_room(told: int, now: int, *, is_news: bool) -> None:
    """That there is some again is worth a message; a parent that thinks so may think so."""
    wants = Wants(0b1, told)
    wants.has_room(now)
    waiting = asyncio.ensure_future(wants.next())
    done, _ = await asyncio.wait((waiting,), timeout=0.3)
    assert bool(done) is is_news
    if is_news:
        assert waiting.result() == Wish(0, 0, now)
    waiting.cancel()
