"""What each scheduler believes of this host, and what it must hear until that is true.

Nobody confirms what a scheduler remembers: it may have been restarted, been out of reach, have
forgotten a host that was silent for too long, or have taken a message whose answer was lost. So
this is no queue of messages. For each scheduler it keeps what was told and answered, and what may
have been heard; against that stands what is here. The difference is what must still be said,
however it came about::

    listed, announced, lost, ───►┌─────────┐──► Greeting: announce this host; afresh, if the
    forgot, settle               │         │    scheduler is to forget it first
    spoke, knows ───────────────►│ Beliefs │──► TaskAnnouncement(version): this host holds a task
    holds, drops ───────────────►│         │──► TaskAnnouncement(None): it holds it no longer
    told, untold ───────────────►└─────────┘

What is here has a version, a new one whenever more is here; what a scheduler may believe is the
version that it was told, or a doubt. That a task is gone is told to all that may believe in it;
that it is held, to the one it belongs to, by the hash ring over those that answer. While a download
speaks of a task on a stream of its own, nothing else is said of it: to say that the last copy is
gone would end that stream.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pantala.model.task import Kind

from .ring import HashRing

#: A task, as the announcements name it.
TaskKey = tuple[Kind, str]

#: Tasks that have left this host unheard by a scheduler that is away. Beyond this it is cheaper to
#: have it forget this host, and to begin anew.
MAX_UNHEARD: Final = 4096

#: What a scheduler may believe of a task: something of what is here, nobody knows what.
_UNSURE: Final = 0
#: The same, of a copy that has been dropped since.
_STALE: Final = -1


@functools.lru_cache(maxsize=16)
def _ring(addresses: frozenset[str]) -> HashRing:
    return HashRing(addresses)


def owner(task_id: str, addresses: frozenset[str]) -> str | None:
    """Which of the schedulers at *addresses* a task belongs to; None when there are none."""
    if len(addresses) <= 1:  # that of a personal daemon has no place in a ring: it is no ip:port
        return next(iter(addresses), None)
    return _ring(addresses).pick(task_id)


@dataclass(frozen=True, slots=True)
class Greeting:
    """Command: announce this host to a scheduler; with *afresh*, have it forget the host first."""

    address: str
    afresh: bool


@dataclass(frozen=True, slots=True)
class TaskAnnouncement:
    """Command: tell a scheduler that this host holds a task, or with version None, no longer."""

    address: str
    key: TaskKey
    version: int | None


@dataclass(slots=True)
class _Scheduler:
    """What one scheduler was told.

    Attributes:
        available: It has answered the last announcement.
        met: It knows nothing of this host from before this daemon was started.
        stranger: It has said that it does not know this host.
        renewed: What it may believe has changed as a whole, so all has to be compared.
        told: What it may believe of tasks: a version, unsure, or stale.
        pending: Tasks to compare, in the order of what happened.
        failed: Tasks that it did not take; to be compared after the next announcement.
        underway: What it is being told.
        void: Tasks under way of which the outcome says nothing any more.
        greeting: The last one.
        latest: Tasks that it may have heard of since, late messages from before included.
        recent: The same since the last greeting that was answered: it may have been another
            process until then.
    """

    available: bool = False
    met: bool = False
    stranger: bool = False
    renewed: bool = False
    epoch: str | None = None
    announced_at: float = float("-inf")
    told: dict[TaskKey, int] = field(default_factory=dict)
    pending: OrderedDict[TaskKey, None] = field(default_factory=OrderedDict)
    failed: set[TaskKey] = field(default_factory=set)
    underway: dict[TaskKey, TaskAnnouncement] = field(default_factory=dict)
    void: set[TaskKey] = field(default_factory=set)
    greeting: Greeting | None = None
    latest: set[TaskKey] = field(default_factory=set)
    recent: set[TaskKey] = field(default_factory=set)

    def compare(self, key: TaskKey) -> None:
        """Something has happened to a task: to be looked at, after all others."""
        self.failed.discard(key)
        self.pending.pop(key, None)
        self.pending[key] = None

    def believe(self, key: TaskKey, belief: int) -> None:
        """From now on it may believe this of a task, whatever it is being told."""
        self.told[key] = belief
        self.touch(key)
        if key in self.underway:
            self.void.add(key)

    def touch(self, key: TaskKey) -> None:
        """It may hear of a task from now on."""
        self.latest.add(key)
        self.recent.add(key)

    def forget(self) -> None:
        """It knows nothing any more, but for what may have reached it lately."""
        self.told = {key: min(self.told.get(key, _UNSURE), _UNSURE) for key in self.recent}
        self.void.update(self.underway)

    def doubt_all(self) -> None:
        """It may know all that it was told, or nothing."""
        self.told = {key: min(belief, _UNSURE) for key, belief in self.told.items()}
        self.void.update(self.underway)


class Beliefs:
    """What all schedulers of this host believe, against what is here.

    Args:
        interval: Seconds between two announcements. Who hears none for twice as long forgets us.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._all: dict[str, _Scheduler] = {}
        #: What is here, by version, in that order.
        self._here: dict[TaskKey, int] = {}
        self._last_version = 0
        #: To whom a stream of its own speaks of a task, and whether that one knew the truth before.
        self._spoken: dict[TaskKey, tuple[str, bool]] = {}
        #: Others answer than when last all tasks were shared out.
        self._moved = False
        #: Tasks that are still to be shared out, the most important last, and among whom.
        self._unshared: list[TaskKey] = []
        self._sharers: frozenset[str] = frozenset()

    # -- schedulers ----------------------------------------------------------------------------

    @property
    def addresses(self) -> frozenset[str]:
        """All schedulers, whether they answer or not."""
        return frozenset(self._all)

    @property
    def available(self) -> frozenset[str]:
        """Addresses of those that answer."""
        return frozenset(a for a, s in self._all.items() if s.available)

    def owner(self, task_id: str) -> str | None:
        """The scheduler of a task, among those that answer; None when none does."""
        return owner(task_id, self.available)

    def listed(self, addresses: Iterable[str]) -> None:
        """These are the schedulers from now on; nobody else is told anything."""
        wanted = set(addresses)
        for address in self._all.keys() - wanted:
            del self._all[address]
            self._moved = True
        for address in wanted - self._all.keys():
            self._all[address] = _Scheduler()

    def greeting(self, address: str) -> Greeting | None:
        """How to announce this host to a scheduler; None if it is no scheduler of ours.

        One at a time: :meth:`announced` or :meth:`lost` come before the next.
        """
        scheduler = self._all.get(address)
        if scheduler is None:
            return None
        scheduler.latest = {*scheduler.underway, *self._spoken_to(address)}
        scheduler.greeting = Greeting(address, afresh=not scheduler.met)
        return scheduler.greeting

    def announced(self, greeting: Greeting, epoch: str | None, now: float) -> bool:
        """A scheduler has taken an announcement; whether it may not know what it was told.

        Args:
            greeting: What was carried out.
            epoch: What the scheduler calls itself since it was started; None for a stock one.
            now: Monotonic seconds.
        """
        scheduler = self._all.get(greeting.address)
        if scheduler is None or scheduler.greeting is not greeting:
            return False
        # A host that was silent for twice the interval is forgotten, and what it holds with it. A
        # stock scheduler has no epoch: any break may have been a restart.
        silent = now - scheduler.announced_at >= 2 * self._interval
        anew = epoch is None and not scheduler.available
        restarted = epoch is not None and epoch != scheduler.epoch
        renewed = greeting.afresh or silent or anew or epoch != scheduler.epoch
        if greeting.afresh or restarted:
            scheduler.forget()
        elif renewed:
            scheduler.doubt_all()
        if renewed:
            self._unlearn(greeting.address)
        scheduler.renewed |= renewed
        scheduler.recent = set(scheduler.latest)
        self._moved |= not scheduler.available
        scheduler.available, scheduler.met, scheduler.stranger = True, True, False
        scheduler.epoch, scheduler.announced_at = epoch, now
        for key in list(scheduler.failed):
            scheduler.compare(key)
        return renewed

    def lost(self, address: str) -> bool:
        """A scheduler does not answer; whether it did until now."""
        scheduler = self._all.get(address)
        if scheduler is None or not scheduler.available:
            return False
        scheduler.available = False
        self._moved = True
        return True

    def forgot(self, address: str) -> None:
        """A scheduler says that it does not know this host."""
        scheduler = self._all.get(address)
        if scheduler is not None:
            scheduler.forget()
            self._unlearn(address)
            scheduler.stranger = scheduler.renewed = True

    def _spoken_to(self, address: str) -> list[TaskKey]:
        return [key for key, (whom, _) in self._spoken.items() if whom == address]

    def _unlearn(self, address: str) -> None:
        """A scheduler may have forgotten what it knew of tasks before streams spoke of them."""
        self._spoken.update(dict.fromkeys(self._spoken_to(address), (address, False)))

    def is_stranger_to(self, address: str) -> bool:
        """A scheduler has said that it does not know this host, and was not greeted since."""
        scheduler = self._all.get(address)
        return scheduler is not None and scheduler.stranger

    def settle(self) -> None:
        """All schedulers have been tried: :meth:`share` out what is here among those that answer.

        It is not done whenever one is lost: most are back before the next round, and would find
        that all was told to another meanwhile.
        """
        available = self.available
        renewed = {address for address in available if self._all[address].renewed}
        if available and (renewed or self._moved):
            # What came last is the likeliest to be asked for.
            self._unshared, self._sharers = list(self._here), available
            for address in renewed:
                scheduler = self._all[address]
                scheduler.renewed = False
                for key in scheduler.told.keys() - self._here.keys():
                    scheduler.compare(key)
            self._moved = False

    def share(self, most: int) -> bool:
        """Share out so many tasks of those that :meth:`settle` found; whether there are more.

        Each takes some 20 microseconds, and a host may hold a hundred thousand.
        """
        for _ in range(min(most, len(self._unshared))):
            key = self._unshared.pop()
            version = self._here.get(key)
            scheduler = self._all.get(owner(key[1], self._sharers) or "")
            if scheduler is not None and scheduler.told.get(key) != version:
                scheduler.compare(key)
        return bool(self._unshared)

    # -- what is here --------------------------------------------------------------------------

    def spoke(self, address: str, key: TaskKey) -> None:
        """A download opens a stream to a scheduler, on which that may hear anything of a task.

        Until :meth:`holds`, :meth:`knows` or :meth:`drops` nothing else is said of the task.
        """
        scheduler = self._all.get(address)
        if scheduler is not None:
            believed = scheduler.told.get(key)
            self._spoken[key] = address, believed == self._here.get(key)
            scheduler.believe(key, _STALE if believed == _STALE else _UNSURE)

    def holds(self, key: TaskKey) -> None:
        """More of a task is here than anybody was told."""
        self._spoken.pop(key, None)
        self._compare(key, self._bump(key))

    def knows(self, key: TaskKey) -> None:
        """More of a task is here, and the stream that was opened last has told it."""
        address, knew = self._spoken.pop(key, ("", False))
        version = self._bump(key)
        scheduler = self._all.get(address)
        if scheduler is not None and knew and scheduler.told.get(key) == _UNSURE:
            scheduler.believe(key, version)
        self._compare(key, version)

    def _compare(self, key: TaskKey, version: int) -> None:
        mine = self.owner(key[1])
        for address, scheduler in self._all.items():
            believed = scheduler.told.get(key)
            if believed == _STALE or (address == mine and believed != version):
                scheduler.compare(key)

    def _bump(self, key: TaskKey) -> int:
        self._last_version += 1
        self._here.pop(key, None)
        self._here[key] = self._last_version
        return self._last_version

    def drops(self, key: TaskKey) -> None:
        """A task is here no longer."""
        self._spoken.pop(key, None)
        self._here.pop(key, None)
        for address, scheduler in self._all.items():
            if key in scheduler.told:
                scheduler.believe(key, _STALE)
                scheduler.compare(key)
                unheard = len(scheduler.told) - len(self._here)
                if not scheduler.available and unheard > MAX_UNHEARD:
                    scheduler.met = False
                    scheduler.forget()
                    self._unlearn(address)

    # -- what must be said ---------------------------------------------------------------------

    def has_news(self, address: str, limit: int) -> bool:
        """Whether :meth:`take` may find something."""
        scheduler = self._all.get(address)
        if scheduler is None or not scheduler.available:
            return False
        return bool(scheduler.pending) and len(scheduler.underway) < limit

    def take(self, address: str, limit: int, only: TaskKey | None = None) -> list[TaskAnnouncement]:
        """What is to be said now, each to be answered by :meth:`told` or :meth:`untold`.

        Args:
            address: The scheduler.
            limit: How much it is told at once, what is under way included.
            only: Of this task alone, whatever the limit.
        """
        taken: list[TaskAnnouncement] = []
        scheduler = self._all.get(address)
        if scheduler is None or not scheduler.available:
            return taken
        if only is not None:
            if only in scheduler.pending and only not in scheduler.underway:
                del scheduler.pending[only]
                self._take_one(address, scheduler, only, taken)
            return taken
        while scheduler.pending and len(scheduler.underway) < limit:
            key, _ = scheduler.pending.popitem(last=False)
            if key not in scheduler.underway:  # else it is compared again when that is over
                self._take_one(address, scheduler, key, taken)
        return taken

    def _take_one(
        self, address: str, scheduler: _Scheduler, key: TaskKey, taken: list[TaskAnnouncement]
    ) -> None:
        version, believed = self._here.get(key), scheduler.told.get(key)
        if key in self._spoken or believed == version:
            return
        if believed == _STALE or version is None:
            version = None  # what it believes of the last copy goes first
        elif self.owner(key[1]) != address:
            return
        else:
            scheduler.told[key] = _UNSURE
        scheduler.touch(key)
        news = scheduler.underway[key] = TaskAnnouncement(address, key, version)
        taken.append(news)

    def told(self, news: TaskAnnouncement) -> None:
        """A scheduler has heard and answered it."""
        scheduler = self._ended(news)
        if scheduler is not None:
            if news.key in scheduler.void:
                scheduler.void.discard(news.key)
            elif news.version is None:
                scheduler.told.pop(news.key, None)
            else:
                scheduler.told[news.key] = news.version
            if scheduler.told.get(news.key) != self._here.get(news.key):
                scheduler.compare(news.key)

    def untold(self, news: TaskAnnouncement) -> None:
        """It could not be said, or nobody knows whether it was heard: again, next time."""
        scheduler = self._ended(news)
        if scheduler is not None:
            scheduler.void.discard(news.key)
            scheduler.pending.pop(news.key, None)
            scheduler.failed.add(news.key)

    def _ended(self, news: TaskAnnouncement) -> _Scheduler | None:
        """Whom it was told; None if it is of an earlier list of schedulers."""
        scheduler = self._all.get(news.address)
        if scheduler is None or scheduler.underway.get(news.key) is not news:
            return None
        del scheduler.underway[news.key]
        return scheduler
