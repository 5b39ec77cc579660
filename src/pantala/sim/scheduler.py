"""The scheduler: its world and its decisions are those of production, its streams a model.

What ``scheduler/announce_streams.py``, ``waiters.py`` and ``seeds.py`` do with gRPC and tasks is
done here with calls on the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from pantala.core.absences import Absences
from pantala.core.sched.choose import AskSeed, Parents, ToSource, Wait, decide
from pantala.core.sched.entities import OVER, Caller, Peer, Task, TaskKey, Trigger
from pantala.core.sched.entities import Host as KnownHost
from pantala.core.sched.rules import Limits
from pantala.core.sched.states import PeerState
from pantala.core.sched.world import World
from pantala.errors import DragonflyError, HostUnknown, SchedulerLost
from pantala.model import announce
from pantala.model.announce import Answer, Candidate, Registration, Report

from .host import Host

if TYPE_CHECKING:
    from .swarm import Swarm

#: Seconds for which a seed that could not be reached is not asked; as ``scheduler/seeds.py``.
_REST: Final = 60.0
#: Seconds within which what peers are to hear of partners is gathered; as ``scheduler/news.py``.
_GATHER: Final = 0.05
#: Seconds after which those who wait for it look whether it is back.
_LOOK_AGAIN: Final = 0.5
#: What daemons call it.
_NAME: Final = "scheduler"
#: Seconds until the first word of a seed that lives; as ``scheduler/hosts.py``.
_HELLO: Final = 3.0


class Listener(Protocol):
    """Who has a stream open: a flight, or a host that only tells what it has."""

    stream: Stream | None

    @property
    def host(self) -> Host:
        """Where it is."""

    def on_answer(self, answer: Answer) -> None:
        """The scheduler has said what to do."""

    def on_stream_end(self, error: DragonflyError | None) -> None:
        """The stream has ended; with an error unless all was said."""


class Stream:
    """One announce stream, both ends."""

    __slots__ = (
        *("_all", "_listener", "_peer", "_registration", "_tries"),
        *("answered", "asked", "over", "pushed", "waits", "world"),
    )

    def __init__(self, scheduler: Scheduler, listener: Listener, words: Registration) -> None:
        self._all = scheduler
        self._listener = listener
        self._registration = words
        self._peer: Peer | None = None
        self._tries = 0
        self.world = scheduler.world
        self.over = False
        #: An answer, or an end, is to come.
        self.asked = True
        #: Answers that have arrived, and those of them that nobody had asked for.
        self.answered = self.pushed = 0
        #: Which of its waits goes on; 0: none does.
        self.waits = 0

    # -- the daemon's end --------------------------------------------------------------------------

    def tell(self, report: Report) -> None:
        """Send a message."""
        self._all.messages += 1
        self.asked = self.asked or isinstance(report, announce.Reschedule)
        self._all.swarm.clock.after(self._all.latency(self._listener.host), self._hear, report)

    def close(self) -> None:
        """Nobody tells or hears anything any more."""
        self._all.swarm.clock.after(self._all.latency(self._listener.host), self._end)

    def break_off(self, seconds: float) -> None:
        """The daemon is gone; the scheduler notices after so long."""
        self._all.swarm.clock.after(seconds + self._all.latency(self._listener.host), self._end)

    # -- the scheduler's end -----------------------------------------------------------------------

    def register(self) -> None:
        """The first message is here."""
        every, host = self._all, self._listener.host
        if self.over or not host.alive:
            return
        if not every.up:
            self.fail(SchedulerLost("the scheduler is away"))
            return
        self.world = every.world
        try:
            peer = self._peer = self.world.register(self._registration, every.swarm.clock.now)
        except HostUnknown as error:
            self._tries += 1
            if self._tries > 1:
                self.fail(error)
                return
            # The host hears of it, announces itself, and opens a stream anew.
            every.swarm.clock.after(2 * every.latency(host), self._introduce)
            return
        except DragonflyError as error:
            self.fail(error)
            return
        self.world.stream_opened(peer)
        every.streams[self] = None
        every.by_peer[peer] = self
        if peer.state is PeerState.RECEIVED_EMPTY:
            self._answer(announce.EmptyTask())
        else:
            self.schedule()

    def _introduce(self) -> None:
        if self._all.up and self._listener.host.alive:
            self._all.announce(self._listener.host)
        self.register()

    def schedule(self) -> None:
        """Decide on the peer; again later if it has to wait."""
        every, peer = self._all, self._peer
        if self.over or peer is None or peer.state in OVER:
            return
        every.forget(self, peer.task)
        try:
            while True:
                every.decisions += 1
                now = every.swarm.clock.now
                match decide(self.world, peer, now, every.swarm.rng):
                    case Parents(parents, partners):
                        self._answer(candidates((*parents, *partners)))
                        return
                    case ToSource(why):
                        self._answer(announce.NeedBackToSource(why))
                        return
                    case AskSeed(seeds):
                        every.ask_seed(peer.task, seeds)
                    case Wait(until):
                        every.wait(self, peer.task, until)
                        return
        except DragonflyError as error:
            self.fail(error)

    def _answer(self, answer: Answer) -> None:
        every = self._all
        every.answers += 1
        every.swarm.clock.after(every.latency(self._listener.host), self._answered, answer)

    def _answered(self, answer: Answer) -> None:
        if self._listener.host.alive and self._listener.stream is self:
            if self.asked:
                self.answered += 1
            else:
                self.pushed += 1
            self.asked = False
            self._listener.on_answer(answer)

    def _hear(self, said: Report) -> None:
        peer, now = self._peer, self._all.swarm.clock.now
        if self.over or peer is None or self.world.peers.get(peer.key) is not peer:
            return
        if isinstance(said, announce.PieceReport):
            self._hear_of_piece(peer, said, now)
        elif isinstance(said, announce.Reschedule):
            for parent in said.parents:
                self.world.block(peer, parent)
            self.schedule()
        else:
            self._hear_of_download(peer, said, now)

    def _hear_of_piece(self, peer: Peer, said: announce.PieceReport, now: float) -> None:
        match said:
            case announce.PieceFinished(piece) | announce.SourcePieceFinished(piece):
                self.world.piece(peer, piece.cost, piece.parent_id, now)
            case announce.PieceFailed(parent_id=parent):
                self.world.piece_failed(peer, parent, now)
            case announce.SourcePieceFailed():  # pragma: no branch  the last one
                self.world.touch(peer, now)

    def _hear_of_download(self, peer: Peer, said: announce.DownloadReport, now: float) -> None:
        match said:
            case announce.Started():
                self.world.start(peer, now)
            case announce.SourceStarted():
                self._all.forget(self, peer.task)
                self.world.start_back_to_source(peer, now)
            case announce.Finished() | announce.SourceFinished():
                self.world.finish(peer, now)
                self._end()
            case announce.Failed() | announce.SourceFailed():  # pragma: no branch  no other
                self.world.fail(peer, now)
                self._end()

    def tell_news(self) -> None:
        """Tell the peer of partners that it has got; what is being decided will name them, too."""
        if not self.over and not self.waits and self._peer is not None:
            partners = self.world.partners.take_news(self._peer)
            if partners:
                self._answer(candidates(partners))

    def fail(self, error: DragonflyError) -> None:
        """The stream ends with an error, which its listener hears."""
        self._end()
        self._all.swarm.clock.after(self._all.latency(self._listener.host), self._failed, error)

    def _failed(self, error: DragonflyError) -> None:
        if self._listener.host.alive and self._listener.stream is self:
            self.asked = False
            self._listener.on_stream_end(error)

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._all.streams.pop(self, None)
        if self._peer is not None:
            del self._all.by_peer[self._peer]
            self.world.fail(self._peer, self._all.swarm.clock.now)
            self.world.stream_closed(self._peer)


class Scheduler:
    """The one scheduler of a swarm.

    Attributes:
        up: It runs.
        streams: Those that have registered, in that order.
        messages: From hosts. ``answers`` went to them, and ``decisions`` were made for those.
    """

    def __init__(self, swarm: Swarm, limits: Limits) -> None:
        self.swarm = swarm
        self.limits = limits
        self.world = self._new_world()
        self.up = True
        #: Hosts notice at the same moment that it has gone, or is back: one for all.
        self._absences = Absences()
        self._absences.back(_NAME, 0.0, blank=True)
        self.streams: dict[Stream, None] = {}
        self.by_peer: dict[Peer, Stream] = {}
        #: Those who have news, the first one first.
        self._due: dict[Peer, None] = {}
        self.messages = self.answers = self.decisions = 0
        self._waiting: dict[TaskKey, dict[Stream, None]] = {}
        self._waits = 0

    def _new_world(self) -> World:
        return World(
            self.limits, self._wake, on_orphan=self._has_orphan, on_partner=self._has_partner
        )

    def latency(self, host: Host) -> float:
        """Seconds to or from a host."""
        return self.swarm.latency(None, host)

    def announce(self, host: Host) -> None:
        """A host tells of itself."""
        self.messages += 1
        self.world.announce(host.facts, self.swarm.clock.now, Caller(host.facts.ip, b"own"))

    def open(self, listener: Listener, words: Registration, *, patient: bool = False) -> None:
        """Open a stream; if *patient*, not before a scheduler that has gone may be back."""
        stream = listener.stream = Stream(self, listener, words)
        self._begin(stream, listener.host, words.task_id if patient else "")

    def _begin(self, stream: Stream, host: Host, task_id: str) -> None:
        there = {_NAME} if self.up else set()
        pause = self._absences.wait(task_id, there, self.swarm.clock.now) if task_id else 0.0
        if pause:
            self.swarm.clock.after(min(pause, _LOOK_AGAIN), self._begin, stream, host, task_id)
            return
        self.messages += 1
        self.swarm.clock.after(self.latency(host), stream.register)

    def stop(self) -> None:
        """Its process ends, and all that it knew is gone."""
        self.up = False
        self._absences.lost(_NAME, self.swarm.clock.now)
        for stream in list(self.streams):
            stream.fail(SchedulerLost("the scheduler has gone"))
        self._waiting.clear()

    def start(self) -> None:
        """It is started anew, and knows nothing."""
        self.up = True
        self.world = self._new_world()
        self._absences.back(_NAME, self.swarm.clock.now, blank=True)

    # -- those who wait ----------------------------------------------------------------------------

    def wait(self, stream: Stream, task: Task, until: float) -> None:
        """Decide for *stream* again when *task* changes, and at that time in any case."""
        self._waits += 1
        stream.waits = self._waits
        self._waiting.setdefault(task.key, {})[stream] = None
        now = self.swarm.clock.now
        self.swarm.clock.at(max(now, until), self._time_is_up, stream, self._waits)

    def forget(self, stream: Stream, task: Task) -> None:
        """*stream* waits no more, if it did."""
        if stream.waits:
            stream.waits = 0
            self._waiting.get(task.key, {}).pop(stream, None)

    def _time_is_up(self, stream: Stream, which: int) -> None:
        if stream.waits == which:
            stream.schedule()

    def _wake(self, task: Task) -> None:
        waiting = self._waiting.pop(task.key, None)
        if waiting:
            for stream in waiting:
                stream.waits = -1  # its timer is for nothing; it is called in a moment
            self.swarm.clock.after(0.0, self._resume, waiting)

    def _resume(self, streams: dict[Stream, None]) -> None:
        for stream in streams:
            if stream.waits:  # else it has been told meanwhile
                stream.schedule()

    # -- those who are told more -------------------------------------------------------------------

    def _has_partner(self, peer: Peer) -> None:
        """A peer has a partner of whom it has not heard: it hears soon, of all at once."""
        if peer not in self.by_peer:
            return
        if not self._due:
            self.swarm.clock.after(_GATHER, self._tell_news)
        self._due[peer] = None

    def _tell_news(self) -> None:
        due, self._due = self._due, {}
        for peer in due:
            stream = self.by_peer.get(peer)
            if stream is not None:
                stream.tell_news()

    def _has_orphan(self, peer: Peer) -> None:
        """A peer has lost its last parent: it may follow partners alone, and wait for nobody."""
        stream = self.by_peer.get(peer)
        if stream is not None and not stream.waits:
            self.swarm.clock.after(0.0, stream.schedule)

    # -- seeds -------------------------------------------------------------------------------------

    def ask_seed(self, task: Task, seeds: Sequence[KnownHost]) -> None:
        """Ask one of *seeds* for *task*, in this order, until one carries it out."""
        task.trigger = Trigger(seeds[0].id, self.swarm.clock.now)
        host = self.swarm.by_name[seeds[0].id]
        self.swarm.clock.after(self.latency(host), self._call, self.world, task, tuple(seeds))

    def _call(self, world: World, task: Task, seeds: tuple[KnownHost, ...]) -> None:
        host = self.swarm.by_name[seeds[0].id]
        arguments = (world, task, seeds)
        if not host.alive:
            seconds = _HELLO if host.silent else self.latency(host)
            self.swarm.clock.after(seconds, self.seed_failed, *arguments)
            return
        self.swarm.seed(host, int(task.id, 16), arguments)

    def seed_failed(self, world: World, task: Task, seeds: tuple[KnownHost, ...]) -> None:
        """The first of *seeds* cannot be reached: the next is asked."""
        now = self.swarm.clock.now
        world.seeds.leave_out(seeds[0], now + _REST)
        if world is not self.world:
            return
        if len(seeds) > 1:
            self.ask_seed(task, seeds[1:])
        else:
            world.end_trigger(task, no_seed_before=now + world.limits.seed_pause)

    def seed_done(self, world: World, task: Task, seeds: tuple[KnownHost, ...]) -> None:
        """The first of *seeds* has carried it out, as far as it could."""
        if world is self.world:
            pause = 0.0 if world.is_held_by(seeds[0], task) else world.limits.seed_pause
            world.end_trigger(task, no_seed_before=self.swarm.clock.now + pause)


def candidates(peers: Iterable[Peer]) -> announce.CandidateParents:
    """What a child is told of those that it shall follow."""
    return announce.CandidateParents(
        tuple(Candidate(peer.id, peer.host.facts, peer.state.value) for peer in peers)
    )
