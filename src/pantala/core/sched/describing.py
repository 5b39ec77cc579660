"""One description of cold content for all hosts that want it: who asks its origin, who waits.

    1  somebody has the task                      → Told how it is cut, as anybody is who asks
    2  the origin's word is here, and fresh       → Told
    3  somebody asks the origin, or reads it      → Wait, for as long as that one may take
    4  the origin has failed several              → OriginError
    5  who asks may ask the origin                → YourTurn: now others wait for *him*
    6  he may not, but a seed may                 → AskSeed, then Wait
    7  nobody                                     → Wait a little, then NoProvider

Where content that is held is compared with its origin, 1 is left out: only the origin's word will
do. It is believed if it was heard after the question was asked, or :data:`FRESH` before, and once
for each host, so that who asks twice learns of a change in between. Who asks anew believes it only
if the turn in which it was heard began after his question: so of any number who ask anew at once,
two at most have a turn.

A turn ends with the word, with a failure, with the stream of its caller, or after :data:`TURN`;
then the first of the others who looks again has it. If the origin names no length, whoever has the
turn reads all of it, and keeps the turn for as long as he says so and has more each time.

**Credentials.** A task's identity has none (ADR 9), and how a task is cut that somebody has,
StatTask and StatCacheTask tell to anybody who knows its id. So 1 is for all. A word of the origin
is only for those who would have asked with the same credentials: they could have had it themselves.
Others wait with them while the task is cold, for soon it is held; if it is not, they ask in their
turn. Where the question is whether what is held may still be given away, they do not even wait: for
them the origin's answer is a permission, too. Whose failures count for whom: :mod:`.refusals`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

from pantala.errors import Busy, NoProvider, OnlyPeers, OriginError
from pantala.model.announce import Registration
from pantala.model.task import PRIORITY_ONLY_PEERS, Description, DownloadRequest

from .arrivals import credentials_of, new_task
from .entities import Host, Task, TaskKey, Trigger
from .growth import Growths
from .questions import Answer, Asker, AskSeed, Subject, Told, Wait, Word, YourTurn
from .refusals import REST, Refusal
from .rules import ONLY_PEERS, RULES
from .states import PeerState, TaskState
from .world import World

#: Seconds before a question for which the origin's word of then will do. The hosts of a job start
#: within a second or two of each other; who changes a file and starts a job on it takes longer.
FRESH: Final = 2.0

#: Seconds for which cold content is taken to be what the origin said. Whoever wants it registers
#: at once, and from then on those who hold it say what it is.
KEPT: Final = 10.0

#: Seconds of a turn. An origin that takes longer is asked by another host as well: it may be the
#: host that is slow.
TURN: Final = 10.0

#: Seconds until somebody who reads must have more than before. Bytes are counted in steps of the
#: memory that they go to, of some megabytes.
STILL: Final = 60.0

#: Seconds that all wait at most for one who reads, whatever he says of how it gets on.
LONGEST: Final = 1800.0

#: Questions that may be open at once: of all, and of one host, which has one for each flight.
_MOST: Final = 65536
_MOST_OF_HOST: Final = 4096

#: Subjects that are remembered though nobody asks.
_MOST_KEPT: Final = 16384

#: Subjects that are looked at with each question, whether they can be forgotten: more than one.
_SWEPT: Final = 4

#: The priority at which no seed is asked.
_NO_SEED: Final = 3


class Descriptions:
    """See the module.

    Args:
        world: Who holds what.
        on_change: Called with a task when those who ask for it should look again.
    """

    def __init__(self, world: World, on_change: Callable[[TaskKey], None]) -> None:
        self._world = world
        self._on_change = on_change
        #: Of one task and credentials each; those of which nobody asks are the first to go.
        self._subjects: OrderedDict[tuple[TaskKey, bool, str], Subject] = OrderedDict()
        #: Open questions of each host, and of all.
        self._open: Counter[str] = Counter()
        self._all = 0
        #: What is read, for those who follow.
        self.growths = Growths()

    def __len__(self) -> int:
        return len(self._subjects)

    # -- questions -----------------------------------------------------------------------------

    def ask(
        self,
        host: Host,
        task_id: str,
        request: DownloadRequest,
        now: float,
        *,
        origin: bool,
        version: str = "",
        follows: bool = False,
        anew: bool = False,
    ) -> Asker:
        """*host* opens a question; :meth:`gone` ends it.

        Args:
            host: Who asks.
            task_id: About which task.
            request: With what its origin would be asked.
            now: When.
            origin: Nothing but the origin's word will do.
            version: Of what *host* holds.
            follows: It would follow a reader, and be followed.
            anew: Nor will a word of it do for which it was asked before this question.

        Raises:
            InvalidRequest: The URL cannot be parsed.
            Busy: Too many questions are open.
        """
        if self._open[host.id] >= _MOST_OF_HOST or self._all >= _MOST:
            raise Busy(
                f"{self._all} questions are open, {self._open[host.id]} of them of host "
                f"{host.id}; try again later"
            )
        credentials = credentials_of(request)
        key = request.kind, task_id
        name = key, origin, credentials if origin else ""
        subject = self._subjects.setdefault(name, Subject(key))
        self._subjects.move_to_end(name)
        follows = follows and host.shares
        asker = Asker(host, request, credentials, origin, now, subject, version, follows, anew)
        subject.askers[asker] = None
        self._open[host.id] += 1
        self._all += 1
        self._forget_old(now)
        return asker

    def answer(self, asker: Asker, now: float) -> Answer:
        """What to tell *asker*, whose turn it is not.

        Raises:
            OriginError: The origin has failed several others.
            NoProvider: Nobody can be asked.
        """
        subject = asker.subject
        self._end_turn(subject, now)
        task = self._world.tasks.get(asker.key)
        held = task is not None and bool(task.holders)
        if task is not None and held and not asker.origin:
            return self._told(asker, Description(*task.shape))
        word = self._word(asker, task)
        if word is not None and self._believes(asker, word, now):
            has_it = bool(asker.version) and asker.version == word.description.version
            if not has_it and not self._is_settled(asker.subject, word, now):
                return Wait(word.settles_at)
            subject.told.add(asker.host.id)
            return self._told(asker, word.description)
        if word is not None and now < word.settles_at and not held and not asker.origin:
            return Wait(word.settles_at)  # of others' credentials: soon it is held
        if subject.describer is not None:
            return Wait(subject.until, subject.reading, subject.received)
        subject.refusals.check(asker.credentials, self._world.limits, now)
        return self.growths.patience(asker, now) or self._nobody_asks(asker, task, now)

    def _told(self, asker: Asker, said: Description) -> Told:
        return Told(replace(said, growth=self.growths.name(asker, said)))

    def _believes(self, asker: Asker, word: Word, now: float) -> bool:
        if asker.credentials != word.by.credentials:
            return False
        if not asker.origin:
            return now - word.at <= KEPT
        if asker.anew:  # what was on its way when he came is of before, or may be
            return word.by.turn_at >= asker.came_at
        if word.at >= asker.came_at:
            return True
        told = {word.by.host.id, *asker.subject.told}
        return now - word.at <= FRESH and asker.host.id not in told

    @staticmethod
    def _word(asker: Asker, task: Task | None) -> Word | None:
        """What the origin has said; of cold content that somebody has had whole since, nothing.

        If nobody has it now, it was dropped on purpose.
        """
        word = asker.subject.word
        if word is None or asker.origin:
            return word
        if task is None:
            return None if word.had else word
        return None if task.state is TaskState.SUCCEEDED and task.updated_at > word.at else word

    def _nobody_asks(self, asker: Asker, task: Task | None, now: float) -> Answer:
        """Nobody is coming: steps 5 to 7."""
        trigger, limits = None if task is None else task.trigger, self._world.limits
        if not asker.request.only_peers:
            if trigger is not None and trigger.host_id != asker.host.id and not asker.origin:
                until = trigger.asked_at + limits.seed_start
                if now < until:
                    return Wait(until)
            subject = asker.subject
            subject.describer, subject.until, subject.reading = asker, now + TURN, False
            subject.received, subject.moved_at = 0, now
            asker.had_turn, asker.turn_at = True, now
            return YourTurn()
        failed = asker.subject.seed_failure
        if failed is not None and failed[0] >= asker.came_at:
            raise failed[1]
        if trigger is not None:  # as long as the seed lives
            asker.alone_since = None
            return Wait(now + limits.start)
        seeds = self._ask_seed(asker, task, now)
        if seeds is not None:
            return seeds
        asker.alone_since = now if asker.alone_since is None else asker.alone_since
        until = asker.alone_since + limits.patience
        if now < until:
            return Wait(until)
        if asker.request.priority == PRIORITY_ONLY_PEERS:
            raise OnlyPeers(f"task {asker.key[1]}: {ONLY_PEERS}")
        raise NoProvider(f"task {asker.key[1]}: nobody has it, and who asks may not ask the origin")

    def _ask_seed(self, asker: Asker, task: Task | None, now: float) -> AskSeed | None:
        """Seeds that may fetch it for *asker*; None if there are none, or that was tried."""
        request, world = asker.request, self._world
        banned = request.priority in (PRIORITY_ONLY_PEERS, _NO_SEED)
        if banned or asker.has_asked_seed or asker.host.is_seed:
            return None
        known = task or new_task(
            Registration(asker.host.id, asker.key[1], "", request).public(),
            RULES[request.kind],
            now,
        )
        seeds = tuple(world.seeds.order(known, now)) if now >= known.no_seed_before else ()
        if not seeds:
            return None
        if task is None:
            task = world.add_task(known.registration, now)
            oldest = world.room.task_idle(task.key)
            if oldest is not None:
                world.remove_task(world.tasks[oldest])
        asker.has_asked_seed = True
        task.trigger = Trigger(seeds[0].id, now)
        return AskSeed(task, seeds)

    # -- what is heard -------------------------------------------------------------------------

    def learnt(
        self, asker: Asker, description: Description, now: float, *, alone: bool = False
    ) -> None:
        """*asker* has the origin's word. *alone*: he will not register as a peer.

        Whose turn has ended meanwhile is heard, too.
        """
        subject = asker.subject
        if not asker.had_turn:
            return
        self._ends(asker, description)
        soon = alone or not description.content_length
        settles_at = now if soon else now + self._world.limits.start
        subject.word = Word(description, now, asker, settles_at)
        subject.told.clear()
        subject.refusals.clear()
        self._on_change(subject.key)

    def reading(
        self,
        asker: Asker,
        received: int,
        now: float,
        *,
        version: str = "",
        first: int = 0,
        crcs: Iterable[int] = (),
    ) -> None:
        """*asker* reads the content to its end, and has so many bytes now.

        What others need who would follow him: see :meth:`.Growths.heard`.
        """
        subject = asker.subject
        if not asker.had_turn or subject.describer not in (asker, None):
            return
        if not asker.reads:
            asker.reads, asker.reads_until = True, now + LONGEST
        elif now >= asker.reads_until:
            return
        news = not subject.reading
        subject.describer, subject.reading = asker, True
        if news or received > subject.received:
            subject.received, subject.moved_at = received, now
        subject.until = min(now + TURN, subject.moved_at + STILL, asker.reads_until)
        self.growths.heard(asker, version, first, crcs)
        if news:
            self._on_change(subject.key)

    def failed(self, asker: Asker, said: str, status: int | None, now: float) -> None:
        """The origin has failed *asker*, with these words, by that status if it answered."""
        if asker.had_turn:
            self._refused(asker, said, status, now)
            self._ends(asker)
            self._on_change(asker.key)

    def seed_failed(self, key: TaskKey, error: OriginError, now: float) -> None:
        """The origin has failed a seed that was asked for that task."""
        subject = self._subjects.get((key, False, ""))
        if subject is not None:
            subject.seed_failure = now, error

    def has_settled(self, asker: Asker, now: float) -> bool:
        """Nobody waits any more for *asker*, who has told what he knows, to register."""
        word = asker.subject.word
        waited_for = word is not None and word.by is asker and now < word.settles_at
        return not waited_for or self._is_settled(asker.subject, word, now)

    def _is_settled(self, subject: Subject, word: Word | None, now: float) -> bool:
        """Others can have what *word* describes from somebody, or need not wait for that.

        Of content that is compared, those who hold it may hold what it was before, and be about to
        drop it: of hosts that all take each other for holders, none would go to the origin.
        """
        task = self._world.tasks.get(subject.key)
        if word is None or now >= word.settles_at:
            return True
        if task is None:
            return False
        if not word.by.origin:
            return bool(task.holders)
        if any(task.peers[name].created_at >= word.at for name in task.at_origin):
            return True
        mine = word.by.host.peers.get(subject.key, {}).values()
        return any(
            peer.created_at >= word.at and (peer.state is PeerState.SUCCEEDED or len(peer.costs))
            for peer in mine
        )

    def gone(self, asker: Asker, now: float) -> None:
        """*asker*'s stream has ended: he waits no longer, or it is another's turn."""
        subject = asker.subject
        del subject.askers[asker]
        self._open[asker.host.id] -= 1
        self._all -= 1
        self.growths.left(asker)
        if not self._open[asker.host.id]:
            del self._open[asker.host.id]
        if subject.describer is asker:
            self._ends(asker)
            self._on_change(subject.key)
        word = subject.word
        if word is None or word.by is not asker:
            return
        if self.has_settled(asker, now):
            task = self._world.tasks.get(subject.key)
            subject.word = replace(word, had=task is not None and bool(task.holders))
            return
        # It died before it registered. What was read to its end is gone with it: a length alone
        # would be of no reading.
        subject.word = None if word.description.read else replace(word, settles_at=now)
        self._on_change(subject.key)

    def forget(self, key: TaskKey) -> None:
        """The task was deleted by its user: what was said of it need not hold any more."""
        for subject in self._subjects.values():
            if subject.key == key:
                subject.word = None

    # -- turns ---------------------------------------------------------------------------------

    def _end_turn(self, subject: Subject, now: float) -> None:
        """End a turn whose time is over. An origin that was silent meanwhile has failed."""
        asker = subject.describer
        if asker is None or now < subject.until:
            return
        if not subject.reading:
            self._refused(asker, f"no answer within {TURN:g} s", None, now)
        self._ends(asker)

    def _ends(self, asker: Asker, said: Description | None = None) -> None:
        subject = asker.subject
        self.growths.ended(asker, said)
        if subject.describer is asker:
            subject.describer, subject.reading = None, False

    def _refused(self, asker: Asker, said: str, status: int | None, now: float) -> None:
        refusal = Refusal(now, asker.host.id, asker.credentials, said, status)
        asker.subject.refusals.add(refusal)

    def _forget_old(self, now: float) -> None:
        """Drop the oldest of which nobody asks, and that have nothing to say any more."""
        for name, subject in list(islice(self._subjects.items(), _SWEPT)):
            if subject.askers:
                self._subjects.move_to_end(name)
            elif len(self._subjects) > _MOST_KEPT or _is_stale(subject, now):
                del self._subjects[name]


def _is_stale(subject: Subject, now: float) -> bool:
    word = subject.word
    return (word is None or now - word.at > KEPT) and now - subject.refusals.last_at > REST
