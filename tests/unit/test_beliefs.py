"""core/beliefs.py: whatever happens in whatever order, schedulers end up believing what is true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantala.core import beliefs as module
from pantala.core.beliefs import Beliefs, Greeting, TaskAnnouncement, TaskKey
from pantala.model.task import Kind

INTERVAL = 60.0
ADDRESSES = tuple(f"10.0.0.{n}:8002" for n in range(2))
#: The first belongs to the second scheduler while both are there, the others to the first.
KEYS: tuple[TaskKey, ...] = tuple((Kind.CACHE, f"{n:x}" * 64) for n in range(3))

#: Of a task that is here: which copy it is, and the number of its last part; it has all before.
Amount = tuple[int, int]


@dataclass
class Played:
    """A scheduler: what it remembers of this host.

    Attributes:
        stock: It tells no epoch.
        life: Another at each start.
        copies: What it believes of tasks: parts of copies.
    """

    stock: bool
    life: int = 0
    reachable: bool = True
    knows_host: bool = False
    copies: dict[TaskKey, set[Amount]] = field(default_factory=dict)

    @property
    def epoch(self) -> str | None:
        """What it calls itself."""
        return None if self.stock else str(self.life)

    def forget(self) -> None:
        """Everything."""
        self.knows_host = False
        self.copies.clear()


@dataclass
class Stream:
    """Of a download, which has a scheduler believe in its part once its words arrive."""

    part: Amount
    address: str
    life: int
    arrived: bool = False


class Play:
    """One host and two schedulers, over a network where everything happens.

    Args:
        stock: Which of the schedulers are stock ones.
    """

    def __init__(self, *, stock: tuple[bool, bool] = (False, False)) -> None:
        self.now = 1000.0
        self.beliefs = Beliefs(INTERVAL)
        self.schedulers = {a: Played(s) for a, s in zip(ADDRESSES, stock, strict=True)}
        for played in self.schedulers.values():  # of an earlier life of this host
            played.knows_host = True
            played.copies[KEYS[0]] = {(-1, -1)}
        self.here: dict[TaskKey, Amount] = {}
        self.copy = 0
        self.tells: list[tuple[TaskAnnouncement, Amount | None]] = []
        self.streams: dict[TaskKey, Stream] = {}
        #: Announcements that have arrived, and what each scheduler called itself then.
        self.greetings: list[tuple[Greeting, str | None]] = []
        self.beliefs.listed(ADDRESSES)
        self.goes_well()

    # -- what is here

    def holds(self, key: TaskKey) -> None:
        """More of a task is here, without a stream."""
        if key not in self.streams:
            self._more(key)
            self.beliefs.holds(key)

    def _more(self, key: TaskKey) -> None:
        if key in self.here:
            copy, last = self.here[key]
            self.here[key] = copy, last + 1
        else:
            self.copy += 1
            self.here[key] = self.copy, 0

    def drops(self, key: TaskKey) -> None:
        """A task leaves; what its stream has told remains told."""
        self.here.pop(key, None)
        self.streams.pop(key, None)
        self.beliefs.drops(key)

    def opens(self, key: TaskKey) -> None:
        """A download opens a stream."""
        address = self.beliefs.owner(key[1])
        if address is not None and key not in self.streams:
            self._more(key)
            self.streams[key] = Stream(self.here[key], address, self.schedulers[address].life)
            self.beliefs.spoke(address, key)

    def arrives(self, key: TaskKey) -> None:
        """What is said on a stream is heard, or the stream breaks off."""
        stream = self.streams.get(key)
        if stream is not None:
            played = self.schedulers[stream.address]
            if played.reachable and played.life == stream.life and played.knows_host:
                played.copies.setdefault(key, set()).add(stream.part)
                stream.arrived = True
            else:
                self._ends(key, heard=False)

    def ends(self, key: TaskKey) -> None:
        """A stream ends, as it should if all was heard."""
        stream = self.streams.get(key)
        if stream is not None:
            played = self.schedulers[stream.address]
            alive = played.reachable and played.life == stream.life
            self._ends(key, heard=alive and stream.arrived)

    def _ends(self, key: TaskKey, *, heard: bool) -> None:
        del self.streams[key]
        (self.beliefs.knows if heard else self.beliefs.holds)(key)

    # -- what is said

    def says(self, _key: TaskKey) -> None:
        """Something is begun to be told."""
        self.tells += [(tell, self.here.get(tell.key)) for tell in self._take()]

    def _take(self) -> list[TaskAnnouncement]:
        return [tell for address in self.schedulers for tell in self.beliefs.take(address, 2)]

    def is_heard(self, _key: TaskKey) -> None:
        """The oldest of it is heard and answered."""
        if self.tells:
            self._hear(*self.tells.pop(0), answered=True)

    def is_heard_unanswered(self, _key: TaskKey) -> None:
        """The newest of it is heard, and the answer is lost."""
        if self.tells:
            self._hear(*self.tells.pop(), answered=False)

    def is_unheard(self, _key: TaskKey) -> None:
        """The oldest of it is lost."""
        if self.tells:
            self.beliefs.untold(self.tells.pop(0)[0])

    def _hear(self, tell: TaskAnnouncement, what: Amount | None, *, answered: bool) -> None:
        played = self.schedulers[tell.address]
        if not played.reachable:
            self.beliefs.untold(tell)
            self.beliefs.lost(tell.address)
        elif not played.knows_host:
            self.beliefs.untold(tell)
            self.beliefs.forgot(tell.address)
        else:
            if tell.version is None:
                played.copies.pop(tell.key, None)
            elif what is not None:
                copy, last = what
                parts = {(copy, part) for part in range(last + 1)}
                played.copies.setdefault(tell.key, set()).update(parts)
            (self.beliefs.told if answered else self.beliefs.untold)(tell)

    def _says_all(self) -> int:
        said = 0
        while tells := self._take():
            for tell in tells:
                self._hear(tell, self.here.get(tell.key), answered=True)
            said += len(tells)
            assert said < 100, "it never ends"
        return said

    # -- announcing

    def greets(self, address: str) -> None:
        """The host is announced, as far as the scheduler."""
        if any(greeting.address == address for greeting, _ in self.greetings):
            return  # one at a time
        greeting = self.beliefs.greeting(address)
        played = self.schedulers[address]
        if greeting is None:
            return
        if not played.reachable:
            self.beliefs.lost(address)
            return
        if greeting.afresh:
            played.forget()
        played.knows_host = True
        self.greetings.append((greeting, played.epoch))

    def is_greeted(self, _address: str) -> None:
        """The oldest announcement is answered."""
        if self.greetings:
            greeting, epoch = self.greetings.pop(0)
            self.beliefs.announced(greeting, epoch, self.now)

    def is_greeted_in_vain(self, _address: str) -> None:
        """Its answer is lost."""
        if self.greetings:
            self.beliefs.lost(self.greetings.pop(0)[0].address)

    def settles(self, _address: str) -> None:
        """All have been tried."""
        self.beliefs.settle()

    def shares(self, _address: str) -> None:
        """One task is shared out."""
        self.beliefs.share(1)

    def goes_well(self, _address: str = "") -> int:
        """A round in which nothing goes wrong that need not; how much was said in it."""
        for tell, what in self.tells:
            self._hear(tell, what, answered=True)
        self.tells.clear()
        for address in sorted(self.beliefs.addresses):
            self.greets(address)
        while self.greetings:
            self.is_greeted("")
        self.beliefs.settle()
        while self.beliefs.share(2):
            pass
        return self._says_all()

    # -- what happens to schedulers

    def is_slow(self, address: str) -> None:
        """It is taken for lost for a moment."""
        self.beliefs.lost(address)

    def is_cut_off_or_back(self, address: str) -> None:
        """Nobody notices, yet."""
        played = self.schedulers[address]
        played.reachable = not played.reachable

    def is_restarted(self, address: str) -> None:
        """Of a stock one, nothing but the broken connection tells."""
        played = self.schedulers[address]
        played.life += 1
        played.forget()
        if played.stock:
            self.beliefs.lost(address)

    def time_passes(self, _address: str) -> None:
        """So much that hosts are forgotten that were not heard."""
        self.now += 3 * INTERVAL
        for played in self.schedulers.values():
            played.forget()

    def is_listed_or_not(self, address: str) -> None:
        """The list of schedulers changes; with its channel, all that one was told ends."""
        for heard in [heard for heard in self.tells if heard[0].address == address]:
            self.tells.remove(heard)
            self._hear(*heard, answered=False)
        self.greetings = [item for item in self.greetings if item[0].address != address]
        for key in [k for k, s in self.streams.items() if s.address == address]:
            self._ends(key, heard=False)
        self.beliefs.listed(self.beliefs.addresses ^ {address})

    # -- in the end

    def check(self, away: str | None = None) -> None:
        """Once everything goes well, little is said, and what is believed is true.

        Args:
            away: A scheduler that does not come back.
        """
        for address, played in self.schedulers.items():
            played.reachable = address != away
        for key in list(self.streams):
            self._ends(key, heard=False)
        rounds = [self.goes_well() for _ in range(3)]
        assert rounds[-1] == 0, rounds
        for address in self.beliefs.addresses - {away}:
            for key in KEYS:
                believed = self.schedulers[address].copies.get(key, set())
                here = self.here.get(key)
                if here is not None and self.beliefs.owner(key[1]) == address:
                    assert {(here[0], part) for part in range(here[1] + 1)} <= believed
                assert {copy for copy, _ in believed} <= ({here[0]} if here else set())


def _steps(names: str, subjects: tuple[object, ...]) -> list[Callable[[Play], object]]:
    def step(name: str, subject: object) -> Callable[[Play], object]:
        return lambda play: getattr(play, name)(subject)

    return [step(name, subject) for name in names.split() for subject in subjects]


STEPS = [
    *_steps("holds drops opens arrives ends", KEYS),
    *_steps("says says is_heard is_heard is_heard_unanswered is_unheard", KEYS[:1]),
    *_steps("greets settles is_slow is_cut_off_or_back is_restarted is_listed_or_not", ADDRESSES),
    *_steps("is_greeted is_greeted_in_vain shares goes_well time_passes", ADDRESSES[:1]),
]


@settings(max_examples=500, deadline=None)
@given(
    stock=st.tuples(st.booleans(), st.booleans()),
    steps=st.lists(st.sampled_from(range(len(STEPS))), min_size=5, max_size=40),
    away=st.sampled_from([None, None, ADDRESSES[0]]),
    unheard=st.sampled_from([0, module.MAX_UNHEARD]),
)
def test_schedulers_end_up_believing_what_is_true(
    stock: tuple[bool, bool], steps: list[int], away: str | None, unheard: int
) -> None:
    """Whatever was lost, restarted, forgotten, or crossed on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_UNHEARD", unheard)
        play = Play(stock=stock)
        for step in steps:
            STEPS[step](play)
        play.check(away)


