"""State machines written as tables.

    table[state][event] is the state that follows

What is not in the table cannot happen: it is refused, and nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Generic, TypeVar

from pantala.errors import InvalidTransition

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

Table = Mapping[S, Mapping[E, S]]

# Enough to see how a machine came into the state that refuses an event: six moves.
_STORY: Final = 13


class Machine(Generic[S, E]):
    """A state that only :meth:`fire` moves.

    Args:
        who: What this is the state of, for errors: ``"peer 10.0.0.1-a-4f2a"``.
        table: Every move there is.
        state: The first state.
    """

    __slots__ = ("_state", "_story", "_table", "_who")

    def __init__(self, who: str, table: Table[S, E], state: S) -> None:
        self._who = who
        self._table = table
        self._state = state
        # A tuple is an eighth of a deque, and there is a machine for each peer and task.
        self._story: tuple[S | E, ...] = (state,)

    def __repr__(self) -> str:
        return f"<{self._who}: {self._state.value}>"

    @property
    def state(self) -> S:
        """The state that the latest move has led to."""
        return self._state

    @property
    def story(self) -> tuple[str, ...]:
        """The latest moves, oldest first: ``("Pending", "-Download->", "Running")``."""
        return tuple(
            step.value if isinstance(step, type(self._state)) else f"-{step}->"
            for step in self._story
        )

    def fire(self, event: E) -> S:
        """Move as the table says, and return the new state.

        Raises:
            InvalidTransition: The table has no such move. Nothing has changed.
        """
        try:
            new = self._table[self._state][event]
        except KeyError:
            raise InvalidTransition(self._who, self._state.value, event.value, self.story) from None
        self._state = new
        self._story = (*self._story, event, new)[-_STORY:]
        return new
