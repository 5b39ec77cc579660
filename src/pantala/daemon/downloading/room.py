"""Those who wait for room in a store, in the order in which they came.

Whoever waits holds nothing: neither bytes nor a lease. So those who wait never keep each other
waiting, and a large task has its turn like a small one: as long as somebody waits, those who
come later wait behind. Who needs nothing more than what is reserved already goes past.

A task of unknown length is the exception. It holds what has come of it, and needs more to come
to its end. Such tasks go first; when they alone have all that is in use, the youngest is
refused.

What has come of a task that is only followed (:mod:`.trailing`) goes for whoever waits. Those who
do not wait for room wait for that: it takes a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pantala.core.ledger import Needs
from pantala.errors import DragonflyError, NoRoom, TimedOut, Unavailable
from pantala.model.task import Kind, TaskRecord
from pantala.ports import Sink
from pantala.storage.holding import Holding
from pantala.storage.store import Store
from pantala.storage.stores import Stores

from .callers import Callers
from .download import Download

#: Seconds that somebody waits who has set no limit; as long as a flight goes on without callers.
LIMIT: Final = 900.0

#: Seconds for what is only followed to go: until a thread that receives a step has let go of it.
GIVE_WAY: Final = 2.0

#: Seconds between two looks while somebody waits, for what nobody tells of: programs that let go of
#: what was handed off to them, callers whose time is over.
_LOOK: Final = 0.1


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits.

    Attributes:
        record: What it wants, as it was known when there was no room.
        missing: Numbers of the pieces that it wants.
        ready: Set when the flight has let go of everything in which there was no room.
        until: When it has waited for long enough, on the loop's clock.
        error: What it is told then; None: for how long it has waited.
    """

    download: Download
    record: TaskRecord
    missing: frozenset[int]
    ready: asyncio.Event
    until: float
    error: NoRoom | None


