"""Data centres: who of one fetches from beyond it, and who from its own alone.

The lines between data centres are thin, and within one there is plenty. So of each a few peers, its
*ways out*, are given parents beyond it. All others get parents and partners of their own data
centre, to which pieces spread from there. The ways out of one are each other's partners, and fetch
nothing from beyond that one of them has, or is fetching (:mod:`pantala.core.transfer`); so each
piece comes in about once.

    way out   has everything, or is at the origin, or has a parent beyond its data centre

Nobody waits for ways out that are too few, or of no use. A peer becomes one that comes when its
data centre has not enough of them, counted by what their links can carry; that finds no parent in
it; or that asks again because nothing comes. And when one is lost, the scheduler makes another of
those who are left, without being asked.

A host that names no data centre is in none: it gets parents and partners as they come, and to all
others it is beyond. So do stock daemons, for which Dragonfly's score counts alone.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from .pool import Pool
from .states import PeerState

if TYPE_CHECKING:
    from .entities import Peer, Task

#: Ways out that a data centre is to have: so many bring all pieces if one is lost, or slow.
ENOUGH: Final = 3
#: One that has everything is alone enough. Not so who reads the origin: to have its link give each
#: piece once, pieces that it gave to other data centres come back from there.
_HAS_ALL: Final = 3
#: What may be missing: of three, one has half the link.
_SLACK: Final = 0.5
#: So many ways out are looked at: where there are more, nearly all of them have everything.
_LOOK: Final = 16

#: Seconds without a piece after which a peer that asks again may go out...
_IN_VAIN: Final = 2.5
#: ...unless another one of its data centre did so since then: all notice at the same time.
_ONE_IN: Final = 10.0


def settle(peer: Peer, *, holds: bool) -> None:
    """Count *peer* after a change of its state, its parents or its host, and only if it counts.

    Args:
        peer: Who.
        holds: It is among its task's holders.
    """
    task, centre = peer.task, peer.host.centre
    if not centre and task.inside is None and task.ways is None:
        return
    task.inside = _put(task.inside, peer, centre if holds else "")
    task.ways = _put(task.ways, peer, centre if _leads_out(peer, centre, holds=holds) else "")


def _leads_out(peer: Peer, centre: str, *, holds: bool) -> bool:
    if peer.distrusted or not peer.host.shares:
        return False
    if not peer.parents:
        return holds
    return any(each.parent.host.centre != centre for each in peer.parents.values())


def _put(pool: Pool[Peer] | None, peer: Peer, centre: str) -> Pool[Peer] | None:
    """*pool* with *peer* in the group *centre*, or without it if that is none."""
    if centre:
        pool = Pool() if pool is None else pool
        pool.add(peer, centre)
    elif pool is not None:
        pool.discard(peer)
    return pool or None


def is_way_out(peer: Peer) -> bool:
    """Whether *peer* is one of the ways out of its data centre."""
    return peer.task.ways is not None and peer in peer.task.ways


def ways_out(task: Task, centre: str) -> list[Peer]:
    """Some ways out of *centre*; where there are few, all of them."""
    return list(islice(task.ways.members(centre), _LOOK)) if task.ways is not None else []


def are_enough(peer: Peer, centre: str) -> bool:
    """Whether the others that lead out of *centre* can bring what *peer* could take.

    Those count of whom all that it wants can come, and who are not stuck.
    """
    if peer.task.ways is None:
        return False
    mine, shape, sum_of_shares = peer.host.facts.max_tx_bandwidth, peer.shape, _SLACK
    for way in islice(peer.task.ways.members(centre), _LOOK):
        host = way.host
        if (
            (way.shape is not shape and way.shape != shape)
            or host is peer.host
            or (peer.blocks_others and peer.has_blocked(way))
            or (way.range is not None and not way.covers(peer))
            or way.lags
        ):
            continue
        share = 1.0
        if mine and host.facts.max_tx_bandwidth:
            share = min(share, host.facts.max_tx_bandwidth / mine)
        sum_of_shares += share if way.parents else _share_of_source(way, share)
        if sum_of_shares >= ENOUGH:
            return True
    return False


def _share_of_source(way: Peer, share: float) -> float:
    return _HAS_ALL * share if way.state is PeerState.SUCCEEDED else share


def _is_all(task: Task, centre: str) -> bool:
    """Whether nobody beyond *centre* has anything, nor will soon."""
    near = len(task.inside.members(centre)) if task.inside is not None else 0
    beyond = task.ways is not None and task.ways.has_others(centre)
    return near == len(task.holders) and not beyond


class Area(NamedTuple):
    """Where the parents of a peer are to be.

    Attributes:
        centre: Its data centre.
        near: In it; else beyond it.
    """

    centre: str
    near: bool

    def has(self, peer: Peer) -> bool:
        """Whether *peer* is there."""
        return (peer.host.centre == self.centre) == self.near


def ways_in(task: Task, area: Area) -> list[Peer]:
    """Some ways out of data centres, those that are in *area*."""
    if area.near or task.ways is None:
        return ways_out(task, area.centre)
    return [way for way in islice(task.ways, _LOOK) if area.has(way)]


def area_for(peer: Peer, now: float, *, asks_again: bool) -> Area | None:
    """Where *peer*, which has no parents just now, is to have some; None: anywhere.

    Args:
        peer: Who.
        now: When.
        asks_again: It had parents, and wants others.
    """
    centre = peer.host.centre
    if not centre or not peer.host.is_ours:
        return None
    if not are_enough(peer, centre):
        return Area(centre, near=_is_all(peer.task, centre))
    if not asks_again or now - peer.piece_at < _IN_VAIN:
        return Area(centre, near=True)
    recent = any(now - way.out_at < _ONE_IN for way in ways_out(peer.task, centre))
    return Area(centre, near=recent)


def note_way_out(peer: Peer, now: float) -> None:
    """*peer* has been given parents."""
    if peer.parents and is_way_out(peer):
        peer.out_at = now


def heir(task: Task, centre: str) -> Peer | None:
    """Who is to become a way out of *centre*, which has lost one; None: nobody can, or has to.

    It is one that has been there for long, and so has most.
    """
    if not centre or task.sociable is None:
        return None
    for peer in islice(task.sociable.members(centre), _LOOK):
        if peer.state is PeerState.RUNNING and not is_way_out(peer):
            return None if are_enough(peer, centre) else peer
    return None
