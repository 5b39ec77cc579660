"""What one host reads at its origin to learn how long it is, and who follows whom meanwhile.

Whoever waits for a reader may follow: fetch what is there already, of the reader or of others who
follow. So that the reader need not serve them all they are a tree, filled level by level:

    reader ──┬── 0 ──┬── 4      each has FANOUT children at most; whoever goes has his place
             │       └── 5 …    taken by the last, so that few hear of new parents
             ├── 1 ──── 8 …
             ├── 2
             └── 3

A follower hears of all who are above him, his parent first, so that he knows whom to turn to
when that one fails. What each step must be he has by the word of the reader (ADR 29), by way of us.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import islice
from typing import Final

from pantala.model.task import Description

from .entities import Host, TaskKey
from .questions import Asker, Wait

#: Children of one host in the tree.
FANOUT: Final = 4

#: Steps of one reading that are told: 256 GiB. What comes after is not followed.
MOST_STEPS: Final = 65536

#: Steps of all readings that are remembered, four bytes each.
_MOST_STEPS_OF_ALL: Final = 4 * 1024 * 1024


class Growth:
    """One reading.

    Args:
        reader: Who reads.
        version: What he reads, as the origin names it; else a name of this reading alone.

    Attributes:
        crcs: The CRC-32 of each step, by his word.
        end: Bytes of the content and of its pieces, once they are known.
    """

    def __init__(self, reader: Asker, version: str) -> None:
        self.reader = reader
        self.version = version
        self.crcs = array("I")
        self.end: tuple[int, int] | None = None
        self._followers: list[Asker] = []
        self._places: dict[Asker, int] = {}

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def is_read(self) -> bool:
        """Its reader's turn goes on."""
        return self.end is None and self.reader.subject.describer is self.reader

    def leaders(self, asker: Asker) -> list[Host]:
        """Whom *asker*, who follows from here on, may follow: his parent first, the reader last."""
        place = self._places.get(asker)
        if place is None:
            place = self._places[asker] = len(self._followers)
            self._followers.append(asker)
        above = []
        while place >= FANOUT:
            place = place // FANOUT - 1
            above.append(self._followers[place].host)
        return [host for host in (*above, self.reader.host) if host is not asker.host]

    def leave(self, asker: Asker) -> None:
        """*asker* follows no more; if he did, the last takes his place."""
        place = self._places.pop(asker, None)
        if place is None:
            return
        last = self._followers.pop()
        if last is not asker:
            self._followers[place] = last
            self._places[last] = place


class Growths:
    """What is read now, of each task once, and what was read by those who still wait."""

    def __init__(self) -> None:
        self._of: dict[TaskKey, Growth] = {}
        self._steps = 0

    def __len__(self) -> int:
        return len(self._of)

    @property
    def steps(self) -> int:
        """So many are remembered."""
        return self._steps

    def heard(self, reader: Asker, version: str, first: int, crcs: Iterable[int]) -> None:
        """*reader*, whose turn it is, has these steps, too.

        Args:
            reader: Who. If he cannot be called, nobody follows.
            version: Of what he reads; ``""``: nobody can follow.
            first: Number of the first of *crcs*.
            crcs: The CRC-32 of each.
        """
        if not version or not reader.host.shares:
            return
        growth = self._of.get(reader.key)
        if growth is not None and growth.reader is not reader and growth.is_read:
            return  # two read it, with other credentials: each word would end what is followed
        if growth is None or growth.reader is not reader or growth.version != version:
            self._drop(reader.key)
            growth = self._of[reader.key] = Growth(reader, version)
        if growth.end is not None or first != len(growth.crcs):
            return  # he tells all in its turn, or it is of no use
        room = min(MOST_STEPS - len(growth.crcs), _MOST_STEPS_OF_ALL - self._steps)
        growth.crcs.extend(islice(crcs, max(0, room)))
        self._steps += len(growth.crcs) - first

    def followed(self, asker: Asker) -> Growth | None:
        """What *asker*, who waits, may follow.

        Where the origin's answer is a permission, too, only those who would ask it alike do.
        """
        growth = self._of.get(asker.key)
        if growth is None or growth.end is not None or growth.reader is asker:
            return None
        alike = growth.reader.subject is asker.subject or not asker.origin
        return growth if asker.follows and alike else None

    def patience(self, asker: Asker, now: float) -> Wait | None:
        """*asker* waits for somebody who reads to compare it with what he has; None: for nobody.

        Who reads it like *asker* himself is waited for in any case.
        """
        growth = self._of.get(asker.key)
        if growth is None or asker.origin or growth.reader.subject is asker.subject:
            return None
        subject, word = growth.reader.subject, growth.reader.subject.word
        if growth.is_read and now < subject.until:
            return Wait(subject.until, subject.reading, subject.received)
        if word is not None and word.by is growth.reader and now < word.settles_at:
            return Wait(word.settles_at)
        return None

    def ended(self, reader: Asker, said: Description | None) -> None:
        """*reader*'s turn is over; if he has read all, it is what he *said*."""
        growth = self._of.get(reader.key)
        if growth is None or growth.reader is not reader or growth.end is not None:
            return
        if said is None or not said.read or not len(growth):
            self._drop(reader.key)
        else:
            growth.end = said.content_length, said.piece_length

    def name(self, asker: Asker, said: Description) -> str:
        """Of the reading that *asker* has followed, if it ended as what he is told: its version."""
        growth = self._of.get(asker.key)
        end = said.content_length, said.piece_length
        return growth.version if growth is not None and growth.end == end else ""

    def left(self, asker: Asker) -> None:
        """*asker* waits no more."""
        growth = self._of.get(asker.key)
        if growth is None:
            return
        growth.leave(asker)
        if growth.end is not None and not len(growth):
            self._drop(asker.key)

    def _drop(self, key: TaskKey) -> None:
        growth = self._of.pop(key, None)
        if growth is not None:
            self._steps -= len(growth.crcs)
