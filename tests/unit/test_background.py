"""background.py: tasks with an owner, and loops that nothing ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pantala import background
from pantala.background import Loops, Tasks
from pantala.logs import setup_logging


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(background, "BACKOFF", (0.001, 0.002))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged, with tracebacks."""
    setup_logging("info", json=True)
    logging.getLogger().addHandler(caplog.handler)
    yield caplog
    logging.getLogger().removeHandler(caplog.handler)


def entries(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What was logged, before it became text."""
    return [record.msg for record in log.records if isinstance(record.msg, dict)]


@pytest.fixture
async def counted() -> list[str]:
    """Names of loops, one for each turn that went wrong."""
    return []


@pytest.fixture
async def loops(counted: list[str]) -> AsyncIterator[Loops]:
    """Closed in the end, with none left."""
    made = Loops(counted.append)
    yield made
    await made.close()
    await asyncio.sleep(0)
    assert made.names == []
    assert made.failing() == []


class Script:
    """A turn that does what it is told, one after the other, and then waits."""

    def __init__(self, *what: BaseException | None) -> None:
        self._what = list(what)
        self.done = asyncio.Event()
        self.turns = 0

    async def __call__(self) -> None:
        if not self._what:
            self.done.set()
            await asyncio.Event().wait()
        self.turns += 1
        error = self._what.pop(0)
        if error is not None:
            raise error

    async def play(self) -> None:
        """Until all is done."""
        async with asyncio.timeout(30):
            await self.done.wait()


async def test_no_exception_ends_a_loop(
    loops: Loops, counted: list[str], log: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback, and counted."""
    script = Script(OSError(24, "Too many open files"), ValueError("Invalid IPv6 URL"), None)
    loops.keep(script, "unlucky")
    await script.play()

    assert script.turns == 3
    assert counted == ["unlucky"] * 2
    errors = [entry["exc_info"] for entry in entries(log)]
    assert [str(error) for error in errors] == [
        "[Errno 24] Too many open files",
        "Invalid IPv6 URL",
    ]
    assert all(error.__traceback__ for error in errors)
    assert loops.names == ["unlucky"]


async def test_nor_does_the_cancellation_of_something_else(
    loops: Loops, counted: list[str]
) -> None:
    """A channel that is closed cancels the calls on it: the loop that waits for one lives."""
    script = Script(asyncio.CancelledError(), None)
    loops.keep(script, "bystander")
    await script.play()

    assert script.turns == 2
    assert counted == ["bystander"]


async def test_plain_functions_too(loops: Loops, counted: list[str]) -> None:
    """With the rest after each turn that went well, and none after others."""
    rested = 0
    done = asyncio.Event()

    def turn() -> None:
        if len(counted) < 2:
            raise RuntimeError

    async def rest() -> None:
        nonlocal rested
        rested += 1
        if rested == 3:
            done.set()
            await asyncio.Event().wait()

    loops.keep(turn, "plain", rest=rest)
    async with asyncio.timeout(30):
        await done.wait()
    assert counted == ["plain"] * 2


async def test_health_tells_of_those_that_keep_failing(loops: Loops) -> None:
    """Which and since when; and no longer once a turn went well, though it rests then."""
    fails = True
    well = asyncio.Event()

    def turn() -> None:
        if fails:
            raise OSError(28, "No space left on device")

    async def rest() -> None:
        well.set()
        await asyncio.Event().wait()

    loops.keep(turn, "sick", rest=rest)
    loops.every(0.001, lambda: None, "sound")
    async with asyncio.timeout(30):
        while not loops.failing():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.001)
    [line] = loops.failing()
    assert line.startswith("sick: failed 4 times in a row over ")
    assert line.endswith("the last time with OSError")

    fails = False
    async with asyncio.timeout(30):
        await well.wait()
    assert loops.failing() == []


async def test_once_is_no_reason_for_alarm(loops: Loops) -> None:
    """Nor are several turns with good ones between them."""
    script = Script(*[ValueError(), None] * 8, ValueError())
    loops.keep(script, "now and then")
    await script.play()

    assert loops.failing() == []


async def test_a_loop_of_its_own_may_be_ended(loops: Loops) -> None:
    """The others go on."""
    script = Script()
    mine = loops.keep(script, "mine")
    loops.keep(Script(), "other")
    await script.play()
    mine.cancel()
    await asyncio.wait((mine,))

    assert mine.cancelled()
    assert loops.names == ["other"]


async def test_pauses_grow_and_have_an_end(
    loops: Loops, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """However long it lasts."""
    monkeypatch.setattr(background, "BACKOFF", (0.001, 0.004))
    script = Script(*[ValueError()] * 40, None)
    loops.keep(script, "unlucky")
    await script.play()

    pauses = [entry["seconds"] for entry in entries(log)]
    assert pauses == [0.001, 0.002, *[0.004] * 38]


async def test_tasks_that_fail_are_logged(log: pytest.LogCaptureFixture) -> None:
    """And forgotten."""

    async def broken() -> None:
        raise ValueError("once")

    tasks = Tasks()
    await asyncio.wait((tasks.start(broken(), "broken"),))
    assert "once" in log.text
    assert not tasks._tasks


async def test_tasks_are_cancelled_at_the_end() -> None:
    """And their ``finally`` has run by then."""
    tasks = Tasks()
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("x")

    tasks.start(forever(), "forever")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert ended == ["x"]
