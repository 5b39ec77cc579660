"""One download of one host: the transfer that decides, and a model of the shell around it.

It does what ``daemon/downloading/driver.py`` and its neighbours do; :mod:`.fetches` fetches pieces.
What is decided here is decided by :mod:`pantala.core.transfer` and :mod:`pantala.core.pace`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pantala.core import transfer as t
from pantala.core.pace import Pace
from pantala.errors import DragonflyError, OriginError, Unavailable
from pantala.model import announce
from pantala.model.announce import Answer, Registration
from pantala.model.task import DownloadRequest, Kind

from .fetches import Fetches
from .following import Following, Wishes
from .host import Holding, Host, Task

if TYPE_CHECKING:
    from .scheduler import Stream
    from .swarm import Swarm


class Flight:
    """See the module.

    Args:
        swarm: Where it takes place.
        holding: What it fills.
        peer_id: Its name.
        for_others: A scheduler has asked this seed for it.
        then: What the host wants when it is over.

    Attributes:
        was_heard: The scheduler was told that all is here.
        over: Nothing more is to be done.
        failed: Why not all that was wanted is here; ``""`` for no reason.
        ended: When it was over.
    """

    def __init__(
        self,
        swarm: Swarm,
        holding: Holding,
        peer_id: str,
        *,
        for_others: bool = False,
        then: Sequence[Task] = (),
    ) -> None:
        settings = swarm.settings
        self.swarm = swarm
        self.holding = holding
        self.host: Host = holding.host
        self.peer_id = peer_id
        self.transfer = t.Transfer(
            swarm.rng, max_in_flight=settings.in_flight, max_schedules=settings.max_schedules
        )
        self.transfer.piece_length = holding.task.piece_length
        self.pace = Pace()
        self.begun = swarm.clock.now
        self.ended: float | None = None
        self.over = False
        self.failed = ""
        self.fetches = Fetches(self)
        self.follows: dict[str, Following] = {}
        self.wishes = Wishes(self)
        #: The stream to the scheduler, while it is open.
        self.stream: Stream | None = None
        #: Reports to the scheduler.
        self.told = 0
        self.for_others = for_others
        self.then = then
        self.was_heard = False
        #: Whatever scheduler is there is told that the content comes.
        self.reappears = False
        self._events: deque[t.Event] = deque()
        self._handling = False
        self._listening: dict[str, Host] = {}
        self._saw_something = False
        #: What parents were told last of how much would be fetched at once.
        self._room = 0

    # -- from begin to end -----------------------------------------------------------------------

    def begin(self) -> None:
        """Want all that is not here."""
        task, here = self.holding.task, self.holding.pieces
        self.holding.flight = self
        self.holding.uploads.began()
        self.swarm.log(self.host.name, "wants", task.number)
        wanted = {n: True for n in range(task.pieces) if not here >> n & 1}
        self.on(t.Wanted(wanted))
        self.swarm.scheduler.open(self, self.registration(), patient=True)
        if self.swarm.settings.look:
            self.swarm.clock.after(self.swarm.settings.look, self._look)

    def registration(self, *, comes: bool = False) -> Registration:
        """How it introduces itself; with *comes* to tell that the content is here or comes."""
        task = self.holding.task
        request = DownloadRequest(
            Kind.CACHE, task.url, need_back_to_source=self.for_others or comes
        )
        return Registration(
            host_id=self.host.facts.id,
            task_id=task.id,
            peer_id=self.swarm.new_peer(self.holding) if comes else self.peer_id,
            request=request,
            content_length=task.size,
            piece_length=task.piece_length,
            piece_count=task.pieces,
            concurrent_piece_count=self.swarm.settings.in_flight,
        )

    def _finish(self) -> None:
        self._stop()
        if not self.failed and not self.holding.is_whole:
            self.failed = "it ended before all was here"
        self.swarm.log(self.host.name, "ends", self.failed or "whole")
        self.swarm.ended(self)

    def _stop(self) -> None:
        """Let go of everything."""
        self.over = True
        self.ended = self.swarm.clock.now
        self.fetches.end()
        for following in list(self.follows.values()):
            following.end()
        for name, host in self._listening.items():
            host.listeners.pop((self, name), None)
        self.holding.uploads.ended()

    def die(self) -> None:
        """Its host has died."""
        if self.stream is not None:
            self.stream.break_off(self.swarm.settings.keepalive if self.host.silent else 0.0)
        followers = list(self.holding.uploads.followers)
        self.failed = "its host died"
        if not self.over:
            # Children of a silent host hear nothing, not even an end.
            for child in followers:
                self.holding.uploads.leave(child)
            self._stop()
            self.swarm.active -= 1
        for child in followers:
            if isinstance(child, Following):
                child.lose()

    # -- events and commands ---------------------------------------------------------------------

    def on(self, event: t.Event) -> None:
        """Something happened: have it decided, and carry out what is to be done."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        handle, clock = self.transfer.handle, self.swarm.clock
        try:
            while self._events and not self.over:
                event = self._events.popleft()
                if isinstance(event, t.Lost):
                    self.wishes.lacks(event.number, None)
                for command in handle(event, clock.now):
                    self._carry_out(command)
            self.wishes.spare(self.transfer.spared)
            room = self.transfer.room
            if room != self._room:
                self._room = room
                self.wishes.has_room(room)
        finally:
            self._handling = False

    def on_told(self, child: str, lacks: int, has: int) -> None:
        """One that follows this host tells what it lacks, and what it has or fetches."""
        if not self.over:
            self.on(t.Told(child, lacks, has))

    def _carry_out(self, command: t.Command) -> None:
        match command:
            case t.Fetch():
                self.wishes.has(command.number, command.parent)
                self.fetches.begin(command)
            case t.Follow(parent):
                self._follow(parent)
            case t.Drop(parent):
                self._unfollow(parent)
                host = self._listening.pop(parent, None)
                if host is not None:
                    host.listeners.pop((self, parent), None)
            case t.Seek(number, parent):
                self.wishes.lacks(number, parent)
            case t.Rejoin():
                self.swarm.log(self.host.name, "looks for a scheduler")
                self.peer_id = self.swarm.new_peer(self.holding)
                self.swarm.scheduler.open(self, self.registration(), patient=True)
            case t.FailPieces(pieces):
                self.failed = f"nobody provides {len(pieces)} pieces"
                self.on(t.Wanted({}))  # whoever wants it is refused, and leaves
            case t.Finish():
                self._finish()
            case _:
                self._tell(command)

    def _tell(self, report: announce.Report) -> None:
        if self.stream is not None:
            self.told += 1
            self.stream.tell(report)
            self.was_heard = isinstance(report, announce.Finished | announce.SourceFinished)

    def _follow(self, parent: str) -> None:
        self._unfollow(parent)
        self.pace.heard(parent, self.swarm.clock.now)
        wanted = 0
        for number in self.transfer.wanted:
            wanted |= 1 << number
        for number, _ in self.fetches.jobs:
            if number not in self.transfer.sought:
                wanted &= ~(1 << number)
        following = Following(self, parent, self.swarm.givers[parent], wanted)
        self.follows[parent] = following
        self.swarm.clock.after(following.delay, following.begin)

    def _unfollow(self, parent: str) -> None:
        following = self.follows.pop(parent, None)
        if following is not None:
            following.end()

    # -- news of the scheduler -------------------------------------------------------------------

    def on_answer(self, answer: Answer) -> None:
        """The scheduler has said what to do."""
        if self.over:
            return
        match answer:
            case announce.CandidateParents(candidates):
                names = [c.peer_id for c in candidates]
                self.swarm.log(self.host.name, "is given", *(c.host.id for c in candidates))
                own = self.host.facts.idc
                far = frozenset(c.peer_id for c in candidates if c.host.idc != own)
                self.on(t.Scheduled({c.peer_id: c.host.weight for c in candidates}, far))
                plain = not self.swarm.settings.exchange
                if plain and len(self.transfer.parents) >= 2 and self.transfer.has_backlog:
                    for name in (*self.transfer.parents, *names):
                        self._listen_to(name)
            case announce.NeedBackToSource():
                self.swarm.log(self.host.name, "is sent to the origin")
                self.on(t.ToldBackToSource())
            case announce.EmptyTask():
                self.on(t.ToldEmpty())

    def on_stream_end(self, error: DragonflyError | None) -> None:
        """Nobody will answer any more on the stream."""
        self.stream = None
        if self.over:
            return
        self.swarm.log(self.host.name, "has lost its scheduler")
        if isinstance(error, OriginError):
            self.on(t.Wanted(dict.fromkeys(self.transfer.wanted, False)))
        again = isinstance(error, Unavailable)
        if again and not self.reappears:
            self.reappears = True
            self.swarm.reappear(self)
        self.on(t.SchedulerLost(again))

    # -- how it gets on --------------------------------------------------------------------------

    def _listen_to(self, parent: str) -> None:
        if parent in self._listening or self.over:
            return
        known = self.transfer.parents.get(parent)
        if known is None or known.bad:
            return
        host = self._listening[parent] = self.swarm.givers[parent].host
        self.swarm.listen(host, self, parent)

    def weighed(self, parent: str, weight: float) -> None:
        """The host of a parent tells what it can give."""
        if not self.over:
            self.pace.host_heard(parent, self.swarm.clock.now)
            self.on(t.WeightChanged(parent, weight))

    def _look(self) -> None:
        """Look whether pieces come, and whether parents live."""
        if self.over:
            return
        swarm, now = self.swarm, self.swarm.clock.now
        swarm.clock.after(swarm.settings.look, self._look)
        exchange = swarm.settings.exchange
        for name, following in self.follows.items():
            if exchange and following.giver.host.alive:  # it says so once a second
                self.pace.host_heard(name, now)
        fetches = self.fetches.progress(now)
        look = self.pace.look(now, fetches, self.transfer.waits_for())
        if not exchange:
            for name in self.pace.silent(now):
                self._listen_to(name)
        something = bool(look.left or look.quiet) or not fetches
        if something or self._saw_something:
            self._saw_something = something
            self.on(look)