@dataclass(slots=True, eq=False)
class _Grower:
    """A task of unknown length that needs more; *may* says whether to try again.

    Attributes:
        patient: It waits for as long as some caller does; else, for what gives way.
    """

    holding: Holding
    callers: Callers
    until: float
    patient: bool
    may: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Room:
    """See the module.

    Args:
        store: Where room is wanted.
        begin: Begins a download for which there is room now.
    """

    def __init__(self, store: Store, begin: Callable[[Download], None]) -> None:
        self._store = store
        self._waiters: list[_Waiter] = []
        self._growers: list[_Grower] = []
        #: Called when somebody waits: what has come of something that is only followed goes.
        self.give_way: set[Callable[[], None]] = set()
        #: Somebody waits.
        self._some = asyncio.Event()
        self._soon = False
        self._begin = begin
        store.on_room = self.look

    def __len__(self) -> int:
        return len(self._waiters) + len(self._growers)

    @property
    def place(self) -> str:
        """Where room is wanted, in words."""
        return self._store.medium.place.name

    @property
    def is_wanted(self) -> bool:
        """Somebody waits; who comes now comes after."""
        return any(w.ready.is_set() for w in self._waiters)

    def wait(
        self,
        download: Download,
        holding: Holding,
        need: int,
        after: asyncio.Event,
        *,
        error: NoRoom | None = None,
    ) -> None:
        """Begin *download* anew when it is its turn; it holds nothing until then.

        Args:
            download: It has said what it is missing of *holding*.
            holding: What it wants.
            need: Bytes for which there was no room.
            after: Set when the flight has let go of everything in which there was none.
            error: It waits until what is only followed has gone, and is told this if that is not
                enough. None: it waits as long as it takes.
        """
        record = replace(
            holding.record, finished_at=None, failed_at=None, prefetched_at=None, uploading_count=0
        )
        until = self._until(patient=error is None)
        missing = frozenset(download.missing)
        self._waiters.append(_Waiter(download, record, missing, after, until, error))
        download.wait_for_room(need, self._store.holders)
        self._make_way()

    @staticmethod
    def _until(*, patient: bool) -> float:
        return asyncio.get_running_loop().time() + (LIMIT if patient else GIVE_WAY)

    def _make_way(self) -> None:
        """Somebody waits, perhaps only for what is followed."""
        for goes in list(self.give_way):
            goes()
        self.look()

    async def extend(self, holding: Holding, callers: Callers) -> Sink:
        """:meth:`.Holding.extend`, as soon as there is room.

        Raises:
            NoRoom: There will be none, or nobody waits for it any more.
            TaskDeleted, Unavailable: As that does.
        """
        until = self._until(patient=True)
        while True:
            try:
                return holding.extend()
            except NoRoom as error:
                patient = callers.is_patient
                if error.hopeless or not (patient or self.give_way):
                    raise
                until = until if patient else self._until(patient=False)
                grower = _Grower(holding, callers, until, patient)
                self._growers.append(grower)
                for download in callers.active():
                    download.wait_for_room(self._store.medium.step, self._store.holders)
                self._make_way()
                try:
                    may = await grower.may
                finally:
                    self._growers.remove(grower)
                    self.look()
                if not may:
                    raise

    def look(self) -> None:
        """There may be room now, or somebody may have left: look soon whose turn it is."""
        if not self:
            return
        self._some.set()
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._look)

    async def watch(self) -> None:
        """Look now and then while somebody waits: one round of a loop."""
        await self._some.wait()
        self._look()
        if not self:
            self._some.clear()
        await asyncio.sleep(_LOOK)

    def give_up(self) -> None:
        """The daemon is stopping: nobody has a turn any more."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.download.fail(Unavailable("the daemon is stopping"))

    # -- turns ---------------------------------------------------------------------------------

    def _look(self) -> None:
        self._soon = False
        now = asyncio.get_running_loop().time()
        self._drop(now)
        self._store.recall()
        if any(not grower.may.done() for grower in self._growers):
            self._grow(now)
        else:
            self._serve()

    def _drop(self, now: float) -> None:
        """Forget those who have left, and those who have waited for long enough."""
        for waiter in self._waiters:
            if now >= waiter.until and not waiter.download.over:
                late = waiter.error or TimedOut(waiter.download.room_report())
                waiter.download.fail(late)
        self._waiters = [w for w in self._waiters if not (w.download.over or w.download.closed)]

    def _serve(self) -> None:
        blocked = False
        for waiter in list(self._waiters):
            if not waiter.ready.is_set():
                continue
            if blocked and self._store.lacks(waiter.record, waiter.missing):
                continue
            if self._store.could_hold(waiter.record, waiter.missing):
                self._waiters.remove(waiter)
                self._turn(waiter)
            else:
                blocked = True

    def _turn(self, waiter: _Waiter) -> None:
        """There is room: set it aside, and begin."""
        download, record = waiter.download, waiter.record
        holding = self._store.get(record.kind, record.id)
        try:
            if holding is None:
                holding = self._store.open(replace(record, updated_at=self._store.now()))
            lease = holding.lease()
            download.keep(lease)
            # Of a task that has changed other pieces are missing: the flight will say which.
            if self._store.has_lengths_of(record):
                holding.reserve(waiter.missing, early=download.delivery.early)
        except DragonflyError as error:
            download.fail(error)
            if holding is not None:
                holding.settle()
            return
        self._begin(download)

    def _grow(self, now: float) -> None:
        """Let the oldest go on that can; if none ever will, refuse the youngest."""
        ledger = self._store.ledger
        waiting = [grower for grower in self._growers if not grower.may.done()]
        for grower in waiting:
            left = grower.patient and not grower.callers.is_patient
            if grower.holding.gone or now >= grower.until or left:
                grower.may.set_result(False)
                return
            if ledger.could_reserve(grower.holding.account, self._store.medium.step, Needs()):
                grower.may.set_result(True)
                return
        if ledger.leased <= sum(grower.holding.reserved_bytes for grower in waiting):
            waiting[-1].may.set_result(False)


class Rooms:
    """A :class:`Room` for each store.

    Args:
        stores: They.
        begin: Begins a download for which there is room now.
    """

    def __init__(self, stores: Stores, begin: Callable[[Download], None]) -> None:
        self._stores = stores
        self._rooms = {store: Room(store, begin) for store in stores.all()}

    def __getitem__(self, kind: Kind) -> Room:
        """That of the store that a kind is in."""
        return self._rooms[self._stores[kind]]

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    def look(self) -> None:
        """Somebody may have left: see in each store whose turn it is now."""
        for room in self:
            room.look()

    def give_up(self) -> None:
        """The daemon is stopping: nobody has a turn any more."""
        for room in self:
            room.give_up()
