"""How good a parent is for a child: Dragonfly's formula, since its version 2.3.4.

    score = 0.6 load + 0.2 idc + 0.1 location + 0.1 host type          0 to 1, more is better
    load  = 0.5 peak + 0.3 duration + 0.2 concurrency

The outer weights are the kind's (:class:`.rules.ScoreWeights`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .entities import Host, Peer
from .states import PeerState

#: Bits in a piece of 16 MiB, in which the concurrency of a link is measured.
_PIECE_BITS: Final = 16 * 1024 * 1024 * 8
#: Seconds of sending beyond which a host counts as fully taken.
_FULL_DURATION: Final = 60
_MAX_ELEMENTS: Final = 5


def scores(parents: Iterable[Peer], child: Peer) -> list[float]:
    """The score of each of *parents* for *child*; one after the other costs twice the time."""
    weights = child.task.rules.weights
    load, idc, kind = weights.load, weights.idc, weights.host_type
    centre, location = child.host.centre, child.host.facts.location
    found: list[float] = []
    for parent in parents:
        host = parent.host
        quality = host.quality
        if quality is None:
            quality = host.quality = load_quality(host)
        score = load * quality
        if centre and host.centre is centre:
            score += idc
        if location and host.facts.location:
            score += weights.location * nearness(host.facts.location, location)
        found.append(score + kind * (host_type(parent) if host.is_seed else 0.5))
    return found


def load_quality(host: Host) -> float:
    """How much of a host's link is left, 0 to 1; 0 if its speed is unknown."""
    link = host.facts.max_tx_bandwidth
    if link == 0:
        return 0.0
    peak = 1 - host.tx_bandwidth / link
    duration = 1 - host.upload_content_length * 8 / link / _FULL_DURATION
    quality = 0.2 * _concurrency(link, host.concurrent_pieces)
    if peak > 0:
        quality += 0.5 * peak
    if duration > 0:
        quality += 0.3 * duration
    return quality


def _concurrency(link: int, pieces: int) -> float:
    fill = link / _PIECE_BITS  # so many pieces a second fill the link
    if fill <= 1:
        return 0.0
    return 1.0 if pieces <= fill else fill / pieces


def nearness(mine: str, theirs: str) -> float:
    """How much two locations have in common, from the largest element on: 0 to 1."""
    if mine.lower() == theirs.lower():
        return 1.0
    same = 0
    for one, other in zip(mine.lower().split("|"), theirs.lower().split("|"), strict=False):
        if one != other or same == _MAX_ELEMENTS:
            break
        same += 1
    return same / _MAX_ELEMENTS


def host_type(parent: Peer) -> float:
    """Seeds while they fetch the first copy; later they are left to those who have no other."""
    if not parent.host.is_seed:
        return 0.5
    return 1.0 if parent.state in (PeerState.RECEIVED_NORMAL, PeerState.RUNNING) else 0.0
