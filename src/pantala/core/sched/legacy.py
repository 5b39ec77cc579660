"""How good a parent is for a child: Dragonfly's formula until its version 2.3.3.

    score = 0.2 piece + 0.2 upload success + 0.15 free upload + 0.15 host type + 0.15 idc
          + 0.15 location                                  0 to 1, more is better

It asks what a parent has, and how often its host has failed others; not what its link can take. The
outer weights are the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Iterable

from .entities import Host, Peer
from .evaluate import host_type, nearness
from .states import PeerState


def legacy_scores(parents: Iterable[Peer], child: Peer) -> list[float]:
    """The score of each of *parents* for *child*."""
    return [evaluate_legacy(parent, child) for parent in parents]


def evaluate_legacy(parent: Peer, child: Peer) -> float:
    """The score of *parent* for *child*.

    Of a task of which nobody knows how many pieces it has, it has no bounds: there the pieces of
    both are counted.
    """
    host, other = parent.host, child.host
    score = 0.2 * _piece(parent, child) + 0.2 * _upload_success(host)
    score += 0.15 * _free_upload(host) + 0.15 * host_type(parent)
    if other.centre and host.centre == other.centre:
        score += 0.15
    location = other.facts.location
    if location and host.facts.location:
        score += 0.15 * nearness(host.facts.location, location)
    return score


def _piece(parent: Peer, child: Peer) -> float:
    total = parent.task.piece_count
    if not total:
        return float(parent.pieces - child.pieces)
    # Who has all has not told of each piece: perhaps it had them before.
    whole = parent.state is PeerState.SUCCEEDED and parent.range is None
    return 1.0 if whole else min(1.0, parent.pieces / total)


def _upload_success(host: Host) -> float:
    uploads, failed = host.upload_count, host.upload_failed_count
    if uploads < failed:
        return 0.0
    return 1.0 if uploads == 0 else (uploads - failed) / uploads


def _free_upload(host: Host) -> float:
    free = host.upload_limit - host.uploads
    return free / host.upload_limit if host.upload_limit > 0 and free > 0 else 0.0
