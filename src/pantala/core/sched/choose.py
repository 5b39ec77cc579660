"""What to tell a peer that wants a task: parents, the origin, or to wait for somebody.

    1  it insists on the origin                  → ToSource
    2  parents that fit                          → Parents
    3  somebody is on the way to become one      → Wait, for as long as that one may take
    4  a seed can fetch it                       → AskSeed, then 3
    5  it may ask the origin                     → ToSource: now others wait for *it*
    6  nobody, and it may not                    → Wait a little, then NoProvider

So of any number of peers that come at once for a task that nobody has, one goes to the origin.
When that one fails, the first of the others to look again is sent in its place; but after a few
such failures the origin is left alone for a while.

Of a data centre a few go out for all; the others wait for these, and have parents in it
(:mod:`.centres`).

Parents never make a circle, so there is always one who is nearer to the source. With them a peer of
ours gets partners, who fetch the same at the same time, in circles as they like: nobody waits for
these (:mod:`.partners`). They are no step: whoever has partners alone has no way to the source.

Priorities are Dragonfly's: 0, 4, 5, 6 all steps; 3 without 4; 2 only 2 and 3; 1 is forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pantala.core.sample import Chance, SampleSet
from pantala.errors import NoProvider, OnlyPeers, OriginClosed, OriginError
from pantala.model.task import PRIORITY_FORBIDDEN, PRIORITY_ONLY_PEERS, DownloadRequest

from .centres import Area, area_for, note_way_out, ways_in
from .entities import AT_WORK, OVER, Host, Peer, Task, Trigger
from .partners import find_partners
from .rules import FORBIDDEN, ONLY_PEERS, Limits
from .scores import SCORES
from .states import MAY_HAVE_PARENTS, PeerState
from .world import World

_NO_SEED: Final = 3

#: Where so many have everything, or are at the origin, their children need not be parents, too.
_FEW_SOURCES: Final = 200
#: Of each of these sources so many children are looked at, those that came last: they have the
#: fewest children of their own, and places for ten thousand.
_YOUNG_CHILDREN: Final = 50

#: So many holders are drawn to find some that are beyond a data centre.
_FAR_DRAWS: Final = 300

#: So many of those at the origin are looked at.
_SOURCES: Final = 2

#: Seconds after which a peer looks again whether a busy parent has become free.
_LOOK_AGAIN: Final = 0.5


@dataclass(frozen=True, slots=True)
class Parents:
    """Fetch from these, best first. They are linked.

    Attributes:
        parents: Each is nearer to the source.
        partners: To exchange pieces with: all that it has, but for those that are its parents.
    """

    parents: tuple[Peer, ...]
    partners: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class ToSource:
    """The peer is to fetch from the origin.

    Attributes:
        why: In words, for the peer's daemon.
    """

    why: str


@dataclass(frozen=True, slots=True)
class AskSeed:
    """Ask one of these hosts to fetch the task, the first that will; then decide again."""

    seeds: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Decide again when the task changes, and at this time in any case."""

    until: float


Decision = Parents | ToSource | AskSeed | Wait

#: See :meth:`.Peer.hosts_below`.
_Below = set[Host] | None


def check_priority(request: DownloadRequest, task_id: str) -> None:
    """Refuse one whose priority forbids downloading, whatever others hold.

    Raises:
        OriginClosed: It does.
    """
    if request.priority == PRIORITY_FORBIDDEN:
        raise OriginClosed(f"task {task_id}: {FORBIDDEN}")


def decide(world: World, peer: Peer, now: float, chance: Chance) -> Decision:
    """What to tell *peer*, which is not over. What is decided is recorded in the world.

    Raises:
        NoProvider: Step 6.
        OriginError: The origin has failed too many others.
        OnlyPeers: Its priority allows nobody else, and there are none.
    """
    asks_again = peer.state is PeerState.RUNNING
    if peer.parents:
        world.link([], peer)
    if peer.registration.request.need_back_to_source or peer.state not in MAY_HAVE_PARENTS:
        return _to_source(world, peer, now, "the peer asked for it")
    below = peer.hosts_below(world.limits.below)
    area = area_for(peer, now, asks_again=asks_again)
    parents, until = find_candidates(world.limits, peer, below, chance, area), None
    if not parents and area is not None:
        until = _way_is_coming(peer, area, below, now)
        if until is None:
            parents = find_candidates(world.limits, peer, below, chance)
    if parents:
        return _give(world, peer, parents, now, chance)
    if until is None:
        until = _somebody_coming(world, peer, below, now)
    if until is not None:
        peer.waiting_since = None
        return Wait(until)
    return _alone(world, peer, below, now)


def _give(world: World, peer: Peer, parents: list[Peer], now: float, chance: Chance) -> Parents:
    world.link(parents, peer)
    note_way_out(peer, now)
    partners = world.partners.introduce(peer, find_partners(world.limits, peer, chance))
    world.expect(peer, now + world.limits.start)
    peer.waiting_since = None
    return Parents(tuple(parents), partners)


