"""One task on its way to this node, for all callers who want it.

    describe ──► admit ──► drive ──► settle
    local records,  room for   parents and   give back what
    swarm, origin   its pieces origin        did not come

There is at most one flight per task. Callers join it at any time; each sees its own download.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Final

import structlog

from pantala.daemon.node import Node, new_peer_id
from pantala.errors import (
    DragonflyError,
    NoRoom,
    SourceChanged,
    TimedOut,
    Unavailable,
)
from pantala.model.task import TaskRecord
from pantala.model.urls import public_url
from pantala.storage.holding import Holding
from pantala.storage.home import Reason
from pantala.storage.leases import Lease

from .announcing import introduction
from .callers import Callers
from .describing import Describing
from .download import Download
from .driver import Driver
from .growing import grow
from .means import Means
from .origins import Origins

logger = structlog.get_logger(__name__)

#: How often a task is begun before its callers are told that what comes does not belong
#: together: once, once with what was learnt from that, and once from a single answer of the origin.
_ATTEMPTS: Final = 3

#: Seconds for programs to let go of memory that they were told to, and between two looks.
_LET_GO: Final = 2.0
_LOOK: Final = 0.02

#: Seconds that a flight goes on when no caller is left. What is here by then may serve others;
#: an origin that trickles must not keep memory for ever.
ORPHAN_LIMIT: Final = 900.0


class Flight:
    """See the module. The engine makes it, and runs :meth:`run` once."""

    def __init__(self, node: Node, means: Means, first: Download) -> None:
        self._node = node
        self._means = means
        self._request = first.request
        self._kind = first.request.kind
        self._task_id = first.task_id
        #: What the task is made from, see :class:`~pantala.model.ids.Identity`.
        self.fingerprint = first.fingerprint
        #: Fit to be shown to others.
        self.url = public_url(first.request.url)
        self._peer_id = first.peer_id
        self._callers = Callers(first)
        self._origins = Origins(node, means.sources, self._callers)
        self._describing = Describing(node, means, first, self._callers)
        #: Versions that the content is known not to have.
        self._avoid: set[str] = set()
        self._holding: Holding | None = None
        #: It is to be read at the origin, whoever else has something by its name.
        self._insists = False
        #: All of it was here before.
        self._was_here = False
        self._lease: Lease | None = None
        self._driver: Driver | None = None
        #: It has let go of everything.
        self.ended = asyncio.Event()
        self._closed = False
        self._patience = asyncio.timeout(None)
        self._runner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        stage = self._driver.stage if self._driver else "describing"
        return f"<Flight {self._task_id[:8]} {stage}, {len(self._callers)} callers>"

    def join(self, download: Download) -> bool:
        """Take another caller along; False if it is too late for that."""
        if self._closed or (self._driver is not None and self._driver.over):
            return False
        if download.delivery.refresh and not self._describing.is_as_of(download.came_at):
            return False
        self._callers.add(download)
        self._look_orphaned()
        if self._driver is not None and self._holding is not None:
            self._admit(self._holding, download)
            self._driver.want()
        return True

    def forget(self, download: Download) -> None:
        """A caller is served otherwise, and takes no part in this flight any more."""
        self._callers.remove(download)

    def left(self) -> None:
        """Some caller needs nothing more."""
        self._look_orphaned()

    @property
    def is_waited_for(self) -> bool:
        """Some caller is still there."""
        return self._callers.is_waited_for

    def _look_orphaned(self) -> None:
        """Go on without anybody who waits, but not for ever."""
        if self._closed or self._patience.expired():
            return
        with contextlib.suppress(RuntimeError):  # it has not begun, or is at its end
            if self.is_waited_for:
                self._patience.reschedule(None)
            elif self._patience.when() is None:
                self._patience.reschedule(asyncio.get_running_loop().time() + ORPHAN_LIMIT)

    async def run(self) -> None:
        """Bring the task, or fail every caller. Never raises but when cancelled."""
        self._runner = asyncio.current_task()
        try:
            async with self._patience:
                self._look_orphaned()
                await self._fly()
        except DragonflyError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(Unavailable("the daemon is stopping"))
            raise
        except Exception as error:  # noqa: BLE001  a bug or a timeout: callers must hear of it
            self._fail(self._explain(error))
        finally:
            self._closed = True
            try:
                await self._origins.close()
            finally:
                self._let_go()

    def _explain(self, error: Exception) -> DragonflyError:
        """What callers are told of an error that is none of ours."""
        if isinstance(error, TimeoutError) and self._patience.expired():
            return TimedOut(f"given up: nobody has waited for {ORPHAN_LIMIT:g} s")
        logger.error("flight failed", task=self._task_id, exc_info=error)
        return DragonflyError(f"download failed: {type(error).__name__}")

    def _let_go(self) -> None:
        self._describing.release()
        if self._holding is not None:
            self._holding.settle()
        if self._lease is not None:
            self._lease.end()

    def give_up(self) -> None:
        """End it before its time; its callers are told that the daemon is stopping."""
        if self._runner is not None:
            self._runner.cancel()

    async def _fly(self) -> None:
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._carry(await self._describe())
            except SourceChanged as error:
                if not left or not self._callers.begin_again(error):
                    raise
                logger.warning("begun anew", task=self._task_id, why=str(error))
                await self._begin_again(error, last=left == 1)
            else:
                return

    async def _begin_again(self, error: SourceChanged, *, last: bool) -> None:
        """Drop what is here; what was learnt from it decides where to look for the rest."""
        driver, self._driver = self._driver, None
        holding, self._holding = self._holding, None
        self._describing.give_up()
        self._describing.version = error.version
        if holding is not None:
            if holding.record.version != error.version:
                self._avoid.add(holding.record.version)
            self._avoid.discard("")
            self._node.stores.remove(holding, Reason.CHANGED)
            await self._let_go_of(holding)
        one_answer = last or error.wavers
        sent = driver is not None and driver.at_source
        if (one_answer or sent) and self._callers.sponsor() is not None:
            self._request = replace(self._request, need_back_to_source=True)
        await self._origins.close()
        self._origins = Origins(
            self._node, self._means.sources, self._callers, one_answer=one_answer
        )
        self._peer_id = new_peer_id(self._node.config)

    async def _let_go_of(self, holding: Holding) -> None:
        """Give those who were told to let go of it a moment, if what comes has no room besides."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()
        ledger, loop = self._node.stores[self._kind].ledger, asyncio.get_running_loop()
        patience = loop.time() + _LET_GO
        while holding.account.leases and ledger.used + holding.account.size > ledger.capacity:
            if loop.time() > patience:
                break
            await asyncio.sleep(_LOOK)
            self._node.stores.recall()

    def _fail(self, error: DragonflyError) -> None:
        """Fail everybody who still waits."""
        self._describing.give_up()
        self._callers.fail(error)
        holding = self._holding
        if holding is None or holding.gone:
            return
        if isinstance(error, SourceChanged):
            # Pieces of two versions would be mixed by whoever goes on with this one.
            self._node.stores.remove(holding, Reason.CHANGED)
        elif not holding.complete:
            holding.failed()

    # -- what it is ----------------------------------------------------------------------------

    async def _describe(self) -> Holding:
        """The content as it is said to be; all of it, where only its end shows how long it is."""
        known = self._node.stores.get(self._kind, self._task_id)
        whole = known is not None and known.complete
        described = await self._describing.describe(self._request, self._origins)
        holding = self._hold(described.record)
        self._describing.release()
        self._insists = described.insists
        if self._describing.asked_at is not None:
            holding.compared_at = self._describing.asked_at
        # What is empty is complete at once. If it is new, nobody has been told, but of an import.
        self._was_here = holding.complete if described.imported else whole and holding is known
        if described.imported and not (holding.complete and holding.record.peer_id):
            holding.know_as(self._peer_id)  # now: it must outlive whatever ends this flight
        if described.streamed is not None:
            await grow(
                self._node,
                self._means,
                holding,
                self._callers,
                described.streamed,
                piece_length=self._request.piece_length,
                tell=self._describing.reading,
            )
            self._describing.read(holding.record)
        return holding

    def _hold(self, record: TaskRecord) -> Holding:
        holding = self._node.stores.open(record)
        self._lease, self._holding = holding.lease(), holding
        if record.content_length is not None:
            self._origins.expect(record.content_length, holding.record.version)
        return holding

    # -- getting it ----------------------------------------------------------------------------

    def _admit(self, holding: Holding, download: Download) -> None:
        """Tell a caller that the content is known, and make room for what it lacks.

        Where there is none, who can wait is ours no longer: it begins anew when there is. So does
        who cannot, where something is only followed, which goes in a moment.
        """
        room = self._means.rooms[self._kind]
        try:
            download.begin(holding, others_wait=room.is_wanted)
        except NoRoom as error:
            patient = download.patient and not download.closed
            if error.hopeless or not (patient or room.give_way):
                download.fail(error)
            else:
                self._callers.remove(download)
                last = None if patient else error
                room.wait(download, holding, error.needed, after=self.ended, error=last)
        except DragonflyError as error:
            download.fail(error)

    async def _carry(self, holding: Holding) -> None:
        for download in self._callers.active():
            self._admit(holding, download)
        told = False
        # Where nothing is missing, or nobody found room, there is nothing to tell.
        driven = bool(self._callers.active())
        if driven:
            told = await self._drive(holding)
        elif not holding.complete:
            self._describing.give_up()
        # Others shall know of what is here, unless they have been told before.
        if told:
            self._node.announcements.heard(holding)
        elif not holding.gone and (driven or not self._was_here):
            self._node.announcements.announce(holding)

    async def _drive(self, holding: Holding) -> bool:
        """Fetch what is wanted; whether the scheduler knows what is here now."""
        registration = introduction(
            self._node.config,
            self._callers,
            holding,
            self._request,
            self._peer_id,
            insists=self._insists,
            version=holding.record.version if (certain := self._is_certain(holding)) else "",
        )
        self._driver = Driver(
            self._node,
            self._means,
            holding,
            self._callers,
            self._origins,
            registration=registration,
            certain=certain,
            avoid=frozenset(self._avoid),
        )
        await self._driver.run()
        if registration is not None and registration.request.persistent and holding.complete:
            holding.keep()  # the scheduler counts on it, whether our caller is still there or not
        if registration is None or not self._driver.told_finished:
            return False
        return registration.request.range is None or not holding.complete

    def _is_certain(self, holding: Holding) -> bool:
        """The origin has said which version the content has, now or before."""
        version = self._describing.version
        named = bool(version) and version == holding.record.version
        return named or any(piece.parent_id is None for piece in holding.pieces.values())
