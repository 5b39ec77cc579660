"""When to look whether hosts, peers and tasks have gone without saying so (:mod:`.expire`).

A scheduler knows hundreds of thousands of peers, of which most hold something, for as long as
their hosts live. So nobody looks at all of them to find the few that have gone: here is who is to
be looked at, and when. A peer that holds something is not among them; one that is of no use to
anybody any more is, at once.
"""

from __future__ import annotations

from pantala.core.deadlines import Deadlines

from .entities import AT_WORK, Host, Peer, Task
from .rules import Limits
from .states import PeerState

_USELESS = frozenset({PeerState.FAILED, PeerState.LEAVE})


class Ages:
    """Told by the world of what begins, moves and ends; not of each sign of life.

    Args:
        limits: After how long what has gone.

    Attributes:
        hosts, peers, tasks: When to look.
        useless: Peers that have gone already, the first one first.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.hosts: Deadlines[Host] = Deadlines()
        self.peers: Deadlines[Peer] = Deadlines()
        self.tasks: Deadlines[Task] = Deadlines()
        self.useless: dict[Peer, None] = {}

    def host(self, host: Host) -> None:
        """*host* has announced itself, or was found to be there still."""
        self.hosts.look_at(host, host.updated_at + self.silence(host))

    def silence(self, host: Host) -> float:
        """Seconds after which a silent host has gone."""
        return 2 * self._limits.interval(host.facts.interval) or self._limits.host_ttl

    def peer(self, peer: Peer) -> None:
        """*peer* has moved, or counts among its task's holders, or no more; or is there still."""
        state = peer.state
        self.useless.pop(peer, None)
        if state in AT_WORK:
            self.peers.look_at(peer, peer.piece_at + self._limits.piece_timeout)
        elif state in _USELESS or state is PeerState.SUCCEEDED:
            self.peers.forget(peer)
            if state in _USELESS or peer not in peer.task.holders:
                self.useless[peer] = None
        else:
            self.peers.look_at(peer, peer.updated_at + self._limits.peer_ttl)

    def task(self, task: Task) -> None:
        """*task* may have no peers, or nobody who is asked for it, any more; or is there still."""
        if not task.peers:
            self.tasks.look_at(task, task.updated_at + self._limits.task_ttl)

    def peer_left(self, peer: Peer) -> None:
        """*peer* is known no more."""
        self.useless.pop(peer, None)
        self.peers.forget(peer)
