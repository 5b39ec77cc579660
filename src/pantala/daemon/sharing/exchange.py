"""Children that exchange: which of them may have which piece next.

This is the shell of :mod:`pantala.core.giving`. Whatever may change who is offered what ends in
:meth:`Exchange.turn`: a piece that has come, a child that joins, leaves, or tells something, a
piece that was sent, and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pantala.background import Tasks
from pantala.core.giving import LEAST_PLACES, LOOK, MOST_PLACES, Giving, Grant, pause
from pantala.core.transfer import GONE
from pantala.core.window import Window
from pantala.errors import DragonflyError
from pantala.model.exchange import Wish
from pantala.model.numbers import bits_of_numbers
from pantala.storage.holding import Holding


class Child:
    """One child, from its first word to the end of its stream.

    Args:
        task: What it wants pieces of.
        name: By which the task knows it.
        peer: By which schedulers know it, as it says.
        address: From which it calls.

    Attributes:
        asked_at: When it came, or last asked for a piece that it was granted.
    """

    def __init__(self, task: _Task, name: str, peer: str, address: str) -> None:
        self._task = task
        self._name = name
        self.peer = peer
        self.address = address
        self.asked_at = Exchange.now()
        self._offers = 0
        self._news = asyncio.Event()
        self._said_at = 0.0
        self._over = False
        self._error: DragonflyError | None = None

    def offer(self, number: int) -> None:
        """It may ask for this piece."""
        self._offers |= 1 << number
        self._news.set()

    def end(self, error: DragonflyError | None = None) -> None:
        """It will be offered nothing more; it has said what is an *error*."""
        self._over, self._error = True, error or self._error
        self._news.set()

    def hear(self, wish: Wish) -> None:
        """It tells what it wants, perhaps again, what no more or not now, and how much at once."""
        self._task.hear(self._name, wish)

    async def offers(self, limit: float) -> int | None:
        """The pieces that it may ask for since the last call; None: there will be no more.

        Args:
            limit: Seconds after which there are none to offer.

        Raises:
            DragonflyError: What it was ended with.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._news.wait()
        if self._offers and not self._over:
            left = self._task.giving.ahead_of(self._name) - self._offers.bit_count()
            # Others come by then.
            await asyncio.sleep(pause(Exchange.now(), self._said_at, left))
            self._said_at = Exchange.now()
        if self._error is not None:
            raise self._error
        offers, self._offers = self._offers, 0
        if not self._over:
            self._news.clear()
        return None if self._over and not offers else offers


