"""Peers that fetch the same at the same time and exchange pieces, each from the other.

Parents make a tree: that there is one who is nearer to the source keeps everybody from waiting for
nobody. Partners come on top of that, and among them circles are free. They need nobody's leave, for
nobody waits for them, and cost no host a place: what two exchange, neither fetches from a parent.

A parent that is under way itself may be its child's partner, too, and fetches from it what it has
from others. Of two who are alone with a seed, the second is the first one's only partner.

Only daemons of ours know what to do with them. A peer is given some together with its parents, and
those hear of it in turn. So the relation has always two sides, and whoever leaves it, leaves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from pantala.core.sample import Chance

from .centres import ENOUGH, is_way_out, ways_out
from .entities import Host, Peer
from .pool import Pool
from .rules import Limits
from .states import PeerState

#: In these states a peer keeps what partners it has. One that has everything is the best of them.
_MAY_KEEP: Final = frozenset(
    {
        PeerState.RECEIVED_NORMAL,
        PeerState.RUNNING,
        PeerState.BACK_TO_SOURCE,
        PeerState.SUCCEEDED,
    }
)

#: Members looked at for each that is wanted: some are of another version, or want another part.
_TRIES: Final = 4

#: Of four partners of a way out so many are of its own data centre.
_NEAR_OF_FOUR: Final = 3


class Partners:
    """Keeps what is said of partners in :mod:`.entities` true.

    Args:
        limits: How many.
        on_news: Called with a peer that has got one, of which it has not heard.
    """

    def __init__(self, limits: Limits, on_news: Callable[[Peer], None]) -> None:
        self._most = limits.most_partners
        self._on_news = on_news

    def adopt(self, limits: Limits, peers: Iterable[Peer]) -> None:
        """Other limits from now on. Who of *peers*, of all, has more keeps them, and gets no other.

        Whether there are partners at all does not change.
        """
        if limits.most_partners != self._most:
            self._most = limits.most_partners
            for peer in peers:
                self.settle(peer)

    def settle(self, peer: Peer) -> None:
        """After a change of *peer* or its host: may it have partners, and be given as one?"""
        keeps = _may_keep(peer)
        if not keeps:
            for other in list(peer.partners):
                self.part(peer, other)
        if keeps and len(peer.partners) < self._most and _is_under_way(peer):
            if peer.task.sociable is None:
                peer.task.sociable = Pool()
            peer.task.sociable.add(peer, peer.host.centre)
        else:
            _withdraw(peer)

    def introduce(self, peer: Peer, others: list[Peer]) -> tuple[Peer, ...]:
        """*peer* gets *others* as partners, too, and they it, who hear of it later.

        Returns:
            All that it has beside its parents, of which it is to be told now.
        """
        own, most, tell = peer.partners, self._most, self._on_news
        for other in others:
            own[other] = None
            its = other.partners
            its[peer] = None
            other.unheard += 1
            if len(its) >= most:
                _withdraw(other)
            tell(other)
        if len(peer.partners) >= self._most:
            _withdraw(peer)
        peer.unheard = 0
        return _beside_parents(peer, peer.partners)

    def take_news(self, peer: Peer) -> tuple[Peer, ...]:
        """The partners of which *peer* has not been told, nor as parents: it is told now."""
        count, peer.unheard = peer.unheard, 0
        if not count:
            return ()
        return _beside_parents(peer, [*islice(reversed(peer.partners), count)][::-1])

    def part(self, one: Peer, other: Peer) -> None:
        """They are partners no more, if they were."""
        if other in one.partners:
            _drop(one, other)
            _drop(other, one)
            self.settle(one)
            self.settle(other)


def _may_keep(peer: Peer) -> bool:
    """Whether *peer* may have partners."""
    host = peer.host
    return host.is_ours and host.shares and not peer.distrusted and peer.state in _MAY_KEEP


def find_partners(limits: Limits, peer: Peer, chance: Chance) -> list[Peer]:
    """Those to be given to *peer* in addition to the partners that it has.

    They are drawn at random among those that have room, and of its own data centre. A way out of it
    (:mod:`.centres`) gets the other ones first, and of four three of its own and one of those of
    other data centres.
    """
    pool = peer.task.sociable
    if pool is None or peer not in pool:
        return []
    taken = {peer.host}
    if peer.partners:
        taken.update(partner.host for partner in peer.partners)
    found: list[Peer] = []
    group = pool.group_of(peer)
    is_way = is_way_out(peer)
    if is_way:
        ways = (way for way in ways_out(peer.task, group) if _has_room_for_way(way, limits))
        _take(ways, ENOUGH, peer, taken, found)
    wanted = max(0, limits.partners - len(peer.partners))
    near = -(-wanted * _NEAR_OF_FOUR // 4) if is_way else wanted
    if group:
        _take(pool.near(group, chance, _TRIES * near), near, peer, taken, found)
    if is_way or not group:
        # Where there is nobody near yet, there will be: they are to find room.
        far = max(wanted - near, wanted // 2 - len(found)) if group else wanted
        _take(_beyond(pool, peer, chance, _TRIES * far), len(found) + far, peer, taken, found)
    return found


def _beyond(pool: Pool[Peer], peer: Peer, chance: Chance, most: int) -> Iterator[Peer]:
    """Those beyond the data centre of *peer* who lead out of theirs, or are in none."""
    group, ways = pool.group_of(peer), peer.task.ways
    for other in pool.anywhere(chance, most):
        if not pool.group_of(other) or (is_way_out(other) and pool.group_of(other) != group):
            yield other
    if ways is not None:
        for way in ways.anywhere(chance, most):
            if way in pool and pool.group_of(way) != group:
                yield way


def _has_room_for_way(way: Peer, limits: Limits) -> bool:
    """Whether *way* may get another way out of its data centre as a partner: that one must."""
    return (
        _may_keep(way) and _is_under_way(way) and len(way.partners) < limits.most_partners + ENOUGH
    )


def _take(
    drawn: Iterator[Peer], most: int, peer: Peer, taken: set[Host], found: list[Peer]
) -> None:
    """Add those *drawn* that fit to those *found*, one of a host, until there are *most*."""
    shape, version, range_ = peer.shape, peer.version, peer.range
    blocks = peer.blocks_others
    for other in drawn:
        if len(found) >= most:
            return
        if (
            other.host not in taken
            and not (blocks and peer.has_blocked(other))
            and not (other.blocks_others and other.has_blocked(peer))
            and (other.shape is shape or other.shape == shape)
            and (other.version is version or peer.may_join(other))
            and (range_ is None or other.overlaps(peer))
        ):
            taken.add(other.host)
            found.append(other)


def _withdraw(peer: Peer) -> None:
    """*peer* is given to nobody else."""
    pool = peer.task.sociable
    if pool is not None:
        pool.discard(peer)
        if not pool:
            peer.task.sociable = None


def _drop(peer: Peer, partner: Peer) -> None:
    """*partner* is none of *peer* any more."""
    if peer.unheard and partner in islice(reversed(peer.partners), peer.unheard):
        peer.unheard -= 1
    del peer.partners[partner]


def _beside_parents(peer: Peer, partners: Iterable[Peer]) -> tuple[Peer, ...]:
    parents = peer.parents
    return tuple([each for each in partners if each.id not in parents])


def _is_under_way(peer: Peer) -> bool:
    """Whether it was told its parents, and is not over."""
    if peer.state is PeerState.RECEIVED_NORMAL:
        return bool(peer.parents)
    return peer.state is PeerState.RUNNING
