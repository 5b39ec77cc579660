"""net/turns.py: threads, of which each address has a share."""

from __future__ import annotations

import asyncio
import random

import pytest

from pantala.net.turns import Turns


async def test_one_cannot_have_all() -> None:
    """Somebody else gets one at once; who waits comes when one is given back."""
    turns, go = Turns(10), asyncio.Event()
    began: list[str] = []

    async def work(owner: str) -> None:
        async with turns.turn(owner):
            began.append(owner)
            await go.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(work("greedy"))
        await asyncio.sleep(0)
        assert began == ["greedy"] * 8
        for owner in ("b", "c"):
            group.create_task(work(owner))
        await asyncio.sleep(0)
        assert began[8:] == ["b", "c"]
        go.set()
    assert began.count("greedy") == 50
    assert (turns._free, turns._has, turns._waiting) == (10, {}, {})


async def test_each_in_turn() -> None:
    """Not whoever has waited longest: that would be the same one always."""
    turns = Turns(1)
    order: list[str] = []

    async def work(owner: str) -> None:
        async with turns.turn(owner):
            order.append(owner)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for owner in ("a", "a", "a", "b"):
            group.create_task(work(owner))
    assert order == ["a", "a", "b", "a"]


@pytest.mark.parametrize("seed", range(5))
async def test_who_is_cancelled_leaves_nothing_behind(seed: int) -> None:
    """Waiting, at work, or in the moment of being called."""
    chance = random.Random(seed)
    turns = Turns(3)

    async def work(owner: int) -> None:
        async with turns.turn(owner):
            await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(work(chance.randrange(3))) for _ in range(60)]
    for task in tasks:
        if chance.random() < 0.5:
            await asyncio.sleep(0)
            task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (turns._free, turns._has, turns._waiting) == (3, {}, {})
