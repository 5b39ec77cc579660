"""Which pieces need not come over a thin line, as somebody on this side of it has or gets them.

Parents are *far* if they are in another data centre. A few peers of each have such parents
(:mod:`pantala.core.sched.centres`). They exchange with each other, and as each hears what the
others lack, it knows what these have and fetch. That is *spared*: far parents are told that it is
wanted later, what they offer of it does not count, and those on this side are waited for.

It counts of whom we follow ourselves, so that it will be offered, and of whom something is heard.
And only while pieces come: nobody waits long for one who waits for him.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pantala.model.numbers import runs_of

from .events import GONE
from .supply import Supply

#: Seconds without a fetch and without an offer after which nothing is spared. Before the scheduler
#: is asked for others (:data:`.machine.PATIENCE`).
SPARE_FOR: Final = 2.0

#: Seconds for which nothing is spared once those on this side have left room for more for so long.
SPARE_AGAIN: Final = 5.0


@dataclass(slots=True)
class Sparing(Supply):
    """A supply that knows what those on this side get."""

    #: By the name of each that follows us, the pieces that it has or fetches, as far as it said so.
    gets: dict[str, int] = field(init=False, default_factory=dict)

    @property
    def spared(self) -> int:
        """Pieces that are wanted, not being fetched, and come from this side."""
        return self.covered & self.lacking

    def _note(self, child: str, lacks: int, has: int) -> None:
        if lacks == GONE and child in self.parents:
            return  # it needs nothing more of us, and we of it
        gets = (self.gets.get(child, 0) | has) & ~lacks
        if gets:
            self.gets[child] = gets
        else:
            self.gets.pop(child, None)

    def _spare(self, *, comes: bool) -> bool:
        """Work out what is spared now; whether that changes anything.

        Args:
            comes: Pieces come, or came a moment ago.
        """
        covered = 0
        if self.has_far and comes:
            for name, gets in self.gets.items():
                parent = self.parents.get(name)
                if parent is not None and parent.open and not parent.far and name not in self.quiet:
                    covered |= gets
        changed = (covered ^ self.covered) & self.lacking
        self.covered = covered
        runs = runs_of(changed)
        self._queue(*(n for first, count in runs for n in range(first, first + count)))
        return bool(changed)