def find_candidates(
    limits: Limits, peer: Peer, below: _Below, chance: Chance, area: Area | None = None
) -> list[Peer]:
    """The best parents for *peer* of a random sample of those that fit, best first.

    Parents that will have all that it wants come before those that have a part, and those that
    are stuck come last.

    Args:
        limits: How many to compare and to return.
        peer: The child.
        below: Hosts that wait for its own, which would make a circle. None: they are too many to be
            found; parents are those that fetch from nobody, and their children.
        chance: For the sample.
        area: Where they are to be; None: anywhere.
    """
    return _ranked(limits, peer, below, chance, area)[: limits.candidates]


def find_success_parent(limits: Limits, peer: Peer, chance: Chance) -> Peer | None:
    """The best parent for a running *peer* that has everything already; None if there is none.

    The design document names it, and Dragonfly's scheduler had it until its version 2.3.3. No
    answer of the contract gives a peer one such parent: nothing here asks for it.
    """
    if peer.state is not PeerState.RUNNING:
        return None
    ranked = _ranked(limits, peer, peer.hosts_below(limits.below), chance)
    return next((parent for parent in ranked if parent.state is PeerState.SUCCEEDED), None)


def _ranked(
    limits: Limits, peer: Peer, below: _Below, chance: Chance, area: Area | None = None
) -> list[Peer]:
    """A sample of the parents that fit, one of a host, best first."""
    sources = _sources(limits, peer, below, area)
    sample, most = dict(sources), limits.sample
    for parent in _drawn(peer.task, below, chance, area):
        host = parent.host
        if host.uploads < host.upload_limit and host not in sample and _fits(parent, peer, below):
            sample[host] = parent
            if len(sample) >= most:
                break
    score = SCORES[limits.algorithm]
    # One number is compared in a fraction of the time of several.
    ranks = dict(zip(sample.values(), score(sample.values(), peer), strict=True))
    for parent in ranks:
        if parent.range is None or parent.covers(peer):
            ranks[parent] += 8
        if not parent.lags:
            ranks[parent] += 4
    for parent in sources.values():
        ranks[parent] += 2
    return sorted(ranks, key=ranks.__getitem__, reverse=True)


def _drawn(task: Task, below: _Below, chance: Chance, area: Area | None) -> Iterator[Peer]:
    """Those of *area* who may be parents, in random order."""
    if area is not None and area.near and below is not None:
        inside = task.inside
        return iter(()) if inside is None else inside.near(area.centre, chance, len(inside))
    drawn = _possible(task, below).shuffled(chance)
    if area is None:
        return drawn
    return (parent for parent in islice(drawn, _FAR_DRAWS) if area.has(parent))


def _sources(limits: Limits, peer: Peer, below: _Below, area: Area | None) -> dict[Host, Peer]:
    """Those at the origin that have room for one more of ours.

    It is to have pieces of them before it has them of others.

    A daemon of ours gives each piece to one of its children, who gives it to the others: so the
    more of them it has, the better that which it alone has is spread, up to the number that a peer
    exchanges with. Others take all of everybody, and are better off with somebody else.
    """
    if not limits.partners or not peer.host.is_ours:
        return {}
    most = limits.most_partners
    found: dict[Host, Peer] = {}
    for source_id in islice(peer.task.at_origin, _SOURCES):
        source = peer.task.peers[source_id]
        fits = source.host.is_ours and source.host.is_free and len(source.children) < most
        fits = fits and (area is None or not area.near or area.has(source))
        if fits and source in peer.task.holders and _fits(source, peer, below):
            found[source.host] = source
    return found


def _fits(parent: Peer, child: Peer, below: _Below) -> bool:
    """Whether *parent*, once it has content, could serve *child*."""
    host = parent.host
    return (
        host is not child.host
        and host.shares
        and not (child.blocks_others and child.has_blocked(parent))
        and (parent.shape is child.shape or parent.shape == child.shape)
        and (parent.version is child.version or child.may_join(parent))
        and (parent.range is None or parent.overlaps(child))
        and (_is_near(parent, child) if below is None else host not in below)
    )


def _is_near(parent: Peer, child: Peer) -> bool:
    """Whether *parent* fetches from none but those who fetch from nobody, *child* not among them.

    So it cannot be below *child*, whatever else is.
    """
    above = [edge.parent for edge in parent.parents.values()]
    return not any(each.parents or each.host is child.host for each in above)


def _possible(task: Task, below: _Below) -> SampleSet[Peer]:
    """All who may be a parent in *task*, for one who has these hosts *below* it."""
    if below is not None:
        return task.holders
    near: SampleSet[Peer] = SampleSet()
    sources = task.votes.voters  # all and only those holders that fetch from no other
    for source in map(task.peers.__getitem__, sources):
        near.add(source)
        if len(sources) <= _FEW_SOURCES:
            for child_id in islice(reversed(source.children), _YOUNG_CHILDREN):
                if task.peers[child_id] in task.holders:
                    near.add(task.peers[child_id])
    return near


