"""What the pieces of a task must be, by the word of those who read the origin.

    1  who may say so     a seed, and a peer that was sent to the origin for want of others
    2  of what            one version of the content, cut one way; the last two of them are kept
    3  whose word counts  the first: who has read another piece by that name is told so
    4  who is told        whoever asks, see :meth:`Digests.tell`

They are kept for as long as the task has peers: what is read after that may be something else.
What they take is charged to the account of the host that spoke first, and where there is no
room left, there are none: all goes on as without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pantala.core.digests import DigestRun, DigestTable
from pantala.model.numbers import MAX_NUMBERS

from .entities import Peer, TaskKey
from .room import Room
from .shape import Shape

#: Versions of one task: while one takes the place of another, peers ask for both.
_VERSIONS: Final = 2

#: Digests in one answer: 256 KiB. More are told when they are asked for.
_MOST: Final = 65536


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one version."""

    version: str
    shape: Shape
    table: DigestTable
    #: Who is charged for it, and how much.
    account: str
    size: int


class Digests:
    """See the module.

    Args:
        room: Counts what is kept.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        #: The latest last; no task without any.
        self._tasks: dict[TaskKey, list[_Known]] = {}

    def hear(self, peer: Peer, version: str, runs: Iterable[DigestRun]) -> int:
        """*peer* has read these pieces of *version*; the bits of those that were other pieces.

        Nothing is learnt of a peer whose word does not count.

        Args:
            peer: Who.
            version: As the origin named it; without a name nothing is learnt, either.
            runs: Within the content as *peer* has it cut.
        """
        found = [run for run in runs if run.crcs]
        if not version or not found:
            return 0
        known = self._known(peer, version)
        may_say = peer.was_sent or peer.host.is_seed
        if known is None and may_say:
            known = self._begin(peer, version)
        if known is None:
            return 0
        if may_say:
            for run in found:
                known.table.put(run)
        return sum(known.table.differs(run) for run in found)

    def tell(self, peer: Peer, version: str, pieces: int) -> tuple[str, list[DigestRun]]:
        """What is known of these pieces.

        Args:
            peer: Who asks. What is cut otherwise is nothing to it.
            version: Of what it has; ``""``: nothing, and it shall have what was read last.
            pieces: A bit for each.

        Returns:
            The version, and digests of it; as many as fit into an answer.
        """
        known = self._known(peer, version) if pieces else None
        return ("", []) if known is None else (known.version, known.table.runs(pieces, _MOST))

    def forget(self, key: TaskKey) -> None:
        """The task has no peers any more."""
        for known in self._tasks.pop(key, ()):
            self._room.digests_left(known.account, known.size)

    def _known(self, peer: Peer, version: str) -> _Known | None:
        for known in reversed(self._tasks.get(peer.task.key, ())):
            if known.shape == peer.shape and version in ("", known.version):
                return known
        return None

    def _begin(self, peer: Peer, version: str) -> _Known | None:
        count = peer.shape.piece_count
        account, size = peer.host.account, DigestTable.size(count) + len(version)
        if count > MAX_NUMBERS or not self._room.admit_digests(account, size):
            return None
        known = _Known(version, peer.shape, DigestTable(count), account, size)
        versions = self._tasks.setdefault(peer.task.key, [])
        versions.append(known)
        if len(versions) > _VERSIONS:
            oldest = versions.pop(0)
            self._room.digests_left(oldest.account, oldest.size)
        return known