class _Task:
    """One task that children follow here."""

    def __init__(self, exchange: Exchange, holding: Holding) -> None:
        self.holding = holding
        self.giving = Giving(exchange.slots, exchange.rng, holding.record.piece_length or 1)
        self.children: dict[str, Child] = {}
        #: All pieces that there can be. What children say of others is not kept.
        self._all = (1 << (holding.record.piece_count or 0)) - 1
        #: What is on its way, as it was last counted.
        self._counted: frozenset[int] = frozenset()
        self._bits = 0
        self._exchange = exchange
        self._following: asyncio.Task[None] | None = None

    def join(self, name: str, child: Child, wish: Wish) -> None:
        """A child has come."""
        self.children[name] = child
        self.giving.join(name, wish.lacks & self._all, 1 if wish.room is None else wish.room)
        self.giving.spares(name, wish.later & self._all, self._exchange.now())
        self._tell(child, 0, wish.has & self._all)
        if self._following is None:
            work = self.follow()
            self._following = self._exchange.tasks.start(work, f"children of {self.holding.id}")
            self._look_again()
        else:
            self._end_if_through(name)

    def leave(self, name: str) -> None:
        """A child has gone."""
        self._tell(self.children.pop(name), GONE, 0)
        self.giving.leave(name, self._exchange.now())
        if not self.children and self._following is not None:
            self._following.cancel()
            self._following = None

    def hear(self, name: str, wish: Wish) -> None:
        """A child tells something."""
        if name not in self.children:  # its stream has just ended
            return
        has, lacks, now = wish.has & self._all, wish.lacks & self._all, self._exchange.now()
        self.giving.has(name, has, now)
        self.giving.lacks(name, lacks)
        self.giving.spares(name, wish.later & self._all, now)
        self._tell(self.children[name], lacks, has)
        if wish.room is not None:
            self.giving.has_room(name, wish.room)
        if not self.holding.coming:  # else it may need what comes, after all
            self._end_if_through(name)
        self._exchange.turn()

    def _tell(self, child: Child, lacks: int, has: int) -> None:
        """Whoever brings the task hears what a child has, of whom it may get it."""
        if child.peer and (lacks or has) and self.holding.on_told is not None:
            self.holding.on_told(child.peer, child.address, lacks, has)

    def note_asked(self, grant: Grant | None) -> None:
        """A child asks for what it was granted; None: the only one that there is asks."""
        name = next(iter(self.children)) if grant is None else grant.child
        if name in self.children:  # it may have left
            self.children[name].asked_at = self._exchange.now()

    def grant(self, now: float) -> None:
        """Offer what is to be offered now."""
        self.giving.at_source = self.holding.state.at_source and not self.holding.complete
        for name, number in self.giving.grant(now):
            self.children[name].offer(number)

    async def follow(self) -> None:
        """Take note of what comes and goes here, as long as there are children."""
        with self.holding.watch() as news:
            self._look_again()
            self._exchange.turn()
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        self._note(await news.get())
                if news.empty():
                    self._exchange.turn()

    def _note(self, number: int | None) -> None:
        """A piece has come, or something else has changed."""
        if number is None or number not in self.holding.pieces:
            self._look_again()
        else:
            self.giving.here |= 1 << number

    def _look_again(self) -> None:
        self.giving.here = bits_of_numbers(self.holding.pieces)
        for name in self.children:
            self._end_if_through(name)

    def _coming(self) -> int:
        """The pieces that are on their way. There may be many, so they are counted once."""
        numbers = self.holding.coming
        if numbers is not self._counted:
            self._counted, self._bits = numbers, bits_of_numbers(numbers)
        return self._bits

    def _end_if_through(self, name: str) -> None:
        """A child goes of which nothing is to be expected any more, nor of us."""
        if self.holding.gone or self.giving.is_through_with(name, self._coming()):
            self.children[name].end()

    def sent(self, grant: Grant, *, arrived: bool) -> None:
        """What was asked for was sent, or was not."""
        self.giving.sent(grant, self._exchange.now(), arrived=arrived)
        # A child that did not get it will say that it lacks the piece.
        if arrived and grant.child in self.children and not self.holding.coming:
            self._end_if_through(grant.child)


class Sending(NamedTuple):
    """A piece that a child has asked for, which was granted to it."""

    task: _Task
    grant: Grant


class Exchange:
    """All tasks that children follow here.

    Args:
        tasks: Owns what goes on beside.
        rng: For choosing among equals.
    """

    def __init__(self, tasks: Tasks, rng: random.Random) -> None:
        self.tasks = tasks
        self.rng = rng
        self.slots = Window(MOST_PLACES, LEAST_PLACES)
        #: Those that have children, the next to give something first.
        self._by_holding: OrderedDict[Holding, _Task] = OrderedDict()
        self._count = 0

    @staticmethod
    def now() -> float:
        """Seconds, as all of this counts them."""
        return asyncio.get_running_loop().time()

    @contextmanager
    def join(self, holding: Holding, peer: str, address: str, wish: Wish) -> Iterator[Child]:
        """A child follows what is held, inside the ``with``.

        Args:
            holding: What.
            peer: By which name schedulers know it; ``""`` if it says none.
            address: From which it calls.
            wish: What it wants, to begin with.
        """
        task = self._by_holding.get(holding)
        if task is None:
            task = self._by_holding[holding] = _Task(self, holding)
        self._count += 1
        name = str(self._count)
        child = Child(task, name, peer, address)
        task.join(name, child, wish)
        self.turn()
        try:
            yield child
        finally:
            task.leave(name)
            if not task.children:
                del self._by_holding[holding]
            self.turn()

    def asked(self, holding: Holding, number: int) -> Sending | None:
        """Somebody asks for a piece; None: it was not granted."""
        task = self._by_holding.get(holding)
        if task is None:
            return None
        grant = task.giving.asked(number)
        if grant is not None or len(task.children) == 1:
            task.note_asked(grant)
        if grant is None:
            self.turn()  # it has fewer before it now
            return None
        return Sending(task, grant)

    def sent(self, what: Sending | None, *, arrived: bool) -> None:
        """What was asked for was sent, or was not."""
        if what is not None:
            what.task.sent(what.grant, arrived=arrived)
            self.turn()

    def turn(self) -> None:
        """Give away what may be given now."""
        now = self.now()
        for task in self._by_holding.values():
            task.grant(now)
        if self._by_holding:
            self._by_holding.move_to_end(next(iter(self._by_holding)))