def _way_is_coming(peer: Peer, area: Area, below: _Below, now: float) -> float | None:
    """Until when to wait for a way out of a data centre, to start in *area*; None: for nobody."""
    for way in ways_in(peer.task, area):
        until = peer.task.expected.get(way.id, now)
        if until > now and _fits(way, peer, below) and way.covers(peer):
            return until
    return None


def _somebody_coming(world: World, peer: Peer, below: _Below, now: float) -> float | None:
    """Until when it is worth waiting for one who is on the way; None: for nobody."""
    task, trigger = peer.task, peer.task.trigger
    # A seed that was asked and comes of itself is the one that the others wait for.
    promised = trigger is not None and trigger.host_id != peer.host.id
    if trigger is not None and promised and not _has_shown_up(world, task, trigger):
        until = trigger.asked_at + world.limits.seed_start
        if until > now:
            return until
    for other_id, until in task.expected.items():
        other = task.peers[other_id]
        if until > now and _fits(other, peer, below) and other.covers(peer):
            return until
    return None


def _has_shown_up(world: World, task: Task, trigger: Trigger) -> bool:
    """Whether the seed has started, so that its peer counts and no longer the promise of one."""
    host = world.hosts.get(trigger.host_id)
    peers = host.peers.get(task.key, {}) if host is not None else {}
    return any(
        peer.created_at >= trigger.asked_at and (peer.state in AT_WORK or peer.state in OVER)
        for peer in peers.values()
    )


def _alone(world: World, peer: Peer, below: _Below, now: float) -> Decision:
    """Nobody is coming: steps 4 to 6."""
    priority, task, limits = peer.registration.request.priority, peer.task, world.limits
    if _waits_for_a_place(peer, below, limits, now):
        return Wait(now + _LOOK_AGAIN)
    if priority == PRIORITY_ONLY_PEERS:
        raise OnlyPeers(f"task {task.id}: {ONLY_PEERS}")
    may_ask = task.rules.from_source and priority != _NO_SEED and not peer.has_asked_seed
    if may_ask and not peer.host.is_seed:
        seeds = _free_seeds(world, task, now)
        if seeds and task.trigger is None:
            task.trigger = Trigger(seeds[0].id, now)
            peer.has_asked_seed = True
            return AskSeed(seeds)
    obstacle = _obstacle(peer, limits, now)
    if obstacle is None:
        peer.was_sent = True
        return _to_source(world, peer, now, "nobody has it and nobody is fetching it")
    return _be_patient(peer, limits, now, obstacle)


def _waits_for_a_place(peer: Peer, below: _Below, limits: Limits, now: float) -> bool:
    """Whether all parents are busy, and *peer* has not waited long for one of them."""
    full = any(
        not parent.host.is_free and parent.covers(peer) and _fits(parent, peer, below)
        for parent in _possible(peer.task, below)
    )
    if not full:
        return False
    if peer.waiting_since is None:
        peer.waiting_since = now
    return now - peer.waiting_since < limits.start


def _free_seeds(world: World, task: Task, now: float) -> tuple[Host, ...]:
    return tuple(world.seeds.order(task, now)) if now >= task.no_seed_before else ()


def _obstacle(peer: Peer, limits: Limits, now: float) -> str | None:
    """Why *peer* may not go to the origin now; None: it may.

    Raises:
        OriginError: Others have been there, and asking again would not help.
    """
    task = peer.task
    if not task.rules.from_source:
        return f"{task.kind.name} tasks have no origin"
    if peer.registration.request.disable_back_to_source:
        return "the peer may not ask the origin (disable_back_to_source)"
    if len(task.at_origin) >= limits.back_to_source:
        return f"{len(task.at_origin)} peers are at the origin (scheduler.backToSourceCount)"
    while task.origin_failures and now - task.origin_failures[0].at > limits.origin_memory:
        task.origin_failures.popleft()
    failures = len(task.origin_failures)
    if failures >= limits.origin_failures:
        said = task.origin_failures[-1].description or "no reason given"
        raise OriginError(f"the origin failed for {failures} hosts, the last time by: {said}")
    return None


def _to_source(world: World, peer: Peer, now: float, why: str) -> ToSource:
    world.expect(peer, now + world.limits.start)
    peer.waiting_since = None
    return ToSource(why)


def _be_patient(peer: Peer, limits: Limits, now: float, obstacle: str) -> Wait:
    if peer.waiting_since is None:
        peer.waiting_since = now
    until = peer.waiting_since + limits.patience
    if now >= until:
        raise NoProvider(f"task {peer.task.id}: no peer can offer it now, and {obstacle}")
    return Wait(until)
