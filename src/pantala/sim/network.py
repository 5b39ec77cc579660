"""Bytes on their way: flows over links that have a rate, each flow at its fair share.

    flow   a piece from one host to another: over the sender's link, perhaps a line between two
           data centres, and the receiver's link
    link   one direction of one host's link, or of such a line
    level  what a link can give to each flow over it that could take more

A flow gets the least of the levels of its links. A link's level is such that its flows together,
those that get less elsewhere included, fill it. Levels that fit each other in this way make the
max-min fair rates, which TCP comes near to: nobody can get more but from one who has no more
than he. :class:`Network` has two ways to them, and ``exact`` says which:

- *exact*: from all flows that hang together, the fullest link first (progressive filling). A change
  anywhere costs as much as there are flows.
- *near*: a link computes its level anew from those of its neighbours, and they theirs, as far as a
  change is worth telling. So a change costs as much as the few hosts around it, and rates are
  wrong by some per cent for a while.

What changes at one moment, or within ``grain`` seconds, is worked out once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from .clock import Clock

#: Parts by which a level, or a rate, changes without anybody being told; of *near*.
_TOLERANCE: Final = 0.03
#: How far a change is told from link to link; of *near*.
_ROUNDS: Final = 2
#: Bytes that count as none: what floating point leaves over.
_CRUMB: Final = 0.5


class Link:
    """One direction of a link.

    Attributes:
        rate: Bytes of content a second.
        flows: Those over it, in the order in which they came.
        level: See the module.
        carried: Bytes of all flows over it that have ended.
    """

    __slots__ = ("carried", "flows", "level", "name", "rate")

    def __init__(self, name: str, rate: float) -> None:
        self.name = name
        self.rate = rate
        self.flows: dict[Flow, None] = {}
        self.level = math.inf
        self.carried = 0.0

    @property
    def load(self) -> float:
        """Bytes a second over it now."""
        return sum(flow.rate for flow in self.flows)


class Flow:
    """A piece under way. Made by :meth:`Network.start`."""

    __slots__ = ("arguments", "call", "due", "left", "links", "over", "rate", "since", "size")

    def __init__(
        self,
        links: tuple[Link, ...],
        size: float,
        call: Callable[..., None],
        arguments: tuple[Any, ...],
        now: float,
    ) -> None:
        self.links = links
        self.size = size
        #: Bytes that had to come still at the time :attr:`since`.
        self.left = size
        self.since = now
        self.rate = 0.0
        #: When it is looked at next.
        self.due = math.inf
        self.call = call
        self.arguments = arguments
        self.over = False

    @property
    def arrived(self) -> bool:
        """Whether all of it has come."""
        return self.over and not self.left

    def received(self, now: float) -> int:
        """Bytes that have come."""
        return int(self.size - max(0.0, self.left - self.rate * (now - self.since)))


class Network:
    """All flows.

    Args:
        clock: Whose time it is.
        exact: See the module.
        grain: Seconds within which changes are worked out together. A flow begins up to so much
            later.
    """

    def __init__(self, clock: Clock, *, exact: bool = True, grain: float = 0.0) -> None:
        self._clock = clock
        self._exact = exact
        self._grain = grain
        #: Links whose flows have come or gone since levels were computed.
        self._dirty: dict[Link, None] = {}
        self._fresh: dict[Flow, None] = {}
        #: Flows ever, and computations of a level.
        self.flows = 0
        self.computed = 0

    def start(
        self, links: tuple[Link, ...], size: float, call: Callable[..., None], *arguments: Any
    ) -> Flow:
        """Send *size* bytes over *links*, and make *call* when they are there."""
        flow = Flow(links, size, call, arguments, self._clock.now)
        self.flows += 1
        for link in links:
            link.flows[flow] = None
        self._fresh[flow] = None
        self._touch(links)
        return flow

    def cancel(self, flow: Flow) -> None:
        """Give a flow up: nobody is called. No event for one that is over."""
        if not flow.over:
            self._end(flow)

    def _end(self, flow: Flow) -> None:
        came = flow.received(self._clock.now)
        flow.over = True
        self._fresh.pop(flow, None)
        for link in flow.links:
            del link.flows[flow]
            link.carried += came
        self._touch(flow.links)

    def _touch(self, links: tuple[Link, ...]) -> None:
        if not self._dirty:
            self._clock.after(self._grain, self._settle)
        for link in links:
            self._dirty[link] = None

    def _settle(self) -> None:
        """Work out what has changed, and when flows end now."""
        dirty, self._dirty = self._dirty, {}
        fresh, self._fresh = self._fresh, {}
        if self._exact:
            flows = connected(dirty)
            self.computed += len(flows)
            for flow, rate in max_min(flows).items():
                self._set(flow, rate)
            return
        for link in self._spread(dirty, fresh):
            for flow in link.flows:
                links = flow.links
                rate = links[0].level
                for each in links[1:]:
                    rate = min(rate, each.level)
                if abs(rate - flow.rate) > _TOLERANCE * flow.rate:
                    self._set(flow, rate)

    def _spread(self, dirty: Iterable[Link], fresh: dict[Flow, None]) -> dict[Link, None]:
        """Compute levels from *dirty* links on; returns those that have changed.

        Links with *fresh* flows count as changed.
        """
        changed: dict[Link, None] = {link: None for flow in fresh for link in flow.links}
        todo = dict.fromkeys(dirty)
        for _ in range(_ROUNDS):
            told: list[Link] = []
            for link in todo:
                level = level_of(link)
                self.computed += 1
                if _differs(level, link.level):
                    told.append(link)
                    changed[link] = None
                    link.level = level
            todo = {
                other: None
                for link in told
                for flow in link.flows
                for other in flow.links
                if other is not link
            }
        return changed

    def _set(self, flow: Flow, rate: float) -> None:
        """From now on *flow* has this rate."""
        now = self._clock.now
        flow.left -= flow.rate * (now - flow.since)
        flow.since, flow.rate = now, rate
        due = now + max(0.0, flow.left) / rate if rate else math.inf
        # One that ends later than it was thought to is looked at too early, and once more.
        if due < flow.due:
            flow.due = due
            self._clock.at(due, self._look, flow, due)

    def _look(self, flow: Flow, due: float) -> None:
        if flow.over or due != flow.due:
            return
        now = self._clock.now
        left = flow.left - flow.rate * (now - flow.since)
        if left > _CRUMB:
            flow.due = now + left / flow.rate if flow.rate else math.inf
            if flow.due > now:
                if flow.rate:
                    self._clock.at(flow.due, self._look, flow, flow.due)
                return
        flow.left, flow.since = 0.0, now
        self._end(flow)
        flow.call(*flow.arguments)


def _differs(new: float, old: float) -> bool:
    """Whether a change of a level is worth telling."""
    if math.inf in (old, new):
        return new != old
    return abs(new - old) > _TOLERANCE * old


def level_of(link: Link) -> float:
    """The level of *link* as those of its neighbours are now; infinite if nothing fills it."""
    limits = []
    for flow in link.flows:
        links = flow.links
        if len(links) == 2:  # most have two, and this is where the time goes
            one, other = links
            limits.append(other.level if one is link else one.level)
        else:
            limits.append(min([each.level for each in links if each is not link], default=math.inf))
    limits.sort()
    rest, number = link.rate, len(limits)
    for limit in limits:
        level = rest / number
        if limit >= level:
            return level
        rest -= limit
        number -= 1
    return math.inf


def connected(links: Iterable[Link]) -> dict[Flow, None]:
    """All flows that hang together with those of *links*."""
    seen = dict.fromkeys(links)
    todo, flows = list(seen), dict[Flow, None]()
    while todo:
        for flow in todo.pop().flows:
            if flow not in flows:
                flows[flow] = None
                for link in flow.links:
                    if link not in seen:
                        seen[link] = None
                        todo.append(link)
    return flows


def max_min(flows: Iterable[Flow]) -> dict[Flow, float]:
    """The rate of each of *flows*, which are all that there are on their links.

    The link that gives least to each of its flows settles those; what they leave on their other
    links is for the rest.
    """
    waiting: dict[Link, dict[Flow, None]] = {}
    for flow in flows:
        for link in flow.links:
            waiting.setdefault(link, {})[flow] = None
    rest = {link: link.rate for link in waiting}
    order = {link: at for at, link in enumerate(waiting)}
    heap = [(rest[link] / len(over), order[link], link) for link, over in waiting.items()]
    heapq.heapify(heap)
    rates: dict[Flow, float] = {}
    while heap:
        share, _, link = heapq.heappop(heap)
        over = waiting[link]
        if not over:
            continue
        now = max(0.0, rest[link]) / len(over)
        if now > share * (1 + 1e-12):  # others were settled since: it gives more to each
            heapq.heappush(heap, (now, order[link], link))
            continue
        for flow in list(over):
            rates[flow] = now
            for each in flow.links:
                del waiting[each][flow]
                rest[each] -= now
    return rates
