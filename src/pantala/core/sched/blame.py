"""Whose fault it was, as peers tell it; nobody's word counts more often for names he made up."""

from __future__ import annotations

from typing import Final

from .entities import OriginFailure, Peer
from .rules import Limits

#: Peers that must not be given to one; many times those that a peer asks in one download.
_MAX_BLOCKED: Final = 1000


def blame_origin(peer: Peer, limits: Limits, now: float, said: str, status: int | None) -> None:
    """The origin failed *peer*, with these words, and if it answered with this status.

    No two failures that are remembered are of one host, or of one caller's making.
    """
    failures = peer.task.origin_failures
    failure = OriginFailure(now, said, peer.host.id, _suspect(peer, status))
    kept = [known for known in failures if not known.says_the_same(failure)]
    failures.clear()
    failures.extend((*kept, failure))
    if len(failures) > limits.origin_failures:
        failures.popleft()


def blame_parent(parent: Peer, child: Peer, limits: Limits) -> None:
    """*parent* failed *child*. If it did several, it is distrusted.

    Hosts behind one address are as good as one, for they are easily made up; but not to a parent
    that is behind it, too.
    """
    parent.host.upload_failed_count += 1
    accuser = child.host
    near = accuser.account == parent.host.account
    parent.accusers.add(accuser.id if near else accuser.account)
    parent.distrusted = parent.distrusted or len(parent.accusers) >= limits.accusers


def block(peer: Peer, parent_id: str) -> Peer | None:
    """Never give *peer* that parent again. Returns the parent, if there is one."""
    parent = peer.task.peers.get(parent_id)
    if parent is not None:
        peer.blocked.add(parent_id)
        peer.blocks_others = True
        if len(peer.blocked) > _MAX_BLOCKED:  # those that are gone need not be remembered
            peer.blocked &= peer.task.peers.keys()
    return parent


def _suspect(peer: Peer, status: int | None) -> str:
    """The credentials of *peer*, if they may be why the origin answered *status*.

    Many answer 404 to those who must not know. What is no answer of kind 4xx is the origin's own.
    """
    return peer.credentials if status is not None and 400 <= status < 500 else ""