@pytest.mark.parametrize(
    "story",
    [
        # What was told to the process before is heard by the one that was greeted since.
        "holds says greets:a is_greeted is_restarted:a greets:a is_heard is_greeted drops",
        # It hears of the last copy's end while the next one comes.
        "holds goes_well drops says opens arrives is_heard ends",
        # It is to forget the host, and hears what a stream has to say after that.
        "holds:c goes_well opens goes_well is_slow:a drops:c greets:a arrives is_greeted drops",
        # It forgets the host while a stream is open.
        "opens arrives time_passes greets:a is_greeted ends",
        # The next copy is told to another.
        "is_slow:a opens arrives drops opens goes_well",
    ],
)
def test_orders_that_are_rare(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each went wrong once, or would without one line of the module."""
    monkeypatch.setattr(module, "MAX_UNHEARD", 0)
    play = Play()
    subjects = {"a": ADDRESSES[0], "b": ADDRESSES[1], "c": KEYS[2]}
    for name, _, subject in (step.partition(":") for step in story.split()):
        getattr(play, name)(subjects.get(subject, KEYS[1]))  # a task of a's
    play.check()


def test_tasks_are_shared_out_a_few_at_a_time() -> None:
    """The newest first; what was told, or has left, is told no more."""
    play = Play()
    for key in KEYS[::2]:
        play.holds(key)
    play.goes_well()
    play.is_restarted(ADDRESSES[0])
    play.is_restarted(ADDRESSES[1])
    for address in ADDRESSES:
        play.greets(address)
        play.is_greeted(address)
    play.settles("")
    assert play._take() == []
    assert play.beliefs.share(1)
    (first,) = play._take()
    assert first.key == KEYS[2]
    play.drops(KEYS[0])
    assert not play.beliefs.share(2)
    assert [tell.version for tell in play._take()] == [None]


def test_many_tasks_keep_nobody_waiting() -> None:
    """Neither as all are shared out, nor when all have been told."""
    beliefs = Beliefs(INTERVAL)
    beliefs.listed(ADDRESSES)
    keys = [(Kind.CACHE, f"{n:064x}"[::-1]) for n in range(20_000)]
    for key in keys:
        beliefs.holds(key)
    for address in ADDRESSES:
        greeting = beliefs.greeting(address)
        assert greeting is not None
        beliefs.announced(greeting, "e", 1.0)
    picked = 0
    pick = module.owner

    def counted(task_id: str, addresses: frozenset[str]) -> str | None:
        nonlocal picked
        picked += 1
        return pick(task_id, addresses)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "owner", counted)
        beliefs.settle()
        assert picked == 0
        assert beliefs.share(512)
        assert picked == 512
        while beliefs.share(512):
            pass
    told = 0
    for address in ADDRESSES:
        while tells := beliefs.take(address, 64):
            for tell in tells:
                beliefs.told(tell)
            told += len(tells)
            assert len(tells) == 64 or not beliefs.has_news(address, 64)
    assert told == len(keys)


def test_what_a_scheduler_missed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that it is to forget this host, and is told anew what is here."""
    monkeypatch.setattr(module, "MAX_UNHEARD", 0)
    play = Play()
    for key in KEYS:
        play.holds(key)
    play.goes_well()
    for key in KEYS[1:]:
        play.is_slow(ADDRESSES[0])
        play.drops(key)
    greeting = play.beliefs.greeting(ADDRESSES[0])
    assert greeting == Greeting(ADDRESSES[0], afresh=True)
    play.check()
